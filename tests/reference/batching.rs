//! `engine.batching = "fixed"`: the bits of a score do not depend on its batch.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use stellar_score::{
    config::Config,
    content::ContentHash,
    engine::{Batching, Engine, Pack},
    metrics::{Metric, NullReason, REGISTRY},
    scoring::{EncodedImage, Sample, Scoring},
    telemetry::Telemetry,
    verify::Goldens,
    vision,
};

/// A score by the metric's code: its bits, or why there is none.
type Bits = BTreeMap<&'static str, Result<u64, NullReason>>;

/// Random numbers, the same in every run (Knuth's generator, upper half).
struct Dice(u64);

impl Dice {
    /// Returns a number below `sides`.
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as usize % sides
    }
}

fn scoring(batching: Batching) -> Scoring {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("packs/demo");
    let pack = Arc::new(Pack::open(dir).expect("the demo pack is whole"));
    let mut config = Config::load(None).expect("the defaults are valid");
    let engine = &mut config.engine;
    (engine.batching, engine.max_batch) = (batching, 3);
    // Every score runs its graphs, on two threads whatever the machine has.
    (engine.cache_bytes, engine.threads) = (0, 2);
    let engine = Engine::start(&pack, engine, &Telemetry::new().engine).expect("the engine starts");
    Scoring::new(engine, pack, config.limits.decode(), config.limits.pixel_bytes())
        .expect("the tokenizers load")
}

fn samples(pack: &Pack) -> Vec<Sample> {
    let read = |path: &Path| {
        let bytes = Bytes::from(std::fs::read(pack.dir.join(path)).expect("a golden image"));
        let header = vision::read_header(&bytes, &vision::DecodeLimits::default()).unwrap();
        EncodedImage { hash: ContentHash::of(&bytes), bytes, header }
    };
    let goldens = Goldens::read(pack).expect("the demo pack has goldens").samples;
    let sample = |golden: &stellar_score::verify::Golden| Sample {
        image: read(&golden.image),
        prompt: golden.prompt.clone(),
        references: golden.reference.iter().map(|path| read(path)).collect(),
        auxiliary: golden.auxiliary.iter().map(|path| read(path)).collect(),
        metadata: golden.metadata.clone(),
        dataset: None,
    };
    // The first has every metric.
    goldens.iter().take(6).map(sample).collect()
}

async fn score(scoring: &Scoring, sample: &Sample, metrics: &[&'static Metric]) -> Bits {
    let card = scoring.score(sample, metrics).await.expect("the sample is scored");
    let mut bits = Bits::new();
    for score in card.scores {
        let outcome = score.outcome.map(|score| score.value.to_bits());
        bits.insert(score.metric.code, outcome);
    }
    bits
}

/// Returns the codes of metrics whose bits depend on what is scored at the same time.
async fn varying(scoring: &Scoring, rounds: usize) -> Vec<&'static str> {
    let metrics: Vec<&'static Metric> = REGISTRY.iter().collect();
    let (samples, mut dice) = (samples(scoring.pack()), Dice(20_231_210));
    let mut alone = Vec::new();
    for sample in &samples {
        alone.push(score(scoring, sample, &metrics).await);
    }
    let scored = alone.iter().flat_map(BTreeMap::iter).filter(|(_, bits)| bits.is_ok());
    let scored: BTreeSet<_> = scored.map(|(code, _)| *code).collect();
    assert!(scored.len() >= 15, "few metrics have a number: {scored:?}");
    let mut varying = Vec::new();
    for _ in 0..rounds {
        // Random neighbours in a random order, some of them several times.
        let chosen: Vec<usize> = (0..5 + dice.roll(5)).map(|_| dice.roll(samples.len())).collect();
        let at_once = 1 + dice.roll(chosen.len());
        let (samples, alone, metrics) = (&samples, &alone, &metrics);
        let differing: Vec<Vec<&'static str>> = stream::iter(chosen)
            .map(|at| async move {
                let now = score(scoring, &samples[at], metrics).await;
                assert_eq!(now.len(), alone[at].len());
                let differs = |code: &&'static str| now[code] != alone[at][code];
                alone[at].keys().copied().filter(differs).collect()
            })
            .buffer_unordered(at_once)
            .collect()
            .await;
        varying.extend(differing.into_iter().flatten());
    }
    varying.sort_unstable();
    varying.dedup();
    varying
}

#[tokio::test(flavor = "multi_thread")]
async fn fixed_batches_give_equal_bits_whoever_shares_them() {
    let scoring = scoring(Batching::Fixed);
    assert_eq!(varying(&scoring, 3).await, Vec::<&str>::new());
    let lanes = scoring.engine().status();
    let shared = lanes.iter().filter(|lane| lane.items > lane.batches).count();
    assert!(shared >= 8, "few graphs had several items in a batch: {lanes:#?}");
}
