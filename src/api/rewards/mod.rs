//! `POST /v1/rewards`: a batch that is scored and not stored, for training.
//!
//! Requests queue where other routes answer 429, since trainers send hundreds at once and stop at
//! an error. Clients take turns item by item (`http/fair.rs`), and items of different clients share
//! the batches of the models.

mod request;
mod tensors;

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use axum::{
    Json,
    extract::{Request, State},
};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use serde::Serialize;
use tokio::sync::Notify;
use tracing::Instrument as _;
use utoipa::ToSchema;

use crate::api::http::{
    ApiError, Code,
    bodies::{HeldMemory, busy, wait_of},
    drain, keys,
};
use crate::api::score::milliseconds;
use crate::api::state::{App, Shared};
use crate::{
    blocking::blocking,
    engine::{Batching, EngineError, InUse},
    label,
    metrics::{Flag, Metric, NullReason},
    pack_id::PackId,
    rewards::{GroupStatistics, Reward, RewardError},
    scoring::{Sample, Scorecard, ScoringError},
    service::{ProbesError, probes},
    telemetry::Bound,
    trace::span,
};
use request::{Batch, Named, RewardsForm, RewardsTensors};
pub(crate) use request::{RewardsRequest, base64, trainer_metadata};
pub(crate) use tensors::ppm;

/// Pause before an item tries again after a full queue of the engine.
const PAUSE: Duration = Duration::from_millis(20);

/// Rewards in columns, in the order of the items.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"rewards": {"pick_score@flow_grpo": [0.83, null]}, "reasons": {"pick_score@flow_grpo": {"1": "no_prompt"}}, "flags": {},
    "errors": {}, "provenance": {"pack": {"name": "official", "digest": "…", "weights": "official"}, "metrics": {"pick_score@flow_grpo": 1},
    "scales": {"pick_score@flow_grpo": "exp(logit_scale) · s / 26"}, "batching": "dynamic"}, "timings": {"read_ms": 2.1, "wait_ms": 0.0, "score_ms": 40.2, "total_ms": 42.9}}))]
pub(crate) struct RewardsResponse {
    /// Every requested reward by name: a number for each item, or null.
    rewards: BTreeMap<String, Vec<Option<f64>>>,
    /// Why rewards are null, by name and position of the item.
    #[schema(value_type = BTreeMap<String, BTreeMap<String, NullReason>>)]
    reasons: BTreeMap<String, BTreeMap<usize, NullReason>>,
    /// Flags that a reader of a number must know, such as `no_face_in_image` beside a 0, by name
    /// and position of the item.
    #[schema(value_type = BTreeMap<String, BTreeMap<String, Vec<Flag>>>)]
    flags: BTreeMap<String, BTreeMap<usize, Vec<Flag>>>,
    /// Items that could not be scored at all, by position. Their rewards are null.
    #[schema(value_type = BTreeMap<String, ItemError>)]
    errors: BTreeMap<usize, ItemError>,
    /// The combination of each item, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    combined: Option<Vec<Option<f64>>>,
    /// Statistics of each group, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<BTreeMap<String, GroupStatistics>>,
    /// Pack and definitions behind the numbers.
    provenance: RewardProvenance,
    /// Time spent on the request.
    timings: RewardTimings,
}

/// Reason why an item could not be scored.
#[derive(Debug, Serialize, ToSchema)]
struct ItemError {
    /// `id` of the item, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// Machine-readable code, one of those of problem documents.
    code: Code,
    /// What is wrong and what to do about it.
    detail: String,
}

/// Pack and definitions behind rewards.
#[derive(Debug, Serialize, ToSchema)]
struct RewardProvenance {
    /// The model pack.
    pack: PackId,
    /// Version of each reward's metric, by name of the reward.
    metrics: BTreeMap<String, u32>,
    /// Formula of each reward with a scale, by name; `s` is the metric's score.
    scales: BTreeMap<String, &'static str>,
    /// Whether the number of images that ran together may change a reward's last bits
    /// (`engine.batching`).
    batching: Batching,
}

/// Milliseconds spent on a request.
#[derive(Debug, Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "the unit belongs to each name")]
struct RewardTimings {
    /// Reading and checking the body.
    read_ms: f64,
    /// Waiting for the first item's turn.
    wait_ms: f64,
    /// Scoring all items.
    score_ms: f64,
    /// The whole request.
    total_ms: f64,
}

/// Scores a batch without storing it.
///
/// The body is JSON with images in base64, a multipart form with the JSON document in `request`, or
/// `application/x-safetensors` with the document in `__metadata__.request` and raw 8-bit pixels in
/// `images`, `references` and `auxiliary`. One broken item is its own error. A request waits for
/// capacity up to `rewards.wait_seconds`, or as long as `Prefer: wait=SECONDS` says.
#[utoipa::path(
    post, path = "/v1/rewards", operation_id = "compute_rewards", tag = "rewards",
    request_body(content(
        (RewardsRequest = "application/json"),
        (RewardsForm = "multipart/form-data"),
        (RewardsTensors = "application/x-safetensors"),
    )),
    responses(
        (status = 200, description = "Scored; nothing was stored", body = RewardsResponse),
        (status = 400, description = "Malformed body"),
        (status = 422, description = "A field is invalid, or a reward does not exist or belongs to \
            another checkpoint than the pack's"),
        (status = 503, description = "No capacity became free in time; retry after `Retry-After` \
            seconds"),
        (status = 504, description = "The deadline passed before the response was ready"),
    )
)]
pub(crate) async fn compute(
    State(app): Shared,
    request: Request,
) -> Result<Json<RewardsResponse>, ApiError> {
    drain::whole(request, |request| answer(&app, request)).await.map(Json)
}

async fn answer(app: &Arc<App>, request: Request) -> Result<RewardsResponse, ApiError> {
    // Before the body is read, which may take long.
    drop(app.scoring.engine().enter()?);
    let started = Instant::now();
    // The body's memory, until the response is ready: images refer to it.
    let memory = request.extensions().get::<HeldMemory>().cloned();
    // The wait for it, before the body was read, counts.
    let arrived = memory.as_ref().map_or(started, HeldMemory::arrived);
    let wait = wait_of(request.headers(), app.rewards.wait());
    let client = keys::client(&request);
    let caller = keys::caller(&request);
    let _memory = memory.clone();
    let batch = Batch::read(request, &app.limits).instrument(span!("read")).await?;
    if let Some(caller) = caller {
        caller.count_images(batch.images());
    }
    let rewards = parse_rewards(app, &batch.request)?;
    let limits = app.limits.clone();
    let work = move || {
        // Also if the client leaves meanwhile.
        let _memory = memory;
        batch.samples(&limits)
    };
    let (asked, names, samples) = blocking(work).await;
    let read = started.elapsed();
    let wait = wait.saturating_sub(arrived.elapsed());
    let (cards, waited) = score(app, &client, &rewards, samples, wait).await?;
    let scored = started.elapsed();
    let mut response = columns(app, &rewards, &asked, &names, cards);
    response.timings = RewardTimings {
        read_ms: milliseconds(read),
        wait_ms: milliseconds(waited),
        score_ms: milliseconds(scored.saturating_sub(read + waited)),
        total_ms: milliseconds(started.elapsed()),
    };
    Ok(response)
}

fn parse_rewards(app: &App, request: &RewardsRequest) -> Result<Vec<Reward>, ApiError> {
    let invalid = |problem: String| Err(ApiError::new(Code::InvalidField, problem));
    if request.rewards.is_empty() || request.items.is_empty() {
        return invalid("`rewards` or `items` is empty: send at least one of each".to_owned());
    }
    let most = app.rewards.items;
    if request.items.len() > most {
        return invalid(format!("there are more than {most} items: send them in several requests"));
    }
    let mut rewards: Vec<Reward> = Vec::new();
    for name in &request.rewards {
        let reward = Reward::parse(name)?;
        reward.check(app.scoring.pack())?;
        if rewards.iter().any(|before| before.name == reward.name) {
            return invalid(format!("the reward `{name}` was sent twice: send it once"));
        }
        rewards.push(reward);
    }
    if let Some(combine) = &request.combine {
        let unknown =
            combine.weights.keys().find(|name| !rewards.iter().any(|reward| reward.name == **name));
        if let Some(unknown) = unknown {
            let unknown: String = unknown.chars().take(80).collect();
            return invalid(format!("combine.weights has `{unknown}`, which is not in `rewards`"));
        }
        if combine.weights.is_empty() {
            return invalid("combine.weights is empty: give a weight to each reward".to_owned());
        }
    }
    let longest = label::MAX_BYTES;
    let is_long = |name: &Option<String>| name.as_ref().is_some_and(|name| name.len() > longest);
    if request.items.iter().any(|item| is_long(&item.group) || is_long(&item.id)) {
        return invalid(format!("a `group` or `id` is longer than {longest} bytes: shorten it"));
    }
    if request.statistics && request.combine.is_none() && rewards.len() > 1 {
        return invalid(
            "statistics are of one number for each item: send `combine`, or a single reward"
                .to_owned(),
        );
    }
    Ok(rewards)
}

impl From<RewardError> for ApiError {
    fn from(error: RewardError) -> Self {
        match error {
            RewardError::Metric(error) => error.into(),
            RewardError::Scale { .. } => Self::new(Code::UnknownMetric, error.to_string()),
            RewardError::Model { .. } => Self::new(Code::InvalidField, error.to_string()),
        }
    }
}

/// Scores samples for these rewards, each in its turn, and returns how long the first one waited:
/// at most `wait`. An error of one sample is its own; the outer one is of all.
pub(crate) async fn score(
    app: &Arc<App>,
    client: &str,
    rewards: &[Reward],
    samples: Vec<Result<Sample, ApiError>>,
    wait: Duration,
) -> Result<(Vec<ItemResult>, Duration), ApiError> {
    let mut metrics: Vec<&'static Metric> = Vec::new();
    for reward in rewards {
        if !metrics.iter().any(|metric| metric.code == reward.metric.code) {
            metrics.push(reward.metric);
        }
    }
    let work = Work { app, client, metrics: &metrics, wait };
    work.score_all(samples).instrument(span!("score")).await
}

/// Returns a reward of a scored sample with its flags, or why there is none.
pub(crate) fn value(reward: &Reward, card: &Scorecard) -> Result<(f64, Vec<Flag>), NullReason> {
    let of_metric = card.scores.iter().find(|score| score.metric.code == reward.metric.code);
    let score = match &of_metric.expect("every requested metric has an outcome").outcome {
        Ok(score) => score,
        Err(reason) => return Err(*reason),
    };
    let value = reward.of(score).ok_or(NullReason::Unavailable)?;
    Ok((value, score.flags.clone()))
}

/// What scoring an item needs.
struct Work<'a> {
    app: &'a Arc<App>,
    client: &'a str,
    metrics: &'a [&'static Metric],
    wait: Duration,
}

/// The scores of an item, or its own error.
pub(crate) type ItemResult = Result<Scorecard, ApiError>;

/// The turn of a request's first item.
#[derive(Default)]
struct Began {
    at: OnceLock<Instant>,
    /// From now on an offload waits for the request.
    loaded: OnceLock<InUse>,
    first: Notify,
}

impl Work<'_> {
    /// Scores all items, and returns how long the first one waited.
    async fn score_all(
        &self,
        samples: Vec<Result<Sample, ApiError>>,
    ) -> Result<(Vec<ItemResult>, Duration), ApiError> {
        let started = Instant::now();
        let began = Began::default();
        let mut cards: Vec<Option<ItemResult>> = samples.iter().map(|_| None).collect();
        let mut running = FuturesUnordered::new();
        for (at, sample) in samples.into_iter().enumerate() {
            let began = &began;
            match sample {
                Ok(sample) => running.push(async move { (at, self.in_turn(sample, began).await) }),
                Err(error) => cards[at] = Some(Err(error)),
            }
        }
        // Only the wait for the first turn is bounded by it: then the request makes progress.
        let mut patience = pin!(tokio::time::sleep(self.wait));
        let mut deadline = pin!(tokio::time::sleep(Duration::MAX));
        loop {
            tokio::select! {
                () = began.first.notified() => {
                    deadline.set(tokio::time::sleep(self.app.rewards.deadline()));
                }
                () = &mut deadline => {
                    let seconds = self.app.rewards.deadline_seconds;
                    let problem = format!("not ready after {seconds} s: send fewer items at once");
                    return Err(ApiError::new(Code::DeadlineExceeded, problem));
                }
                next = running.next() => {
                    let Some((at, result)) = next else { break };
                    cards[at] = Some(result?);
                }
                () = &mut patience, if began.at.get().is_none() => {
                    if began.at.get().is_none() {
                        let turns = &self.app.reward_turns;
                        tracing::info!(waiting = turns.waiting(), "rewards refused after their wait");
                        return Err(busy(self.wait));
                    }
                }
            }
        }
        let waited = began.at.get().map_or(Duration::ZERO, |at| at.duration_since(started));
        let cards = cards.into_iter().map(|card| card.expect("every item was scored")).collect();
        Ok((cards, waited))
    }

    /// Scores one item in its turn. The outer error is one of the whole request.
    async fn in_turn(&self, mut sample: Sample, began: &Began) -> Result<ItemResult, ApiError> {
        let _turn = self.app.reward_turns.take(self.client).await.map_err(|_| {
            ApiError::unavailable("too many items are waiting already; retry after a moment")
                .at(Bound::Rewards)
        })?;
        if began.loaded.get().is_none() {
            drop(began.loaded.set(self.app.scoring.engine().enter()?));
        }
        if began.at.set(Instant::now()).is_ok() {
            began.first.notify_one();
        }
        sample.dataset = match probes(&self.app.store, &self.app.scoring, &sample.metadata).await {
            Ok(dataset) => dataset,
            Err(ProbesError::Store(error)) => return Err(error.into()),
            Err(error) => return Ok(Err(error.into())),
        };
        loop {
            match self.app.scoring.score(&sample, self.metrics).await {
                // Other requests have filled a queue: this one has waited for its turn already.
                Err(ScoringError::Engine { source: EngineError::Overloaded { .. }, .. }) => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error @ ScoringError::Decode { .. }) => {
                    return Ok(Err(error.into()));
                }
                Err(error) => return Err(error.into()),
                Ok(card) => return Ok(Ok(card)),
            }
        }
    }
}

fn columns(
    app: &App,
    rewards: &[Reward],
    request: &RewardsRequest,
    names: &[Named],
    cards: Vec<ItemResult>,
) -> RewardsResponse {
    let mut response = RewardsResponse {
        rewards: BTreeMap::new(),
        reasons: BTreeMap::new(),
        flags: BTreeMap::new(),
        errors: BTreeMap::new(),
        combined: None,
        groups: None,
        provenance: RewardProvenance {
            pack: app.scoring.pack().id(),
            metrics: rewards
                .iter()
                .map(|reward| (reward.name.clone(), reward.metric.version))
                .collect(),
            scales: rewards
                .iter()
                .filter_map(|reward| Some((reward.name.clone(), reward.scale?.formula)))
                .collect(),
            batching: app.scoring.engine().batching(),
        },
        timings: RewardTimings { read_ms: 0.0, wait_ms: 0.0, score_ms: 0.0, total_ms: 0.0 },
    };
    for reward in rewards {
        let mut column = Vec::with_capacity(cards.len());
        let (mut reasons, mut flags) = (BTreeMap::new(), BTreeMap::new());
        for (at, card) in cards.iter().enumerate() {
            column.push(match card.as_ref().map(|card| value(reward, card)) {
                Err(_) => None,
                Ok(Ok((value, of_value))) => {
                    if !of_value.is_empty() {
                        flags.insert(at, of_value);
                    }
                    Some(value)
                }
                Ok(Err(reason)) => {
                    reasons.insert(at, reason);
                    None
                }
            });
        }
        response.rewards.insert(reward.name.clone(), column);
        if !reasons.is_empty() {
            response.reasons.insert(reward.name.clone(), reasons);
        }
        if !flags.is_empty() {
            response.flags.insert(reward.name.clone(), flags);
        }
    }
    if let Some(combine) = &request.combine {
        let of = |at: usize| {
            if cards[at].is_err() {
                return None;
            }
            let of_item = response.rewards.iter().map(|(name, column)| (&**name, column[at]));
            combine.of(&of_item.collect())
        };
        response.combined = Some((0..cards.len()).map(of).collect());
    }
    if request.statistics {
        let single = response.combined.as_ref().or_else(|| response.rewards.values().next());
        let column = single.expect("a request has a reward");
        let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (at, item) in names.iter().enumerate() {
            if let Some(group) = &item.group {
                groups.entry(group).or_default().push(at);
            }
        }
        let statistics = groups.into_iter().map(|(group, items)| {
            let of: Vec<_> = items.iter().map(|at| column[*at]).collect();
            (group.to_owned(), GroupStatistics::of(items, &of))
        });
        response.groups = Some(statistics.collect());
    }
    for (at, card) in cards.into_iter().enumerate() {
        if let Err(error) = card {
            let id = names[at].id.clone();
            let detail = error.detail().to_owned();
            response.errors.insert(at, ItemError { id, code: error.code(), detail });
        }
    }
    response
}
