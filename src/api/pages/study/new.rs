//! `/study?new=true`: how many answers a study needs, and the form of a new one.

use axum::response::Response;
use maud::{Markup, html};

use crate::api::http::ApiError;
use crate::api::pages::{
    address::Address,
    number, questions,
    view::{Section, View},
};
use crate::api::runs::{self, RunOrder, RunResponse, RunsQuery};
use crate::api::state::App;
use crate::api::studies::sample_size::{self, SampleSizeQuery, SampleSizeResponse};

/// The parameter of the share to tell from chance: `share` is taken by pages.
const TARGET: &str = "target";

/// Runs to choose from.
const RUNS: u32 = 60;

pub(super) async fn read(app: &App, address: &Address) -> Result<Response, ApiError> {
    let mut query: SampleSizeQuery = address.query(&["new", TARGET])?;
    query.share = address.get(TARGET).map(|text| text.trim().parse().unwrap_or(f64::NAN));
    let asked = query.share.is_some() || query.difference.is_some();
    let size = asked.then(|| sample_size::respond(&query));
    let mut newest: RunsQuery = Address::new("/runs").query(&[])?;
    (newest.limit, newest.order) = (Some(RUNS), RunOrder::Newest);
    let runs = runs::respond(app, newest).await?.runs;
    let view = View::new(Section::Study, "New study", address).style("study.css");
    let content = html! {
        h1 { "New study" }
        p.lead {
            "A study asks people which of several images is the best: of chosen methods, about chosen \
                prompts, as often as you decide."
        }
        (sizes(address, size))
        (form(app, &runs))
    };
    view.respond(app, &content)
}

fn sizes(address: &Address, size: Option<Result<SampleSizeResponse, ApiError>>) -> Markup {
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
            (field("k", "Images of an item", "2", "1"))
            (field(TARGET, "Share to tell from chance", "0.35", "any"))
            (field("difference", "or difference in strength", "0.5", "any"))
            (field("power", "Power", "0.8", "any"))
            (field("alpha", "Level", "0.05", "any"))
            (field("answers_per_item", "Answers about an item", "1", "1"))
            (field("correlation", "Their correlation", "0.2", "any"))
            (field("price", "Price of an answer", "", "any"))
            (field("seconds", "Seconds of an answer", "", "any"))
            button { "Compute" }
        }
        @match size {
            None => {
                p.fine { "Send a share or a difference. A method that is as good as the others is the \
                    best of k in 1/k of the answers." }
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

fn form(app: &App, runs: &[RunResponse]) -> Markup {
    let number = |name: &str, label: &str, hint: &str, most: u32| {
        html! {
            label { (label) input type="number" name=(name) min="1" max=(most) placeholder=(hint); }
        }
    };
    let text = |name: &str, label: &str, hint: &str| {
        html! { label { (label) input type="text" name=(name) placeholder=(hint) maxlength="256"; } }
    };
    html! {
        h2 #form { "The study" }
        @if runs.len() < 2 {
            p { "A study needs runs of two methods with images of the same names. "
                a href="/runs" { "Runs of this service" } }
        } @else {
            form.card.study method="post" action="/study/new" {
                fieldset {
                    legend { "What is compared" }
                    p.fine { "One run of each method, 2 to 20." }
                    div.choices {
                        @for run in runs {
                            label.check {
                                input type="checkbox" name="runs" value=(run.run_id);
                                bdi { (run.method) } " / " bdi { (run.run) }
                            }
                        }
                    }
                }
                fieldset {
                    legend { "What is asked" }
                    div.fields {
                        label { "Name" input type="text" name="name" required maxlength="256"; }
                        (text("title", "Title for annotators", "the name"))
                        label { "Form"
                            select name="form" {
                                option value="pairs" { "pairs: which is better?" }
                                option value="best_of" { "best of k: which is the best?" }
                            }
                        }
                        (number("k", "k, of best of k", "4", 8))
                    }
                    div.choices {
                        @for (at, each) in app.questions.all().iter().enumerate() {
                            label.check {
                                input type="checkbox" name="questions" value=(each.as_str())
                                    checked[at == 0];
                                (questions::name(each))
                            }
                        }
                    }
                    label.check {
                        input type="checkbox" name="cannot_tell" value="yes" checked;
                        "“Cannot tell” is an answer"
                    }
                    label.check {
                        input type="checkbox" name="ties" value="yes";
                        "“Equally good” is an answer (pairs only)"
                    }
                }
                fieldset {
                    legend { "About which prompts" }
                    p.fine { "Without a choice: all names that the runs have in common." }
                    div.fields {
                        (text("dataset", "Dataset of the runs", "any"))
                        (text("split", "Split of the runs", "any"))
                        (text("kind", "Kind of the prompts", "all"))
                        (text("people", "People, separated by commas", "all"))
                        (number("sample", "Prompts to draw", "all", 10_000))
                        label { "Seed" input type="number" name="seed" min="0" placeholder="0"; }
                    }
                }
                fieldset {
                    legend { "How often" }
                    div.fields {
                        (number("answers_per_item", "Answers about an item", "3", 1_000))
                        (number("quota", "Items of an annotator, at most", "1000", 1_000))
                        (number("sets_per_prompt", "Items for a prompt", "by the form", 1_000))
                    }
                }
                fieldset {
                    legend { "What annotators read" }
                    div.fields {
                        label { "What they agree to, in one paragraph"
                            input type="text" name="consent" maxlength="4000"
                                placeholder="the text of this service";
                        }
                        (text("completion_code", "Completion code", "one for each annotator"))
                    }
                }
                p.fine { "Items with known right answers are sent by the API (gold). The study begins as \
                    a draft: look at it, then open it." }
                p { button.main { "Create" } }
            }
        }
    }
}
