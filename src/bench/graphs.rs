//! Graphs in a bare loop: the device's peak throughput, the baseline of the service.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::engine::{
    Backend, Engine, EngineConfig, GraphSpec, Pack, Precision, Provider, StartError,
};
use crate::machine;

/// Options of a measurement.
#[derive(Debug, Clone)]
pub struct GraphsOptions {
    /// Batch sizes to run, including those above a graph's largest batch.
    pub batches: Vec<usize>,
    /// Number of runs of each batch size; the median is reported.
    pub runs: usize,
    /// Time limit for each batch size; the median is then of the runs completed so far.
    pub limit: Duration,
    /// Only graphs whose role begins with one of these prefixes; all if empty.
    pub only: Vec<String>,
}

/// Timing of one graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GraphTiming {
    /// The graph's roles, joined by `+`.
    pub graph: String,
    /// Precision of the graph.
    pub precision: Precision,
    /// The execution provider.
    pub provider: Option<Provider>,
    /// Seconds for loading and warm-up.
    pub load_seconds: f64,
    /// Growth of the process's resident memory while loading, in bytes, if the system reports it.
    pub resident_bytes: Option<u64>,
    /// Timings by batch size.
    pub batches: Vec<BatchTiming>,
    /// The error if the graph could not be loaded or run further.
    pub problem: Option<String>,
}

/// Timing of a graph at one batch size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchTiming {
    /// Number of items per run.
    pub batch: usize,
    /// Number of timed runs.
    pub runs: usize,
    /// Median time of a run in milliseconds.
    pub milliseconds: f64,
    /// Items per second at the median time.
    pub items_a_second: f64,
    /// Throughput in 10¹² floating-point operations per second, if the pack has the number of
    /// operations per item.
    pub tflops: Option<f64>,
}

/// Measures all graphs, one after the other. Calls `done` after each, so that an interrupted run
/// has reported its results so far.
///
/// # Errors
/// The runtime cannot be loaded. If a graph does not load or fails, its row has the error.
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
        // The first run of a shape allocates memory and selects kernels.
        if let Err(error) = backend.run(&items) {
            timing.problem = Some(format!("batch {batch}: {error}"));
            break;
        }
        let (started, mut times) = (Instant::now(), Vec::new());
        while times.len() < options.runs && (times.is_empty() || started.elapsed() < options.limit)
        {
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

/// Returns the median, the mean of the middle two for an even count; 0 if empty.
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
        let mut reported = 0;
        let found = time_graphs(&pack, &config, &options, |_| reported += 1).unwrap();
        assert_eq!(reported, found.len());
        assert!(
            found.len() >= 3
                && found.iter().all(|of| of.graph.starts_with("clip") || of.graph == "faces.pnet")
        );
        for graph in &found {
            assert_eq!(graph.problem, None, "{}", graph.graph);
            assert_eq!(graph.provider, Some(Provider::Cpu));
            let batches: Vec<_> = graph.batches.iter().map(|of| (of.batch, of.runs)).collect();
            assert_eq!(batches, [(1, 2), (3, 2)]);
            assert!(
                graph.batches.iter().all(|of| of.milliseconds > 0.0 && of.items_a_second > 0.0)
            );
            let tflops =
                graph.batches[0].tflops.map(|tflops| tflops / graph.batches[0].items_a_second);
            assert_eq!(
                tflops.map(|of| (of * 1e12).round()),
                (graph.graph == "faces.pnet").then_some(1e6)
            );
        }
    }

    #[test]
    fn the_median_of_an_even_count_is_the_mean_of_the_middle_two() {
        for (mut times, expected) in
            [(vec![], 0.0), (vec![3.0], 3.0), (vec![4.0, 1.0, 2.0, 3.0], 2.5)]
        {
            assert!((median(&mut times) - expected).abs() < 1e-12, "{times:?}");
        }
    }
}
