//! The settings of a generator's engine.

use crate::engine::{Batching, EngineConfig, StartError, examine};

/// Items of one step of an image: with the prompt and without it.
const PAIR: usize = 2;

/// Wait for further items, in milliseconds. Both items of a step come within microseconds, and a
/// step takes far longer.
const PATIENCE: u64 = 1;

/// Returns the settings of the engine with which a seed gives the same bytes, whatever shares the
/// batch.
///
/// On a CPU, rows of a batch do not depend on its size: measured bit by bit on the demo pack, and
/// on matrix products of SDXL's widths. On a GPU they do, so batches have one size there: the
/// configured `max_batch`, or two, since two images of 1024 × 1024 pixels occupy a GPU. Another
/// `max_batch` may give other last bits.
///
/// # Errors
/// A setting is out of range, or the runtime or the provider does not work.
pub fn engine_config(config: &EngineConfig) -> Result<EngineConfig, StartError> {
    let mut config = config.clone();
    if config.max_delay_ms == 0 {
        config.max_delay_ms = PATIENCE;
    }
    if examine(&config)?.provider.is_gpu() {
        config.batching = Batching::Fixed;
        if config.max_batch == 0 {
            config.max_batch = PAIR;
        }
    }
    Ok(config)
}
