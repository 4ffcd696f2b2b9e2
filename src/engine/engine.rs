//! All lanes of a pack, and the one question that the rest of the service asks: a feature of an input.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::error::Error;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use utoipa::ToSchema;

use super::backend::Backend;
use super::cache::{Computed, FeatureCache, FeatureKey};
use super::config::{EngineConfig, Parallelism, Provider};
use super::device::Device;
use super::error::{EngineError, StartError};
use super::health::{Health, HealthBoard};
use super::lane::{self, Lane, LaneSettings, OnComplete};
use super::pack::{GraphSpec, Pack, Precision, SourceSpec};
use super::session::{OnnxBackend, Runtime};
use super::telemetry::EngineTelemetry;
use crate::content::ContentHash;
use crate::tensor::{Features, Tensor};

#[cfg(test)]
mod tests;

/// One feature of one input, with where it came from.
#[derive(Debug, Clone)]
pub struct Feature {
    /// The graph's outputs for the input.
    pub features: Arc<Features>,
    /// Whether it was computed for this question.
    pub origin: Origin,
    /// Where the time of its computation went; all zero when it was cached.
    pub timing: Timing,
}

/// Where a feature came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// From memory.
    Cached,
    /// From a computation that another question had begun.
    Shared,
    /// From a computation that this question began.
    Computed,
}

/// Where the time of a computation went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timing {
    /// Preparing the input: resizing, tokenizing.
    pub prepare: Duration,
    /// Waiting for the graph.
    pub queue: Duration,
    /// The run of the batch the item was in.
    pub run: Duration,
    /// Items in that batch.
    pub batch: usize,
}

/// What a lane is and how it does.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LaneStatus {
    /// The roles it serves; several where entries of the pack name the same file.
    pub roles: Vec<String>,
    /// The graph's file within the pack.
    pub file: String,
    /// The arithmetic inside.
    pub precision: Precision,
    /// The checkpoint it was exported from.
    pub source: SourceSpec,
    /// What computes.
    pub provider: Provider,
    /// The largest batch it is run with.
    pub max_batch: usize,
    /// Items that wait now.
    pub queue_depth: usize,
    /// Items answered so far.
    pub items: u64,
    /// Batches run so far, warm-up excluded.
    pub batches: u64,
    /// Seconds that loading and warming up took.
    pub load_seconds: f64,
    /// By how much the process grew when the graph was loaded, in bytes, where the system tells.
    pub resident_bytes: Option<u64>,
    /// Whether it works; false after repeated failures, until it succeeds again.
    pub healthy: bool,
}

/// The graphs whose roles begin with the same word, such as `faces.pnet` and `faces.embedding`.
struct Family {
    /// The identities of its graphs.
    identity: ContentHash,
    /// Counts the hits and misses of what they say together.
    lane: Arc<Lane>,
}

/// Every graph of a pack, resident, behind one cache.
///
/// Dropping it finishes what is queued and joins all threads.
pub struct Engine {
    graphs: HashMap<String, Graph>,
    families: HashMap<String, Family>,
    lanes: Vec<Loaded>,
    cache: FeatureCache,
    health: HealthBoard,
    provider: Provider,
    parallelism: Parallelism,
    queue: usize,
}

/// Makes of a graph's outputs what is kept of them.
type Reduce = Box<dyn FnOnce(&Features) -> Features + Send>;

/// A graph as a role sees it.
struct Graph {
    spec: Arc<GraphSpec>,
    /// Weights and preprocessing: the first half of a cache key.
    identity: ContentHash,
    lane: Arc<Lane>,
}

/// A lane with what is said about it.
struct Loaded {
    lane: Arc<Lane>,
    roles: Vec<String>,
    file: String,
    precision: Precision,
    source: SourceSpec,
    provider: Provider,
    max_batch: usize,
    load_seconds: f64,
    resident_bytes: Option<u64>,
}

impl Engine {
    /// Loads every graph of `pack`, checks its signature, warms it up at a batch of one and at the
    /// largest, and starts its lane.
    ///
    /// Blocks for as long as loading takes. A graph that fails is an error that names it; graphs that
    /// the pack does not have are simply not there.
    pub fn start(
        pack: &Pack,
        config: &EngineConfig,
        telemetry: &EngineTelemetry,
    ) -> Result<Self, StartError> {
        Self::start_with(pack, config, telemetry, |_, backend| backend)
    }

    /// Does as [`start`](Self::start), with each session in what `wrap` makes of it: measurements listen there.
    pub fn start_with(
        pack: &Pack,
        config: &EngineConfig,
        telemetry: &EngineTelemetry,
        mut wrap: impl FnMut(&GraphSpec, Box<dyn Backend>) -> Box<dyn Backend>,
    ) -> Result<Self, StartError> {
        config.validate()?;
        let runtime = Runtime::load(config)?;
        Self::build(&pack.graphs, &pack.dir, runtime.provider(), config, telemetry, |spec| {
            Ok(wrap(spec, Box::new(OnnxBackend::load(&runtime, spec)?)))
        })
    }

    /// Loads every graph of `pack` by itself, one after the other, and gives it to `with` without a lane: measurements call it in a
    /// bare loop. A graph that does not load is given as its error; each is unloaded before the next one.
    pub fn load_each(
        pack: &Pack,
        config: &EngineConfig,
        mut with: impl FnMut(&GraphSpec, Result<Box<dyn Backend>, StartError>),
    ) -> Result<Parallelism, StartError> {
        config.validate()?;
        let runtime = Runtime::load(config)?;
        for entries in by_weights(&pack.graphs) {
            let merged = merge(&entries)?;
            let backend =
                OnnxBackend::load(&runtime, &merged).map(|backend| Box::new(backend) as Box<dyn Backend>);
            with(&merged, backend);
        }
        Ok(config.parallelism(runtime.provider()))
    }

    /// Starts lanes over backends of the caller's making, one for each file of `graphs`: tests run the
    /// whole way of a score on fakes with it.
    pub fn with_backends(
        graphs: &[GraphSpec],
        config: &EngineConfig,
        telemetry: &EngineTelemetry,
        make: impl FnMut(&GraphSpec) -> Box<dyn Backend>,
    ) -> Result<Self, StartError> {
        config.validate()?;
        let mut make = make;
        Self::build(graphs, Path::new(""), Provider::Cpu, config, telemetry, |spec| Ok(make(spec)))
    }

    fn build(
        graphs: &[GraphSpec],
        dir: &Path,
        provider: Provider,
        config: &EngineConfig,
        telemetry: &EngineTelemetry,
        mut make: impl FnMut(&GraphSpec) -> Result<Box<dyn Backend>, StartError>,
    ) -> Result<Self, StartError> {
        let parallelism = config.parallelism(provider);
        let device = Device::new(parallelism.concurrent_batches, telemetry.busy.clone());
        // What stays on the processor takes no turn of the card.
        let processor = match provider {
            Provider::Cpu => Arc::clone(&device),
            _ => Device::new(config.parallelism(Provider::Cpu).concurrent_batches, telemetry.busy.clone()),
        };
        let health = HealthBoard::new();
        let mut engine = Self {
            graphs: HashMap::new(),
            families: HashMap::new(),
            lanes: Vec::new(),
            cache: FeatureCache::new(config.cache_bytes, telemetry.clone()),
            health,
            provider,
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
            let backend = make(&merged)?;
            let runs_on = backend.provider();
            let device = if runs_on.is_gpu() { &device } else { &processor };
            let load_seconds = started.elapsed().as_secs_f64();
            let resident = before.zip(resident_bytes()).map(|(before, after)| after.saturating_sub(before));
            tracing::info!(graph = %merged.role, seconds = load_seconds, "graph loaded");
            let mut settings = LaneSettings::new(merged.role.as_str(), merged.max_batch, merged.sample());
            settings.capacity = config.queue;
            settings.max_delay = config.max_delay();
            let lane_telemetry = telemetry.lane(&merged.role);
            let lane = Lane::start(settings, vec![backend], device, &engine.health, lane_telemetry).map_err(
                |error| StartError::Thread { graph: merged.role.clone(), problem: error.to_string() },
            )?;
            let lane = Arc::new(lane);
            for entry in &entries {
                let graph = Graph {
                    spec: Arc::new((*entry).clone()),
                    identity: identity(entry),
                    lane: Arc::clone(&lane),
                };
                engine.graphs.insert(entry.role.clone(), graph);
            }
            engine.lanes.push(Loaded {
                lane,
                roles: entries.iter().map(|entry| entry.role.clone()).collect(),
                file: merged.file().strip_prefix(dir).unwrap_or(merged.file()).display().to_string(),
                precision: merged.precision,
                source: merged.source.clone(),
                provider: runs_on,
                max_batch: merged.max_batch,
                load_seconds,
                resident_bytes: resident,
            });
        }
        engine.families = families(&engine.graphs);
        Ok(engine)
    }

    /// The pack's entry for `role`, if it has one.
    #[must_use]
    pub fn graph(&self, role: &str) -> Option<&GraphSpec> {
        self.graphs.get(role).map(|graph| &*graph.spec)
    }

    /// What graph `role` says about the input whose content is `input`.
    ///
    /// `prepare` makes the graph's tensors from the input and runs only if the feature is neither cached
    /// nor being computed; its error comes back as [`EngineError::Prepare`]. It must depend on nothing
    /// but the input and the graph, because its result is kept under these two.
    ///
    /// Dropping the future (a deadline, a client that left) leaves other callers of the same feature
    /// undisturbed; if there are none, the work is dropped before it reaches the graph. What the graph has
    /// begun is finished and kept, so that asking again is answered from memory.
    pub async fn feature<P, F, E>(
        &self,
        role: &str,
        input: ContentHash,
        prepare: P,
    ) -> Result<Feature, EngineError>
    where
        P: FnOnce() -> F + Send + 'static,
        F: Future<Output = Result<Vec<Tensor>, E>> + Send + 'static,
        E: Error + Send + Sync + 'static,
    {
        self.keyed_feature(role, input, None, prepare, None).await
    }

    /// The same of a graph that says far more than is asked of it: `reduce` makes of its outputs what is kept, on the
    /// graph's thread. It must be the same for every question to this role.
    pub async fn reduced_feature<P, F, E>(
        &self,
        role: &str,
        input: ContentHash,
        prepare: P,
        reduce: impl FnOnce(&Features) -> Features + Send + 'static,
    ) -> Result<Feature, EngineError>
    where
        P: FnOnce() -> F + Send + 'static,
        F: Future<Output = Result<Vec<Tensor>, E>> + Send + 'static,
        E: Error + Send + Sync + 'static,
    {
        self.keyed_feature(role, input, None, prepare, Some(Box::new(reduce))).await
    }

    /// The same of a graph that takes a second input, whose content is `with`. The feature is forgotten with the first.
    pub async fn joint_feature<P, F, E>(
        &self,
        role: &str,
        input: ContentHash,
        with: ContentHash,
        prepare: P,
    ) -> Result<Feature, EngineError>
    where
        P: FnOnce() -> F + Send + 'static,
        F: Future<Output = Result<Vec<Tensor>, E>> + Send + 'static,
        E: Error + Send + Sync + 'static,
    {
        self.keyed_feature(role, input, Some(with), prepare, None).await
    }

    async fn keyed_feature<P, F, E>(
        &self,
        role: &str,
        input: ContentHash,
        with: Option<ContentHash>,
        prepare: P,
        reduce: Option<Reduce>,
    ) -> Result<Feature, EngineError>
    where
        P: FnOnce() -> F + Send + 'static,
        F: Future<Output = Result<Vec<Tensor>, E>> + Send + 'static,
        E: Error + Send + Sync + 'static,
    {
        let Some(graph) = self.graphs.get(role) else {
            return Err(EngineError::UnknownGraph { role: role.to_owned() });
        };
        let key = FeatureKey { graph: graph.identity, input, with };
        let (lane, spec) = (Arc::clone(&graph.lane), Arc::clone(&graph.spec));
        let telemetry = graph.lane.telemetry();
        self.cache
            .get(key, telemetry, move |on_complete| compute(lane, spec, prepare, reduce, on_complete))
            .await
    }

    /// What the graphs of a family say together about the input whose content is `input`, for example the
    /// faces in an image, which four graphs find.
    ///
    /// `compute` runs them (see [`run`](Self::run)) and runs only if their answer is neither cached nor being
    /// computed. It must depend on nothing but the input and these graphs. A family is named by the first word
    /// of its roles, and counted as the first of them in the alphabet.
    pub async fn family_feature<C, F>(
        &self,
        family: &str,
        input: ContentHash,
        compute: C,
    ) -> Result<Feature, EngineError>
    where
        C: FnOnce() -> F + Send + 'static,
        F: Future<Output = Result<Features, EngineError>> + Send + 'static,
    {
        let Some(Family { identity, lane }) = self.families.get(family) else {
            return Err(EngineError::UnknownGraph { role: family.to_owned() });
        };
        let name = Arc::clone(lane.name());
        let compute = move |on_complete: OnComplete| async move {
            let started = Instant::now();
            let features = Arc::new(unwound(&name, compute()).await??);
            on_complete(&features);
            let timing = Timing { run: started.elapsed(), batch: 1, ..Timing::default() };
            Ok(Computed { features, timing })
        };
        self.cache.get(FeatureKey { graph: *identity, input, with: None }, lane.telemetry(), compute).await
    }

    /// What a family says about an input, where that is in memory.
    #[must_use]
    pub fn cached_family(&self, family: &str, input: ContentHash) -> Option<Arc<Features>> {
        let graph = self.family_digest(family)?;
        self.cache.peek(&FeatureKey { graph, input, with: None })
    }

    /// What the graphs of a family are, weights and preprocessing, if the pack has any.
    #[must_use]
    pub fn family_digest(&self, family: &str) -> Option<ContentHash> {
        self.families.get(family).map(|family| family.identity)
    }

    /// Runs one item through a graph, batched with whatever else waits for it; the answer is not cached.
    pub async fn run(&self, role: &str, item: Vec<Tensor>) -> Result<Arc<Features>, EngineError> {
        let Some(graph) = self.graphs.get(role) else {
            return Err(EngineError::UnknownGraph { role: role.to_owned() });
        };
        accept(&graph.lane, &graph.spec, &item)?;
        Ok(graph.lane.run(item, Box::new(|_| ())).await?.features)
    }

    /// Forgets what every graph said about these inputs, for example because their owner had them deleted, and says how many
    /// features were in memory.
    #[expect(clippy::must_use_candidate, reason = "done for its effect")]
    pub fn forget(&self, inputs: &HashSet<ContentHash>) -> u64 {
        self.cache.forget(inputs)
    }

    /// What is resident and how it does, in the pack's order.
    #[must_use]
    pub fn status(&self) -> Vec<LaneStatus> {
        let status = |loaded: &Loaded| {
            let (items, batches) = loaded.lane.totals();
            LaneStatus {
                roles: loaded.roles.clone(),
                file: loaded.file.clone(),
                precision: loaded.precision,
                source: loaded.source.clone(),
                provider: loaded.provider,
                max_batch: loaded.max_batch,
                queue_depth: loaded.lane.depth(),
                items,
                batches,
                load_seconds: loaded.load_seconds,
                resident_bytes: loaded.resident_bytes,
                healthy: loaded.lane.is_healthy(),
            }
        };
        self.lanes.iter().map(status).collect()
    }

    /// Items that may wait for one graph.
    #[must_use]
    pub fn queue_capacity(&self) -> usize {
        self.queue
    }

    /// What computes the graphs that are not kept on the processor.
    #[must_use]
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// What computes a role's graph, if the pack has it.
    #[must_use]
    pub fn provider_of(&self, role: &str) -> Option<Provider> {
        let serves = |loaded: &&Loaded| loaded.roles.iter().any(|of| of == role);
        self.lanes.iter().find(serves).map(|loaded| loaded.provider)
    }

    /// The largest batch of the graphs that run on a card; `None` where none does.
    #[must_use]
    pub fn largest_batch_on_card(&self) -> Option<usize> {
        let on_card = self.lanes.iter().filter(|loaded| loaded.provider.is_gpu());
        on_card.map(|loaded| loaded.max_batch).max()
    }

    /// How the device's time is divided.
    #[must_use]
    pub fn parallelism(&self) -> Parallelism {
        self.parallelism
    }

    /// Memory of the cached features in bytes, and how many there are.
    #[must_use]
    pub fn cache_size(&self) -> (u64, u64) {
        self.cache.size()
    }

    /// Looks for graphs that have been running one batch for so long: they take no work until it ends, and keep no other graph
    /// waiting. To be called now and then.
    pub fn notice_hanging(&self, limit: Duration) {
        self.lanes.iter().for_each(|loaded| loaded.lane.notice_hanging(limit));
    }

    /// The engine's health, to look at or to wait on.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.watch()
    }

    /// Refuses new work, finishes what is queued and joins every thread.
    pub async fn drain(&self) {
        self.health.stopping();
        let lanes: Vec<_> = self.lanes.iter().map(|loaded| Arc::clone(&loaded.lane)).collect();
        for lane in &lanes {
            lane.stop();
        }
        let joined = tokio::task::spawn_blocking(move || lanes.iter().for_each(|lane| lane.join())).await;
        if let Err(error) = joined {
            tracing::error!(%error, "the engine's threads could not be joined");
        }
    }
}

async fn compute<P, F, E>(
    lane: Arc<Lane>,
    spec: Arc<GraphSpec>,
    prepare: P,
    reduce: Option<Reduce>,
    on_complete: OnComplete,
) -> Result<Computed, EngineError>
where
    P: FnOnce() -> F,
    F: Future<Output = Result<Vec<Tensor>, E>>,
    E: Error + Send + Sync + 'static,
{
    lane.admit()?;
    let started = Instant::now();
    let item = unwound(lane.name(), async { prepare().await })
        .await?
        .map_err(|error| EngineError::Prepare(Arc::new(error)))?;
    let prepare = started.elapsed();
    lane.telemetry().prepare.observe(prepare.as_secs_f64());
    accept(&lane, &spec, &item)?;
    // What is kept is made where the graph ran, so that it is there for the next question also if nobody waits now.
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

/// A future's result, or its panic as an error: several callers wait on one computation, and a panic would
/// poison it for them all.
async fn unwound<T>(graph: &Arc<str>, work: impl Future<Output = T>) -> Result<T, EngineError> {
    AssertUnwindSafe(work)
        .catch_unwind()
        .await
        .map_err(|panic| EngineError::Panicked { graph: Arc::clone(graph), message: lane::message(&*panic) })
}

/// Refuses an item that is not what the graph takes.
fn accept(lane: &Lane, spec: &GraphSpec, item: &[Tensor]) -> Result<(), EngineError> {
    spec.refuse(item).map_or(Ok(()), |(expected, found)| {
        Err(EngineError::Input { graph: Arc::clone(lane.name()), expected, found })
    })
}

/// Groups graphs by the first word of their roles.
fn families(graphs: &HashMap<String, Graph>) -> HashMap<String, Family> {
    let mut members: BTreeMap<&str, BTreeMap<&str, &Graph>> = BTreeMap::new();
    for (role, graph) in graphs {
        let family = role.split_once('.').map_or(role.as_str(), |(family, _)| family);
        members.entry(family).or_default().insert(role, graph);
    }
    let family = |(name, graphs): (&str, BTreeMap<&str, &Graph>)| {
        let (_, first) = graphs.first_key_value()?;
        let lane = Arc::clone(&first.lane);
        let parts = graphs.iter().flat_map(|(role, graph)| [role.as_bytes(), graph.identity.as_bytes()]);
        let parts = std::iter::once(b"family".as_slice()).chain(parts);
        Some((name.to_owned(), Family { identity: ContentHash::of_parts(parts), lane }))
    };
    members.into_iter().filter_map(family).collect()
}

/// Entries that name the same files share a lane; the pack's order is kept.
fn by_weights(graphs: &[GraphSpec]) -> Vec<Vec<&GraphSpec>> {
    let mut groups: Vec<Vec<&GraphSpec>> = Vec::new();
    for graph in graphs {
        match groups.iter_mut().find(|group| group[0].weights_id() == graph.weights_id()) {
            Some(group) => group.push(graph),
            None => groups.push(vec![graph]),
        }
    }
    groups
}

/// One entry that serves all of `entries`: their outputs together, the smallest of their batches.
fn merge(entries: &[&GraphSpec]) -> Result<GraphSpec, StartError> {
    let mut merged = entries[0].clone();
    for entry in &entries[1..] {
        merged.role = format!("{}+{}", merged.role, entry.role);
        merged.max_batch = merged.max_batch.min(entry.max_batch);
        if entry.inputs != merged.inputs {
            return Err(StartError::Signature {
                graph: merged.role.clone(),
                file: merged.file().to_owned(),
                expected: format!("{} and {} for the same file", merged.signature(), entry.signature()),
                found: "one signature".into(),
            });
        }
        for output in &entry.outputs {
            if !merged.outputs.iter().any(|have| have.name == output.name) {
                merged.outputs.push(output.clone());
            }
        }
    }
    Ok(merged)
}

/// Weights and preprocessing by content.
///
/// The same weights under another crop or another tokenizer give other features for the same image or
/// text, so what happens before the graph is part of what the graph is.
fn identity(spec: &GraphSpec) -> ContentHash {
    let before = format!("{:?} {:?} {:?}", spec.geometry, spec.text, spec.labels);
    ContentHash::of_parts([spec.weights_id().as_bytes().as_slice(), before.as_bytes()])
}

/// Resident memory of this process, where Linux tells it.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
