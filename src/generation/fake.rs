//! A generator without weights, for tests: the demo pack's manifest and tokenizer with fakes for
//! its graphs.

use std::sync::Arc;

use prometheus::Registry;

use super::Generator;
use crate::engine::fake::{FakeBackend, FakeControl};
use crate::engine::pack::generator_roles as roles;
use crate::engine::{
    Backend, BackendError, Engine, EngineConfig, EngineTelemetry, GraphSpec, Pack,
};
use crate::tensor::{Features, Output, Tensor};
use crate::vision::DecodeLimits;

/// A generator with fakes, and the control of its denoiser.
pub(crate) struct Fakes {
    pub(crate) generator: Generator,
    /// Records the batches of the denoiser, and holds them.
    pub(crate) denoiser: FakeControl,
    /// Records the batches of all other graphs.
    pub(crate) others: FakeControl,
}

pub(crate) fn demo_pack() -> Pack {
    Pack::open(concat!(env!("CARGO_MANIFEST_DIR"), "/packs/demo-generator")).unwrap()
}

pub(crate) fn fakes() -> Fakes {
    let (denoiser, others) = (FakeControl::default(), FakeControl::default());
    let pack = demo_pack();
    let telemetry = EngineTelemetry::register(&Registry::new()).unwrap();
    // Long enough for both items of a step on a busy machine.
    let config = EngineConfig { max_delay_ms: 20, ..EngineConfig::default() };
    let engine = Engine::with_backends(&pack.graphs, &config, &telemetry, |spec| {
        let control = if spec.role == roles::DENOISER { &denoiser } else { &others };
        Box::new(Fake { spec: spec.clone(), inner: FakeBackend::new(spec, control.clone()) })
    });
    let limits = DecodeLimits::default();
    let generator = Generator::new(engine.unwrap(), Arc::new(pack), limits).unwrap();
    Fakes { generator, denoiser, others }
}

/// Outputs of the sizes that an item asks for.
struct Fake {
    spec: GraphSpec,
    inner: FakeBackend,
}

impl Backend for Fake {
    fn run(&mut self, batch: &[Vec<Tensor>]) -> Result<Vec<Features>, BackendError> {
        let results = self.inner.run(batch)?;
        Ok(match self.spec.role.as_str() {
            roles::DENOISER => batch.iter().map(|item| noise(item)).collect(),
            roles::DECODER => batch.iter().map(|item| pixels(&item[0])).collect(),
            _ => results,
        })
    }
}

fn floats(tensor: &Tensor) -> &[f32] {
    let Tensor::F32 { data, .. } = tensor else { panic!("{tensor:?} is not f32") };
    data
}

/// Half of the sample, moved by everything else.
fn noise(item: &[Tensor]) -> Features {
    let weighted = |tensor: &Tensor| -> f32 {
        floats(tensor).iter().enumerate().map(|(at, x)| x * (1.0 + (at % 7) as f32)).sum()
    };
    let moved: f32 = item[1..].iter().map(|tensor| weighted(tensor).sin()).sum();
    let data = floats(&item[0]).iter().map(|x| 0.5 * x + 0.1 * moved).collect();
    Features::new(vec![("noise".into(), Output { shape: item[0].shape().to_vec(), data })])
}

/// The first three channels of the latents, eight pixels each.
fn pixels(latents: &Tensor) -> Features {
    let [_, rows, columns] = *latents.shape() else { panic!("{latents:?}") };
    let data = floats(latents);
    let (height, width) = (8 * rows, 8 * columns);
    let image = (0..3 * height * width).map(|at| {
        let (channel, y, x) = (at / (height * width), at / width % height, at % width);
        (0.1 * data[(channel * rows + y / 8) * columns + x / 8]).tanh()
    });
    let output = Output { shape: vec![3, height, width], data: image.collect() };
    Features::new(vec![("image".into(), output)])
}
