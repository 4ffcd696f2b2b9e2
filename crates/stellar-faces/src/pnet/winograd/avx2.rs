//! The transforms and products in registers of eight values.

use std::arch::x86_64::{
    __m256, _mm256_add_ps, _mm256_fmadd_ps, _mm256_fnmadd_ps, _mm256_set1_ps, _mm256_setzero_ps,
    _mm256_sub_ps,
};

use super::{POINTS, Pixel, REACH, TILE, TILES};
use crate::registers::{Eight, load, store};

/// `Bᵀ d`
#[inline]
#[target_feature(enable = "avx2,fma")]
fn spread(d: [__m256; REACH]) -> [__m256; REACH] {
    let (two, four, five) = (_mm256_set1_ps(2.0), _mm256_set1_ps(4.0), _mm256_set1_ps(5.0));
    let (near, far) = (_mm256_fnmadd_ps(four, d[2], d[4]), _mm256_fnmadd_ps(four, d[1], d[3]));
    let (even, odd) = (_mm256_sub_ps(d[4], d[2]), _mm256_sub_ps(d[3], d[1]));
    [
        _mm256_fmadd_ps(four, d[0], _mm256_fnmadd_ps(five, d[2], d[4])),
        _mm256_add_ps(near, far),
        _mm256_sub_ps(near, far),
        _mm256_fmadd_ps(two, odd, even),
        _mm256_fnmadd_ps(two, odd, even),
        _mm256_fmadd_ps(four, d[1], _mm256_fnmadd_ps(five, d[3], d[5])),
    ]
}

/// `Aᵀ m`
#[inline]
#[target_feature(enable = "avx2,fma")]
fn gather(m: [__m256; REACH]) -> [__m256; TILE] {
    let (two, four, eight) = (_mm256_set1_ps(2.0), _mm256_set1_ps(4.0), _mm256_set1_ps(8.0));
    let (sum, difference) = (_mm256_add_ps(m[1], m[2]), _mm256_sub_ps(m[1], m[2]));
    let (far_sum, far_difference) = (_mm256_add_ps(m[3], m[4]), _mm256_sub_ps(m[3], m[4]));
    [
        _mm256_add_ps(_mm256_add_ps(m[0], sum), far_sum),
        _mm256_fmadd_ps(two, far_difference, difference),
        _mm256_fmadd_ps(four, far_sum, sum),
        _mm256_add_ps(_mm256_fmadd_ps(eight, far_difference, difference), m[5]),
    ]
}

/// Computes `Bᵀ d B` of up to [`TILES`] tiles side by side, with point `p` of tile `t` at
/// `p · TILES + t`. The first tile begins at pixel `first` of the six rows. `columns` is scratch
/// space for [`COLUMNS`] columns of the intermediate result, `Bᵀ d`.
#[target_feature(enable = "avx2,fma")]
pub(in super::super) fn enter(
    rows: &[Vec<Pixel>; REACH],
    first: usize,
    tiles: usize,
    columns: &mut [[Pixel; REACH]],
    products: &mut [Pixel],
) {
    let width = TILE * tiles + 2;
    let [a, b, c, d, e, f] = rows;
    let (a, b, c) = (&a[first..][..width], &b[first..][..width], &c[first..][..width]);
    let (d, e, f) = (&d[first..][..width], &e[first..][..width], &f[first..][..width]);
    let columns = &mut columns[..width];
    for (x, column) in columns.iter_mut().enumerate() {
        for half in 0..2 {
            let pixels = [&a[x], &b[x], &c[x], &d[x], &e[x], &f[x]];
            let spread = spread([
                load(&pixels[0][half]),
                load(&pixels[1][half]),
                load(&pixels[2][half]),
                load(&pixels[3][half]),
                load(&pixels[4][half]),
                load(&pixels[5][half]),
            ]);
            for (to, from) in column.iter_mut().zip(spread) {
                store(&mut to[half], from);
            }
        }
    }
    let products: &mut [Pixel; POINTS * TILES] =
        products.try_into().expect("room for all points of all tiles");
    for tile in 0..tiles {
        let columns: &[[Pixel; REACH]; REACH] =
            columns[TILE * tile..].first_chunk().expect("six columns a tile");
        for row in 0..REACH {
            for half in 0..2 {
                let spread = spread([
                    load(&columns[0][row][half]),
                    load(&columns[1][row][half]),
                    load(&columns[2][row][half]),
                    load(&columns[3][row][half]),
                    load(&columns[4][row][half]),
                    load(&columns[5][row][half]),
                ]);
                for (column, value) in spread.into_iter().enumerate() {
                    store(&mut products[(REACH * row + column) * TILES + tile][half], value);
                }
            }
        }
    }
}

/// Computes the product of pixels and weights for each point, with `K` input channels, `H` groups
/// of eight output channels and `N` tiles at once, such that all sums stay in registers.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(in super::super) fn multiply<const K: usize, const N: usize, const H: usize>(
    pixels: &[Pixel],
    weights: &[[Eight; H]],
    tiles: usize,
    sums: &mut [[Eight; H]],
) {
    const { assert!(TILES.is_multiple_of(N) && K <= 16) };
    let points = weights.as_chunks::<K>().0.iter();
    let points = points.zip(pixels.as_chunks::<TILES>().0).zip(sums.as_chunks_mut::<TILES>().0);
    for ((weights, pixels), sums) in points {
        let groups = pixels.as_chunks::<N>().0.iter().zip(sums.as_chunks_mut::<N>().0);
        for (pixels, sums) in groups.take(tiles.div_ceil(N)) {
            let mut total = [[_mm256_setzero_ps(); H]; N];
            for (k, weights) in weights.iter().enumerate() {
                let mut weight = [_mm256_setzero_ps(); H];
                for h in 0..H {
                    weight[h] = load(&weights[h]);
                }
                for n in 0..N {
                    let value = _mm256_set1_ps(pixels[n].as_flattened()[k]);
                    for h in 0..H {
                        total[n][h] = _mm256_fmadd_ps(value, weight[h], total[n][h]);
                    }
                }
            }
            for n in 0..N {
                for h in 0..H {
                    store(&mut sums[n][h], total[n][h]);
                }
            }
        }
    }
}

/// Computes `Aᵀ m A` of one tile and eight channels: its 4 × 4 results.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(in super::super) fn leave<const H: usize>(
    sums: &[[Eight; H]],
    tile: usize,
    eight: usize,
) -> [[__m256; TILE]; TILE] {
    let sums: &[[Eight; H]; POINTS * TILES] =
        sums.try_into().expect("sums of all points of all tiles");
    let mut columns = [[_mm256_setzero_ps(); TILE]; REACH];
    for (x, column) in columns.iter_mut().enumerate() {
        *column = gather([
            load(&sums[x * TILES + tile][eight]),
            load(&sums[(REACH + x) * TILES + tile][eight]),
            load(&sums[(2 * REACH + x) * TILES + tile][eight]),
            load(&sums[(3 * REACH + x) * TILES + tile][eight]),
            load(&sums[(4 * REACH + x) * TILES + tile][eight]),
            load(&sums[(5 * REACH + x) * TILES + tile][eight]),
        ]);
    }
    let mut results = [[_mm256_setzero_ps(); TILE]; TILE];
    for (y, row) in results.iter_mut().enumerate() {
        let [a, b, c, d, e, f] = &columns;
        *row = gather([a[y], b[y], c[y], d[y], e[y], f[y]]);
    }
    results
}
