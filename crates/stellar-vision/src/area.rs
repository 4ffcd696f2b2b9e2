//! Area resizing for face detection: each output pixel is the mean of the input pixels under it.

use std::ops::Range;

use super::{Image, Rect};

/// Resizes a region to `width` × `height` by averaging, like PyTorch's `interpolate(mode="area")`
/// (adaptive average pooling) on the region's levels as floats.
///
/// Output pixel `i` of `n` is the unweighted mean of input pixels `⌊i · m / n⌋` (inclusive) to
/// `⌈(i + 1) · m / n⌉` (exclusive). Neighbouring windows share a pixel where the sizes do not
/// divide evenly, and upscaling repeats pixels. Returns `height · width · 3` levels from 0 to 255.
/// Sums are exact here. The results are bit-equal to PyTorch's where its sums are exact too (sums
/// below 2²⁴, windows of up to 256 × 256).
///
/// # Panics
/// If `source` is empty or not within the image, or a side is 0.
#[must_use]
pub fn resize_area(image: &Image, source: Rect, width: u32, height: u32) -> Vec<f32> {
    resize_area_rows(image, source, width, height, 0..height)
}

/// Computes only `rows` of the result of [`resize_area`], so that a large image's level need not be
/// in memory as a whole.
///
/// # Panics
/// Like [`resize_area`], or if `rows` is not within `0..height`.
#[must_use]
pub fn resize_area_rows(
    image: &Image,
    source: Rect,
    width: u32,
    height: u32,
    rows: Range<u32>,
) -> Vec<f32> {
    assert!(rows.end <= height, "{rows:?} of {height}");
    assert!(
        source.is_within(image.width.into(), image.height.into()),
        "{source:?} within {image:?}"
    );
    assert!(width > 0 && height > 0, "{width}×{height} has no pixels");
    let stride = 3 * image.width as usize;
    let row_bytes = 3 * source.width as usize;
    let row = |y: usize| {
        &image.pixels[(source.top as usize + y) * stride + 3 * source.left as usize..][..row_bytes]
    };
    let columns = Columns::new(source.width, width);
    let mut totals = Vec::with_capacity(3 * width as usize);
    let mut output = Vec::with_capacity(3 * width as usize * rows.len());
    let mut short_sums = vec![0_u16; row_bytes];
    let mut sums = vec![0_u32; row_bytes];
    for y in rows {
        let (first, end) = window(y, source.height, height);
        let rows = || (first..end).map(&row);
        if end - first <= MAX_SHORT_ROWS {
            add_up(&mut short_sums, rows());
            columns.means(&short_sums, end - first, &mut totals, &mut output);
        } else {
            add_up(&mut sums, rows());
            columns.means(&sums, end - first, &mut totals, &mut output);
        }
    }
    output
}

/// Largest number of rows whose byte sums fit into 16 bits. A register holds twice as many 16-bit
/// sums as 32-bit sums.
const MAX_SHORT_ROWS: usize = (u16::MAX / u8::MAX as u16) as usize;

/// Returns the first input pixel of output pixel `index` of `output`, and the exclusive end.
#[must_use]
pub fn window(index: u32, input: u32, output: u32) -> (usize, usize) {
    let scaled = |index: u32| u64::from(index) * u64::from(input);
    let first = scaled(index) / u64::from(output);
    let end = scaled(index + 1).div_ceil(u64::from(output));
    (first as usize, end as usize)
}

/// An unsigned integer type for sums of bytes.
trait Sum: Copy + From<u8> + Into<u32> + std::ops::AddAssign {}
impl Sum for u16 {}
impl Sum for u32 {}

/// Adds up `rows` value by value; the previous content of `sums` is overwritten.
fn add_up<'a, S: Sum>(sums: &mut [S], rows: impl Iterator<Item = &'a [u8]>) {
    for (index, row) in rows.enumerate() {
        if index == 0 {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum = value.into();
            }
        } else {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += value.into();
            }
        }
    }
}

/// Windows of a row's output pixels, and their pixel counts, repeated for each channel.
struct Columns {
    windows: Vec<(usize, usize)>,
    counts: Vec<f32>,
    longest: usize,
}

impl Columns {
    fn new(input: u32, output: u32) -> Self {
        let windows: Vec<_> = (0..output).map(|x| window(x, input, output)).collect();
        let counts = windows.iter().flat_map(|(first, end)| [(end - first) as f32; 3]).collect();
        let longest = windows.iter().map(|(first, end)| end - first).max().unwrap_or(0);
        Self { windows, counts, longest }
    }

    /// Appends one row to `output`: the means of sums over `rows` rows. `totals` is scratch space
    /// for a row of the output.
    fn means<S: Sum>(&self, sums: &[S], rows: usize, totals: &mut Vec<f32>, output: &mut Vec<f32>) {
        let pixels = sums.as_chunks::<3>().0;
        totals.clear();
        // True for nearly all images; the conversion is then a single instruction.
        if rows * self.longest <= i32::MAX as usize / 255 {
            totals.extend(self.windows.iter().flat_map(|&(first, end)| {
                let mut total = [0_i32; 3];
                for pixel in &pixels[first..end] {
                    for (total, &sum) in total.iter_mut().zip(pixel) {
                        *total += Into::<u32>::into(sum).cast_signed();
                    }
                }
                total.map(|total| total as f32)
            }));
        } else {
            totals.extend(self.windows.iter().flat_map(|&(first, end)| {
                let mut total = [0_u64; 3];
                for pixel in &pixels[first..end] {
                    for (total, &sum) in total.iter_mut().zip(pixel) {
                        *total += u64::from(sum.into());
                    }
                }
                total.map(|total| total as f32)
            }));
        }
        // Two divisions, as in PyTorch: dividing once by the product rounds differently. A whole
        // row is divided at once, because a vector division costs as much as a scalar one.
        let rows = rows as f32;
        output.extend(totals.iter().zip(&self.counts).map(|(total, count)| total / rows / count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(width: u32, height: u32) -> Image {
        let pixels = (0..3 * width * height).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8);
        Image::new(width, height, pixels.collect())
    }

    #[test]
    fn windows_cover_everything_and_share_at_most_a_pixel() {
        for (input, output) in
            [(1, 1), (7, 3), (3, 7), (12, 4), (1000, 601), (5, 5), (1, 9), (65_535, 12)]
        {
            let windows: Vec<_> = (0..output).map(|index| window(index, input, output)).collect();
            assert_eq!((windows[0].0, windows[windows.len() - 1].1), (0, input as usize));
            for pair in windows.windows(2) {
                assert!(
                    pair[1].0 + 1 >= pair[0].1 && pair[1].0 <= pair[0].1,
                    "{input} → {output}: {pair:?}"
                );
            }
            assert!(windows.iter().all(|(first, end)| first < end));
        }
    }

    #[test]
    fn resizing_to_one_pixel_gives_the_mean_of_the_image() {
        // Includes more rows than 16-bit sums can hold.
        for (width, height) in [(1, 1), (31, 257), (20, 258), (3, 2000)] {
            let image = ramp(width, height);
            let got = resize_area(&image, Rect::of(&image), 1, 1);
            for (channel, got) in got.iter().enumerate() {
                let values = image.pixels.iter().skip(channel).step_by(3);
                let mean = values.map(|&v| f64::from(v)).sum::<f64>() / f64::from(width * height);
                assert!((f64::from(*got) - mean).abs() < 2e-5, "{width}×{height}");
            }
        }
    }

    #[test]
    fn selected_rows_equal_those_of_the_whole() {
        let image = ramp(40, 33);
        let whole = resize_area(&image, Rect::of(&image), 13, 11);
        for (first, end) in [(0, 11), (0, 1), (4, 9), (10, 11), (5, 5)] {
            let some = resize_area_rows(&image, Rect::of(&image), 13, 11, first..end);
            assert_eq!(some, whole[39 * first as usize..39 * end as usize]);
        }
    }

    #[test]
    fn the_same_size_copies_pixels_and_a_double_size_repeats_them() {
        let image = ramp(9, 5);
        let same = resize_area(&image, Rect::of(&image), 9, 5);
        assert!(
            same.iter()
                .zip(&image.pixels)
                .all(|(got, &level)| got.to_bits() == f32::from(level).to_bits())
        );
        let double = resize_area(&image, Rect::of(&image), 18, 10);
        for (index, got) in double.iter().enumerate() {
            let (y, x, channel) = (index / 54 / 2, index % 54 / 3 / 2, index % 3);
            assert_eq!(got.to_bits(), f32::from(image.pixels[(y * 9 + x) * 3 + channel]).to_bits());
        }
    }
}
