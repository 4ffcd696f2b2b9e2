use serde::Deserialize;
use stellar_vision::{DecodeLimits, Format, decode, read_header};

use crate::{cases, image_file, sha256};

#[derive(Deserialize)]
struct Case {
    file: String,
    width: u32,
    height: u32,
    sha256: String,
}

#[test]
fn every_kind_of_file_decodes_to_pillows_pixels() {
    let limits = DecodeLimits::default();
    let cases: Vec<Case> = cases("decode.json");
    assert!(cases.len() > 120, "only {} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        match decode(&image_file(&case.file), &limits) {
            Ok(image) => {
                assert_eq!((image.width, image.height), (case.width, case.height), "{}", case.file);
                if sha256(&image.pixels) != case.sha256 {
                    wrong.push(format!("{}: other pixels", case.file));
                }
            }
            Err(error) => wrong.push(format!("{}: {error}", case.file)),
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn headers_report_the_upright_size_and_the_format() {
    let limits = DecodeLimits::default();
    for case in cases::<Case>("decode.json") {
        let header = read_header(&image_file(&case.file), &limits).expect(&case.file);
        assert_eq!((header.width, header.height), (case.width, case.height), "{}", case.file);
        let extension = case.file.rsplit('.').next().expect("files have extensions");
        let format = match extension {
            "png" => Format::Png,
            "jpg" => Format::Jpeg,
            _ => Format::WebP,
        };
        assert_eq!(header.format, format);
        assert!(header.decode_memory >= 3 * u64::from(case.width) * u64::from(case.height));
    }
}

#[test]
fn the_content_of_a_file_decides_its_format() {
    let header = read_header(&image_file("grey.jpg"), &DecodeLimits::default()).expect("a JPEG");
    assert_eq!((header.format, header.format.media_type()), (Format::Jpeg, "image/jpeg"));
}
