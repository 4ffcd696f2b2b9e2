//! JPEG decoding with libjpeg-turbo, the library that Pillow uses.

use image::metadata::Orientation;
use turbojpeg::{Decompressor, PixelFormat};

use super::outline::{Outline, be16, check_sides};
use super::{DecodeError, DecodeLimits, Format, orientation};

/// Maximum number of scans of a progressive file. Encoders write about ten. Each scan is a pass
/// over the whole image, so a file with thousands of empty scans could cost minutes of work for a
/// few bytes.
const MAX_SCANS: u32 = 100;

/// Header data that the decoder needs.
pub(super) struct Plan {
    /// Four components: inks instead of RGB.
    cmyk: bool,
}

fn truncated(detail: impl Into<String>) -> DecodeError {
    DecodeError::Truncated { format: Format::Jpeg, detail: detail.into() }
}

fn corrupt(detail: impl Into<String>) -> DecodeError {
    DecodeError::Corrupt { format: Format::Jpeg, detail: detail.into() }
}

fn unsupported(detail: impl Into<String>) -> DecodeError {
    DecodeError::Unsupported { format: Format::Jpeg, detail: detail.into() }
}

/// A frame header (`SOF` segment).
struct Frame {
    width: u32,
    height: u32,
    components: u8,
    /// Number of 8 × 8 blocks over all components.
    blocks: u64,
    progressive: bool,
    huffman: bool,
}

impl Frame {
    fn parse(marker: u8, data: &[u8], limits: &DecodeLimits) -> Result<Self, DecodeError> {
        let short = || corrupt("its frame header is too short");
        let (&precision, &components) = data.first().zip(data.get(5)).ok_or_else(short)?;
        let height = u32::from(be16(data, 1).ok_or_else(short)?);
        let width = u32::from(be16(data, 3).ok_or_else(short)?);
        check_sides(width, height, limits)?;
        if precision != 8 {
            return Err(unsupported(format!("{precision} bits per channel")));
        }
        if !matches!(components, 1 | 3 | 4) {
            return Err(unsupported(format!("{components} colour components")));
        }
        let specs = data.get(6..6 + 3 * usize::from(components)).ok_or_else(short)?;
        let factors: Vec<(u32, u32)> = specs
            .as_chunks::<3>()
            .0
            .iter()
            .map(|&[_, factor, _]| (u32::from(factor >> 4), u32::from(factor & 15)))
            .collect();
        if factors.iter().any(|&(h, v)| !(1..=4).contains(&h) || !(1..=4).contains(&v)) {
            return Err(corrupt("its sampling factors are not between 1 and 4"));
        }
        let max_h = factors.iter().map(|f| f.0).max().unwrap_or(1);
        let max_v = factors.iter().map(|f| f.1).max().unwrap_or(1);
        let side = |pixels: u32, factor: u32, max: u32| {
            u64::from((pixels * factor).div_ceil(max).div_ceil(8))
        };
        let blocks =
            factors.iter().map(|&(h, v)| side(width, h, max_h) * side(height, v, max_v)).sum();
        Ok(Self {
            width,
            height,
            components,
            blocks,
            progressive: matches!(marker, 0xC2 | 0xC6 | 0xCA | 0xCE),
            // Lossless coding (C3) has no blocks; arithmetic coding (C9 onwards) can take less than
            // one bit per block.
            huffman: matches!(marker, 0xC0..=0xC2),
        })
    }
}

/// Walks the segments up to the first scan.
pub(super) fn outline(bytes: &[u8], limits: &DecodeLimits) -> Result<Outline<Plan>, DecodeError> {
    let mut frame: Option<Frame> = None;
    let mut orientation = None;
    let mut at = 2;
    let scan = loop {
        // Between segments, libjpeg skips all bytes that are not a marker. Fill bytes (FF FF) are
        // allowed.
        let start = bytes.get(at..).and_then(|rest| rest.iter().position(|&byte| byte == 0xFF));
        let Some(marker_at) = start.map(|skip| at + skip + 1) else {
            return Err(truncated("it ends before its image data"));
        };
        let Some(&marker) = bytes.get(marker_at) else {
            return Err(truncated("it ends before its image data"));
        };
        at = marker_at + 1;
        match marker {
            0xFF => {
                at = marker_at;
                continue;
            }
            0x00 | 0x01 | 0xD0..=0xD7 => continue,
            0xD8 => return Err(corrupt("a second image starts within its header")),
            0xD9 => return Err(corrupt("it ends without image data")),
            _ => {}
        }
        let length = be16(bytes, at).map_or(0, usize::from);
        if be16(bytes, at).is_some() && length < 2 {
            return Err(corrupt(format!("segment {marker:02X} has an invalid length")));
        }
        let Some(data) = bytes.get(at + 2..at + length.max(2)) else {
            return Err(truncated("it ends within its header"));
        };
        match marker {
            0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => {
                if frame.is_some() {
                    return Err(corrupt("it has two frame headers"));
                }
                frame = Some(Frame::parse(marker, data, limits)?);
            }
            0xE1 if orientation.is_none() && data.starts_with(b"Exif\0\0") => {
                orientation = Some(orientation::of_exif(data));
            }
            0xDA => break data,
            _ => {}
        }
        at += length;
    };
    let frame = frame.ok_or_else(|| corrupt("its image data has no frame header"))?;
    // Each block takes at least one bit: the Huffman code of its first coefficient.
    if frame.huffman && frame.blocks / 8 > bytes.len() as u64 {
        return Err(truncated(format!(
            "{} bytes cannot hold the {}×{} pixels that its header declares",
            bytes.len(),
            frame.width,
            frame.height
        )));
    }
    let cmyk = frame.components == 4;
    let pixels = u64::from(frame.width) * u64::from(frame.height);
    // The coefficients of the whole image are buffered until the last scan: 64 of two bytes per
    // block.
    let buffered = frame.progressive || scan.first().is_some_and(|&count| count < frame.components);
    let coefficients = if buffered { 128 * frame.blocks } else { 0 };
    let output = if cmyk { 7 * pixels } else { 3 * pixels };
    Ok(Outline {
        width: frame.width,
        height: frame.height,
        orientation: orientation.unwrap_or(Orientation::NoTransforms),
        memory: output + coefficients,
        plan: Plan { cmyk },
    })
}

/// Decodes with libjpeg-turbo's defaults, which are also Pillow's: accurate integer DCT and smooth
/// upsampling.
pub(super) fn decode(bytes: &[u8], outline: &Outline<Plan>) -> Result<Vec<u8>, DecodeError> {
    let format = if outline.plan.cmyk { PixelFormat::CMYK } else { PixelFormat::RGB };
    let (width, height) = (outline.width as usize, outline.height as usize);
    let mut image = turbojpeg::Image {
        pixels: vec![0; format.size() * width * height],
        width,
        pitch: format.size() * width,
        height,
        format,
    };
    let mut decompressor = Decompressor::new().map_err(|e| refuse(&e))?;
    decompressor.set_scan_limit(MAX_SCANS).map_err(|e| refuse(&e))?;
    match decompressor.decompress(bytes, image.as_deref_mut()) {
        Ok(()) => {}
        Err(error) if is_harmless(&error) => {}
        // The library reports a file that is truncated within the tables between two scans as
        // corrupt.
        Err(error) if !has_end_marker(bytes) => {
            return Err(truncated(format!("its end marker is missing: {error}")));
        }
        Err(error) => return Err(refuse(&error)),
    }
    Ok(if outline.plan.cmyk { cmyk_to_rgb(&image.pixels) } else { image.pixels })
}

/// Returns whether the end marker exists: at the end of the file, or before appended data.
fn has_end_marker(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|two| two == [0xFF, 0xD9])
}

/// Returns whether the decoder only complained about bytes between the finished image and its end
/// marker.
///
/// Some cameras write padding there. The library reports its *first* warning. A warning about the
/// end marker can come first only if all data before it was decoded cleanly, so the image is whole.
fn is_harmless(error: &turbojpeg::Error) -> bool {
    matches!(error, turbojpeg::Error::TurboJpegError(message)
        if message.contains("extraneous bytes before marker 0xd9"))
}

fn refuse(error: &turbojpeg::Error) -> DecodeError {
    match error {
        turbojpeg::Error::TurboJpegError(message) => {
            let detail = message.trim_start_matches("Corrupt JPEG data: ");
            let early = ["Premature end of JPEG file", "premature end of data segment"];
            if early.iter().any(|text| message.contains(text)) {
                truncated(detail)
            } else if message.contains("Unsupported") || message.contains("not supported") {
                unsupported(detail)
            } else {
                corrupt(detail)
            }
        }
        other => corrupt(other.to_string()),
    }
}

/// Converts four-component pixels like Pillow. The inks are stored inverted, as Adobe's programs do
/// whether or not they declare it. Each RGB value is `(255 - k) - ink · (255 - k) / 255`, rounded.
fn cmyk_to_rgb(inverted: &[u8]) -> Vec<u8> {
    let mut rgb = vec![0; inverted.len() / 4 * 3];
    for (to, from) in rgb.as_chunks_mut::<3>().0.iter_mut().zip(inverted.as_chunks::<4>().0) {
        let light = u32::from(from[3]);
        for (value, &stored) in to.iter_mut().zip(from) {
            let product = u32::from(255 - stored) * light + 128;
            // ⌊(a + ⌊a/256⌋) / 256⌋ equals a / 255 rounded, for every product of two bytes.
            *value = (light - ((product + (product >> 8)) >> 8)) as u8;
        }
    }
    rgb
}
