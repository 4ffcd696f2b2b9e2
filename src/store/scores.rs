//! Stored scores of samples.

use std::collections::BTreeMap;

use time::OffsetDateTime;
use uuid::Uuid;

use super::db::{Connection, Reader, Row, Sql, StoreError};
use super::packs::read_pack;
use super::sample::{NewScore, ScoreValue};
use crate::pack_id::PackId;

/// A stored score with its provenance.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreRecord {
    /// Code of the metric.
    pub metric: String,
    /// Version of the metric's definition.
    pub metric_version: u32,
    /// Number, or the reason why there is none.
    pub value: ScoreValue,
    /// Flags for a reader of the number (`truncated`, …).
    pub flags: Vec<String>,
    /// Pack it was computed with.
    pub pack: PackId,
    /// Version of the service that computed it.
    pub service_version: String,
    /// Time of computation, UTC, to the microsecond.
    pub created: OffsetDateTime,
}

/// A score to write, and the one of another version that it replaces.
pub(super) struct Change<'a> {
    pub(super) old: Option<&'a StoredScore>,
    pub(super) new: &'a NewScore,
}

/// The stored state of a score.
pub(super) struct StoredScore {
    pub(super) version: u32,
    pub(super) value: ScoreValue,
}

/// Largest absolute value of a score: sums of its square cannot overflow with any possible number
/// of samples.
const MAX_SCORE: f64 = 1e100;

/// Rejects a number that cannot be a score.
pub(super) fn check_number(metric: &str, value: f64) -> Result<(), StoreError> {
    if value.is_finite() && value.abs() <= MAX_SCORE {
        return Ok(());
    }
    Err(StoreError::invalid(
        metric,
        format!("{value} is not a finite number of at most {MAX_SCORE:e}"),
    ))
}

pub(super) fn score<R: Row>(row: &Reader<'_, R>) -> Result<ScoreRecord, StoreError> {
    Ok(ScoreRecord {
        metric: row.text("metric")?,
        metric_version: row.int("metric_version")?,
        value: value(row)?,
        flags: row.json("flags")?,
        pack: read_pack(row, "pack", "pack_name")?,
        service_version: row.text("service_version")?,
        created: row.time("created")?,
    })
}

/// Reads a number or its reason from the columns `value` and `reason`.
pub(super) fn value<R: Row>(row: &Reader<'_, R>) -> Result<ScoreValue, StoreError> {
    match (row.optional_real("value")?, row.optional_text("reason")?) {
        (Some(value), None) if value.is_finite() => Ok(ScoreValue::Number(value)),
        (None, Some(reason)) => Ok(ScoreValue::Null { reason }),
        _ => Err(row.corrupt("value", "is neither a finite number nor null with a reason")),
    }
}

/// Returns the scores of a sample with a pack, by metric.
pub(super) async fn stored_scores<C: Connection>(
    connection: &mut C,
    sample: Uuid,
    pack: &str,
) -> Result<BTreeMap<String, StoredScore>, StoreError> {
    let mut sql =
        Sql::new("SELECT metric, metric_version, value, reason FROM scores WHERE sample = ");
    sql.bind(sample).push(" AND pack = ").bind(pack);
    let rows = connection.fetch(sql).await?;
    rows.iter()
        .map(|row| {
            let row = Reader::new(row, "scores", format!("of sample {sample}"));
            let stored = StoredScore { version: row.int("metric_version")?, value: value(&row)? };
            Ok((row.text("metric")?, stored))
        })
        .collect()
}
