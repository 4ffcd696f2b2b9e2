//! Published results beside the measured rows of a leaderboard.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    analysis::{
        LeaderboardQuery, LeaderboardRow, Measured, NotComparable, PublishedMethod, Samples,
        UserStudy, is_benchmark, names_dataset, not_comparable, published,
    },
    pack_id::Weights,
    store::{APS_AREA, Slice},
};

/// Results published by others, not measured by this service.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Reference {
    /// Source of the results.
    pub(crate) source: String,
    /// How the results must be read.
    pub(crate) note: String,
    /// The published rows.
    pub(crate) rows: Vec<PublishedRow>,
    /// The user study of the source.
    pub(crate) user_study: UserStudy,
}

/// A published row.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct PublishedRow {
    /// The method.
    #[schema(example = "DreamBooth")]
    pub(crate) method: String,
    /// The dataset.
    #[schema(example = "Stellar-T")]
    pub(crate) dataset: String,
    /// The flags that a run of the method would declare here.
    pub(crate) flags: BTreeMap<String, bool>,
    /// Means by metric code. The published `aps` is an area under the ROC curve, so it is there
    /// twice: as `aps`, which it does not compare with, and as `aps_area`, which is the `area` of
    /// measured rows.
    pub(crate) metrics: BTreeMap<String, PublishedCell>,
}

/// A published number.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct PublishedCell {
    /// The number.
    pub(crate) mean: f64,
    /// Whether it compares with the measured numbers of the same metric on this page. The source
    /// does not say which checkpoints stand behind it, so that even then small differences mean
    /// little.
    pub(crate) comparable: bool,
    /// Reason if it does not compare.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<NotComparable>,
    /// The reason in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) explanation: Option<String>,
}

/// Returns the published results that a query of the leaderboard selects.
pub(super) fn reference(query: &LeaderboardQuery, rows: &[LeaderboardRow]) -> Reference {
    let is_official = |row: &LeaderboardRow| row.pack.weights == Weights::Official;
    let filter = &query.filter;
    let kind = (filter.slice.kind == Slice::PROMPT_KIND).then_some(&*filter.slice.label);
    let is_whole = query.on == Samples::All && (filter.slice.is_all() || kind.is_some());
    let is_selected = |row: &&PublishedMethod| {
        filter.dataset.as_ref().is_none_or(|name| names_dataset(name, &row.dataset))
            && kind.is_none_or(|kind| kind == row.prompt_kind)
            && query.flags.iter().all(|(flag, set)| row.flags.get(flag).unwrap_or(&false) == set)
    };
    let measured = |row: &PublishedMethod| Measured {
        policy: query.policy,
        is_benchmark: is_whole && is_benchmark(filter.dataset.as_deref(), kind, row),
        weights: (!rows.is_empty()).then(|| rows.iter().all(is_official)),
    };
    let source = published();
    Reference {
        source: source.source.clone(),
        note: source.note.clone(),
        rows: source
            .methods
            .iter()
            .filter(is_selected)
            .map(|row| PublishedRow::of(row, measured(row)))
            .collect(),
        user_study: source.user_study.clone(),
    }
}

impl PublishedRow {
    fn of(row: &PublishedMethod, measured: Measured) -> Self {
        let area = row.metrics.get("aps").map(|area| (APS_AREA, *area));
        let all = row.metrics.iter().map(|(code, mean)| (&**code, *mean)).chain(area);
        let cells = all.map(|(code, mean)| {
            let reason = not_comparable(code, measured);
            let cell = PublishedCell {
                mean,
                comparable: reason.is_none(),
                reason,
                explanation: reason.map(|reason| reason.text().to_owned()),
            };
            (code.to_owned(), cell)
        });
        Self {
            method: row.method.clone(),
            dataset: row.dataset.clone(),
            flags: row.flags.clone(),
            metrics: cells.collect(),
        }
    }
}
