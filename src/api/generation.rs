//! The generator as a part of the service's state, with its own bounds.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::http::ApiError;
use crate::{
    config,
    content::ContentHash,
    generation::Generator,
    scoring::Evict,
    telemetry::{Bound, GenerationTelemetry},
};

/// The generator of the service, with its own bounds.
#[derive(Clone)]
pub(super) struct Generation {
    generator: Arc<Generator>,
    places: Arc<Semaphore>,
    pub(super) deadline: Duration,
    pub(super) bounds: Bounds,
    pub(super) telemetry: GenerationTelemetry,
}

impl Generation {
    pub(super) fn new(
        generator: Arc<Generator>,
        config: &config::Generator,
        telemetry: GenerationTelemetry,
    ) -> Self {
        telemetry.limit.set(config.concurrency as i64);
        Self {
            generator,
            places: Arc::new(Semaphore::new(config.concurrency)),
            deadline: config.deadline(),
            bounds: Bounds { most_steps: config.most_steps, largest_side: config.largest_side },
            telemetry,
        }
    }

    pub(super) fn generator(&self) -> &Arc<Generator> {
        &self.generator
    }

    /// Refuses a request before its body is read if no place is free.
    pub(super) fn room(&self) -> Result<(), ApiError> {
        if self.places.available_permits() == 0 { Err(full()) } else { Ok(()) }
    }

    /// Takes a place, or fails at once if none is free.
    pub(super) fn enter(&self) -> Result<Place, ApiError> {
        let permit = Arc::clone(&self.places).try_acquire_owned().map_err(|_| full())?;
        self.telemetry.in_flight.inc();
        Ok(Place { _permit: permit, telemetry: self.telemetry.clone() })
    }
}

/// Bounds of a request, in addition to those of the pack.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// `generator.most_steps`.
    pub(super) most_steps: usize,
    /// `generator.largest_side`.
    pub(super) largest_side: usize,
}

/// A request's place among the images that are generated concurrently, released on drop.
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    telemetry: GenerationTelemetry,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.telemetry.in_flight.dec();
    }
}

fn full() -> ApiError {
    let problem = "the limit of images that are generated concurrently is reached \
        (generator.concurrency); retry after a moment";
    ApiError::overloaded(problem).at(Bound::Generations)
}

impl Evict for Generator {
    fn evict(&self, images: &HashSet<ContentHash>) -> u64 {
        self.engine().forget(images)
    }

    fn evict_all(&self) {
        self.engine().forget_all();
    }
}
