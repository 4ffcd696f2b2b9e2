//! The reward service of cosmos-rl: a batch of raw pixels is enqueued, and each reward is pulled.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use axum::{
    Json,
    body::Bytes,
    extract::{Request, State},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    batch::{Examined, Head, Item, check_count, malformed, numbers},
    jobs::{CosmosInput, RETENTION, Scored, State as JobState},
    npy,
    registry::named,
};
use crate::api::http::{ApiError, body, drain, keys};
use crate::api::rewards::ppm;
use crate::api::state::{App, Shared};
use crate::{
    config::{Limits, Protocol},
    rewards::Reward,
    scoring::{Metadata, Sample},
};

/// Longest line of JSON before the array, in bytes.
const MOST_LINE: usize = 4 << 20;

/// Longest form of a pull or ping, in bytes.
const MOST_FORM: usize = 64 << 10;

/// The first line of a body.
#[derive(Debug, Deserialize)]
struct Line {
    prompts: Vec<String>,
    /// Weights by name. The trainer applies them.
    reward_fn: BTreeMap<String, f64>,
    #[serde(default)]
    media_type: Option<String>,
}

/// An enqueued batch.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CosmosEnqueued {
    /// By which the results are pulled, for 10 minutes.
    uuid: Uuid,
}

/// What a pull names.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes the form in the API document")]
pub(crate) struct CosmosPull {
    /// The `uuid` of the batch.
    uuid: String,
    /// Name of one reward, as configured.
    r#type: String,
}

/// What a ping has.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes the form in the API document")]
pub(crate) struct CosmosPing {
    /// Anything.
    info_data: String,
}

/// One reward of a batch.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CosmosScores {
    /// The numbers in the order of the images, under the name of the reward.
    scores: BTreeMap<String, Vec<f64>>,
    /// The batch.
    input_info: CosmosInput,
    /// Seconds of scoring, with two decimals.
    #[schema(example = "0.35")]
    duration: String,
    /// `0.00`: nothing is decoded.
    #[schema(example = "0.00")]
    decoded_duration: &'static str,
    /// Name of the reward.
    r#type: String,
}

/// A message, of success or of an error.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CosmosMessage {
    /// What happened, and what to do about it.
    pub(super) message: String,
}

/// Enqueues a batch of cosmos-rl.
///
/// The body is a line of JSON (`prompts`, `reward_fn`, `media_type`) and a `.npy` file of uint8
/// `[batch, height, width, 3]`. What can be checked is checked here, since a pull can only say that
/// a result is not there. Results stay in the memory of this instance for 10 minutes.
#[utoipa::path(
    post, path = "/rl/cosmos/api/reward/enqueue", operation_id = "enqueue_cosmos", tag = "rewards",
    request_body(content((Vec<u8> = "application/octet-stream"))),
    responses(
        (status = 200, description = "Accepted", body = CosmosEnqueued),
        (status = 400, description = "The line, the array or a prompt is malformed, or a reward is \
            unknown"),
        (status = 404, description = "No adapter is configured"),
        (status = 422, description = "There are too many images, or a reward belongs to another \
            checkpoint than the pack's"),
        (status = 503, description = "No capacity became free in time; retry after `Retry-After` \
            seconds"),
    )
)]
pub(crate) async fn enqueue(
    State(app): Shared,
    request: Request,
) -> Result<Json<CosmosEnqueued>, ApiError> {
    drain::whole(request, |request| begin(&app, request)).await.map(Json)
}

/// Returns one reward of a batch.
///
/// It may be pulled again, until 10 minutes after the batch was enqueued.
#[utoipa::path(
    post, path = "/rl/cosmos/api/reward/pull", operation_id = "pull_cosmos", tag = "rewards",
    request_body(content((CosmosPull = "application/x-www-form-urlencoded"))),
    responses(
        (status = 200, description = "The scores", body = CosmosScores),
        (status = 400, description = "Not ready yet, not there, or not computable: the message says \
            which"),
        (status = 404, description = "No adapter is configured"),
    )
)]
pub(crate) async fn pull(
    State(app): Shared,
    request: Request,
) -> Result<Json<CosmosScores>, ApiError> {
    app.adapters.all(Protocol::Cosmos)?;
    let owner = keys::caller(&request).map(|caller| caller.id());
    let form = body::form(request, MOST_FORM, &[]).await?;
    let field = |name: &str| form.iter().find(|(each, _)| each == name).map(|(_, value)| value);
    let id = field("uuid").ok_or_else(|| malformed("the form has no `uuid`"))?;
    let reward = field("type").ok_or_else(|| malformed("the form has no `type`"))?;
    let unknown = || {
        malformed(
            "there are no scores for this uuid: they were enqueued elsewhere or more than 10 \
                minutes ago",
        )
    };
    let id = id.parse().map_err(|_| unknown())?;
    let scored = match app.adapters.jobs.state(id, owner) {
        JobState::Unknown => return Err(unknown()),
        JobState::Pending => return Err(malformed("the scores are not ready: pull again")),
        JobState::Ready(outcome) => outcome.map_err(malformed)?,
    };
    let column = scored.columns.get(reward).ok_or_else(|| {
        let known: Vec<_> = scored.columns.keys().map(String::as_str).collect();
        malformed(format!("`type` is not a reward of this batch, which has {}", known.join(", ")))
    })?;
    let numbers = numbers(column.clone())?;
    Ok(Json(CosmosScores {
        scores: BTreeMap::from([(reward.clone(), numbers)]),
        input_info: scored.input.clone(),
        duration: format!("{:.2}", scored.seconds),
        decoded_duration: "0.00",
        r#type: reward.clone(),
    }))
}

/// Answers a ping.
#[utoipa::path(
    post, path = "/rl/cosmos/api/reward/ping", operation_id = "ping_cosmos", tag = "rewards",
    request_body(content((CosmosPing = "application/x-www-form-urlencoded"))),
    responses(
        (status = 200, description = "The adapter is there", body = CosmosMessage),
        (status = 404, description = "No adapter is configured"),
    )
)]
pub(crate) async fn ping(
    State(app): Shared,
    request: Request,
) -> Result<Json<CosmosMessage>, ApiError> {
    app.adapters.all(Protocol::Cosmos)?;
    body::form(request, MOST_FORM, &[]).await?;
    Ok(Json(CosmosMessage { message: "Ping request received".to_owned() }))
}

/// A batch as it is scored.
struct Batch {
    names: Vec<String>,
    samples: Vec<Result<Sample, ApiError>>,
    input: CosmosInput,
}

async fn begin(app: &Arc<App>, request: Request) -> Result<CosmosEnqueued, ApiError> {
    let configured = app.adapters.all(Protocol::Cosmos)?;
    let mut head = Head::of(&request, app, Protocol::Cosmos);
    let most = app.rewards.items;
    let batch = head.read(app, request, move |bytes, limits| read(&bytes, limits, most)).await?;
    let rewards: Vec<Reward> = batch
        .names
        .iter()
        .map(|name| named(configured, name).cloned())
        .collect::<Result<_, _>>()?;
    for reward in &rewards {
        reward.check(app.scoring.pack())?;
    }
    let place = app.adapters.jobs.begin(head.caller.as_ref().map(keys::Caller::id))?;
    let uuid = place.id;
    // The response is sent now. A result is of no use after it would have expired.
    (head.arrived, head.wait) = (Instant::now(), RETENTION);
    let app = Arc::clone(app);
    tokio::spawn(async move {
        let started = Instant::now();
        let scored = head.score(&app, &rewards, batch.samples).await;
        place.fill(match scored {
            Ok(columns) => Ok(Arc::new(Scored {
                columns: batch.names.into_iter().zip(columns).collect(),
                input: batch.input,
                seconds: started.elapsed().as_secs_f64(),
            })),
            Err(error) => Err(error.detail().to_owned()),
        });
    });
    Ok(CosmosEnqueued { uuid })
}

fn read(bytes: &Bytes, limits: &Limits, most: usize) -> Result<Batch, ApiError> {
    let line = bytes.iter().take(MOST_LINE).position(|byte| *byte == b'\n');
    let line = line.ok_or_else(|| malformed("the body does not begin with a line of JSON"))?;
    let request: Line = serde_json::from_slice(&bytes[..line]).map_err(|error| {
        malformed(format!("the first line is not a request of cosmos-rl: {error}"))
    })?;
    if let Some(other) = request.media_type.filter(|kind| kind != "image") {
        let other: String = other.chars().take(80).collect();
        return Err(malformed(format!("media_type is {other:?}: only \"image\" is supported")));
    }
    if request.reward_fn.is_empty() {
        return Err(malformed("`reward_fn` is empty: name at least one reward"));
    }
    let file = &bytes[line + 1..];
    let images = npy::parse(file).map_err(malformed)?;
    check_count(images.count, most)?;
    let prompts = request.prompts.len();
    if prompts != images.count {
        let count = images.count;
        return Err(malformed(format!("there are {prompts} prompts for {count} images")));
    }
    let pixels = &file[images.data.clone()];
    let size = images.height * images.width * 3;
    let mut known = Examined::default();
    let samples = request.prompts.into_iter().zip(pixels.chunks_exact(size)).enumerate();
    let samples = samples.map(|(at, (prompt, pixels))| {
        let item = Item {
            image: Ok(ppm(images.height, images.width, pixels)),
            prompt: Some(prompt),
            references: Vec::new(),
            metadata: Metadata::default(),
        };
        // A pull cannot say that an item is broken.
        let broken = |error: ApiError| malformed(format!("item {at}: {}", error.detail()));
        item.sample(limits, &mut known).map(Ok).map_err(broken)
    });
    let samples = samples.collect::<Result<_, ApiError>>()?;
    let of = |value: Option<&u8>| format!("{}.000", value.copied().unwrap_or_default());
    let input = CosmosInput {
        shape: [images.count, images.height, images.width, 3],
        dtype: "torch.uint8",
        min: of(pixels.iter().min()),
        max: of(pixels.iter().max()),
    };
    Ok(Batch { names: request.reward_fn.into_keys().collect(), samples, input })
}
