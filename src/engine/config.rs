//! The `[engine]` section of the configuration.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::cuda::CudaConfig;
use super::error::StartError;

/// Most threads of one batch, unless configured.
const THREADS_A_BATCH: usize = 8;

/// Provider, parallelism, queues and the feature cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineConfig {
    /// The execution provider. A provider that is named and does not work is an error at start,
    /// never a silent fallback.
    pub provider: ProviderChoice,
    /// Time that a sample takes with the provider `simulated`, in milliseconds.
    pub simulated_ms: f64,
    /// GPU index, as the provider counts; ignored on CPU.
    pub device_id: u16,
    /// The ONNX Runtime library. If it is not set: `ORT_DYLIB_PATH`, then beside the program, then
    /// in the `.runtime/` of its checkout.
    pub library: Option<PathBuf>,
    /// Batches that run concurrently on the device. The graph with the oldest work goes first.
    /// 0 chooses one for every eight cores, or two on a GPU.
    pub concurrent_batches: usize,
    /// Threads of each batch. 0 divides the cores among the batches.
    pub threads: usize,
    /// Queue length of each graph, in items. Further items get 429.
    pub queue: usize,
    /// Largest batch in items, if it must be smaller than the pack's. 0 uses the pack's.
    pub max_batch: usize,
    /// How long an incomplete batch waits for more items, in milliseconds, at most 10,000. With 0,
    /// the items that queue up while a batch runs are the next batch.
    pub max_delay_ms: u64,
    /// Whether batches are padded to the next power of two. On a GPU they always are, since every
    /// new shape is expensive there. On a CPU padding only costs; it shows what a GPU would run.
    pub pad_batches: bool,
    /// Whether the number of items that run together may change a score's last bits.
    pub batching: Batching,
    /// Folder for ONNX Runtime's profile of each graph, with time and provider of each node.
    /// Written at shutdown. Profiling is slow.
    pub profile: Option<PathBuf>,
    /// Options of the CUDA provider.
    pub cuda: CudaConfig,
    /// Memory of the feature cache, in bytes. 0 stores nothing; concurrent requests for one feature
    /// still share a computation.
    pub cache_bytes: u64,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            provider: ProviderChoice::Auto,
            simulated_ms: 16.0,
            device_id: 0,
            library: None,
            concurrent_batches: 0,
            threads: 0,
            queue: 1024,
            max_batch: 0,
            max_delay_ms: 0,
            pad_batches: false,
            batching: Batching::Dynamic,
            profile: None,
            cuda: CudaConfig::default(),
            // About 49,000 embeddings of 1280 values.
            cache_bytes: 256 << 20,
        }
    }
}

impl EngineConfig {
    /// Checks that all settings are in range.
    pub fn validate(&self) -> Result<(), StartError> {
        let refuse = |key, problem: String| Err(StartError::Config { key, problem });
        if self.queue == 0 {
            return refuse("queue", "is 0: must be at least 1 (default 1024)".into());
        }
        if !(0.0..=60_000.0).contains(&self.simulated_ms) {
            let problem = format!("is {}: must be 0 to 60000 (default 16)", self.simulated_ms);
            return refuse("simulated_ms", problem);
        }
        if self.max_delay_ms > 10_000 {
            return refuse(
                "max_delay_ms",
                format!("is {}: must be at most 10000 (default 0)", self.max_delay_ms),
            );
        }
        for (key, value) in
            [("concurrent_batches", self.concurrent_batches), ("threads", self.threads)]
        {
            if value > 1024 {
                return refuse(key, format!("is {value}: must be at most 1024 (0 chooses)"));
            }
        }
        if self.cuda.lane_memory_mib > 1 << 20 {
            return refuse(
                "cuda.lane_memory_mib",
                format!(
                    "is {}: must be at most 1048576 (0 sets no limit)",
                    self.cuda.lane_memory_mib
                ),
            );
        }
        Ok(())
    }

    /// Returns `max_delay_ms` as a duration.
    #[must_use]
    pub fn max_delay(&self) -> Duration {
        Duration::from_millis(self.max_delay_ms)
    }

    /// Returns the concurrent batches and the threads of each, with zeros replaced by choices.
    #[must_use]
    pub fn parallelism(&self, provider: Provider) -> Parallelism {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.parallelism_on(cores, provider)
    }

    fn parallelism_on(&self, cores: usize, provider: Provider) -> Parallelism {
        let concurrent_batches = match (self.concurrent_batches, provider) {
            // Up to eight cores, one batch gets all of them, so that a single busy graph can use
            // them. With several busy graphs, concurrent batches can be slightly faster
            // (docs/BENCHMARKS.md). A batch gains nothing from more than eight threads.
            (0, Provider::Cpu) => cores.div_ceil(THREADS_A_BATCH),
            // One batch runs while the next one is copied to the GPU.
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

/// How many rows the runs of a graph have.
///
/// Kernels are chosen by shape, and another kernel rounds otherwise. With runs of several shapes,
/// the score of an image therefore depends on how many others were scored with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Batching {
    /// As many as there are items, or the next power of two (`pad_batches`).
    #[default]
    Dynamic,
    /// Always the largest batch: every run has one shape, and the bits of a score do not depend on
    /// the other items.
    Fixed,
}

/// Parallelism on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Parallelism {
    /// Batches that run concurrently.
    pub concurrent_batches: usize,
    /// Threads of each batch.
    pub threads: usize,
}

/// The configured execution provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderChoice {
    /// CUDA if there is an NVIDIA driver and the library works, otherwise the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// CUDA, or an error.
    Cuda,
    /// `TensorRT`, or an error.
    TensorRt,
    /// None: each sample takes [`EngineConfig::simulated_ms`], and its numbers mean nothing.
    Simulated,
}

/// An execution provider of ONNX Runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// The CPU.
    #[default]
    Cpu,
    /// An NVIDIA GPU through CUDA.
    Cuda,
    /// An NVIDIA GPU through `TensorRT`. Unsupported nodes run through CUDA.
    TensorRt,
}

impl Provider {
    /// Returns the name in the configuration and in status responses.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::TensorRt => "tensorrt",
        }
    }

    /// Returns whether the provider runs on a GPU.
    #[must_use]
    pub fn is_gpu(self) -> bool {
        self != Self::Cpu
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_divided_among_batches() {
        let chosen = |cores| {
            let Parallelism { concurrent_batches, threads } =
                EngineConfig::default().parallelism_on(cores, Provider::Cpu);
            (concurrent_batches, threads)
        };
        let cases =
            [(1, (1, 1)), (2, (1, 2)), (8, (1, 8)), (16, (2, 8)), (20, (3, 6)), (64, (8, 8))];
        for (cores, expected) in cases {
            assert_eq!(chosen(cores), expected, "{cores} cores");
        }
    }

    #[test]
    fn configured_parallelism_is_used() {
        let config = EngineConfig { concurrent_batches: 3, threads: 5, ..EngineConfig::default() };
        assert_eq!(
            config.parallelism_on(2, Provider::Cpu),
            Parallelism { concurrent_batches: 3, threads: 5 }
        );
        let config = EngineConfig { concurrent_batches: 4, ..EngineConfig::default() };
        assert_eq!(config.parallelism_on(2, Provider::Cpu).threads, 1);
    }

    #[test]
    fn unknown_keys_are_refused_and_missing_ones_get_their_defaults() {
        assert_eq!(toml::from_str::<EngineConfig>("").unwrap(), EngineConfig::default());
        let config: EngineConfig =
            toml::from_str("provider = \"tensorrt\"\ndevice_id = 1").unwrap();
        assert_eq!((config.provider, config.device_id), (ProviderChoice::TensorRt, 1));
        assert!(toml::from_str::<EngineConfig>("provder = \"cpu\"").is_err());
    }
}
