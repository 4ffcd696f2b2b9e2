//! The EXIF orientation: parsing it and turning the image upright.

use image::metadata::Orientation;

use crate::Image;

/// Returns the orientation of an EXIF block, with or without the leading `Exif\0\0`. JPEG requires
/// this prefix, and some writers of WebP and PNG add it too. An invalid block means no
/// transformation.
pub(super) fn of_exif(block: &[u8]) -> Orientation {
    let tiff = block.strip_prefix(b"Exif\0\0").unwrap_or(block);
    Orientation::from_exif_chunk(tiff).unwrap_or(Orientation::NoTransforms)
}

/// Returns whether the orientation turns columns into rows.
pub(super) fn swaps_sides(orientation: Orientation) -> bool {
    match orientation {
        Orientation::Rotate90
        | Orientation::Rotate270
        | Orientation::Rotate90FlipH
        | Orientation::Rotate270FlipH => true,
        Orientation::NoTransforms
        | Orientation::Rotate180
        | Orientation::FlipHorizontal
        | Orientation::FlipVertical => false,
    }
}

/// Turns the stored image upright, like Pillow's `ImageOps.exif_transpose`.
pub(super) fn apply(image: Image, orientation: Orientation) -> Image {
    match orientation {
        Orientation::NoTransforms => image,
        Orientation::FlipHorizontal => flip_horizontal(image),
        Orientation::FlipVertical => flip_vertical(image),
        Orientation::Rotate180 => flip_vertical(flip_horizontal(image)),
        Orientation::Rotate90 => transpose(&image, false, true),
        Orientation::Rotate270 => transpose(&image, true, false),
        Orientation::Rotate90FlipH => transpose(&image, false, false),
        Orientation::Rotate270FlipH => transpose(&image, true, true),
    }
}

fn flip_horizontal(mut image: Image) -> Image {
    for row in image.pixels.chunks_exact_mut(3 * image.width as usize) {
        row.as_chunks_mut::<3>().0.reverse();
    }
    image
}

fn flip_vertical(mut image: Image) -> Image {
    let row = 3 * image.width as usize;
    let (top, bottom) = image.pixels.split_at_mut(image.height as usize / 2 * row);
    for (a, b) in top.chunks_exact_mut(row).zip(bottom.chunks_exact_mut(row).rev()) {
        a.swap_with_slice(b);
    }
    image
}

/// Transposes an image: output row `y` is input column `y` read downwards. `from_right` counts the
/// columns from the right, and `upwards` reads them from the bottom.
fn transpose(image: &Image, from_right: bool, upwards: bool) -> Image {
    // The input and output rows of a tile (2 · 32 lines) stay in the L1 cache. Without tiles, each
    // pixel of a large image would be a cache miss.
    const TILE: usize = 32;
    let (width, height) = (image.width as usize, image.height as usize);
    let source = image.pixels.as_chunks::<3>().0;
    let mut pixels = vec![0; image.pixels.len()];
    let target = pixels.as_chunks_mut::<3>().0;
    for column_tile in (0..width).step_by(TILE) {
        for row_tile in (0..height).step_by(TILE) {
            for y in column_tile..width.min(column_tile + TILE) {
                let column = if from_right { width - 1 - y } else { y };
                for x in row_tile..height.min(row_tile + TILE) {
                    let row = if upwards { height - 1 - x } else { x };
                    target[y * height + x] = source[row * width + column];
                }
            }
        }
    }
    Image::new(image.height, image.width, pixels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_eight_orientations_agree_with_the_image_crate() {
        for (width, height) in [(1, 1), (3, 2), (33, 70), (64, 32), (65, 1)] {
            let pixels: Vec<u8> =
                (0..3 * width * height).map(|i| (i * 7 + i / 251) as u8).collect();
            for code in 1..=8 {
                let orientation = Orientation::from_exif(code).expect("1 to 8 are defined");
                let buffer =
                    image::RgbImage::from_raw(width, height, pixels.clone()).expect("right length");
                let mut expected = image::DynamicImage::ImageRgb8(buffer);
                expected.apply_orientation(orientation);
                let got = apply(Image::new(width, height, pixels.clone()), orientation);
                assert_eq!((got.width, got.height), (expected.width(), expected.height()));
                assert!(got.pixels == expected.into_bytes(), "{orientation:?} of {width}×{height}");
                assert_eq!(swaps_sides(orientation), code >= 5);
            }
        }
    }

    #[test]
    fn invalid_exif_means_no_transformation() {
        for block in
            [&b""[..], b"Exif\0\0", b"II*\0", b"II*\0\xff\xff\xff\xff", b"garbage garbage garbage"]
        {
            assert_eq!(of_exif(block), Orientation::NoTransforms);
        }
    }
}
