//! `GET /samples/{id}`: one sample, its scores, and what they are based on.

mod overlay;
mod scores;
mod tables;
mod words;

use std::collections::BTreeMap;

use axum::{extract::State, response::Response};
use maud::{Markup, html};

use super::{
    address::Address,
    number,
    view::{Section, View},
};
use crate::api::http::{ApiError, Id, encode};
use crate::api::samples::{self, SampleQuery, SampleResponse, StoredEvidence};
use crate::api::state::{App, Shared};
use crate::store::SampleRecord;

/// Responds with the page.
pub(super) async fn read(
    State(app): Shared,
    address: Address,
    id: Result<Id<SampleRecord>, ApiError>,
) -> Result<Response, ApiError> {
    let mut query: SampleQuery = address.query(&[])?;
    (query.percentiles, query.evidence) = (Some(true), Some(true));
    let sample = samples::respond(&app, id, &query).await?;
    let pack = app.scoring.pack().id().digest;
    let evidence = sample.evidence.iter().flatten();
    let evidence = evidence.clone().find(|of| of.pack == pack).or_else(|| evidence.clone().next());
    let title = if sample.name == sample.content {
        "Unnamed sample".to_owned()
    } else {
        format!("Sample {}", sample.name.chars().take(60).collect::<String>())
    };
    let mut view =
        View::new(Section::Gallery, title, &address).style("sample.css").script("sample.js");
    let scores = scores::table(&mut view, &sample, &pack);
    let details = tables::all(&mut view, evidence);
    let content = html! {
        (head(&sample))
        (overlay::images(&sample, evidence, app.keeping.has_thumbnails()))
        (prompt(&sample))
        h2 #scores { "Scores" }
        (scores)
        (scores::unmeasured(&app, &sample))
        @if let Some(note) = evidence_note(&app, &sample, evidence) { (note) }
        (details)
        (provenance(&app, &sample, evidence))
    };
    view.respond(&app, &content)
}

fn head(sample: &SampleResponse) -> Markup {
    html! {
        p.trail {
            @match (&sample.method, &sample.run, sample.run_id) {
                (Some(method), Some(run), Some(id)) => {
                    a href=(format!("/runs/{id}")) { bdi { (method) } " / " bdi { (run) } }
                    " · "
                    a href=(format!("/leaderboard?method={}", encode(method))) { "leaderboard row" }
                }
                _ => { "Outside any run: it counts on no leaderboard." }
            }
        }
        h1 {
            @if sample.name == sample.content {
                "Unnamed sample"
            } @else {
                "Sample " bdi.name { (sample.name) }
            }
        }
    }
}

fn prompt(sample: &SampleResponse) -> Markup {
    html! {
        section.prompt {
            h2 { "Prompt" }
            @match &sample.prompt {
                Some(prompt) if prompt.is_empty() => { p.fine { "The prompt is empty." } }
                Some(prompt) => { blockquote { bdi { (prompt) } } }
                None => { p.fine { "No prompt was sent." } }
            }
        }
    }
}

/// Says why there is no evidence.
fn evidence_note(
    app: &App,
    sample: &SampleResponse,
    evidence: Option<&StoredEvidence>,
) -> Option<Markup> {
    if evidence.is_some() {
        return None;
    }
    let days = app.keeping.evidence_days();
    Some(html! {
        p.note {
            @if sample.image.is_none() {
                "There is no evidence: the scores were computed elsewhere and imported."
            } @else if days == 0 {
                "There is no evidence: this service stores none ("
                code { "store.evidence_retention_days" } " is 0)."
            } @else {
                "There is no evidence any more: it is kept for " (days) " days ("
                code { "store.evidence_retention_days" } "). Score the same sample again to see it."
            }
        }
    })
}

/// Returns metadata as JSON, cut where a page would become too large.
fn metadata(value: &serde_json::Value) -> String {
    const MOST_CHARS: usize = 20_000;
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    let cut: String = text.chars().take(MOST_CHARS).collect();
    if cut.len() < text.len() { format!("{cut}\n… the API has all of it") } else { cut }
}

fn provenance(app: &App, sample: &SampleResponse, evidence: Option<&StoredEvidence>) -> Markup {
    let time = |time: time::OffsetDateTime| {
        let time = time.to_offset(time::UtcOffset::UTC);
        format!("{} {:02}:{:02} UTC", time.date(), time.hour(), time.minute())
    };
    let mut packs: Vec<_> =
        sample.scores.iter().map(|score| (&score.pack, &score.service_version)).collect();
    packs.dedup_by(|a, b| a.0.digest == b.0.digest && a.1 == b.1);
    packs.sort_by(|a, b| (&a.0.digest, a.1).cmp(&(&b.0.digest, b.1)));
    packs.dedup();
    let loaded = app.scoring.pack().id();
    let mut checkpoints: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (metric, checkpoint) in evidence.iter().flat_map(|of| &of.evidence.checkpoints) {
        checkpoints.entry(checkpoint).or_default().push(metric);
    }
    html! {
        h2 #provenance { "Where the numbers come from" }
        dl.facts {
            dt { "Scored" } dd { (time(sample.created)) }
            @for (pack, version) in packs {
                dt { "Pack" }
                dd {
                    (pack.name) ", weights " (pack.weights.as_str()) ", stellar-score " (version)
                    @if pack.digest == loaded.digest { " (loaded now)" }
                    br; code.fine { (pack.digest) }
                }
            }
            @if let Some(image) = &sample.image {
                dt { "Image" }
                dd { (image.width) " × " (image.height) " pixels" br; code.fine { (image.hash) } }
            }
            dt { "Photos" }
            dd {
                (number::count(sample.references.len() as u64)) " reference, "
                (number::count(sample.auxiliary.len() as u64)) " auxiliary"
            }
            @if !checkpoints.is_empty() {
                dt { "Weights" }
                dd {
                    @for (checkpoint, metrics) in &checkpoints {
                        div { (checkpoint) " " code.fine { (metrics.join(", ")) } }
                    }
                }
            }
            dt { "Content" } dd { code.fine { (sample.content) } }
        }
        @if sample.metadata.as_object().is_some_and(|fields| !fields.is_empty()) {
            details {
                summary { "Metadata" }
                pre tabindex="0" { (metadata(&sample.metadata)) }
            }
        }
        p.fine {
            "The same as JSON: "
            a href=(format!("/v1/samples/{}?evidence=true&percentiles=true", sample.id)) {
                code { "GET /v1/samples/" (sample.id) }
            }
        }
    }
}
