//! The loaded ONNX Runtime: its provider, checked by a probe, and the options of all sessions.

use std::{
    env,
    path::{Path, PathBuf},
    sync::Mutex,
};

use ort::{
    ep::{self, ExecutionProvider as _, ExecutionProviderDispatch},
    session::{Session, builder::SessionBuilder},
    value::TensorRef,
};

use super::tiny;
use crate::{
    engine::{
        config::{Batching, EngineConfig, Provider, ProviderChoice},
        cuda::{self, CudaConfig},
        error::StartError,
        library,
    },
    sync::lock,
    tensor::Dtype,
};

/// The loaded library with its environment, of which a process may have one.
///
/// It is never unloaded, since sessions of a dropped engine may still be shutting down.
static LOADED: Mutex<Option<(PathBuf, ort::environment::Environment)>> = Mutex::new(None);

/// A loaded ONNX Runtime with the options of all sessions.
#[derive(Clone)]
pub(crate) struct Runtime {
    environment: ort::environment::Environment,
    pub(super) provider: Provider,
    device_id: i32,
    threads: usize,
    pub(super) pad: bool,
    pub(super) batching: Batching,
    profile: Option<PathBuf>,
    cuda: CudaConfig,
}

impl Runtime {
    /// Loads the library once per process, and checks that the configured provider works. With
    /// `auto` it falls back to the CPU.
    pub(crate) fn load(config: &EngineConfig) -> Result<Self, StartError> {
        let installed = crate::installed::folders();
        let asked = match config.provider {
            ProviderChoice::Cuda => Provider::Cuda,
            ProviderChoice::TensorRt => Provider::TensorRt,
            ProviderChoice::Auto if cuda::has_driver() => Provider::Cuda,
            ProviderChoice::Auto | ProviderChoice::Cpu | ProviderChoice::Simulated => Provider::Cpu,
        };
        let variable = env::var_os(library::VARIABLE);
        let path = library::find(config.library.as_deref(), variable, &installed, asked.is_gpu())?;
        if asked.is_gpu() {
            let (loaded, problems) = cuda::preload(&installed);
            tracing::info!(
                libraries = loaded.len(),
                problems = problems.join("; "),
                "preloaded CUDA libraries"
            );
        }
        let mut runtime = Self {
            environment: environment(&path)?,
            provider: asked,
            device_id: i32::from(config.device_id),
            threads: config.parallelism(asked).threads,
            pad: config.pad_batches || asked.is_gpu(),
            batching: config.batching,
            profile: config.profile.clone(),
            cuda: config.cuda.clone(),
        };
        match runtime.probe() {
            Ok(()) => {}
            Err(problem) if config.provider == ProviderChoice::Auto => {
                tracing::warn!(
                    problem,
                    "failed to use CUDA despite an NVIDIA driver, falling back to CPU"
                );
                runtime.provider = Provider::Cpu;
                runtime.threads = config.parallelism(Provider::Cpu).threads;
                runtime.pad = config.pad_batches;
            }
            Err(problem) => return Err(StartError::Provider { provider: asked.name(), problem }),
        }
        tracing::info!(provider = runtime.provider.name(), asked = ?config.provider, "chose \
            execution provider");
        Ok(runtime)
    }

    /// Returns the provider of the graphs that are not configured to run on the CPU.
    pub(crate) fn provider(&self) -> Provider {
        self.provider
    }

    /// Checks the provider by running a convolution.
    ///
    /// Some libraries, such as cuDNN, are opened at first use. If one is missing, the start fails
    /// and not the first request.
    fn probe(&self) -> Result<(), String> {
        let compiled_in = match self.provider {
            Provider::Cpu => return Ok(()),
            Provider::Cuda => ep::CUDA::is_available(),
            Provider::TensorRt => ep::TensorRT::is_available(),
        };
        match compiled_in {
            Ok(true) => {}
            Ok(false) => return Err("this build of ONNX Runtime does not support it".to_owned()),
            Err(error) => return Err(error.to_string()),
        }
        self.convolve(self.provider)
    }

    /// Convolves 4 channels of ones with kernels of 3 × 3 ones: every output must be 36.
    pub(super) fn convolve(&self, provider: Provider) -> Result<(), String> {
        let node = tiny::Node { op: "Conv", inputs: &["x", "w"], outputs: &["y"], attributes: &[] };
        let inputs = [("x", Dtype::F32, &[1, 4, 8, 8][..]), ("w", Dtype::F32, &[4, 4, 3, 3][..])];
        let model = tiny::model(&[node], &inputs, &[("y", Dtype::F32, &[1, 4, 6, 6])]);
        let found = self
            .builder(provider)
            .and_then(|mut builder| builder.commit_from_memory(&model))
            .and_then(|mut session| {
                let ones = |shape: [i64; 4]| {
                    TensorRef::from_array_view((
                        shape.to_vec(),
                        &[1.0_f32; 256][..shape.iter().product::<i64>() as usize],
                    ))
                };
                let results = session
                    .run(ort::inputs!["x" => ones([1, 4, 8, 8])?, "w" => ones([4, 4, 3, 3])?])?;
                Ok(results["y"].try_extract_tensor::<f32>()?.1.to_vec())
            });
        match found {
            Ok(numbers)
                if numbers.len() == 144
                    && numbers.iter().all(|number| (number - 36.0).abs() < 1e-3) =>
            {
                Ok(())
            }
            Ok(numbers) => {
                Err(format!("a test convolution returned {:?}, expected 36", numbers.first()))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Returns the provider of a graph with these roles, joined by `+`.
    pub(super) fn provider_of(&self, roles: &str) -> Provider {
        let stays = |role: &str| self.cuda.cpu_graphs.iter().any(|stays| stays == role);
        if roles.split('+').any(stays) { Provider::Cpu } else { self.provider }
    }

    fn providers(&self, provider: Provider) -> Vec<ExecutionProviderDispatch> {
        // A failure is an error. The runtime's default is a silent fallback to the CPU.
        let cuda = || self.cuda.provider(self.device_id).build().error_on_failure();
        let tensorrt =
            || ep::TensorRT::default().with_device_id(self.device_id).build().error_on_failure();
        match provider {
            Provider::Cpu => Vec::new(),
            Provider::Cuda => vec![cuda()],
            Provider::TensorRt => vec![tensorrt(), cuda()],
        }
    }

    pub(super) fn session(&self, file: &Path, provider: Provider) -> Result<Session, String> {
        let builder = self.builder(provider).and_then(|builder| match &self.profile {
            None => Ok(builder),
            Some(folder) => {
                let name = file.file_stem().unwrap_or_default();
                Ok(builder.with_profiling(folder.join(name))?)
            }
        });
        builder
            .and_then(|mut builder| builder.commit_from_file(file))
            .map_err(|error| error.to_string())
    }

    fn builder(&self, provider: Provider) -> ort::Result<SessionBuilder> {
        Ok(Session::builder(&self.environment)?
            .with_intra_threads(self.threads)?
            .with_inter_threads(1)?
            // Spinning threads take cores from working ones: with as many lanes as cores,
            // throughput halves.
            .with_intra_op_spinning(false)?
            .with_inter_op_spinning(false)?
            // The runtime stores a memory pattern for every shape that it has seen, and batches
            // vary.
            .with_memory_pattern(false)?
            .with_deterministic_compute(true)?
            .with_execution_providers(self.providers(provider))?)
    }
}

fn environment(path: &Path) -> Result<ort::environment::Environment, StartError> {
    let mut loaded = lock(&LOADED);
    let unusable = |problem: String| StartError::Library { path: path.to_owned(), problem };
    match &*loaded {
        Some((have, environment)) if have == path => return Ok(environment.clone()),
        Some((have, _)) => {
            return Err(unusable(format!("this process has already loaded {}", have.display())));
        }
        None => {}
    }
    let environment = ort::init_from(path)
        .map_err(|error| unusable(error.to_string()))?
        .with_name("stellar-score")
        .with_telemetry(false)
        .build()
        .map_err(|error| unusable(error.to_string()))?;
    // Otherwise every session formats debug messages that are filtered out afterwards.
    environment.set_log_level(ort::logging::LogLevel::Warning);
    tracing::info!(library = %path.display(), build = ort::info(), "loaded ONNX Runtime");
    *loaded = Some((path.to_owned(), environment.clone()));
    Ok(environment)
}

/// Returns the environment of this process, for benchmarks that run a session without an engine.
#[doc(hidden)]
#[must_use]
pub fn onnx_environment() -> Option<ort::environment::Environment> {
    let loaded = lock(&LOADED);
    loaded.as_ref().map(|(_, environment)| environment.clone())
}
