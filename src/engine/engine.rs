//! All lanes of a pack behind one cache: returns features of inputs to the rest of the service.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use tokio::sync::watch;

use super::backend::Backend;
use super::cache::{Computed, FeatureCache, FeatureKey};
use super::config::{Batching, EngineConfig, Parallelism, Provider};
use super::device::Device;
use super::error::{EngineError, StartError};
use super::feature::{Feature, FeatureRequest, Prepare, Reduce, Timing};
use super::graphs::{Family, Graph, by_weights, families, identity, merge};
use super::health::{Health, HealthBoard, Residency};
use super::lane::{self, Lane, LaneSettings, OnComplete, Reopen};
use super::pack::{GraphSpec, Pack};
use super::residency::{InUse, Moved, Residence};
use super::session::{OnnxBackend, Runtime};
use super::status::{LaneStatus, Loaded};
use super::telemetry::EngineTelemetry;
use crate::content::ContentHash;
use crate::machine::resident_bytes;
use crate::tensor::{Features, Tensor};

#[cfg(test)]
mod tests;

/// Interval of the check for hanging batches.
const HANGING_EVERY: Duration = Duration::from_millis(500);

/// All graphs of a pack, resident, behind one cache.
///
/// Dropping it finishes queued items and joins all threads.
pub struct Engine {
    graphs: HashMap<String, Graph>,
    families: HashMap<String, Family>,
    lanes: Vec<Loaded>,
    cache: FeatureCache,
    health: HealthBoard,
    pub(super) residence: Arc<Residence>,
    provider: Provider,
    batching: Batching,
    parallelism: Parallelism,
    queue: usize,
}

impl Engine {
    /// Loads every graph of `pack`, checks its signature, warms it up, and starts its lane.
    ///
    /// The warm-up runs a batch of one and the largest batch, and with padding all sizes between.
    /// Blocks until all graphs are loaded. The first graph that fails is the error.
    pub fn start(
        pack: &Pack,
        config: &EngineConfig,
        telemetry: &EngineTelemetry,
    ) -> Result<Self, StartError> {
        Self::start_with(pack, config, telemetry, |_, backend| backend)
    }

    /// Like [`start`](Self::start), but wraps each session with `wrap`, for measurements.
    pub fn start_with(
        pack: &Pack,
        config: &EngineConfig,
        telemetry: &EngineTelemetry,
        mut wrap: impl FnMut(&GraphSpec, Box<dyn Backend>) -> Box<dyn Backend>,
    ) -> Result<Self, StartError> {
        config.validate()?;
        let runtime = Runtime::load(config)?;
        let provider = runtime.provider();
        Self::build(&pack.graphs, &pack.dir, provider, config, telemetry, |spec| {
            let backend = wrap(spec, Box::new(OnnxBackend::load(&runtime, spec)?));
            let (runtime, spec) = (runtime.clone(), spec.clone());
            let reopen: Reopen = Arc::new(move || match OnnxBackend::load(&runtime, &spec) {
                Ok(backend) => Ok(Box::new(backend)),
                Err(error) => Err(error.to_string()),
            });
            Ok((backend, Some(reopen)))
        })
    }

    /// Loads the graphs of `pack` one at a time and passes each to `with`, without a lane, so that
    /// benchmarks can run it in a bare loop.
    ///
    /// A graph that fails to load is passed as its error. Each graph is unloaded before the next.
    pub fn load_each(
        pack: &Pack,
        config: &EngineConfig,
        mut with: impl FnMut(&GraphSpec, Result<Box<dyn Backend>, StartError>),
    ) -> Result<Parallelism, StartError> {
        config.validate()?;
        let runtime = Runtime::load(config)?;
        for entries in by_weights(&pack.graphs) {
            let merged = merge(&entries)?;
            let backend = OnnxBackend::load(&runtime, &merged)
                .map(|backend| Box::new(backend) as Box<dyn Backend>);
            with(&merged, backend);
        }
        Ok(config.parallelism(runtime.provider()))
    }

    /// Starts lanes with the caller's backends, one for each file of `graphs`.
    ///
    /// Tests use it to score end to end on fakes.
    pub fn with_backends(
        graphs: &[GraphSpec],
        config: &EngineConfig,
        telemetry: &EngineTelemetry,
        make: impl FnMut(&GraphSpec) -> Box<dyn Backend>,
    ) -> Result<Self, StartError> {
        config.validate()?;
        let mut make = make;
        Self::build(graphs, Path::new(""), Provider::Cpu, config, telemetry, |spec| {
            Ok((make(spec), None))
        })
    }

    pub(super) fn build(
        graphs: &[GraphSpec],
        dir: &Path,
        provider: Provider,
        config: &EngineConfig,
        telemetry: &EngineTelemetry,
        mut make: impl FnMut(&GraphSpec) -> Result<(Box<dyn Backend>, Option<Reopen>), StartError>,
    ) -> Result<Self, StartError> {
        let parallelism = config.parallelism(provider);
        let device = Device::new(parallelism.concurrent_batches, telemetry.busy.clone());
        // Graphs that run on the CPU do not take turns on the GPU.
        let processor = match provider {
            Provider::Cpu => Arc::clone(&device),
            _ => Device::new(
                config.parallelism(Provider::Cpu).concurrent_batches,
                telemetry.busy.clone(),
            ),
        };
        telemetry.cache_limit_bytes.set(config.cache_bytes as i64);
        let health = HealthBoard::new();
        let mut engine = Self {
            graphs: HashMap::new(),
            families: HashMap::new(),
            lanes: Vec::new(),
            cache: FeatureCache::new(config.cache_bytes, telemetry.clone()),
            residence: Residence::new(health.clone(), telemetry.offloaded.clone()),
            health,
            provider,
            batching: config.batching,
            parallelism,
            queue: config.queue,
        };
        for entries in by_weights(graphs) {
            let mut merged = merge(&entries)?;
            if config.max_batch > 0 {
                merged.max_batch = merged.max_batch.min(config.max_batch);
            }
            let before = resident_bytes();
            let started = Instant::now();
            let (backend, reopen) = make(&merged)?;
            let runs_on = backend.provider();
            let device = if runs_on.is_gpu() { &device } else { &processor };
            let load_seconds = started.elapsed().as_secs_f64();
            let resident =
                before.zip(resident_bytes()).map(|(before, after)| after.saturating_sub(before));
            tracing::info!(graph = %merged.role, seconds = load_seconds, "loaded graph");
            let mut settings =
                LaneSettings::new(merged.role.as_str(), merged.max_batch, merged.sample());
            settings.capacity = config.queue;
            settings.max_delay = config.max_delay();
            settings.reopen = reopen;
            let lane_telemetry = telemetry.lane(&merged.role);
            let lane = Lane::start(settings, vec![backend], device, &engine.health, lane_telemetry)
                .map_err(|error| StartError::Thread {
                    graph: merged.role.clone(),
                    problem: error.to_string(),
                })?;
            let lane = Arc::new(lane);
            for entry in &entries {
                let graph = Graph {
                    spec: Arc::new((*entry).clone()),
                    identity: identity(entry),
                    lane: Arc::clone(&lane),
                };
                engine.graphs.insert(entry.role.clone(), graph);
            }
            let initial = LaneStatus {
                roles: entries.iter().map(|entry| entry.role.clone()).collect(),
                file: merged
                    .file()
                    .strip_prefix(dir)
                    .unwrap_or(merged.file())
                    .display()
                    .to_string(),
                precision: merged.precision,
                source: merged.source.clone(),
                provider: runs_on,
                max_batch: merged.max_batch,
                queue_depth: 0,
                items: 0,
                batches: 0,
                load_seconds,
                resident_bytes: resident,
                healthy: true,
            };
            let labels = [&*merged.role, runs_on.name(), &merged.precision.to_string()];
            telemetry.loaded(labels, resident, config.queue);
            engine.lanes.push(Loaded { lane, initial });
        }
        engine.families = families(&engine.graphs);
        Ok(engine)
    }

    /// Returns the pack's entry for `role`, if it has one.
    #[must_use]
    pub fn graph(&self, role: &str) -> Option<&GraphSpec> {
        self.graphs.get(role).map(|graph| &*graph.spec)
    }

    fn of_role(&self, role: &str) -> Result<&Graph, EngineError> {
        self.graphs.get(role).ok_or_else(|| EngineError::UnknownGraph { role: role.to_owned() })
    }

    /// Returns the feature that is requested: cached, from an in-flight computation, or computed.
    ///
    /// Dropping the future (at a deadline, or if the client disconnects) does not affect other
    /// callers of the same feature. If there are none, the item is removed from the queue. A batch
    /// that has started is finished and cached, so that a retry is a hit.
    pub async fn feature(&self, request: FeatureRequest<'_>) -> Result<Feature, EngineError> {
        let FeatureRequest { role, input, with, prepare, reduce } = request;
        let graph = self.of_role(role)?;
        let key = FeatureKey { graph: graph.identity, input, with };
        let (lane, spec) = (Arc::clone(&graph.lane), Arc::clone(&graph.spec));
        let compute = move |on_complete| compute(lane, spec, prepare, reduce, on_complete);
        self.cache.get(key, graph.lane.telemetry(), compute).await
    }

    /// Returns the joint feature of a family of graphs for the input with the content hash `input`,
    /// for example the faces in an image, which takes four graphs.
    ///
    /// `work` calls the graphs, see [`run`](Self::run). It runs only if the feature is neither
    /// cached nor in flight. It must depend only on the input and these graphs. A family is named
    /// by the first word of its roles. Hits and misses are counted for its first role in
    /// alphabetical order.
    pub async fn family_feature(
        &self,
        family: &str,
        input: ContentHash,
        work: impl Future<Output = Result<Features, EngineError>> + Send + 'static,
    ) -> Result<Feature, EngineError> {
        let Some(Family { identity, lane }) = self.families.get(family) else {
            return Err(EngineError::UnknownGraph { role: family.to_owned() });
        };
        let name = Arc::clone(lane.name());
        let compute = move |on_complete: OnComplete| async move {
            let started = Instant::now();
            let features = Arc::new(unwound(&name, work).await??);
            on_complete(&features);
            let timing = Timing { run: started.elapsed(), batch: 1, ..Timing::default() };
            Ok(Computed { features, timing })
        };
        self.cache
            .get(FeatureKey { graph: *identity, input, with: None }, lane.telemetry(), compute)
            .await
    }

    /// Returns a family's feature of an input if it is cached.
    #[must_use]
    pub fn cached_family(&self, family: &str, input: ContentHash) -> Option<Arc<Features>> {
        let graph = self.family_digest(family)?;
        self.cache.peek(&FeatureKey { graph, input, with: None })
    }

    /// Returns the hash of a family's weights and preprocessing, if the pack has such graphs.
    #[must_use]
    pub fn family_digest(&self, family: &str) -> Option<ContentHash> {
        self.families.get(family).map(|family| family.identity)
    }

    /// Runs one item through a graph, batched with other queued items. The result is not cached.
    pub async fn run(&self, role: &str, item: Vec<Tensor>) -> Result<Arc<Features>, EngineError> {
        let graph = self.of_role(role)?;
        accept(&graph.lane, &graph.spec, &item)?;
        Ok(graph.lane.run(item, Box::new(|_| ())).await?.features)
    }

    /// Evicts the features of these inputs for all graphs, for example after an erasure request.
    ///
    /// Returns the number of features that were cached.
    #[expect(clippy::must_use_candidate, reason = "called for its effect")]
    pub fn forget(&self, inputs: &HashSet<ContentHash>) -> u64 {
        self.cache.forget(inputs)
    }

    /// Evicts all features.
    pub fn forget_all(&self) {
        self.cache.forget_all();
    }

    /// Returns the status of all lanes, in the pack's order.
    #[must_use]
    pub fn status(&self) -> Vec<LaneStatus> {
        self.lanes.iter().map(Loaded::status).collect()
    }

    /// Returns the queue length of each graph, in items.
    #[must_use]
    pub fn queue_capacity(&self) -> usize {
        self.queue
    }

    /// Returns the provider of the graphs that are not configured to run on the CPU.
    #[must_use]
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// Returns the provider of a role's graph, if the pack has it.
    #[must_use]
    pub fn provider_of(&self, role: &str) -> Option<Provider> {
        let serves = |loaded: &&Loaded| loaded.initial.roles.iter().any(|of| of == role);
        self.lanes.iter().find(serves).map(|loaded| loaded.initial.provider)
    }

    /// Returns the largest batch of all graphs that run on a GPU; `None` if there are none.
    #[must_use]
    pub fn largest_gpu_batch(&self) -> Option<usize> {
        let on_gpu = self.lanes.iter().filter(|loaded| loaded.initial.provider.is_gpu());
        on_gpu.map(|loaded| loaded.initial.max_batch).max()
    }

    /// Returns the concurrent batches of the device and the threads of each.
    #[must_use]
    pub fn parallelism(&self) -> Parallelism {
        self.parallelism
    }

    /// Returns how many rows the runs of graphs have.
    #[must_use]
    pub fn batching(&self) -> Batching {
        self.batching
    }

    /// Begins work that needs several features, or refuses it while the graphs are not loaded. An
    /// offload waits for its end.
    pub fn enter(&self) -> Result<InUse, EngineError> {
        self.residence.enter()
    }

    /// Returns whether the graphs are loaded.
    #[must_use]
    pub fn residency(&self) -> Residency {
        self.residence.now()
    }

    /// Frees the sessions of all graphs, with their memory on the device and in the process. Work
    /// that has begun is finished first, for a minute at most; cached features stay.
    ///
    /// Complete the future: if it is dropped, the next call continues where it was.
    pub async fn offload(&self) -> Result<Moved, EngineError> {
        self.residence.offload(self.all_lanes()).await
    }

    /// Loads all graphs again and warms them up.
    ///
    /// Complete the future: if it is dropped, the next call continues where it was.
    pub async fn reload(&self) -> Result<Moved, EngineError> {
        self.residence.reload(self.all_lanes()).await
    }

    fn all_lanes(&self) -> Vec<Arc<Lane>> {
        self.lanes.iter().map(|loaded| Arc::clone(&loaded.lane)).collect()
    }

    /// Returns the size of the cached features in bytes, and their number.
    #[must_use]
    pub fn cache_size(&self) -> (u64, u64) {
        self.cache.size()
    }

    /// Marks batches that have been running for `limit` or longer as hanging; to be called
    /// periodically.
    ///
    /// The device slot of a hanging batch is released, so that other graphs can run. Its graph
    /// refuses work until the batch ends.
    pub fn notice_hanging(&self, limit: Duration) {
        self.lanes.iter().for_each(|loaded| loaded.lane.notice_hanging(limit));
    }

    /// Calls [`notice_hanging`](Self::notice_hanging) every half second, until the future is
    /// dropped.
    pub async fn watch_hanging(&self, limit: Duration) {
        let mut ticks = tokio::time::interval(HANGING_EVERY);
        loop {
            ticks.tick().await;
            self.notice_hanging(limit);
        }
    }

    /// Returns the engine's health, to read or to watch.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.watch()
    }

    /// Refuses new work, finishes queued items and joins all threads.
    pub async fn drain(&self) {
        self.health.stopping();
        let lanes = self.all_lanes();
        for lane in &lanes {
            lane.stop();
        }
        let joined =
            tokio::task::spawn_blocking(move || lanes.iter().for_each(|lane| lane.join())).await;
        if let Err(error) = joined {
            tracing::error!(%error, "failed to join the engine's threads");
        }
    }
}

async fn compute(
    lane: Arc<Lane>,
    spec: Arc<GraphSpec>,
    prepare: Prepare,
    reduce: Option<Reduce>,
    on_complete: OnComplete,
) -> Result<Computed, EngineError> {
    lane.admit()?;
    let started = Instant::now();
    let item = unwound(lane.name(), prepare).await??;
    let prepare = started.elapsed();
    lane.telemetry().prepare.observe(prepare.as_secs_f64());
    accept(&lane, &spec, &item)?;
    // Reduced on the graph's thread, so that the feature is cached even if all callers have left.
    let reduced = Arc::new(OnceLock::new());
    let on_complete: OnComplete = match reduce {
        None => on_complete,
        Some(reduce) => {
            let reduced = Arc::clone(&reduced);
            Box::new(move |outputs| on_complete(reduced.get_or_init(|| Arc::new(reduce(outputs)))))
        }
    };
    let answer = lane.run(item, on_complete).await?;
    let timing = Timing { prepare, queue: answer.queue, run: answer.run, batch: answer.batch };
    let features = reduced.get().cloned().unwrap_or(answer.features);
    Ok(Computed { features, timing })
}

/// Converts a panic of the future into an error.
///
/// Several callers share one computation, and a panic would poison it for all of them.
async fn unwound<T>(graph: &Arc<str>, work: impl Future<Output = T>) -> Result<T, EngineError> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| EngineError::Panicked {
        graph: Arc::clone(graph),
        message: lane::message(&*panic),
    })
}

/// Checks that an item fits the graph's signature.
fn accept(lane: &Lane, spec: &GraphSpec, item: &[Tensor]) -> Result<(), EngineError> {
    spec.refuse(item).map_or(Ok(()), |(expected, found)| {
        Err(EngineError::Input { graph: Arc::clone(lane.name()), expected, found })
    })
}
