//! Columns of scores: one metric of many samples of a run.

use time::OffsetDateTime;
use uuid::Uuid;

use super::db::{Column, Connection, SCORES_PER_STATEMENT, Sql, StoreError, storable};
use super::sample::ScoreValue;
use super::summaries::running::SummaryKey;

/// One metric's scores of several samples.
#[derive(Clone, Debug)]
pub struct ScoreColumn {
    /// Code of the metric.
    pub metric: String,
    /// Version of the metric's definition.
    pub metric_version: u32,
    /// Number or null of each sample; `None` if it has no score of this metric.
    pub values: Vec<Option<ScoreValue>>,
}

/// Origin of scores: pack, service version, metric and time.
pub(super) struct Origin<'a> {
    pub(super) pack: &'a str,
    pub(super) service_version: &'a str,
    pub(super) metric: &'a str,
    pub(super) version: u32,
    pub(super) created: OffsetDateTime,
}

impl<'a> Origin<'a> {
    /// Returns the key of the summary that a run's scores of this metric count in.
    pub(super) fn summary(&self, run: Uuid) -> SummaryKey<'a> {
        SummaryKey { run, metric: self.metric, pack: self.pack, version: self.version }
    }
}

/// Writes the scores of a column; existing ones stay unless `replace` is set.
pub(super) async fn write<C: Connection>(
    connection: &mut C,
    of: &Origin<'_>,
    rows: &[(Uuid, &ScoreValue)],
    replace: bool,
) -> Result<u64, StoreError> {
    let mut written = 0;
    for rows in rows.chunks(SCORES_PER_STATEMENT) {
        let mut sql = Sql::new(
            "INSERT INTO scores (sample, metric, pack, metric_version, value, reason, flags,
                 service_version, created)
             SELECT column1, ",
        );
        sql.bind(of.metric).push(", ").bind(of.pack).push(", ").bind(of.version);
        sql.push(", column2, column3, '[]', ").bind(of.service_version).push(", ").bind(of.created);
        let (values, reasons) = rows
            .iter()
            .map(|(_, value)| match value {
                ScoreValue::Number(value) => (Some(storable(*value)), None),
                ScoreValue::Null { reason } => (None, Some(reason.clone())),
            })
            .unzip();
        let samples = rows.iter().map(|(sample, _)| *sample).collect();
        let columns = vec![Column::Uuid(samples), Column::Real(values), Column::Text(reasons)];
        connection.push_rows(&mut sql, columns);
        sql.push(if replace {
            " ON CONFLICT (sample, metric, pack) DO UPDATE SET
                 metric_version = excluded.metric_version, value = excluded.value,
                 reason = excluded.reason, flags = excluded.flags,
                 service_version = excluded.service_version, created = excluded.created"
        } else {
            " ON CONFLICT (sample, metric, pack) DO NOTHING"
        });
        written += connection.execute(sql).await?;
    }
    Ok(written)
}
