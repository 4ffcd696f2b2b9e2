//! Images: from a file's bytes to the exact pixels that a graph was trained to see.
//!
//! ```text
//! bytes ── read_header   header only: format, size, decode memory, every limit      (microseconds)
//!       ── decode  PNG, JPEG, WebP → [`Image`] RGB8, upright                   (bit-equal to Pillow)
//!       ── resize  fixed-point two-pass resampling, on AVX-512, AVX2 or plain  (bit-equal to Pillow)
//!       ── resize_area  plain means as floats, for face detection               (equal to PyTorch)
//!       ── Geometry::apply  resize and crop as a pack's manifest asks → [`Prepared`]
//! ```
//!
//! The reference toolkit reads images through Pillow, and every published score went through Pillow's
//! rounding. A resize that is "as good" but differs by one level in a few pixels moves a cosine similarity by
//! more than two models differ; so equality of bits, not of looks, is the aim here, and the tests compare
//! with digests of what Pillow gives.
//!
//! One difference is wanted: the EXIF orientation is applied here and ignored by the reference toolkit, which
//! would score a phone's portrait photo lying on its side.

pub mod area;
mod decode;
mod geometry;
mod letterbox;
mod resample;

pub use area::resize_area;
pub use decode::{DecodeError, DecodeLimits, Format, Header, decode, read_header};
pub use geometry::{CropRounding, Geometry, GeometryError, Prepared};
pub use resample::{Filter, Rect, resize, resize_window};

/// An image in memory: 8 bits a channel, RGB, rows from top to bottom without padding.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    /// Columns, at least 1.
    pub width: u32,
    /// Rows, at least 1.
    pub height: u32,
    /// `3 · width · height` bytes: R, G, B of the top left pixel first.
    pub pixels: Vec<u8>,
}

impl Image {
    /// Takes `pixels` as an image of `width` × `height`.
    ///
    /// # Panics
    /// If a side is 0 or `pixels` has not `3 · width · height` bytes: a bug of the caller, not bad input.
    #[must_use]
    pub fn new(width: u32, height: u32, pixels: Vec<u8>) -> Self {
        assert!(width > 0 && height > 0, "an image has at least one pixel, not {width}×{height}");
        assert_eq!(pixels.len(), 3 * width as usize * height as usize, "RGB bytes of {width}×{height}");
        Self { width, height, pixels }
    }
}

/// Shows the size only: pixels would fill a log.
impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image({}×{} RGB8)", self.width, self.height)
    }
}
