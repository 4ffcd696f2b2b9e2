//! The decoder's output as bytes.

/// An output that is not an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the decoder returned {found} values for {width} × {height} pixels of three channels")]
pub struct ImageError {
    /// Number of values.
    pub found: usize,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
}

/// Converts planes of red, green and blue in [-1, 1] to interleaved bytes.
///
/// As diffusers does: x / 2 + 0.5, clamped to [0, 1], times 255, halves rounded to even. Values
/// that are not finite must be refused before.
///
/// # Errors
/// If the number of values is not 3 · `height` · `width`.
pub fn rgb8(planes: &[f32], height: usize, width: usize) -> Result<Vec<u8>, ImageError> {
    let area = height * width;
    if planes.len() != 3 * area {
        return Err(ImageError { found: planes.len(), width, height });
    }
    let byte = |value: f32| ((value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
    Ok((0..area)
        .flat_map(|at| [planes[at], planes[area + at], planes[2 * area + at]].map(byte))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_become_interleaved_bytes() {
        let planes = [-1.0, 1.0, 0.0, 2.0, -2.0, 0.5];
        assert_eq!(rgb8(&planes, 1, 2).unwrap(), [0, 128, 0, 255, 255, 191]);
    }

    #[test]
    fn halves_are_rounded_to_even() {
        // 0.5 · 255 = 127.5 becomes 128, and 126.5 / 255 becomes 126.
        let level = |byte: f32| byte / 255.0 * 2.0 - 1.0;
        let values = [0.0, level(126.5), level(2.5)];
        let exact: Vec<f32> = values.iter().map(|v| (v / 2.0 + 0.5) * 255.0).collect();
        let expected: Vec<u8> = exact.iter().map(|v| v.round_ties_even() as u8).collect();
        assert_eq!(rgb8(&values, 1, 1).unwrap(), expected);
        assert_eq!(expected[0], 128);
    }

    #[test]
    fn another_number_of_values_is_refused() {
        let error = rgb8(&[0.0; 5], 1, 2).unwrap_err().to_string();
        assert!(error.contains("5 values for 2 × 1 pixels"), "{error}");
    }
}
