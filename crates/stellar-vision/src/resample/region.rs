//! Access to the source pixels in the form that the kernels need.

use super::kernel::ROW_SLACK;
use crate::Image;

/// A rectangle of pixels; `left` and `top` count from the top left corner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rect {
    /// First column.
    pub left: u64,
    /// First row.
    pub top: u64,
    /// Number of columns.
    pub width: u32,
    /// Number of rows.
    pub height: u32,
}

impl Rect {
    /// Returns the rectangle that covers an image.
    #[must_use]
    pub fn of(image: &Image) -> Self {
        Self { left: 0, top: 0, width: image.width, height: image.height }
    }

    /// Returns whether the rectangle has pixels and all of them lie within `width` × `height`.
    pub(crate) fn is_within(&self, width: u64, height: u64) -> bool {
        let fits = |first: u64, count: u32, side: u64| {
            count > 0 && first.checked_add(u64::from(count)).is_some_and(|end| end <= side)
        };
        fits(self.left, self.width, width) && fits(self.top, self.height, height)
    }
}

/// A rectangle of an image whose rows may be read beyond their end.
pub(super) struct Region<'a> {
    pixels: &'a [u8],
    /// Distance from one row to the next, in bytes.
    stride: usize,
    /// Byte offset of the top left pixel.
    origin: usize,
    width: usize,
    height: usize,
}

impl<'a> Region<'a> {
    pub(super) fn new(image: &'a Image, rect: Rect) -> Self {
        let stride = 3 * image.width as usize;
        Self {
            pixels: &image.pixels,
            stride,
            origin: rect.top as usize * stride + 3 * rect.left as usize,
            width: rect.width as usize,
            height: rect.height as usize,
        }
    }

    /// Returns row `y`, or the last row, with at least `length` bytes. Bytes beyond the row's own
    /// pixels are arbitrary. The row is copied to `spare` if the image ends too soon.
    pub(super) fn row<'b>(&'b self, y: usize, length: usize, spare: &'b mut Vec<u8>) -> &'b [u8] {
        let start = self.origin + y.min(self.height - 1) * self.stride;
        let rest = &self.pixels[start..];
        if rest.len() >= length {
            return rest;
        }
        spare.clear();
        spare.extend_from_slice(&rest[..3 * self.width]);
        spare.resize(length.max(3 * self.width), 0);
        spare
    }

    /// Returns `count` rows from row `first` on, starting at column `column`, and their stride.
    /// [`ROW_SLACK`] arbitrary bytes follow the `length` bytes of each row. The rows are copied to
    /// `spare` if the image ends too soon.
    pub(super) fn rows<'b>(
        &'b self,
        first: usize,
        count: usize,
        column: usize,
        length: usize,
        spare: &'b mut Vec<u8>,
    ) -> (&'b [u8], usize) {
        let start = self.origin + first * self.stride + 3 * column;
        let rest = &self.pixels[start..];
        if rest.len() >= (count - 1) * self.stride + length + ROW_SLACK {
            return (rest, self.stride);
        }
        let stride = length + ROW_SLACK;
        spare.clear();
        for row in rest.chunks(self.stride).take(count) {
            spare.extend_from_slice(&row[..length]);
            spare.resize(spare.len() + ROW_SLACK, 0);
        }
        (spare, stride)
    }
}
