//! The store: samples, their scores with provenance, and the running summaries behind the
//! leaderboard.
//!
//! One narrow interface, two databases: SQLite (the embedded default) and PostgreSQL, with the same
//! tables, the same columns and, as far as their SQL dialects agree, the same statements. A method
//! of [`Store`] is in the file of its resource, above its SQL:
//!
//! ```text
//! methods.rs, cards.rs, runs.rs, packs.rs      methods, runs and packs
//! group_commit.rs ── record.rs                 recording, in shared transactions or alone
//! accepting.rs, pending.rs, attempts.rs        samples to score later, and the attempts at them
//! spools.rs, quarantine.rs, leadership.rs      their files, and which instance leads which duty
//! imports.rs, run_wide.rs ── columns.rs        scores of many samples at once
//! samples.rs, scores.rs, attributes.rs         reading samples, scores and the evidence of `aps`
//! run_data/                                    a run as columns
//! summaries/                                   running and slice summaries, the leaderboard
//! briefs.rs                                    samples of a run in lists, best or worst first
//! datasets.rs, prompts.rs, faces.rs            datasets, their prompts, faces found in images
//! extras.rs                                    evidence of scores, thumbnails of images
//! judgements.rs, preferences.rs                judgements of annotators
//! study_plan.rs, studies.rs, study_answers.rs  studies, their items and answers
//! submission_record.rs, board.rs, bundles.rs   bundles of scores, and the change log of the board
//! keys.rs, audit.rs                            API keys, and who wrote or deleted what
//! whole/                                       whole databases: state, snapshot, restoration
//! deletion.rs ── unused_images.rs              deletion of a sample, run, dataset or image
//! db/                                          SQLite and PostgreSQL, beneath all others
//! ```
//!
//! Nothing outside this module knows SQL. "Not found" is `Ok(None)`, never an error.

mod accepting;
mod attempts;
mod attributes;
mod audit;
mod board;
mod briefs;
mod bundles;
mod cards;
mod columns;
mod datasets;
mod db;
mod deletion;
mod extras;
mod faces;
mod group_commit;
mod imports;
mod judgements;
mod keys;
mod leadership;
mod methods;
mod packs;
mod pending;
mod preferences;
mod prompts;
mod quarantine;
mod queue;
mod record;
mod run_data;
mod run_name;
mod run_wide;
mod runs;
mod sample;
mod samples;
mod scores;
mod shown;
mod spools;
mod studies;
mod study_answers;
mod study_plan;
mod submission_record;
mod summaries;
mod telemetry;
mod unused_images;
mod whole;

use std::sync::Arc;

pub use accepting::{Accepted, AcceptedSample, NewPending, SampleState, SampleStatus};
pub use attempts::PendingId;
pub use attributes::{AttributeColumn, AttributeLabels, Outcomes};
pub use audit::{AuditEntry, AuditQuery};
pub use briefs::{SampleBrief, SamplePhotos};
pub use columns::ScoreColumn;
pub use datasets::{Attributes, DatasetRecord, Enrolled, NewPhoto, PhotoRecord};
use db::{Backend, on_backend};
pub use db::{MAX_NAME_BYTES, MigrationError, StoreError, StoreOptions, without_password};
pub use deletion::Deleted;
pub use extras::EvidenceRecord;
pub use faces::{FacesRecord, FacesState, ImagesOf};
pub use imports::{Imported, NewImport};
pub use judgements::{
    Judgement, NewPreference, Preference, PreferencesQuery, Question, UnknownSample, VoteCount,
};
pub use keys::KeyRecord;
pub use leadership::Leadership;
pub use methods::MethodRecord;
pub use pending::{BlockedSamples, PendingRecord};
pub use prompts::{MAX_PROMPTS, PromptCursor, PromptFacts, PromptQuery, PromptRecord, Registered};
pub use quarantine::DeletionTurn;
pub use run_data::{AttributePlaces, MetricColumn, RUN_DATA_BYTES, RelationKinds, RunData};
pub use run_name::RunName;
pub use run_wide::{RunWideScore, RunWideScores};
pub use runs::{RunCounts, RunFacts, RunFlags, RunRecord, RunState, RunsQuery};
pub use sample::{
    Extras, NeededFaces, NewSample, NewScore, NewThumbnail, RecordOutcome, Recorded, SampleInputs,
    ScoreValue,
};
pub use samples::{RunSample, SampleRecord, StoredImage};
pub use scores::ScoreRecord;
pub use shown::ShownSample;
pub use studies::{Exclusion, ExclusionCause, StudyItem, StudyRecord};
pub use study_answers::{
    AnnotatorAnswers, NewStudyAnswer, StudyAnswer, StudyChoice, StudyProgress,
};
pub use study_plan::{GoldItem, GoldPlan, PromptSelection, StudyForm, StudyPlan, StudyState};
pub use submission_record::{
    BoardChange, NewSubmission, NewVerification, SubmissionRecord, SubmissionState,
    SubmissionsQuery, Verification,
};
pub use summaries::kinds::KindSummary;
pub use summaries::moments::{MetricSummary, Moments};
pub use summaries::slice::{APS_AREA, MetricSums, Slice, SliceSummary};
pub use summaries::slices::{BenchmarkSet, Quantiles, RunSlices, RunSummary};
pub use summaries::staleness::RunVersion;
pub use summaries::standings::{
    LEADERBOARD_BYTES, RunStandings, Standing, StandingsFilter, StandingsQuery,
};
use summaries::standings::{StandingsCache, standings_cache};
pub use telemetry::StoreTelemetry;
pub use whole::{Cell, DatabaseState, Restoration, RestoreError, Snapshot, TableShape};

use crate::cache::Caches;
pub use crate::pack_id::{PackId, Weights};

/// Maximum number of rows per page.
pub const MAX_PAGE: u32 = 1_000;

/// A database of samples and scores, cheap to clone and shared by all requests.
#[derive(Clone, Debug)]
pub struct Store {
    backend: Backend,
    caches: Caches,
    remembered: Arc<StandingsCache>,
    runs: Arc<run_data::RunDataCache>,
    recording: Arc<queue::Queue>,
    telemetry: StoreTelemetry,
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
        let recording = queue::Queue::new(options.writers.unwrap_or(writers));
        let caches = Caches::default();
        let remembered = standings_cache(&caches);
        let runs = run_data::run_data_cache(&caches);
        let telemetry = options.telemetry.clone();
        Ok(Self { backend, caches, remembered, runs, recording, telemetry })
    }

    /// Returns the same database over this many additional connections, for long reads that must
    /// not block other requests. They are closed with the store.
    #[must_use]
    pub fn for_analyses(&self, connections: u32) -> Self {
        let backend = self.backend.with_own_connections(connections);
        Self { backend, ..self.clone() }
    }

    /// Returns the caches of what is derived from this database, which are cleared at a deletion.
    #[must_use]
    pub fn caches(&self) -> &Caches {
        &self.caches
    }

    /// Returns the kind of database, for logs and readiness: `sqlite` or `postgres`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.backend {
            Backend::Postgres(_) => "postgres",
            Backend::Sqlite(_) => "sqlite",
        }
    }

    /// Updates the service metrics of the connections.
    pub fn report_connections(&self) {
        self.telemetry.pools(&self.backend.pools());
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
