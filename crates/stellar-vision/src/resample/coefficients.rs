//! The weights of one axis, rounded as in Pillow.

use serde::Deserialize;

/// Convolution kernel, with the constants of Pillow's `Image.Resampling`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// Triangle of radius 1 (times the scale when shrinking).
    Bilinear,
    /// Keys' cubic convolution with a = -0.5, radius 2 (times the scale when shrinking).
    Bicubic,
    /// Sinc with a sinc window, radius 3 (times the scale when shrinking).
    Lanczos,
}

impl Filter {
    /// Returns the radius at scale 1.
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    /// Returns the kernel's value at distance `x`. The order of operations is Pillow's, so the
    /// rounding is the same.
    fn at(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let x = x.abs();
        match self {
            Self::Bilinear if x < 1.0 => 1.0 - x,
            Self::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            Self::Lanczos if x < 3.0 => sinc(x) * sinc(x / 3.0),
            _ => 0.0,
        }
    }
}

/// Returns sin(πx) / πx.
fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let angle = x * std::f64::consts::PI;
    angle.sin() / angle
}

/// Fractional bits of a weight: 32 minus 8 for the pixel and 2 for sign and overshoot (Pillow's
/// `PRECISION_BITS`).
pub(super) const PRECISION_BITS: u32 = 22;

/// Added before the shift by [`PRECISION_BITS`] to round to the nearest integer.
pub(super) const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// The first input pixel, the number of input pixels and their weights, for each output pixel of a
/// window.
pub(super) struct Coefficients {
    spans: Vec<(u32, u32)>,
    /// `per_pixel` weights for each output pixel, padded with zeros.
    weights: Vec<i32>,
    per_pixel: usize,
}

impl Coefficients {
    /// Computes the weights of output pixels `first..first + count` for resizing `input` pixels to
    /// `output` pixels (Pillow's `precompute_coeffs` and `normalize_coeffs_8bpc`). All arithmetic
    /// is in double precision and in Pillow's order.
    pub(super) fn new(input: u32, output: u64, first: u64, count: u32, filter: Filter) -> Self {
        let scale = f64::from(input) / output as f64;
        let filter_scale = scale.max(1.0);
        let support = filter.support() * filter_scale;
        let inverse = 1.0 / filter_scale;
        // No span is longer than the input, however wide the filter.
        let per_pixel = (support.ceil() as usize * 2 + 1).min(input as usize);
        let mut spans = Vec::with_capacity(count as usize);
        let mut weights = vec![0; count as usize * per_pixel];
        let mut exact = Vec::with_capacity(per_pixel);
        for (x, rounded) in
            (first..first + u64::from(count)).zip(weights.chunks_exact_mut(per_pixel))
        {
            let center = (x as f64 + 0.5) * scale;
            // A cast to an integer drops the fraction and, in Rust, turns negative values into 0.
            let start = (center - support + 0.5) as u32;
            let end = ((center + support + 0.5) as u32).min(input);
            exact.clear();
            exact.extend((0..end - start).map(|tap| {
                filter.at((f64::from(tap) + f64::from(start) - center + 0.5) * inverse)
            }));
            let total: f64 = exact.iter().sum();
            for (weight, exact) in rounded.iter_mut().zip(&exact) {
                let normalised = if total == 0.0 { *exact } else { exact / total };
                let scaled = normalised * f64::from(1_u32 << PRECISION_BITS);
                *weight = (scaled + 0.5_f64.copysign(normalised)) as i32;
            }
            spans.push((start, end - start));
        }
        Self { spans, weights, per_pixel }
    }

    /// Maps each of `count` output pixels from `first` on to the input pixel at the same place.
    pub(super) fn identity(first: u32, count: u32) -> Self {
        let spans = (first..first + count).map(|at| (at, 1)).collect();
        Self { spans, weights: vec![1 << PRECISION_BITS; count as usize], per_pixel: 1 }
    }

    /// Returns the number of output pixels.
    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    /// Returns the first input pixel and the number of input pixels of output pixel `index` of the
    /// window.
    pub(super) fn span(&self, index: usize) -> (usize, usize) {
        let (first, count) = self.spans[index];
        (first as usize, count as usize)
    }

    /// Returns the weights of output pixel `index`, one for each pixel of its span.
    pub(super) fn weights(&self, index: usize) -> &[i32] {
        &self.weights[index * self.per_pixel..][..self.spans[index].1 as usize]
    }

    /// Returns the first input pixel of all spans and the end of the last span.
    pub(super) fn reach(&self) -> (usize, usize) {
        let first = self.spans.iter().map(|span| span.0).min().unwrap_or(0);
        let end = self.spans.iter().map(|span| span.0 + span.1).max().unwrap_or(0);
        (first as usize, end as usize)
    }

    /// Shifts all spans to the left, so that input pixel `first` becomes pixel 0.
    pub(super) fn move_left(&mut self, first: usize) {
        for span in &mut self.spans {
            span.0 -= first as u32;
        }
    }

    /// Returns the number of input pixels of the longest span.
    pub(super) fn longest(&self) -> usize {
        self.spans.iter().map(|span| span.1 as usize).max().unwrap_or(0)
    }

    /// Returns whether every weight lies within ±`bound`.
    pub(super) fn within(&self, bound: u32) -> bool {
        self.weights.iter().all(|weight| weight.unsigned_abs() <= bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_a_pixel_sum_to_one() {
        for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos] {
            for (input, output) in
                [(1, 1), (1, 224), (7, 3), (224, 224), (1024, 224), (3, 5000), (65_535, 2)]
            {
                let coefficients = Coefficients::new(input, output, 0, output as u32, filter);
                for index in 0..coefficients.len() {
                    let (first, count) = coefficients.span(index);
                    assert!(count > 0 && first + count <= input as usize);
                    let sum: i64 = coefficients.weights(index).iter().map(|&w| i64::from(w)).sum();
                    // Rounding changes each weight by at most a half.
                    assert!(
                        (sum - (1 << PRECISION_BITS)).abs() <= count as i64 / 2 + 1,
                        "{input}→{output}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_window_has_the_same_weights_as_the_whole() {
        let whole = Coefficients::new(1000, 336, 0, 336, Filter::Bicubic);
        let window = Coefficients::new(1000, 336, 56, 224, Filter::Bicubic);
        for index in 0..224 {
            assert_eq!(window.span(index), whole.span(index + 56));
            assert_eq!(window.weights(index), whole.weights(index + 56));
        }
    }

    #[test]
    fn an_absurdly_long_virtual_side_costs_only_its_window() {
        let coefficients = Coefficients::new(30_000, 6_720_000, 3_359_888, 224, Filter::Bicubic);
        assert_eq!(coefficients.len(), 224);
        assert!(coefficients.longest() <= 5);
    }
}
