//! PNG and APNG: parsing of the chunks and Pillow's colour conversions.

use std::io::Cursor;

use image::codecs::png::PngDecoder;
use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageError, Limits};

use super::format::SIGNATURE;
use super::outline::{Outline, be32, check_sides, take_rgb};
use super::{DecodeError, DecodeLimits, Format, orientation};

/// Highest compression ratio of Deflate: 258 bytes from a length code and a distance code of one
/// bit each.
const DEFLATE_MAX_RATIO: u64 = 1032;

/// Memory that the decoder may use for texts and profiles, in bytes, in addition to the file's own
/// length.
const METADATA_MEMORY: u64 = 16 << 20;

/// Colour type 0 of the PNG specification: grey without an alpha channel.
const GREY: u8 = 0;

/// Header data that the decoder needs.
pub(super) struct Plan {
    /// Colour type from the header.
    colour: u8,
}

fn truncated(detail: impl Into<String>) -> DecodeError {
    DecodeError::Truncated { format: Format::Png, detail: detail.into() }
}

fn corrupt(detail: impl Into<String>) -> DecodeError {
    DecodeError::Corrupt { format: Format::Png, detail: detail.into() }
}

/// Fields of an `IHDR` chunk that the decoder or the limits depend on.
struct Ihdr {
    width: u32,
    height: u32,
    depth: u8,
    colour: u8,
}

impl Ihdr {
    fn parse(data: &[u8], limits: &DecodeLimits) -> Result<Self, DecodeError> {
        let &[w0, w1, w2, w3, h0, h1, h2, h3, depth, colour, compression, filter, interlace] = data
        else {
            return Err(corrupt(format!("its IHDR chunk has {} bytes instead of 13", data.len())));
        };
        let width = u32::from_be_bytes([w0, w1, w2, w3]);
        let height = u32::from_be_bytes([h0, h1, h2, h3]);
        check_sides(width, height, limits)?;
        let legal = match colour {
            GREY => matches!(depth, 1 | 2 | 4 | 8 | 16),
            3 => matches!(depth, 1 | 2 | 4 | 8),
            2 | 4 | 6 => matches!(depth, 8 | 16),
            _ => false,
        };
        if !legal {
            return Err(corrupt(format!("colour type {colour} with {depth} bits does not exist")));
        }
        if compression != 0 || filter != 0 || interlace > 1 {
            return Err(corrupt("unknown compression, filter or interlace method"));
        }
        Ok(Self { width, height, depth, colour })
    }

    /// Channels in the file.
    fn channels(&self) -> u64 {
        match self.colour {
            2 => 3,
            4 => 2,
            6 => 4,
            _ => 1,
        }
    }

    /// Lower bound of the size of the decompressed rows, in bytes, without filter bytes and
    /// interlacing.
    fn raw_bytes(&self) -> u64 {
        let row = (u64::from(self.width) * self.channels() * u64::from(self.depth)).div_ceil(8);
        row * u64::from(self.height)
    }

    /// Bytes per pixel of the decoder's output: at least one per channel, with expanded palettes
    /// and `tRNS` as alpha.
    fn decoded_bytes_per_pixel(&self, transparency: bool) -> u64 {
        let channels = match self.colour {
            3 => 3,
            _ => self.channels(),
        };
        let alpha = u64::from(transparency && matches!(self.colour, GREY | 2 | 3));
        (channels + alpha) * u64::from(self.depth).div_ceil(8)
    }
}

/// Walks the chunks up to `IEND`. Each chunk must lie within the file.
pub(super) fn outline(bytes: &[u8], limits: &DecodeLimits) -> Result<Outline<Plan>, DecodeError> {
    if bytes.len() < SIGNATURE.len() {
        return Err(truncated("it ends within its signature"));
    }
    if !bytes.starts_with(&SIGNATURE) {
        return Err(corrupt("its signature is altered, as after a transfer in text mode"));
    }
    let mut ihdr: Option<Ihdr> = None;
    let mut orientation = Orientation::NoTransforms;
    let mut transparency = false;
    let mut data_bytes = 0_u64;
    let mut at = SIGNATURE.len();
    loop {
        let (Some(length), Some(kind)) = (be32(bytes, at), be32(bytes, at + 4)) else {
            return Err(truncated("it ends between two chunks"));
        };
        let kind = kind.to_be_bytes();
        let Some(data) = bytes.get(at + 8..).and_then(|rest| rest.get(..length as usize)) else {
            let name = kind.escape_ascii();
            return Err(truncated(format!(
                "its {name} chunk declares {length} bytes, more than remain"
            )));
        };
        match (&kind, &ihdr) {
            (b"IHDR", None) => ihdr = Some(Ihdr::parse(data, limits)?),
            (b"IHDR", Some(_)) => return Err(corrupt("it has two headers")),
            (_, None) => return Err(corrupt("it does not begin with an IHDR chunk")),
            (b"tRNS", _) => transparency = true,
            (b"IDAT", _) => data_bytes += u64::from(length),
            (b"eXIf", _) => orientation = orientation::of_exif(data),
            // A first frame smaller than the canvas would leave the rest of the image undefined.
            (b"fcTL", Some(ihdr)) if data_bytes == 0 => check_first_frame(data, ihdr)?,
            _ => {}
        }
        at += 8 + length as usize;
        if be32(bytes, at).is_none() {
            return Err(truncated("it ends within a chunk's checksum"));
        }
        at += 4;
        if &kind == b"IEND" {
            break;
        }
    }
    let ihdr = ihdr.ok_or_else(|| corrupt("it has no header"))?;
    if ihdr.raw_bytes() > data_bytes.saturating_mul(DEFLATE_MAX_RATIO) {
        return Err(truncated(format!(
            "{data_bytes} bytes of image data cannot hold the {}×{} pixels that its header \
                declares",
            ihdr.width, ihdr.height
        )));
    }
    let pixels = u64::from(ihdr.width) * u64::from(ihdr.height);
    let decoded = pixels * ihdr.decoded_bytes_per_pixel(transparency);
    let converted = if ihdr.decoded_bytes_per_pixel(transparency) == 3 { 0 } else { 3 * pixels };
    Ok(Outline {
        width: ihdr.width,
        height: ihdr.height,
        orientation,
        memory: decoded + converted + METADATA_MEMORY,
        plan: Plan { colour: ihdr.colour },
    })
}

fn check_first_frame(control: &[u8], ihdr: &Ihdr) -> Result<(), DecodeError> {
    let field =
        |at| be32(control, at).ok_or_else(|| corrupt("its animation control chunk is too short"));
    if (field(4)?, field(8)?, field(12)?, field(16)?) == (ihdr.width, ihdr.height, 0, 0) {
        Ok(())
    } else {
        Err(corrupt("the first frame of its animation does not cover the canvas"))
    }
}

/// Decodes and converts like Pillow's `convert("RGB")`.
pub(super) fn decode(bytes: &[u8], outline: &Outline<Plan>) -> Result<Vec<u8>, DecodeError> {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(METADATA_MEMORY + bytes.len() as u64 + 16 * u64::from(outline.width));
    let decoder = PngDecoder::with_limits(Cursor::new(bytes), limits).map_err(refuse)?;
    let colour = decoder.color_type();
    let mut samples = vec![0; decoder.total_bytes() as usize];
    decoder.read_image(&mut samples).map_err(refuse)?;
    Ok(match colour {
        ColorType::Rgb8 => samples,
        ColorType::Rgba8 => take_rgb(&samples, 4),
        ColorType::L8 => repeat_grey(&samples, |[grey]| grey),
        ColorType::La8 => repeat_grey(&samples, |[grey, _alpha]| grey),
        ColorType::L16 => repeat_grey(&samples, |[a, b]| clip(u16::from_ne_bytes([a, b]))),
        // The alpha may come from a `tRNS` chunk. In this case, Pillow still sees a grey image of
        // 16 bits.
        ColorType::La16 if outline.plan.colour == GREY => {
            repeat_grey(&samples, |[a, b, _, _]| clip(u16::from_ne_bytes([a, b])))
        }
        ColorType::La16 => {
            repeat_grey(&samples, |[a, b, _, _]| high_byte(u16::from_ne_bytes([a, b])))
        }
        ColorType::Rgb16 => high_bytes::<6>(&samples),
        ColorType::Rgba16 => high_bytes::<8>(&samples),
        other => {
            return Err(DecodeError::Unsupported {
                format: Format::Png,
                detail: format!("{other:?}"),
            });
        }
    })
}

/// Pillow's conversion of mode `I;16`: all values above 255 become white.
fn clip(grey: u16) -> u8 {
    u8::try_from(grey).unwrap_or(u8::MAX)
}

fn high_byte(sample: u16) -> u8 {
    (sample >> 8) as u8
}

fn repeat_grey<const N: usize>(pixels: &[u8], grey: impl Fn([u8; N]) -> u8) -> Vec<u8> {
    let mut rgb = vec![0; pixels.len() / N * 3];
    for (to, from) in rgb.as_chunks_mut::<3>().0.iter_mut().zip(pixels.as_chunks::<N>().0) {
        *to = [grey(*from); 3];
    }
    rgb
}

/// Returns the high bytes of the first three native-endian 16-bit values of each pixel of `N`
/// bytes.
fn high_bytes<const N: usize>(pixels: &[u8]) -> Vec<u8> {
    let mut rgb = vec![0; pixels.len() / N * 3];
    for (to, from) in rgb.as_chunks_mut::<3>().0.iter_mut().zip(pixels.as_chunks::<N>().0) {
        for (channel, value) in to.iter_mut().enumerate() {
            *value = high_byte(u16::from_ne_bytes([from[2 * channel], from[2 * channel + 1]]));
        }
    }
    rgb
}

fn refuse(error: ImageError) -> DecodeError {
    match error {
        ImageError::Limits(_) => corrupt("its texts or colour profile are too large"),
        ImageError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            truncated("its image data ends early")
        }
        other => corrupt(other.to_string()),
    }
}
