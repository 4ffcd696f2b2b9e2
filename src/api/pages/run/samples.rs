//! Samples of a run: the best and worst of a metric, and those that failed.

use maud::{Markup, html};

use crate::api::http::{ApiError, Id};
use crate::api::pages::{
    address::Address,
    charts::clip,
    number, show,
    table::{Cell, Column, Row, Table},
    view::View,
};
use crate::api::runs::ranked::{self, RankedOrder, RankedQuery, RankedResponse};
use crate::api::runs::samples::{self, SamplesQuery};
use crate::api::runs::{RunResponse, failures as counts};
use crate::api::state::App;
use crate::store::SampleState;

/// Samples at each end.
const SHOWN: u32 = 6;

/// Failed samples that are listed.
const FAILED: u32 = 50;

/// Renders the best and the worst samples of a metric.
pub(super) async fn ranked(
    app: &App,
    run: &RunResponse,
    address: &Address,
    metric: &str,
) -> Result<Markup, ApiError> {
    let query = |order| RankedQuery {
        metric: metric.to_owned(),
        order,
        pack: address.get("pack").map(str::to_owned),
        offset: None,
        limit: Some(SHOWN),
    };
    let best = ranked::respond(app, Id::new(run.run_id), query(RankedOrder::Best)).await?;
    let worst = ranked::respond(app, Id::new(run.run_id), query(RankedOrder::Worst)).await?;
    let (first, last) = match show::direction(metric) {
        Some(_) => ("Best samples", "Worst samples"),
        None => ("Largest scores", "Smallest scores"),
    };
    Ok(html! {
        p {
            "By " (show::metric(metric)) ", as measured. Extremes show what a metric rewards, and where \
                it errs; they do not represent the run."
        }
        (strip(first, &best))
        (strip(last, &worst))
    })
}

fn strip(title: &str, of: &RankedResponse) -> Markup {
    html! {
        h3 { (title) }
        @if of.samples.is_empty() {
            p { "No sample has a score of this metric." }
        } @else {
            div.strip {
                @for sample in &of.samples {
                    @let caption = html! {
                        strong { (number::plain(sample.value)) } " " (show::prompt(Some(&sample.brief)))
                    };
                    @let alt = show::alt(&sample.name, Some(&sample.brief));
                    (show::sample(&alt, Some(&sample.brief), &caption))
                }
            }
        }
    }
}

/// Renders the failed samples with their reasons.
pub(super) async fn failures(
    app: &App,
    view: &mut View,
    run: &RunResponse,
) -> Result<Markup, ApiError> {
    if run.counts.failed == 0 {
        return Ok(html! {});
    }
    let counted = counts::respond(app, run.run_id).await?;
    let query = SamplesQuery { state: Some(SampleState::Failed), after: None, limit: Some(FAILED) };
    let failed = samples::respond(app, run.run_id, query).await?;
    let rows = counted.reasons.iter().map(|reason| -> Row {
        let share = reason.samples as f64 / run.counts.accepted.max(1) as f64;
        vec![
            Cell::text(&reason.code).shown(html! { (show::words(&reason.code)) }).head(),
            Cell::number(Some(reason.samples as f64), number::count(reason.samples)),
            Cell::number(Some(share), number::percent(share)),
        ]
        .into()
    });
    let reasons = Table {
        name: "failures",
        caption: "Failed samples by reason".to_owned(),
        columns: vec![Column::text("Reason"), Column::number("Samples"), Column::number("Share")],
        rows: rows.collect(),
    };
    let rows = failed.items.iter().map(|sample| -> Row {
        let detail = sample.error.as_ref().map(|error| error.detail.clone()).unwrap_or_default();
        let name = html! { bdi { (clip(&sample.name, show::NAME)) } };
        vec![
            Cell::text(&sample.name).shown(name).head(),
            Cell::text(&detail).shown(html! { (clip(&detail, 200)) }),
        ]
        .into()
    });
    let list = Table {
        name: "failed",
        caption: "Failed samples".to_owned(),
        columns: vec![Column::text("Sample"), Column::text("What went wrong")],
        rows: rows.collect(),
    };
    Ok(html! {
        h2 #failures { "Failed samples" }
        p {
            "These samples have no scores and are in no mean. If a method fails where others do not, \
                its means are over easier samples. While the run is open, the same names may be sent again."
        }
        (view.table(&reasons))
        details {
            summary { "The samples" }
            (view.table(&list))
            @if failed.next.is_some() {
                p.fine {
                    "The first " (FAILED) " are listed. "
                    a href=(format!("/v1/runs/{}/samples?state=failed&limit=1000", run.run_id)) { "All as JSON" }
                }
            }
        }
    })
}
