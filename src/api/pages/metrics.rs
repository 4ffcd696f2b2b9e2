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
use crate::metrics::{Direction, Metric, REGISTRY};

/// Responds with the page.
pub(super) async fn read(State(app): Shared, address: Address) -> Result<Response, ApiError> {
    let view = View::new(Section::Metrics, "Metrics", &address);
    let content = html! {
        h1 { "Metrics" }
        p.lead { "The meaning of every number, and what it cannot tell." }
        @for metric in REGISTRY { (entry(&app, metric)) }
    };
    view.respond(&app, &content)
}

fn entry(app: &App, metric: &Metric) -> Markup {
    let better = match metric.direction {
        Direction::HigherIsBetter => "higher is better",
        Direction::LowerIsBetter => "lower is better",
        Direction::Support => "not ranked",
    };
    let end = |end: Option<f64>| end.map_or_else(|| "unbounded".to_owned(), number::plain);
    html! {
        section.card #(metric.code) {
            h2 { (metric.title) " " code { (metric.code) } }
            p { (metric.definition) }
            p { (metric.interpretation) }
            dl.facts {
                dt { "Direction" } dd { (better) }
                dt { "Range" } dd { (end(metric.range.0)) " to " (end(metric.range.1)) }
                dt { "Version" } dd { (metric.version) }
                dt { "Source" } dd { (metric.source) }
                dt { "Weights" } dd { (metric.licence) }
                @let missing = app.scoring.missing_graphs(metric);
                @if !missing.is_empty() {
                    dt { "Not available" } dd { "The loaded pack lacks " (missing.join(", ")) "." }
                }
            }
        }
    }
}
