//! From the bytes of a PNG, JPEG or WebP file to upright RGB pixels.
//!
//! Every pixel equals that of Pillow's `Image.open(file).convert("RGB")`, its quirks included:
//!
//! | in the file | becomes |
//! |---|---|
//! | alpha, `tRNS` | dropped, never composited: the colour under a transparent pixel shows |
//! | grey, 1, 2, 4 bits | scaled to 0..255 and repeated over the channels |
//! | grey, 16 bits | **clipped** to 255, not scaled: Pillow's conversion of mode `I;16` |
//! | RGB(A), grey with alpha, 16 bits | the high byte |
//! | CMYK, YCCK JPEG | read as Adobe's inverted inks, then Pillow's ink formula; no colour profile |
//! | ICC profile, gamma | ignored |
//! | animation | its first frame, on a black canvas where it does not cover it |
//!
//! Unlike Pillow, the EXIF orientation is applied (all three formats can carry one), and a damaged file is
//! refused even where Pillow would fill the rest with grey.
//!
//! The headers are walked by the code in this module before any decoder sees the file. So a lying header is
//! refused before memory is taken for it, and the libraries get only files whose outline is sound.

mod error;
mod jpeg;
mod orientation;
mod png;
mod webp;

use std::fmt;

use image::metadata::Orientation;

use super::Image;
pub use error::DecodeError;

/// What decoding one file may cost. All limits are checked before the memory is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Longest file, in bytes.
    pub max_bytes: usize,
    /// Longest side, in pixels.
    pub max_side: u32,
    /// Most pixels, width × height.
    pub max_pixels: u64,
    /// Most memory at the peak of decoding, in bytes, beside the file itself.
    pub max_memory: u64,
}

impl Default for DecodeLimits {
    /// 32 MiB (a 24-megapixel photo as PNG), 65,535 a side (what a JPEG can have), 64 mebipixels (8192 × 8192),
    /// and 512 MiB (that many pixels from any 8-bit file with a quarter turn, or from a progressive JPEG with
    /// 4:2:0 chroma).
    fn default() -> Self {
        Self { max_bytes: 32 << 20, max_side: 65_535, max_pixels: 64 << 20, max_memory: 512 << 20 }
    }
}

/// An image file's format, told by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Portable Network Graphics, APNG included.
    Png,
    /// JPEG: baseline, extended and progressive, Huffman or arithmetic, 8 bits.
    Jpeg,
    /// WebP: lossy, lossless, animated.
    WebP,
}

impl Format {
    /// The format that `bytes` begin as, even if the file ends early.
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

    /// The IANA media type.
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

/// What a file's header promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The format, by content.
    pub format: Format,
    /// Columns of the upright image (after the EXIF orientation).
    pub width: u32,
    /// Rows of the upright image (after the EXIF orientation).
    pub height: u32,
    /// Estimated peak of memory while decoding, in bytes, for admission by memory.
    pub decode_memory: u64,
}

/// What a walk over a file's structure found; `plan` is what its decoder needs to know.
struct Outline<P> {
    /// Stored columns, before the orientation.
    width: u32,
    /// Stored rows, before the orientation.
    height: u32,
    orientation: Orientation,
    /// Peak of memory until the RGB pixels are there, those included.
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

/// An outline whose decoding has been allowed.
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

/// Checks the sides that a header gives, as soon as they are known.
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

/// Reads a file's header and checks all limits, without decoding a pixel.
///
/// PNG and WebP files that end early are told here already; damage within the compressed data is found by
/// [`decode`] only.
pub fn read_header(bytes: &[u8], limits: &DecodeLimits) -> Result<Header, DecodeError> {
    check(bytes, limits).map(|(header, _)| header)
}

/// Decodes an image file to upright RGB, as Pillow's `convert("RGB")` gives it (see the module's table).
///
/// The format is told by the content. A file that ends early or whose data is damaged is an error, never a
/// partial image.
pub fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Image, DecodeError> {
    let (_, checked) = check(bytes, limits)?;
    let (width, height, orientation, pixels) = match checked {
        Checked::Png(o) => (o.width, o.height, o.orientation, png::decode(bytes, &o)?),
        Checked::Jpeg(o) => (o.width, o.height, o.orientation, jpeg::decode(bytes, &o)?),
        Checked::WebP(o) => (o.width, o.height, o.orientation, webp::decode(bytes, &o)?),
    };
    Ok(orientation::apply(Image::new(width, height, pixels), orientation))
}

/// The three colour bytes of each pixel of `stride` bytes, the rest dropped.
fn take_rgb(pixels: &[u8], stride: usize) -> Vec<u8> {
    let mut rgb = vec![0; pixels.len() / stride * 3];
    for (to, from) in rgb.chunks_exact_mut(3).zip(pixels.chunks_exact(stride)) {
        to.copy_from_slice(&from[..3]);
    }
    rgb
}

/// A big-endian `u32` at `at`, if the file is that long.
fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_be_bytes(*b))
}

/// A big-endian `u16` at `at`, if the file is that long.
fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_be_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_empty_and_text_is_no_image() {
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
    fn a_file_over_the_byte_limit_is_refused_unread() {
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
