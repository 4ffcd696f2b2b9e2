//! The golden samples of the demo pack: this machine reproduces the scores of the original
//! programs, and the comparison can fail.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use stellar_score::{
    config::Config,
    content::ContentHash,
    engine::{Engine, Pack},
    scoring::{EncodedImage, Scoring},
    telemetry::Telemetry,
    verify::{Certificate, Goldens, certify},
    vision,
};

fn start() -> (Scoring, Goldens) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("packs/demo");
    let pack = Arc::new(Pack::open(dir).expect("the demo pack is whole"));
    let goldens = Goldens::read(&pack).expect("the demo pack has goldens");
    let mut config = Config::load(None).expect("the defaults are valid");
    // Both the single and the batched scores must run the graphs.
    config.engine.cache_bytes = 0;
    let engine =
        Engine::start(&pack, &config.engine, &Telemetry::new().engine).expect("the engine starts");
    (
        Scoring::new(engine, pack, config.limits.decode(), config.limits.pixel_bytes())
            .expect("the tokenizers load"),
        goldens,
    )
}

fn read(path: &Path) -> anyhow::Result<EncodedImage> {
    let bytes = Bytes::from(std::fs::read(path)?);
    let header = vision::read_header(&bytes, &vision::DecodeLimits::default())?;
    Ok(EncodedImage { hash: ContentHash::of(&bytes), bytes, header })
}

async fn compare(scoring: &Scoring, goldens: &Goldens) -> Certificate {
    certify(scoring, goldens, read).await.expect("every golden sample is scored")
}

#[tokio::test]
async fn golden_samples_match_the_original_programs_singly_and_batched() {
    let (scoring, goldens) = start();
    let certificate = compare(&scoring, &goldens).await;
    assert!(certificate.passed, "{certificate:#?}");
    assert!(certificate.problems.is_empty(), "{certificate:#?}");
    assert_eq!(certificate.samples, goldens.samples.len());
    let compared: usize = certificate.metrics.iter().map(|line| line.scores).sum();
    let expected: usize = goldens.samples.iter().map(|sample| sample.expected.len()).sum();
    assert_eq!(compared, expected, "every metric is compared");
    for metric in ["clip_t", "clip_i", "clip_n", "aesthetic"] {
        assert!(
            certificate.metrics.iter().any(|line| line.metric == metric),
            "{metric} has no golden"
        );
    }
}

#[tokio::test]
async fn an_error_of_twice_the_tolerance_fails_only_its_metric() {
    let (scoring, mut goldens) = start();
    let tolerance = goldens.tolerance["clip_t"];
    let sample =
        goldens.samples.iter_mut().find(|sample| sample.expected.contains_key("clip_t")).unwrap();
    *sample.expected.get_mut("clip_t").unwrap() += 2.5 * tolerance;
    let certificate = compare(&scoring, &goldens).await;
    assert!(!certificate.passed);
    let failed: Vec<_> = certificate
        .metrics
        .iter()
        .filter(|line| !line.passed)
        .map(|line| line.metric.as_str())
        .collect();
    assert_eq!(failed, ["clip_t"]);
}

#[tokio::test]
async fn an_expectation_without_a_counterpart_fails_by_name() {
    let (scoring, mut goldens) = start();
    goldens.samples[0].expected.insert("beauty".to_owned(), 0.5);
    goldens.tolerance.insert("beauty".to_owned(), 0.1);
    let missing = goldens.samples.iter_mut().find(|sample| sample.prompt.is_none()).unwrap();
    missing.expected.insert("clip_t".to_owned(), 0.5);
    let name = missing.name.clone();
    goldens.tolerance.remove("aesthetic");
    let certificate = compare(&scoring, &goldens).await;
    assert!(!certificate.passed);
    let problems = certificate.problems.join("\n");
    assert!(problems.contains("beauty is null"), "{problems}");
    assert!(problems.contains(&format!("{name}: clip_t is null")), "{problems}");
    assert!(problems.contains("aesthetic: the golden samples have no tolerance"), "{problems}");
}

#[tokio::test]
async fn goldens_without_any_expectation_certify_nothing() {
    let (scoring, mut goldens) = start();
    goldens.samples.truncate(1);
    goldens.samples[0].expected.clear();
    assert!(!compare(&scoring, &goldens).await.passed);
}
