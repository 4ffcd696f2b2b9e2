//! The leaderboard as CSV: one line for each row and metric.

use std::collections::BTreeMap;

use crate::api::analysis::board::LeaderboardResponse;
use crate::api::http::csv::optional;
use crate::store::APS_AREA;

/// Returns the flags that are set, separated by spaces.
fn flags(flags: &BTreeMap<String, bool>) -> String {
    let set: Vec<&str> = flags.iter().filter(|(_, set)| **set).map(|(flag, _)| &**flag).collect();
    set.join(" ")
}

pub(super) const HEADER: [&str; 24] = [
    "source",
    "method",
    "run",
    "dataset",
    "pack",
    "weights",
    "metric",
    "version",
    "samples",
    "n",
    "nulls",
    "coverage",
    "mean",
    "std",
    "low",
    "high",
    "clusters",
    "rank",
    "penalty_rate",
    "mean_rank",
    "sample_set",
    "comparable",
    "reason",
    "flags",
];

/// Returns one line for each row and metric, measured ones first.
pub(super) fn lines(response: &LeaderboardResponse) -> Vec<Vec<String>> {
    let mut lines = Vec::new();
    for row in &response.rows {
        for (metric, of) in &row.metrics {
            let numbers = &of.numbers;
            lines.push(vec![
                "measured".to_owned(),
                row.method.clone(),
                row.run.clone().unwrap_or_default(),
                String::new(),
                row.pack.digest.clone(),
                row.pack.weights.to_string(),
                metric.clone(),
                numbers.version.to_string(),
                optional(of.samples),
                numbers.n.to_string(),
                numbers.nulls.to_string(),
                numbers.coverage.to_string(),
                optional(numbers.mean),
                optional(numbers.std),
                optional(numbers.low),
                optional(numbers.high),
                optional(of.clusters),
                optional(of.rank),
                optional(of.penalty_rate),
                optional(row.mean_rank),
                row.sample_set.clone().unwrap_or_default(),
                optional(row.comparable),
                String::new(),
                flags(&row.flags),
            ]);
            if let Some(area) = &of.area {
                let mut line = vec![String::new(); HEADER.len()];
                line.clone_from_slice(lines.last().expect("just added"));
                APS_AREA.clone_into(&mut line[6]);
                line[9] = area.n.to_string();
                for place in [10, 11, 13, 17] {
                    line[place].clear();
                }
                line[12] = optional(area.mean);
                (line[14], line[15]) = (optional(area.low), optional(area.high));
                line[16] = area.clusters.to_string();
                lines.push(line);
            }
        }
    }
    for row in response.published.iter().flat_map(|published| &published.rows) {
        for (metric, cell) in &row.metrics {
            let mut line = vec![String::new(); HEADER.len()];
            "published".clone_into(&mut line[0]);
            line[1].clone_from(&row.method);
            line[3].clone_from(&row.dataset);
            line[6].clone_from(metric);
            line[12] = cell.mean.to_string();
            line[21] = cell.comparable.to_string();
            line[22] = cell.explanation.clone().unwrap_or_default();
            line[23] = flags(&row.flags);
            lines.push(line);
        }
    }
    lines
}
