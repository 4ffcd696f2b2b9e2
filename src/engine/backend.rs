//! The interface between batching and inference.

use super::config::Provider;
use super::error::BackendError;
use crate::tensor::{Features, Tensor};

/// Runs batches through one resident graph. One thread at a time owns it.
pub trait Backend: Send {
    /// Runs items of equal shapes together and returns one result per item, in order.
    ///
    /// Every item is a list of tensors in the graph's input order. A batch has at least one item
    /// and at most `max_batch` of the graph.
    fn run(&mut self, batch: &[Vec<Tensor>]) -> Result<Vec<Features>, BackendError>;

    /// Returns the execution provider that runs the graph.
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
