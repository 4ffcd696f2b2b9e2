//! The `[engine]` section of the configuration.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::cuda::CudaConfig;
use super::error::StartError;

/// The most threads that one batch is given by itself.
const THREADS_A_BATCH: usize = 8;

/// Where graphs run, how many at once, and how much waits for them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineConfig {
    /// What computes. A provider that was named and is not there is an error at start, never a silent fallback.
    pub provider: ProviderChoice,
    /// Which GPU, as the provider counts them; ignored on the CPU.
    pub device_id: u16,
    /// The ONNX Runtime library. Unset: `ORT_DYLIB_PATH`, then beside the program and in the
    /// `.runtime/` of its checkout.
    pub library: Option<PathBuf>,
    /// Batches that run at the same time on the device; the graph with the oldest work goes first.
    /// 0 chooses: one for every eight cores, two on a GPU.
    pub concurrent_batches: usize,
    /// Threads that work on one batch. 0 shares the cores among the batches.
    pub threads: usize,
    /// Items that may wait for one graph; beyond it callers are told to come back later.
    pub queue: usize,
    /// The largest batch, where it shall be smaller than the pack's. 0 keeps the pack's.
    pub max_batch: usize,
    /// How long an incomplete batch waits for company, in milliseconds. 0 never waits: what queues up
    /// while a batch runs is the next batch.
    pub max_delay_ms: u64,
    /// Whether batches are filled up to the next power of two. Always so on a GPU, where every new shape costs; elsewhere only to
    /// see what a GPU would be given.
    pub pad_batches: bool,
    /// A folder for ONNX Runtime's profile of every graph, written when the service stops: how long each node took and what ran it.
    /// Slows everything down.
    pub profile: Option<PathBuf>,
    /// What CUDA is told.
    pub cuda: CudaConfig,
    /// Memory for cached features, in bytes; 0 keeps none (equal questions asked at the same time are
    /// still answered by one computation).
    pub cache_bytes: u64,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            provider: ProviderChoice::Auto,
            device_id: 0,
            library: None,
            concurrent_batches: 0,
            threads: 0,
            queue: 1024,
            max_batch: 0,
            max_delay_ms: 0,
            pad_batches: false,
            profile: None,
            cuda: CudaConfig::default(),
            // About 49,000 embeddings of 1280 numbers.
            cache_bytes: 256 << 20,
        }
    }
}

impl EngineConfig {
    /// Checks every range.
    pub fn validate(&self) -> Result<(), StartError> {
        let refuse = |key, problem: String| Err(StartError::Config { key, problem });
        if self.queue == 0 {
            return refuse("queue", "is 0: at least one item must be able to wait (default 1024)".into());
        }
        if self.max_delay_ms > 10_000 {
            return refuse("max_delay_ms", format!("is {}: at most 10000 (default 0)", self.max_delay_ms));
        }
        for (key, value) in [("concurrent_batches", self.concurrent_batches), ("threads", self.threads)] {
            if value > 1024 {
                return refuse(key, format!("is {value}: at most 1024 (0 chooses)"));
            }
        }
        if self.cuda.lane_memory_mib > 1 << 20 {
            return refuse(
                "cuda.lane_memory_mib",
                format!("is {}: at most 1048576 (0 sets no limit)", self.cuda.lane_memory_mib),
            );
        }
        Ok(())
    }

    /// The wait for company of an incomplete batch.
    #[must_use]
    pub fn max_delay(&self) -> Duration {
        Duration::from_millis(self.max_delay_ms)
    }

    /// Batches at once and threads for each, with the choice made where the configuration leaves it.
    #[must_use]
    pub fn parallelism(&self, provider: Provider) -> Parallelism {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.parallelism_on(cores, provider)
    }

    fn parallelism_on(&self, cores: usize, provider: Provider) -> Parallelism {
        let concurrent_batches = match (self.concurrent_batches, provider) {
            // One batch on all cores: a graph that is asked alone then has them all. With several graphs
            // asked at once, batches side by side can gain a little (docs/BENCHMARKS.md). Beyond eight threads a batch no longer gains by further ones.
            (0, Provider::Cpu) => cores.div_ceil(THREADS_A_BATCH),
            // One batch computes while the next one is copied.
            (0, Provider::Cuda | Provider::TensorRt) => 2,
            (given, _) => given,
        };
        let threads = match self.threads {
            0 => (cores / concurrent_batches).max(1),
            given => given,
        };
        Parallelism { concurrent_batches, threads }
    }
}

/// How a device's time is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Parallelism {
    /// Batches that run at the same time.
    pub concurrent_batches: usize,
    /// Threads that work on one batch.
    pub threads: usize,
}

/// What the configuration may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderChoice {
    /// CUDA where the machine has a card and the libraries, the processor elsewhere.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// CUDA, or an error.
    Cuda,
    /// `TensorRT`, or an error.
    TensorRt,
}

/// An execution provider of ONNX Runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// The processor.
    #[default]
    Cpu,
    /// An NVIDIA GPU through CUDA.
    Cuda,
    /// An NVIDIA GPU through `TensorRT`; what it does not support runs through CUDA.
    TensorRt,
}

impl Provider {
    /// The name used in the configuration and in status answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::TensorRt => "tensorrt",
        }
    }

    /// Whether it is a card.
    #[must_use]
    pub fn is_gpu(self) -> bool {
        self != Self::Cpu
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_shared_among_batches_and_never_asked_for_twice() {
        let chosen = |cores| {
            let Parallelism { concurrent_batches, threads } =
                EngineConfig::default().parallelism_on(cores, Provider::Cpu);
            (concurrent_batches, threads)
        };
        let cases = [(1, (1, 1)), (2, (1, 2)), (8, (1, 8)), (16, (2, 8)), (20, (3, 6)), (64, (8, 8))];
        for (cores, expected) in cases {
            assert_eq!(chosen(cores), expected, "{cores} cores");
        }
    }

    #[test]
    fn what_is_configured_is_taken() {
        let config = EngineConfig { concurrent_batches: 3, threads: 5, ..EngineConfig::default() };
        assert_eq!(
            config.parallelism_on(2, Provider::Cpu),
            Parallelism { concurrent_batches: 3, threads: 5 }
        );
        let config = EngineConfig { concurrent_batches: 4, ..EngineConfig::default() };
        assert_eq!(config.parallelism_on(2, Provider::Cpu).threads, 1);
    }

    #[test]
    fn an_unknown_key_is_refused_and_missing_ones_have_their_defaults() {
        assert_eq!(toml::from_str::<EngineConfig>("").unwrap(), EngineConfig::default());
        let config: EngineConfig = toml::from_str("provider = \"tensorrt\"\ndevice_id = 1").unwrap();
        assert_eq!((config.provider, config.device_id), (ProviderChoice::TensorRt, 1));
        assert!(toml::from_str::<EngineConfig>("provder = \"cpu\"").is_err());
    }
}
