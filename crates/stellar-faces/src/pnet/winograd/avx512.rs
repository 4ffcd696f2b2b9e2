//! The transforms and products in registers of sixteen values: a pixel in one register.

use std::arch::x86_64::{
    __m512, _mm512_add_ps, _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_sub_ps,
};

use super::{POINTS, Pixel, REACH, TILE, TILES};
use crate::registers::{load_sixteen, store_sixteen};

/// `Bᵀ d`
#[inline]
#[target_feature(enable = "avx512f")]
fn spread(d: &[__m512; REACH]) -> [__m512; REACH] {
    let (two, four, five) = (_mm512_set1_ps(2.0), _mm512_set1_ps(4.0), _mm512_set1_ps(5.0));
    let (near, far) = (_mm512_fnmadd_ps(four, d[2], d[4]), _mm512_fnmadd_ps(four, d[1], d[3]));
    let (even, odd) = (_mm512_sub_ps(d[4], d[2]), _mm512_sub_ps(d[3], d[1]));
    [
        _mm512_fmadd_ps(four, d[0], _mm512_fnmadd_ps(five, d[2], d[4])),
        _mm512_add_ps(near, far),
        _mm512_sub_ps(near, far),
        _mm512_fmadd_ps(two, odd, even),
        _mm512_fnmadd_ps(two, odd, even),
        _mm512_fmadd_ps(four, d[1], _mm512_fnmadd_ps(five, d[3], d[5])),
    ]
}

/// `Aᵀ m`
#[inline]
#[target_feature(enable = "avx512f")]
fn gather(m: &[__m512; REACH]) -> [__m512; TILE] {
    let (two, four, eight) = (_mm512_set1_ps(2.0), _mm512_set1_ps(4.0), _mm512_set1_ps(8.0));
    let (sum, difference) = (_mm512_add_ps(m[1], m[2]), _mm512_sub_ps(m[1], m[2]));
    let (far_sum, far_difference) = (_mm512_add_ps(m[3], m[4]), _mm512_sub_ps(m[3], m[4]));
    [
        _mm512_add_ps(_mm512_add_ps(m[0], sum), far_sum),
        _mm512_fmadd_ps(two, far_difference, difference),
        _mm512_fmadd_ps(four, far_sum, sum),
        _mm512_add_ps(_mm512_fmadd_ps(eight, far_difference, difference), m[5]),
    ]
}

/// Computes `Bᵀ d B` like [`avx2::enter`](super::avx2::enter).
#[target_feature(enable = "avx512f")]
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
        let pixels = [&a[x], &b[x], &c[x], &d[x], &e[x], &f[x]];
        let spread = spread(&[
            load_sixteen(pixels[0]),
            load_sixteen(pixels[1]),
            load_sixteen(pixels[2]),
            load_sixteen(pixels[3]),
            load_sixteen(pixels[4]),
            load_sixteen(pixels[5]),
        ]);
        for (to, from) in column.iter_mut().zip(spread) {
            store_sixteen(to, from);
        }
    }
    let products: &mut [Pixel; POINTS * TILES] =
        products.try_into().expect("room for all points of all tiles");
    for tile in 0..tiles {
        let columns: &[[Pixel; REACH]; REACH] =
            columns[TILE * tile..].first_chunk().expect("six columns a tile");
        for row in 0..REACH {
            let spread = spread(&[
                load_sixteen(&columns[0][row]),
                load_sixteen(&columns[1][row]),
                load_sixteen(&columns[2][row]),
                load_sixteen(&columns[3][row]),
                load_sixteen(&columns[4][row]),
                load_sixteen(&columns[5][row]),
            ]);
            for (column, value) in spread.into_iter().enumerate() {
                store_sixteen(&mut products[(REACH * row + column) * TILES + tile], value);
            }
        }
    }
}

/// Computes the product of pixels and weights for each point, with `K` input channels and `H`
/// groups of sixteen output channels, for all tiles at once.
#[inline]
#[target_feature(enable = "avx512f")]
pub(in super::super) fn multiply<const K: usize, const H: usize>(
    pixels: &[Pixel],
    weights: &[[Pixel; H]],
    sums: &mut [[Pixel; H]],
) {
    const { assert!(K <= 16 && TILES * H + H < 32, "all sums stay in registers") };
    let points = weights.as_chunks::<K>().0.iter();
    let points = points.zip(pixels.as_chunks::<TILES>().0).zip(sums.as_chunks_mut::<TILES>().0);
    for ((weights, pixels), sums) in points {
        let mut total = [[_mm512_setzero_ps(); H]; TILES];
        for (k, weights) in weights.iter().enumerate() {
            let mut weight = [_mm512_setzero_ps(); H];
            for h in 0..H {
                weight[h] = load_sixteen(&weights[h]);
            }
            for tile in 0..TILES {
                let value = _mm512_set1_ps(pixels[tile].as_flattened()[k]);
                for h in 0..H {
                    total[tile][h] = _mm512_fmadd_ps(value, weight[h], total[tile][h]);
                }
            }
        }
        for tile in 0..TILES {
            for h in 0..H {
                store_sixteen(&mut sums[tile][h], total[tile][h]);
            }
        }
    }
}

/// Computes `Aᵀ m A` of one tile and sixteen channels: its 4 × 4 results.
#[inline]
#[target_feature(enable = "avx512f")]
pub(in super::super) fn leave<const H: usize>(
    sums: &[[Pixel; H]],
    tile: usize,
    sixteen: usize,
) -> [[__m512; TILE]; TILE] {
    let sums: &[[Pixel; H]; POINTS * TILES] =
        sums.try_into().expect("sums of all points of all tiles");
    let mut columns = [[_mm512_setzero_ps(); TILE]; REACH];
    for (x, column) in columns.iter_mut().enumerate() {
        *column = gather(&[
            load_sixteen(&sums[x * TILES + tile][sixteen]),
            load_sixteen(&sums[(REACH + x) * TILES + tile][sixteen]),
            load_sixteen(&sums[(2 * REACH + x) * TILES + tile][sixteen]),
            load_sixteen(&sums[(3 * REACH + x) * TILES + tile][sixteen]),
            load_sixteen(&sums[(4 * REACH + x) * TILES + tile][sixteen]),
            load_sixteen(&sums[(5 * REACH + x) * TILES + tile][sixteen]),
        ]);
    }
    let mut results = [[_mm512_setzero_ps(); TILE]; TILE];
    for (y, row) in results.iter_mut().enumerate() {
        let [a, b, c, d, e, f] = &columns;
        *row = gather(&[a[y], b[y], c[y], d[y], e[y], f[y]]);
    }
    results
}
