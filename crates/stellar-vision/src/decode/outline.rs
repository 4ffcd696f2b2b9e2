//! The outline of a file: what its structure declares, and the limits for it.

use image::metadata::Orientation;

use super::error::DecodeError;
use super::format::Format;
use super::orientation;

/// Limits for decoding one file. All limits are checked before memory is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Maximum length of the file, in bytes.
    pub max_bytes: usize,
    /// Maximum length of a side, in pixels.
    pub max_side: u32,
    /// Maximum number of pixels, width × height.
    pub max_pixels: u64,
    /// Maximum peak memory while decoding, in bytes, in addition to the file itself.
    pub max_memory: u64,
}

impl Default for DecodeLimits {
    /// 32 MiB (a 24-megapixel photograph as PNG), 65,535 pixels per side (the maximum of a JPEG),
    /// 64 mebipixels (8192 × 8192), and 512 MiB of memory (enough for that many pixels from any
    /// 8-bit file with a quarter turn, or from a progressive JPEG with 4:2:0 chroma).
    fn default() -> Self {
        Self { max_bytes: 32 << 20, max_side: 65_535, max_pixels: 64 << 20, max_memory: 512 << 20 }
    }
}

/// Properties declared by a file's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Format, detected from the content.
    pub format: Format,
    /// Columns of the upright image (after the EXIF orientation).
    pub width: u32,
    /// Rows of the upright image (after the EXIF orientation).
    pub height: u32,
    /// Estimated peak memory while decoding, in bytes, for admission by memory.
    pub decode_memory: u64,
}

/// Result of walking a file's structure; `plan` is the data that its decoder needs.
pub(super) struct Outline<P> {
    /// Stored columns, before the orientation.
    pub(super) width: u32,
    /// Stored rows, before the orientation.
    pub(super) height: u32,
    pub(super) orientation: Orientation,
    /// Peak memory until the RGB pixels are complete, including those pixels, in bytes.
    pub(super) memory: u64,
    pub(super) plan: P,
}

impl<P> Outline<P> {
    pub(super) fn header(&self, format: Format) -> Header {
        let (width, height) = if orientation::swaps_sides(self.orientation) {
            (self.height, self.width)
        } else {
            (self.width, self.height)
        };
        let rgb = 3 * u64::from(width) * u64::from(height);
        let turned = if orientation::swaps_sides(self.orientation) { 2 * rgb } else { rgb };
        Header { format, width, height, decode_memory: self.memory.max(turned) }
    }
}

/// Checks the sides that a header declares, as soon as they are known.
pub(super) fn check_sides(
    width: u32,
    height: u32,
    limits: &DecodeLimits,
) -> Result<(), DecodeError> {
    if width == 0 || height == 0 {
        return Err(DecodeError::NoPixels { width, height });
    }
    if u64::from(width) * u64::from(height) > limits.max_pixels {
        return Err(DecodeError::TooManyPixels { width, height, limit: limits.max_pixels });
    }
    if width.max(height) > limits.max_side {
        return Err(DecodeError::SideTooLong { width, height, limit: limits.max_side });
    }
    Ok(())
}

/// Returns the three colour bytes of each pixel of `stride` bytes, without the rest.
pub(super) fn take_rgb(pixels: &[u8], stride: usize) -> Vec<u8> {
    let mut rgb = vec![0; pixels.len() / stride * 3];
    for (to, from) in rgb.chunks_exact_mut(3).zip(pixels.chunks_exact(stride)) {
        to.copy_from_slice(&from[..3]);
    }
    rgb
}

/// Reads a big-endian `u32` at `at`, if the file is long enough.
pub(super) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_be_bytes(*b))
}

/// Reads a big-endian `u16` at `at`, if the file is long enough.
pub(super) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_be_bytes(*b))
}
