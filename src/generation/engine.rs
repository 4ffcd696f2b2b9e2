//! The settings of a generator's engine.

use crate::engine::{Batching, EngineConfig};

/// Items of one step of an image: with the prompt and without it.
const PAIR: usize = 2;

/// Wait for further items, in milliseconds. Both items of a step come within microseconds, and a
/// step takes far longer.
const PATIENCE: u64 = 1;

/// Returns the settings of the engine with which a seed gives the same bytes, whatever shares the
/// batch.
///
/// All batches have one size: the configured `max_batch`, or two, which is one step of an image.
/// With batches of several sizes, the words of a photo differ in the last bit, and after some steps
/// a few bytes of the image. Another `max_batch` may give other last bits for the same reason.
/// Larger batches pay where two items do not occupy the device: small images on a GPU.
#[must_use]
pub fn engine_config(config: &EngineConfig) -> EngineConfig {
    EngineConfig {
        batching: Batching::Fixed,
        max_batch: if config.max_batch == 0 { PAIR } else { config.max_batch },
        max_delay_ms: config.max_delay_ms.max(PATIENCE),
        ..config.clone()
    }
}
