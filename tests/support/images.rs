//! Small images, all different.

use image::{ExtendedColorType, ImageEncoder as _, codecs::png::PngEncoder};

/// A PNG with pixels determined by `seed`.
pub(crate) fn png(seed: u32) -> Vec<u8> {
    png_of(12, 9, seed)
}

/// A PNG of `width` × `height` pixels determined by `seed`.
pub(crate) fn png_of(width: u32, height: u32, seed: u32) -> Vec<u8> {
    let mut pixels: Vec<u8> = (0..3 * width * height)
        .map(|at| {
            (at.wrapping_mul(2_654_435_761) ^ seed.wrapping_mul(40_503).wrapping_add(at >> 3)) as u8
        })
        .collect();
    // No two seeds give the same pixels.
    let seed = seed.to_be_bytes();
    let marked = pixels.len().min(seed.len());
    pixels[..marked].copy_from_slice(&seed[..marked]);
    let mut file = Vec::new();
    PngEncoder::new(&mut file)
        .write_image(&pixels, width, height, ExtendedColorType::Rgb8)
        .expect("writing to memory succeeds");
    file
}
