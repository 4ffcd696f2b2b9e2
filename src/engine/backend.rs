//! The seam between batching and arithmetic.

use super::config::Provider;
use super::error::BackendError;
use crate::tensor::{Features, Tensor};

/// Runs batches through one resident graph; owned by one thread at a time.
pub trait Backend: Send {
    /// Runs items of equal shapes together and gives one result per item, in order.
    ///
    /// Every item is a list of tensors in the graph's input order. A batch is never empty and never
    /// larger than the graph's largest batch.
    fn run(&mut self, batch: &[Vec<Tensor>]) -> Result<Vec<Features>, BackendError>;

    /// What computes.
    fn provider(&self) -> Provider {
        Provider::Cpu
    }
}

impl<B: Backend + ?Sized> Backend for Box<B> {
    fn run(&mut self, batch: &[Vec<Tensor>]) -> Result<Vec<Features>, BackendError> {
        (**self).run(batch)
    }

    fn provider(&self) -> Provider {
        (**self).provider()
    }
}
