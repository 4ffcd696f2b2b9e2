//! R-Net and O-Net on the CPU's vector units, crop by crop.
//!
//! R-Net judges hundreds of crops of 24×24 per image. As a graph, most of the cost is `PReLU` in
//! four operators and the overhead of many small tensors. Here each layer of a crop stays in the L1
//! cache. The arithmetic and the weights are those of the graph, so the results are equal up to
//! rounding (about 1e-6 of probability).

#[cfg(target_arch = "x86_64")]
#[expect(clippy::needless_range_loop, reason = "arrays of registers are indexed together")]
mod avx2;
#[cfg(target_arch = "x86_64")]
#[expect(clippy::needless_range_loop, reason = "arrays of registers are indexed together")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod kernel;
#[cfg(target_arch = "x86_64")]
mod layer;
mod plan;
#[cfg(all(test, target_arch = "x86_64"))]
mod tests;

use super::graph::{Tensors, Unsuited};
use super::{Levels, Verdict};
use plan::{O_NET, Plan, R_NET};

/// R-Net or O-Net, computed with vector instructions.
#[derive(Debug)]
pub struct CropNet {
    #[cfg(target_arch = "x86_64")]
    kernel: kernel::Kernel,
}

impl CropNet {
    /// Takes the weights of R-Net's graph, which judges crops of 24×24.
    ///
    /// # Errors
    /// If the graph differs from the exporter's, or the CPU lacks the instruction sets. The graph
    /// itself must then be run.
    pub fn refine(graph: &impl Tensors) -> Result<Self, Unsuited> {
        Self::new(&R_NET, graph)
    }

    /// Takes the weights of O-Net's graph, which judges crops of 48×48 and finds landmarks.
    ///
    /// # Errors
    /// Like [`refine`](Self::refine).
    pub fn decide(graph: &impl Tensors) -> Result<Self, Unsuited> {
        Self::new(&O_NET, graph)
    }

    fn new(plan: &'static Plan, graph: &impl Tensors) -> Result<Self, Unsuited> {
        let layers = plan.read(graph)?;
        #[cfg(target_arch = "x86_64")]
        if super::registers::is_supported() {
            return Ok(Self { kernel: kernel::Kernel::new(plan, &layers) });
        }
        let _ = layers;
        Err(Unsuited::Processor)
    }

    /// Judges crops, in their order. Landmarks are 0 if the network has none.
    ///
    /// # Panics
    /// If the sides of a crop are not those of the network.
    #[must_use]
    pub fn judge(&self, crops: &[Levels]) -> Vec<Verdict> {
        #[cfg(target_arch = "x86_64")]
        return self.kernel.run(crops);
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!("exists on x86-64 only; called with {} crops", crops.len())
    }
}
