//! The settings of a generator's engine.

use crate::engine::{Batching, EngineConfig};

/// Wait for further items, in milliseconds. Both items of a step come within microseconds, and a
/// step takes far longer.
const PATIENCE: u64 = 1;

/// Returns the settings of the engine with which a seed gives the same bytes, whatever shares the
/// batch.
///
/// All batches have `max_batch` rows (`generator.max_batch`): two are one step of an image. With
/// batches of several sizes, the words of a photo differ in the last bit, and after some steps a
/// few bytes of the image. Another `max_batch` may give other last bits for the same reason.
#[must_use]
pub fn engine_config(config: &EngineConfig, max_batch: usize) -> EngineConfig {
    EngineConfig {
        batching: Batching::Fixed,
        max_batch,
        max_delay_ms: config.max_delay_ms.max(PATIENCE),
        ..config.clone()
    }
}
