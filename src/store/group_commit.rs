//! Group commit: samples recorded at the same time share a transaction.
//!
//! A transaction ends with a flush of the database's log, and transactions that record into the
//! same run wait for each other's lock on its row. One sample per transaction therefore limits the
//! rate to a few hundred samples a second, whatever the number of clients. So samples are enqueued,
//! and a free writer takes up to `LARGEST` of them. No sample waits for others to arrive: an idle
//! store records it at once.
//!
//! Only simple cases are grouped: new samples of open runs that exist. A repetition, a conflict, or
//! a run that is new or finished goes through a transaction of its own afterwards
//! ([`record`](super::record)), so that no sample fails because of its neighbours.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use tracing::Instrument as _;
use uuid::Uuid;

use super::db::{
    Connection, Connections, Sql, StoreError, on_backend, to_microseconds, with_retries,
};
use super::extras;
use super::faces::lock_needed;
use super::packs::ensure_pack;
use super::pending::lock_pending;
use super::queue::{Done, Entry, Queue};
use super::record::{self, insert_samples, write_scores};
use super::run_name::RunName;
use super::runs::{find_run, is_open, lock_runs};
use super::sample::{NewSample, RecordOutcome, Recorded, ScoreValue};
use super::spools::{lock_images, release_images};
use super::summaries::running::{self, SummaryKey, Sums};
use super::{Store, StoreTelemetry};
use crate::trace::{self, span};

/// Maximum number of samples per transaction. A limit of 256 was not faster (docs/BENCHMARKS.md),
/// and every sample waits for its whole transaction.
const LARGEST: usize = 64;

impl Store {
    /// Stores a sample with its scores and updates the run's summaries, all in one transaction.
    ///
    /// Recording is idempotent. A sample is identified by its run and name (by its content if it
    /// has no name), so a retry after a lost response or a restart returns the id of the first one
    /// and counts nothing twice; see [`RecordOutcome`]. The same name with other content is a
    /// [`StoreError::SampleConflict`]. A sample outside any run has no such identity: it is always
    /// new.
    ///
    /// Samples recorded at the same time share a transaction. The sample is recorded even if the
    /// caller's future is dropped.
    pub async fn record(&self, sample: &NewSample) -> Result<Recorded, StoreError> {
        let recorded = self.in_a_group(sample, None).await?;
        Ok(recorded.expect("only a pending sample can be gone"))
    }

    /// Records a pending sample as [`record`](Self::record) does, and removes it from the pending
    /// ones in the same transaction. Returns `None` if it is no longer pending: it was deleted, or
    /// another attempt recorded it first.
    ///
    /// # Errors
    /// [`StoreError::FacesNotStored`] if the faces that the run needs are not stored.
    pub async fn record_pending(
        &self,
        sample: &NewSample,
        run: Uuid,
    ) -> Result<Option<Recorded>, StoreError> {
        self.in_a_group(sample, Some(run)).await
    }

    /// Records a sample in one transaction with those that arrive at the same time.
    async fn in_a_group(
        &self,
        sample: &NewSample,
        pending: Option<Uuid>,
    ) -> Result<Option<Recorded>, StoreError> {
        record::check(sample)?;
        let span = span!("store");
        on_backend!(self, pool => {
            let result = self.recording.join(sample, pending, span.clone());
            let (queue, telemetry) = (Arc::clone(&self.recording), self.telemetry.clone());
            drop(tokio::spawn(write_next(pool.clone(), queue, telemetry)));
            result
                .instrument(span)
                .await
                .unwrap_or(Err(StoreError::Unavailable(sqlx::Error::WorkerCrashed)))
        })
    }
}

/// Counts a sample and its scores in the service metrics.
fn count_result(telemetry: &StoreTelemetry, sample: &NewSample, result: &Result<Done, StoreError>) {
    let (outcome, is_written) = match result {
        Ok(Some(recorded)) => match recorded.outcome {
            RecordOutcome::Created => ("created", true),
            RecordOutcome::Rescored => ("rescored", true),
            RecordOutcome::Repeated => ("repeated", false),
        },
        // It was deleted meanwhile.
        Ok(None) => return,
        Err(StoreError::SampleConflict { .. }) => ("conflict", false),
        Err(_) => ("error", false),
    };
    telemetry.sample(outcome);
    for score in sample.scores.iter().filter(|_| is_written) {
        let reason = match &score.value {
            ScoreValue::Number(_) => None,
            ScoreValue::Null { reason } => Some(reason.as_str()),
        };
        telemetry.score(&score.metric, reason);
    }
}

/// Writes the queued samples as soon as a writer is free.
///
/// It is called once per sample. A call whose sample was taken by another writer has nothing to do.
async fn write_next<P: Connections>(pool: P, queue: Arc<Queue>, telemetry: StoreTelemetry) {
    let Ok(_writer) = queue.writers.acquire().await else { return };
    let entries = queue.take(LARGEST);
    if entries.is_empty() {
        return;
    }
    telemetry.group(entries.len());
    let spans = entries.iter().map(|entry| &entry.span);
    let commit =
        span!(parent: trace::leader(spans.clone()), "transaction", samples = entries.len());
    trace::link_all(&commit, spans);
    write(pool, entries, telemetry).instrument(commit).await;
}

async fn write<P: Connections>(pool: P, entries: Vec<Entry>, telemetry: StoreTelemetry) {
    let mut done = if entries.len() < 2 {
        Ok(vec![None; entries.len()])
    } else {
        together(&pool, &entries).await
    };
    for (at, entry) in entries.into_iter().enumerate() {
        let result = match &mut done {
            Ok(done) => match done[at].take() {
                Some(done) => Ok(done),
                None => alone(&pool, &entry).await,
            },
            Err(error) => Err(error.error()),
        };
        // Here and not by the caller, who may be gone.
        count_result(&telemetry, &entry.sample, &result);
        drop(entry.reply.send(result));
    }
}

async fn alone<P: Connections>(pool: &P, entry: &Entry) -> Result<Done, StoreError> {
    match entry.pending {
        None => record::record(pool, &entry.sample).await.map(Some),
        Some(run) => record::record_pending(pool, &entry.sample, run).await,
    }
}

/// Records samples together. Returns the result of those that could be grouped, or the error of an
/// unavailable database, which applies to all.
async fn together<P: Connections>(
    pool: &P,
    entries: &[Entry],
) -> Result<Vec<Option<Done>>, DatabaseTrouble> {
    with_retries(|| transaction(pool, entries)).await.or_else(|error| {
        let trouble = DatabaseTrouble::of(&error);
        tracing::debug!(%error, samples = entries.len(), "failed to record samples as a group");
        // If the content of the transaction made it fail, each sample is recorded alone to find the
        // one at fault.
        trouble.map_or_else(|| Ok(vec![None; entries.len()]), Err)
    })
}

/// Failure of the database that is reported for each sample of a group.
enum DatabaseTrouble {
    Unavailable(String),
    Contended(String),
}

impl DatabaseTrouble {
    fn of(error: &StoreError) -> Option<Self> {
        match error {
            StoreError::Unavailable(error) => Some(Self::Unavailable(error.to_string())),
            StoreError::Contended(error) => Some(Self::Contended(error.to_string())),
            _ => None,
        }
    }

    fn error(&self) -> StoreError {
        let io = |why: &str| sqlx::Error::Io(std::io::Error::other(why.to_owned()));
        match self {
            Self::Unavailable(why) => StoreError::Unavailable(io(why)),
            Self::Contended(why) => StoreError::Contended(io(why)),
        }
    }
}

async fn transaction<P: Connections>(
    pool: &P,
    entries: &[Entry],
) -> Result<Vec<Option<Done>>, StoreError> {
    let mut transaction = pool.begin().await?;
    let connection = &mut *transaction;
    let mut done = vec![None; entries.len()];

    let runs = runs(connection, entries).await?;
    let mut candidates: Vec<usize> =
        (0..entries.len()).filter(|&at| runs[at] != OfRun::Alone).collect();
    let waited: BTreeSet<_> = entries.iter().filter_map(Entry::pending_image).collect();
    let others = if waited.is_empty() {
        Vec::new()
    } else {
        let ids =
            entries.iter().filter(|entry| entry.pending.is_some()).map(|entry| entry.sample.id);
        let others = lock_images(connection, &waited).await?;
        let waiting = lock_pending(connection, &ids.collect()).await?;
        candidates.retain(|&at| {
            let gone = entries[at].pending.is_some() && !waiting.contains(&entries[at].sample.id);
            if gone {
                done[at] = Some(None);
            }
            !gone
        });
        // Samples whose faces are not stored are recorded alone, and that reports the error.
        let needed = candidates.iter().filter_map(|&at| entries[at].sample.extras.faces.as_ref());
        let stored = lock_needed(connection, needed).await?;
        candidates.retain(|&at| {
            entries[at].sample.extras.faces.as_ref().is_none_or(|needed| needed.are_in(&stored))
        });
        others
    };

    // Sorted by their unique names: transactions that insert equal ones then queue rather than
    // deadlock.
    candidates.sort_by(|&a, &b| {
        (runs[a], entries[a].sample.name()).cmp(&(runs[b], entries[b].sample.name()))
    });
    let packs: BTreeMap<&str, usize> =
        candidates.iter().map(|&at| (entries[at].sample.pack.digest.as_str(), at)).collect();
    for &at in packs.values() {
        let sample = &entries[at].sample;
        ensure_pack(connection, &sample.pack, to_microseconds(sample.created)).await?;
    }
    let samples: Vec<_> =
        candidates.iter().map(|&at| (&entries[at].sample, runs[at].id())).collect();
    let fresh = insert_samples(connection, &samples).await?;
    candidates.retain(|&at| fresh.contains(&entries[at].sample.id));
    let fresh: Vec<&Entry> = candidates.iter().map(|&at| &entries[at]).collect();

    forget_pending(connection, &fresh, &others).await?;
    let scores: Vec<_> = fresh
        .iter()
        .flat_map(|entry| {
            entry.sample.scores.iter().map(|score| (entry.sample.id, &entry.sample, score))
        })
        .collect();
    write_scores(connection, &scores).await?;
    let recorded: Vec<_> = fresh.iter().map(|entry| (entry.sample.id, &entry.sample)).collect();
    extras::insert(connection, &recorded).await?;
    let counted: Vec<_> =
        candidates.iter().filter_map(|&at| Some((runs[at].id()?, &entries[at]))).collect();
    count(connection, &counted).await?;
    transaction.commit().await?;

    for at in candidates {
        let run = runs[at].id();
        done[at] = Some(Some(Recorded {
            sample: entries[at].sample.id,
            run,
            outcome: RecordOutcome::Created,
        }));
    }
    Ok(done)
}

impl Entry {
    /// Returns the spooled image that is needed until this sample is recorded.
    fn pending_image(&self) -> Option<(Uuid, String)> {
        self.pending.map(|run| (run, self.sample.inputs.image.to_hex()))
    }
}

/// Where a sample belongs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum OfRun {
    /// It must be recorded alone: that creates its run or reports what is wrong.
    Alone,
    /// To no run.
    None,
    Run(Uuid),
}

impl OfRun {
    fn id(self) -> Option<Uuid> {
        match self {
            Self::Run(id) => Some(id),
            Self::Alone | Self::None => None,
        }
    }
}

/// Returns where each sample belongs. Runs are locked against finishing and deletion.
async fn runs<C: Connection>(
    connection: &mut C,
    entries: &[Entry],
) -> Result<Vec<OfRun>, StoreError> {
    let names: BTreeSet<&RunName> = entries
        .iter()
        .filter(|entry| entry.pending.is_none())
        .filter_map(|entry| entry.sample.run.as_ref())
        .collect();
    let mut by_name = BTreeMap::new();
    for name in names {
        if let Some(run) = find_run(connection, name).await?
            && is_open(connection, run).await?
        {
            by_name.insert(name, run);
        }
    }
    let waited: BTreeSet<Uuid> = entries.iter().filter_map(|entry| entry.pending).collect();
    let there =
        if waited.is_empty() { HashSet::new() } else { lock_runs(connection, &waited).await? };
    let run = |entry: &Entry| match (entry.pending, &entry.sample.run) {
        (Some(run), _) if there.contains(&run) => OfRun::Run(run),
        (None, Some(name)) => by_name.get(name).map_or(OfRun::Alone, |run| OfRun::Run(*run)),
        (None, None) => OfRun::None,
        (Some(_), _) => OfRun::Alone,
    };
    Ok(entries.iter().map(run).collect())
}

/// Removes the recorded samples from the pending ones.
async fn forget_pending<C: Connection>(
    connection: &mut C,
    recorded: &[&Entry],
    others: &[(Uuid, String)],
) -> Result<(), StoreError> {
    let waited: Vec<_> = recorded.iter().filter(|entry| entry.pending.is_some()).collect();
    if waited.is_empty() {
        return Ok(());
    }
    let mut sql = Sql::new("DELETE FROM pending_samples WHERE id IN ");
    sql.tuple(waited.iter().map(|entry| entry.sample.id.into()));
    connection.execute(sql).await?;
    let images: BTreeSet<_> = waited.iter().filter_map(|entry| entry.pending_image()).collect();
    release_images(connection, &images, others).await
}

/// Updates the runs' counts and summaries: run by run and metric by metric, the order that all
/// transactions use, so that they wait for each other rather than deadlock.
async fn count<C: Connection>(
    connection: &mut C,
    recorded: &[(Uuid, &Entry)],
) -> Result<(), StoreError> {
    let mut runs: BTreeMap<Uuid, [i64; 2]> = BTreeMap::new();
    let mut sums: BTreeMap<SummaryKey<'_>, Sums> = BTreeMap::new();
    for &(run, entry) in recorded {
        let [samples, waited] = runs.entry(run).or_default();
        *samples += 1;
        *waited += i64::from(entry.pending.is_some());
        for score in &entry.sample.scores {
            let key = SummaryKey {
                run,
                metric: &score.metric,
                pack: &entry.sample.pack.digest,
                version: score.metric_version,
            };
            sums.entry(key).or_default().add(&score.value);
        }
    }
    for (run, [samples, waited]) in runs {
        let mut sql = Sql::new("UPDATE runs SET revision = revision + ");
        sql.bind(samples).push(", scored = scored + ").bind(samples);
        sql.push(", waiting = waiting - ").bind(waited).push(" WHERE id = ").bind(run);
        connection.execute(sql).await?;
    }
    running::add(connection, &sums).await
}
