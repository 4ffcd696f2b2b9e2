use serde::Deserialize;
use stellar_vision::{Filter, Geometry, Prepared, Rect, resize_area, resize_window};

use crate::{cases, drawn, sha256};

#[derive(Deserialize)]
struct Resize {
    seed: u32,
    width: u32,
    height: u32,
    /// Left, top, width, height of the crop.
    r#box: [u32; 4],
    size: [u32; 2],
    filter: Filter,
    sha256: String,
}

#[test]
fn resizing_matches_pillow_bit_for_bit() {
    let cases: Vec<Resize> = cases("resize.json");
    assert!(cases.len() >= 70, "only {} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let image = drawn(case.seed, case.width, case.height);
        let [left, top, width, height] = case.r#box;
        let source = Rect { left: left.into(), top: top.into(), width, height };
        let [width, height] = case.size;
        let window = Rect { left: 0, top: 0, width, height };
        let resized =
            resize_window(&image, source, (width.into(), height.into()), window, case.filter);
        if sha256(&resized.pixels) != case.sha256 {
            wrong.push(format!("{image:?} {source:?} → {width}×{height} {:?}", case.filter));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[derive(Deserialize)]
struct Geometric {
    seed: u32,
    width: u32,
    height: u32,
    geometry: Geometry,
    sha256: String,
}

#[test]
fn geometries_match_the_reference_bit_for_bit() {
    let cases: Vec<Geometric> = cases("geometry.json");
    assert!(cases.len() >= 100, "only {} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let Prepared::U8 { height, width, data } =
            case.geometry.apply(&drawn(case.seed, case.width, case.height))
        else {
            panic!("{:?} should give bytes", case.geometry);
        };
        assert_eq!(Some((height, width)), case.geometry.size());
        if sha256(&data) != case.sha256 {
            wrong.push(format!("{}×{}: {:?}", case.width, case.height, case.geometry));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[derive(Deserialize)]
struct Bounded {
    width: u32,
    height: u32,
    /// Bounds of the shortest and the longest edge.
    bounds: [u32; 2],
    rows: u32,
    columns: u32,
    /// Seed of the image, if its pixels are compared too.
    seed: Option<u32>,
    sha256: Option<String>,
}

#[test]
fn bounded_sizes_and_pixels_match_the_detr_processor() {
    let cases: Vec<Bounded> = cases("bounded.json");
    assert!(cases.len() >= 400, "only {} cases", cases.len());
    let mut seen = 0;
    for case in &cases {
        let [shortest, longest] = case.bounds;
        let geometry = Geometry::Bounded { shortest, longest, filter: Filter::Bilinear };
        let name = format!("{}×{}", case.width, case.height);
        assert_eq!(geometry.size_for(case.width, case.height), (case.rows, case.columns), "{name}");
        let (Some(seed), Some(digest)) = (case.seed, &case.sha256) else { continue };
        let Prepared::U8 { height, width, data } =
            geometry.apply(&drawn(seed, case.width, case.height))
        else {
            panic!("{name}: should give bytes");
        };
        assert_eq!((height, width), (case.rows, case.columns), "{name}");
        assert_eq!(&sha256(&data), digest, "{name}");
        seen += 1;
    }
    assert!(seen >= 10, "only {seen} images");
}

#[derive(Deserialize)]
struct Letterbox {
    seed: u32,
    width: u32,
    height: u32,
    /// `values` are every `step`-th value of the result.
    step: usize,
    values: Vec<f32>,
    sum: f64,
}

#[test]
fn the_letterbox_matches_torchvision_within_a_millionth() {
    let cases: Vec<Letterbox> = cases("letterbox.json");
    assert!(cases.len() >= 14, "only {} cases", cases.len());
    let mut outside = false;
    for case in &cases {
        let prepared =
            Geometry::Letterbox { size: 224 }.apply(&drawn(case.seed, case.width, case.height));
        let Prepared::F32 { height: 224, width: 224, data } = prepared else {
            panic!("a letterbox is 224 × 224 floats");
        };
        let sampled: Vec<f32> = data.iter().copied().step_by(case.step).collect();
        assert_eq!(sampled.len(), case.values.len());
        for (got, expected) in sampled.iter().zip(&case.values) {
            let name = format!("{}×{}", case.width, case.height);
            assert!((got - expected).abs() < 1e-6, "{name}: {got} instead of {expected}");
        }
        let sum: f64 = data.iter().map(|&value| f64::from(value)).sum();
        assert!((sum - case.sum).abs() < 1e-2, "sum {sum} instead of {}", case.sum);
        outside |= data.iter().any(|value| !(0.0..=1.0).contains(value));
    }
    assert!(outside, "an unclamped cubic overshoots somewhere in these images");
}

#[derive(Deserialize)]
struct Area {
    seed: u32,
    width: u32,
    height: u32,
    /// Left, top, width, height of the crop.
    r#box: [u32; 4],
    size: [u32; 2],
    /// `values` are every `step`-th value of the result.
    step: usize,
    values: Vec<f32>,
}

#[test]
fn area_resizing_matches_pytorch() {
    let cases: Vec<Area> = cases("area.json");
    assert!(cases.len() >= 20, "only {} cases", cases.len());
    for case in &cases {
        let image = drawn(case.seed, case.width, case.height);
        let [left, top, width, height] = case.r#box;
        let source = Rect { left: left.into(), top: top.into(), width, height };
        let [width, height] = case.size;
        let resized = resize_area(&image, source, width, height);
        assert_eq!(resized.len(), 3 * width as usize * height as usize);
        let sampled = resized.iter().step_by(case.step);
        assert_eq!(sampled.len(), case.values.len());
        for (got, expected) in sampled.zip(&case.values) {
            let name = format!("{image:?} {source:?} → {width}×{height}");
            assert!(
                (got - expected).abs() <= 1e-5 * expected.max(1.0),
                "{name}: {got} instead of {expected}"
            );
        }
    }
}
