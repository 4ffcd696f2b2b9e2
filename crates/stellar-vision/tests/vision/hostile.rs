//! Files that are inconsistent, truncated, damaged or too expensive.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use stellar_vision::{DecodeError, DecodeLimits, Format, decode, read_header};

use crate::image_file;

/// One small file of every kind of container and coding.
const SAMPLES: [&str; 19] = [
    "photo.png",
    "palette4_transparent.png",
    "rgba16_interlaced.png",
    "grey16_orientation8.png",
    "animated.png",
    "animated_default.png",
    "metadata.png",
    "size7x5.jpg",
    "s420_progressive.jpg",
    "restarts.jpg",
    "cmyk.jpg",
    "orientation6.jpg",
    "metadata.jpg",
    "lossy_q10.webp",
    "lossless_alpha.webp",
    "lossy_alpha.webp",
    "orientation7.webp",
    "animated_lossless.webp",
    "animated_partial.webp",
];

fn limits() -> DecodeLimits {
    DecodeLimits::default()
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 }
        })
    })
}

/// A grey 8-bit PNG with arbitrary sides and compressed data and valid checksums.
fn png_promising(width: u32, height: u32, data: &[u8]) -> Vec<u8> {
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8; 4], data: &[u8]| {
        let body = [kind, data].concat();
        file.extend((data.len() as u32).to_be_bytes());
        file.extend(&body);
        file.extend(crc32(&body).to_be_bytes());
    };
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 0, 0, 0, 0]].concat();
    chunk(b"IHDR", &header);
    chunk(b"IDAT", data);
    chunk(b"IEND", b"");
    file
}

/// A real JPEG with an edited frame header.
fn jpeg_with(edit: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut file = image_file("s444_q75.jpg");
    let at = file.windows(2).position(|two| two == [0xFF, 0xC0]).expect("a baseline frame header");
    // After marker and length: precision, height, width, number of components, three bytes for
    // each.
    edit(&mut file[at + 4..at + 4 + 15]);
    file
}

fn webp_promising(width: u16, height: u16) -> Vec<u8> {
    let mut file = image_file("lossy_q10.webp");
    let at =
        file.windows(3).position(|three| three == [0x9D, 0x01, 0x2A]).expect("a key frame") + 3;
    file[at..at + 2].copy_from_slice(&width.to_le_bytes());
    file[at + 2..at + 4].copy_from_slice(&height.to_le_bytes());
    file
}

fn refused(bytes: &[u8]) -> DecodeError {
    decode(bytes, &limits()).expect_err("this file must be refused")
}

#[test]
fn a_sound_sample_is_accepted() {
    for name in SAMPLES {
        assert!(decode(&image_file(name), &limits()).is_ok(), "{name}");
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    for name in SAMPLES {
        let file = image_file(name);
        for length in 1..file.len() {
            match decode(&file[..length], &limits()) {
                // The first bytes do not identify the format yet.
                Err(DecodeError::UnknownFormat) if length < 12 => {}
                Err(error) => {
                    assert_eq!(error.code(), "truncated", "{name} cut at {length}: {error}");
                }
                Ok(_) => panic!("{name} cut at {length} of {} was accepted", file.len()),
            }
        }
    }
}

#[test]
fn a_damaged_checksummed_byte_of_a_png_is_refused() {
    for name in ["photo.png", "palette4_transparent.png", "rgba16_interlaced.png"] {
        let file = image_file(name);
        // The last chunk, IEND, has no image data.
        for at in 0..file.len() - 12 {
            let mut damaged = file.clone();
            damaged[at] ^= 0x10;
            let critical = !is_in_ancillary_chunk(&file, at);
            assert!(decode(&damaged, &limits()).is_err() || !critical, "{name}: byte {at} changed");
        }
    }
}

/// Returns whether `at` is in a chunk that decoders may ignore when damaged (`tRNS`).
fn is_in_ancillary_chunk(file: &[u8], at: usize) -> bool {
    let mut start = 8;
    while start < file.len() {
        let length =
            u32::from_be_bytes(file[start..start + 4].try_into().expect("four bytes")) as usize;
        if (start..start + length + 12).contains(&at) {
            return file[start + 4].is_ascii_lowercase();
        }
        start += length + 12;
    }
    false
}

#[test]
fn giant_headers_are_refused_in_microseconds() {
    let side = 30_000_u16;
    let bombs = [
        png_promising(side.into(), side.into(), &[0x78, 0x9C, 0x63, 0, 0, 0, 1, 0, 1]),
        jpeg_with(|frame| {
            frame[1..3].copy_from_slice(&side.to_be_bytes());
            frame[3..5].copy_from_slice(&side.to_be_bytes());
        }),
        webp_promising(16_383, 16_383),
    ];
    for bomb in bombs {
        // The first call may have to page in code.
        assert_eq!(
            read_header(&bomb, &limits()).expect_err("too many pixels").code(),
            "too_many_pixels"
        );
        let start = Instant::now();
        let error = refused(&bomb);
        let took = start.elapsed();
        assert!(matches!(error, DecodeError::TooManyPixels { .. }), "{error}");
        // It takes about one microsecond; a loaded machine may preempt the test once.
        assert!(took < Duration::from_millis(5), "{took:?}");
    }
}

#[test]
fn headers_that_promise_more_than_the_data_are_refused_before_allocation() {
    let zeros = [0_u8; 1000];
    for bytes in [
        png_promising(8000, 8000, &zeros),
        jpeg_with(|frame| {
            frame[1..3].copy_from_slice(&8000_u16.to_be_bytes());
            frame[3..5].copy_from_slice(&8000_u16.to_be_bytes());
        }),
    ] {
        let error =
            read_header(&bytes, &limits()).expect_err("64 million pixels in a few thousand bytes");
        assert_eq!(error.code(), "truncated");
        assert!(error.to_string().contains("8000×8000"), "{error}");
    }
}

#[test]
fn images_without_pixels_are_refused() {
    for (width, height) in [(0, 0), (0, 5), (5, 0)] {
        assert_eq!(
            refused(&png_promising(width, height, &[0; 20])),
            DecodeError::NoPixels { width, height }
        );
        let (w, h) = (width as u16, height as u16);
        let jpeg = jpeg_with(|frame| {
            frame[1..3].copy_from_slice(&h.to_be_bytes());
            frame[3..5].copy_from_slice(&w.to_be_bytes());
        });
        assert_eq!(refused(&jpeg), DecodeError::NoPixels { width, height });
        assert_eq!(refused(&webp_promising(w, h)), DecodeError::NoPixels { width, height });
    }
}

#[test]
fn each_limit_is_enforced() {
    let file = image_file("astronaut.png");
    let free = limits();
    assert!(
        read_header(
            &file,
            &DecodeLimits { max_bytes: file.len(), max_side: 160, max_pixels: 25_600, ..free }
        )
        .is_ok()
    );
    for (limits, code) in [
        (DecodeLimits { max_bytes: file.len() - 1, ..free }, "too_many_bytes"),
        (DecodeLimits { max_side: 159, ..free }, "side_too_long"),
        (DecodeLimits { max_pixels: 25_599, ..free }, "too_many_pixels"),
        (DecodeLimits { max_memory: 70_000, ..free }, "too_much_memory"),
    ] {
        let error = decode(&file, &limits).expect_err(code);
        assert_eq!(error.code(), code);
        assert!(error.is_limit());
    }
}

#[test]
fn a_progressive_jpeg_counts_its_coefficients_as_memory() {
    let memory =
        |name| read_header(&image_file(name), &limits()).expect("a sound file").decode_memory;
    assert!(memory("s444_progressive.jpg") >= 2 * memory("s444_q75.jpg"));
}

#[test]
fn jpeg_kinds_unsupported_by_pillow_are_refused() {
    let twelve_bits = jpeg_with(|frame| frame[0] = 12);
    let two_components = jpeg_with(|frame| frame[5] = 2);
    for file in [twelve_bits, two_components] {
        let error = refused(&file);
        assert!(matches!(error, DecodeError::Unsupported { format: Format::Jpeg, .. }), "{error}");
    }
    let sampling = jpeg_with(|frame| frame[7] = 0);
    assert_eq!(refused(&sampling).code(), "corrupt");
}

#[test]
fn inconsistent_sizes_in_a_webp_are_refused() {
    // The canvas of the extended header is 30 × 20; the frame gets the maximum size.
    let file = image_file("animated_partial.webp");
    let at = file.windows(4).position(|four| four == b"VP8L").expect("a lossless frame") + 9;
    let mut lying = file.clone();
    lying[at..at + 4].copy_from_slice(&(0x0FFF_FFFF_u32).to_le_bytes());
    assert_eq!(refused(&lying).code(), "corrupt");
    // A frame outside the canvas.
    let frame = file.windows(4).position(|four| four == b"ANMF").expect("a frame") + 8;
    let mut outside = file;
    outside[frame] = 200;
    assert_eq!(refused(&outside).code(), "corrupt");
}

#[test]
fn an_animation_with_a_partial_first_frame_is_refused() {
    let mut file = image_file("animated.png");
    let at = file.windows(4).position(|four| four == b"fcTL").expect("a frame control chunk");
    // After the sequence number comes the frame's width: reduce it by one.
    file[at + 4 + 4 + 3] -= 1;
    let crc = crc32(&file[at..at + 4 + 26]);
    file[at + 30..at + 34].copy_from_slice(&crc.to_be_bytes());
    assert_eq!(refused(&file).code(), "corrupt");
}

#[test]
fn a_jpeg_with_thousands_of_scans_is_refused() {
    let file = image_file("s444_progressive.jpg");
    // Repeats the last scan: legal, but each scan is a pass over the whole image.
    let last = file.windows(2).rposition(|two| two == [0xFF, 0xDA]).expect("a scan");
    let scan = &file[last..file.len() - 2];
    let mut bomb = file[..file.len() - 2].to_vec();
    for _ in 0..5000 {
        bomb.extend_from_slice(scan);
    }
    bomb.extend_from_slice(&[0xFF, 0xD9]);
    assert!(refused(&bomb).to_string().contains("scans"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Decoding any mutated file returns, and accepted files decode completely.
    #[test]
    fn mutated_files_never_panic(
        sample in prop::sample::select(SAMPLES.to_vec()),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        doubled in prop::option::weighted(0.2, (any::<prop::sample::Index>(), 1_usize..200)),
    ) {
        let mut file = image_file(sample);
        for (at, value) in edits {
            let at = at.index(file.len());
            file[at] = value;
        }
        if let Some((at, length)) = doubled {
            let at = at.index(file.len());
            let part = file[at..file.len().min(at + length)].to_vec();
            file.splice(at..at, part);
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        let limits = DecodeLimits { max_pixels: 1 << 20, ..limits() };
        match (read_header(&file, &limits), decode(&file, &limits)) {
            (Ok(header), Ok(image)) => {
                prop_assert_eq!((header.width, header.height), (image.width, image.height));
                prop_assert_eq!(image.pixels.len(), 3 * image.width as usize * image.height as usize);
            }
            (Ok(_), Err(error)) => prop_assert!(!error.is_limit(), "read_header accepted it: \
                {}", error),
            (Err(probed), decoded) => prop_assert_eq!(Err(probed), decoded),
        }
    }

    /// Random bytes behind each signature.
    #[test]
    fn noise_never_panics(
        start in prop::sample::select(vec![&b"\x89PNG\r\n\x1a\n"[..], b"\xff\xd8\xff", b"RIFF\x40\0\0\0WEBP", b""]),
        noise in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let file = [start, &noise].concat();
        prop_assert!(decode(&file, &limits()).is_err());
    }
}
