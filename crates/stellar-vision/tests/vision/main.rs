//! Pixels compared with Pillow, and hostile files.
//!
//! Expected results come from Pillow and torchvision, through `scripts/vision_fixtures.py`.

mod decoding;
mod hostile;
mod resizing;

use std::path::PathBuf;

use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use stellar_vision::Image;

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/vision").join(name)
}

fn image_file(name: &str) -> Vec<u8> {
    let path = data("decode").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn cases<T: DeserializeOwned>(name: &str) -> Vec<T> {
    let text = std::fs::read(data(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn sha256(pixels: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(pixels).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// 16-pixel tiles of noise, stripes, gradients and faint noise; the same as `drawn` in
/// `scripts/vision_fixtures.py`.
fn drawn(seed: u32, width: u32, height: u32) -> Image {
    let pixels = (0..3 * width * height)
        .map(|index| {
            let (c, x, y) = (index % 3, index / 3 % width, index / 3 / width);
            let mut value = index.wrapping_mul(2_654_435_761).wrapping_add(seed);
            value ^= value >> 15;
            value = value.wrapping_mul(2_246_822_519);
            value ^= value >> 13;
            let noise = value >> 24;
            let level = match (x / 16 + y / 16 + seed) % 4 {
                0 => noise,
                1 => (x / 3 + y / 5) % 2 * 255,
                2 => (x * 5 + y * 3 + c * 80) % 256,
                _ => 128 + noise / 16,
            };
            level as u8
        })
        .collect();
    Image::new(width, height, pixels)
}
