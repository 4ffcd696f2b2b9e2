//! The plan of a study, as it was drawn.

use maud::{Markup, html};
use uuid::Uuid;

use crate::api::http::ApiError;
use crate::api::pages::{address::Address, number, questions, view::View};
use crate::api::state::App;
use crate::api::studies::{self, ProgressResponse};
use crate::store::{GoldPlan, PromptSelection, RunName, StudyPlan, StudyState};

/// What a plan refers to.
pub(super) struct Facts {
    /// Its runs with their names; without one, it was deleted.
    runs: Vec<(Uuid, Option<RunName>)>,
    /// Most items of an annotator.
    items: usize,
}

/// Reads what a plan refers to.
pub(super) async fn facts(app: &App, of: &ProgressResponse) -> Result<Facts, ApiError> {
    let plan = &of.study.plan;
    let mut found = Vec::new();
    for &id in &plan.runs {
        let run = app.store.run(id).await?;
        found.push((id, run.map(|run| run.name)));
    }
    Ok(Facts { runs: found, items: studies::most_items(app, of.study.id, plan).await? })
}

/// Renders the plan; open while it is a draft.
pub(super) fn section(view: &View, of: &ProgressResponse, facts: &Facts) -> Markup {
    let (plan, items) = (&of.study.plan, facts.items);
    let asked = studies::questions(plan);
    let answers = [(plan.ties, "“equally good”"), (plan.cannot_tell, "“cannot tell”")];
    let answers = answers.iter().filter(|(has, _)| *has).map(|(_, word)| *word);
    let answers: Vec<&str> = std::iter::once("an image").chain(answers).collect();
    html! {
        details #plan open[of.study.state == StudyState::Draft] {
            summary { h2 { "The plan" } }
            dl.facts {
                dt { "Methods" }
                dd { @for (at, (id, name)) in facts.runs.iter().enumerate() {
                    @if at > 0 { ", " }
                    (method(view, *id, name.as_ref()))
                } }
                dt { "Questions" }
                dd { @for (at, question) in asked.iter().enumerate() {
                    @if at > 0 { " " }
                    @if of.study.images > 2 { (questions::ask_many(question)) }
                    @else { (questions::ask(question)) }
                } }
                dt { "Answers" }
                dd { (answers.join(", ")) }
                dt { "Prompts" }
                dd { (prompts(&plan.prompts)) }
                @if let Some(sets) = plan.sets_per_prompt {
                    dt { "Items for a prompt" }
                    dd { (sets) }
                }
                dt { "An annotator" }
                dd { (number::count(items as u64)) @if items == 1 { " item" } @else { " items" } " at most" }
                dt { "Known answers" }
                dd { @match &plan.gold {
                    Some(gold) => { (known(gold, items)) }
                    None => { "no gold items" }
                } }
                dt { "Seed" }
                dd { (plan.seed) }
                @if !view.is_shared() {
                    dt { "Completion code" }
                    dd { @match &plan.completion_code {
                        Some(code) => { "of all: " code { (code) } }
                        None => { "one for each annotator" }
                    } }
                }
                dt { "Annotators agree to" }
                dd { (consent(plan)) }
            }
        }
    }
}

fn method(view: &View, id: Uuid, name: Option<&RunName>) -> Markup {
    html! {
        @match name {
            Some(of) => {
                @let name = html! { bdi { (of.method) } " / " bdi { (of.run) } };
                (view.link(&Address::new(format!("/runs/{id}")), &name))
            }
            None => { "a run that was deleted" }
        }
    }
}

fn prompts(of: &PromptSelection) -> Markup {
    let named = [("dataset", &of.dataset), ("split", &of.split), ("kind", &of.kind)];
    let named = named.into_iter().filter_map(|(what, name)| {
        let name = name.as_ref()?;
        Some(html! { (what) " " bdi { (name) } })
    });
    let counts = [("people", &of.people), ("names", &of.names)];
    let counts = counts.into_iter().filter_map(|(what, list)| {
        let count = number::count(list.as_ref()?.len() as u64);
        Some(html! { (count) " chosen " (what) })
    });
    let drawn = of.sample.map(|sample| html! { (number::count(sample)) " drawn at random" });
    let all: Vec<Markup> = named.chain(counts).chain(drawn).collect();
    html! {
        @if all.is_empty() { "all that the runs have in common" }
        @for (at, each) in all.iter().enumerate() {
            @if at > 0 { ", " }
            (each)
        }
    }
}

/// Renders the plan of gold items. An annotator is asked about so many items at most.
fn known(gold: &GoldPlan, items: usize) -> Markup {
    let least = gold.least();
    let met = gold.items.len().min(items.div_ceil(gold.every.max(1) as usize));
    html! {
        (gold.items.len()) @if gold.items.len() == 1 { " gold item" } @else { " gold items" }
        ", one of " (gold.every) " items. Below " (number::percent(gold.share)) " right after "
        (least) @if least == 1 { " answer" } @else { " answers" }
        " to them, an annotator is left out."
        @if met < least as usize {
            " " strong { "Nobody will be left out: with at most " (items)
                @if items == 1 { " item" } @else { " items" } ", an annotator meets " (met)
                @if met == 1 { " gold item" } @else { " gold items" } " at most." }
        }
    }
}

fn consent(plan: &StudyPlan) -> Markup {
    html! {
        @match &plan.consent {
            Some(text) => {
                @for line in text.lines().filter(|line| !line.trim().is_empty()) {
                    p { bdi { (line) } }
                }
            }
            None => { "the text of this service" }
        }
    }
}
