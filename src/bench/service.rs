//! The service under load: samples a second, how long answers take, and what the engine did meanwhile.

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
use crate::client::{Client, file_part};
use crate::read;
use crate::submission::Item;

/// No answer is waited for longer.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(5);

/// Clients that are refused wait so long.
const AFTER_REFUSAL: Duration = Duration::from_millis(50);

/// In an open loop: requests under way, beyond which arrivals are counted as late and wait.
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
    /// Reads the files of an item of a run's folder.
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

    /// A form in which the image is that of no other request, and the photos are those of `set` alone. Bytes behind the end of a
    /// image change its content and none of its pixels.
    fn form(&self, number: u64, set: u64, options: &LoadOptions) -> Form {
        let image = if options.repeat { self.image.clone() } else { with_number(&self.image, number) };
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

/// How to ask.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Clients of a closed loop: each sends its next sample when it has the answer to the last.
    pub clients: usize,
    /// An open loop instead: samples a second, sent whether or not there are answers.
    pub rate: Option<f64>,
    /// For how long.
    pub duration: Duration,
    /// Metrics, codes separated by commas; all where there are none.
    pub metrics: Option<String>,
    /// Samples that share their photos, one after the other; each further set is new to the service.
    pub prompts_a_photo: u64,
    /// Whether the same samples are sent again and again, so that everything is known.
    pub repeat: bool,
    /// Begins the numbers that make images new, so that a second run does not repeat the first.
    pub seed: u64,
}

/// What a load found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadResult {
    /// Answers with scores.
    pub scored: u64,
    /// Answers with others, by status.
    pub refused: BTreeMap<u16, u64>,
    /// Requests without an answer.
    pub broken: u64,
    /// Seconds from the first request to the last answer.
    pub seconds: f64,
    /// Scored samples a second.
    pub samples_a_second: f64,
    /// Milliseconds to an answer with scores: half were quicker. In an open loop from the time the sample was due.
    pub p50_ms: f64,
    /// All but a twentieth.
    pub p95_ms: f64,
    /// All but a hundredth.
    pub p99_ms: f64,
    /// The slowest.
    pub most_ms: f64,
    /// Where the time of an answer with scores goes, as the service tells: means.
    pub stages: Stages,
    /// Processor seconds of the service for each scored sample, where it tells them.
    pub processor_seconds_a_sample: Option<f64>,
    /// Seconds in graphs for each scored sample.
    pub graph_seconds_a_sample: f64,
    /// By graph, what the engine did meanwhile.
    pub graphs: BTreeMap<String, GraphLoad>,
    /// Memory that the service held at the end, in bytes.
    pub resident_bytes: Option<f64>,
    /// The most memory that it ever held, in bytes.
    pub peak_bytes: Option<f64>,
}

/// Milliseconds of a request by what the service does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Stages {
    /// Receiving and checking the form.
    pub read_ms: f64,
    /// Everything from decoding to the last score.
    pub score_ms: f64,
    /// Recording.
    pub store_ms: f64,
}

impl Stages {
    fn mean(answers: &[Asked]) -> Self {
        let all: Vec<&Self> = answers.iter().filter_map(|answer| answer.stages.as_ref()).collect();
        let mean =
            |of: fn(&Self) -> f64| all.iter().map(|one| of(one)).sum::<f64>() / all.len().max(1) as f64;
        Self {
            read_ms: mean(|of| of.read_ms),
            score_ms: mean(|of| of.score_ms),
            store_ms: mean(|of| of.store_ms),
        }
    }
}

/// What a graph did under a load.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GraphLoad {
    /// Items that ran.
    pub items: f64,
    /// Batches that they ran in.
    pub batches: f64,
    /// Mean items of a batch.
    pub batch: f64,
    /// Mean milliseconds in which an item was prepared.
    pub prepare_ms: f64,
    /// Mean milliseconds in which an item waited for its batch.
    pub queue_ms: f64,
    /// Seconds in the graph.
    pub run_seconds: f64,
    /// These as a share of the time: of a device with one place all graphs' shares add up to how busy it was.
    pub share: f64,
}

/// Why there was no load.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is nothing to send.
    #[error("there are no samples to send: name a folder with images")]
    NoSamples,
    /// The service does not answer.
    #[error("{url} does not answer: {source}")]
    Silent {
        /// What was asked.
        url: Url,
        /// What went wrong.
        source: reqwest::Error,
    },
}

/// Sends samples for a while and says what came of it.
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
        .timeout(ANSWER_TIMEOUT)
        .pool_max_idle_per_host(MOST_AT_ONCE)
        .build()
        .map_err(|source| LoadError::Silent { url: server.url(&[]), source })?;
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

/// What became of a request.
struct Asked {
    /// Of the response, if there was one.
    status: Option<StatusCode>,
    /// Until then.
    seconds: f64,
    stages: Option<Stages>,
}

/// What is read of an answer with scores.
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
    let grown = |name: &str, labels: &str| since(&format!("{name}{{{labels}}}")).unwrap_or_default();
    let mut graphs = BTreeMap::new();
    for key in after.keys() {
        let Some(labels) =
            key.strip_prefix("stellar_engine_batch_size_sum{").and_then(|rest| rest.strip_suffix('}'))
        else {
            continue;
        };
        let items = grown("stellar_engine_batch_size_sum", labels);
        let batches = grown("stellar_engine_batch_size_count", labels);
        if batches == 0.0 {
            continue;
        }
        let of_stage =
            |stage: &str| grown("stellar_engine_stage_seconds_sum", &format!("{labels},stage=\"{stage}\""));
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
        processor_seconds_a_sample: since("process_cpu_seconds_total").map(|seconds| seconds / scored),
        graph_seconds_a_sample: graphs.values().map(|graph| graph.run_seconds).sum::<f64>() / scored,
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

/// Of ascending numbers the least that is not below a share of them; 0 of none.
fn quantile(ascending: &[f64], share: f64) -> f64 {
    let place = (share * ascending.len() as f64).ceil() as usize;
    ascending.get(place.saturating_sub(1)).copied().unwrap_or_default()
}

type Numbers = BTreeMap<String, f64>;

/// The lines of `/metrics`.
async fn numbers(http: &reqwest::Client, url: &Url) -> Result<Numbers, LoadError> {
    let text = async { http.get(url.clone()).send().await?.error_for_status()?.text().await };
    let text = text.await.map_err(|source| LoadError::Silent { url: url.clone(), source })?;
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
    fn answers_are_counted_and_their_times_ranked() {
        let asked = |status, seconds, stages| Asked { status, seconds, stages };
        let answers = (1..=100)
            .map(|at| {
                let stages = Stages { read_ms: 1.0, score_ms: f64::from(at), store_ms: 2.0 };
                asked(Some(StatusCode::OK), f64::from(at) / 1e3, Some(stages))
            })
            .chain([asked(Some(StatusCode::TOO_MANY_REQUESTS), 9.0, None), asked(None, 9.0, None)])
            .collect();
        let before = parse(
            "stellar_engine_batch_size_sum{graph=\"a\"} 10\nstellar_engine_batch_size_count{graph=\"a\"} 5\n\
             stellar_engine_stage_seconds_sum{graph=\"a\",stage=\"run\"} 1\nprocess_cpu_seconds_total 10\n",
        );
        let after = parse(
            "# HELP x y\nstellar_engine_batch_size_sum{graph=\"a\"} 110\nstellar_engine_batch_size_count{graph=\"a\"} 25\n\
             stellar_engine_batch_size_sum{graph=\"idle\"} 0\n\
             stellar_engine_stage_seconds_sum{graph=\"a\",stage=\"run\"} 6\nstellar_resident_memory_bytes 1024\n\
             stellar_engine_stage_seconds_sum{graph=\"a\",stage=\"queue\"} 2\nstellar_peak_memory_bytes 4096\n\
             process_cpu_seconds_total 60\n",
        );
        let found = result(answers, 10.0, &before, &after);
        assert_eq!((found.scored, found.broken, &found.refused), (100, 1, &BTreeMap::from([(429, 1)])));
        assert_eq!((found.p50_ms, found.p95_ms, found.p99_ms, found.most_ms), (50.5, 95.0, 99.0, 100.0));
        assert!((found.samples_a_second - 10.0).abs() < 1e-12);
        assert_eq!(found.stages, Stages { read_ms: 1.0, score_ms: 50.5, store_ms: 2.0 });
        assert_eq!((found.processor_seconds_a_sample, found.graph_seconds_a_sample), (Some(0.5), 0.05));
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
    fn nothing_answered_has_no_times() {
        let unanswered = Asked { status: None, seconds: 1.0, stages: None };
        let found = result(vec![unanswered], 1.0, &Numbers::new(), &Numbers::new());
        assert_eq!(
            (found.scored, found.broken, found.p50_ms, found.p99_ms, found.most_ms),
            (0, 1, 0.0, 0.0, 0.0)
        );
    }
}
