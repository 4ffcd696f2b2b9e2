//! `GET /runs/{id}`: a run with its progress, scores, distributions, samples and slices.

mod fairness;
mod photos;
mod samples;
mod scores;

use axum::{extract::State, response::Response};
use maud::{Markup, html};

use super::{
    address::Address,
    charts::clip,
    number, portable, show,
    view::{Section, View},
};
use crate::analysis::Policy;
use crate::api::http::{ApiError, Code, Id};
use crate::api::runs::report::{self, ReportQuery, Tabulated};
use crate::api::runs::{self, RunResponse};
use crate::api::state::{App, Shared};
use crate::metrics::{self, Direction};
use crate::store::{RunRecord, RunState};

/// Parameters of the page that the report does not have.
const OWN: [&str; 5] = ["metric", "kind", "min_samples", "photos", "with"];

/// Number of runs to compare with.
const OTHERS: u32 = 60;

/// Responds with the page.
pub(super) async fn read(
    State(app): Shared,
    id: Id<RunRecord>,
    address: Address,
) -> Result<Response, ApiError> {
    let query: ReportQuery = address.query(&OWN)?;
    let record = runs::find(&app, Id::new(id.0)).await?;
    let run = runs::details(&app, record).await?;
    let title = format!("{} / {}", clip(&run.method, 60), clip(&run.run, 60));
    let mut view = View::new(Section::Runs, title, &address).style("runs.css").script("runs.js");
    let table = tables(&app, &run, query).await?;
    let scores = match &table {
        Tables { shown: Some(shown), .. } if shown.table.report.rows.is_empty() => html! {},
        Tables { shown, problem, measured } => {
            let metric = chosen(&address, measured.as_ref())?;
            html! {
                (scores::section(&mut view, &address, shown.as_ref(), problem.as_deref()))
                @if let (Some(measured), Some(metric)) = (measured, metric) {
                    (scores::distributions(&mut view, measured))
                    (scores::nulls(&mut view, measured))
                    (choice(&address, measured, metric))
                    (samples::ranked(&app, &run, &address, metric).await?)
                    (fairness::section(&app, &mut view, &run, &address, measured, metric).await?)
                    (photos::section(&app, &mut view, &run, &address, measured).await?)
                }
            }
        }
    };
    let failures = samples::failures(&app, &mut view, &run).await?;
    let content = html! {
        div.title { h1 { bdi { (run.method) } " / " bdi { (run.run) } } (view.share()) }
        p { (view.link(&show::method_page(&run.method), &html! { "Card of the method" })) }
        (facts(&run))
        (progress(&run, &address))
        (failures)
        (scores)
        (compare(&app, &run).await?)
    };
    let content = portable::content(view.is_shared(), &app, content, [run.run_id]).await?;
    view.respond(&app, &content)
}

/// The table of a run, or why there is none, and a table with scores as measured.
struct Tables {
    shown: Option<Tabulated>,
    problem: Option<String>,
    measured: Option<Tabulated>,
}

/// Reads the tables. What the run does not have is a problem of the section, not of the page.
async fn tables(app: &App, run: &RunResponse, query: ReportQuery) -> Result<Tables, ApiError> {
    let id = || Id::new(run.run_id);
    let measured = ReportQuery { pack: query.pack.clone(), ..ReportQuery::of(Policy::None) };
    match report::tabulated(app, id(), &query).await {
        Ok(shown) => {
            let copy = Tabulated {
                run: shown.run.clone(),
                pack: shown.pack.clone(),
                table: std::sync::Arc::clone(&shown.table),
            };
            Ok(Tables { shown: Some(shown), problem: None, measured: Some(copy) })
        }
        Err(error) if error.code() == Code::InvalidField => {
            let measured = report::tabulated(app, id(), &measured).await;
            let problem = Some(error.detail().to_owned());
            Ok(Tables { shown: None, problem, measured: measured.ok() })
        }
        Err(error) => Err(error),
    }
}

/// Returns the metric that the sections on one metric show.
fn chosen(
    address: &Address,
    measured: Option<&Tabulated>,
) -> Result<Option<&'static str>, ApiError> {
    if let Some(code) = address.get("metric") {
        let metric = metrics::find(code).ok_or_else(|| metrics::ListError::unknown(code))?;
        return Ok(Some(metric.code));
    }
    let all = measured.map_or(&[][..], |of| &of.table.distributions);
    let codes = all.iter().filter_map(|of| metrics::find(&of.metric));
    let ranked = codes.clone().find(|metric| metric.direction != Direction::Support);
    // Identity is what the benchmark is about.
    let ips = codes.clone().find(|metric| metric.code == "ips");
    Ok(ips.or(ranked).or_else(|| codes.clone().next()).map(|metric| metric.code))
}

fn choice(address: &Address, measured: &Tabulated, chosen: &str) -> Markup {
    html! {
        h2 #metric { "One metric in detail" }
        form.filters data-auto method="get" action="#metric" {
            (show::hidden(address, &["metric"]))
            label {
                "Metric"
                select name="metric" {
                    @for of in &measured.table.distributions {
                        option value=(of.metric) selected[of.metric == chosen] {
                            (of.metric)
                            @if let Some((_, words)) = show::direction(&of.metric) { " – " (words) }
                        }
                    }
                }
            }
            button { "Show" }
        }
    }
}

fn facts(run: &RunResponse) -> Markup {
    let flags = [
        (run.flags.cross_validated_training, "trained with cross validation over these people"),
        (run.flags.trained_on_evaluation_photos, "trained on the photos that it is evaluated with"),
    ];
    html! {
        p {
            (show::state(run.state)) " "
            @for (_, words) in flags.iter().filter(|(is_set, _)| *is_set) { span.tag.warn { (words) } " " }
        }
        dl.facts {
            dt { "Dataset" }
            dd {
                @match &run.dataset {
                    Some(dataset) => bdi { (dataset) },
                    None => span.fine { "not declared" },
                }
                @if let Some(split) = &run.split { " · " bdi { (split) } }
            }
            dt { "Pack" }
            dd {
                @match &run.pack {
                    Some(pack) => {
                        (pack.name) " " code title=(pack.digest) { (clip(&pack.digest, 13)) }
                        " · weights " (pack.weights.as_str())
                    },
                    None => span.fine { "set by the first accepted sample" },
                }
            }
            @if let Some(submission) = &run.submission {
                dt { "Submission" }
                dd {
                    "verified " (show::time(submission.verified)) " · digest "
                    code title=(submission.digest) { (clip(&submission.digest, 13)) }
                }
            }
            dt { "Created" } dd { (show::time(run.created)) }
            @if let Some(finished) = run.finished { dt { "Finished" } dd { (show::time(finished)) } }
            @if let Some(codes) = &run.metrics { dt { "Metrics" } dd { (codes.join(", ")) } }
        }
        @if !run.settings.is_empty() {
            details {
                summary { "Settings of the generator" }
                pre tabindex="0" { code { (settings(run)) } }
            }
        }
    }
}

/// Returns the settings as JSON. They may be as large as a form.
fn settings(run: &RunResponse) -> String {
    let text = serde_json::to_string_pretty(&run.settings).expect("plain data always serialises");
    clip(&text, 4_000)
}

fn progress(run: &RunResponse, address: &Address) -> Markup {
    let counts = run.counts;
    let done = counts.scored + counts.failed;
    html! {
        @if let Some(held) = &run.held { p.note.bad { strong { "Blocked. " } (held.detail) } }
        @if run.state == RunState::Finished {
            p {
                (number::count(counts.scored)) " samples scored"
                @if counts.failed > 0 { ", " a.bad href="#failures" { (number::count(counts.failed)) " failed" } }
                "."
            }
        } @else {
            section.card.progress data-events=(format!("/v1/runs/{}/events", run.run_id)) {
                h2 { "Progress" }
                progress #bar max=(counts.accepted.max(1)) value=(done) aria-label="Samples done" {}
                p {
                    strong #done { (number::count(done)) } " of "
                    span #accepted { (number::count(counts.accepted)) } " accepted samples are done: "
                    span #scored { (number::count(counts.scored)) } " scored, "
                    span #failed { (number::count(counts.failed)) } " failed, "
                    span #pending { (number::count(counts.pending)) } " pending."
                }
                p.fine #rate {
                    a href=(address) { "Reload" } " to see the current counts."
                }
                @if run.state == RunState::Open && counts.accepted == 0 {
                    p { "The run waits for samples. Send them with:" }
                    (show::submit())
                } @else if run.state == RunState::Open {
                    p.fine {
                        "The run is open: more samples may come. Metrics of the whole run, such as "
                        code { "aps" } ", are computed when it is finished."
                    }
                }
            }
        }
    }
}

async fn compare(app: &App, run: &RunResponse) -> Result<Markup, ApiError> {
    let mut others = show::scored_runs(app, run.dataset.clone(), OTHERS).await?;
    others.retain(|other| other.run_id != run.run_id);
    Ok(html! {
        h2 { "Compare" }
        @if others.is_empty() {
            p { "There is no other run with scores over this dataset yet." }
        } @else {
            form.filters method="get" action="/compare" {
                input type="hidden" name="a" value=(run.run_id);
                (show::run_choice("b", "With", &others, None))
                button.main { "Compare" }
            }
        }
        p {
            a href=(Address::new("/gallery").with("runs", run.run_id)) { "All images of this run" }
            " · " a href=(format!("/v1/runs/{}/report", run.run_id)) { "JSON" }
        }
    })
}
