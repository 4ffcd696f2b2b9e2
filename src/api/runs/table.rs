//! The table of a run, as reports show and cache it.

use std::{collections::BTreeMap, sync::Arc};

use uuid::Uuid;

use crate::{
    analysis::{
        self, AttributeOutcomes, Distribution, Policy, Report, RunScores, distributions, sample_set,
    },
    blocking::blocking,
    content::ContentHash,
    stats::Bootstrap,
    store::{AttributeColumn, RunData},
};

/// The inputs of a table: the same key always has the same table.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct TableKey {
    pub(crate) run: Uuid,
    pub(crate) revision: u64,
    pub(crate) pack: Option<String>,
    pub(crate) policy: Policy,
    pub(crate) others: Vec<(Uuid, u64)>,
    pub(crate) prompt_kind: Option<KindKey>,
}

/// A kind of prompt in a key, hashed, so that an entry does not take the memory of its request.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct KindKey([u8; 32]);

impl KindKey {
    pub(crate) fn of(kind: &str) -> Self {
        Self(*ContentHash::of(kind.as_bytes()).as_bytes())
    }
}

/// A table, the number of samples without a score by metric and reason, the metrics' versions, and
/// their distributions.
#[derive(Clone)]
pub(crate) struct Table {
    pub(crate) report: Report,
    pub(crate) sample_set: String,
    pub(crate) nulls: BTreeMap<String, BTreeMap<String, usize>>,
    pub(crate) versions: BTreeMap<String, u32>,
    /// Distributions of the scores as measured, by metric.
    pub(crate) distributions: Vec<Distribution>,
}

impl Table {
    /// Returns an estimate of its memory in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let reasons: usize = self.nulls.values().map(BTreeMap::len).sum();
        let bins: usize = self.distributions.iter().map(|of| 256 + 8 * of.counts.len()).sum();
        512 * (self.report.rows.len() + self.nulls.len()) + 128 * reasons + bins
    }
}

/// Computes a table off the async threads: resampling 100,000 samples takes seconds.
pub(crate) async fn tabulate(
    data: Arc<RunData>,
    outcomes: BTreeMap<String, AttributeColumn>,
    policy: Policy,
) -> Result<Table, analysis::ReportError> {
    let work = move || {
        let reasons = data.metrics.iter().map(|(code, column)| {
            let counted = column.reasons.iter().map(|(reason, at)| (reason.clone(), at.len()));
            (code.clone(), counted.collect())
        });
        let nulls = reasons.collect();
        let versions =
            data.metrics.iter().map(|(code, column)| (code.clone(), column.version)).collect();
        let sample_set = sample_set(&data.names);
        let distributions = distributions(&data);
        let scores = scores(&data, outcomes);
        analysis::report(&scores, policy, &Bootstrap::default()).map(|report| Table {
            report,
            sample_set,
            nulls,
            versions,
            distributions,
        })
    };
    blocking(work).await
}

/// Converts a run's columns to the input of a report.
fn scores(data: &RunData, outcomes: BTreeMap<String, AttributeColumn>) -> RunScores {
    RunScores {
        identities: data.identities.clone(),
        scores: data
            .metrics
            .iter()
            .map(|(code, column)| (code.clone(), column.values.clone()))
            .collect(),
        attributes: outcomes
            .into_iter()
            .map(|(name, outcomes)| AttributeOutcomes { name, outcomes })
            .collect(),
    }
}
