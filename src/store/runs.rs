//! Runs: their facts, progress and state.

use std::collections::{BTreeSet, HashSet};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Store;
use super::db::{
    Connection, Connections, Reader, Row, Sql, StoreError, check_name, check_text, new_id,
    on_backend, read, read_first, to_microseconds, with_retries,
};
use super::methods::ensure_method;
use super::packs::read_pack;
use super::run_name::RunName;
use super::spools::{self, Released};
use crate::content::ContentHash;
use crate::pack_id::PackId;

/// Facts that a run declares about its generator's training, for readers of a leaderboard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RunFlags {
    /// The generator was trained with cross validation over the evaluated identities.
    pub cross_validated_training: bool,
    /// The generator was trained on the photos that it is evaluated with.
    pub trained_on_evaluation_photos: bool,
}

/// Declared facts of a run. They are set once and do not change.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunFacts {
    /// Dataset whose prompts it covers.
    pub dataset: Option<String>,
    /// Split of the dataset.
    pub split: Option<String>,
    /// Declared facts about training.
    pub flags: RunFlags,
    /// Settings of the generator as they were sent: a JSON object.
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// Codes of the metrics that its samples are scored with; `None` for all.
    pub metrics: Option<Vec<String>>,
}

/// State of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Samples may be added.
    Open,
    /// No samples may be added; pending ones are still scored.
    Finishing,
    /// All samples are scored and summarised.
    Finished,
}

impl RunState {
    /// All states, in the order in which a run has them.
    pub const ALL: [Self; 3] = [Self::Open, Self::Finishing, Self::Finished];

    /// Returns the word that is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Finishing => "finishing",
            Self::Finished => "finished",
        }
    }

    pub(super) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// Number of samples of a run by state, updated with each sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunCounts {
    /// Pending: accepted, and not scored yet.
    pub waiting: u64,
    /// Failed: accepted, but scoring failed.
    pub failed: u64,
    /// Scored: recorded with their scores.
    pub scored: u64,
}

/// A run with everything known about it except its samples.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRecord {
    /// Id of the run.
    pub id: Uuid,
    /// Method and name of the run.
    pub name: RunName,
    /// Declared facts.
    pub facts: RunFacts,
    /// Pack that its samples are scored with, set by the first accepted sample.
    pub pack: Option<PackId>,
    /// Version of the service that accepted its first sample.
    pub service_version: Option<String>,
    /// State of the run.
    pub state: RunState,
    /// Number of samples by state.
    pub counts: RunCounts,
    /// Revision, which every change of its scored samples and their scores raises.
    pub revision: u64,
    /// Time of creation, UTC, to the microsecond.
    pub created: OffsetDateTime,
    /// Time at which it was finished, UTC, to the microsecond.
    pub finished: Option<OffsetDateTime>,
}

/// Filter and page of runs.
#[derive(Clone, Debug, Default)]
pub struct RunsQuery {
    /// Only runs of this method.
    pub method: Option<String>,
    /// Only runs over this dataset.
    pub dataset: Option<String>,
    /// Only runs in this state.
    pub state: Option<RunState>,
    /// Whether the newest run comes first.
    pub newest_first: bool,
    /// Starts after the run with this id, in the order of the list.
    pub after: Option<Uuid>,
    /// Maximum number of runs.
    pub limit: u32,
}

impl Store {
    /// Creates a run, or finds the one with the same facts. Returns `true` if it is new. Other
    /// facts are a [`StoreError::RunConflict`]; a run that was created by its first sample adopts
    /// them.
    pub async fn create_run(
        &self,
        name: &RunName,
        facts: &RunFacts,
        created: OffsetDateTime,
    ) -> Result<(RunRecord, bool), StoreError> {
        on_backend!(self, pool => create_run(pool, name, facts, created).await)
    }

    /// Looks up a run, or returns `None` if no run has this id. It reads one row, whatever the
    /// number of samples.
    pub async fn run(&self, id: Uuid) -> Result<Option<RunRecord>, StoreError> {
        on_backend!(self, pool => find(&mut *pool.reader().await?, id).await)
    }

    /// Lists runs by id, which is the order of creation because ids grow with time, or the reverse.
    pub async fn runs(&self, query: &RunsQuery) -> Result<Vec<RunRecord>, StoreError> {
        let mut sql = Sql::new(RUNS);
        match (query.newest_first, query.after) {
            (false, after) => sql.push(" WHERE runs.id > ").bind(after.unwrap_or_default()),
            (true, after) => sql.push(" WHERE runs.id < ").bind(after.unwrap_or(Uuid::max())),
        };
        if let Some(method) = &query.method {
            sql.push(" AND methods.name = ").bind(method.as_str());
        }
        if let Some(dataset) = &query.dataset {
            sql.push(" AND dataset = ").bind(dataset.as_str());
        }
        if let Some(state) = query.state {
            sql.push(" AND state = ").bind(state.as_str());
        }
        sql.push(" ORDER BY runs.id").push(if query.newest_first { " DESC" } else { "" });
        sql.push(" LIMIT ").bind(query.limit);
        on_backend!(self, pool => read(pool, sql, run_record).await)
    }

    /// Counts pending, failed and scored samples over all runs.
    pub async fn backlog(&self) -> Result<RunCounts, StoreError> {
        let sql = Sql::new(
            "SELECT CAST(COALESCE(SUM(waiting), 0) AS bigint) AS waiting,
                 CAST(COALESCE(SUM(failed), 0) AS bigint) AS failed,
                 CAST(COALESCE(SUM(scored), 0) AS bigint) AS scored
             FROM runs",
        );
        let counts = on_backend!(self, pool => {
            read_first(pool, sql, |row| run_counts(&Reader::new(row, "runs", ""))).await
        });
        counts?.ok_or(StoreError::Contended(sqlx::Error::RowNotFound))
    }

    /// Counts the runs in each state; states without runs are 0.
    pub async fn runs_by_state(&self) -> Result<Vec<(RunState, u64)>, StoreError> {
        let sql = Sql::new("SELECT state, COUNT(*) AS runs FROM runs GROUP BY state");
        let found = on_backend!(self, pool => {
            read(pool, sql, |row| {
                let row = Reader::new(row, "runs", "");
                Ok((row.text("state")?, row.int::<u64>("runs")?))
            })
            .await
        })?;
        let count = |state: RunState| {
            found.iter().find(|(found, _)| found == state.as_str()).map_or(0, |(_, count)| *count)
        };
        Ok(RunState::ALL.map(|state| (state, count(state))).to_vec())
    }

    /// Closes a run to further samples. Returns `None` if no run has this id.
    pub async fn finish_run(&self, id: Uuid) -> Result<Option<RunRecord>, StoreError> {
        on_backend!(self, pool => finish(pool, id).await)
    }

    /// Returns the finishing runs without pending samples.
    pub async fn finishable_runs(&self) -> Result<Vec<Uuid>, StoreError> {
        let sql =
            Sql::new("SELECT id FROM runs WHERE state = 'finishing' AND waiting = 0 ORDER BY id");
        on_backend!(self, pool => read(pool, sql, |row| Reader::new(row, "runs", "").uuid("id")).await)
    }

    /// Marks a finishing run as finished, and releases and returns its spooled files.
    pub async fn run_finished(
        &self,
        id: Uuid,
        time: OffsetDateTime,
    ) -> Result<Vec<ContentHash>, StoreError> {
        on_backend!(self, pool => finished(pool, id, time).await)
    }
}

async fn create_run<P: Connections>(
    pool: &P,
    name: &RunName,
    facts: &RunFacts,
    created: OffsetDateTime,
) -> Result<(RunRecord, bool), StoreError> {
    check_name("the method's name", &name.method)?;
    check_name("the run's name", &name.run)?;
    check_facts(facts)?;
    with_retries(|| create(pool, name, facts, to_microseconds(created))).await
}

/// Refuses facts that a database cannot store.
pub(super) fn check_facts(facts: &RunFacts) -> Result<(), StoreError> {
    check_text("the dataset", facts.dataset.as_deref().unwrap_or_default())?;
    check_text("the split", facts.split.as_deref().unwrap_or_default())
}

async fn create<P: Connections>(
    pool: &P,
    name: &RunName,
    facts: &RunFacts,
    created: OffsetDateTime,
) -> Result<(RunRecord, bool), StoreError> {
    let mut transaction = pool.begin().await?;
    let connection = &mut *transaction;
    let (id, is_new) = ensure_run(connection, name, created).await?;
    let mut sql = Sql::new("SELECT declared FROM runs WHERE id = ");
    sql.bind(id).push(connection.lock());
    let rows = connection.fetch(sql).await?;
    let row = rows.first().ok_or(StoreError::Contended(sqlx::Error::RowNotFound))?;
    if Reader::new(row, "runs", id).int::<i64>("declared")? == 0 {
        // A run that was created by its first sample adopts the facts.
        declare(connection, id, facts).await?;
    }
    let record =
        find(connection, id).await?.ok_or(StoreError::Contended(sqlx::Error::RowNotFound))?;
    if let Some(fact) = difference(&record.facts, facts) {
        return Err(StoreError::RunConflict { run: name.clone(), fact });
    }
    transaction.commit().await?;
    Ok((record, is_new))
}

/// Writes the facts of a run.
pub(super) async fn declare<C: Connection>(
    connection: &mut C,
    id: Uuid,
    facts: &RunFacts,
) -> Result<(), StoreError> {
    let text = |value: serde_json::Result<String>| value.expect("plain data always serialises");
    let metrics = facts.metrics.as_ref().map(|metrics| text(serde_json::to_string(metrics)));
    let mut sql = Sql::new("UPDATE runs SET declared = 1, dataset = ");
    sql.bind(facts.dataset.clone()).push(", split = ").bind(facts.split.clone());
    sql.push(", flags = ").bind(text(serde_json::to_string(&facts.flags)));
    sql.push(", settings = ").bind(text(serde_json::to_string(&facts.settings)));
    sql.push(", metrics = ").bind(metrics).push(" WHERE id = ").bind(id);
    connection.execute(sql).await?;
    Ok(())
}

/// Returns the first fact in which two descriptions of a run differ.
fn difference(have: &RunFacts, given: &RunFacts) -> Option<&'static str> {
    [
        ("dataset", have.dataset == given.dataset),
        ("split", have.split == given.split),
        ("flags", have.flags == given.flags),
        ("settings", have.settings == given.settings),
        ("metrics", have.metrics == given.metrics),
    ]
    .into_iter()
    .find_map(|(fact, equal)| (!equal).then_some(fact))
}

const RUNS: &str =
    "SELECT runs.id, methods.name AS method_name, runs.name, dataset, split, flags, settings,
         metrics, pack, packs.name AS pack_name, weights, service_version, state, finished,
         waiting, failed, scored, revision, runs.created
     FROM runs JOIN methods ON methods.id = runs.method
     LEFT JOIN packs ON packs.digest = runs.pack";

async fn find<C: Connection>(
    connection: &mut C,
    id: Uuid,
) -> Result<Option<RunRecord>, StoreError> {
    let mut sql = Sql::new(RUNS);
    sql.push(" WHERE runs.id = ").bind(id);
    connection.fetch(sql).await?.first().map(run_record).transpose()
}

fn run_record<R: Row>(row: &R) -> Result<RunRecord, StoreError> {
    let key = Reader::new(row, "runs", "").uuid("id")?;
    let row = Reader::new(row, "runs", key);
    Ok(RunRecord {
        id: key,
        name: RunName { method: row.text("method_name")?, run: row.text("name")? },
        facts: RunFacts {
            dataset: row.optional_text("dataset")?,
            split: row.optional_text("split")?,
            flags: row.json("flags")?,
            settings: row.json("settings")?,
            metrics: row.optional_text("metrics")?.map(|_| row.json("metrics")).transpose()?,
        },
        pack: row
            .optional_text("pack")?
            .map(|_| read_pack(&row, "pack", "pack_name"))
            .transpose()?,
        service_version: row.optional_text("service_version")?,
        state: row.word("state", RunState::parse)?,
        counts: run_counts(&row)?,
        revision: row.int("revision")?,
        created: row.time("created")?,
        finished: row.optional_time("finished")?,
    })
}

fn run_counts<R: Row>(row: &Reader<'_, R>) -> Result<RunCounts, StoreError> {
    Ok(RunCounts {
        waiting: row.int("waiting")?,
        failed: row.int("failed")?,
        scored: row.int("scored")?,
    })
}

async fn finish<P: Connections>(pool: &P, id: Uuid) -> Result<Option<RunRecord>, StoreError> {
    let transaction = || async {
        let mut transaction = pool.begin().await?;
        let connection = &mut *transaction;
        // This conflicts with the lock that adding a sample takes: once it is granted, no sample is
        // half added.
        lock_run_for_deletion(connection, id).await?;
        let mut sql =
            Sql::new("UPDATE runs SET state = 'finishing' WHERE state = 'open' AND id = ");
        sql.bind(id);
        connection.execute(sql).await?;
        let record = find(connection, id).await?;
        transaction.commit().await?;
        Ok(record)
    };
    with_retries(transaction).await
}

async fn finished<P: Connections>(
    pool: &P,
    id: Uuid,
    time: OffsetDateTime,
) -> Result<Vec<ContentHash>, StoreError> {
    let transaction = || async {
        let mut transaction = pool.begin().await?;
        let connection = &mut *transaction;
        let mut sql = Sql::new("UPDATE runs SET state = 'finished', finished = ");
        sql.bind(to_microseconds(time))
            .push(" WHERE state = 'finishing' AND waiting = 0 AND id = ")
            .bind(id);
        if connection.execute(sql).await? == 0 {
            return Ok(Vec::new());
        }
        let mut sql = Sql::new("SELECT image FROM kept_files WHERE run = ");
        sql.bind(id);
        let rows = connection.fetch(sql).await?;
        let files = rows.iter().map(|row| Reader::new(row, "kept_files", id).hash("image"));
        let files = files.collect::<Result<_, _>>()?;
        spools::release(connection, Released::OfRun(id)).await?;
        transaction.commit().await?;
        Ok(files)
    };
    with_retries(transaction).await
}

/// Locks a run against everything else, and returns whether it exists.
pub(super) async fn lock_run_for_deletion<C: Connection>(
    connection: &mut C,
    id: Uuid,
) -> Result<bool, StoreError> {
    let mut sql = Sql::new("SELECT id FROM runs WHERE id = ");
    sql.bind(id).push(connection.lock_for_deletion());
    Ok(!connection.fetch(sql).await?.is_empty())
}

/// Locks these runs against finishing and deletion, and returns those that exist.
pub(super) async fn lock_runs<C: Connection>(
    connection: &mut C,
    runs: &BTreeSet<Uuid>,
) -> Result<HashSet<Uuid>, StoreError> {
    let mut sql = Sql::new("SELECT runs.id FROM runs WHERE runs.id IN ");
    sql.tuple(runs.iter().map(|run| (*run).into()))
        .push(" ORDER BY runs.id")
        .push(connection.lock_shared_runs());
    let rows = connection.fetch(sql).await?;
    rows.iter().map(|row| Reader::new(row, "runs", "").uuid("id")).collect()
}

pub(super) async fn is_open<C: Connection>(
    connection: &mut C,
    run: Uuid,
) -> Result<bool, StoreError> {
    let mut sql = Sql::new("SELECT state FROM runs WHERE id = ");
    sql.bind(run);
    let rows = connection.fetch(sql).await?;
    let row = rows.first().ok_or(StoreError::Contended(sqlx::Error::RowNotFound))?;
    Ok(Reader::new(row, "runs", run).word("state", RunState::parse)? == RunState::Open)
}

/// Returns the id of a run, which is created with its method if it is new, and `true` if it is.
///
/// The run exists for all but its first sample, so it is looked up before anything is inserted. An
/// insert that loses a race does nothing, and the next lookup finds the winner's row.
pub(super) async fn ensure_run<C: Connection>(
    connection: &mut C,
    name: &RunName,
    created: OffsetDateTime,
) -> Result<(Uuid, bool), StoreError> {
    if let Some(run) = find_run(connection, name).await? {
        return Ok((run, false));
    }
    let is_new = insert_run(connection, new_id(created), name, created).await?;
    let run =
        find_run(connection, name).await?.ok_or(StoreError::Contended(sqlx::Error::RowNotFound))?;
    Ok((run, is_new))
}

/// Creates a run with this id, and its method if it is new. Returns `false` if the run exists.
pub(super) async fn insert_run<C: Connection>(
    connection: &mut C,
    id: Uuid,
    name: &RunName,
    created: OffsetDateTime,
) -> Result<bool, StoreError> {
    ensure_method(connection, &name.method, created).await?;
    let mut sql = Sql::new("INSERT INTO runs (id, method, name, created) SELECT ");
    sql.bind(id).push(", id, ").bind(name.run.as_str()).push(", ").bind(created);
    sql.push(" FROM methods WHERE name = ").bind(name.method.as_str());
    sql.push(" ON CONFLICT (method, name) DO NOTHING");
    Ok(connection.execute(sql).await? == 1)
}

/// Returns the id of a run, and locks it against finishing and deletion.
pub(super) async fn find_run<C: Connection>(
    connection: &mut C,
    name: &RunName,
) -> Result<Option<Uuid>, StoreError> {
    let mut sql = Sql::new(
        "SELECT runs.id FROM runs JOIN methods ON methods.id = runs.method WHERE methods.name = ",
    );
    sql.bind(name.method.as_str()).push(" AND runs.name = ").bind(name.run.as_str());
    sql.push(connection.lock_shared_runs());
    let rows = connection.fetch(sql).await?;
    rows.first().map(|row| Reader::new(row, "runs", name.to_string()).uuid("id")).transpose()
}

/// Returns the name and state of a run, and locks it against finishing and deletion.
pub(super) async fn lock_run<C: Connection>(
    connection: &mut C,
    run: Uuid,
) -> Result<Option<(RunName, RunState)>, StoreError> {
    let mut sql = Sql::new(
        "SELECT methods.name AS method_name, runs.name, state
         FROM runs JOIN methods ON methods.id = runs.method
         WHERE runs.id = ",
    );
    sql.bind(run).push(connection.lock_shared_runs());
    let rows = connection.fetch(sql).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let row = Reader::new(row, "runs", run);
    let name = RunName { method: row.text("method_name")?, run: row.text("name")? };
    Ok(Some((name, row.word("state", RunState::parse)?)))
}
