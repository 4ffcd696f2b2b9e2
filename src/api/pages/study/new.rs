//! `/study?new=true`: how many answers a study needs, and the form of a new one.

use std::collections::BTreeSet;

use axum::response::Response;
use maud::{Markup, html};
use uuid::Uuid;

use super::form::{ANSWERS, Filled, IMAGES, form};
use crate::api::http::{ApiError, Id};
use crate::api::pages::{
    address::Address,
    number,
    view::{Section, View},
};
use crate::api::runs::{self, RunOrder, RunResponse, RunsQuery};
use crate::api::state::App;
use crate::api::studies::create::MOST_RUNS;
use crate::api::studies::sample_size::{self, SampleSizeQuery, SampleSizeResponse};

/// The parameter of the share to tell from chance: `share` is taken by pages.
const TARGET: &str = "target";

/// The parameter that the button of the computation sends.
const SIZE: &str = "size";

/// Runs to choose from.
const RUNS: u32 = 100;

pub(super) async fn read(app: &App, address: &Address) -> Result<Response, ApiError> {
    let mut query: SampleSizeQuery = address.query(&["new", TARGET, SIZE, "method", "dataset"])?;
    query.share = address.get(TARGET).map(|text| text.trim().parse().unwrap_or(f64::NAN));
    let asked = query.share.is_some() || query.difference.is_some() || address.get(SIZE).is_some();
    // The fields show what stands for empty ones.
    let share = share(*query.k.get_or_insert(IMAGES));
    query.answers_per_item.get_or_insert(ANSWERS);
    if query.difference.is_none() {
        query.share.get_or_insert(share);
    }
    let size = asked.then(|| sample_size::respond(&query));
    let filled = Filled { fields: address, is_sent: false };
    let content = html! {
        h1 { "New study" }
        p.lead {
            "A study asks people which of several images is the best: of chosen methods, about chosen \
                prompts, as often as you decide."
        }
        (sizes(address, share, size))
        h2 #form { "The study" }
        (body(app, &filled).await?)
    };
    view(address).respond(app, &content)
}

/// Shows the form again after it was refused, with what was filled in.
pub(super) async fn again(
    app: &App,
    fields: &Address,
    error: &ApiError,
) -> Result<Response, ApiError> {
    let filled = Filled { fields, is_sent: true };
    let content = html! {
        h1 { "New study" }
        div.note.bad role="alert" {
            p { strong { "The study was not created." } " Mend this and send the form again:" }
            p { (error.detail()) }
        }
        (body(app, &filled).await?)
    };
    let mut response = view(&Address::new("/study").with("new", "true")).respond(app, &content)?;
    *response.status_mut() = error.code().status();
    Ok(response)
}

fn view(address: &Address) -> View {
    View::new(Section::Study, "New study", address).style("study.css")
}

/// Renders the form, or what it needs.
async fn body(app: &App, filled: &Filled<'_>) -> Result<Markup, ApiError> {
    let text = |name: &str| filled.fields.get(name).map(ToOwned::to_owned);
    // The fields of a form that was sent describe the study and choose no runs to show.
    let wanted = |name: &str| if filled.is_sent { None } else { text(name) };
    let query = RunsQuery {
        method: wanted("method"),
        dataset: wanted("dataset"),
        state: None,
        order: RunOrder::Newest,
        after: None,
        limit: Some(RUNS),
    };
    let is_filtered = query.method.is_some() || query.dataset.is_some();
    let listed = runs::respond(app, query).await?;
    let (mut listed, more) = (listed.runs, listed.next.is_some());
    let known: BTreeSet<Uuid> = listed.iter().map(|run| run.run_id).collect();
    let chosen = filled.fields.all("runs").filter_map(|id| id.parse().ok());
    let older: BTreeSet<Uuid> = chosen.filter(|id| !known.contains(id)).take(MOST_RUNS).collect();
    for id in older {
        // One that is gone meanwhile cannot be chosen.
        if let Ok(run) = runs::find(app, Id::new(id)).await {
            listed.push(RunResponse::new(run, &app.scoring.pack().id()));
        }
    }
    let enough = listed.len() >= 2;
    Ok(html! {
        @if more || is_filtered { (narrow(filled.fields, more)) }
        @if enough || filled.is_sent {
            (form(app, &listed, filled))
        } @else if is_filtered {
            p { "Fewer than two runs fit. " a href="/study?new=true" { "All runs" } }
        } @else {
            p { "A study needs runs of two methods with images of the same names. "
                a href="/runs" { "Runs of this service" } }
        }
    })
}

/// Renders the choice of the runs to choose from.
fn narrow(address: &Address, more: bool) -> Markup {
    let value = |name: &str| address.get(name).unwrap_or_default();
    html! {
        form.filters method="get" action="/study" {
            input type="hidden" name="new" value="true";
            label { "Runs of the method" input type="text" name="method" value=(value("method")); }
            label { "Runs over the dataset" input type="text" name="dataset" value=(value("dataset")); }
            button { "Show these runs" }
            @if more { span.fine { "The newest " (RUNS) " are shown. Choose before you fill in the form." } }
        }
    }
}

/// Returns the share to tell from chance that an empty field stands for: a tenth more, in whole
/// percent.
fn share(k: u32) -> f64 {
    ((1.0 / f64::from(k.max(2)) + 0.1) * 100.0).round() / 100.0
}

fn sizes(
    address: &Address,
    share: f64,
    size: Option<Result<SampleSizeResponse, ApiError>>,
) -> Markup {
    let field = |name: &str, label: &str, hint: &str, step: &str| {
        html! {
            label { (label)
                input type="number" name=(name) step=(step) min="0" placeholder=(hint)
                    value=(address.get(name).unwrap_or_default());
            }
        }
    };
    html! {
        h2 #size { "How many answers?" }
        form.filters method="get" action="/study" {
            input type="hidden" name="new" value="true";
            (field("k", "Images of an item", &IMAGES.to_string(), "1"))
            (field(TARGET, "Share to tell from chance", &share.to_string(), "any"))
            (field("difference", "or difference in strength", "instead", "any"))
            (field("power", "Power", "0.8", "any"))
            (field("alpha", "Level", "0.05", "any"))
            (field("answers_per_item", "Answers about an item", &ANSWERS.to_string(), "1"))
            (field("correlation", "Their correlation", "0.2", "any"))
            (field("price", "Price of an answer", "optional", "any"))
            (field("seconds", "Seconds of an answer", "optional", "any"))
            button name=(SIZE) value="true" { "Compute" }
        }
        @match size {
            None => {
                p.fine { "The grey numbers stand for empty fields. A method that is as good as the \
                    others is the best of k in 1/k of the answers." }
            }
            Some(Err(error)) => { p.note.warn role="alert" { (error.detail()) } }
            Some(Ok(of)) => { (answers(&of)) }
        }
    }
}

fn answers(of: &SampleSizeResponse) -> Markup {
    html! {
        div.cards {
            div.card.figure {
                h2 { "Answers" }
                p.big { (number::count(of.answers)) }
                p.fine { "to each question, about " (number::count(of.items)) " items. "
                    (number::count(of.independent_answers)) " would do if all were independent; the \
                    design effect is " (number::rounded(of.design_effect, 2)) "." }
            }
            @if let Some(minutes) = of.minutes {
                div.card.figure {
                    h2 { "Time" }
                    p.big { (number::count(minutes.ceil() as u64)) " min" }
                    p.fine { "of all annotators together." }
                }
            }
            @if let Some(cost) = of.cost {
                div.card.figure {
                    h2 { "Price" }
                    p.big { (number::rounded(cost, 2)) }
                    p.fine { "without the fee of a platform." }
                }
            }
        }
        p.fine { "Tells a share of " (number::percent(of.share)) " from " (number::percent(of.chance))
            ". " (of.formula) "." }
    }
}
