//! Images: from a file's bytes to the exact pixels that a graph was trained on.
//!
//! ```text
//! bytes ── read_header   header only: format, size, decode memory, all limits (microseconds)
//!       ── decode        PNG, JPEG, WebP, PPM → [`Image`] RGB8, upright (bit-equal to Pillow)
//!       ── resize        fixed-point two-pass resampling (bit-equal to Pillow),
//!                        with AVX-512, AVX2 or portable code
//!       ── resize_area   means as floats, for face detection (equal to PyTorch)
//!       ── Geometry::apply  resize and crop as a pack's manifest specifies → [`Prepared`]
//! ```
//!
//! The reference toolkit reads images through Pillow, and every published score went through
//! Pillow's rounding. A resize that is equally good but differs by one level in a few pixels moves
//! a cosine similarity by more than the difference between two models. The aim is therefore bit
//! equality, not visual similarity, and the tests compare with digests of Pillow's output.
//!
//! There is one intended difference: the EXIF orientation is applied here. The reference toolkit
//! ignores it and would score a phone's portrait photo lying on its side.

pub mod area;
mod decode;
mod geometry;
mod letterbox;
mod memory;
mod resample;

pub use area::resize_area;
pub use decode::{DecodeError, DecodeLimits, Format, Header, decode, read_header};
pub use geometry::{CropRounding, Geometry, GeometryError, Prepared};
pub use memory::give_back_free_memory;
pub use resample::{Filter, Rect, resize, resize_window};

/// An image in memory: RGB with 8 bits per channel, rows from top to bottom without padding.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    /// Columns, at least 1.
    pub width: u32,
    /// Rows, at least 1.
    pub height: u32,
    /// `3 · width · height` bytes, starting with R, G, B of the top left pixel.
    pub pixels: Vec<u8>,
}

impl Image {
    /// Creates an image of `width` × `height` from its RGB bytes.
    ///
    /// # Panics
    /// If a side is 0 or `pixels` does not have `3 · width · height` bytes: a bug in the caller,
    /// not bad input.
    #[must_use]
    pub fn new(width: u32, height: u32, pixels: Vec<u8>) -> Self {
        assert!(width > 0 && height > 0, "an image has at least one pixel, not {width}×{height}");
        assert_eq!(
            pixels.len(),
            3 * width as usize * height as usize,
            "RGB bytes of {width}×{height}"
        );
        Self { width, height, pixels }
    }
}

/// Shows only the size: the pixels would flood a log.
impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image({}×{} RGB8)", self.width, self.height)
    }
}
