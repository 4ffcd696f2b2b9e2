//! WebP: walks the RIFF container and finds the one bitstream to decode.

use std::io::Cursor;

use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageError};

use super::outline::{Outline, check_sides, take_rgb};
use super::{DecodeError, DecodeLimits, Format, orientation};

/// The image's bitstream and its place on the canvas.
pub(super) struct Plan<'a> {
    /// A `VP8 ` or `VP8L` chunk, including its header.
    bitstream: Chunk<'a>,
    /// Columns and rows of the bitstream.
    size: (u32, u32),
    /// Column and row of the bitstream on the canvas; nonzero only in animations.
    offset: (u32, u32),
}

/// A RIFF chunk.
#[derive(Clone, Copy)]
struct Chunk<'a> {
    kind: [u8; 4],
    data: &'a [u8],
}

fn truncated(detail: impl Into<String>) -> DecodeError {
    DecodeError::Truncated { format: Format::WebP, detail: detail.into() }
}

fn corrupt(detail: impl Into<String>) -> DecodeError {
    DecodeError::Corrupt { format: Format::WebP, detail: detail.into() }
}

/// Takes the first chunk off `rest`. Chunks are padded to even length.
fn next_chunk<'a>(rest: &mut &'a [u8]) -> Result<Chunk<'a>, DecodeError> {
    let Some((&[k0, k1, k2, k3, s0, s1, s2, s3], body)) = rest.split_first_chunk() else {
        return Err(truncated("it ends between two chunks"));
    };
    let (kind, length) = ([k0, k1, k2, k3], u32::from_le_bytes([s0, s1, s2, s3]) as usize);
    let Some(data) = body.get(..length) else {
        return Err(truncated(format!(
            "its {} chunk declares {length} bytes, more than remain",
            kind.escape_ascii()
        )));
    };
    *rest = body.get(length + length % 2..).unwrap_or_default();
    Ok(Chunk { kind, data })
}

fn u24(data: &[u8], at: usize) -> Result<u32, DecodeError> {
    let bytes: Option<&[u8; 3]> = data.get(at..).and_then(<[u8]>::first_chunk);
    bytes
        .map(|&[a, b, c]| u32::from_le_bytes([a, b, c, 0]))
        .ok_or_else(|| corrupt("one of its chunks is too short"))
}

impl Chunk<'_> {
    fn is_bitstream(&self) -> bool {
        matches!(&self.kind, b"VP8 " | b"VP8L")
    }

    /// Returns the columns and rows according to the bitstream's own header.
    fn size(&self) -> Result<(u32, u32), DecodeError> {
        match (&self.kind, self.data) {
            (b"VP8 ", &[tag, _, _, 0x9D, 0x01, 0x2A, w0, w1, h0, h1, ..]) if tag & 1 == 0 => {
                let side = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3FFF);
                Ok((side(w0, w1), side(h0, h1)))
            }
            (b"VP8L", &[0x2F, b0, b1, b2, b3, ..]) => {
                let bits = u32::from_le_bytes([b0, b1, b2, b3]);
                Ok(((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1))
            }
            (_, data) if data.len() < 10 => Err(truncated("its image data ends early")),
            _ => Err(corrupt("its image data has an invalid header")),
        }
    }
}

/// Walks all chunks of the RIFF container.
pub(super) fn outline<'a>(
    bytes: &'a [u8],
    limits: &DecodeLimits,
) -> Result<Outline<Plan<'a>>, DecodeError> {
    let Some(length) = bytes.get(4..8).and_then(<[u8]>::first_chunk) else {
        return Err(truncated("it ends within its signature"));
    };
    let length = u32::from_le_bytes(*length) as usize;
    let Some(mut rest) = bytes.get(8..).and_then(|body| body.get(..length)) else {
        return Err(truncated(format!(
            "{length} bytes should follow its signature, but only {} do",
            bytes.len().saturating_sub(8)
        )));
    };
    rest = rest.strip_prefix(b"WEBP").ok_or_else(|| corrupt("its container is too short"))?;
    let first = next_chunk(&mut rest)?;
    if first.is_bitstream() {
        let (width, height) = first.size()?;
        check_sides(width, height, limits)?;
        let plan = Plan { bitstream: first, size: (width, height), offset: (0, 0) };
        return Ok(planned((width, height), Orientation::NoTransforms, plan));
    }
    if &first.kind != b"VP8X" {
        return Err(corrupt(format!(
            "it begins with an unknown chunk {}",
            first.kind.escape_ascii()
        )));
    }
    let canvas = (u24(first.data, 4)? + 1, u24(first.data, 7)? + 1);
    check_sides(canvas.0, canvas.1, limits)?;
    let animated = first.data[0] & 0b10 != 0;
    let mut orientation = None;
    let mut plan = None;
    while !rest.is_empty() {
        let chunk = next_chunk(&mut rest)?;
        match &chunk.kind {
            b"EXIF" if orientation.is_none() => {
                orientation = Some(orientation::of_exif(chunk.data));
            }
            b"ANMF" if animated && plan.is_none() => plan = Some(first_frame(chunk.data)?),
            b"VP8 " | b"VP8L" if !animated && plan.is_none() => {
                plan = Some(Plan { bitstream: chunk, size: canvas, offset: (0, 0) });
            }
            _ => {}
        }
    }
    let plan = plan.ok_or_else(|| corrupt("it has no image data"))?;
    // The bitstream's own sides determine how much memory its decoder takes, so they must match the
    // planned size.
    if plan.bitstream.size()? != plan.size {
        return Err(corrupt("its header and its image data declare different sizes"));
    }
    let fits = |offset: u32, size: u32, side: u32| offset + size <= side;
    if !fits(plan.offset.0, plan.size.0, canvas.0) || !fits(plan.offset.1, plan.size.1, canvas.1) {
        return Err(corrupt("its first frame reaches beyond the canvas"));
    }
    Ok(planned(canvas, orientation.unwrap_or(Orientation::NoTransforms), plan))
}

/// Returns the bitstream and the place of an animation frame (`ANMF` chunk).
fn first_frame(data: &[u8]) -> Result<Plan<'_>, DecodeError> {
    let offset = (2 * u24(data, 0)?, 2 * u24(data, 3)?);
    let size = (u24(data, 6)? + 1, u24(data, 9)? + 1);
    let mut rest = data.get(16..).ok_or_else(|| corrupt("its first frame is too short"))?;
    while !rest.is_empty() {
        let chunk = next_chunk(&mut rest)?;
        if chunk.is_bitstream() {
            return Ok(Plan { bitstream: chunk, size, offset });
        }
    }
    Err(corrupt("its first frame has no image data"))
}

fn planned(canvas: (u32, u32), orientation: Orientation, plan: Plan<'_>) -> Outline<Plan<'_>> {
    let pixels = |(width, height)| u64::from(width) * u64::from(height);
    let frame = pixels(plan.size);
    // Lossy: planes of 1.5 bytes per pixel, then RGB. Lossless: RGBA, possibly twice, then RGB. The
    // canvas is added to both.
    let decoder = if &plan.bitstream.kind == b"VP8L" { 7 * frame } else { 5 * frame };
    let pasted = if plan.size == canvas { 0 } else { 3 * pixels(canvas) };
    let memory = decoder + pasted + plan.bitstream.data.len() as u64;
    Outline { width: canvas.0, height: canvas.1, orientation, memory, plan }
}

/// Decodes the bitstream and copies it onto a black canvas if it does not cover the canvas.
///
/// Alpha is dropped in the end, so a separate alpha chunk is not decoded at all.
pub(super) fn decode(bytes: &[u8], outline: &Outline<Plan<'_>>) -> Result<Vec<u8>, DecodeError> {
    let plan = &outline.plan;
    // A simple file consists of one bitstream. The bitstream of an extended file is copied into a
    // simple file.
    let frame = if bytes.get(12..16) == Some(&plan.bitstream.kind) {
        decode_plain(bytes)?
    } else {
        decode_plain(&plain_file(plan.bitstream))?
    };
    if plan.size == (outline.width, outline.height) {
        return Ok(frame);
    }
    let canvas_row = 3 * outline.width as usize;
    let frame_row = 3 * plan.size.0 as usize;
    let mut canvas = vec![0; canvas_row * outline.height as usize];
    let rows = canvas.chunks_exact_mut(canvas_row).skip(plan.offset.1 as usize);
    for (to, from) in rows.zip(frame.chunks_exact(frame_row)) {
        to[3 * plan.offset.0 as usize..][..frame_row].copy_from_slice(from);
    }
    Ok(canvas)
}

fn plain_file(bitstream: Chunk<'_>) -> Vec<u8> {
    let length = bitstream.data.len();
    let mut file = Vec::with_capacity(length + 21);
    file.extend_from_slice(b"RIFF");
    file.extend_from_slice(&((12 + length + length % 2) as u32).to_le_bytes());
    file.extend_from_slice(b"WEBP");
    file.extend_from_slice(&bitstream.kind);
    file.extend_from_slice(&(length as u32).to_le_bytes());
    file.extend_from_slice(bitstream.data);
    file.resize(file.len() + length % 2, 0);
    file
}

fn decode_plain(file: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let decoder = WebPDecoder::new(Cursor::new(file)).map_err(refuse)?;
    let colour = decoder.color_type();
    let mut pixels = vec![0; decoder.total_bytes() as usize];
    decoder.read_image(&mut pixels).map_err(refuse)?;
    Ok(if colour == ColorType::Rgba8 { take_rgb(&pixels, 4) } else { pixels })
}

fn refuse(error: ImageError) -> DecodeError {
    match error {
        ImageError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            truncated("its image data ends early")
        }
        other => corrupt(other.to_string()),
    }
}
