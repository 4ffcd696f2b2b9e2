//! Formats of image files.

use std::fmt;

/// First eight bytes of every PNG file.
pub(super) const SIGNATURE: [u8; 8] = *b"\x89PNG\r\n\x1a\n";

/// Format of an image file, detected from its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Portable Network Graphics, including APNG.
    Png,
    /// JPEG: baseline, extended and progressive, Huffman or arithmetic, 8 bits.
    Jpeg,
    /// WebP: lossy, lossless, animated.
    WebP,
    /// Netpbm's portable pixmap, `P6` with 8 bits a channel: raw RGB after a header of a few bytes.
    Ppm,
}

impl Format {
    /// Returns the format that `bytes` start with, even if the file is truncated.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        if bytes.starts_with(&SIGNATURE[..4]) {
            Some(Self::Png)
        } else if bytes.starts_with(&[0xFF, 0xD8]) {
            Some(Self::Jpeg)
        } else if bytes.starts_with(b"RIFF") && (bytes.len() < 12 || &bytes[8..12] == b"WEBP") {
            Some(Self::WebP)
        } else if bytes.starts_with(b"P6") && bytes.get(2).is_none_or(u8::is_ascii_whitespace) {
            Some(Self::Ppm)
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
            Self::Ppm => "image/x-portable-pixmap",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::WebP => "WebP",
            Self::Ppm => "PPM",
        })
    }
}
