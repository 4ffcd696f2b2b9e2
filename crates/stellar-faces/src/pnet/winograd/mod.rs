//! Winograd's F(4×4, 3×3): 4 × 4 results of a 3×3 convolution from 36 products per channel pair
//! instead of 144.
//!
//! Lavin and Gray 2015, *Fast Algorithms for Convolutional Neural Networks*,
//! [arXiv 1509.09308](https://arxiv.org/abs/1509.09308), with the points 0, ±1, ±2:
//! `Y = Aᵀ[(G g Gᵀ) ∘ (Bᵀ d B)]A`. The products are summed over the input channels, which turns
//! them into 36 matrix products.

pub(super) mod avx2;
pub(super) mod avx512;

use crate::registers::Sixteen;

/// Channels of a pixel: 10 or 16 of 16 are used.
pub(super) type Pixel = Sixteen;

/// Products per tile.
pub(super) const POINTS: usize = 36;
/// Results per side of a tile.
pub(super) const TILE: usize = 4;
/// Pixels per side of a tile that the results depend on.
pub(super) const REACH: usize = 6;
/// Tiles processed at once: their data stays in the L2 cache, the weights of a point in the L1
/// cache.
pub(super) const TILES: usize = 12;

/// Pixels of a row that [`TILES`] tiles need.
pub(super) const COLUMNS: usize = TILE * TILES + 2;

/// Transforms a kernel `g`, given row by row: `G g Gᵀ`.
pub(super) fn weights(kernel: &[f64; 9]) -> [f32; POINTS] {
    const SIXTH: f64 = 1.0 / 6.0;
    const G: [[f64; 3]; REACH] = [
        [0.25, 0.0, 0.0],
        [-SIXTH, -SIXTH, -SIXTH],
        [-SIXTH, SIXTH, -SIXTH],
        [SIXTH / 4.0, SIXTH / 2.0, SIXTH],
        [SIXTH / 4.0, -SIXTH / 2.0, SIXTH],
        [0.0, 0.0, 1.0],
    ];
    std::array::from_fn(|point| {
        let (row, column) = (&G[point / REACH], &G[point % REACH]);
        let tap = |at: usize| row[at / 3] * kernel[at] * column[at % 3];
        (0..9).map(tap).sum::<f64>() as f32
    })
}
