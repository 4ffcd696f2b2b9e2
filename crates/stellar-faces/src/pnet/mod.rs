//! P-Net on the CPU's vector units, for whole levels of an image's pyramid.
//!
//! P-Net evaluates every second pixel of every level and finds something at one position in a
//! thousand. As a graph, it takes most of the processing time of an image, because its 3 to 32
//! channels are too few for a general convolution. This module does the same arithmetic for these
//! specific shapes, with the weights of the pack's graph:
//!
//! - The rows of a level are computed when they are needed and used from the cache ([`rows`]).
//! - The second and third convolutions use Winograd's F(4×4, 3×3), a quarter of the
//!   multiplications.
//! - The third convolution is first computed for an upper bound of the logit. After `PReLU`, a
//!   channel contributes `l·y + p·max(y, 0)`. Where `p` is negative, dropping the second term
//!   cannot lower the result. The remaining terms of all such channels are linear and together form
//!   one channel. The second term is dropped for the nine channels with the least negative `p`.
//!   Only the few positions whose bound reaches the threshold are computed in full, as a direct
//!   convolution. AVX-512 has room for all channels and computes the logit itself.
//!
//! [`kernel`] is the way through the layers. Its steps exist twice: [`avx2`] has registers of eight
//! values, [`avx512`] of sixteen.
//!
//! A position is therefore judged by the same numbers as in the graph, up to rounding (about 1e-6
//! of probability), and none is lost: the bound holds except for rounding, and `kernel::MARGIN` is
//! a thousand times larger than that.

#[cfg(target_arch = "x86_64")]
#[expect(clippy::needless_range_loop, reason = "arrays of registers are indexed together")]
mod avx2;
#[cfg(target_arch = "x86_64")]
#[expect(
    clippy::many_single_char_names,
    clippy::needless_range_loop,
    reason = "registers are letters, and arrays of them are indexed together"
)]
mod avx512;
#[cfg(target_arch = "x86_64")]
#[expect(
    clippy::many_single_char_names,
    clippy::needless_range_loop,
    reason = "registers are letters, and arrays of them are indexed together"
)]
mod kernel;
#[cfg(target_arch = "x86_64")]
mod packing;
#[cfg(target_arch = "x86_64")]
#[expect(clippy::many_single_char_names, reason = "registers are letters")]
mod rows;
#[cfg(all(test, target_arch = "x86_64"))]
mod tests;
#[cfg(target_arch = "x86_64")]
#[expect(clippy::many_single_char_names, reason = "registers are letters")]
mod vectors;
mod weights;
#[cfg(target_arch = "x86_64")]
#[expect(clippy::many_single_char_names, reason = "registers are letters")]
mod winograd;

use stellar_vision::Image;

use super::graph::{Tensors, Unsuited};
pub use weights::Spot;
use weights::Weights;

/// P-Net for whole levels.
#[derive(Debug)]
pub struct ProposalNet {
    #[cfg(target_arch = "x86_64")]
    kernel: kernel::Kernel,
}

impl ProposalNet {
    /// Takes the weights of P-Net's graph.
    ///
    /// # Errors
    /// If the graph differs from the exporter's, or the CPU lacks the instruction sets. The graph
    /// itself must then be run.
    pub fn new(graph: &impl Tensors) -> Result<Self, Unsuited> {
        let weights = Weights::read(graph)?;
        #[cfg(target_arch = "x86_64")]
        if super::registers::is_supported() {
            let too_many = || Unsuited::Graph("positive.weight".to_owned());
            return Ok(Self { kernel: kernel::Kernel::new(&weights).ok_or_else(too_many)? });
        }
        let _ = weights;
        Err(Unsuited::Processor)
    }

    /// Returns every position of each level whose probability is at least `threshold`, row by row.
    ///
    /// A level of some width and height is the image resized by area (see
    /// [`resize_area`](stellar_vision::resize_area)), with values that are equal up to rounding.
    ///
    /// # Panics
    /// If a level has a side below 12, where P-Net has no position, or a side that is not shorter
    /// than the image's.
    #[must_use]
    pub fn propose(&self, image: &Image, levels: &[(u32, u32)], threshold: f32) -> Vec<Vec<Spot>> {
        for &(width, height) in levels {
            assert!(
                width >= super::CELL && height >= super::CELL,
                "{width}×{height} has no position"
            );
            assert!(
                width < image.width && height < image.height,
                "{width}×{height} does not shrink {image:?}"
            );
        }
        #[cfg(target_arch = "x86_64")]
        {
            let mut found = self.kernel.run(image, levels, threshold);
            for spots in &mut found {
                spots.sort_by_key(|spot| (spot.y, spot.x));
            }
            found
        }
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!("exists on x86-64 only; called with threshold {threshold}")
    }
}
