//! Overhead of the engine: images per second through [`Engine::feature`] and through the whole
//! service over HTTP, compared with the same session in a bare loop; and the best division of the
//! device's time.
//!
//! ```sh
//! BENCH_PACK=packs/mid cargo bench --bench engine                  # both parts
//! BENCH_PACK=packs/mid cargo bench --bench engine -- division      # the second only
//! ```
//!
//! It measures the pack's `clip.image`. The default is the demo pack, whose graphs are so small
//! that the engine's own work is visible. Every number is the median of rounds in which all
//! candidates take turns, so that a busy neighbour on the machine slows all of them equally. A
//! ratio is the median of the rounds' ratios. CPU time is printed too, since a neighbour hardly
//! changes it. The cache is off.
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

mod http;

use std::convert::Infallible;
use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::value::TensorRef;
use stellar_score::content::ContentHash;
use stellar_score::engine::pack::{Dim, Sha};
use stellar_score::engine::{
    Engine, EngineConfig, EngineTelemetry, FeatureRequest, GraphSpec, Pack,
};
use stellar_score::tensor::Tensor;

/// Duration of one measurement: long enough for dozens of batches of a large graph on two cores.
const ROUND: Duration = Duration::from_secs(2);

/// Number of rounds; the median counts.
const ROUNDS: usize = 9;

/// Callers for each lane: twice the batch, so that the next batch is always ready.
const CALLERS_A_BATCH: usize = 2;

const MAX_BATCH: usize = 8;

fn main() -> anyhow::Result<()> {
    // `cargo test --benches` only checks that it starts.
    if !env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("packs/demo");
    let dir = env::var_os("BENCH_PACK").map_or(default, PathBuf::from);
    let pack = Pack::open(&dir)?;
    let graph = pack.graph("clip.image").context("the pack has no clip.image")?;
    let cores = std::thread::available_parallelism()?.get();
    println!(
        "pack {} · {} · batch {MAX_BATCH} · {cores} cores",
        pack.name, graph.source.checkpoint
    );

    let filter = env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let wanted = |name: &str| filter.as_deref().is_none_or(|filter| name.contains(filter));
    if wanted("overhead") {
        overhead(&pack, graph, cores)?;
    }
    if wanted("division") {
        division(&pack, graph, cores)?;
    }
    Ok(())
}

/// Measures one session with the same options: bare, behind queue, batching and cache, and behind
/// the service.
fn overhead(pack: &Pack, graph: &GraphSpec, cores: usize) -> anyhow::Result<()> {
    let served = Served::start(pack, graph, 1, 1, cores)?;
    let mut bare = Bare::load(graph, cores)?;
    let http = http::OverHttp::start(pack, cores)?;
    http.images().context("before the first round")?;
    let (mut in_loop, mut through, mut over_http) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        in_loop.push(Round::measure(|| bare.images())?);
        through.push(Round::measure(|| served.images())?);
        over_http.push(Round::measure(|| http.images())?);
    }
    let ratio = |rounds: &[Round], of: fn(&Round) -> f64| {
        100.0 * median(rounds.iter().zip(&in_loop).map(|(one, bare)| of(one) / of(bare)).collect())
    };
    println!(
        "\n{:<20} {:>9} {:>12} {:>26} {:>12}",
        "", "images/s", "of the loop", "CPU ms per image", "of the loop"
    );
    for (name, rounds) in [
        ("bare session loop", &in_loop),
        ("Engine::feature", &through),
        ("POST /v1/score", &over_http),
    ] {
        let speed = median(rounds.iter().map(Round::images_a_second).collect());
        let cost = median(rounds.iter().map(Round::cpu_ms_per_image).collect());
        println!(
            "{name:<20} {speed:>9.1} {:>10.1} % {cost:>26.2} {:>10.1} %",
            ratio(rounds, Round::images_a_second),
            ratio(rounds, Round::cpu_ms_per_image)
        );
    }
    Ok(())
}

/// Measures concurrent batches × threads per batch, with one busy graph and with four.
fn division(pack: &Pack, graph: &GraphSpec, cores: usize) -> anyhow::Result<()> {
    let candidates = [(1, cores), (cores, 1), (cores, cores)];
    println!("\nconcurrent batches × threads   one hot graph   four hot graphs   (images/s)");
    let mut columns = Vec::new();
    for hot in [1, 4] {
        let engines = candidates
            .iter()
            .map(|&(at_once, threads)| Served::start(pack, graph, hot, at_once, threads))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let mut rounds = vec![Vec::new(); engines.len()];
        for _ in 0..ROUNDS {
            for (round, engine) in rounds.iter_mut().zip(&engines) {
                round.push(Round::measure(|| engine.images())?.images_a_second());
            }
        }
        columns.push(rounds.into_iter().map(median).collect::<Vec<_>>());
    }
    for (at, (at_once, threads)) in candidates.iter().enumerate() {
        println!("{at_once:>18} × {threads:<9} {:>13.1} {:>17.1}", columns[0][at], columns[1][at]);
    }
    Ok(())
}

/// Images, time and CPU time of one round.
struct Round {
    images: u64,
    wall: Duration,
    cpu: Duration,
}

impl Round {
    fn measure(run: impl FnOnce() -> anyhow::Result<u64>) -> anyhow::Result<Self> {
        let before = (Instant::now(), cpu_time()?);
        let images = run()?;
        Ok(Self { images, wall: before.0.elapsed(), cpu: cpu_time()?.saturating_sub(before.1) })
    }

    fn images_a_second(&self) -> f64 {
        self.images as f64 / self.wall.as_secs_f64()
    }

    fn cpu_ms_per_image(&self) -> f64 {
        1000.0 * self.cpu.as_secs_f64() / self.images as f64
    }
}

/// CPU time of this process, as Linux reports it.
fn cpu_time() -> anyhow::Result<Duration> {
    let schedule =
        std::fs::read_dir("/proc/self/task").context("CPU time is read from Linux's /proc")?;
    let mut total = 0;
    for thread in schedule {
        // The first number is nanoseconds on a core. The file of a thread that has just ended is
        // gone.
        let line = std::fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        total += line.split(' ').next().and_then(|time| time.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(total))
}

/// An engine with copies of one graph, each with its own lane.
struct Served {
    engine: Arc<Engine>,
    roles: Vec<String>,
    item: Vec<Tensor>,
    runtime: tokio::runtime::Runtime,
    asked: Arc<AtomicU64>,
}

impl Served {
    fn start(
        pack: &Pack,
        graph: &GraphSpec,
        hot: usize,
        concurrent_batches: usize,
        threads: usize,
    ) -> anyhow::Result<Self> {
        let mut pack = pack.clone();
        pack.graphs = (0..hot).map(|number| copy(graph, number)).collect();
        let config = EngineConfig {
            concurrent_batches,
            threads,
            max_batch: MAX_BATCH,
            cache_bytes: 0,
            ..EngineConfig::default()
        };
        let telemetry = EngineTelemetry::register(&prometheus::Registry::new())?;
        let engine = Arc::new(Engine::start(&pack, &config, &telemetry)?);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let roles = pack.graphs.iter().map(|graph| graph.role.clone()).collect();
        Ok(Self { engine, roles, item: noise(graph), runtime, asked: Arc::default() })
    }

    fn images(&self) -> anyhow::Result<u64> {
        let done = |engine: &Engine| engine.status().iter().map(|lane| lane.items).sum::<u64>();
        let until = Instant::now() + ROUND;
        let before = done(&self.engine);
        self.runtime.block_on(async {
            let mut callers = tokio::task::JoinSet::new();
            for role in &self.roles {
                for _ in 0..CALLERS_A_BATCH * MAX_BATCH {
                    let (engine, role, item) =
                        (Arc::clone(&self.engine), role.clone(), self.item.clone());
                    let asked = Arc::clone(&self.asked);
                    callers.spawn(async move {
                        while Instant::now() < until {
                            let number = asked.fetch_add(1, Ordering::Relaxed);
                            let input = ContentHash::of(&number.to_le_bytes());
                            let item = item.clone();
                            let prepare = async move { Ok::<_, Infallible>(item) };
                            engine.feature(FeatureRequest::new(&role, input, prepare)).await?;
                        }
                        Ok::<_, anyhow::Error>(())
                    });
                }
            }
            while let Some(caller) = callers.join_next().await {
                caller??;
            }
            Ok::<_, anyhow::Error>(())
        })?;
        Ok(done(&self.engine) - before)
    }
}

/// A session as a program without an engine would use it.
struct Bare {
    session: Session,
    input: String,
    shape: Vec<i64>,
    pixels: Vec<u8>,
}

impl Bare {
    /// Uses the library and environment that the engine has loaded.
    fn load(graph: &GraphSpec, threads: usize) -> anyhow::Result<Self> {
        let environment =
            stellar_score::engine::onnx_environment().context("load an engine first")?;
        let session = builder(&environment, threads)?.commit_from_file(graph.file())?;
        let one: Vec<i64> = noise(graph)[0].shape().iter().map(|&length| length as i64).collect();
        let Tensor::U8 { data, .. } = &noise(graph)[0] else {
            anyhow::bail!("clip.image takes bytes")
        };
        let shape = std::iter::once(MAX_BATCH as i64).chain(one).collect();
        Ok(Self {
            session,
            input: graph.inputs[0].name.clone(),
            shape,
            pixels: data.repeat(MAX_BATCH),
        })
    }

    fn images(&mut self) -> anyhow::Result<u64> {
        let started = Instant::now();
        let mut images = 0;
        while started.elapsed() < ROUND {
            let view = TensorRef::from_array_view((self.shape.clone(), self.pixels.as_slice()))?;
            let outputs = self.session.run(ort::inputs![self.input.as_str() => view])?;
            let (shape, values) = outputs["embedding"].try_extract_tensor::<f32>()?;
            anyhow::ensure!(shape[0] == MAX_BATCH as i64 && values[0].is_finite());
            images += MAX_BATCH as u64;
        }
        Ok(images)
    }
}

fn builder(environment: &Environment, threads: usize) -> ort::Result<SessionBuilder> {
    Ok(Session::builder(environment)?
        .with_intra_threads(threads)?
        .with_inter_threads(1)?
        .with_intra_op_spinning(false)?
        .with_memory_pattern(false)?
        .with_deterministic_compute(true)?)
}

/// The same files under another role and digest, so that they get their own lane.
fn copy(graph: &GraphSpec, number: usize) -> GraphSpec {
    let mut copy = graph.clone();
    copy.role = format!("{}.{number}", graph.role);
    copy.files[0].sha256 = Sha::of(copy.role.as_bytes());
    copy
}

fn noise(graph: &GraphSpec) -> Vec<Tensor> {
    let length = |dim: &Dim| match dim {
        Dim::Fixed(length) => *length,
        Dim::Dynamic => 1,
    };
    let shape: Vec<usize> = graph.inputs[0].shape.iter().map(length).collect();
    let count = shape.iter().product::<usize>();
    let data = (0..count).map(|at| (at.wrapping_mul(2_654_435_761) >> 7) as u8).collect();
    vec![Tensor::U8 { shape, data }]
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
