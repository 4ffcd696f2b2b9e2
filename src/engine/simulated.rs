//! An engine without weights that takes as long as a device would, to load a service or a cluster.
//!
//! Its numbers are functions of the inputs and mean nothing. Packs under it have another name and
//! digest, so that its scores never mix with real ones.

use std::path::Path;
use std::thread;
use std::time::Duration;

use super::backend::Backend;
use super::config::{EngineConfig, Provider};
use super::engine::Engine;
use super::error::{BackendError, StartError};
use super::fake::FakeOutputs;
use super::health::Residency;
use super::pack::{Pack, Sha};
use super::telemetry::EngineTelemetry;
use crate::pack_id::Weights;
use crate::tensor::{Features, Tensor};

/// A graph that computes its outputs from a hash of each item, some time after it was asked to.
struct Simulated {
    outputs: FakeOutputs,
    /// Time of one item.
    time: Duration,
}

impl Backend for Simulated {
    fn run(&mut self, batch: &[Vec<Tensor>]) -> Result<Vec<Features>, BackendError> {
        thread::sleep(self.time * batch.len() as u32);
        Ok(batch.iter().map(|item| self.outputs.features(item)).collect())
    }
}

/// A graph that is loaded by workers.
struct Elsewhere;

impl Backend for Elsewhere {
    fn run(&mut self, _: &[Vec<Tensor>]) -> Result<Vec<Features>, BackendError> {
        Err(BackendError::Run("the graph is not loaded in this process".into()))
    }
}

impl Pack {
    /// Marks the pack as one whose numbers come from a simulated engine.
    pub(crate) fn simulate(&mut self) {
        self.name.push_str("-simulated");
        self.weights = Weights::Demo;
        self.digest = Sha::of(&[self.digest.as_bytes(), b"simulated".as_slice()].concat());
    }
}

impl Engine {
    /// Starts lanes that take `config.simulated_ms` a sample. Each graph has an equal share of it.
    pub(crate) fn simulated(
        pack: &Pack,
        config: &EngineConfig,
        telemetry: &EngineTelemetry,
    ) -> Result<Self, StartError> {
        config.validate()?;
        let share = config.simulated_ms / 1e3 / pack.graphs.len().max(1) as f64;
        let time = Duration::try_from_secs_f64(share).unwrap_or_default();
        Self::build(&pack.graphs, &pack.dir, Provider::Cpu, config, telemetry, |spec| {
            Ok((Box::new(Simulated { outputs: FakeOutputs::new(spec), time }), None))
        })
    }

    /// Knows the graphs of a pack and loads none: workers have them.
    pub(crate) fn elsewhere(
        pack: &Pack,
        config: &EngineConfig,
        telemetry: &EngineTelemetry,
    ) -> Result<Self, StartError> {
        config.validate()?;
        let engine =
            Self::build(&pack.graphs, Path::new(""), Provider::Cpu, config, telemetry, |_| {
                Ok((Box::new(Elsewhere), None))
            })?;
        engine.residence.leave();
        Ok(engine)
    }

    /// Returns whether this process has the graphs.
    #[must_use]
    pub fn has_graphs(&self) -> bool {
        self.residency() != Residency::Elsewhere
    }
}
