//! Files that are not images or cannot be scored: each is refused with the reason.

use std::time::{Duration, Instant};

use image::{ExtendedColorType, codecs::webp::WebPEncoder};

use crate::{
    harness::{Answer, App, tells},
    support::{
        form::Form,
        images::{png, png_of},
    },
};

/// Sends `file` as the generated image in an otherwise valid form.
async fn post(file: &[u8]) -> Answer {
    let app = App::start().await;
    let form = Form::new()
        .file("image", file)
        .field("prompt", "a person")
        .file("reference", png(9))
        .field("method", "mine");
    let response = app.score(form).await;
    assert_eq!(app.counted("mine", "clip_n").await, 0, "a refused sample stores nothing");
    response
}

/// A PNG with `width` × `height` pixels in its header; everything else in it is valid.
fn png_that_claims(width: u32, height: u32) -> Vec<u8> {
    let mut file = png(1);
    // Signature, length and type of IHDR take 16 bytes; its checksum covers type and content.
    file[16..20].copy_from_slice(&width.to_be_bytes());
    file[20..24].copy_from_slice(&height.to_be_bytes());
    let checksum = crc32(&file[12..29]);
    file[29..33].copy_from_slice(&checksum.to_be_bytes());
    file
}

/// The checksum of PNG chunks.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

fn jpeg(width: usize, height: usize) -> Vec<u8> {
    let pixels: Vec<u8> = (0..3 * width * height).map(|at| (at * 7 % 251) as u8).collect();
    let image = turbojpeg::Image {
        pixels: pixels.as_slice(),
        width,
        pitch: 3 * width,
        height,
        format: turbojpeg::PixelFormat::RGB,
    };
    turbojpeg::compress(image, 90, turbojpeg::Subsamp::Sub2x2).expect("a valid image").to_vec()
}

fn webp() -> Vec<u8> {
    let pixels: Vec<u8> = (0..3 * 40 * 30).map(|at| (at * 13 % 241) as u8).collect();
    let mut file = Vec::new();
    WebPEncoder::new_lossless(&mut file)
        .encode(&pixels, 40, 30, ExtendedColorType::Rgb8)
        .expect("memory");
    file
}

#[tokio::test]
async fn whole_images_of_all_three_formats_are_scored() {
    let app = App::start().await;
    for file in [png(1), jpeg(40, 30), webp()] {
        let response =
            app.score(Form::new().file("image", &file).field("metrics", "aesthetic")).await.ok();
        assert!(response["scores"]["aesthetic"]["value"].is_f64());
    }
}

#[tokio::test]
async fn an_empty_file_is_refused() {
    tells(&post(b"").await.problem(422, "image_empty"), &["image", "empty"]);
}

#[tokio::test]
async fn a_truncated_png_is_refused_wherever_it_ends() {
    let whole = png_of(64, 64, 1);
    for length in [4, 20, 60, whole.len() / 2, whole.len() - 20] {
        let detail = post(&whole[..length]).await.problem(422, "image_truncated");
        tells(&detail, &["image", "PNG", "send the whole file"]);
    }
}

#[tokio::test]
async fn a_truncated_jpeg_is_refused_wherever_it_ends() {
    let whole = jpeg(300, 200);
    for length in [2, 30, whole.len() / 2, whole.len() - 100] {
        let detail = post(&whole[..length]).await.problem(422, "image_truncated");
        tells(&detail, &["image", "JPEG", "send the whole file"]);
    }
}

#[tokio::test]
async fn a_truncated_webp_is_refused_wherever_it_ends() {
    let whole = webp();
    for length in [14, whole.len() / 2, whole.len() - 10] {
        let detail = post(&whole[..length]).await.problem(422, "image_truncated");
        tells(&detail, &["image", "WebP", "send the whole file"]);
    }
}

#[tokio::test]
async fn a_png_with_damaged_pixels_is_refused() {
    let mut file = png_of(64, 64, 1);
    let middle = file.len() / 2;
    for byte in &mut file[middle..middle + 40] {
        *byte ^= 0x5A;
    }
    tells(&post(&file).await.problem(422, "image_corrupt"), &["image", "PNG", "damaged"]);
}

#[tokio::test]
async fn a_header_with_zero_pixels_is_refused() {
    tells(&post(&png_that_claims(0, 0)).await.problem(422, "image_too_small"), &["image", "0×0"]);
}

#[tokio::test]
async fn an_image_of_one_pixel_is_refused_with_the_least_size() {
    let detail = post(&png_of(1, 1, 1)).await.problem(422, "image_too_small");
    tells(&detail, &["image", "1×1", "2×2"]);
}

#[tokio::test]
async fn the_smallest_accepted_image_is_scored() {
    let app = App::start().await;
    let response =
        app.score(Form::new().file("image", png_of(2, 2, 1)).field("metrics", "aesthetic")).await;
    assert!(response.ok()["scores"]["aesthetic"]["value"].is_f64());
}

#[tokio::test]
async fn a_header_of_900_megapixels_is_refused_before_memory_is_allocated() {
    let mut lying_jpeg = jpeg(16, 16);
    let frame =
        lying_jpeg.windows(2).position(|pair| pair == [0xFF, 0xC0]).expect("a baseline frame");
    lying_jpeg[frame + 5..frame + 9].copy_from_slice(&[30_000_u16.to_be_bytes(); 2].concat());
    for file in [png_that_claims(30_000, 30_000), lying_jpeg] {
        let started = Instant::now();
        let detail = post(&file).await.problem(413, "payload_too_large");
        tells(&detail, &["image", "30000×30000", "limit"]);
        // This includes the start of the service, but not the time to decode 2.7 GB of pixels.
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn a_text_file_is_refused_with_the_supported_formats() {
    let detail = post(b"not an image at all, but quite a few bytes of text").await;
    tells(&detail.problem(415, "image_unsupported"), &["image", "PNG, JPEG, WebP or PPM"]);
}

#[tokio::test]
async fn a_pdf_is_refused_whatever_it_is_called() {
    let app = App::start().await;
    let head = "Content-Disposition: form-data; name=\"image\"; \
        filename=\"photo.png\"\r\nContent-Type: image/png";
    let response = app.score(Form::new().part(head, b"%PDF-1.7\n%\xE2\xE3\xCF\xD3\n1 0 obj")).await;
    tells(
        &response.problem(415, "image_unsupported"),
        &["image", "detected from the content, not the name"],
    );
}

#[tokio::test]
async fn a_gif_is_refused() {
    post(b"GIF89a\x01\x00\x01\x00\x80\x00\x00").await.problem(415, "image_unsupported");
}

#[tokio::test]
async fn a_bad_reference_is_named_by_its_position() {
    let app = App::start().await;
    let form = |second: &[u8]| {
        Form::new().file("image", png(1)).file("reference", png(2)).file("reference", second)
    };
    tells(&app.score(form(b"")).await.problem(422, "image_empty"), &["reference[1]"]);
    // Half a JPEG has a complete header: only decoding detects the truncation.
    let photo = jpeg(300, 200);
    let half = &photo[..photo.len() / 2];
    tells(&app.score(form(half)).await.problem(422, "image_truncated"), &["reference[1]"]);
}

#[tokio::test]
async fn a_bad_auxiliary_photo_is_named_by_its_position() {
    let app = App::start().await;
    let form = Form::new().file("image", png(1)).file("auxiliary", b"text");
    tells(&app.score(form).await.problem(415, "image_unsupported"), &["auxiliary[0]"]);
}

#[tokio::test]
async fn a_file_over_the_limit_is_refused_with_the_limit() {
    let app = App::with(|setup| setup.config.limits.image_mib = 1).await;
    let detail = app.score(Form::new().file("image", vec![0; (1 << 20) + 1])).await;
    tells(&detail.problem(413, "payload_too_large"), &["image", "1 MiB"]);
}

#[tokio::test]
async fn an_image_over_the_pixel_limit_is_refused_with_the_limit() {
    let app = App::with(|setup| setup.config.limits.image_megapixels = 1).await;
    let detail = app.score(Form::new().file("image", png_that_claims(1001, 1000))).await;
    tells(&detail.problem(413, "payload_too_large"), &["image", "1001×1000", "1000000"]);
}
