//! The store: samples, their scores with provenance, and the running summaries behind the
//! leaderboard.
//!
//! One narrow interface, two databases: SQLite (the embedded default) and PostgreSQL, with the same
//! tables, the same columns and, as far as their SQL dialects agree, the same statements:
//!
//! ```text
//! Store ── group_commit.rs, record.rs, running.rs, sample.rs, leaderboard.rs,
//!          datasets.rs, prompts.rs, faces.rs,
//!          runs.rs, pending.rs, bulk.rs,
//!          run_data.rs, slices.rs, preferences.rs,
//!          deletion.rs                            queries: SQL that both databases understand
//!       ── ensure.rs, words.rs                    rows created on first use, common values
//!       ── sql.rs                                 statements, arguments, rows with precise errors
//!       ── sqlite.rs, postgres.rs                 connections, transactions, migrations, types
//! ```
//!
//! Nothing outside this module knows SQL. "Not found" is `Ok(None)`, never an error.

mod bulk;
mod datasets;
mod db;
mod deletion;
mod ensure;
mod faces;
mod group_commit;
mod leaderboard;
mod pending;
mod preferences;
mod prompts;
mod record;
mod run_data;
mod run_name;
mod running;
mod runs;
mod sample;
mod slices;
mod spools;
mod summary;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

pub use crate::pack_id::{PackId, Weights};
pub use bulk::{AttributeColumn, AttributeLabels, Imported, NewImport, RunWideScores, ScoreColumn};
pub use datasets::{Attributes, DatasetRecord, Enrolled, NewPhoto, PhotoRecord, RunSample};
use db::{Backend, on_backend};
pub use db::{MAX_NAME_BYTES, MigrationError, StoreError, StoreOptions, without_password};
pub use deletion::Deleted;
pub use faces::{FacesRecord, FacesState, ImagesOf};
use leaderboard::StandingsCache;
pub use leaderboard::{LEADERBOARD_BYTES, RunStandings, Standing, StandingsQuery};
pub use pending::{
    Accepted, BlockedSamples, NewPending, PendingRecord, SampleStatus, Submitted, SubmittedState,
};
pub use preferences::{Judgement, NewPreference, Preference, PreferencesQuery, Question, UnknownSample};
pub use prompts::{MAX_PROMPTS, PromptCursor, PromptFacts, PromptQuery, PromptRecord, Registered};
pub use record::{NewSample, NewScore, RecordOutcome, Recorded};
pub use run_data::{AttributePlaces, MetricColumn, RelationKinds, RunData};
pub use run_name::RunName;
pub use runs::{MethodRecord, RunCounts, RunFacts, RunFlags, RunRecord, RunState, RunsQuery};
pub use sample::{SampleRecord, ScoreRecord, ScoreValue, StoredImage};
pub use slices::{MetricSums, Quantiles, RunSlices, RunSummary, RunVersion, Slice, SliceSummary};
pub use summary::{MetricSummary, Moments};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::content::ContentHash;

/// Maximum number of rows per page.
pub const MAX_PAGE: u32 = 1_000;

/// A database of samples and scores, cheap to clone and shared by all requests.
#[derive(Clone, Debug)]
pub struct Store {
    backend: Backend,
    remembered: StandingsCache,
    recording: Arc<group_commit::Queue>,
}

impl Store {
    /// Opens the database at `url` and applies pending migrations; concurrent openers wait for each
    /// other.
    ///
    /// - `sqlite:PATH` (also `sqlite://PATH`): a file, created with its folders if missing.
    /// - `sqlite::memory:`: an in-memory database that is gone when the store is dropped.
    /// - `postgres://USER:PASSWORD@HOST:PORT/DATABASE`: an existing database, with a role that may
    ///   create tables.
    pub async fn open(url: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        let (backend, writers) = Backend::open(url, options).await?;
        let recording = group_commit::Queue::new(writers);
        Ok(Self { backend, remembered: StandingsCache::default(), recording })
    }

    /// Returns the same database over this many additional connections, for long reads that must
    /// not block other requests. They are closed with the store.
    #[must_use]
    pub fn for_analyses(&self, connections: u32) -> Self {
        let backend = self.backend.with_own_connections(connections);
        Self { backend, remembered: self.remembered.clone(), recording: Arc::clone(&self.recording) }
    }

    /// Returns the size of the standings cache in bytes.
    #[must_use]
    pub fn remembered_bytes(&self) -> u64 {
        self.remembered.bytes()
    }

    /// Returns the kind of database, for logs and readiness: `sqlite` or `postgres`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.backend {
            Backend::Postgres(_) => "postgres",
            Backend::Sqlite(_) => "sqlite",
        }
    }

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
    /// another attempt was faster.
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
        let result = self.recording.join(sample, pending)?;
        let queue = Arc::clone(&self.recording);
        on_backend!(self, pool => drop(tokio::spawn(group_commit::write_next(pool.clone(), queue))));
        result.await.unwrap_or(Err(StoreError::Unavailable(sqlx::Error::WorkerCrashed)))
    }

    /// Creates a method or updates its description. Returns `true` if it is new.
    pub async fn create_method(
        &self,
        name: &str,
        description: Option<&str>,
        created: OffsetDateTime,
    ) -> Result<(MethodRecord, bool), StoreError> {
        on_backend!(self, pool => runs::create_method(pool, name, description, created).await)
    }

    /// Lists at most `limit` methods by name, starting after the name `after`.
    pub async fn methods(&self, after: &str, limit: u32) -> Result<Vec<MethodRecord>, StoreError> {
        on_backend!(self, pool => runs::methods(pool, after, limit).await)
    }

    /// Creates a run, or finds the one with the same facts. Returns `true` if it is new. Other
    /// facts are a [`StoreError::RunConflict`]; a run that was created by its first sample adopts
    /// them.
    pub async fn create_run(
        &self,
        name: &RunName,
        facts: &RunFacts,
        created: OffsetDateTime,
    ) -> Result<(RunRecord, bool), StoreError> {
        on_backend!(self, pool => runs::create_run(pool, name, facts, created).await)
    }

    /// Looks up a run, or returns `None` if no run has this id. It reads one row, whatever the
    /// number of samples.
    pub async fn run(&self, id: Uuid) -> Result<Option<RunRecord>, StoreError> {
        on_backend!(self, pool => runs::run(pool, id).await)
    }

    /// Lists runs in order of creation.
    pub async fn runs(&self, query: &RunsQuery) -> Result<Vec<RunRecord>, StoreError> {
        on_backend!(self, pool => runs::runs(pool, query).await)
    }

    /// Counts pending, failed and scored samples over all runs.
    pub async fn backlog(&self) -> Result<RunCounts, StoreError> {
        on_backend!(self, pool => runs::backlog(pool).await)
    }

    /// Closes a run to further samples. Returns `None` if no run has this id.
    pub async fn finish_run(&self, id: Uuid) -> Result<Option<RunRecord>, StoreError> {
        on_backend!(self, pool => runs::finish(pool, id).await)
    }

    /// Returns the id of the database, which every copy and backup of it shares and no other
    /// database has.
    pub async fn installation(&self) -> Result<String, StoreError> {
        on_backend!(self, pool => spools::installation(pool).await)
    }

    /// Returns some released files of this folder, whichever instance released them.
    pub async fn released_files(&self, folder: &str) -> Result<Vec<ContentHash>, StoreError> {
        on_backend!(self, pool => spools::released(pool, folder).await)
    }

    /// Removes entries of [`released_files`](Self::released_files) whose files are deleted, or
    /// needed again.
    pub async fn forget_released(&self, folder: &str, files: &[ContentHash]) -> Result<(), StoreError> {
        on_backend!(self, pool => spools::forget_released(pool, folder, files).await)
    }

    /// Returns the finishing runs without pending samples.
    pub async fn finishable_runs(&self) -> Result<Vec<Uuid>, StoreError> {
        on_backend!(self, pool => runs::finishable(pool).await)
    }

    /// Marks a finishing run as finished, and returns the files that it no longer needs.
    pub async fn run_finished(&self, id: Uuid, time: OffsetDateTime) -> Result<Vec<ContentHash>, StoreError> {
        on_backend!(self, pool => runs::finished(pool, id, time).await)
    }

    /// Accepts a sample for scoring later. Returns `None` if no run has this id.
    ///
    /// A sample is identified by its run and name: repeating it changes nothing; other content is a
    /// [`StoreError::SampleConflict`] unless the first one failed.
    pub async fn accept(&self, sample: &NewPending) -> Result<Option<Accepted>, StoreError> {
        on_backend!(self, pool => pending::accept(pool, sample).await)
    }

    /// Returns the status of the sample with this name and content; `None` if there is none, or if
    /// one with other content failed.
    pub async fn submission(
        &self,
        run: Uuid,
        run_name: &RunName,
        name: &str,
        content: ContentHash,
    ) -> Result<Option<SampleStatus>, StoreError> {
        on_backend!(self, pool => pending::submission(pool, run, run_name, name, content).await)
    }

    /// Returns those of these reference and auxiliary images that this folder does not store for
    /// the run.
    pub async fn unknown_photos(
        &self,
        run: Uuid,
        folder: &str,
        photos: &BTreeSet<ContentHash>,
    ) -> Result<Vec<ContentHash>, StoreError> {
        on_backend!(self, pool => pending::unknown_photos(pool, run, folder, photos).await)
    }

    /// Returns the oldest pending samples of this pack and folder that are due.
    pub async fn waiting(
        &self,
        folder: &str,
        pack: &str,
        now: OffsetDateTime,
        limit: u32,
    ) -> Result<Vec<PendingRecord>, StoreError> {
        on_backend!(self, pool => pending::next(pool, folder, pack, now, limit).await)
    }

    /// Counts the blocked samples of this folder, by the pack that they need instead of this one.
    pub async fn held_samples(&self, folder: &str, pack: &str) -> Result<Vec<BlockedSamples>, StoreError> {
        on_backend!(self, pool => pending::held(pool, folder, pack).await)
    }

    /// Returns the time at which the next pending sample that is not due yet becomes due.
    pub async fn next_due(
        &self,
        folder: &str,
        pack: &str,
        after: OffsetDateTime,
    ) -> Result<Option<OffsetDateTime>, StoreError> {
        on_backend!(self, pool => pending::next_due(pool, folder, pack, after).await)
    }

    /// Postpones a pending sample, and counts the attempt if there was one.
    pub async fn postpone(&self, id: Uuid, due: OffsetDateTime, attempted: bool) -> Result<(), StoreError> {
        on_backend!(self, pool => pending::postpone(pool, id, due, attempted).await)
    }

    /// Fails a pending sample with a reason code and a detail, and returns its image, which it no
    /// longer needs. `None` if it is not pending.
    pub async fn fail_pending(
        &self,
        id: Uuid,
        reason: &str,
        detail: &str,
    ) -> Result<Option<ContentHash>, StoreError> {
        on_backend!(self, pool => pending::fail(pool, id, reason, detail).await)
    }

    /// Returns those of these files that some run needs in this folder.
    pub async fn needed_files(
        &self,
        folder: &str,
        files: &[ContentHash],
    ) -> Result<HashSet<ContentHash>, StoreError> {
        on_backend!(self, pool => pending::needed(pool, folder, files).await)
    }

    /// Returns one page of a run's samples by name, in any state; `None` if no run has this id.
    pub async fn submitted(
        &self,
        run: Uuid,
        state: Option<SubmittedState>,
        after: &str,
        limit: u32,
    ) -> Result<Option<Vec<Submitted>>, StoreError> {
        on_backend!(self, pool => pending::submitted(pool, run, state, after, limit).await)
    }

    /// Imports scores that were computed elsewhere, all or nothing; `None` if no run has this id.
    pub async fn import(&self, import: &NewImport) -> Result<Option<Imported>, StoreError> {
        on_backend!(self, pool => bulk::import(pool, import).await)
    }

    /// Adds run-wide scores to those samples of a run that have none yet, and returns their number.
    pub async fn add_run_wide(&self, scores: &RunWideScores) -> Result<u64, StoreError> {
        on_backend!(self, pool => bulk::add_run_wide(pool, scores).await)
    }

    /// Returns the evidence behind `aps`: for each attribute by name, label and prediction of each
    /// of these samples of a run, as far as this pack has them. The names are in ascending order.
    pub async fn outcomes(
        &self,
        run: Uuid,
        pack: &str,
        names: &[String],
    ) -> Result<BTreeMap<String, AttributeColumn>, StoreError> {
        on_backend!(self, pool => bulk::outcomes(pool, run, pack, names).await)
    }

    /// Returns the packs that a run has scores of.
    pub async fn run_packs(&self, run: Uuid) -> Result<Vec<PackId>, StoreError> {
        on_backend!(self, pool => bulk::packs(pool, run).await)
    }

    /// Returns all packs that have stored scores, by name.
    pub async fn packs(&self) -> Result<Vec<PackId>, StoreError> {
        on_backend!(self, pool => bulk::all_packs(pool).await)
    }

    /// Looks up a sample with the scores of all packs, or returns `None` if no sample has this id.
    pub async fn sample(&self, id: Uuid) -> Result<Option<SampleRecord>, StoreError> {
        on_backend!(self, pool => sample::sample(pool, id).await)
    }

    /// Returns the standings of the runs of a leaderboard, in order of method, pack and run.
    /// Unchanged ones come from the cache.
    pub async fn standings(&self, query: &StandingsQuery) -> Result<Vec<Arc<RunStandings>>, StoreError> {
        on_backend!(self, pool => self.remembered.standings(pool, query).await)
    }

    /// Returns the query plans of [`standings`](Self::standings), one line per step: of the query
    /// that every request runs, and of the query for runs that changed.
    pub async fn explain_standings(&self, query: &StandingsQuery) -> Result<Vec<String>, StoreError> {
        on_backend!(self, pool => leaderboard::explain(pool, query).await)
    }

    /// Enrols a labelled photo in a dataset, which is created if it is new.
    ///
    /// A photo is identified by its identity and name: repeating it changes nothing; other content
    /// or attributes are a [`StoreError::PhotoConflict`].
    pub async fn enrol(&self, photo: &NewPhoto) -> Result<Enrolled, StoreError> {
        on_backend!(self, pool => datasets::enrol(pool, photo).await)
    }

    /// Lists at most `limit` datasets by name, starting after the name `after`.
    pub async fn datasets(&self, after: &str, limit: u32) -> Result<Vec<DatasetRecord>, StoreError> {
        on_backend!(self, pool => datasets::datasets(pool, after, limit).await)
    }

    /// Looks up a dataset, or returns `None` if none has this name.
    pub async fn dataset(&self, name: &str) -> Result<Option<DatasetRecord>, StoreError> {
        on_backend!(self, pool => datasets::dataset(pool, name).await)
    }

    /// Returns all photos of a dataset, by identity and name.
    pub async fn photos(&self, dataset: Uuid) -> Result<Vec<PhotoRecord>, StoreError> {
        on_backend!(self, pool => datasets::photos(pool, dataset).await)
    }

    /// Returns one page of a dataset's photos, by identity and name.
    pub async fn photos_page(
        &self,
        dataset: Uuid,
        offset: u64,
        limit: u32,
    ) -> Result<Vec<PhotoRecord>, StoreError> {
        on_backend!(self, pool => datasets::photos_page(pool, dataset, offset, limit).await)
    }

    /// Registers prompts in a dataset, which is created if it is new: at most [`MAX_PROMPTS`] at
    /// once.
    ///
    /// A prompt is identified by its identity and text: repeating it changes nothing; another kind
    /// or other facts replace the stored ones.
    pub async fn register_prompts(
        &self,
        dataset: &str,
        prompts: &[PromptRecord],
        created: OffsetDateTime,
    ) -> Result<Registered, StoreError> {
        on_backend!(self, pool => prompts::register(pool, dataset, prompts, created).await)
    }

    /// Returns one page of a dataset's prompts, by identity and then in order of registration, each
    /// with the cursor that continues after it.
    pub async fn prompts(
        &self,
        dataset: Uuid,
        query: &PromptQuery,
    ) -> Result<Vec<(PromptCursor, PromptRecord)>, StoreError> {
        on_backend!(self, pool => prompts::page(pool, dataset, query).await)
    }

    /// Returns the samples of a run by name, or `None` if no run has this id.
    pub async fn run_samples(&self, run: Uuid) -> Result<Option<Vec<RunSample>>, StoreError> {
        on_backend!(self, pool => datasets::run_samples(pool, run).await)
    }

    /// Reads a run as columns with the scores of one pack: the one with this digest, or else the
    /// one that most of its scores belong to. `None` if no run has this id.
    pub async fn run_data(&self, run: Uuid, pack: Option<&str>) -> Result<Option<RunData>, StoreError> {
        on_backend!(self, pool => run_data::run_data(pool, run, pack).await)
    }

    /// Reads samples of several runs, by run and name, as if they were one run, with the scores of
    /// the pack with this digest. Each sample is named `RUN_ID/NAME`.
    pub async fn samples_data(
        &self,
        wanted: &BTreeMap<Uuid, BTreeSet<String>>,
        pack: &str,
    ) -> Result<RunData, StoreError> {
        on_backend!(self, pool => run_data::samples_data(pool, wanted, pack).await)
    }

    /// Returns the names of at most `most` samples of a run, evenly spaced in their order.
    pub async fn sample_names(&self, run: Uuid, most: usize) -> Result<BTreeSet<String>, StoreError> {
        on_backend!(self, pool => run_data::sample_names(pool, run, most).await)
    }

    /// Returns the names of at most `most` samples that both runs have and that have no vote on
    /// this question.
    pub async fn unjudged(
        &self,
        question: &Question,
        a: Uuid,
        b: Uuid,
        most: u32,
    ) -> Result<Vec<String>, StoreError> {
        on_backend!(self, pool => preferences::unjudged(pool, question, a, b, most).await)
    }

    /// Records judgements of annotators, all or none, and returns their number. An annotator's
    /// judgement replaces an earlier one on the same question about the same images.
    pub async fn add_preferences(
        &self,
        preferences: &[NewPreference],
        created: OffsetDateTime,
    ) -> Result<Result<usize, UnknownSample>, StoreError> {
        on_backend!(self, pool => preferences::add(pool, preferences, created).await)
    }

    /// Returns judgements of annotators in order of arrival.
    pub async fn preferences(&self, query: &PreferencesQuery) -> Result<Vec<Preference>, StoreError> {
        on_backend!(self, pool => preferences::list(pool, query).await)
    }

    /// Deletes a judgement; `false` if none has this id.
    pub async fn delete_preference(&self, id: Uuid) -> Result<bool, StoreError> {
        on_backend!(self, pool => preferences::delete(pool, id).await)
    }

    /// Deletes all judgements of an annotator, and returns their number.
    pub async fn delete_annotator(&self, annotator: &str) -> Result<u64, StoreError> {
        on_backend!(self, pool => preferences::delete_annotator(pool, annotator).await)
    }

    /// Returns the packs of all runs, or of this run, whose slice summaries are missing or stale.
    pub async fn stale_runs(&self, run: Option<Uuid>) -> Result<Vec<RunVersion>, StoreError> {
        on_backend!(self, pool => slices::stale(pool, run).await)
    }

    /// Replaces the slice summaries of a run; `false` if the run was deleted.
    pub async fn save_run_summary(
        &self,
        version: &RunVersion,
        summary: &RunSummary,
        computed: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        on_backend!(self, pool => slices::save(pool, version, summary, computed).await)
    }

    /// Returns the slice summaries of a run for the pack with this digest, or `None` if there are
    /// none yet.
    pub async fn run_slices(&self, run: Uuid, pack: &str) -> Result<Option<RunSlices>, StoreError> {
        on_backend!(self, pool => slices::run_slices(pool, run, pack).await)
    }

    /// Returns the distributions of all metrics in the summarised runs, for the pack with this
    /// digest.
    pub async fn run_quantiles(&self, pack: &str) -> Result<Vec<(Uuid, Quantiles)>, StoreError> {
        on_backend!(self, pool => slices::quantiles(pool, pack).await)
    }

    /// Stores the faces that the face graphs found in an image.
    pub async fn save_faces(&self, record: &FacesRecord) -> Result<(), StoreError> {
        on_backend!(self, pool => faces::save(pool, record, None).await)
    }

    /// Like [`save_faces`](Self::save_faces), for a search that began at this time: nothing is
    /// stored for an image that any instance has deleted since.
    pub async fn save_found_faces(
        &self,
        record: &FacesRecord,
        began: OffsetDateTime,
    ) -> Result<(), StoreError> {
        on_backend!(self, pool => faces::save(pool, record, Some(began)).await)
    }

    /// Returns the images deleted since a time, each with the time of its deletion.
    pub async fn deleted_images(
        &self,
        since: OffsetDateTime,
    ) -> Result<Vec<(ContentHash, OffsetDateTime)>, StoreError> {
        on_backend!(self, pool => deletion::deleted_images(pool, since).await)
    }

    /// Removes the records of images deleted before a time.
    pub async fn forget_deletions(&self, before: OffsetDateTime) -> Result<(), StoreError> {
        on_backend!(self, pool => deletion::forget_deletions(pool, before).await)
    }

    /// Purges deleted rows from SQLite's write-ahead log, where they would stay until overwritten.
    /// Returns `false` if a reader that began earlier prevents it. The log of PostgreSQL is left to
    /// its administrator.
    pub async fn scrub(&self) -> Result<bool, StoreError> {
        match &self.backend {
            Backend::Sqlite(pool) => pool.truncate_log().await,
            Backend::Postgres(_) => Ok(true),
        }
    }

    /// Returns the stored faces of these images. Images without any are missing from the result.
    pub async fn faces(
        &self,
        images: &[ContentHash],
        graphs: ContentHash,
    ) -> Result<HashMap<ContentHash, Vec<u8>>, StoreError> {
        on_backend!(self, pool => faces::load(pool, images, graphs).await)
    }

    /// Returns a fingerprint of the faces that these graphs found in images of a run or a dataset:
    /// it changes when any are added or deleted.
    pub async fn faces_state(&self, of: ImagesOf, graphs: ContentHash) -> Result<FacesState, StoreError> {
        on_backend!(self, pool => faces::state(pool, of, graphs).await)
    }

    /// Deletes the faces that were found before a time, except those of enrolled photos; without a
    /// time, all faces. Returns the number of deleted records.
    pub async fn purge_faces(&self, before: Option<OffsetDateTime>) -> Result<u64, StoreError> {
        on_backend!(self, pool => faces::purge(pool, before).await)
    }

    /// Deletes a sample with its scores. Returns `None` if no sample has this id. The summaries of
    /// its run are recomputed from the remaining samples; faces are deleted with the last reference
    /// to their image.
    pub async fn delete_sample(&self, id: Uuid) -> Result<Option<Deleted>, StoreError> {
        on_backend!(self, pool => deletion::sample(pool, id).await)
    }

    /// Deletes a run with everything in it. Returns `None` if no run has this id.
    pub async fn delete_run(&self, id: Uuid) -> Result<Option<Deleted>, StoreError> {
        on_backend!(self, pool => deletion::run(pool, id).await)
    }

    /// Deletes a dataset with its photos. Returns `None` if none has this name.
    pub async fn delete_dataset(&self, name: &str) -> Result<Option<Deleted>, StoreError> {
        on_backend!(self, pool => deletion::dataset(pool, name).await)
    }

    /// Deletes everything derived from an image and its enrolments, even if other rows refer to it;
    /// samples and scores stay. Returns `None` if the image is unknown.
    pub async fn delete_image(&self, image: ContentHash) -> Result<Option<Deleted>, StoreError> {
        on_backend!(self, pool => deletion::image(pool, image).await)
    }

    /// Pings the database.
    pub async fn ping(&self) -> Result<(), StoreError> {
        on_backend!(self, pool => db::ping(pool).await)
    }

    /// Waits for running transactions and closes all connections; later calls fail as unavailable.
    pub async fn close(&self) {
        on_backend!(self, pool => pool.close().await);
    }
}
