//! HPSv2's own preprocessing: a float image within a black square.
//!
//! The reference converts the image to floats first and resizes those with torchvision's
//! antialiased bicubic filter, so there is no rounding to 8 bits and no clamping. The weights are
//! computed in single precision in PyTorch's order of operations
//! (`aten/src/ATen/native/cpu/UpSampleKernel.cpp`): for large images, its rounding of the kernel's
//! centre changes the results by more than the rounding of the sums.

use super::Image;

/// Resizes the longer side to `size` and centres the image on a black square. Returns
/// `size · size · 3` values, where 1 is white.
///
/// Each side becomes `round(side · size / longer side)`, with halves rounded to even, and at least
/// 1; the reference fails where this rounds to 0. The reference also skips the padding if the
/// longer side already is `size`, and then fails unless the image is square. Here such an image is
/// padded like any other.
pub(super) fn letterbox(image: &Image, size: u32) -> Vec<f32> {
    let scale = f64::from(size) / f64::from(image.width.max(image.height));
    let scaled = |side: u32| ((f64::from(side) * scale).round_ties_even() as usize).max(1);
    let (width, height) = (scaled(image.width), scaled(image.height));
    let resized = resize(image, width, height);
    let size = size as usize;
    let (left, top) = ((size - width) / 2, (size - height) / 2);
    let mut square = vec![0.0; size * size * 3];
    for (row, from) in resized.chunks_exact(3 * width).enumerate() {
        square[3 * ((top + row) * size + left)..][..3 * width].copy_from_slice(from);
    }
    square
}

/// Antialiased bicubic resize of the levels, followed by a division by 255.
///
/// The vertical sums come first because whole rows can be added up quickly, and the division comes
/// last because fewer values are left then. PyTorch divides first and does the horizontal sums
/// first. Without rounding to levels in between, this changes only the last bits: by at most 2e-6
/// in images of 24 megapixels, which is also how far PyTorch's own sums are from exact ones.
fn resize(image: &Image, width: usize, height: usize) -> Vec<f32> {
    let row_length = 3 * image.width as usize;
    let columns = Weights::new(image.width as usize, width);
    let rows = Weights::new(image.height as usize, height);
    let mut output = Vec::with_capacity(3 * width * height);
    let mut sums = vec![0.0_f32; row_length];
    for y in 0..height {
        let (first, weights) = rows.of(y);
        add_weighted_rows(&mut sums, &image.pixels[first * row_length..], weights);
        for x in 0..width {
            let (first, weights) = columns.of(x);
            let mut pixel = [0.0_f32; 3];
            for (values, &weight) in sums[3 * first..].as_chunks::<3>().0.iter().zip(weights) {
                for (sum, value) in pixel.iter_mut().zip(values) {
                    *sum += weight * value;
                }
            }
            output.extend(pixel.map(|sum| sum / 255.0));
        }
    }
    output
}

/// Computes the weighted sum of rows of the length of `sums`, with the widest registers of the
/// machine. The sums and their order do not depend on the width of the registers, so the bits do
/// not either.
fn add_weighted_rows(sums: &mut [f32], rows: &[u8], weights: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2")]
        fn with_avx2(sums: &mut [f32], rows: &[u8], weights: &[f32]) {
            add_weighted_rows_plainly(sums, rows, weights);
        }
        #[expect(unsafe_code, reason = "calls into code for a certain instruction set")]
        // SAFETY: the instruction set has just been checked.
        unsafe {
            with_avx2(sums, rows, weights);
        }
        return;
    }
    add_weighted_rows_plainly(sums, rows, weights);
}

#[inline(always)]
fn add_weighted_rows_plainly(sums: &mut [f32], rows: &[u8], weights: &[f32]) {
    // Short enough to stay in the L1 cache while all rows are added.
    const BLOCK: usize = 2048;
    let row_length = sums.len();
    for (block, sums) in sums.chunks_mut(BLOCK).enumerate() {
        sums.fill(0.0);
        for (row, &weight) in weights.iter().enumerate() {
            let levels = &rows[row * row_length + block * BLOCK..][..sums.len()];
            for (sum, &level) in sums.iter_mut().zip(levels) {
                *sum += weight * f32::from(level);
            }
        }
    }
}

/// PyTorch's antialiasing weights along one axis.
struct Weights {
    firsts: Vec<usize>,
    weights: Vec<Vec<f32>>,
}

impl Weights {
    fn new(input: usize, output: usize) -> Self {
        let scale = input as f32 / output as f32;
        let support = if scale >= 1.0 { 2.0 * scale } else { 2.0 };
        let inverse = if scale >= 1.0 { 1.0 / scale } else { 1.0 };
        let mut firsts = Vec::with_capacity(output);
        let mut weights = Vec::with_capacity(output);
        for i in 0..output {
            // The constant 0.5 is a double in PyTorch, so these sums are rounded to single
            // precision only at the end.
            let center = (f64::from(scale) * (i as f64 + 0.5)) as f32;
            let first = (f64::from(center - support) + 0.5).max(0.0) as usize;
            let end = ((f64::from(center + support) + 0.5) as usize).min(input);
            let mut taps: Vec<f32> = (first..end)
                .map(|at| {
                    cubic(((f64::from(at as f32 - center) + 0.5) * f64::from(inverse)) as f32)
                })
                .collect();
            let total: f32 = taps.iter().sum();
            if total != 0.0 {
                for tap in &mut taps {
                    *tap /= total;
                }
            }
            firsts.push(first);
            weights.push(taps);
        }
        Self { firsts, weights }
    }

    fn of(&self, index: usize) -> (usize, &[f32]) {
        (self.firsts[index], &self.weights[index])
    }
}

/// Keys' cubic convolution with a = -0.5, as in PyTorch's antialiasing.
fn cubic(x: f32) -> f32 {
    const A: f32 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
    } else {
        0.0
    }
}
