//! The generator: an engine with the graphs of a generator pack.

use std::sync::Arc;

use serde_json::Value;
use stellar_diffusion::Schedule;

use super::GenerationError;
use super::picture::ImageProvenance;
use super::request::Settings;
use super::tower::{Tower, tower};
use crate::engine::pack::{GeneratorSpec, generator_roles as roles};
use crate::engine::{Engine, Pack};
use crate::scoring::DecodeBudget;
use crate::vision::DecodeLimits;

/// Memory for decoding photos outside of a service, in bytes.
const PIXEL_BYTES: u64 = 1 << 30;

/// Generates images with the graphs of one pack.
pub struct Generator {
    pub(super) engine: Engine,
    pub(super) spec: GeneratorSpec,
    pub(super) towers: [Tower; 2],
    pub(super) limits: DecodeLimits,
    pub(super) budget: DecodeBudget,
    pack: Arc<Pack>,
    pub(super) schedule: Schedule,
    training: Option<Value>,
}

impl Generator {
    /// Creates the generator on a started engine of the pack.
    ///
    /// # Errors
    /// The pack does not generate images, or a file of it cannot be used.
    pub fn new(
        engine: Engine,
        pack: Arc<Pack>,
        limits: DecodeLimits,
    ) -> Result<Self, GenerationError> {
        let Some(spec) = pack.generator.clone() else {
            return Err(GenerationError::NoGenerator { pack: pack.name.clone() });
        };
        let schedule = pack.read_generator_file(&spec.scheduler)?;
        let schedule = Schedule::parse(&schedule)
            .map_err(|error| pack.invalid_generator(&spec.scheduler, &error.to_string()))?;
        let training = match &spec.training {
            None => None,
            Some(file) => Some(
                serde_json::from_str(&pack.read_generator_file(file)?)
                    .map_err(|error| pack.invalid_generator(file, &error.to_string()))?,
            ),
        };
        let towers = [tower(&pack, roles::TEXT_1)?, tower(&pack, roles::TEXT_2)?];
        let budget = DecodeBudget::new(PIXEL_BYTES);
        Ok(Self { engine, spec, towers, limits, budget, pack, schedule, training })
    }

    /// Decodes photos within the budget of a service, instead of one of its own.
    #[must_use]
    pub fn with_decode_budget(self, budget: DecodeBudget) -> Self {
        Self { budget, ..self }
    }

    /// The pack that images are generated with.
    #[must_use]
    pub fn pack(&self) -> &Arc<Pack> {
        &self.pack
    }

    /// The underlying engine, for health and status.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The pack's `[generator]` table.
    #[must_use]
    pub fn spec(&self) -> &GeneratorSpec {
        &self.spec
    }

    /// What the weights were trained on, if they were: the content of `training.json`.
    #[must_use]
    pub fn training(&self) -> Option<&Value> {
        self.training.as_ref()
    }

    /// Returns where an image with these settings is from.
    #[must_use]
    pub fn provenance(&self, settings: Settings) -> ImageProvenance {
        ImageProvenance::new(self.spec.system.clone(), self.pack.id(), settings)
    }
}
