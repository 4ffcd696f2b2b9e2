//! Graphs in a bare loop: what a device gives at most, against which the service is held.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::engine::{Backend, Engine, EngineConfig, GraphSpec, Pack, Precision, Provider, StartError};
use crate::machine;

/// How to measure.
#[derive(Debug, Clone)]
pub struct GraphsOptions {
    /// Batches to run; those above a graph's largest are run all the same.
    pub batches: Vec<usize>,
    /// Runs of each batch, of which the median counts.
    pub runs: usize,
    /// A batch is given up after so long, with the runs that there are.
    pub limit: Duration,
    /// Only graphs whose role begins with one of these; all where there are none.
    pub only: Vec<String>,
}

/// A graph by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GraphTiming {
    /// Its roles, joined by `+`.
    pub graph: String,
    /// The arithmetic inside.
    pub precision: Precision,
    /// What computes it.
    pub provider: Option<Provider>,
    /// Seconds that loading and warming up took.
    pub load_seconds: f64,
    /// By how much the process grew meanwhile, in bytes, where the system tells.
    pub resident_bytes: Option<u64>,
    /// By batch.
    pub batches: Vec<BatchTiming>,
    /// Why it could not be loaded or run further.
    pub problem: Option<String>,
}

/// A graph at one batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchTiming {
    /// Items of a run.
    pub batch: usize,
    /// Runs that were timed.
    pub runs: usize,
    /// Median of a run, in milliseconds.
    pub milliseconds: f64,
    /// Items a second at that.
    pub items_a_second: f64,
    /// Arithmetic of these in 10¹² operations a second, where the pack says how much an item is.
    pub tflops: Option<f64>,
}

/// Measures every graph, one after the other; `done` hears of each at once, so that a run that is cut off has told what it found.
///
/// # Errors
/// The runtime cannot be loaded. A graph that does not load, or fails at a batch, is told in its row.
pub fn time_graphs(
    pack: &Pack,
    config: &EngineConfig,
    options: &GraphsOptions,
    mut done: impl FnMut(&GraphTiming),
) -> Result<Vec<GraphTiming>, StartError> {
    let mut found = Vec::new();
    let mut chosen = pack.clone();
    let wanted = |role: &str| {
        options.only.is_empty() || options.only.iter().any(|only| role.starts_with(only.as_str()))
    };
    chosen.graphs.retain(|graph| wanted(&graph.role));
    let (mut since, mut before) = (Instant::now(), machine::resident_bytes());
    Engine::load_each(&chosen, config, |spec, backend| {
        let timing = GraphTiming {
            graph: spec.role.clone(),
            precision: spec.precision,
            provider: None,
            load_seconds: since.elapsed().as_secs_f64(),
            resident_bytes: before
                .zip(machine::resident_bytes())
                .map(|(before, after)| after.saturating_sub(before)),
            batches: Vec::new(),
            problem: None,
        };
        let timing = match backend {
            Ok(backend) => run(timing, spec, backend, options),
            Err(error) => GraphTiming { problem: Some(error.to_string()), ..timing },
        };
        done(&timing);
        found.push(timing);
        (since, before) = (Instant::now(), machine::resident_bytes());
    })?;
    Ok(found)
}

fn run(
    mut timing: GraphTiming,
    spec: &GraphSpec,
    mut backend: Box<dyn Backend>,
    options: &GraphsOptions,
) -> GraphTiming {
    timing.provider = Some(backend.provider());
    let item = spec.sample();
    for &batch in &options.batches {
        let items = vec![item.clone(); batch];
        // The first run of a shape takes memory and chooses kernels.
        if let Err(error) = backend.run(&items) {
            timing.problem = Some(format!("batch {batch}: {error}"));
            break;
        }
        let (started, mut times) = (Instant::now(), Vec::new());
        while times.len() < options.runs && (times.is_empty() || started.elapsed() < options.limit) {
            let began = Instant::now();
            if let Err(error) = backend.run(&items) {
                timing.problem = Some(format!("batch {batch}: {error}"));
                return timing;
            }
            times.push(began.elapsed().as_secs_f64());
        }
        let median = median(&mut times);
        let items_a_second = batch as f64 / median;
        timing.batches.push(BatchTiming {
            batch,
            runs: times.len(),
            milliseconds: median * 1e3,
            items_a_second,
            tflops: spec.flops.map(|flops| flops as f64 * items_a_second / 1e12),
        });
    }
    timing
}

/// The middle one, of an even number the mean of the two; 0 of none.
pub(super) fn median(times: &mut [f64]) -> f64 {
    times.sort_unstable_by(f64::total_cmp);
    match times.len() {
        0 => 0.0,
        count if count % 2 == 1 => times[count / 2],
        count => f64::midpoint(times[count / 2 - 1], times[count / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ProviderChoice;

    #[test]
    fn every_graph_of_the_demo_pack_is_timed_at_every_batch() {
        let mut pack = Pack::open(concat!(env!("CARGO_MANIFEST_DIR"), "/packs/demo")).unwrap();
        for graph in pack.graphs.iter_mut().filter(|graph| graph.role == "faces.pnet") {
            graph.flops = Some(1_000_000);
        }
        let config = EngineConfig { provider: ProviderChoice::Cpu, ..EngineConfig::default() };
        let options = GraphsOptions {
            batches: vec![1, 3],
            runs: 2,
            limit: Duration::from_secs(5),
            only: vec!["clip".to_owned(), "faces.pnet".to_owned()],
        };
        let mut told = 0;
        let found = time_graphs(&pack, &config, &options, |_| told += 1).unwrap();
        assert_eq!(told, found.len());
        assert!(
            found.len() >= 3
                && found.iter().all(|of| of.graph.starts_with("clip") || of.graph == "faces.pnet")
        );
        for graph in &found {
            assert_eq!(graph.problem, None, "{}", graph.graph);
            assert_eq!(graph.provider, Some(Provider::Cpu));
            let batches: Vec<_> = graph.batches.iter().map(|of| (of.batch, of.runs)).collect();
            assert_eq!(batches, [(1, 2), (3, 2)]);
            assert!(graph.batches.iter().all(|of| of.milliseconds > 0.0 && of.items_a_second > 0.0));
            let tflops = graph.batches[0].tflops.map(|tflops| tflops / graph.batches[0].items_a_second);
            assert_eq!(tflops.map(|of| (of * 1e12).round()), (graph.graph == "faces.pnet").then_some(1e6));
        }
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_two() {
        for (mut times, expected) in [(vec![], 0.0), (vec![3.0], 3.0), (vec![4.0, 1.0, 2.0, 3.0], 2.5)] {
            assert!((median(&mut times) - expected).abs() < 1e-12, "{times:?}");
        }
    }
}
