//! The column of `aps` as the area under the ROC curve, beside the share of correct predictions.

use maud::html;

use crate::analysis::NoInterval;
use crate::api::analysis::leaderboard::{LeaderboardResponse, Summary};
use crate::api::pages::number;
use crate::api::pages::table::{Cell, Column};
use crate::metrics::Metric;
use crate::store::APS_AREA;

/// Name of the column.
pub(super) const NAME: &str = "APS, area";

/// What the column is.
pub(super) const MEANING: &str = "Attribute preservation as in the paper and in the report of a run: the mean \
    over attributes of the area under the ROC curve, 0.5 for chance. It is known for one run, not \
    for several together or for a part of the images; the column APS has the share of correct \
    predictions, which is known for all.";

/// Returns whether the column follows that of a metric.
pub(super) fn is_shown(metric: &Metric, response: &LeaderboardResponse) -> bool {
    let published = response.published.iter().flat_map(|published| &published.rows);
    let has_area = |of: &Summary| of.area.is_some();
    metric.code == "aps"
        && (response.rows.iter().any(|row| row.metrics.get("aps").is_some_and(has_area))
            || published.into_iter().any(|row| row.metrics.contains_key(APS_AREA)))
}

/// Returns the column.
pub(super) fn column(metric: &Metric) -> Column {
    let shown = html! { (NAME) small { (super::cells::better(metric)) } };
    Column::text(NAME).head(shown)
}

/// Returns the cell of a measured row.
pub(super) fn cell(of: Option<&Summary>) -> Cell {
    let Some(area) = of.and_then(|of| of.area) else { return Cell::default() };
    let Some(mean) = area.mean else {
        return Cell {
            shown: Some(html! { small { "constant" } }),
            class: "none",
            ..Cell::default()
        };
    };
    let half = area.low.zip(area.high).map(|(low, high)| (high - low) / 2.0);
    let decimals = number::typical_decimals(half.into_iter());
    let shown = html! {
        (number::rounded(mean, decimals))
        @if let Some((low, high)) = area.low.zip(area.high) {
            small { (number::rounded(low, decimals)) " to " (number::rounded(high, decimals)) }
        }
        @if let Some(reason) = area.no_interval {
            small {
                @match reason {
                    NoInterval::NoVariation => "no spread",
                    NoInterval::Pending => "pending",
                    NoInterval::Declared => "declared",
                    _ => "few people",
                }
            }
        }
    };
    Cell { value: format!("{mean:.6}"), shown: Some(shown), ..Cell::default() }
}
