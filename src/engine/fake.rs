//! A backend without weights, for fast tests of the code around graphs.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::backend::Backend;
use super::error::BackendError;
use super::pack::{
    Dim, FileSpec, GraphKind, GraphSpec, Precision, Sha, SourceSpec, TensorSpec, TextSpec,
};
use crate::content::ContentHash;
use crate::sync::lock;
use crate::tensor::{Dtype, Features, Output, Tensor};
use crate::text::Cleaning;
use crate::vision::{CropRounding, Filter, Geometry};

/// A backend that computes the declared outputs of a graph from a hash of each item.
///
/// Equal inputs have equal features, different inputs have different ones, and vectors have unit
/// length.
#[derive(Debug, Clone)]
pub struct FakeBackend {
    outputs: FakeOutputs,
    control: FakeControl,
    /// Number of times that the sessions had been broken when this one was opened.
    opened: u32,
}

/// Controls and records the runs of a [`FakeBackend`]. Clones share their state.
#[derive(Debug, Clone, Default)]
pub struct FakeControl(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    delay: Duration,
    held: bool,
    behaviour: Vec<(Trouble, Vec<Tensor>)>,
    always: Option<Trouble>,
    largest_that_works: Option<usize>,
    broken: u32,
    batches: Vec<Vec<Vec<Tensor>>>,
}

/// A simulated failure of an item or a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The run fails.
    Fails,
    /// The run panics.
    Panics,
    /// The item's outputs are NaN.
    NotANumber,
    /// The run returns one result too few.
    Miscounts,
}

impl FakeBackend {
    /// Creates a backend with the outputs of `spec`. Dynamic dimensions get length one.
    #[must_use]
    pub fn new(spec: &GraphSpec, control: FakeControl) -> Self {
        let opened = control.lock().broken;
        Self { outputs: FakeOutputs::new(spec), control, opened }
    }
}

/// The declared outputs of a graph.
#[derive(Debug, Clone)]
pub(super) struct FakeOutputs(Vec<(Arc<str>, TensorSpec)>);

impl FakeOutputs {
    pub(super) fn new(spec: &GraphSpec) -> Self {
        let outputs =
            spec.outputs.iter().map(|output| (output.name.as_str().into(), output.clone()));
        Self(outputs.collect())
    }

    /// Computes the outputs from a hash of the item.
    pub(super) fn features(&self, item: &[Tensor]) -> Features {
        self.of(|name, length| values(item, name, length))
    }

    fn of(&self, values: impl Fn(&str, usize) -> Vec<f32>) -> Features {
        let outputs = self.0.iter().map(|(name, spec)| {
            let length = |dim: &Dim| match dim {
                Dim::Fixed(length) => *length,
                Dim::Dynamic => 1,
            };
            let shape: Vec<usize> = spec.shape.iter().map(length).collect();
            let data = values(name, shape.iter().product());
            (Arc::clone(name), Output { shape, data })
        });
        Features::new(outputs.collect())
    }
}

impl Backend for FakeBackend {
    fn run(&mut self, batch: &[Vec<Tensor>]) -> Result<Vec<Features>, BackendError> {
        let mut state = self.control.lock();
        state.batches.push(batch.to_vec());
        while state.held {
            state = self.control.0.1.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let delay = state.delay;
        drop(state);
        thread::sleep(delay);
        if self.control.lock().broken > self.opened {
            return Err(BackendError::Run("the session is broken".into()));
        }
        let too_large =
            self.control.lock().largest_that_works.filter(|&largest| batch.len() > largest);
        if let Some(largest) = too_large {
            return Err(BackendError::Run(format!("out of memory above a batch of {largest}")));
        }
        let troubles: Vec<_> = batch.iter().map(|item| self.control.trouble(item)).collect();
        let any = |trouble| troubles.contains(&Some(trouble));
        assert!(!any(Trouble::Panics), "told to panic");
        if any(Trouble::Fails) {
            return Err(BackendError::Run("told to fail".into()));
        }
        let mut results: Vec<_> = batch
            .iter()
            .zip(&troubles)
            .map(|(item, trouble)| match trouble {
                Some(Trouble::NotANumber) => self.outputs.of(|_, length| vec![f32::NAN; length]),
                _ => self.outputs.features(item),
            })
            .collect();
        if any(Trouble::Miscounts) {
            results.pop();
        }
        Ok(results)
    }
}

impl FakeControl {
    /// Blocks all runs, including one in flight, until [`release`](Self::release).
    ///
    /// Tests use it to order events without depending on the speed of the machine.
    pub fn hold(&self) {
        self.lock().held = true;
    }

    /// Unblocks all runs.
    pub fn release(&self) {
        self.lock().held = false;
        self.0.1.notify_all();
    }

    /// Makes every further run take at least this long.
    pub fn delay(&self, delay: Duration) {
        self.lock().delay = delay;
    }

    /// Makes batches with this item fail in this way.
    pub fn trouble_with(&self, item: Vec<Tensor>, trouble: Trouble) {
        self.lock().behaviour.push((trouble, item));
    }

    /// Makes all batches fail in this way, or ends that.
    pub fn always(&self, trouble: Option<Trouble>) {
        self.lock().always = trouble;
    }

    /// Makes all sessions that are open fail from now on. Those opened later work.
    pub fn break_sessions(&self) {
        self.lock().broken += 1;
    }

    /// Makes batches larger than this fail, as if the device were out of memory.
    pub fn fail_above(&self, largest: usize) {
        self.lock().largest_that_works = Some(largest);
    }

    /// Returns all batches that were run, in order.
    #[must_use]
    pub fn batches(&self) -> Vec<Vec<Vec<Tensor>>> {
        self.lock().batches.clone()
    }

    /// Returns the sizes of all batches that were run, in order.
    #[must_use]
    pub fn sizes(&self) -> Vec<usize> {
        self.lock().batches.iter().map(Vec::len).collect()
    }

    fn trouble(&self, item: &[Tensor]) -> Option<Trouble> {
        let state = self.lock();
        let own = state.behaviour.iter().find(|(_, bad)| bad == item).map(|(trouble, _)| *trouble);
        own.or(state.always)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0.0)
    }
}

/// Values in [-1, 1] that depend on the item and the output's name. Two or more have unit length.
fn values(item: &[Tensor], name: &str, length: usize) -> Vec<f32> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(name.as_bytes());
    for tensor in item {
        hasher.update(format!("{tensor:?}").as_bytes());
        match tensor {
            Tensor::U8 { data, .. } => {
                hasher.update(data);
            }
            Tensor::I64 { data, .. } => {
                for id in &**data {
                    hasher.update(&id.to_le_bytes());
                }
            }
            Tensor::F32 { data, .. } => {
                for value in &**data {
                    hasher.update(&value.to_le_bytes());
                }
            }
        }
    }
    let mut bytes = vec![0; length * 2];
    hasher.finalize_xof().fill(&mut bytes);
    let mut values: Vec<f32> = bytes
        .chunks_exact(2)
        .map(|pair| f32::from(i16::from_le_bytes([pair[0], pair[1]])) / 32_768.0)
        .collect();
    if length > 1 {
        let norm =
            values.iter().map(|value| value * value).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
        for value in &mut values {
            *value /= norm;
        }
    }
    values
}

/// Returns the graphs of a small CLIP pack for tests.
///
/// `clip.image` and `clip.text` have embeddings of 8 values, `clip_l.image` has 6 and an aesthetic
/// score. Images have 4 × 4 pixels, texts at most 16 tokens.
#[must_use]
pub fn clip_graphs() -> Vec<GraphSpec> {
    let embedding = |length| tensor("embedding", Dtype::F32, &[length]);
    vec![
        image("clip.image", vec![embedding(8)]),
        text("clip.text", vec![embedding(8)]),
        image("clip_l.image", vec![embedding(6), tensor("aesthetic", Dtype::F32, &[])]),
    ]
}

/// Returns an image graph of 4 × 4 pixels for tests.
#[must_use]
pub fn image(role: &str, outputs: Vec<TensorSpec>) -> GraphSpec {
    let geometry =
        Geometry::ShortestEdge { size: 4, filter: Filter::Bicubic, crop: CropRounding::Floor };
    let inputs = vec![tensor("pixels", Dtype::U8, &[4, 4, 3])];
    GraphSpec { geometry: Some(geometry), ..graph(role, GraphKind::Image, inputs, outputs) }
}

/// Returns a text graph for tests, for up to 16 tokens.
#[must_use]
pub fn text(role: &str, outputs: Vec<TensorSpec>) -> GraphSpec {
    let text =
        TextSpec { tokenizer: "clip".into(), cleaning: Cleaning::HfSlow, context: 16, pad: 49407 };
    let inputs = vec![tensor("input_ids", Dtype::I64, &[-1])];
    GraphSpec { text: Some(text), ..graph(role, GraphKind::Text, inputs, outputs) }
}

/// Returns a declared tensor. -1 means any length; other lengths must be positive.
#[must_use]
pub fn tensor(name: &str, dtype: Dtype, shape: &[i64]) -> TensorSpec {
    let dim = |&length: &i64| Dim::try_from(length).unwrap_or(Dim::Dynamic);
    TensorSpec { name: name.into(), dtype, shape: shape.iter().map(dim).collect() }
}

fn graph(
    role: &str,
    kind: GraphKind,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
) -> GraphSpec {
    GraphSpec {
        role: role.into(),
        kind,
        precision: Precision::Fp32,
        flops: None,
        max_batch: 4,
        // Weights differ by role, as if each graph had its own file.
        files: vec![FileSpec {
            path: format!("{role}.onnx").into(),
            sha256: Sha::of(role.as_bytes()),
        }],
        source: SourceSpec {
            checkpoint: "fake".into(),
            revision: "local".into(),
            file: None,
            sha256: Some(Sha::of(ContentHash::of(role.as_bytes()).as_bytes())),
        },
        inputs,
        outputs,
        geometry: None,
        text: None,
        backend: None,
        labels: None,
    }
}
