use super::*;

/// Noise, edges and a gradient, the same on every machine.
fn test_image(width: u32, height: u32) -> Image {
    let mut state = 0x9E37_79B9_u32 ^ (width << 16) ^ height;
    let pixels = (0..3 * width * height)
        .map(|i| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            match (i / 40) % 3 {
                0 => (state >> 24) as u8,
                1 => ((i / 7) % 2 * 255) as u8,
                _ => (i % 256) as u8,
            }
        })
        .collect();
    Image::new(width, height, pixels)
}

const SIZES: [(u32, u32); 16] = [
    (1, 1),
    (2, 1),
    (1, 3),
    (3, 3),
    (5, 7),
    (16, 16),
    (20, 21),
    (21, 20),
    (64, 1),
    (1, 64),
    (65, 33),
    (100, 3),
    (300, 200),
    (7, 500),
    (701, 9),
    (257, 255),
];

#[test]
fn every_instruction_set_gives_the_same_bits() {
    for (width, height) in SIZES {
        let image = test_image(width, height);
        for (new_width, new_height) in SIZES {
            for filter in [Filter::Bilinear, Filter::Bicubic] {
                let resized = |backend| {
                    let window = Rect { left: 0, top: 0, width: new_width, height: new_height };
                    let size = (new_width.into(), new_height.into());
                    resize_with(backend, &image, Rect::of(&image), size, window, filter)
                };
                let expected = resized(Backend::Portable);
                for backend in Backend::available() {
                    let same = resized(backend) == expected;
                    assert!(
                        same,
                        "{backend:?}: {width}×{height} → {new_width}×{new_height} {filter:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_window_equals_that_part_of_the_whole() {
    let image = test_image(157, 93);
    for (width, height) in [(336, 200), (40, 224), (157, 300), (300, 93), (157, 93), (31, 17)] {
        let whole = resize(&image, width, height, Filter::Bicubic);
        for (left, top, w, h) in
            [(0, 0, 1, 1), (3, 5, 20, 7), (7, 0, 24, 17), (width - 5, height - 9, 5, 9)]
        {
            let window = Rect { left: left.into(), top: top.into(), width: w, height: h };
            for backend in Backend::available() {
                let size = (width.into(), height.into());
                let part =
                    resize_with(backend, &image, Rect::of(&image), size, window, Filter::Bicubic);
                assert!(
                    part == crop(&whole, window),
                    "{backend:?}: {window:?} of {width}×{height}"
                );
            }
        }
    }
}

#[test]
fn pixels_beyond_the_source_region_have_no_influence() {
    let image = test_image(120, 80);
    for source in [
        Rect { left: 0, top: 0, width: 120, height: 80 },
        Rect { left: 17, top: 3, width: 50, height: 60 },
        Rect { left: 119, top: 79, width: 1, height: 1 },
        Rect { left: 100, top: 50, width: 20, height: 30 },
    ] {
        let cropped = crop(&image, source);
        for (width, height) in [(13, 9), (160, 160), (source.width, 7), (7, source.height)] {
            let window = Rect { left: 0, top: 0, width, height };
            for backend in Backend::available() {
                let size = (width.into(), height.into());
                let got = resize_with(backend, &image, source, size, window, Filter::Bilinear);
                assert!(
                    got == resize(&cropped, width, height, Filter::Bilinear),
                    "{backend:?}: {source:?}"
                );
            }
        }
    }
}

#[test]
fn a_flat_image_stays_flat() {
    for level in [0, 1, 127, 254, 255] {
        let image = Image::new(91, 57, vec![level; 91 * 57 * 3]);
        for (width, height) in [(224, 224), (13, 200), (3, 2), (1, 1)] {
            for backend in Backend::available() {
                let window = Rect { left: 0, top: 0, width, height };
                let size = (width.into(), height.into());
                let resized =
                    resize_with(backend, &image, Rect::of(&image), size, window, Filter::Bicubic);
                assert!(resized.pixels.iter().all(|&value| value == level), "{backend:?} {level}");
            }
        }
    }
}

#[test]
fn the_same_size_is_a_copy() {
    let image = test_image(33, 44);
    assert!(resize(&image, 33, 44, Filter::Bicubic) == image);
}

#[test]
#[should_panic(expected = "within")]
fn a_region_outside_the_image_panics() {
    let source = Rect { left: 5, top: 0, width: 6, height: 1 };
    let window = Rect { left: 0, top: 0, width: 1, height: 1 };
    let _ = resize_window(&test_image(10, 10), source, (1, 1), window, Filter::Bicubic);
}

fn crop(image: &Image, rect: Rect) -> Image {
    let rows = image.pixels.chunks_exact(3 * image.width as usize).skip(rect.top as usize);
    let pixels = rows
        .take(rect.height as usize)
        .flat_map(|row| &row[3 * rect.left as usize..][..3 * rect.width as usize])
        .copied()
        .collect();
    Image::new(rect.width, rect.height, pixels)
}
