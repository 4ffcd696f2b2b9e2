//! Load test of the service: throughput, latency and the engine's work.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use reqwest::multipart::Form;
use reqwest::{StatusCode, Url};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::graphs::median;
use crate::client::{Client, file_part, shown};
use crate::read;
use crate::upload::Item;

/// Timeout of a request.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(5);

/// Pause of a client after a request that was not scored.
const AFTER_REFUSAL: Duration = Duration::from_millis(50);

/// Maximum number of in-flight requests in an open loop. Further requests are delayed, and the
/// delay counts as latency.
const MOST_AT_ONCE: usize = 4_096;

/// A sample to send, with its files in memory.
#[derive(Debug, Clone)]
pub struct LoadSample {
    image: Bytes,
    prompt: String,
    photos: Vec<(&'static str, Bytes)>,
    metadata: String,
}

impl LoadSample {
    /// Reads the files of an item in a run's folder.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn read(item: &Item) -> std::io::Result<Self> {
        let file = |path: &Path| read::bytes(path).map(Bytes::from);
        let mut photos = vec![("reference", file(&item.reference)?)];
        for other in &item.auxiliary {
            photos.push(("auxiliary", file(other)?));
        }
        let metadata = serde_json::to_string(&item.metadata).expect("plain data always serialises");
        Ok(Self { image: file(&item.image)?, prompt: item.prompt.clone(), photos, metadata })
    }

    /// Builds a form whose image differs from that of any other request, and whose photos are
    /// specific to `set`. Bytes appended to an image file change its content hash but not its
    /// pixels.
    fn form(&self, number: u64, set: u64, options: &LoadOptions) -> Form {
        let image =
            if options.repeat { self.image.clone() } else { with_number(&self.image, number) };
        let mut form = Form::new()
            .part("image", file_part(&image, "image"))
            .text("prompt", self.prompt.clone())
            .text("metadata", self.metadata.clone());
        for (field, photo) in &self.photos {
            let photo = if options.repeat { photo.clone() } else { with_number(photo, set) };
            form = form.part(*field, file_part(&photo, "image"));
        }
        match &options.metrics {
            Some(metrics) => form.text("metrics", metrics.clone()),
            None => form,
        }
    }
}

fn with_number(image: &Bytes, number: u64) -> Bytes {
    let mut bytes = BytesMut::with_capacity(image.len() + 8);
    bytes.extend_from_slice(image);
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.freeze()
}

/// Options of a load test.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Number of clients of a closed loop: each sends its next sample after the response to its
    /// last.
    pub clients: usize,
    /// Rate of an open loop instead, in samples per second, sent without waiting for responses.
    pub rate: Option<f64>,
    /// Duration of the test.
    pub duration: Duration,
    /// Metric codes, separated by commas; all if `None`.
    pub metrics: Option<String>,
    /// Number of consecutive samples that share their photos; the next set of photos is new to the
    /// service.
    pub prompts_a_photo: u64,
    /// Whether to send the same samples repeatedly, so that all features are cached.
    pub repeat: bool,
    /// First of the numbers that make images unique, so that a second test does not repeat the
    /// first.
    pub seed: u64,
}

/// Result of a load test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadResult {
    /// Number of responses with scores.
    pub scored: u64,
    /// Number of other responses, by status.
    pub refused: BTreeMap<u16, u64>,
    /// Number of requests without a response.
    pub broken: u64,
    /// Seconds from the first request to the last response.
    pub seconds: f64,
    /// Scored samples per second.
    pub samples_a_second: f64,
    /// Median latency of responses with scores, in milliseconds. In an open loop it counts from the
    /// time when the sample was due.
    pub p50_ms: f64,
    /// 95th percentile of the latency in milliseconds.
    pub p95_ms: f64,
    /// 99th percentile of the latency in milliseconds.
    pub p99_ms: f64,
    /// Maximum latency in milliseconds.
    pub most_ms: f64,
    /// Mean time by stage of responses with scores, as reported by the service.
    pub stages: Stages,
    /// CPU seconds of the service per scored sample, if the service reports them.
    pub processor_seconds_a_sample: Option<f64>,
    /// Seconds in graphs per scored sample.
    pub graph_seconds_a_sample: f64,
    /// The engine's work by graph.
    pub graphs: BTreeMap<String, GraphLoad>,
    /// Resident memory of the service at the end, in bytes.
    pub resident_bytes: Option<f64>,
    /// Peak memory of the service, in bytes.
    pub peak_bytes: Option<f64>,
}

/// Milliseconds of a request by stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Stages {
    /// Receiving and checking the form.
    pub read_ms: f64,
    /// Scoring, from decoding to the last score.
    pub score_ms: f64,
    /// Recording the scores.
    pub store_ms: f64,
}

impl Stages {
    fn mean(answers: &[Asked]) -> Self {
        let all: Vec<&Self> = answers.iter().filter_map(|answer| answer.stages.as_ref()).collect();
        let mean = |of: fn(&Self) -> f64| {
            all.iter().map(|one| of(one)).sum::<f64>() / all.len().max(1) as f64
        };
        Self {
            read_ms: mean(|of| of.read_ms),
            score_ms: mean(|of| of.score_ms),
            store_ms: mean(|of| of.store_ms),
        }
    }
}

/// A graph's work during a load test.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GraphLoad {
    /// Number of items.
    pub items: f64,
    /// Number of batches.
    pub batches: f64,
    /// Mean batch size.
    pub batch: f64,
    /// Mean milliseconds to prepare an item.
    pub prepare_ms: f64,
    /// Mean milliseconds that an item waited for its batch.
    pub queue_ms: f64,
    /// Seconds spent running the graph.
    pub run_seconds: f64,
    /// `run_seconds` as a share of the elapsed time. On a device with one concurrent batch, the
    /// shares of all graphs add up to its utilisation.
    pub share: f64,
}

/// Errors of a load test.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There are no samples to send.
    #[error("there are no samples to send: use a folder with images")]
    NoSamples,
    /// The service does not respond.
    #[error("{url} does not respond: {source}")]
    Silent {
        /// The requested address.
        url: Url,
        /// The underlying error.
        source: reqwest::Error,
    },
}

/// Sends samples for some time and returns statistics.
///
/// # Errors
/// See [`LoadError`]. Requests that fail are counted.
pub async fn load(
    server: &Client,
    samples: Vec<LoadSample>,
    options: &LoadOptions,
) -> Result<LoadResult, LoadError> {
    if samples.is_empty() {
        return Err(LoadError::NoSamples);
    }
    let http = reqwest::Client::builder()
        .default_headers(server.authorization())
        .timeout(ANSWER_TIMEOUT)
        .pool_max_idle_per_host(MOST_AT_ONCE)
        .build()
        .map_err(|source| LoadError::Silent { url: shown(&server.url(&[])), source })?;
    let metrics = server.url(&["metrics"]);
    let before = numbers(&http, &metrics).await?;
    let asking = Arc::new(Asking {
        http: http.clone(),
        url: server.url(&["v1", "score"]),
        samples,
        options: options.clone(),
        next: AtomicU64::new(0),
    });
    let started = Instant::now();
    let answers = match options.rate {
        Some(rate) => open_loop(&asking, rate, started).await,
        None => closed_loop(&asking, started).await,
    };
    let seconds = started.elapsed().as_secs_f64();
    let after = numbers(&http, &metrics).await?;
    Ok(result(answers, seconds, &before, &after))
}

struct Asking {
    http: reqwest::Client,
    url: Url,
    samples: Vec<LoadSample>,
    options: LoadOptions,
    next: AtomicU64,
}

/// Outcome of a request.
struct Asked {
    /// Status of the response, if there was one.
    status: Option<StatusCode>,
    /// Seconds until the response or the failure.
    seconds: f64,
    stages: Option<Stages>,
}

/// The part of a response with scores that is read.
#[derive(Deserialize)]
struct Answer {
    timings: Stages,
}

impl Asking {
    async fn one(&self, due: Instant) -> Asked {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let sample = &self.samples[(number % self.samples.len() as u64) as usize];
        let set = self.options.seed + number / self.options.prompts_a_photo.max(1);
        let form = sample.form(self.options.seed + number, set, &self.options);
        let answer = async {
            let answer = self.http.post(self.url.clone()).multipart(form).send().await?;
            let status = answer.status();
            Ok::<_, reqwest::Error>((status, answer.bytes().await?))
        };
        let (status, body) = answer.await.ok().unzip();
        let seconds = due.elapsed().as_secs_f64();
        let answer: Option<Answer> = body.and_then(|body| serde_json::from_slice(&body).ok());
        Asked { status, seconds, stages: answer.map(|answer| answer.timings) }
    }
}

async fn closed_loop(asking: &Arc<Asking>, started: Instant) -> Vec<Asked> {
    let mut clients = JoinSet::new();
    for _ in 0..asking.options.clients {
        let asking = Arc::clone(asking);
        clients.spawn(async move {
            let mut answers = Vec::new();
            while started.elapsed() < asking.options.duration {
                let answer = asking.one(Instant::now()).await;
                if answer.status != Some(StatusCode::OK) {
                    tokio::time::sleep(AFTER_REFUSAL).await;
                }
                answers.push(answer);
            }
            answers
        });
    }
    let mut all = Vec::new();
    while let Some(answers) = clients.join_next().await {
        all.extend(answers.unwrap_or_default());
    }
    all
}

async fn open_loop(asking: &Arc<Asking>, rate: f64, started: Instant) -> Vec<Asked> {
    let count = (rate * asking.options.duration.as_secs_f64()) as u64;
    let (mut under_way, mut all) = (JoinSet::new(), Vec::new());
    for at in 0..count {
        let due = started + Duration::from_secs_f64(at as f64 / rate);
        tokio::time::sleep_until(due.into()).await;
        while under_way.len() >= MOST_AT_ONCE {
            all.extend(under_way.join_next().await.and_then(Result::ok));
        }
        let asking = Arc::clone(asking);
        under_way.spawn(async move { asking.one(due).await });
    }
    while let Some(answer) = under_way.join_next().await {
        all.extend(answer.ok());
    }
    all
}

fn result(answers: Vec<Asked>, seconds: f64, before: &Numbers, after: &Numbers) -> LoadResult {
    let stages = Stages::mean(&answers);
    let (mut refused, mut broken, mut times) = (BTreeMap::new(), 0, Vec::new());
    for Asked { status, seconds, .. } in answers {
        match status {
            Some(StatusCode::OK) => times.push(seconds * 1e3),
            Some(other) => *refused.entry(other.as_u16()).or_default() += 1,
            None => broken += 1,
        }
    }
    let middle = median(&mut times);
    let since = |key: &str| Some(after.get(key)? - before.get(key).copied().unwrap_or_default());
    let grown =
        |name: &str, labels: &str| since(&format!("{name}{{{labels}}}")).unwrap_or_default();
    let mut graphs = BTreeMap::new();
    for key in after.keys() {
        let Some(labels) = key
            .strip_prefix("stellar_engine_batch_size_sum{")
            .and_then(|rest| rest.strip_suffix('}'))
        else {
            continue;
        };
        let items = grown("stellar_engine_batch_size_sum", labels);
        let batches = grown("stellar_engine_batch_size_count", labels);
        if batches == 0.0 {
            continue;
        }
        let of_stage = |stage: &str| {
            grown("stellar_engine_stage_seconds_sum", &format!("{labels},stage=\"{stage}\""))
        };
        let run_seconds = of_stage("run");
        let graph = labels.trim_start_matches("graph=\"").trim_end_matches('"').to_owned();
        let load = GraphLoad {
            items,
            batches,
            batch: items / batches,
            prepare_ms: 1e3 * of_stage("prepare") / items,
            queue_ms: 1e3 * of_stage("queue") / items,
            run_seconds,
            share: run_seconds / seconds,
        };
        graphs.insert(graph, load);
    }
    let scored = times.len().max(1) as f64;
    LoadResult {
        stages,
        processor_seconds_a_sample: since("process_cpu_seconds_total")
            .map(|seconds| seconds / scored),
        graph_seconds_a_sample: graphs.values().map(|graph| graph.run_seconds).sum::<f64>()
            / scored,
        peak_bytes: after.get("stellar_peak_memory_bytes").copied(),
        scored: times.len() as u64,
        refused,
        broken,
        seconds,
        samples_a_second: times.len() as f64 / seconds,
        p50_ms: middle,
        p95_ms: quantile(&times, 0.95),
        p99_ms: quantile(&times, 0.99),
        most_ms: times.last().copied().unwrap_or_default(),
        graphs,
        resident_bytes: after.get("stellar_resident_memory_bytes").copied(),
    }
}

/// Returns the smallest of ascending numbers with at least `share` of them at or below it; 0 if
/// empty.
fn quantile(ascending: &[f64], share: f64) -> f64 {
    let place = (share * ascending.len() as f64).ceil() as usize;
    ascending.get(place.saturating_sub(1)).copied().unwrap_or_default()
}

type Numbers = BTreeMap<String, f64>;

/// Reads the lines of `/metrics`.
async fn numbers(http: &reqwest::Client, url: &Url) -> Result<Numbers, LoadError> {
    let text = async { http.get(url.clone()).send().await?.error_for_status()?.text().await };
    let text = text.await.map_err(|source| LoadError::Silent { url: shown(url), source })?;
    Ok(parse(&text))
}

fn parse(text: &str) -> Numbers {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(key, value)| Some((key.to_owned(), value.parse().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_counted_and_their_latencies_ranked() {
        let asked = |status, seconds, stages| Asked { status, seconds, stages };
        let answers = (1..=100)
            .map(|at| {
                let stages = Stages { read_ms: 1.0, score_ms: f64::from(at), store_ms: 2.0 };
                asked(Some(StatusCode::OK), f64::from(at) / 1e3, Some(stages))
            })
            .chain([asked(Some(StatusCode::TOO_MANY_REQUESTS), 9.0, None), asked(None, 9.0, None)])
            .collect();
        let before = parse(
            "stellar_engine_batch_size_sum{graph=\"a\"} \
                10\nstellar_engine_batch_size_count{graph=\"a\"} 5\n\
             stellar_engine_stage_seconds_sum{graph=\"a\",stage=\"run\"} \
             1\nprocess_cpu_seconds_total 10\n",
        );
        let after = parse(
            "# HELP x y\nstellar_engine_batch_size_sum{graph=\"a\"} \
                110\nstellar_engine_batch_size_count{graph=\"a\"} 25\n\
             stellar_engine_batch_size_sum{graph=\"idle\"} 0\n\
             stellar_engine_stage_seconds_sum{graph=\"a\",stage=\"run\"} \
             6\nstellar_resident_memory_bytes 1024\n\
             stellar_engine_stage_seconds_sum{graph=\"a\",stage=\"queue\"} \
             2\nstellar_peak_memory_bytes 4096\n\
             process_cpu_seconds_total 60\n",
        );
        let found = result(answers, 10.0, &before, &after);
        assert_eq!(
            (found.scored, found.broken, &found.refused),
            (100, 1, &BTreeMap::from([(429, 1)]))
        );
        assert_eq!(
            (found.p50_ms, found.p95_ms, found.p99_ms, found.most_ms),
            (50.5, 95.0, 99.0, 100.0)
        );
        assert!((found.samples_a_second - 10.0).abs() < 1e-12);
        assert_eq!(found.stages, Stages { read_ms: 1.0, score_ms: 50.5, store_ms: 2.0 });
        assert_eq!(
            (found.processor_seconds_a_sample, found.graph_seconds_a_sample),
            (Some(0.5), 0.05)
        );
        assert_eq!(found.peak_bytes, Some(4096.0));
        let load = GraphLoad {
            items: 100.0,
            batches: 20.0,
            batch: 5.0,
            prepare_ms: 0.0,
            queue_ms: 20.0,
            run_seconds: 5.0,
            share: 0.5,
        };
        assert_eq!(found.graphs, BTreeMap::from([("a".to_owned(), load)]));
        assert_eq!(found.resident_bytes, Some(1024.0));
    }

    #[test]
    fn latencies_are_zero_without_responses() {
        let unanswered = Asked { status: None, seconds: 1.0, stages: None };
        let found = result(vec![unanswered], 1.0, &Numbers::new(), &Numbers::new());
        assert_eq!(
            (found.scored, found.broken, found.p50_ms, found.p99_ms, found.most_ms),
            (0, 1, 0.0, 0.0, 0.0)
        );
    }
}
