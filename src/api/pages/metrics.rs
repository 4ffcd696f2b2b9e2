//! `GET /metrics-guide`: the meaning of every metric.

use axum::{extract::State, response::Response};
use maud::{Markup, html};

use super::{
    address::Address,
    number,
    view::{Section, View},
};
use crate::api::http::ApiError;
use crate::api::state::{App, Shared};
use crate::metrics::{Direction, Metric, Topic, in_reading_order};

/// Responds with the page.
pub(super) async fn read(State(app): Shared, address: Address) -> Result<Response, ApiError> {
    let view = View::new(Section::Metrics, "Metrics", &address).style("board.css");
    let metrics = in_reading_order();
    let of = |topic: Topic| metrics.iter().filter(move |metric| metric.guide.topic == topic);
    let content = html! {
        div.title { h1 { "Metrics" } (view.share()) }
        p.lead { "The meaning of every number, and what it cannot tell." }
        div.guide {
            nav.contents aria-label="Metrics" {
                @for topic in Topic::ALL {
                    h2 { (topic.question()) }
                    ul {
                        @for metric in of(topic) {
                            li { a href=(format!("#{}", metric.code)) { (metric.guide.label()) } }
                        }
                    }
                }
                h2 { "More" }
                ul { li { a href="#parity" { "How the numbers are verified" } } }
            }
            div {
                @for topic in Topic::ALL {
                    section {
                        h2 { (topic.question()) }
                        @for metric in of(topic) { (entry(&app, metric, view.is_shared())) }
                    }
                }
                (parity())
            }
        }
    };
    view.respond(&app, &content)
}

fn entry(app: &App, metric: &Metric, is_open: bool) -> Markup {
    let better = match metric.direction {
        Direction::HigherIsBetter => "higher is better",
        Direction::LowerIsBetter => "lower is better",
        Direction::Support => "not ranked",
    };
    let end = |end: Option<f64>| end.map_or_else(|| "unbounded".to_owned(), number::plain);
    let guide = metric.guide;
    let missing = app.scoring.missing_graphs(metric);
    html! {
        article.card #(metric.code) {
            h3 { (guide.label()) " " code { (metric.code) } " " span.tag { (better) } }
            p { strong { (guide.question) } }
            @if !missing.is_empty() {
                p.note.warn { "The loaded pack cannot compute it: it lacks " (missing.join(", ")) "." }
            }
            div.ends {
                p { span.fine { "A high number" } br; (guide.high) }
                p { span.fine { "A low number" } br; (guide.low) }
            }
            h4 { "Reading a value" }
            p { (metric.interpretation) }
            h4 { "Where it misleads" }
            ul { @for failure in guide.failure_modes { li { (failure) } } }
            details open[is_open] {
                summary { "Definition, source and verification" }
                p { (metric.definition) }
                dl.facts {
                    dt { "Name" } dd { (metric.title) }
                    dt { "Family" }
                    dd { (metric.family.title()) " — " (metric.family.meaning()) }
                    dt { "Range" } dd { (end(metric.range.0)) " to " (end(metric.range.1)) }
                    dt { "Version" } dd { (metric.version) }
                    dt { "Source" } dd { (metric.source) }
                    dt { "Weights" } dd { (metric.licence) }
                    dt { "Verified" } dd { (verified(metric)) }
                }
            }
        }
    }
}

fn verified(metric: &Metric) -> Markup {
    html! {
        @match metric.guide.tolerance {
            Some((single, half)) => {
                "a golden sample may differ by " (number::exact(single))
                " at single precision, and a half-precision pack by " (number::exact(half))
                " from the single-precision one (" a href="#parity" { "how" } ")"
            }
            None if metric.code == "aps" => {
                "its predictions are compared with those of the toolkit and must be equal"
            }
            None => "there is no reference to compare with; tests check the formula",
        }
    }
}

fn parity() -> Markup {
    html! {
        section.card #parity {
            h2 { "How the numbers are verified" }
            p {
                "The reference is the original code of each metric, run one image at a time at single \
                 precision. Each pack has golden samples: images with the scores of that code. A \
                 certificate is the result of comparing this service with them, from the image file to \
                 the number. It fails if a single score differs by more than its tolerance."
            }
            pre tabindex="0" { code {
                "stellar-score pack verify packs/NAME\n"
                "stellar-score pack verify packs/NAME --toolkit stellar-metrics/tests/assets"
            } }
            p {
                "Run it on the machine that computes the scores. The tolerances are with each metric \
                 above. They were established with random weights in the official layouts; official \
                 weights have not been compared yet. For relations there is no original: a second \
                 implementation checks that the arithmetic follows the definition, not that the \
                 definition is a good one."
            }
        }
    }
}
