//! Decoding of PNG, JPEG and WebP files to upright RGB pixels.
//!
//! Every pixel equals the result of Pillow's `Image.open(file).convert("RGB")`, including its
//! quirks:
//!
//! | in the file | result |
//! |---|---|
//! | alpha, `tRNS` | dropped, never composited: the colour under a transparent pixel shows |
//! | grey, 1, 2 or 4 bits | scaled to 0..255 and copied to all channels |
//! | grey, 16 bits | **clipped** to 255, not scaled: Pillow's conversion of mode `I;16` |
//! | RGB(A) or grey with alpha, 16 bits | the high byte |
//! | CMYK, YCCK JPEG | Adobe's inverted inks, then Pillow's ink formula; no colour profile |
//! | ICC profile, gamma | ignored |
//! | animation | first frame, on a black canvas if it does not cover the canvas |
//!
//! Unlike in Pillow, the EXIF orientation is applied (all three formats can carry one), and a
//! damaged file is rejected even where Pillow would fill the rest with grey.
//!
//! The code in this module parses the headers before any decoder sees the file. A false header is
//! therefore rejected before memory is allocated for it, and the libraries only receive files whose
//! structure is valid.

mod error;
mod jpeg;
mod orientation;
mod png;
mod webp;

use std::fmt;

use image::metadata::Orientation;

use super::Image;
pub use error::DecodeError;

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

/// Format of an image file, detected from its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Portable Network Graphics, including APNG.
    Png,
    /// JPEG: baseline, extended and progressive, Huffman or arithmetic, 8 bits.
    Jpeg,
    /// WebP: lossy, lossless, animated.
    WebP,
}

impl Format {
    /// Returns the format that `bytes` start with, even if the file is truncated.
    fn of(bytes: &[u8]) -> Option<Self> {
        if bytes.starts_with(&png::SIGNATURE[..4]) {
            Some(Self::Png)
        } else if bytes.starts_with(&[0xFF, 0xD8]) {
            Some(Self::Jpeg)
        } else if bytes.starts_with(b"RIFF") && (bytes.len() < 12 || &bytes[8..12] == b"WEBP") {
            Some(Self::WebP)
        } else {
            None
        }
    }

    /// Returns the IANA media type.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::WebP => "image/webp",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::WebP => "WebP",
        })
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
struct Outline<P> {
    /// Stored columns, before the orientation.
    width: u32,
    /// Stored rows, before the orientation.
    height: u32,
    orientation: Orientation,
    /// Peak memory until the RGB pixels are complete, including those pixels, in bytes.
    memory: u64,
    plan: P,
}

impl<P> Outline<P> {
    fn header(&self, format: Format) -> Header {
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

/// An outline that passed all limits.
enum Checked<'a> {
    Png(Outline<png::Plan>),
    Jpeg(Outline<jpeg::Plan>),
    WebP(Outline<webp::Plan<'a>>),
}

fn check<'a>(bytes: &'a [u8], limits: &DecodeLimits) -> Result<(Header, Checked<'a>), DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    if bytes.len() > limits.max_bytes {
        return Err(DecodeError::TooManyBytes { bytes: bytes.len(), limit: limits.max_bytes });
    }
    let format = Format::of(bytes).ok_or(DecodeError::UnknownFormat)?;
    let (header, checked) = match format {
        Format::Png => png::outline(bytes, limits).map(|o| (o.header(format), Checked::Png(o)))?,
        Format::Jpeg => jpeg::outline(bytes, limits).map(|o| (o.header(format), Checked::Jpeg(o)))?,
        Format::WebP => webp::outline(bytes, limits).map(|o| (o.header(format), Checked::WebP(o)))?,
    };
    if header.decode_memory > limits.max_memory {
        return Err(DecodeError::TooMuchMemory { needed: header.decode_memory, limit: limits.max_memory });
    }
    Ok((header, checked))
}

/// Checks the sides that a header declares, as soon as they are known.
fn check_sides(width: u32, height: u32, limits: &DecodeLimits) -> Result<(), DecodeError> {
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

/// Reads a file's header and checks all limits without decoding a pixel.
///
/// Truncated PNG and WebP files are already detected here. Damage within the compressed data is
/// only detected by [`decode`].
pub fn read_header(bytes: &[u8], limits: &DecodeLimits) -> Result<Header, DecodeError> {
    check(bytes, limits).map(|(header, _)| header)
}

/// Decodes an image file to upright RGB, like Pillow's `convert("RGB")` (see the module's table).
///
/// The format is detected from the content. A truncated or damaged file is an error and never
/// yields a partial image.
pub fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Image, DecodeError> {
    let (_, checked) = check(bytes, limits)?;
    let (width, height, orientation, pixels) = match checked {
        Checked::Png(o) => (o.width, o.height, o.orientation, png::decode(bytes, &o)?),
        Checked::Jpeg(o) => (o.width, o.height, o.orientation, jpeg::decode(bytes, &o)?),
        Checked::WebP(o) => (o.width, o.height, o.orientation, webp::decode(bytes, &o)?),
    };
    Ok(orientation::apply(Image::new(width, height, pixels), orientation))
}

/// Returns the three colour bytes of each pixel of `stride` bytes, without the rest.
fn take_rgb(pixels: &[u8], stride: usize) -> Vec<u8> {
    let mut rgb = vec![0; pixels.len() / stride * 3];
    for (to, from) in rgb.chunks_exact_mut(3).zip(pixels.chunks_exact(stride)) {
        to.copy_from_slice(&from[..3]);
    }
    rgb
}

/// Reads a big-endian `u32` at `at`, if the file is long enough.
fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_be_bytes(*b))
}

/// Reads a big-endian `u16` at `at`, if the file is long enough.
fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_be_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_and_other_formats_are_rejected() {
        let limits = DecodeLimits::default();
        assert_eq!(decode(b"", &limits), Err(DecodeError::Empty));
        for other in [&b"hello"[..], b"GIF89a", b"BM", b"RIFF\0\0\0\0WAVE", b"%PDF-1.4", &[0; 64]] {
            assert_eq!(decode(other, &limits), Err(DecodeError::UnknownFormat));
        }
    }

    #[test]
    fn a_bare_signature_is_a_truncated_file() {
        let limits = DecodeLimits::default();
        for start in [&b"\x89PNG"[..], &png::SIGNATURE, &[0xFF, 0xD8], b"RIFF", b"RIFF\x24\0\0\0WEBP"] {
            let error = decode(start, &limits).expect_err("too short to be an image");
            assert_eq!(error.code(), "truncated", "{start:02x?}: {error}");
        }
    }

    #[test]
    fn a_file_over_the_byte_limit_is_rejected_without_parsing() {
        let limits = DecodeLimits { max_bytes: 10, ..DecodeLimits::default() };
        assert_eq!(read_header(&[0; 11], &limits), Err(DecodeError::TooManyBytes { bytes: 11, limit: 10 }));
    }

    #[test]
    fn every_message_says_what_to_do() {
        let detail = String::from("why");
        let errors = [
            DecodeError::Empty,
            DecodeError::UnknownFormat,
            DecodeError::TooManyBytes { bytes: 2, limit: 1 },
            DecodeError::NoPixels { width: 0, height: 5 },
            DecodeError::SideTooLong { width: 9, height: 1, limit: 8 },
            DecodeError::TooManyPixels { width: 9, height: 9, limit: 8 },
            DecodeError::TooMuchMemory { needed: 2, limit: 1 },
            DecodeError::Truncated { format: Format::Png, detail: detail.clone() },
            DecodeError::Corrupt { format: Format::Jpeg, detail: detail.clone() },
            DecodeError::Unsupported { format: Format::WebP, detail },
        ];
        let codes: std::collections::HashSet<_> = errors.iter().map(DecodeError::code).collect();
        assert_eq!(codes.len(), errors.len());
        for error in &errors {
            let text = error.to_string();
            assert!(text.contains(": "), "{text}");
        }
        assert_eq!(errors.iter().filter(|e| e.is_limit()).count(), 4);
    }
}
