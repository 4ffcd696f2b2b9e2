//! The state that all handlers share.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use crate::api::adapters::Adapters;
use crate::api::caches::{FacesKey, ResponseCaches};
use crate::api::face_store::StoredFaces;
use crate::api::generation::Generation;
use crate::api::http::admission::Admission;
use crate::api::http::bodies::BodyLimits;
use crate::api::http::fair::Turns;
use crate::api::http::forward::Forward;
use crate::api::http::hosts::Hosts;
use crate::api::http::keys::Keys;
use crate::api::http::{ApiError, Code, analyses};
use crate::api::questions::Questions;
use crate::api::readiness::Readiness;
use crate::{
    cache::Cache,
    config::{self, Analysis, Config, Limits, Rewards},
    dispatch::Places,
    generation::Generator,
    runs::Runs,
    scoring::{Evict, Scoring},
    service::{AuditLog, Keeping},
    store::{ImagesOf, Store},
    telemetry::Telemetry,
};

/// Maximum number of imported files that are read and stored at once; further ones wait.
pub(super) const IMPORTS_AT_ONCE: usize = 2;

/// Maximum number of bundles that are sent to clients at once; further ones wait.
pub(super) const BUNDLES_AT_ONCE: usize = 2;

/// State shared by all handlers.
#[derive(Clone)]
pub struct App {
    pub(super) scoring: Arc<Scoring>,
    pub(super) store: Store,
    pub(super) runs: Arc<Runs>,
    pub(super) limits: Limits,
    pub(super) deadline: Duration,
    pub(super) bodies: BodyLimits,
    pub(super) hosts: Arc<Hosts>,
    pub(super) face_retention_days: u32,
    pub(super) keeping: Keeping,
    pub(super) analysis: Analysis,
    pub(super) admission: Arc<Admission>,
    pub(super) telemetry: Telemetry,
    pub(super) caches: Arc<ResponseCaches>,
    pub(super) imports: Arc<Semaphore>,
    pub(super) bundles: Arc<Semaphore>,
    pub(super) rewards: Rewards,
    pub(super) reward_turns: Turns,
    pub(super) adapters: Arc<Adapters>,
    pub(super) generation: Option<Generation>,
    pub(super) questions: Arc<Questions>,
    pub(super) keys: Arc<Keys>,
    audit: AuditLog,
    pub(super) forward: Option<Forward>,
    pub(super) readiness: Arc<Readiness>,
}

/// The state as handlers take it.
pub(super) type Shared = axum::extract::State<Arc<App>>;

impl App {
    /// Creates the application from a started engine, an open store and an open spool.
    #[must_use]
    pub fn new(
        config: &Config,
        scoring: Arc<Scoring>,
        store: Store,
        runs: Arc<Runs>,
        telemetry: Telemetry,
    ) -> Self {
        if config.privacy.face_retention_days > 0 {
            scoring.set_face_store(Arc::new(StoredFaces(store.clone())));
        }
        scoring.show_embeddings(config.privacy.return_embeddings);
        let admission = Arc::new(Admission::new(&config.limits, &config.rewards));
        let caches = ResponseCaches::new(store.caches());
        let bounds = &telemetry.admission;
        bounds.requests_limit.set(config.limits.requests as i64);
        bounds.upload_limit_bytes.set(config.limits.upload_memory_bytes() as i64);
        bounds.rewards_limit_bytes.set(config.rewards.memory_bytes() as i64);
        telemetry.pack.loaded(&scoring.pack().id());
        let at_once = match config.rewards.concurrency {
            0 => config.runs.samples_at_once(scoring.engine().largest_gpu_batch()),
            given => given,
        };
        let reward_turns = Turns::new(at_once, config.rewards.queue);
        let adapters = Arc::new(Adapters::new(&config.rewards.adapter, scoring.pack()));
        let audit = AuditLog::new(store.clone());
        let keys = Arc::new(Keys::new(config, store.clone(), audit.clone()));
        Self {
            scoring,
            store,
            runs,
            limits: config.limits.clone(),
            deadline: config.server.deadline(),
            bodies: BodyLimits::new(config, Arc::clone(&admission)),
            hosts: Arc::new(Hosts::new(&config.server)),
            face_retention_days: config.privacy.face_retention_days,
            keeping: Keeping::of(config),
            analysis: config.analysis.clone(),
            admission,
            telemetry,
            caches: Arc::new(caches),
            imports: Arc::new(Semaphore::new(IMPORTS_AT_ONCE)),
            bundles: Arc::new(Semaphore::new(BUNDLES_AT_ONCE)),
            rewards: config.rewards.clone(),
            reward_turns,
            adapters,
            generation: None,
            questions: Arc::new(Questions::new(&config.analysis.questions)),
            keys,
            audit,
            forward: None,
            readiness: Arc::new(Readiness::new(&config.store)),
        }
    }

    /// Adds the generator of `POST /v1/generate`. What it has cached of an image is evicted with
    /// what the models of scoring have.
    #[must_use]
    pub fn with_generator(self, generator: Arc<Generator>, config: &config::Generator) -> Self {
        self.scoring.evict_from(Arc::clone(&generator) as Arc<dyn Evict>);
        let telemetry = self.telemetry.generation.clone();
        Self { generation: Some(Generation::new(generator, config, telemetry)), ..self }
    }

    /// Accepts requests that other instances forward with this proof.
    pub(crate) fn trust(&self, proof: String) {
        self.keys.trust(proof);
    }

    /// Forwards requests that need models to workers.
    #[must_use]
    pub(crate) fn with_workers(self, config: &Config, places: Places) -> Self {
        Self { forward: Some(Forward::new(config, places)), ..self }
    }

    /// Returns a function that says whether a request that needs models would be taken now.
    pub(crate) fn has_room(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let (admission, readiness) = (Arc::clone(&self.admission), Arc::clone(&self.readiness));
        let health = self.scoring.engine().health();
        move || admission.room().is_ok() && !readiness.is_leaving() && health.borrow().is_ready()
    }

    /// Returns the audit log, to be flushed before the store is closed.
    #[must_use]
    pub fn audit_log(&self) -> AuditLog {
        self.audit.clone()
    }

    /// Returns the background work.
    #[must_use]
    pub(crate) fn runs(&self) -> &Arc<Runs> {
        &self.runs
    }

    /// Returns the readiness of this instance.
    #[must_use]
    pub fn readiness(&self) -> &Arc<Readiness> {
        &self.readiness
    }

    /// Returns the same application for analyses, which have their own database connections.
    pub(super) fn for_analyses(&self) -> Self {
        Self {
            store: self.store.for_analyses(analyses::connections(&self.analysis)),
            ..self.clone()
        }
    }

    /// Returns the digest of the pack with this name or digest; without one, of the loaded pack.
    pub(super) async fn digest_of(&self, named: Option<&str>) -> Result<String, ApiError> {
        let loaded = self.scoring.pack().id();
        let Some(named) = named else { return Ok(loaded.digest) };
        if named == loaded.digest || named == loaded.name {
            return Ok(loaded.digest);
        }
        let mut packs = self.store.packs().await?;
        // A digest identifies one pack. Among several packs of one name, any choice is a guess.
        packs.retain(|pack| *pack != loaded);
        let of_name: Vec<_> = packs.iter().filter(|pack| pack.name == named).collect();
        if let Some(pack) = packs.iter().find(|pack| pack.digest == named) {
            return Ok(pack.digest.clone());
        }
        if let [pack] = of_name[..] {
            return Ok(pack.digest.clone());
        }
        let named: String = named.chars().take(80).collect();
        let list = std::iter::once(&loaded)
            .chain(&packs)
            .map(|pack| format!("{} ({})", pack.name, pack.digest));
        let list = list.take(50).collect::<Vec<_>>().join(", ");
        let problem = match of_name.len() {
            0 => format!("unknown pack `{named}`: the known packs are {list}"),
            _ => format!(
                "several packs are named `{named}`, give a digest instead: the known packs are \
                    {list}"
            ),
        };
        Err(ApiError::new(Code::MalformedRequest, problem))
    }

    /// Like `digest_of`; `all` stands for every pack and returns `None`.
    pub(super) async fn digest_or_all(
        &self,
        named: Option<&str>,
    ) -> Result<Option<String>, ApiError> {
        if named == Some("all") { Ok(None) } else { self.digest_of(named).await.map(Some) }
    }

    /// Runs work that stores nothing; fails if it is not ready before the deadline.
    pub(super) async fn before_deadline<T>(
        &self,
        work: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        tokio::time::timeout(self.deadline, work).await.unwrap_or_else(|_| {
            Err(ApiError::new(
                Code::DeadlineExceeded,
                format!(
                    "not ready after {} s: nothing was stored, retry when the service is less busy",
                    self.deadline.as_secs()
                ),
            ))
        })
    }

    /// Returns the cached value for the current faces in these images, whose owner has this
    /// revision; otherwise runs `work` and caches its result.
    pub(super) async fn of_faces<V: Send + Sync + 'static>(
        &self,
        cache: &Cache<FacesKey, V>,
        of: ImagesOf,
        revision: u64,
        work: impl Future<Output = Result<V, ApiError>>,
    ) -> Result<Arc<V>, ApiError> {
        let Some(graphs) = self.scoring.face_graphs().filter(|_| self.face_retention_days > 0)
        else {
            // Faces are then in this process's memory only, and no revision records their changes.
            return work.await.map(Arc::new);
        };
        let faces = self.store.faces_state(of, graphs).await?;
        cache.get((of, revision, faces), work).await
    }
}
