//! Sessions of ONNX Runtime. Only this module and `cuda.rs` use it.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::ep::{self, ExecutionProvider as _, ExecutionProviderDispatch};
use ort::session::builder::SessionBuilder;
use ort::session::{RunOptions, Session, SessionInputValue};
use ort::value::{Outlet, TensorElementType, TensorRef, ValueType};

use super::backend::Backend;
use super::config::{EngineConfig, Provider, ProviderChoice};
use super::cuda::{self, CudaConfig};
use super::error::{BackendError, StartError};
use super::library;
use super::pack::{Dim, GraphSpec, TensorSpec};
use crate::tensor::{Dtype, Features, Output, Tensor};

#[cfg(test)]
mod tests;
mod tiny;

/// The loaded library with its environment, of which a process may have one.
///
/// It is never unloaded, since sessions of a dropped engine may still be shutting down.
static LOADED: Mutex<Option<(PathBuf, ort::environment::Environment)>> = Mutex::new(None);

/// A loaded ONNX Runtime with the options of all sessions.
#[derive(Clone)]
pub(crate) struct Runtime {
    environment: ort::environment::Environment,
    provider: Provider,
    device_id: i32,
    threads: usize,
    pad: bool,
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
            ProviderChoice::Auto | ProviderChoice::Cpu => Provider::Cpu,
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
    fn convolve(&self, provider: Provider) -> Result<(), String> {
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
    fn provider_of(&self, roles: &str) -> Provider {
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

    fn session(&self, file: &Path, provider: Provider) -> Result<Session, String> {
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
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
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
    let loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    loaded.as_ref().map(|(_, environment)| environment.clone())
}

/// A graph in an ONNX Runtime session.
pub(crate) struct OnnxBackend {
    session: Session,
    provider: Provider,
    /// Batch sizes, ascending. Batches are padded to the next one. Empty if batches are not padded.
    buckets: Vec<usize>,
    inputs: Vec<TensorSpec>,
    outputs: Vec<(Arc<str>, TensorSpec)>,
    /// Buffers for stacking items, one for each input, reused so that a batch allocates nothing.
    stacks: Vec<Stack>,
    /// Options for runs that shrink the arenas; set only at the end of the warm-up.
    shrinking: Option<RunOptions>,
}

/// Option with the arenas that free unused regions at the end of a run.
const SHRINKING: &str = "memory.enable_memory_arena_shrinkage";

#[derive(Default)]
struct Stack {
    bytes: Vec<u8>,
    ids: Vec<i64>,
    floats: Vec<f32>,
}

impl OnnxBackend {
    /// Loads a graph, checks its signature against the manifest, and warms it up.
    pub(crate) fn load(runtime: &Runtime, spec: &GraphSpec) -> Result<Self, StartError> {
        let provider = runtime.provider_of(&spec.role);
        let session = runtime.session(spec.file(), provider).map_err(|problem| {
            StartError::Load { graph: spec.role.clone(), file: spec.file().to_owned(), problem }
        })?;
        check_signature(&session, spec)?;
        let mut backend = Self {
            session,
            provider,
            buckets: if runtime.pad { buckets(spec.max_batch) } else { Vec::new() },
            inputs: spec.inputs.clone(),
            outputs: spec
                .outputs
                .iter()
                .map(|output| (output.name.as_str().into(), output.clone()))
                .collect(),
            stacks: spec.inputs.iter().map(|_| Stack::default()).collect(),
            shrinking: None,
        };
        let sizes = if backend.buckets.is_empty() {
            vec![1, spec.max_batch]
        } else {
            backend.buckets.clone()
        };
        warm_up(&mut backend, spec, sizes)?;
        backend.give_back(spec)?;
        Ok(backend)
    }

    /// Frees the memory of the largest batch.
    ///
    /// Most graphs seldom run one, and the arena grows again within a run if needed.
    fn give_back(&mut self, spec: &GraphSpec) -> Result<(), StartError> {
        if spec.max_batch == 1 {
            return Ok(());
        }
        let arenas = if self.provider.is_gpu() { "cpu:0;gpu:0" } else { "cpu:0" };
        let options = RunOptions::new().and_then(|mut options| {
            options.set(SHRINKING, arenas)?;
            Ok(options)
        });
        match options {
            Ok(options) => self.shrinking = Some(options),
            Err(error) => tracing::debug!(%error, "failed to set the options for shrinking arenas"),
        }
        let item = spec.sample();
        let run = self.run(&[item]);
        self.shrinking = None;
        self.stacks = spec.inputs.iter().map(|_| Stack::default()).collect();
        run.map(drop).map_err(|error| StartError::Warmup {
            graph: spec.role.clone(),
            file: spec.file().to_owned(),
            batch: 1,
            problem: error.to_string(),
        })
    }
}

impl Backend for OnnxBackend {
    fn provider(&self) -> Provider {
        self.provider
    }

    fn run(&mut self, batch: &[Vec<Tensor>]) -> Result<Vec<Features>, BackendError> {
        let rows =
            self.buckets.iter().copied().find(|rows| *rows >= batch.len()).unwrap_or(batch.len());
        let mut inputs: Vec<(&str, SessionInputValue<'_>)> = Vec::with_capacity(self.inputs.len());
        for (at, (spec, stack)) in self.inputs.iter().zip(&mut self.stacks).enumerate() {
            inputs.push((&spec.name, stack.fill(batch, rows, at, spec)?));
        }
        let results = match &self.shrinking {
            None => self.session.run(inputs),
            Some(options) => self.session.run_with_options(inputs, options),
        };
        let results = results.map_err(|error| BackendError::Run(error.to_string()))?;
        let mut items: Vec<Vec<(Arc<str>, Output)>> =
            batch.iter().map(|_| Vec::with_capacity(self.outputs.len())).collect();
        for (name, spec) in &self.outputs {
            let result = results.get(name).ok_or_else(|| wrong(spec, "no such output".into()))?;
            let (shape, data) = result
                .try_extract_tensor::<f32>()
                .map_err(|error| wrong(spec, error.to_string()))?;
            let one = split(spec, shape, rows)?;
            let length: usize = one.iter().product();
            for (at, item) in items.iter_mut().enumerate() {
                let data = data[at * length..(at + 1) * length].to_vec();
                item.push((Arc::clone(name), Output { shape: one.clone(), data }));
            }
        }
        Ok(items.into_iter().map(Features::new).collect())
    }
}

impl Stack {
    /// Stacks input `at` of all items into one tensor of `rows` rows, padded with copies of the
    /// last item.
    fn fill<'a>(
        &'a mut self,
        batch: &'a [Vec<Tensor>],
        rows: usize,
        at: usize,
        spec: &TensorSpec,
    ) -> Result<SessionInputValue<'a>, BackendError> {
        let missing =
            || BackendError::Output { expected: spec.to_string(), found: "no tensor".into() };
        let shape: Vec<i64> = {
            let item = batch.first().and_then(|item| item.get(at)).ok_or_else(missing)?;
            let one = item.shape().iter().map(|&length| length as i64);
            std::iter::once(rows as i64).chain(one).collect()
        };
        let tensors = batch.iter().filter_map(|item| item.get(at));
        match spec.dtype {
            Dtype::U8 => {
                let parts = tensors.filter_map(|tensor| match tensor {
                    Tensor::U8 { data, .. } => Some(&**data),
                    _ => None,
                });
                view(shape, stack(parts, rows, &mut self.bytes))
            }
            Dtype::I64 => {
                let parts = tensors.filter_map(|tensor| match tensor {
                    Tensor::I64 { data, .. } => Some(&**data),
                    _ => None,
                });
                view(shape, stack(parts, rows, &mut self.ids))
            }
            Dtype::F32 => {
                let parts = tensors.filter_map(|tensor| match tensor {
                    Tensor::F32 { data, .. } => Some(&**data),
                    _ => None,
                });
                view(shape, stack(parts, rows, &mut self.floats))
            }
        }
    }
}

/// Concatenates the parts and pads with copies of the last part to `rows` rows.
///
/// A single part for a single row is returned without copying.
fn stack<'a, T: Copy>(
    parts: impl Iterator<Item = &'a [T]>,
    rows: usize,
    into: &'a mut Vec<T>,
) -> &'a [T] {
    let mut parts = parts.peekable();
    let Some(first) = parts.next() else { return &[] };
    if rows == 1 && parts.peek().is_none() {
        return first;
    }
    into.clear();
    into.extend_from_slice(first);
    parts.for_each(|part| into.extend_from_slice(part));
    while into.len() < rows * first.len() {
        into.extend_from_within(into.len() - first.len()..);
    }
    into
}

/// Returns the powers of two below `largest`, and `largest`.
fn buckets(largest: usize) -> Vec<usize> {
    let powers = std::iter::successors(Some(1_usize), |power| power.checked_mul(2));
    powers.take_while(|power| *power < largest).chain([largest]).collect()
}

fn view<'a, T>(shape: Vec<i64>, data: &'a [T]) -> Result<SessionInputValue<'a>, BackendError>
where
    T: ort::value::PrimitiveTensorElementType + std::fmt::Debug + 'static,
    (Vec<i64>, &'a [T]): ort::value::TensorArrayData<T>,
{
    // The runtime checks the number of elements against the shape.
    TensorRef::from_array_view((shape, data))
        .map(Into::into)
        .map_err(|error| BackendError::Run(error.to_string()))
}

/// Checks the shape of a batch's output against the manifest. Returns the shape of one item.
fn split(spec: &TensorSpec, shape: &[i64], batch: usize) -> Result<Vec<usize>, BackendError> {
    let fits = shape.len() == spec.shape.len() + 1
        && shape[0] == batch as i64
        && spec.shape.iter().zip(&shape[1..]).all(|(dim, &found)| match dim {
            Dim::Fixed(length) => *length as i64 == found,
            Dim::Dynamic => found >= 0,
        });
    if fits {
        Ok(shape[1..].iter().map(|&length| length as usize).collect())
    } else {
        Err(wrong(spec, format!("{shape:?} for a batch of {batch}")))
    }
}

fn wrong(spec: &TensorSpec, found: String) -> BackendError {
    BackendError::Output { expected: format!("output {spec}"), found }
}

/// Checks the inputs and outputs of the file against the manifest.
fn check_signature(session: &Session, spec: &GraphSpec) -> Result<(), StartError> {
    let differs = |expected: String, found: String| {
        let (graph, file) = (spec.role.clone(), spec.file().to_owned());
        Err(StartError::Signature { graph, file, expected, found })
    };
    let undeclared =
        |outlet: &&Outlet| !spec.inputs.iter().any(|input| input.name == outlet.name());
    if let Some(extra) = session.inputs().iter().find(undeclared) {
        return differs(
            format!("inputs {}", spec.signature()),
            format!("extra input {}", outlet(extra)),
        );
    }
    let inputs = spec.inputs.iter().map(|tensor| ("input", tensor, session.inputs()));
    let outputs = spec.outputs.iter().map(|tensor| ("output", tensor, session.outputs()));
    for (what, tensor, outlets) in inputs.chain(outputs) {
        match outlets.iter().find(|outlet| outlet.name() == tensor.name) {
            Some(found) if agrees(tensor, found.dtype()) => {}
            Some(found) => {
                return differs(format!("{what} {tensor} after the batch"), outlet(found));
            }
            None => {
                let names: Vec<_> = outlets.iter().map(outlet).collect();
                return differs(
                    format!("{what} {tensor}"),
                    format!("only {}", names.join(" and ")),
                );
            }
        }
    }
    Ok(())
}

fn outlet(outlet: &Outlet) -> String {
    format!("`{}` {}", outlet.name(), outlet.dtype())
}

/// Returns whether a tensor of the graph is compatible with its declaration.
///
/// A dynamic dimension of the graph may be declared fixed, since the warm-up checks the actual
/// length. A fixed one may not be declared dynamic.
fn agrees(spec: &TensorSpec, found: &ValueType) -> bool {
    let ValueType::Tensor { ty, shape, .. } = found else { return false };
    let dtype = match ty {
        TensorElementType::Uint8 => Dtype::U8,
        TensorElementType::Int64 => Dtype::I64,
        TensorElementType::Float32 => Dtype::F32,
        _ => return false,
    };
    let open = |length: i64| length < 0;
    dtype == spec.dtype
        && shape.len() == spec.shape.len() + 1
        && open(shape[0])
        && spec.shape.iter().zip(&shape[1..]).all(|(dim, &length)| match dim {
            Dim::Fixed(fixed) => open(length) || *fixed as i64 == length,
            Dim::Dynamic => open(length),
        })
}

/// Runs the graph at these batch sizes, which include the largest.
///
/// Memory is allocated and kernels are chosen here. A graph that does not match its manifest fails
/// the start and not the first request.
fn warm_up(
    backend: &mut impl Backend,
    spec: &GraphSpec,
    mut sizes: Vec<usize>,
) -> Result<(), StartError> {
    let item = spec.sample();
    sizes.dedup();
    for batch in sizes {
        let failed = |problem: String| StartError::Warmup {
            graph: spec.role.clone(),
            file: spec.file().to_owned(),
            batch,
            problem,
        };
        let results =
            backend.run(&vec![item.clone(); batch]).map_err(|error| failed(error.to_string()))?;
        if results.len() != batch {
            return Err(failed(format!("{} results", results.len())));
        }
        if let Some(output) = results.iter().find_map(Features::not_finite) {
            return Err(failed(format!("output `{output}` has values that are not finite")));
        }
    }
    Ok(())
}
