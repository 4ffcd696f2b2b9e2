//! Thumbnails of images, as WebP.

use std::{fmt, sync::Arc};

use bytes::Bytes;

use super::{EncodedImage, Scoring, images::ImageJob};
use crate::{
    blocking::blocking,
    vision::{self, DecodeError, Filter, Image},
};

/// Quality of the WebP encoder, from 0 to 100.
const QUALITY: f32 = 80.0;

/// Error of making a thumbnail.
#[derive(Debug, thiserror::Error)]
pub enum ThumbnailError {
    /// The image cannot be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The encoder failed.
    #[error("WebP encoder: {0}")]
    Encode(String),
}

impl Scoring {
    /// Returns the upright image as WebP whose longer side has at most so many pixels. Its pixels
    /// count towards the budget of decoded images.
    ///
    /// # Errors
    /// Fails if the image cannot be decoded or encoded.
    pub async fn thumbnail(&self, of: &EncodedImage, side: u32) -> Result<Bytes, ThumbnailError> {
        let job: Arc<ImageJob> = self.sources.decoder.job(of, Vec::new(), true);
        let pixels = job.image().await?;
        blocking(move || encode(&pixels, side)).await
    }
}

fn encode(image: &Image, side: u32) -> Result<Bytes, ThumbnailError> {
    let longer = image.width.max(image.height);
    let failed = |error: &dyn fmt::Debug| ThumbnailError::Encode(format!("{error:?}"));
    let small;
    let image = if longer > side {
        let scaled = |length: u32| {
            let product = u64::from(length) * u64::from(side);
            (product.div_ceil(u64::from(longer)) as u32).max(1)
        };
        small = vision::resize(image, scaled(image.width), scaled(image.height), Filter::Bicubic);
        &small
    } else {
        image
    };
    let encoder = webp::Encoder::from_rgb(&image.pixels, image.width, image.height);
    let webp = encoder.encode_simple(false, QUALITY).map_err(|error| failed(&error))?;
    Ok(Bytes::copy_from_slice(&webp))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vision::{DecodeLimits, decode};

    fn size(width: u32, height: u32, side: u32) -> (u32, u32) {
        let pixels = (0..3 * width * height).map(|at| (at % 251) as u8).collect();
        let webp = encode(&Image::new(width, height, pixels), side).unwrap();
        let image = decode(&webp, &DecodeLimits::default()).unwrap();
        (image.width, image.height)
    }

    #[test]
    fn the_longer_side_is_bounded_and_nothing_is_enlarged() {
        assert_eq!(size(100, 50, 64), (64, 32));
        assert_eq!(size(3, 200, 64), (1, 64));
        assert_eq!(size(20, 10, 64), (20, 10));
    }
}
