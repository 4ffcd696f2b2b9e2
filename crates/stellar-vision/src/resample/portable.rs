//! The passes in portable code, for any CPU.

use super::coefficients::{Coefficients, HALF, PRECISION_BITS};
use super::kernel::{Columns, Rows};

/// Rounds a sum, clamps it and drops its fraction.
fn to_byte(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// Unpacked weights of one output pixel.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

fn taps(coefficients: &Coefficients) -> Vec<Taps> {
    (0..coefficients.len())
        .map(|i| Taps { first: coefficients.span(i).0, weights: coefficients.weights(i).to_vec() })
        .collect()
}

pub(super) struct ColumnKernel {
    columns: Vec<Taps>,
}

impl ColumnKernel {
    pub(super) fn new(coefficients: &Coefficients) -> Self {
        Self { columns: taps(coefficients) }
    }

    fn row(&self, source: &[u8], out: &mut [u8]) {
        for (column, out) in self.columns.iter().zip(out.as_chunks_mut::<3>().0) {
            let pixels = source[3 * column.first..][..3 * column.weights.len()].as_chunks::<3>().0;
            let mut sums = [HALF; 3];
            for (pixel, &weight) in pixels.iter().zip(&column.weights) {
                for (sum, &value) in sums.iter_mut().zip(pixel) {
                    *sum = sum.wrapping_add(i32::from(value).wrapping_mul(weight));
                }
            }
            *out = sums.map(to_byte);
        }
    }
}

impl Columns for ColumnKernel {
    fn reach(&self) -> usize {
        0
    }

    fn rows(&self, sources: [&[u8]; 4], target: &mut [u8], stride: usize) {
        for (source, out) in sources.into_iter().zip(target.chunks_mut(stride)) {
            self.row(source, out);
        }
    }
}

pub(super) struct RowKernel {
    rows: Vec<Vec<i32>>,
}

impl RowKernel {
    pub(super) fn new(coefficients: &Coefficients) -> Self {
        Self { rows: taps(coefficients).into_iter().map(|row| row.weights).collect() }
    }
}

impl Rows for RowKernel {
    fn row(&self, index: usize, source: &[u8], stride: usize, out: &mut [u8]) {
        // Few enough sums to stay in registers while the rows are added up.
        const BLOCK: usize = 32;
        let weights = &self.rows[index];
        for (block, out) in out.chunks_mut(BLOCK).enumerate() {
            let mut sums = [HALF; BLOCK];
            for (row, &weight) in weights.iter().enumerate() {
                let at = row * stride + block * BLOCK;
                let values: &[u8; BLOCK] = source[at..].first_chunk().expect("rows have slack");
                for (sum, &value) in sums.iter_mut().zip(values) {
                    *sum = sum.wrapping_add(i32::from(value).wrapping_mul(weight));
                }
            }
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = to_byte(sum);
            }
        }
    }
}
