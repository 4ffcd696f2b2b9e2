//! What is kept: samples, their scores with provenance, and the running summaries behind the leaderboard.
//!
//! One narrow interface, two databases: SQLite (the embedded default) and PostgreSQL, with the same tables,
//! the same columns and, as far as the two speak the same SQL, the same statements:
//!
//! ```text
//! Store ── group_commit.rs, record.rs, running.rs, sample.rs, leaderboard.rs,
//!          datasets.rs, prompts.rs, faces.rs,
//!          runs.rs, pending.rs, bulk.rs,
//!          run_data.rs, slices.rs, preferences.rs,
//!          deletion.rs                            what is asked: SQL that both databases understand
//!       ── ensure.rs, words.rs                    rows that come into being when named, values that both databases keep
//!       ── sql.rs                                 a statement, its arguments, and rows that name what is wrong with them
//!       ── sqlite.rs, postgres.rs                 connections, transactions, migrations, types
//! ```
//!
//! Nothing outside this module knows SQL. "Not found" is `Ok(None)`, never an error.

mod bulk;
mod datasets;
mod deletion;
mod ensure;
mod error;
mod faces;
mod group_commit;
mod leaderboard;
mod migrations;
mod pending;
mod postgres;
mod preferences;
mod prompts;
mod record;
mod run_data;
mod running;
mod runs;
mod sample;
mod slices;
mod spools;
mod sql;
mod sqlite;
mod summary;
mod types;
mod words;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

pub use bulk::{AttributeColumn, AttributeLabels, Imported, NewImport, RunWideScores, ScoreColumn};
pub use datasets::{Attributes, DatasetRecord, Enrolled, NewPhoto, PhotoRecord, RunSample};
pub use deletion::Deleted;
pub use error::{MigrationError, StoreError, without_password};
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
pub use runs::{MethodRecord, RunCounts, RunFacts, RunFlags, RunRecord, RunState, RunsQuery};
pub use sample::{SampleRecord, ScoreRecord, StoredImage};
pub use slices::{MetricSums, Quantiles, RunSlices, RunSummary, RunVersion, Slice, SliceSummary};
pub use summary::{MetricSummary, Moments};
use time::OffsetDateTime;
pub use types::{PackId, RunName, ScoreValue, Weights};
use uuid::Uuid;
pub use words::MAX_NAME_BYTES;

use crate::content::ContentHash;

/// The most rows of one page.
pub const MAX_PAGE: u32 = 1_000;

/// How a store uses its database.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The most connections held open: PostgreSQL's pool, or SQLite's readers beside its single writer.
    pub connections: u32,
    /// How long a request waits for a free connection, or for a lock, before it fails as unavailable.
    pub timeout: Duration,
}

impl Default for StoreOptions {
    /// 16 connections and 30 seconds: SQLite's writer serves thousands of samples in that time, so only a
    /// database that is really stuck fails a request.
    fn default() -> Self {
        Self { connections: 16, timeout: Duration::from_secs(30) }
    }
}

/// A database of samples and scores, cheap to clone and shared by all requests.
#[derive(Clone, Debug)]
pub struct Store {
    backend: Backend,
    remembered: StandingsCache,
    recording: Arc<group_commit::Queue>,
}

#[derive(Clone, Debug)]
enum Backend {
    Postgres(postgres::Pool),
    Sqlite(sqlite::Pool),
}

/// Runs `$body` with `$pool` bound to the pool of whichever database the store uses: the two differ in type
/// only, so what is asked is written once.
macro_rules! on_backend {
    ($store:expr, $pool:ident => $body:expr) => {
        match &$store.backend {
            Backend::Postgres($pool) => $body,
            Backend::Sqlite($pool) => $body,
        }
    };
}

impl Store {
    /// Opens the database at `url` and brings its tables up to date; concurrent openers wait for each other.
    ///
    /// - `sqlite:PATH` (also `sqlite://PATH`): a file, made with its folders when missing.
    /// - `sqlite::memory:`: a database that is gone when the store is dropped.
    /// - `postgres://USER:PASSWORD@HOST:PORT/DATABASE`: an existing database; a role that may create tables.
    pub async fn open(url: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        let (backend, writers) = match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("postgres" | "postgresql") => {
                (Backend::Postgres(postgres::Pool::open(url, options).await?), postgres::WRITERS)
            }
            Some("sqlite") => (Backend::Sqlite(sqlite::Pool::open(url, options).await?), sqlite::WRITERS),
            _ => return Err(StoreError::url(url, "its scheme is neither sqlite nor postgres")),
        };
        let recording = group_commit::Queue::new(writers);
        Ok(Self { backend, remembered: StandingsCache::default(), recording })
    }

    /// The same database over so many further connections, for reading that takes long: what uses them keeps nobody else waiting.
    /// They are closed with the store.
    #[must_use]
    pub fn for_analyses(&self, connections: u32) -> Self {
        let backend = match &self.backend {
            Backend::Postgres(pool) => Backend::Postgres(pool.with_own_connections(connections)),
            Backend::Sqlite(pool) => Backend::Sqlite(pool.with_own_readers(connections)),
        };
        Self { backend, remembered: self.remembered.clone(), recording: Arc::clone(&self.recording) }
    }

    /// Bytes of what leaderboards stood on that is in memory.
    #[must_use]
    pub fn remembered_bytes(&self) -> u64 {
        self.remembered.bytes()
    }

    /// Which database this is, for logs and readiness: `sqlite` or `postgres`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.backend {
            Backend::Postgres(_) => "postgres",
            Backend::Sqlite(_) => "sqlite",
        }
    }

    /// Stores a sample with its scores and brings the run's summaries up to date, all in one transaction.
    ///
    /// A sample is identified by its run and name (by its content where it has no name), so recording the same
    /// again, after a lost answer or a restart, returns the first one's id and counts nothing twice; see
    /// [`RecordOutcome`]. A name that already stands for other content is a [`StoreError::SampleConflict`]. A sample
    /// outside any run has nothing to be identified by: it is always new.
    ///
    /// Samples that are recorded at the same time share a transaction. The sample is recorded even if the caller stops waiting.
    pub async fn record(&self, sample: &NewSample) -> Result<Recorded, StoreError> {
        let recorded = self.in_a_group(sample, None).await?;
        Ok(recorded.expect("only a sample that waited may have gone"))
    }

    /// Records a sample that waited as [`record`](Self::record) does, and takes it out of those that wait, in the same
    /// transaction. `None` where it does not wait any more: it was deleted, or somebody else was quicker.
    pub async fn record_pending(
        &self,
        sample: &NewSample,
        run: Uuid,
    ) -> Result<Option<Recorded>, StoreError> {
        self.in_a_group(sample, Some(run)).await
    }

    /// Records a sample together with those that come at the same time.
    async fn in_a_group(
        &self,
        sample: &NewSample,
        pending: Option<Uuid>,
    ) -> Result<Option<Recorded>, StoreError> {
        let told = self.recording.join(sample, pending)?;
        let queue = Arc::clone(&self.recording);
        on_backend!(self, pool => drop(tokio::spawn(group_commit::write_next(pool.clone(), queue))));
        told.await.unwrap_or(Err(StoreError::Unavailable(sqlx::Error::WorkerCrashed)))
    }

    /// Makes a method, or describes it anew; says whether it is new.
    pub async fn create_method(
        &self,
        name: &str,
        description: Option<&str>,
        created: OffsetDateTime,
    ) -> Result<(MethodRecord, bool), StoreError> {
        on_backend!(self, pool => runs::create_method(pool, name, description, created).await)
    }

    /// Lists at most `limit` methods by name, beginning behind the name `after`.
    pub async fn methods(&self, after: &str, limit: u32) -> Result<Vec<MethodRecord>, StoreError> {
        on_backend!(self, pool => runs::methods(pool, after, limit).await)
    }

    /// Makes a run, or finds the one that was made with the same facts; says whether it is new. Other facts are a
    /// [`StoreError::RunConflict`]; a run that came into being with its first sample takes them.
    pub async fn create_run(
        &self,
        name: &RunName,
        facts: &RunFacts,
        created: OffsetDateTime,
    ) -> Result<(RunRecord, bool), StoreError> {
        on_backend!(self, pool => runs::create_run(pool, name, facts, created).await)
    }

    /// Looks up a run, or `None` where none has this id. One row, whatever the number of its samples.
    pub async fn run(&self, id: Uuid) -> Result<Option<RunRecord>, StoreError> {
        on_backend!(self, pool => runs::run(pool, id).await)
    }

    /// Lists runs in the order in which they were made.
    pub async fn runs(&self, query: &RunsQuery) -> Result<Vec<RunRecord>, StoreError> {
        on_backend!(self, pool => runs::runs(pool, query).await)
    }

    /// How many samples wait, failed and are scored over all runs.
    pub async fn backlog(&self) -> Result<RunCounts, StoreError> {
        on_backend!(self, pool => runs::backlog(pool).await)
    }

    /// Takes no more samples into a run, or says `None` where no run has this id.
    pub async fn finish_run(&self, id: Uuid) -> Result<Option<RunRecord>, StoreError> {
        on_backend!(self, pool => runs::finish(pool, id).await)
    }

    /// The id of the database: it is in every copy and every backup of it, and in no other database.
    pub async fn installation(&self) -> Result<String, StoreError> {
        on_backend!(self, pool => spools::installation(pool).await)
    }

    /// Some files of this folder that nobody needs any more, whichever instance saw that.
    pub async fn released_files(&self, folder: &str) -> Result<Vec<ContentHash>, StoreError> {
        on_backend!(self, pool => spools::released(pool, folder).await)
    }

    /// Forgets [`released_files`](Self::released_files) that are gone, or needed again.
    pub async fn forget_released(&self, folder: &str, files: &[ContentHash]) -> Result<(), StoreError> {
        on_backend!(self, pool => spools::forget_released(pool, folder, files).await)
    }

    /// The runs that are to be finished and have nothing left to wait for.
    pub async fn finishable_runs(&self) -> Result<Vec<Uuid>, StoreError> {
        on_backend!(self, pool => runs::finishable(pool).await)
    }

    /// Ends a run that is finishing, and says which files need not be kept for it any longer.
    pub async fn run_finished(&self, id: Uuid, time: OffsetDateTime) -> Result<Vec<ContentHash>, StoreError> {
        on_backend!(self, pool => runs::finished(pool, id, time).await)
    }

    /// Accepts a sample to be scored later, or says `None` where no run has this id.
    ///
    /// A sample is known by its run and name: the same again changes nothing, other content is a
    /// [`StoreError::SampleConflict`] unless the first one failed.
    pub async fn accept(&self, sample: &NewPending) -> Result<Option<Accepted>, StoreError> {
        on_backend!(self, pool => pending::accept(pool, sample).await)
    }

    /// What became of a submission of this name and content; `None` where there is none or another one failed.
    pub async fn submission(
        &self,
        run: Uuid,
        run_name: &RunName,
        name: &str,
        content: ContentHash,
    ) -> Result<Option<SampleStatus>, StoreError> {
        on_backend!(self, pool => pending::submission(pool, run, run_name, name, content).await)
    }

    /// Those of these photos that are not kept for the run in this folder.
    pub async fn unknown_photos(
        &self,
        run: Uuid,
        folder: &str,
        photos: &BTreeSet<ContentHash>,
    ) -> Result<Vec<ContentHash>, StoreError> {
        on_backend!(self, pool => pending::unknown_photos(pool, run, folder, photos).await)
    }

    /// The oldest samples that wait for this pack, whose images are in this folder, and that are due.
    pub async fn waiting(
        &self,
        folder: &str,
        pack: &str,
        now: OffsetDateTime,
        limit: u32,
    ) -> Result<Vec<PendingRecord>, StoreError> {
        on_backend!(self, pool => pending::next(pool, folder, pack, now, limit).await)
    }

    /// The samples whose images are in this folder and that wait for another pack than this one, by pack.
    pub async fn held_samples(&self, folder: &str, pack: &str) -> Result<Vec<BlockedSamples>, StoreError> {
        on_backend!(self, pool => pending::held(pool, folder, pack).await)
    }

    /// When the next of those samples is due that are not due yet.
    pub async fn next_due(
        &self,
        folder: &str,
        pack: &str,
        after: OffsetDateTime,
    ) -> Result<Option<OffsetDateTime>, StoreError> {
        on_backend!(self, pool => pending::next_due(pool, folder, pack, after).await)
    }

    /// Puts a waiting sample off, and counts the attempt where it was one.
    pub async fn postpone(&self, id: Uuid, due: OffsetDateTime, attempted: bool) -> Result<(), StoreError> {
        on_backend!(self, pool => pending::postpone(pool, id, due, attempted).await)
    }

    /// Gives a waiting sample up, for a reason's code and in words, and says whose file need not be kept for it any longer.
    /// `None` where it does not wait.
    pub async fn fail_pending(
        &self,
        id: Uuid,
        reason: &str,
        detail: &str,
    ) -> Result<Option<ContentHash>, StoreError> {
        on_backend!(self, pool => pending::fail(pool, id, reason, detail).await)
    }

    /// Those of these files that some run needs in this folder.
    pub async fn needed_files(
        &self,
        folder: &str,
        files: &[ContentHash],
    ) -> Result<HashSet<ContentHash>, StoreError> {
        on_backend!(self, pool => pending::needed(pool, folder, files).await)
    }

    /// One page of a run's samples by name, wherever they stand; `None` where no run has this id.
    pub async fn submitted(
        &self,
        run: Uuid,
        state: Option<SubmittedState>,
        after: &str,
        limit: u32,
    ) -> Result<Option<Vec<Submitted>>, StoreError> {
        on_backend!(self, pool => pending::submitted(pool, run, state, after, limit).await)
    }

    /// Imports scores that were computed elsewhere, all or nothing; `None` where no run has this id.
    pub async fn import(&self, import: &NewImport) -> Result<Option<Imported>, StoreError> {
        on_backend!(self, pool => bulk::import(pool, import).await)
    }

    /// Adds scores that only a whole run has to those of its samples that have none yet; says how many these were.
    pub async fn add_run_wide(&self, scores: &RunWideScores) -> Result<u64, StoreError> {
        on_backend!(self, pool => bulk::add_run_wide(pool, scores).await)
    }

    /// What `aps` stands on: for each attribute by name, what is true and what was found of each of these samples of a run,
    /// as far as this pack has it. The names are in order.
    pub async fn outcomes(
        &self,
        run: Uuid,
        pack: &str,
        names: &[String],
    ) -> Result<BTreeMap<String, AttributeColumn>, StoreError> {
        on_backend!(self, pool => bulk::outcomes(pool, run, pack, names).await)
    }

    /// The packs whose scores a run has.
    pub async fn run_packs(&self, run: Uuid) -> Result<Vec<PackId>, StoreError> {
        on_backend!(self, pool => bulk::packs(pool, run).await)
    }

    /// All packs that scores were stored of, by name.
    pub async fn packs(&self) -> Result<Vec<PackId>, StoreError> {
        on_backend!(self, pool => bulk::all_packs(pool).await)
    }

    /// Looks up a sample with the scores of all packs, or `None` where no sample has this id.
    pub async fn sample(&self, id: Uuid) -> Result<Option<SampleRecord>, StoreError> {
        on_backend!(self, pool => sample::sample(pool, id).await)
    }

    /// The runs of a leaderboard with what it stands on, in order of method, pack and run. What was read before and has not changed
    /// comes from memory.
    pub async fn standings(&self, query: &StandingsQuery) -> Result<Vec<Arc<RunStandings>>, StoreError> {
        on_backend!(self, pool => self.remembered.standings(pool, query).await)
    }

    /// How the database goes about [`standings`](Self::standings): its plans, a line a step: of what every
    /// question asks, and of what is asked for runs that changed.
    pub async fn explain_standings(&self, query: &StandingsQuery) -> Result<Vec<String>, StoreError> {
        on_backend!(self, pool => leaderboard::explain(pool, query).await)
    }

    /// Enrols a labelled photo in a dataset, which is made if it is new.
    ///
    /// A photo is identified by its identity and name: the same again changes nothing, other content or attributes
    /// are a [`StoreError::PhotoConflict`].
    pub async fn enrol(&self, photo: &NewPhoto) -> Result<Enrolled, StoreError> {
        on_backend!(self, pool => datasets::enrol(pool, photo).await)
    }

    /// Lists at most `limit` datasets by name, beginning behind the name `after`.
    pub async fn datasets(&self, after: &str, limit: u32) -> Result<Vec<DatasetRecord>, StoreError> {
        on_backend!(self, pool => datasets::datasets(pool, after, limit).await)
    }

    /// Looks up a dataset, or `None` where none has this name.
    pub async fn dataset(&self, name: &str) -> Result<Option<DatasetRecord>, StoreError> {
        on_backend!(self, pool => datasets::dataset(pool, name).await)
    }

    /// All photos of a dataset, by identity and name.
    pub async fn photos(&self, dataset: Uuid) -> Result<Vec<PhotoRecord>, StoreError> {
        on_backend!(self, pool => datasets::photos(pool, dataset).await)
    }

    /// One page of a dataset's photos, by identity and name.
    pub async fn photos_page(
        &self,
        dataset: Uuid,
        offset: u64,
        limit: u32,
    ) -> Result<Vec<PhotoRecord>, StoreError> {
        on_backend!(self, pool => datasets::photos_page(pool, dataset, offset, limit).await)
    }

    /// Registers prompts in a dataset, which is made if it is new: at most [`MAX_PROMPTS`] at once.
    ///
    /// A prompt is known by its identity and text: the same again changes nothing, another kind or other facts replace
    /// what was there.
    pub async fn register_prompts(
        &self,
        dataset: &str,
        prompts: &[PromptRecord],
        created: OffsetDateTime,
    ) -> Result<Registered, StoreError> {
        on_backend!(self, pool => prompts::register(pool, dataset, prompts, created).await)
    }

    /// One page of a dataset's prompts, by identity and then in the order in which they were registered, each with the
    /// cursor that continues behind it.
    pub async fn prompts(
        &self,
        dataset: Uuid,
        query: &PromptQuery,
    ) -> Result<Vec<(PromptCursor, PromptRecord)>, StoreError> {
        on_backend!(self, pool => prompts::page(pool, dataset, query).await)
    }

    /// The samples of a run by name, or `None` where no run has this id.
    pub async fn run_samples(&self, run: Uuid) -> Result<Option<Vec<RunSample>>, StoreError> {
        on_backend!(self, pool => datasets::run_samples(pool, run).await)
    }

    /// Reads a run as columns with the scores of one pack: the one of this digest, or else the one that most of its
    /// scores are of. `None` where no run has this id.
    pub async fn run_data(&self, run: Uuid, pack: Option<&str>) -> Result<Option<RunData>, StoreError> {
        on_backend!(self, pool => run_data::run_data(pool, run, pack).await)
    }

    /// Reads some samples of several runs, by run and name, as if they were one run, with the scores of the pack of this
    /// digest. Each is called by its run's id, a slash and its name.
    pub async fn samples_data(
        &self,
        wanted: &BTreeMap<Uuid, BTreeSet<String>>,
        pack: &str,
    ) -> Result<RunData, StoreError> {
        on_backend!(self, pool => run_data::samples_data(pool, wanted, pack).await)
    }

    /// Names of at most so many samples of a run, evenly spaced in their order.
    pub async fn sample_names(&self, run: Uuid, most: usize) -> Result<BTreeSet<String>, StoreError> {
        on_backend!(self, pool => run_data::sample_names(pool, run, most).await)
    }

    /// Names of at most so many samples that two runs both have and that nobody was asked this question about.
    pub async fn unjudged(
        &self,
        question: &Question,
        a: Uuid,
        b: Uuid,
        most: u32,
    ) -> Result<Vec<String>, StoreError> {
        on_backend!(self, pool => preferences::unjudged(pool, question, a, b, most).await)
    }

    /// Takes down answers of annotators, all or none, and says how many; the same annotator's answer to the same question about
    /// the same images replaces the one before.
    pub async fn add_preferences(
        &self,
        preferences: &[NewPreference],
        created: OffsetDateTime,
    ) -> Result<Result<usize, UnknownSample>, StoreError> {
        on_backend!(self, pool => preferences::add(pool, preferences, created).await)
    }

    /// Answers of annotators in the order in which they came.
    pub async fn preferences(&self, query: &PreferencesQuery) -> Result<Vec<Preference>, StoreError> {
        on_backend!(self, pool => preferences::list(pool, query).await)
    }

    /// Deletes an answer; `false` where none has this id.
    pub async fn delete_preference(&self, id: Uuid) -> Result<bool, StoreError> {
        on_backend!(self, pool => preferences::delete(pool, id).await)
    }

    /// Deletes all answers of an annotator, and says how many there were.
    pub async fn delete_annotator(&self, annotator: &str) -> Result<u64, StoreError> {
        on_backend!(self, pool => preferences::delete_annotator(pool, annotator).await)
    }

    /// The runs, or this run, with those packs of which the summaries by slice are not there or out of date.
    pub async fn stale_runs(&self, run: Option<Uuid>) -> Result<Vec<RunVersion>, StoreError> {
        on_backend!(self, pool => slices::stale(pool, run).await)
    }

    /// Replaces the summaries by slice of a run; `false` where it is gone.
    pub async fn save_run_summary(
        &self,
        version: &RunVersion,
        summary: &RunSummary,
        computed: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        on_backend!(self, pool => slices::save(pool, version, summary, computed).await)
    }

    /// The summaries by slice of a run with the pack of this digest, or `None` where there are none yet.
    pub async fn run_slices(&self, run: Uuid, pack: &str) -> Result<Option<RunSlices>, StoreError> {
        on_backend!(self, pool => slices::run_slices(pool, run, pack).await)
    }

    /// The distributions of all metrics in the summarised runs with the pack of this digest.
    pub async fn run_quantiles(&self, pack: &str) -> Result<Vec<(Uuid, Quantiles)>, StoreError> {
        on_backend!(self, pool => slices::quantiles(pool, pack).await)
    }

    /// Keeps what the face graphs found in an image.
    pub async fn save_faces(&self, record: &FacesRecord) -> Result<(), StoreError> {
        on_backend!(self, pool => faces::save(pool, record, None).await)
    }

    /// [`save_faces`](Self::save_faces) of a search that began at this time: nothing is kept of an image that was deleted since,
    /// by whichever instance.
    pub async fn save_found_faces(
        &self,
        record: &FacesRecord,
        began: OffsetDateTime,
    ) -> Result<(), StoreError> {
        on_backend!(self, pool => faces::save(pool, record, Some(began)).await)
    }

    /// The images that were deleted since a time, each with when.
    pub async fn deleted_images(
        &self,
        since: OffsetDateTime,
    ) -> Result<Vec<(ContentHash, OffsetDateTime)>, StoreError> {
        on_backend!(self, pool => deletion::deleted_images(pool, since).await)
    }

    /// Forgets which images were deleted before a time.
    pub async fn forget_deletions(&self, before: OffsetDateTime) -> Result<(), StoreError> {
        on_backend!(self, pool => deletion::forget_deletions(pool, before).await)
    }

    /// Takes what was deleted out of SQLite's write-ahead log, where it would stay until that is written over, and says whether
    /// it is gone: a reader who has begun before keeps it. PostgreSQL keeps its own log as its administrator says.
    pub async fn scrub(&self) -> Result<bool, StoreError> {
        match &self.backend {
            Backend::Sqlite(pool) => pool.truncate_log().await,
            Backend::Postgres(_) => Ok(true),
        }
    }

    /// What the face graphs found in those of these images that are kept.
    pub async fn faces(
        &self,
        images: &[ContentHash],
        graphs: ContentHash,
    ) -> Result<HashMap<ContentHash, Vec<u8>>, StoreError> {
        on_backend!(self, pool => faces::load(pool, images, graphs).await)
    }

    /// Which faces these graphs found in images of a run or a dataset are kept: it differs where any was added or is gone.
    pub async fn faces_state(&self, of: ImagesOf, graphs: ContentHash) -> Result<FacesState, StoreError> {
        on_backend!(self, pool => faces::state(pool, of, graphs).await)
    }

    /// Deletes the faces that were found before a time, except those of enrolled photos; without a time, all. Says
    /// how many there were.
    pub async fn purge_faces(&self, before: Option<OffsetDateTime>) -> Result<u64, StoreError> {
        on_backend!(self, pool => faces::purge(pool, before).await)
    }

    /// Deletes a sample with its scores, or says `None` where no sample has this id. Its run's summaries are computed
    /// anew from what remains; faces go with the last that stands on their image.
    pub async fn delete_sample(&self, id: Uuid) -> Result<Option<Deleted>, StoreError> {
        on_backend!(self, pool => deletion::sample(pool, id).await)
    }

    /// Deletes a run with everything in it, or says `None` where no run has this id.
    pub async fn delete_run(&self, id: Uuid) -> Result<Option<Deleted>, StoreError> {
        on_backend!(self, pool => deletion::run(pool, id).await)
    }

    /// Deletes a dataset with its photos, or says `None` where none has this name.
    pub async fn delete_dataset(&self, name: &str) -> Result<Option<Deleted>, StoreError> {
        on_backend!(self, pool => deletion::dataset(pool, name).await)
    }

    /// Deletes what was found in an image and its enrolments, whoever else stands on it; samples and scores stay.
    /// `None` where nothing knows the image.
    pub async fn delete_image(&self, image: ContentHash) -> Result<Option<Deleted>, StoreError> {
        on_backend!(self, pool => deletion::image(pool, image).await)
    }

    /// Asks the database for a sign of life.
    pub async fn ping(&self) -> Result<(), StoreError> {
        on_backend!(self, pool => sql::ping(pool).await)
    }

    /// Waits for running transactions and closes all connections; whatever is asked afterwards is unavailable.
    pub async fn close(&self) {
        on_backend!(self, pool => pool.close().await);
    }
}
