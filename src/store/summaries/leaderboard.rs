//! Standings, on which the leaderboard is based: for each run, pack and metric the running summary,
//! and the summary of a slice.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use uuid::Uuid;

use super::moments::Moments;
use super::slice::{APS_AREA, Slice, SliceSummary};
use super::slices::{cluster_sums, summary};
use super::standings::{RunStandings, Standing, StandingsCache, StandingsKey, StandingsQuery};
use crate::store::Store;
use crate::store::db::{
    Connection, Connections, Reader, Row, Sql, StoreError, on_backend, to_microseconds,
};
use crate::store::packs::read_pack;

/// Runs per statement.
const RUNS: usize = 1_000;

impl Store {
    /// Returns the standings of the runs of a leaderboard, in order of method, pack and run.
    /// Unchanged ones come from the cache.
    pub async fn standings(
        &self,
        query: &StandingsQuery,
    ) -> Result<Vec<Arc<RunStandings>>, StoreError> {
        on_backend!(self, pool => self.remembered.standings(pool, query).await)
    }

    /// Returns the query plans of [`standings`](Self::standings), one line per step: of the query
    /// that every request runs, and of the query for runs that changed. They explain a slow
    /// leaderboard.
    pub async fn explain_standings(
        &self,
        query: &StandingsQuery,
    ) -> Result<Vec<String>, StoreError> {
        on_backend!(self, pool => explain(pool, query).await)
    }
}

impl StandingsCache {
    pub(super) async fn standings<P: Connections>(
        &self,
        pool: &P,
        query: &StandingsQuery,
    ) -> Result<Vec<Arc<RunStandings>>, StoreError> {
        let begun = self.begin();
        // Stamps first: a change between the two reads is then read again by the next request, and
        // never cached under too new a stamp.
        let mut connection = pool.reader().await?;
        let rows = connection.fetch(query.stamps()).await?;
        drop(connection);
        let stamps = rows.iter().map(|row| {
            let row = Reader::new(row, "summaries", "");
            let flags: BTreeMap<String, bool> = row.json("flags")?;
            let stamp =
                format!("{} {flags:?} {}", row.int::<u64>("revision")?, row.text("fingerprint")?);
            let key = (
                row.uuid("run")?,
                row.text("pack")?,
                query.filter.slice.clone(),
                query.policy.clone(),
            );
            Ok((key, stamp))
        });
        let stamps: Vec<(StandingsKey, String)> = stamps.collect::<Result<_, StoreError>>()?;
        let mut found: HashMap<StandingsKey, Arc<RunStandings>> = HashMap::new();
        let mut changed: BTreeMap<String, BTreeMap<Uuid, String>> = BTreeMap::new();
        for (key, stamp) in &stamps {
            match self.peek(key).filter(|cached| cached.stamp == *stamp) {
                Some(cached) => drop(found.insert(key.clone(), cached)),
                None => {
                    drop(changed.entry(key.1.clone()).or_default().insert(key.0, stamp.clone()));
                }
            }
        }
        for (pack, mut stamps) in changed {
            for run in query.read(pool, &pack, &mut stamps).await? {
                let key = (run.run, pack.clone(), query.filter.slice.clone(), query.policy.clone());
                let run = Arc::new(run);
                // A slice that the run does not have is not cached, because clients can make up
                // labels.
                if query.filter.slice.is_all()
                    || run.standings.iter().any(|standing| standing.slice.is_some())
                {
                    self.insert(&key, run.clone(), begun);
                }
                found.insert(key, run);
            }
        }
        // A run that was deleted in between has a stamp but no standings.
        Ok(stamps.into_iter().filter_map(|(key, _)| found.remove(&key)).collect())
    }
}

async fn explain<P: Connections>(
    pool: &P,
    query: &StandingsQuery,
) -> Result<Vec<String>, StoreError> {
    let mut connection = pool.reader().await?;
    let connection = &mut *connection;
    let rows = connection.fetch(query.stamps()).await?;
    let runs = rows.iter().map(|row| Reader::new(row, "summaries", "").uuid("run"));
    let runs: Vec<Uuid> = runs.take(RUNS).collect::<Result<_, _>>()?;
    let pack =
        rows.first().map(|row| Reader::new(row, "summaries", "").text("pack")).transpose()?;
    let pack = pack.unwrap_or_default();
    let mut lines = Vec::new();
    for (what, asked) in
        [("every request", query.stamps()), ("runs that changed", query.sql(&pack, &runs))]
    {
        let (explain, column) = connection.explain();
        let mut sql = Sql::new(explain);
        sql.text.push_str(&asked.text);
        sql.arguments = asked.arguments;
        lines.push(format!("{what}:"));
        for row in &connection.fetch(sql).await? {
            lines.push(Reader::new(row, "plan", "").text(column)?);
        }
    }
    Ok(lines)
}

impl StandingsQuery {
    /// Returns the query for one row per run and pack, with the values that change whenever its
    /// standings do: the run's revision, which every change of its scores raises, and the
    /// fingerprint of its slice summaries.
    fn stamps(&self) -> Sql {
        let mut sql = Sql::new(
            "SELECT summaries.run, summaries.pack, runs.flags, revision,
                 COALESCE(fingerprint, '') AS fingerprint
             FROM (SELECT DISTINCT run, pack FROM summaries WHERE n + nulls > 0) AS summaries
             JOIN runs ON runs.id = summaries.run JOIN methods ON methods.id = runs.method
             JOIN packs ON packs.digest = summaries.pack
             LEFT JOIN run_slices ON run_slices.run = summaries.run
                 AND run_slices.pack = summaries.pack
             WHERE 1 = 1",
        );
        let texts = [
            (" AND methods.name = ", &self.filter.method),
            (" AND runs.name = ", &self.filter.run),
            (" AND summaries.pack = ", &self.filter.pack),
            (" AND runs.dataset = ", &self.filter.dataset),
            (" AND runs.split = ", &self.filter.split),
        ];
        for (condition, text) in texts {
            if let Some(text) = text {
                sql.push(condition).bind(text.as_str());
            }
        }
        for (condition, time) in [
            (" AND runs.created >= ", self.filter.since),
            (" AND runs.created < ", self.filter.until),
        ] {
            if let Some(time) = time {
                sql.push(condition).bind(to_microseconds(time));
            }
        }
        if let Some(weights) = self.filter.weights {
            sql.push(" AND packs.weights = ").bind(weights.as_str());
        }
        sql.push(" ORDER BY methods.name, summaries.pack, runs.name");
        sql
    }

    /// Reads the current standings of these runs, given the stamp of each.
    async fn read<P: Connections>(
        &self,
        pool: &P,
        pack: &str,
        stamps: &mut BTreeMap<Uuid, String>,
    ) -> Result<Vec<RunStandings>, StoreError> {
        let runs: Vec<Uuid> = stamps.keys().copied().collect();
        let policies = ["none", self.policy.as_str()];
        let mut sums = cluster_sums(pool, &runs, pack, &self.filter.slice, &policies).await?;
        let mut areas = self.areas(pool, pack, &runs).await?;
        let mut found: BTreeMap<Uuid, Vec<Standing>> = BTreeMap::new();
        for runs in runs.chunks(RUNS) {
            let mut connection = pool.reader().await?;
            for row in &connection.fetch(self.sql(pack, runs)).await? {
                let standing = self.standing(&Reader::new(row, "summaries", ""))?;
                found.entry(standing.run_id).or_default().push(standing);
            }
        }
        let read = found.into_iter().filter_map(|(run, standings)| {
            let keys = sums.keys.remove(&run).unwrap_or_default();
            let sample_set = sums.sets.remove(&run).unwrap_or_default();
            let sums = sums.sums.remove(&run).unwrap_or_default();
            Some(RunStandings {
                run,
                standings,
                keys,
                sample_set,
                sums,
                area: areas.remove(&run),
                stamp: stamps.remove(&run)?,
            })
        });
        Ok(read.collect())
    }

    /// Reads `aps` as the area under the ROC curve of these runs.
    async fn areas<P: Connections>(
        &self,
        pool: &P,
        pack: &str,
        runs: &[Uuid],
    ) -> Result<BTreeMap<Uuid, SliceSummary>, StoreError> {
        let slice = &self.filter.slice;
        let mut found = BTreeMap::new();
        if !slice.is_all() && slice.kind != Slice::PROMPT_KIND {
            return Ok(found);
        }
        let mut connection = pool.reader().await?;
        for runs in runs.chunks(RUNS) {
            let mut sql = Sql::new(
                "SELECT run, metric, metric_version, samples, n, nulls, penalised, undecided,
                     faceless, mean, std, low, high, clusters
                 FROM slice_summaries
                 WHERE pack = ",
            );
            sql.bind(pack).push(" AND kind = ").bind(slice.kind.as_str());
            sql.push(" AND label = ").bind(slice.label.as_str());
            sql.push(" AND metric = ").bind(APS_AREA);
            sql.push(" AND policy = ").bind(self.policy.as_str());
            sql.push(" AND run IN ").tuple(runs.iter().map(|run| (*run).into()));
            for row in &connection.fetch(sql).await? {
                let row = Reader::new(row, "slice_summaries", "");
                let area = summary(&row, slice.clone(), self.policy.clone())?;
                found.insert(row.uuid("run")?, area);
            }
        }
        Ok(found)
    }

    /// Returns the query for the standings of these runs with a pack.
    fn sql(&self, pack: &str, runs: &[Uuid]) -> Sql {
        let mut sql = Sql::new(
            "SELECT methods.name AS method, runs.name AS run_name, runs.id AS run, runs.flags,
                 summaries.pack, packs.name AS pack_name, weights, summaries.metric,
                 summaries.metric_version, summaries.n AS running_n,
                 summaries.nulls AS running_nulls, pivot, total, squares, slices.samples,
                 slices.n, slices.nulls, penalised, undecided, faceless, mean, std, low, high,
                 slices.clusters
             FROM summaries JOIN runs ON runs.id = summaries.run
             JOIN methods ON methods.id = runs.method JOIN packs ON packs.digest = summaries.pack
             LEFT JOIN slice_summaries AS slices ON slices.run = summaries.run
                 AND slices.pack = summaries.pack AND slices.metric = summaries.metric
                 AND slices.metric_version = summaries.metric_version AND slices.kind = ",
        );
        sql.bind(self.filter.slice.kind.as_str())
            .push(" AND slices.label = ")
            .bind(self.filter.slice.label.as_str());
        sql.push(" AND slices.policy = ");
        if self.penalised.is_empty() {
            sql.push("'none'");
        } else {
            sql.push("CASE WHEN summaries.metric IN ")
                .tuple(self.penalised.iter().map(|m| m.as_str().into()));
            sql.push(" THEN CAST(").bind(self.policy.as_str()).push(" AS text) ELSE 'none' END");
        }
        // Skips summaries whose scores were all replaced.
        sql.push(" WHERE summaries.n + summaries.nulls > 0 AND summaries.pack = ").bind(pack);
        sql.push(" AND summaries.run IN ").tuple(runs.iter().map(|run| (*run).into()));
        sql.push(" ORDER BY summaries.run, summaries.metric, summaries.metric_version");
        sql
    }

    fn standing<R: Row>(&self, row: &Reader<'_, R>) -> Result<Standing, StoreError> {
        let metric = row.text("metric")?;
        let slice = if row.optional_int::<u64>("samples")?.is_some() {
            let policy =
                if self.penalised.contains(&metric) { self.policy.as_str() } else { "none" };
            Some(summary(row, self.filter.slice.clone(), policy.to_owned())?)
        } else {
            None
        };
        Ok(Standing {
            method: row.text("method")?,
            run: row.text("run_name")?,
            run_id: row.uuid("run")?,
            flags: row.json("flags")?,
            pack: read_pack(row, "pack", "pack_name")?,
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

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::content::ContentHash;
    use crate::pack_id::{PackId, Weights};
    use crate::store::summaries::standings::{StandingsFilter, weigh};
    use crate::store::{
        Extras, NewSample, NewScore, RunName, SampleInputs, ScoreValue, Store, StoreOptions,
    };

    fn asked(slice: Slice) -> StandingsQuery {
        StandingsQuery {
            filter: StandingsFilter { slice, ..StandingsFilter::default() },
            policy: "none".into(),
            penalised: vec![],
        }
    }

    /// An in-memory store with this many runs of one sample.
    async fn store_of(runs: usize) -> Store {
        let store = Store::open("sqlite::memory:", &StoreOptions::default()).await.unwrap();
        for run in 0..runs {
            let value = ScoreValue::Number(0.5);
            let score =
                NewScore { metric: "aesthetic".into(), metric_version: 1, value, flags: vec![] };
            let sample = NewSample {
                id: Uuid::now_v7(),
                created: OffsetDateTime::now_utc(),
                run: Some(RunName::new("m", Some(run.to_string()))),
                name: None,
                width: 2,
                height: 2,
                pack: PackId {
                    digest: "a".repeat(64),
                    name: "pack".into(),
                    weights: Weights::Official,
                },
                service_version: "0".into(),
                scores: vec![score],
                extras: Extras::default(),
                inputs: SampleInputs {
                    content: ContentHash::of(b"content"),
                    prompt: None,
                    image: ContentHash::of(b"image"),
                    references: vec![],
                    auxiliary: vec![],
                    metadata: serde_json::json!({}),
                },
            };
            store.record(&sample).await.unwrap();
        }
        store
    }

    fn entries(store: &Store) -> u64 {
        store.remembered.count()
    }

    #[tokio::test]
    async fn slices_that_no_run_has_are_never_cached() {
        let store = store_of(3).await;
        assert_eq!(store.standings(&asked(Slice::all())).await.unwrap().len(), 3);
        assert_eq!(entries(&store), 3, "known slices stay cached");
        for at in 0..20 {
            let label = format!("{at}{}", "x".repeat(10_000));
            let slice = Slice { kind: Slice::CATEGORY.into(), label };
            assert_eq!(store.standings(&asked(slice)).await.unwrap().len(), 3);
        }
        assert_eq!(entries(&store), 3);
    }

    #[tokio::test]
    async fn the_weight_of_an_entry_includes_its_key() {
        let store = store_of(1).await;
        let run = store.standings(&asked(Slice::all())).await.unwrap().remove(0);
        let key = |label: String| {
            (run.run, String::new(), Slice { kind: String::new(), label }, String::new())
        };
        let (short, long) =
            (weigh(&key(String::new()), &run), weigh(&key("x".repeat(60_000)), &run));
        assert_eq!(long - short, 60_000);
        assert!(short >= 600, "{short}");
    }
}
