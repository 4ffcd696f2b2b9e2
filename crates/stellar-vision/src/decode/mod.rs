//! Decoding of PNG, JPEG, WebP and PPM files to upright RGB pixels.
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
//! Unlike in Pillow, the EXIF orientation is applied (all formats but PPM can carry one), and a
//! damaged file is rejected even where Pillow would fill the rest with grey.
//!
//! The code in this module parses the headers before any decoder sees the file. A false header is
//! therefore rejected before memory is allocated for it, and the libraries only receive files whose
//! structure is valid.

mod error;
mod format;
mod jpeg;
mod orientation;
mod outline;
mod png;
mod ppm;
mod webp;

use super::Image;
pub use error::DecodeError;
pub use format::Format;
use outline::Outline;
pub use outline::{DecodeLimits, Header};

/// An outline that passed all limits.
enum Checked<'a> {
    Png(Outline<png::Plan>),
    Jpeg(Outline<jpeg::Plan>),
    WebP(Outline<webp::Plan<'a>>),
    Ppm(Outline<ppm::Plan>),
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
        Format::Jpeg => {
            jpeg::outline(bytes, limits).map(|o| (o.header(format), Checked::Jpeg(o)))?
        }
        Format::WebP => {
            webp::outline(bytes, limits).map(|o| (o.header(format), Checked::WebP(o)))?
        }
        Format::Ppm => ppm::outline(bytes, limits).map(|o| (o.header(format), Checked::Ppm(o)))?,
    };
    if header.decode_memory > limits.max_memory {
        return Err(DecodeError::TooMuchMemory {
            needed: header.decode_memory,
            limit: limits.max_memory,
        });
    }
    Ok((header, checked))
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
        Checked::Ppm(o) => (o.width, o.height, o.orientation, ppm::decode(bytes, &o)),
    };
    Ok(orientation::apply(Image::new(width, height, pixels), orientation))
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
        for start in
            [&b"\x89PNG"[..], &format::SIGNATURE, &[0xFF, 0xD8], b"RIFF", b"RIFF\x24\0\0\0WEBP"]
        {
            let error = decode(start, &limits).expect_err("too short to be an image");
            assert_eq!(error.code(), "truncated", "{start:02x?}: {error}");
        }
    }

    #[test]
    fn a_file_over_the_byte_limit_is_rejected_without_parsing() {
        let limits = DecodeLimits { max_bytes: 10, ..DecodeLimits::default() };
        assert_eq!(
            read_header(&[0; 11], &limits),
            Err(DecodeError::TooManyBytes { bytes: 11, limit: 10 })
        );
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
