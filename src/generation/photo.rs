//! Photos: the person alone, on black.

use super::error::PhotoError;
use super::request::Subject;
use crate::tensor::Tensor;
use crate::vision::{self, DecodeLimits, Geometry, Image};

/// Returns the memory for decoding a photo and its mask, in bytes.
pub(super) fn decode_memory(subject: &Subject, limits: &DecodeLimits) -> Result<u64, PhotoError> {
    let photo = vision::read_header(&subject.photo, limits).map_err(PhotoError::Photo)?;
    let mask = subject.mask.as_ref().map(|mask| vision::read_header(mask, limits)).transpose();
    let mask = mask.map_err(PhotoError::Mask)?.map_or(0, |header| header.decode_memory);
    Ok(photo.decode_memory + mask)
}

/// Decodes a photo and its mask, and makes the pixels of the words graph.
pub(super) fn pixels(
    subject: &Subject,
    limits: &DecodeLimits,
    geometry: &Geometry,
) -> Result<Vec<Tensor>, PhotoError> {
    let mut photo = vision::decode(&subject.photo, limits).map_err(PhotoError::Photo)?;
    if let Some(mask) = &subject.mask {
        let mask = vision::decode(mask, limits).map_err(PhotoError::Mask)?;
        blacken(&mut photo, &mask)?;
    }
    Ok(vec![geometry.apply(&photo).into()])
}

/// Makes the background black. The mask is resized to the nearest pixel, as Pillow does.
///
/// Foreground is every pixel with a channel above 0, since masks may be coloured: skin is (204, 0,
/// 0) in `CelebAMask`'s palette.
fn blacken(photo: &mut Image, mask: &Image) -> Result<(), PhotoError> {
    let columns = nearest(mask.width, photo.width);
    let rows = nearest(mask.height, photo.height);
    let mut any = false;
    for (row, from) in photo.pixels.chunks_exact_mut(3 * columns.len()).zip(rows) {
        let length = 3 * mask.width as usize;
        let mask = &mask.pixels[from * length..(from + 1) * length];
        for (pixel, column) in row.chunks_exact_mut(3).zip(&columns) {
            if mask[3 * column..3 * column + 3] == [0; 3] {
                pixel.fill(0);
            } else {
                any = true;
            }
        }
    }
    if any { Ok(()) } else { Err(PhotoError::Empty) }
}

/// Returns the source position of each of `to` positions. Pillow adds up the step in double
/// precision, so a position between two pixels falls to either side as it does there.
fn nearest(from: u32, to: u32) -> Vec<usize> {
    let step = f64::from(from) / f64::from(to);
    let positions = std::iter::successors(Some(step * 0.5), |at| Some(at + step));
    positions.take(to as usize).map(|at| (at as usize).min(from as usize - 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(width: u32, height: u32, pixels: &[[u8; 3]]) -> Image {
        Image::new(width, height, pixels.concat())
    }

    #[test]
    fn foreground_is_any_channel_above_zero() {
        let mut photo = image(2, 2, &[[9, 8, 7]; 4]);
        let mask = image(2, 2, &[[204, 0, 0], [0, 255, 0], [0, 0, 1], [0, 0, 0]]);
        blacken(&mut photo, &mask).unwrap();
        assert_eq!(photo.pixels, [[9, 8, 7], [9, 8, 7], [9, 8, 7], [0, 0, 0]].concat());
    }

    #[test]
    fn a_mask_of_another_size_is_resized_to_the_nearest_pixel() {
        // Pillow: Image.fromarray([[1, 0, 1]]).resize((6, 2), NEAREST) is 1 1 0 0 1 1 in both rows.
        let mut photo = image(6, 2, &[[5; 3]; 12]);
        blacken(&mut photo, &image(3, 1, &[[1; 3], [0; 3], [1; 3]])).unwrap();
        let row = [[5; 3], [5; 3], [0; 3], [0; 3], [5; 3], [5; 3]].concat();
        assert_eq!(photo.pixels, [row.clone(), row].concat());
        // A larger mask: every second column, from the second.
        let mut photo = image(2, 1, &[[5; 3]; 2]);
        blacken(&mut photo, &image(4, 1, &[[1; 3], [0; 3], [0; 3], [1; 3]])).unwrap();
        assert_eq!(photo.pixels, [[0; 3], [5; 3]].concat());
    }

    #[test]
    fn positions_are_pillows() {
        // Image.fromarray(range(7)).resize((3, 1), NEAREST).
        assert_eq!(nearest(7, 3), [1, 3, 5]);
        assert_eq!(nearest(500, 1024).last(), Some(&499));
        assert_eq!(nearest(1, 3), [0; 3]);
    }

    #[test]
    fn a_mask_without_foreground_is_refused() {
        let mut photo = image(1, 1, &[[5; 3]]);
        let error = blacken(&mut photo, &image(2, 2, &[[0; 3]; 4])).unwrap_err().to_string();
        assert!(error.contains("no foreground"), "{error}");
    }
}
