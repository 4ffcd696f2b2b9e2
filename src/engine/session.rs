//! Sessions of ONNX Runtime. Only this module, `runtime.rs` and `cuda.rs` use it.

use std::sync::Arc;

use ort::session::{RunOptions, Session, SessionInputValue};
use ort::value::{Outlet, TensorElementType, TensorRef, ValueType};

use super::backend::Backend;
use super::config::{Batching, Provider};
use super::error::{BackendError, StartError};
use super::pack::{Dim, GraphSpec, TensorSpec};
use crate::tensor::{Dtype, Features, Output, Tensor};

mod runtime;
#[cfg(test)]
mod tests;
mod tiny;

pub(crate) use runtime::Runtime;
pub use runtime::onnx_environment;

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
            buckets: match runtime.batching {
                Batching::Fixed => vec![spec.max_batch],
                Batching::Dynamic if runtime.pad => buckets(spec.max_batch),
                Batching::Dynamic => Vec::new(),
            },
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
            Some(found) if agrees(tensor, spec.max_batch, found.dtype()) => {}
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
/// length. A fixed one may not be declared dynamic. The batch may be fixed to 1 if no larger one is
/// declared.
fn agrees(spec: &TensorSpec, max_batch: usize, found: &ValueType) -> bool {
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
        && (open(shape[0]) || (shape[0] == 1 && max_batch == 1))
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
