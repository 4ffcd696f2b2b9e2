//! Pillow's resampling of 8-bit images, bit for bit.
//!
//! The algorithm is that of Pillow's `libImaging/Resample.c`: an antialiased separable filter with
//! weights of 22 fractional bits. One axis is resized and rounded to 8 bits, then the other axis is
//! resized and rounded again. Because of the rounding in between, the passes cannot be swapped or
//! fused: their order is part of the result (`is_vertical_first`).
//!
//! The choice of pixels and instructions is free. Only the window that a crop retains is computed,
//! and only from the rows and columns that it needs. A buffer between the passes holds only the
//! rows that the next output row needs, so memory use does not grow with the image. The sums are
//! integers, so AVX-512, AVX2 and portable code produce the same bits (see [`Backend`]).

mod backend;
mod coefficients;
mod kernel;
mod portable;
mod region;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use super::Image;
pub(super) use backend::Backend;
use coefficients::Coefficients;
pub use coefficients::Filter;
use kernel::{Columns, ROW_SLACK, Rows};
pub use region::Rect;
use region::Region;

/// Resizes to `width` × `height`, like Pillow's `image.resize((width, height), filter)`.
///
/// # Panics
/// If a side is 0.
#[must_use]
pub fn resize(image: &Image, width: u32, height: u32, filter: Filter) -> Image {
    let window = Rect { left: 0, top: 0, width, height };
    resize_window(image, Rect::of(image), (u64::from(width), u64::from(height)), window, filter)
}

/// Crops, resizes and crops again: Pillow's `image.crop(source).resize(size, filter).crop(window)`.
///
/// `size` is the virtual size of the whole resized region. Only `window` is computed, so `size` may
/// be larger than any memory. The region's edge is an edge for the filter: pixels beyond it have no
/// influence.
///
/// # Panics
/// If `source` is not within the image, `window` is not within `size`, or one of them is empty.
#[must_use]
pub fn resize_window(
    image: &Image,
    source: Rect,
    size: (u64, u64),
    window: Rect,
    filter: Filter,
) -> Image {
    resize_with(Backend::best(), image, source, size, window, filter)
}

fn resize_with(
    backend: Backend,
    image: &Image,
    source: Rect,
    size: (u64, u64),
    window: Rect,
    filter: Filter,
) -> Image {
    assert!(
        source.is_within(image.width.into(), image.height.into()),
        "{source:?} within {image:?}"
    );
    assert!(window.is_within(size.0, size.1), "{window:?} within the size {size:?}");
    let region = Region::new(image, source);
    // An unchanged side needs no pass: all weights would be 1, and the result would have the same
    // bits.
    let columns = (size.0 != u64::from(source.width))
        .then(|| Coefficients::new(source.width, size.0, window.left, window.width, filter));
    let rows = (size.1 != u64::from(source.height))
        .then(|| Coefficients::new(source.height, size.1, window.top, window.height, filter));
    let pixels = match (columns, rows) {
        (Some(columns), Some(rows)) if is_vertical_first(source, size) => {
            vertical_first(backend, &region, columns, &rows, window)
        }
        (columns, rows) => {
            let columns = columns.map(|coefficients| backend.columns(&coefficients));
            let kernel = rows.as_ref().map(|coefficients| backend.rows(coefficients));
            let rows =
                rows.unwrap_or_else(|| Coefficients::identity(window.top as u32, window.height));
            horizontal_first(&region, columns.as_deref(), window, &rows, kernel.as_deref())
        }
    };
    Image::new(window.width, window.height, pixels)
}

/// Returns whether Pillow 13 does the vertical pass first: if it removes more than twice as many
/// rows as the horizontal pass removes columns.
///
/// An image that is shrunk uniformly meets this condition if it is more than twice as high as wide.
/// Earlier versions of Pillow did the horizontal pass first (11 and 12 unless the image was 100
/// times as high as wide). In such images, some values differ by one level.
fn is_vertical_first(source: Rect, size: (u64, u64)) -> bool {
    let removed = |from: u32, to: u64| i128::from(from) - i128::from(to);
    let (columns, rows) = (removed(source.width, size.0), removed(source.height, size.1));
    rows > 0 && 2 * columns < rows
}

/// Number of source rows that the horizontal pass processes at once, so that they share each load
/// of weights.
const ROWS_AT_ONCE: usize = 4;

/// Runs both passes over a window, or only the one that is needed. `coefficients` specifies the
/// rows that each output row needs.
fn horizontal_first(
    region: &Region<'_>,
    columns: Option<&dyn Columns>,
    window: Rect,
    coefficients: &Coefficients,
    rows: Option<&dyn Rows>,
) -> Vec<u8> {
    let row_bytes = 3 * window.width as usize;
    let stride = row_bytes + ROW_SLACK;
    // Twice the number of rows that one output row needs, so that rows are moved to the front only
    // occasionally.
    let capacity = (2 * coefficients.longest() + 2 * ROWS_AT_ONCE).next_multiple_of(ROWS_AT_ONCE);
    let mut buffer = vec![0; capacity * stride + ROW_SLACK];
    // `buffer` holds the source rows base..produced.
    let (mut base, mut produced) = (0, 0);
    let mut spares: [Vec<u8>; ROWS_AT_ONCE] = Default::default();
    let mut output = vec![0; row_bytes * window.height as usize];
    for (y, out) in output.chunks_exact_mut(row_bytes).enumerate() {
        let (first, count) = coefficients.span(y);
        if first >= produced {
            (base, produced) = (first, first);
        }
        while produced < first + count {
            if produced - base + ROWS_AT_ONCE > capacity {
                buffer.copy_within((first - base) * stride..(produced - base) * stride, 0);
                base = first;
            }
            let target = &mut buffer[(produced - base) * stride..];
            produce(region, produced, columns, window, target, stride, &mut spares);
            produced += ROWS_AT_ONCE;
        }
        let needed = &buffer[(first - base) * stride..];
        match rows {
            Some(rows) => rows.row(y, needed, stride, out),
            None => out.copy_from_slice(&needed[..row_bytes]),
        }
    }
    output
}

/// Resizes the next [`ROWS_AT_ONCE`] source rows horizontally into `target`.
fn produce(
    region: &Region<'_>,
    first: usize,
    columns: Option<&dyn Columns>,
    window: Rect,
    target: &mut [u8],
    stride: usize,
    spares: &mut [Vec<u8>; ROWS_AT_ONCE],
) {
    let row_bytes = 3 * window.width as usize;
    let Some(columns) = columns else {
        let offset = 3 * window.left as usize;
        for (row, out) in target.chunks_mut(stride).take(ROWS_AT_ONCE).enumerate() {
            let source = region.row(first + row, 0, &mut spares[0]);
            out[..row_bytes].copy_from_slice(&source[offset..offset + row_bytes]);
        }
        return;
    };
    let reach = columns.reach();
    let [a, b, c, d] = spares;
    let sources = [
        region.row(first, reach, a),
        region.row(first + 1, reach, b),
        region.row(first + 2, reach, c),
        region.row(first + 3, reach, d),
    ];
    columns.rows(sources, target, stride);
}

/// Runs both passes over a window, vertical pass first: each output row is made from whole source
/// rows, then resized to its width.
fn vertical_first(
    backend: Backend,
    region: &Region<'_>,
    mut columns: Coefficients,
    rows: &Coefficients,
    window: Rect,
) -> Vec<u8> {
    // Only these source columns contribute to the window.
    let (first_column, end_column) = columns.reach();
    columns.move_left(first_column);
    let horizontal = backend.columns(&columns);
    let vertical = backend.rows(rows);
    let middle_bytes = 3 * (end_column - first_column);
    let middle_stride = middle_bytes.max(horizontal.reach()) + ROW_SLACK;
    let mut middle = vec![0; ROWS_AT_ONCE * middle_stride];
    let row_bytes = 3 * window.width as usize;
    let stride = row_bytes + ROW_SLACK;
    let mut resized = vec![0; ROWS_AT_ONCE * stride + ROW_SLACK];
    let mut spare = Vec::new();
    let mut output = vec![0; row_bytes * window.height as usize];
    for (group, out) in output.chunks_mut(ROWS_AT_ONCE * row_bytes).enumerate() {
        let rows_here = out.len() / row_bytes;
        for (row, middle) in middle.chunks_exact_mut(middle_stride).take(rows_here).enumerate() {
            let index = ROWS_AT_ONCE * group + row;
            let (first, count) = rows.span(index);
            let (source, source_stride) =
                region.rows(first, count, first_column, middle_bytes, &mut spare);
            vertical.row(index, source, source_stride, &mut middle[..middle_bytes]);
        }
        let (a, rest) = middle.split_at(middle_stride);
        let (b, rest) = rest.split_at(middle_stride);
        let (c, d) = rest.split_at(middle_stride);
        horizontal.rows([a, b, c, d], &mut resized, stride);
        for (out, from) in out.chunks_exact_mut(row_bytes).zip(resized.chunks(stride)) {
            out.copy_from_slice(&from[..row_bytes]);
        }
    }
    output
}

#[cfg(test)]
mod tests;
