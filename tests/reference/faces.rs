//! Faces compared with facenet-pytorch, from the file to the score, with the real detector of the
//! demo pack.
//!
//! Expected faces come from `scripts/faces_fixtures.py`.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::future::try_join_all;
use prometheus::Registry;
use serde::Deserialize;
use stellar_score::{
    content::ContentHash,
    engine::{Engine, EngineConfig, EngineTelemetry, Origin, Pack},
    metrics::{self, Flag, Metric, NullReason},
    scoring::{EncodedImage, FaceEvidence, Metadata, Sample, Scorecard, Scoring},
    vision::{self, DecodeLimits},
};

#[derive(Deserialize)]
struct Case {
    image: PathBuf,
    faces: Vec<FaceEvidence>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn cases() -> Vec<Case> {
    serde_json::from_slice(&std::fs::read(root().join("tests/data/faces/expected.json")).unwrap())
        .unwrap()
}

fn scoring() -> Scoring {
    let mut pack = Pack::open(root().join("packs/demo")).unwrap();
    pack.graphs.retain(|graph| graph.role.starts_with("faces."));
    let telemetry = EngineTelemetry::register(&Registry::new()).unwrap();
    let engine = Engine::start(&pack, &EngineConfig::default(), &telemetry).unwrap();
    Scoring::new(engine, pack.into(), DecodeLimits::default(), 1 << 30).unwrap()
}

fn read_image(path: &Path) -> EncodedImage {
    let bytes = std::fs::read(root().join(path)).unwrap();
    let header = vision::read_header(&bytes, &DecodeLimits::default()).unwrap();
    EncodedImage { hash: ContentHash::of(&bytes), bytes: Bytes::from(bytes), header }
}

fn sample(image: &str, references: &[&str], auxiliary: &[&str]) -> Sample {
    let read_images =
        |paths: &[&str]| paths.iter().map(|path| read_image(Path::new(path))).collect();
    Sample {
        image: read_image(Path::new(image)),
        prompt: None,
        references: read_images(references),
        auxiliary: read_images(auxiliary),
        metadata: Metadata::default(),
        dataset: None,
    }
}

fn identity() -> Vec<&'static Metric> {
    metrics::parse_list("ips,sis").unwrap()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

const ASTRONAUT: &str = "packs/demo/goldens/astronaut.jpg";
const FACE: &str = "packs/demo/goldens/astronaut-face.jpg";
const CAT: &str = "packs/demo/goldens/chelsea.webp";
const GREY: &str = "tests/data/faces/grey.png";

#[tokio::test(flavor = "multi_thread")]
async fn faces_match_facenet_pytorch_singly_and_batched() {
    let scoring = scoring();
    let cases = cases();
    // Each image is the reference of an image without faces, so all are scored without errors.
    let samples: Vec<Sample> =
        cases.iter().map(|case| sample(CAT, &[case.image.to_str().unwrap()], &[])).collect();
    let metrics = identity();
    let cards =
        try_join_all(samples.iter().map(|sample| scoring.score(sample, &metrics))).await.unwrap();
    for (case, card) in cases.iter().zip(&cards) {
        let found = &card.faces.iter().find(|faces| faces.of == "reference[0]").unwrap().faces;
        assert_eq!(found.len(), case.faces.len(), "{}", case.image.display());
        for (got, expected) in found.iter().zip(&case.faces) {
            let boxes = largest_difference(&got.corners, &expected.corners);
            let points =
                largest_difference(got.landmarks.as_flattened(), expected.landmarks.as_flattened());
            let probability = (got.probability - expected.probability).abs();
            assert!(
                boxes < 0.05 && points < 0.05 && probability < 1e-4,
                "{}: boxes {boxes}, landmarks {points}, probability {probability}",
                case.image.display()
            );
        }
    }
}

fn value(card: &Scorecard, code: &str) -> Result<(f64, Vec<Flag>), NullReason> {
    let score = card.scores.iter().find(|score| score.metric.code == code).unwrap();
    score.outcome.clone().map(|score| (score.value, score.flags))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_face_scores_high_and_missing_faces_are_reported() {
    let scoring = scoring();
    let card =
        scoring.score(&sample(ASTRONAUT, &[ASTRONAUT], &[CAT, FACE]), &identity()).await.unwrap();
    let (ips, flags) = value(&card, "ips").unwrap();
    assert!((ips - 1.0).abs() < 1e-5 && flags.is_empty());
    let (sis, flags) = value(&card, "sis").unwrap();
    assert!(sis < ips && sis > 0.9, "{sis}");
    assert_eq!(flags, [Flag::FacelessPhotos]);

    let card = scoring.score(&sample(CAT, &[ASTRONAUT], &[]), &identity()).await.unwrap();
    for code in ["ips", "sis"] {
        let (score, flags) = value(&card, code).unwrap();
        assert!(score.abs() < 1e-12);
        assert_eq!(flags, [Flag::NoFaceInImage]);
    }
    let card = scoring.score(&sample(ASTRONAUT, &[CAT], &[]), &identity()).await.unwrap();
    assert_eq!(value(&card, "ips").unwrap_err(), NullReason::NoFaceInReference);
    assert_eq!(value(&card, "sis").unwrap_err(), NullReason::NoFaceInReference);
    let card = scoring.score(&sample(ASTRONAUT, &[], &[FACE]), &identity()).await.unwrap();
    assert_eq!(value(&card, "ips").unwrap_err(), NullReason::NoReference);
    assert!(value(&card, "sis").is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_faces_of_a_photo_are_detected_once_until_evicted() {
    let scoring = scoring();
    let items = || scoring.engine().status().iter().map(|lane| lane.items).sum::<u64>();
    let sample = sample(GREY, &[FACE], &[FACE]);
    let metrics = identity();
    let twice = try_join_all([scoring.score(&sample, &metrics), scoring.score(&sample, &metrics)])
        .await
        .unwrap();
    let computed =
        |card: &Scorecard| card.features.iter().filter(|f| f.origin == Origin::Computed).count();
    assert_eq!(
        computed(&twice[0]) + computed(&twice[1]),
        2,
        "the image and the photo are each computed once"
    );
    let before = items();
    let again = scoring.score(&sample, &metrics).await.unwrap();
    assert!(again.features.iter().all(|feature| feature.origin == Origin::Cached));
    assert_eq!(items(), before, "no graph ran");
    assert_eq!(value(&again, "ips").unwrap(), value(&twice[0], "ips").unwrap());
    scoring.engine().forget(&std::collections::HashSet::from([sample.references[0].hash]));
    let anew = scoring.score(&sample, &metrics).await.unwrap();
    assert_eq!(computed(&anew), 1);
    assert!(items() > before);
}
