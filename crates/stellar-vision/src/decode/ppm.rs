//! PPM (Netpbm's `P6`): a short header in text, then RGB bytes: the uncompressed form of pixels.

use image::metadata::Orientation;

use super::error::DecodeError;
use super::format::Format;
use super::outline::{DecodeLimits, Outline, check_sides};

/// Maximum length of the header, in bytes: three numbers and a comment.
const MOST_HEADER: usize = 1024;

/// Maximum value of a channel. Files with other values are rare, and would have to be scaled.
const MAXIMUM: u32 = 255;

/// Position of the first pixel.
pub(super) type Plan = usize;

fn truncated(detail: impl Into<String>) -> DecodeError {
    DecodeError::Truncated { format: Format::Ppm, detail: detail.into() }
}

fn corrupt(detail: impl Into<String>) -> DecodeError {
    DecodeError::Corrupt { format: Format::Ppm, detail: detail.into() }
}

/// Reads the header and checks the length of the file.
pub(super) fn outline(bytes: &[u8], limits: &DecodeLimits) -> Result<Outline<Plan>, DecodeError> {
    let mut header = Header { bytes, at: 2 };
    let (width, height) = (header.number("width")?, header.number("height")?);
    check_sides(width, height, limits)?;
    let maximum = header.number("maximum")?;
    if maximum != MAXIMUM {
        let detail = format!("its maximum is {maximum}: only 255 is read");
        return Err(DecodeError::Unsupported { format: Format::Ppm, detail });
    }
    // One whitespace character separates the header from the pixels, which may look like one.
    let start = header.at + 1;
    let size = 3 * u64::from(width) * u64::from(height);
    let found = bytes.len().saturating_sub(start) as u64;
    if found < size {
        return Err(truncated(format!("it has {found} of {size} bytes of pixels")));
    }
    if found > size {
        return Err(corrupt(format!("{} bytes follow its pixels", found - size)));
    }
    let orientation = Orientation::NoTransforms;
    Ok(Outline { width, height, orientation, memory: size, plan: start })
}

/// Returns the pixels.
pub(super) fn decode(bytes: &[u8], outline: &Outline<Plan>) -> Vec<u8> {
    bytes[outline.plan..].to_vec()
}

struct Header<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Header<'_> {
    /// Reads the next number, after whitespace and comments. The position is then at the character
    /// after it.
    fn number(&mut self, what: &str) -> Result<u32, DecodeError> {
        let mut in_comment = false;
        let mut number: Option<u32> = None;
        loop {
            if self.at > MOST_HEADER {
                return Err(corrupt("its header has more than 1024 bytes"));
            }
            let byte = *self
                .bytes
                .get(self.at)
                .ok_or_else(|| truncated(format!("it ends before its {what}")))?;
            match byte {
                _ if in_comment => in_comment = byte != b'\n',
                b'0'..=b'9' => {
                    let digit = u32::from(byte - b'0');
                    let larger = number.unwrap_or(0).checked_mul(10);
                    let larger = larger.and_then(|tens| tens.checked_add(digit));
                    number =
                        Some(larger.ok_or_else(|| corrupt(format!("its {what} is too large")))?);
                }
                _ if byte.is_ascii_whitespace() => {
                    if let Some(number) = number {
                        return Ok(number);
                    }
                }
                b'#' if number.is_none() => in_comment = true,
                _ => return Err(corrupt(format!("its {what} is not a number"))),
            }
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{decode, read_header};
    use super::*;

    fn file(header: &str, pixels: usize) -> Vec<u8> {
        let pixels = (0..pixels).map(|byte| byte as u8);
        header.bytes().chain(pixels).collect()
    }

    #[test]
    fn pixels_are_those_of_the_file() {
        let limits = DecodeLimits::default();
        for header in ["P6\n2 1\n255\n", "P6 2\t1 255 ", "P6\n# a comment 9\n2 1\n#x\n255\n"] {
            let image = decode(&file(header, 6), &limits).unwrap();
            assert_eq!((image.width, image.height), (2, 1), "{header:?}");
            assert_eq!(image.pixels, [0, 1, 2, 3, 4, 5], "{header:?}");
        }
        // Pixels may begin with a byte that is whitespace in text.
        let image = decode(b"P6 1 1 255\n\n\n\n", &limits).unwrap();
        assert_eq!(image.pixels, b"\n\n\n".to_vec());
    }

    #[test]
    fn damaged_and_huge_files_are_refused_before_memory_is_taken() {
        let limits = DecodeLimits::default();
        for (header, pixels, code) in [
            ("P6\n2 1\n255\n", 5, "truncated"),
            ("P6\n2 1\n255\n", 7, "corrupt"),
            ("P6\n2 1", 0, "truncated"),
            ("P6\n2 x\n255\n", 6, "corrupt"),
            ("P6\n-2 1\n255\n", 6, "corrupt"),
            ("P6\n2 1\n65535\n", 12, "unsupported"),
            ("P6\n0 1\n255\n", 0, "too_small"),
            ("P6\n99999999999 1\n255\n", 6, "corrupt"),
            ("P6\n4000000000 4000000000\n255\n", 6, "too_large"),
        ] {
            let error = read_header(&file(header, pixels), &limits).unwrap_err();
            let codes = [error.code(), error.problem()].map(str::to_owned);
            assert!(codes.iter().any(|found| found.contains(code)), "{header:?}: {codes:?}");
        }
        let comment = format!("P6\n#{}\n2 1 255\n", "x".repeat(2000));
        assert!(read_header(&file(&comment, 6), &limits).is_err());
    }
}
