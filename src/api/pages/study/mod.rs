//! `/study`: what annotators prefer, how far they agree, and which metrics agree with them.

pub(super) mod actions;
mod differences;
mod form;
mod gold;
mod list;
mod methods;
mod metrics;
mod new;
mod one;
mod people;
mod plan;
mod voters;

use axum::{extract::State, response::Response};
use maud::{Markup, html};

use super::{
    address::Address,
    number, portable, questions,
    view::{Section, View},
};
use crate::analysis::{AnnotatorAgreement, NoAlpha};
use crate::api::analysis::alignment::{
    self, AlignmentQuery, MethodPreferencesQuery, PreferencesResponse,
};
use crate::api::http::{ApiError, Code};
use crate::api::preferences::next::{self, NextQuery};
use crate::api::state::{App, Shared};
use crate::api::studies::{self, StudiesQuery};
use crate::store::Question;

/// Pairs from which the next pairs of methods are taken.
const NEXT: u32 = 200;

/// Studies that are listed.
const STUDIES: u32 = 50;

/// Responds with the page.
pub(super) async fn read(State(app): Shared, address: Address) -> Result<Response, ApiError> {
    if address.get("new").is_some() {
        return new::read(&app, &address).await;
    }
    if address.get("study").is_some() && address.get("view") != Some("metrics") {
        return one::read(&app, &address).await;
    }
    let query: AlignmentQuery = address.query(&["view", "against", "slices"])?;
    let word = query.question.clone().unwrap_or_default();
    let question = app.questions.of(word.clone(), Code::MalformedRequest)?;
    let annotator = query.annotator.clone();
    let of_methods = MethodPreferencesQuery {
        question: Some(word.clone()),
        annotator: annotator.clone(),
        study: query.study,
        dataset: query.dataset.clone(),
        run: query.run,
        kind: query.kind.clone(),
    };
    let preferences = alignment::respond_preferences(&app, of_methods).await?;
    let mut view = View::new(Section::Study, "Study", &address).style("study.css");
    let head = html! {
        div.title { h1 { "What people say" } (view.share()) }
        p.lead {
            "Votes and ratings of annotators: which method they prefer, how far they agree, and which \
                metrics agree with them."
        }
    };
    let chosen = filters(&app, &address, &question);
    let listed = StudiesQuery { after: None, limit: Some(STUDIES) };
    let listed = studies::respond_list(&app, listed).await?;
    let has_studies = !listed.items.is_empty();
    let listed = match address.get("study") {
        Some(id) => {
            let page = Address::new("/study").with("study", id);
            html! { p { "Only votes of one study. " (view.link(&page, &html! { "Its page" })) } }
        }
        None => list::section(&mut view, &listed.items, listed.next.is_some()),
    };
    let is_empty = preferences.answers == 0 && preferences.voting.cannot_tell == 0;
    if is_empty {
        let content = html! {
            (head)
            @if has_studies { (listed) }
            (chosen)
            (empty(&question, annotator.is_some()))
            @if !has_studies { (listed) }
        };
        return view.respond(&app, &content);
    }
    let compared = differences::read(&app, &address).await?;
    let aligned = alignment::respond(&app, query).await?;
    let next = NextQuery { question: Some(word), limit: Some(NEXT), ..NextQuery::default() };
    let next = next::respond(&app, next).await?;
    let content = html! {
        (head)
        @if has_studies { (listed) }
        (chosen)
        p.asked { "The question: " strong { (questions::ask(&question)) } }
        (summary(&preferences))
        (methods::section(&mut view, &preferences))
        (metrics::section(&mut view, &aligned, &compared))
        (differences::section(&mut view, &compared, &address))
        (voters::section(&mut view, &preferences, &address))
        @if address.get("study").is_none() { (methods::next(&mut view, &preferences, &next)) }
        @if !has_studies { (listed) }
    };
    let content = portable::content(view.is_shared(), &app, content, []).await?;
    view.respond(&app, &content)
}

fn filters(app: &App, address: &Address, question: &Question) -> Markup {
    let value = |name: &str| address.get(name).unwrap_or_default().to_owned();
    let kept = ["study", "view", "dataset", "run", "kind", "against", "slices"];
    html! {
        form.filters method="get" action="/study" data-auto {
            @for (name, of) in kept.iter().filter_map(|name| Some((name, address.get(name)?))) {
                input type="hidden" name=(name) value=(of);
            }
            label { "Question" (questions::select(&app.questions, question)) }
            label { "Annotator"
                input type="text" name="annotator" value=(value("annotator")) placeholder="all";
            }
            label { "Metrics"
                input type="text" name="metrics" value=(value("metrics")) placeholder="all, or ips,clip_t";
            }
            label { "Pack"
                input type="text" name="pack" value=(value("pack")) placeholder="the loaded one";
            }
            label { "Fewest pairs of a slice"
                input type="number" name="min_pairs" min="1" value=(value("min_pairs")) placeholder="20";
            }
            button { "Show" }
        }
    }
}

fn empty(question: &Question, is_filtered: bool) -> Markup {
    let vote = Address::new("/vote").with("question", question.as_str());
    html! {
        div.card.empty {
            p { strong { "Nobody has answered this question" @if is_filtered { " under this name" } "." } }
            p { a.button.main href=(vote) { "Vote" } }
            p { "Votes that were collected elsewhere are sent as CSV:" }
            pre tabindex="0" { code {
                "curl --data-binary @votes.csv -H 'Content-Type: text/csv' HOST/v1/preferences"
            } }
        }
    }
}

/// Renders the numbers that say how far the votes can be trusted.
fn summary(of: &PreferencesResponse) -> Markup {
    let voting = &of.voting;
    let ratings = of.answers.saturating_sub(voting.votes);
    let several = of.preferences.clustered;
    html! {
        div.cards {
            div.card.figure {
                h2 { @if ratings == 0 { "Votes" } @else { "Votes and ratings" } }
                p.big { (number::count(of.answers as u64)) }
                p.fine {
                    "by " (of.agreement.annotators)
                    @if of.agreement.annotators == 1 { " annotator" } @else { " annotators" }
                    @if ratings > 0 { ", " (number::count(ratings as u64)) " of them ratings" }
                    @if voting.ties > 0 {
                        ", with " (voting.ties) @if voting.ties == 1 { " tie" } @else { " ties" }
                    }
                    ". "
                    @if several { "A choice of one out of k images counts as k − 1 votes. " }
                    @if voting.cannot_tell > 0 {
                        "Not counted: " (voting.cannot_tell) " × “cannot tell” about two images. "
                    }
                    @if several {
                        "“Cannot tell” about more than two images is no vote: the page of its study \
                            counts it."
                    }
                }
            }
            (alpha(&of.agreement))
            div.card.figure {
                h2 { "Consistency" }
                @match voting.consistency.share {
                    Some(share) => {
                        p.big { (number::percent(share)) }
                        p.fine { "of " (voting.consistency.of) " repeated pairs got the same answer"
                            (within(voting.consistency.low, voting.consistency.high)) "." }
                    }
                    None => {
                        p.big { "none" }
                        p.fine { "No pair was repeated yet. One of ten pairs of an annotator is." }
                    }
                }
            }
            div.card.figure {
                h2 { "Position" }
                @match voting.first.share {
                    Some(share) => {
                        p.big { (number::percent(share)) }
                        p.fine { "of " (voting.first.of) " preferences are for the left image"
                            (within(voting.first.low, voting.first.high)) ". "
                            (position(voting.first.low, voting.first.high)) }
                    }
                    None => {
                        p.big { "none" }
                        @if several {
                            p.fine { "Of several images, none is on the left of all others: the page of \
                                a study has its choices by position." }
                        } @else {
                            p.fine { "No vote says which image was on the left." }
                        }
                    }
                }
            }
        }
        p.fine {
            "Brackets are 95 % intervals: if the study were repeated with other people or prompts, \
                about 95 of 100 such intervals would contain the true number. Those of consistency and \
                position treat votes as independent, which is optimistic if a few annotators gave most \
                of them."
        }
    }
}

fn within(low: Option<f64>, high: Option<f64>) -> String {
    match low.zip(high) {
        Some((low, high)) => format!(" [{}, {}]", number::percent(low), number::percent(high)),
        None => String::new(),
    }
}

fn position(low: Option<f64>, high: Option<f64>) -> &'static str {
    match low.zip(high) {
        Some((low, _)) if low > 0.5 => "Annotators lean to the left.",
        Some((_, high)) if high < 0.5 => "Annotators lean to the right.",
        _ => {
            "There is no sign of a habit. Sides are random, so a habit adds noise and favours nobody."
        }
    }
}

/// Renders how far annotators agree.
fn alpha(of: &AnnotatorAgreement) -> Markup {
    let votes = (of.votes_alpha, of.votes_alpha_low, of.votes_alpha_high);
    let ratings = (of.ratings_alpha, of.ratings_alpha_low, of.ratings_alpha_high);
    html! {
        div.card.figure {
            h2 { "Agreement" }
            @match votes.0 {
                Some(alpha) => {
                    p.big { (number::rounded(alpha, 2)) }
                    p.fine {
                        "Krippendorff’s alpha" (brackets(votes.1, votes.2)) " over " (of.votes_shared)
                        " pairs that several people judged. 1 is full agreement, 0 is chance. "
                        (reliability(alpha))
                    }
                }
                None => {
                    p.big { "none" }
                    p.fine { (no_alpha(of.votes_alpha_reason)) }
                }
            }
            @if let Some(alpha) = ratings.0 {
                p.fine {
                    "Ratings: alpha " (number::rounded(alpha, 2)) (brackets(ratings.1, ratings.2))
                    " over " (of.ratings_shared) " images."
                }
            }
        }
    }
}

fn brackets(low: Option<f64>, high: Option<f64>) -> String {
    match low.zip(high) {
        Some((low, high)) => {
            format!(" [{}, {}]", number::rounded(low, 2), number::rounded(high, 2))
        }
        None => String::new(),
    }
}

/// Returns what Krippendorff's customary limits say of an alpha.
fn reliability(alpha: f64) -> &'static str {
    match alpha {
        _ if alpha >= 0.8 => "By the customary limits, the votes are reliable.",
        _ if alpha >= 0.667 => "By the customary limits, they allow tentative conclusions.",
        _ => {
            "Below 0.667, which is usual for taste: people disagree, and only many votes show a \
                preference."
        }
    }
}

fn no_alpha(reason: Option<NoAlpha>) -> &'static str {
    match reason {
        Some(NoAlpha::NoVariation) => {
            "All shared pairs got the same answer. Agreement beyond chance cannot be computed from that."
        }
        _ => {
            "No pair was judged by two annotators. Two of ten pairs of an annotator are shared ones."
        }
    }
}
