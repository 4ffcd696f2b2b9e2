//! What the leaderboard stands on: for each run, pack and metric the running summary, and the summary of a slice.

use std::collections::BTreeMap;

use time::OffsetDateTime;
use uuid::Uuid;

use super::slices::summary;
use super::sql::{Connection, Connections, Reader, Row, Sql};
use super::summary::Moments;
use super::words::to_microseconds;
use super::{Pack, Slice, SliceSummary, StoreError, Weights};

/// Which runs, with which scores.
#[derive(Clone, Debug, PartialEq)]
pub struct StandingsQuery {
    /// Only this method.
    pub method: Option<String>,
    /// Only runs of this name.
    pub run: Option<String>,
    /// Only these metrics; all when empty.
    pub metrics: Vec<String>,
    /// Only scores of the pack with this digest.
    pub pack: Option<String>,
    /// Only scores of packs with such weights.
    pub weights: Option<Weights>,
    /// Only runs over this dataset.
    pub dataset: Option<String>,
    /// Only runs over this split.
    pub split: Option<String>,
    /// Only runs that were made at this time or later.
    pub since: Option<OffsetDateTime>,
    /// Only runs that were made before this time.
    pub until: Option<OffsetDateTime>,
    /// The slice whose summaries are read.
    pub slice: Slice,
    /// The policy whose summaries are read of `penalised` metrics; those of others are the same under every policy, and kept
    /// under `none`.
    pub policy: String,
    /// The metrics that the policy concerns.
    pub penalised: Vec<String>,
}

/// One metric of a run with one pack.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// The method.
    pub method: String,
    /// The run's name.
    pub run: String,
    /// The run's id.
    pub run_id: Uuid,
    /// What was declared of the run.
    pub flags: BTreeMap<String, bool>,
    /// The pack of the scores.
    pub pack: Pack,
    /// The metric's code.
    pub metric: String,
    /// The version of its definition.
    pub version: u32,
    /// The whole run as it is now, whatever the slice and without any penalty.
    pub running: Moments,
    /// The slice under the policy, as it was when the run was summarised.
    pub slice: Option<SliceSummary>,
}

/// One statement, so that the answer is of one moment.
pub(super) async fn standings<P: Connections>(
    pool: &P,
    query: &StandingsQuery,
) -> Result<Vec<Standing>, StoreError> {
    let mut connection = pool.reader().await?;
    let found = connection.fetch(query.sql()).await?;
    drop(connection);
    found.iter().map(|row| query.standing(&Reader::new(row, "summaries", ""))).collect()
}

/// How the database goes about it: its plan, a line a step, for whoever looks into a slow leaderboard.
pub(super) async fn explain<P: Connections>(
    pool: &P,
    query: &StandingsQuery,
) -> Result<Vec<String>, StoreError> {
    let mut connection = pool.reader().await?;
    let connection = &mut *connection;
    let (explain, column) = plan(connection);
    let mut sql = Sql::new(explain);
    let Sql { text, arguments } = query.sql();
    sql.text.push_str(&text);
    sql.arguments = arguments;
    let rows = connection.fetch(sql).await?;
    rows.iter().map(|row| Reader::new(row, "plan", "").text(column)).collect()
}

fn plan<C: Connection>(_: &C) -> (&'static str, &'static str) {
    C::EXPLAIN
}

impl StandingsQuery {
    fn sql(&self) -> Sql {
        let mut sql = Sql::new(
            "SELECT methods.name AS method, runs.name AS run_name, runs.id AS run, runs.flags, summaries.pack,
                    packs.name AS pack_name, weights, summaries.metric, summaries.metric_version,
                    summaries.n AS running_n, summaries.nulls AS running_nulls, pivot, total, squares,
                    slices.samples, slices.n, slices.nulls, penalised, undecided, faceless, mean, std, low, high, slices.clusters
             FROM summaries JOIN runs ON runs.id = summaries.run JOIN methods ON methods.id = runs.method
             JOIN packs ON packs.digest = summaries.pack
             LEFT JOIN slice_summaries AS slices ON slices.run = summaries.run AND slices.pack = summaries.pack
                  AND slices.metric = summaries.metric AND slices.metric_version = summaries.metric_version
                  AND slices.kind = ",
        );
        sql.bind(self.slice.kind.as_str()).push(" AND slices.label = ").bind(self.slice.label.as_str());
        sql.push(" AND slices.policy = ");
        if self.penalised.is_empty() {
            sql.push("'none'");
        } else {
            sql.push("CASE WHEN summaries.metric IN ")
                .tuple(self.penalised.iter().map(|m| m.as_str().into()));
            sql.push(" THEN CAST(").bind(self.policy.as_str()).push(" AS text) ELSE 'none' END");
        }
        // Summaries whose scores were all replaced say nothing.
        sql.push(" WHERE summaries.n + summaries.nulls > 0");
        let texts = [
            (" AND methods.name = ", &self.method),
            (" AND runs.name = ", &self.run),
            (" AND summaries.pack = ", &self.pack),
            (" AND runs.dataset = ", &self.dataset),
            (" AND runs.split = ", &self.split),
        ];
        for (condition, text) in texts {
            if let Some(text) = text {
                sql.push(condition).bind(text.as_str());
            }
        }
        for (condition, time) in [(" AND runs.created >= ", self.since), (" AND runs.created < ", self.until)]
        {
            if let Some(time) = time {
                sql.push(condition).bind(to_microseconds(time));
            }
        }
        if let Some(weights) = self.weights {
            sql.push(" AND packs.weights = ").bind(weights.as_str());
        }
        if !self.metrics.is_empty() {
            sql.push(" AND summaries.metric IN ").tuple(self.metrics.iter().map(|m| m.as_str().into()));
        }
        sql.push(
            " ORDER BY methods.name, summaries.pack, runs.name, summaries.metric, summaries.metric_version",
        );
        sql
    }

    fn standing<R: Row>(&self, row: &Reader<'_, R>) -> Result<Standing, StoreError> {
        let metric = row.text("metric")?;
        let slice = if row.optional_int::<u64>("samples")?.is_some() {
            let policy = if self.penalised.contains(&metric) { self.policy.as_str() } else { "none" };
            Some(summary(row, self.slice.clone(), policy.to_owned())?)
        } else {
            None
        };
        Ok(Standing {
            method: row.text("method")?,
            run: row.text("run_name")?,
            run_id: row.uuid("run")?,
            flags: row.json("flags")?,
            pack: Pack {
                digest: row.text("pack")?,
                name: row.text("pack_name")?,
                weights: row.word("weights", Weights::parse)?,
            },
            version: row.int("metric_version")?,
            metric,
            running: Moments::from_sums(
                row.int("running_n")?,
                row.int("running_nulls")?,
                row.real("pivot")?,
                row.real("total")?,
                row.real("squares")?,
            ),
            slice,
        })
    }
}
