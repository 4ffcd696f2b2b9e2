//! Efficiency of the service relative to a bare loop over the same sessions.
//!
//! Each round has two parts. First, the service scores samples over HTTP for some time. Then, the
//! same sessions run the same number of items of the same inputs, in a loop and in full batches.
//! The efficiency is the loop's time divided by the service's: 1 if decoding, resizing, tokenising,
//! hashing, queueing, HTTP and the database cost nothing, because they overlap with running graphs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::graphs::median;
use super::local::LocalService;
use super::service::{LoadOptions, LoadResult, LoadSample, load};
use crate::blocking::blocking;
use crate::client::Client;
use crate::config::Config;
use crate::engine::{Backend, BackendError, Engine, Pack, Provider};
use crate::sync::lock;
use crate::telemetry::Telemetry;
use crate::tensor::{Features, Tensor};

/// Number of inputs of a graph stored for the loop: enough for several full batches of every text
/// length.
const KEPT_ITEMS: usize = 256;

/// One round of service and loop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EfficiencyRound {
    /// Result of the service.
    pub served: LoadResult,
    /// Seconds that the loop took for the same number of items.
    pub bare_seconds: f64,
    /// `bare_seconds` divided by the service's seconds.
    pub efficiency: f64,
}

/// Result of all rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EfficiencyResult {
    /// The execution provider.
    pub provider: Provider,
    /// Number of concurrent batches, for both.
    pub concurrent_batches: usize,
    /// Threads per batch, for both.
    pub threads: usize,
    /// Number of concurrent clients, and the maximum batch size of the loop.
    pub clients: usize,
    /// Rounds in order.
    pub rounds: Vec<EfficiencyRound>,
    /// Median efficiency of the rounds.
    pub efficiency: f64,
}

/// Measures `rounds` rounds after one warm-up round, and calls `done` after each.
///
/// The service and its clients share this process, so its CPU time includes both. Batches of the
/// loop have as many items as there are clients, at most the graph's largest batch. With one
/// client, the efficiency therefore compares the latency of a single request with the time of its
/// graphs alone.
///
/// # Errors
/// The pack does not load, there are no samples, or the service does not respond.
pub async fn efficiency(
    pack: &Pack,
    config: &Config,
    samples: Vec<LoadSample>,
    options: &LoadOptions,
    rounds: usize,
    mut done: impl FnMut(&EfficiencyRound),
) -> anyhow::Result<EfficiencyResult> {
    let telemetry = Telemetry::new();
    let mut sessions = Vec::new();
    let engine = {
        let (pack, config, numbers) =
            (pack.clone(), config.engine.clone(), telemetry.engine.clone());
        blocking(move || {
            let engine = Engine::start_with(&pack, &config, &numbers, |graph, backend| {
                let session = Session::new(graph.role.clone(), graph.max_batch, backend);
                sessions.push(session.clone());
                Box::new(session)
            })?;
            anyhow::Ok((engine, sessions))
        })
        .await?
    };
    let (engine, sessions) = engine;
    let (provider, parallelism) = (engine.provider(), engine.parallelism());
    // The engine's warm-up left inputs that are all ones.
    sessions.iter().for_each(Session::forget);
    let service = LocalService::start(config, pack.clone(), engine, telemetry).await?;
    let client = Client::new(&format!("http://{}", service.address()), std::time::Duration::ZERO)?;

    let mut found = Vec::new();
    for round in 0..=rounds {
        let seed = options.seed.wrapping_add((round as u64) << 32);
        let served =
            load(&client, samples.clone(), &LoadOptions { seed, ..options.clone() }).await?;
        anyhow::ensure!(served.scored > 0, "the service scored nothing: {served:?}");
        let (sessions, load, clients) = (sessions.clone(), served.clone(), options.clients);
        let bare_seconds =
            blocking(move || bare(&sessions, &load, clients, parallelism.concurrent_batches))
                .await?;
        if round > 0 {
            let round =
                EfficiencyRound { efficiency: bare_seconds / served.seconds, served, bare_seconds };
            done(&round);
            found.push(round);
        }
    }
    let efficiency = median(&mut found.iter().map(|round| round.efficiency).collect::<Vec<_>>());
    Ok(EfficiencyResult {
        provider,
        concurrent_batches: parallelism.concurrent_batches,
        threads: parallelism.threads,
        clients: options.clients,
        rounds: found,
        efficiency,
    })
}

/// A session shared by a lane and the loop. It stores some of its inputs.
#[derive(Clone)]
struct Session {
    graph: String,
    max_batch: usize,
    backend: Arc<Mutex<Box<dyn Backend>>>,
    items: Arc<Mutex<Vec<Vec<Tensor>>>>,
}

impl Session {
    fn new(graph: String, max_batch: usize, backend: Box<dyn Backend>) -> Self {
        Self { graph, max_batch, backend: Arc::new(Mutex::new(backend)), items: Arc::default() }
    }

    fn forget(&self) {
        lock(&self.items).clear();
    }

    /// Returns batches with `items` items in total. All items of a batch have the same shape, and
    /// shapes have the same shares as in the stored inputs.
    fn batches(&self, items: usize, largest: usize) -> Vec<Vec<Vec<Tensor>>> {
        let seen = lock(&self.items);
        let mut by_shape: HashMap<Vec<&[usize]>, Vec<&Vec<Tensor>>> = HashMap::new();
        for item in &*seen {
            by_shape.entry(item.iter().map(Tensor::shape).collect()).or_default().push(item);
        }
        let (mut batches, largest) = (Vec::new(), largest.min(self.max_batch).max(1));
        for of_shape in by_shape.values() {
            let mut left = (items * of_shape.len()).div_ceil(seen.len());
            let mut next = of_shape.iter().cycle();
            while left > 0 {
                let batch: Vec<_> =
                    next.by_ref().take(left.min(largest)).map(|item| (*item).clone()).collect();
                left -= batch.len();
                batches.push(batch);
            }
        }
        batches
    }
}

impl Backend for Session {
    fn run(&mut self, batch: &[Vec<Tensor>]) -> Result<Vec<Features>, BackendError> {
        let mut items = lock(&self.items);
        let room = KEPT_ITEMS - items.len();
        items.extend(batch.iter().take(room).cloned());
        drop(items);
        lock(&self.backend).run(batch)
    }

    fn provider(&self) -> Provider {
        lock(&self.backend).provider()
    }
}

/// Returns the seconds in which the sessions run as many items as the service did, with `at_once`
/// concurrent batches.
fn bare(
    sessions: &[Session],
    served: &LoadResult,
    clients: usize,
    at_once: usize,
) -> anyhow::Result<f64> {
    let mut work = Vec::new();
    for session in sessions {
        let items = served.graphs.get(&session.graph).map_or(0, |graph| graph.items as usize);
        if items > 0 {
            work.extend(session.batches(items, clients).into_iter().map(|batch| (session, batch)));
        }
    }
    let work = Mutex::new(work.into_iter());
    let started = Instant::now();
    std::thread::scope(|scope| {
        let loops = (0..at_once.max(1)).map(|_| {
            scope.spawn(|| {
                loop {
                    let next = lock(&work).next();
                    let Some((session, batch)) = next else { return Ok(()) };
                    let mut backend = lock(&session.backend);
                    backend.run(&batch).with_context(|| session.graph.clone())?;
                }
            })
        });
        let ended: Vec<anyhow::Result<()>> = loops
            .collect::<Vec<_>>()
            .into_iter()
            .map(|one| one.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the loop panicked"))))
            .collect();
        ended.into_iter().collect::<anyhow::Result<()>>()
    })?;
    Ok(started.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo;

    impl Backend for Echo {
        fn run(&mut self, batch: &[Vec<Tensor>]) -> Result<Vec<Features>, BackendError> {
            Ok(batch.iter().map(|_| Features::new(Vec::new())).collect())
        }
    }

    fn item(length: usize) -> Vec<Tensor> {
        vec![Tensor::I64 { shape: vec![length], data: vec![1; length].into() }]
    }

    #[test]
    fn batches_have_items_of_one_shape_and_shapes_retain_their_shares() {
        let mut session = Session::new("text".to_owned(), 4, Box::new(Echo));
        session.run(&[item(5), item(5), item(5), item(9)]).unwrap();
        let batches = session.batches(16, 8);
        let mut lengths: Vec<_> =
            batches.iter().map(|batch| (batch[0][0].shape()[0], batch.len())).collect();
        lengths.sort_unstable();
        assert_eq!(lengths, [(5, 4), (5, 4), (5, 4), (9, 4)]);
        assert!(
            batches
                .iter()
                .all(|batch| batch.iter().all(|item| item[0].shape() == batch[0][0].shape()))
        );
        assert!(session.batches(16, 1).iter().all(|batch| batch.len() == 1));
    }

    #[test]
    fn stored_inputs_are_bounded() {
        let mut session = Session::new("text".to_owned(), 4, Box::new(Echo));
        for _ in 0..KEPT_ITEMS {
            session.run(&[item(1), item(1), item(1)]).unwrap();
        }
        assert_eq!(session.items.lock().unwrap().len(), KEPT_ITEMS);
    }
}
