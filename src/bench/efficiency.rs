//! What is lost between a bare loop over the sessions and the service around them.
//!
//! Rounds take turns: the service scores samples over HTTP for a while, and the very same sessions then run, in a loop and in full
//! batches, as many items of the inputs that they were given there. The quotient of both times is the efficiency: 1 where decoding,
//! resizing, tokenising, hashing, queueing, HTTP and the database cost nothing, because they happen while a graph runs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
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
use crate::telemetry::Telemetry;
use crate::tensor::{Features, Tensor};

/// Inputs of a graph that are kept for the loop: enough for several full batches of every length of text.
const KEPT_ITEMS: usize = 256;

/// A round of both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EfficiencyRound {
    /// What the service did.
    pub served: LoadResult,
    /// Seconds in which the loop ran the same number of items.
    pub bare_seconds: f64,
    /// These as a share of the service's seconds.
    pub efficiency: f64,
}

/// What all rounds found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EfficiencyResult {
    /// What computed.
    pub provider: Provider,
    /// Batches at once, of both.
    pub concurrent_batches: usize,
    /// Threads for each batch, of both.
    pub threads: usize,
    /// Clients at once, and the most items of a batch of the loop.
    pub clients: usize,
    /// In order.
    pub rounds: Vec<EfficiencyRound>,
    /// The median of the rounds.
    pub efficiency: f64,
}

/// Measures `rounds` rounds after one in which everything warms up; `done` hears of each.
///
/// The service and its clients share this process: its processor time is that of both. Batches of the loop have as many items as
/// there are clients, at most the graph's largest batch. With one client the quotient therefore says how much longer a single
/// request takes than its graphs by themselves.
///
/// # Errors
/// The pack does not load, there is nothing to send, or the service does not answer.
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
        let (pack, config, numbers) = (pack.clone(), config.engine.clone(), telemetry.engine.clone());
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
    // Warming up left inputs of ones.
    sessions.iter().for_each(Session::forget);
    let service = LocalService::start(config, pack.clone(), engine, telemetry).await?;
    let client = Client::new(&format!("http://{}", service.address()), std::time::Duration::ZERO)?;

    let mut found = Vec::new();
    for round in 0..=rounds {
        let seed = options.seed.wrapping_add((round as u64) << 32);
        let served = load(&client, samples.clone(), &LoadOptions { seed, ..options.clone() }).await?;
        anyhow::ensure!(served.scored > 0, "the service scored nothing: {served:?}");
        let (sessions, load, clients) = (sessions.clone(), served.clone(), options.clients);
        let bare_seconds =
            blocking(move || bare(&sessions, &load, clients, parallelism.concurrent_batches)).await?;
        if round > 0 {
            let round = EfficiencyRound { efficiency: bare_seconds / served.seconds, served, bare_seconds };
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

/// A session that a lane and the loop share. It keeps some of the inputs that it is given.
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
        self.items.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Batches of so many items in all, of which each has equal shapes; of every shape as large a part as was seen.
    fn batches(&self, items: usize, largest: usize) -> Vec<Vec<Vec<Tensor>>> {
        let seen = self.items.lock().unwrap_or_else(PoisonError::into_inner);
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
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        let room = KEPT_ITEMS - items.len();
        items.extend(batch.iter().take(room).cloned());
        drop(items);
        self.backend.lock().unwrap_or_else(PoisonError::into_inner).run(batch)
    }

    fn provider(&self) -> Provider {
        self.backend.lock().unwrap_or_else(PoisonError::into_inner).provider()
    }
}

/// Seconds in which the sessions run as many items as the service did, so many batches at once.
fn bare(sessions: &[Session], served: &LoadResult, clients: usize, at_once: usize) -> anyhow::Result<f64> {
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
                    let next = work.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((session, batch)) = next else { return Ok(()) };
                    let mut backend = session.backend.lock().unwrap_or_else(PoisonError::into_inner);
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
    fn batches_have_items_of_one_shape_and_the_shares_that_were_seen() {
        let mut session = Session::new("text".to_owned(), 4, Box::new(Echo));
        session.run(&[item(5), item(5), item(5), item(9)]).unwrap();
        let batches = session.batches(16, 8);
        let mut lengths: Vec<_> = batches.iter().map(|batch| (batch[0][0].shape()[0], batch.len())).collect();
        lengths.sort_unstable();
        assert_eq!(lengths, [(5, 4), (5, 4), (5, 4), (9, 4)]);
        assert!(batches.iter().all(|batch| batch.iter().all(|item| item[0].shape() == batch[0][0].shape())));
        assert!(session.batches(16, 1).iter().all(|batch| batch.len() == 1));
    }

    #[test]
    fn no_more_inputs_are_kept_than_the_loop_needs() {
        let mut session = Session::new("text".to_owned(), 4, Box::new(Echo));
        for _ in 0..KEPT_ITEMS {
            session.run(&[item(1), item(1), item(1)]).unwrap();
        }
        assert_eq!(session.items.lock().unwrap().len(), KEPT_ITEMS);
    }
}
