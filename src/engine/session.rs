//! ONNX Runtime: the only place that knows it.

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

/// The library that this process has loaded, with the one environment it may have. It is never
/// unloaded: sessions of an engine that was dropped may still be on their way out.
static LOADED: Mutex<Option<(PathBuf, ort::environment::Environment)>> = Mutex::new(None);

/// A loaded ONNX Runtime with the options that all sessions share.
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
    /// Loads the library, once a process, and checks that the provider works that is asked for, or finds out which does.
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
                "CUDA libraries beside the program"
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
                    "there is an NVIDIA driver, and CUDA cannot be used: the processor computes"
                );
                runtime.provider = Provider::Cpu;
                runtime.threads = config.parallelism(Provider::Cpu).threads;
                runtime.pad = config.pad_batches;
            }
            Err(problem) => return Err(StartError::Provider { provider: asked.name(), problem }),
        }
        tracing::info!(provider = runtime.provider.name(), asked = ?config.provider, "graphs run there");
        Ok(runtime)
    }

    /// What computes the graphs that are not kept on the processor.
    pub(crate) fn provider(&self) -> Provider {
        self.provider
    }

    /// Runs a convolution: what the provider opens only when it needs it, as cuDNN, is missed now and not by a request.
    fn probe(&self) -> Result<(), String> {
        let compiled_in = match self.provider {
            Provider::Cpu => return Ok(()),
            Provider::Cuda => ep::CUDA::is_available(),
            Provider::TensorRt => ep::TensorRT::is_available(),
        };
        match compiled_in {
            Ok(true) => {}
            Ok(false) => return Err("this build of ONNX Runtime does not have it".to_owned()),
            Err(error) => return Err(error.to_string()),
        }
        self.convolve(self.provider)
    }

    /// 3 × 3 ones over 4 channels of ones: 36 everywhere.
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
                let results =
                    session.run(ort::inputs!["x" => ones([1, 4, 8, 8])?, "w" => ones([4, 4, 3, 3])?])?;
                Ok(results["y"].try_extract_tensor::<f32>()?.1.to_vec())
            });
        match found {
            Ok(numbers)
                if numbers.len() == 144 && numbers.iter().all(|number| (number - 36.0).abs() < 1e-3) =>
            {
                Ok(())
            }
            Ok(numbers) => Err(format!("a convolution of ones gives {:?} and not 36", numbers.first())),
            Err(error) => Err(error.to_string()),
        }
    }

    /// What computes a graph of these roles, joined by `+`.
    fn provider_of(&self, roles: &str) -> Provider {
        let stays = |role: &str| self.cuda.cpu_graphs.iter().any(|stays| stays == role);
        if roles.split('+').any(stays) { Provider::Cpu } else { self.provider }
    }

    fn providers(&self, provider: Provider) -> Vec<ExecutionProviderDispatch> {
        // An error, not the silent fall back to the CPU that is the runtime's default.
        let cuda = || self.cuda.provider(self.device_id).build().error_on_failure();
        let tensorrt = || ep::TensorRT::default().with_device_id(self.device_id).build().error_on_failure();
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
        builder.and_then(|mut builder| builder.commit_from_file(file)).map_err(|error| error.to_string())
    }

    fn builder(&self, provider: Provider) -> ort::Result<SessionBuilder> {
        Ok(Session::builder(&self.environment)?
            .with_intra_threads(self.threads)?
            .with_inter_threads(1)?
            // Waiting threads that spin take the cores from those that work: with as many lanes as
            // cores, throughput halves.
            .with_intra_op_spinning(false)?
            .with_inter_op_spinning(false)?
            // A memory pattern is kept for every shape that was ever seen, and batches vary.
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
            return Err(unusable(format!("this process has loaded {} already", have.display())));
        }
        None => {}
    }
    let environment = ort::init_from(path)
        .map_err(|error| unusable(error.to_string()))?
        .with_name("stellar-score")
        .with_telemetry(false)
        .build()
        .map_err(|error| unusable(error.to_string()))?;
    // Else every session formats its debug messages only for them to be filtered out afterwards.
    environment.set_log_level(ort::logging::LogLevel::Warning);
    tracing::info!(library = %path.display(), build = ort::info(), "ONNX Runtime loaded");
    *loaded = Some((path.to_owned(), environment.clone()));
    Ok(environment)
}

/// The environment that this process has, for benchmarks that call a session without an engine.
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
    /// The batches that the graph is run with, ascending; smaller ones are filled up. Empty where any batch will do.
    buckets: Vec<usize>,
    inputs: Vec<TensorSpec>,
    outputs: Vec<(Arc<str>, TensorSpec)>,
    /// Where items are stacked, one for each input; kept so that a batch allocates nothing.
    stacks: Vec<Stack>,
    /// What a run gives back memory with; only while the graph is warmed up.
    shrinking: Option<RunOptions>,
}

/// Lets an arena give back, at the end of a run, the regions that are free.
const SHRINKING: &str = "memory.enable_memory_arena_shrinkage";

#[derive(Default)]
struct Stack {
    bytes: Vec<u8>,
    ids: Vec<i64>,
    floats: Vec<f32>,
}

impl OnnxBackend {
    /// Loads a graph, compares its signature with the manifest, and warms it up.
    pub(crate) fn load(runtime: &Runtime, spec: &GraphSpec) -> Result<Self, StartError> {
        let provider = runtime.provider_of(&spec.role);
        let session = runtime.session(spec.file(), provider).map_err(|problem| StartError::Load {
            graph: spec.role.clone(),
            file: spec.file().to_owned(),
            problem,
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
        let sizes =
            if backend.buckets.is_empty() { vec![1, spec.max_batch] } else { backend.buckets.clone() };
        warm_up(&mut backend, spec, sizes)?;
        backend.give_back(spec)?;
        Ok(backend)
    }

    /// Gives back what the largest batch took: most graphs seldom see one, and what they need they take again within a run.
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
            Err(error) => tracing::debug!(%error, "arenas keep what the warm-up took"),
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
        let rows = self.buckets.iter().copied().find(|rows| *rows >= batch.len()).unwrap_or(batch.len());
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
            let (shape, data) =
                result.try_extract_tensor::<f32>().map_err(|error| wrong(spec, error.to_string()))?;
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
    /// Input `at` of every item as one tensor of so many rows; the last item is repeated in those that are left.
    fn fill<'a>(
        &'a mut self,
        batch: &'a [Vec<Tensor>],
        rows: usize,
        at: usize,
        spec: &TensorSpec,
    ) -> Result<SessionInputValue<'a>, BackendError> {
        let missing = || BackendError::Output { expected: spec.to_string(), found: "no tensor".into() };
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

/// The parts one after the other, the last as often as there are rows left; a single part for a single row is not copied.
fn stack<'a, T: Copy>(parts: impl Iterator<Item = &'a [T]>, rows: usize, into: &'a mut Vec<T>) -> &'a [T] {
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

/// The powers of two below the largest batch, and that one.
fn buckets(largest: usize) -> Vec<usize> {
    let powers = std::iter::successors(Some(1_usize), |power| power.checked_mul(2));
    powers.take_while(|power| *power < largest).chain([largest]).collect()
}

fn view<'a, T>(shape: Vec<i64>, data: &'a [T]) -> Result<SessionInputValue<'a>, BackendError>
where
    T: ort::value::PrimitiveTensorElementType + std::fmt::Debug + 'static,
    (Vec<i64>, &'a [T]): ort::value::TensorArrayData<T>,
{
    // The runtime compares the shape with the number of elements.
    TensorRef::from_array_view((shape, data))
        .map(Into::into)
        .map_err(|error| BackendError::Run(error.to_string()))
}

/// The shape of one item's output, once the batch's shape has proved to be what was declared.
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

/// Compares what the file takes and gives with what the manifest declares.
fn check_signature(session: &Session, spec: &GraphSpec) -> Result<(), StartError> {
    let differs = |expected: String, found: String| {
        let (graph, file) = (spec.role.clone(), spec.file().to_owned());
        Err(StartError::Signature { graph, file, expected, found })
    };
    let undeclared = |outlet: &&Outlet| !spec.inputs.iter().any(|input| input.name == outlet.name());
    if let Some(extra) = session.inputs().iter().find(undeclared) {
        return differs(format!("inputs {}", spec.signature()), format!("a further input {}", outlet(extra)));
    }
    let inputs = spec.inputs.iter().map(|tensor| ("input", tensor, session.inputs()));
    let outputs = spec.outputs.iter().map(|tensor| ("output", tensor, session.outputs()));
    for (what, tensor, outlets) in inputs.chain(outputs) {
        match outlets.iter().find(|outlet| outlet.name() == tensor.name) {
            Some(found) if agrees(tensor, found.dtype()) => {}
            Some(found) => return differs(format!("{what} {tensor} after the batch"), outlet(found)),
            None => {
                let names: Vec<_> = outlets.iter().map(outlet).collect();
                return differs(format!("{what} {tensor}"), format!("only {}", names.join(" and ")));
            }
        }
    }
    Ok(())
}

fn outlet(outlet: &Outlet) -> String {
    format!("`{}` {}", outlet.name(), outlet.dtype())
}

/// Whether a graph's tensor can be what is declared. A length that the graph leaves open may be declared
/// fixed (the warm-up sees what really comes out); one that the graph fixes may not be declared open.
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

/// Runs the graph at these batches, the largest among them: memory is taken and kernels are chosen now, and a
/// graph that cannot do what it says stops the start and not the first request.
fn warm_up(backend: &mut impl Backend, spec: &GraphSpec, mut sizes: Vec<usize>) -> Result<(), StartError> {
    let item = spec.sample();
    sizes.dedup();
    for batch in sizes {
        let failed = |problem: String| StartError::Warmup {
            graph: spec.role.clone(),
            file: spec.file().to_owned(),
            batch,
            problem,
        };
        let results = backend.run(&vec![item.clone(); batch]).map_err(|error| failed(error.to_string()))?;
        if results.len() != batch {
            return Err(failed(format!("{} results", results.len())));
        }
        if let Some(output) = results.iter().find_map(Features::not_finite) {
            return Err(failed(format!("output `{output}` has values that are not finite")));
        }
    }
    Ok(())
}
