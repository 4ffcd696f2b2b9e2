//! Masks: the person of a photo, found by the pack's graph.

use bytes::Bytes;
use image::{ExtendedColorType, ImageEncoder as _, codecs::png::PngEncoder};

use super::GenerationError;
use super::condition::values;
use super::generator::Generator;
use crate::blocking::blocking;
use crate::engine::pack::generator_roles as roles;
use crate::vision::{self, Filter, Image};

/// The level from which a pixel is the person, of 255: half, where the graph is undecided.
const FOREGROUND: u8 = 128;

/// The person of a photo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    /// Width of the photo in pixels.
    pub width: u32,
    /// Height of the photo in pixels.
    pub height: u32,
    /// 255 where the person is and 0 elsewhere, by rows.
    pub pixels: Vec<u8>,
}

impl Mask {
    /// Returns the share of the photo that is the person, 0 to 1.
    #[must_use]
    pub fn share(&self) -> f64 {
        let person = self.pixels.iter().filter(|level| **level > 0).count();
        person as f64 / self.pixels.len() as f64
    }

    /// Returns the mask as a PNG file with one channel.
    ///
    /// # Errors
    /// The image cannot be encoded.
    pub fn png(&self) -> Result<Vec<u8>, GenerationError> {
        let mut file = Vec::new();
        PngEncoder::new(&mut file)
            .write_image(&self.pixels, self.width, self.height, ExtendedColorType::L8)
            .map_err(|error| GenerationError::Encode(error.to_string()))?;
        Ok(file)
    }
}

impl Generator {
    /// Finds the person of a photo.
    ///
    /// The graph's levels become bytes, are resized to the photo with Lanczos, as rembg does, and
    /// are the person from [`FOREGROUND`] on.
    ///
    /// # Errors
    /// The pack has no graph for masks, the photo cannot be decoded, or the graph fails.
    pub async fn mask(&self, photo: Bytes) -> Result<Mask, GenerationError> {
        let graph = self.engine.graph(roles::MASK);
        let geometry = graph.and_then(|graph| graph.geometry).ok_or(GenerationError::NoMasks)?;
        let header = vision::read_header(&photo, &self.limits).map_err(GenerationError::Photo)?;
        let permit = self.budget.take(header.decode_memory).await;
        let _in_use = self.engine.enter()?;
        let limits = self.limits;
        let (pixels, size) = blocking(move || {
            let _permit = permit;
            let photo = vision::decode(&photo, &limits).map_err(GenerationError::Photo)?;
            Ok::<_, GenerationError>((geometry.apply(&photo), (photo.width, photo.height)))
        })
        .await?;
        let [rows, columns, _] = pixels.shape();
        let found = self.engine.run(roles::MASK, vec![pixels.into()]).await?;
        let permit = self.budget.take(header.decode_memory).await;
        blocking(move || {
            let _permit = permit;
            let levels = values(roles::MASK, &found, "foreground")?;
            // Three equal channels: the resize is of colours.
            let bytes = levels.iter().flat_map(|level| [(level * 255.0) as u8; 3]).collect();
            let small = Image::new(columns as u32, rows as u32, bytes);
            let (width, height) = size;
            let large = vision::resize(&small, width, height, Filter::Lanczos);
            let person = |pixel: &[u8]| if pixel[0] >= FOREGROUND { 255 } else { 0 };
            let pixels = large.pixels.chunks_exact(3).map(person).collect();
            Ok(Mask { width, height, pixels })
        })
        .await
    }
}
