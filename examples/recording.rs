//! Number of samples with 15 scores that a database records per second, by concurrency.
//!
//! ```sh
//! cargo run --release --example recording -- sqlite:target/recording.db
//! scripts/postgres.sh run sh -c 'cargo run --release --example recording -- $TEST_DATABASE_URL'
//! ```
//!
//! The arguments are an empty database, the seconds of each row, and the bytes of evidence of each
//! sample (0). All samples belong to one run, the worst case: every transaction locks the run's
//! row. The baseline is one sample at a time, which is one transaction each.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;
use stellar_score::content::ContentHash;
use stellar_score::metrics::REGISTRY;
use stellar_score::store::{
    Extras, NewPending, NewSample, NewScore, PackId, RecordOutcome, RunFacts, RunName,
    SampleInputs, ScoreValue, Store, StoreOptions, Weights,
};
use time::OffsetDateTime;
use uuid::Uuid;

const METRICS: usize = 15;

/// Numbers of samples in flight; a new one starts when another is done.
const IN_FLIGHT: [usize; 5] = [1, 8, 64, 256, 1];

/// Number of pending samples in each row for samples that were accepted before.
const ACCEPTED: usize = 4_000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "sqlite:target/recording.db".to_owned());
    let seconds = arguments.next().map_or(Ok(5.0), |text| text.parse())?;
    let evidence = arguments.next().map_or(Ok(0), |text| text.parse())?;
    // Compressed bytes look random.
    let evidence = (evidence > 0).then(|| {
        let blocks = (0_u32..).flat_map(|at| *ContentHash::of(&at.to_le_bytes()).as_bytes());
        Bytes::from(blocks.take(evidence).collect::<Vec<u8>>())
    });
    let extras = Extras { evidence, ..Extras::default() };
    let mut out = std::io::stdout();
    let store = Store::open(&url, &StoreOptions::default()).await?;

    let (mut baseline, next) = (None, Arc::new(AtomicU64::new(0)));
    writeln!(out, "{}: samples with {METRICS} scores per second, all in one run", store.kind())?;
    for in_flight in IN_FLIGHT {
        let time = Duration::from_secs_f64(seconds);
        let rate = recorded(&store, &next, &extras, in_flight, time).await?;
        let baseline = *baseline.get_or_insert(rate);
        writeln!(
            out,
            "  {in_flight:>4} at a time: {rate:>8.0}/s, {:.1} times one at a time",
            rate / baseline
        )?;
    }
    for in_flight in [1, 64] {
        let rate = recorded_after_waiting(&store, &extras, in_flight).await?;
        writeln!(out, "  {in_flight:>4} at a time, samples accepted before: {rate:>8.0}/s")?;
    }
    store.close().await;
    Ok(())
}

/// Records new samples for a while and returns the rate per second.
async fn recorded(
    store: &Store,
    next: &Arc<AtomicU64>,
    extras: &Extras,
    in_flight: usize,
    time: Duration,
) -> anyhow::Result<f64> {
    let started = Instant::now();
    let clients = (0..in_flight).map(|_| {
        let (store, next, extras) = (store.clone(), Arc::clone(next), extras.clone());
        tokio::spawn(async move {
            let mut done = 0;
            while started.elapsed() < time {
                let sample = sample(next.fetch_add(1, Ordering::Relaxed));
                let recorded =
                    store.record(&NewSample { extras: extras.clone(), ..sample }).await?;
                anyhow::ensure!(
                    recorded.outcome == RecordOutcome::Created,
                    "the database was not empty"
                );
                done += 1;
            }
            Ok(done)
        })
    });
    let mut done = 0;
    for client in clients.collect::<Vec<_>>() {
        done += client.await??;
    }
    Ok(f64::from(done) / started.elapsed().as_secs_f64())
}

/// Records pending samples of a run and returns the rate per second.
async fn recorded_after_waiting(
    store: &Store,
    extras: &Extras,
    in_flight: usize,
) -> anyhow::Result<f64> {
    let name = RunName::new(format!("accepted {in_flight}"), None);
    let (run, _) = store.create_run(&name, &RunFacts::default(), OffsetDateTime::now_utc()).await?;
    let mut waiting = Vec::new();
    for number in 0..ACCEPTED {
        let sample =
            NewSample { run: Some(name.clone()), extras: extras.clone(), ..sample(number as u64) };
        store.accept(&pending(&sample, run.id)).await?;
        waiting.push(sample);
    }
    let started = Instant::now();
    let waiting = Arc::new(std::sync::Mutex::new(waiting));
    let clients = (0..in_flight).map(|_| {
        let (store, waiting) = (store.clone(), Arc::clone(&waiting));
        tokio::spawn(async move {
            loop {
                let next = waiting.lock().expect("lock not poisoned").pop();
                let Some(sample) = next else { return anyhow::Ok(()) };
                anyhow::ensure!(
                    store.record_pending(&sample, run.id).await?.is_some(),
                    "it does not wait"
                );
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await??;
    }
    Ok(ACCEPTED as f64 / started.elapsed().as_secs_f64())
}

fn sample(number: u64) -> NewSample {
    let scores = REGISTRY.iter().take(METRICS).enumerate().map(|(place, metric)| NewScore {
        metric: metric.code.to_owned(),
        metric_version: metric.version,
        value: ScoreValue::Number((number * 31 + place as u64 * 17) as f64 % 1_000.0 / 1_000.0),
        flags: Vec::new(),
    });
    NewSample {
        id: Uuid::now_v7(),
        created: OffsetDateTime::now_utc(),
        run: Some(RunName::new("recorded", None)),
        name: Some(format!("{number:09}")),
        width: 1024,
        height: 1024,
        pack: PackId { digest: "a".repeat(64), name: "bench".into(), weights: Weights::Official },
        service_version: "bench".into(),
        scores: scores.collect(),
        extras: Extras::default(),
        inputs: SampleInputs {
            content: ContentHash::of(&number.to_le_bytes()),
            prompt: Some("a person riding a horse near Saturn".into()),
            image: ContentHash::of(&number.to_be_bytes()),
            references: vec![ContentHash::of(&(number / 10).to_le_bytes())],
            auxiliary: Vec::new(),
            metadata: json!({"identity": format!("person {}", number % 200), "prompt_kind": "T"}),
        },
    }
}

fn pending(sample: &NewSample, run: Uuid) -> NewPending {
    NewPending {
        key: None,
        id: sample.id,
        created: sample.created,
        run,
        name: sample.name.clone().expect("the sample has a name"),
        spool: "bench".into(),
        files: [sample.inputs.image]
            .into_iter()
            .chain(sample.inputs.references.iter().copied())
            .map(|file| (file, 1_000))
            .collect(),
        pack: sample.pack.clone(),
        service_version: "bench".into(),
        max_pending: u64::MAX,
        inputs: SampleInputs {
            content: sample.inputs.content,
            prompt: sample.inputs.prompt.clone(),
            image: sample.inputs.image,
            references: sample.inputs.references.clone(),
            auxiliary: Vec::new(),
            metadata: sample.inputs.metadata.clone(),
        },
    }
}
