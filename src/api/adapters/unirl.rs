//! The `RewardService` of `UniRL`: one request for several rewards of each item.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    body::Bytes,
    extract::{Request, State},
};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    batch::{Examined, Head, Item, base64, malformed},
    registry::named,
};
use crate::api::http::{ApiError, Code, body, drain};
use crate::api::rewards::trainer_metadata;
use crate::api::state::{App, Shared};
use crate::{
    config::{Limits, Protocol},
    rewards::Reward,
    scoring::Sample,
};

/// The version of the protocol that requests may name.
const VERSION: &str = "1";

/// Maximum number of items, turns of an item, and rewards that are parsed.
const MOST_ITEMS: usize = 16_384;
const MOST_TURNS: usize = 32;
const MOST_REWARDS: usize = 64;

/// A batch of `UniRL`.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct UniRlScoreRequest {
    /// `"1"`, or absent.
    #[serde(default)]
    protocol_version: Option<String>,
    /// The items.
    #[serde(deserialize_with = "body::at_most::<MOST_ITEMS, _, _>")]
    requests: Vec<UniRlItem>,
}

/// An item with the rewards that it asks for.
#[derive(Debug, Deserialize, ToSchema)]
struct UniRlItem {
    /// Turns with prompt and image. The last image is the generated one; earlier images are
    /// references.
    #[serde(deserialize_with = "body::at_most::<MOST_TURNS, _, _>")]
    history: Vec<UniRlTurn>,
    /// Names of rewards, as configured.
    #[serde(deserialize_with = "body::at_most::<MOST_REWARDS, _, _>")]
    required_rewards: Vec<String>,
    /// Metadata of the sample. Fields that no metric needs are ignored.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    metadata: Option<Box<RawValue>>,
    /// How the trainer identifies the item, in this field and the next ones; repeated in the
    /// response.
    #[serde(default)]
    request_id: Option<String>,
    #[serde(default)]
    sample_id: Option<String>,
    #[serde(default)]
    group_id: Option<String>,
    #[serde(default)]
    source_rank: Option<i64>,
    #[serde(default)]
    policy_version: Option<i64>,
    /// If present, the digest or the name of the loaded pack. Any other is refused.
    #[serde(default)]
    scorer_version: Option<String>,
    #[serde(default)]
    idempotency_key: Option<String>,
}

/// A turn of an item.
#[derive(Debug, Deserialize, ToSchema)]
struct UniRlTurn {
    /// The prompt.
    text: String,
    /// An image file in base64.
    #[serde(default)]
    image_b64: Option<String>,
    /// Not supported: an item with a video has an error.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    video_b64: Option<IgnoredAny>,
    /// Not supported, as `video_b64`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    video_path: Option<IgnoredAny>,
}

/// How the trainer identifies an item, as it was sent.
#[derive(Debug, Serialize, ToSchema)]
struct UniRlIdentity {
    request_id: Option<String>,
    sample_id: Option<String>,
    group_id: Option<String>,
    source_rank: Option<i64>,
    policy_version: Option<i64>,
    scorer_version: Option<String>,
    idempotency_key: Option<String>,
}

/// Rewards of a batch, in the order of the items.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UniRlScoreResponse {
    /// `"1"`.
    protocol_version: &'static str,
    /// For each item, its rewards by name: one number under the same name again. A reward without a
    /// number is not here.
    results: Vec<BTreeMap<String, BTreeMap<String, f64>>>,
    /// For each item, why rewards are missing, by name.
    errors: Vec<BTreeMap<String, String>>,
    /// The identity of each item, if any item has one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    identities: Vec<UniRlIdentity>,
}

/// Readiness of an adapter.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UniRlHealth {
    /// `"ok"`.
    status: &'static str,
    /// State of each reward, by name: `["ready"]`.
    rewards: BTreeMap<String, Vec<&'static str>>,
}

/// Names of the rewards of an adapter.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UniRlRewards {
    /// The names, sorted.
    rewards: Vec<String>,
}

/// Scores a batch of `UniRL`.
///
/// One broken item, or one reward that cannot be computed, is an entry of `errors`.
#[utoipa::path(
    post, path = "/rl/unirl/score", operation_id = "score_unirl", tag = "rewards",
    request_body = UniRlScoreRequest,
    responses(
        (status = 200, description = "Scored", body = UniRlScoreResponse),
        (status = 400, description = "Malformed body, an empty history, or an unknown reward"),
        (status = 404, description = "No adapter is configured"),
        (status = 422, description = "There are too many items, or a reward belongs to another \
            checkpoint than the pack's"),
        (status = 503, description = "No capacity became free in time; retry after `Retry-After` \
            seconds"),
        (status = 504, description = "The deadline passed before the response was ready"),
    )
)]
pub(crate) async fn score(
    State(app): Shared,
    request: Request,
) -> Result<Json<UniRlScoreResponse>, ApiError> {
    drain::whole(request, |request| answer(&app, request)).await.map(Json)
}

/// Reports that an adapter is ready, with its rewards.
#[utoipa::path(
    get, path = "/rl/unirl/health", operation_id = "get_unirl_health", tag = "rewards",
    responses(
        (status = 200, description = "Ready", body = UniRlHealth),
        (status = 404, description = "No adapter is configured"),
    )
)]
pub(crate) async fn health(State(app): Shared) -> Result<Json<UniRlHealth>, ApiError> {
    let rewards = app.adapters.all(Protocol::Unirl)?;
    let rewards = rewards.keys().map(|name| (name.clone(), vec!["ready"])).collect();
    Ok(Json(UniRlHealth { status: "ok", rewards }))
}

/// Lists the rewards of an adapter.
#[utoipa::path(
    get, path = "/rl/unirl/rewards", operation_id = "list_unirl_rewards", tag = "rewards",
    responses(
        (status = 200, description = "The names", body = UniRlRewards),
        (status = 404, description = "No adapter is configured"),
    )
)]
pub(crate) async fn list(State(app): Shared) -> Result<Json<UniRlRewards>, ApiError> {
    let rewards = app.adapters.all(Protocol::Unirl)?.keys().cloned().collect();
    Ok(Json(UniRlRewards { rewards }))
}

/// A batch as it is scored.
struct Batch {
    samples: Vec<Result<Sample, ApiError>>,
    asked: Vec<Vec<String>>,
    identities: Vec<UniRlIdentity>,
}

async fn answer(app: &Arc<App>, request: Request) -> Result<UniRlScoreResponse, ApiError> {
    let configured = app.adapters.all(Protocol::Unirl)?;
    let head = Head::of(&request, app, Protocol::Unirl);
    let batch = head.read(app, request, |bytes, limits| read(&bytes, limits)).await?;
    let mut rewards: Vec<Reward> = Vec::new();
    let mut columns_of: BTreeMap<&str, usize> = BTreeMap::new();
    for name in batch.asked.iter().flatten() {
        let reward = named(configured, name)?;
        columns_of.entry(name).or_insert_with(|| {
            rewards.push(reward.clone());
            rewards.len() - 1
        });
    }
    let pack = app.scoring.pack().id();
    let pinned = batch.identities.iter().filter_map(|it| it.scorer_version.as_deref());
    if let Some(other) = pinned.into_iter().find(|it| *it != pack.digest && *it != pack.name) {
        let other: String = other.chars().take(80).collect();
        return Err(malformed(format!(
            "scorer_version is `{other}`, and the loaded pack is {} ({}): pin one of these, or none",
            pack.digest, pack.name
        )));
    }
    let mut response = UniRlScoreResponse {
        protocol_version: VERSION,
        results: vec![BTreeMap::new(); batch.samples.len()],
        errors: vec![BTreeMap::new(); batch.samples.len()],
        identities: Vec::new(),
    };
    if batch.identities.iter().any(|identity| identity.request_id.is_some()) {
        response.identities = batch.identities;
    }
    if batch.samples.is_empty() {
        return Ok(response);
    }
    let columns = head.score(app, &rewards, batch.samples).await?;
    for (at, asked) in batch.asked.iter().enumerate() {
        for name in asked {
            match &columns[columns_of[name.as_str()]][at] {
                Ok(value) => {
                    let named = BTreeMap::from([(name.clone(), *value)]);
                    response.results[at].insert(name.clone(), named);
                }
                Err(problem) => {
                    response.errors[at].insert(name.clone(), problem.clone());
                }
            }
        }
    }
    Ok(response)
}

fn read(bytes: &Bytes, limits: &Limits) -> Result<Batch, ApiError> {
    let body: UniRlScoreRequest = serde_json::from_slice(bytes)
        .map_err(|error| malformed(format!("the body is not a request of UniRL: {error}")))?;
    if body.protocol_version.as_ref().is_some_and(|version| version != VERSION) {
        let problem = format!("protocol_version is not \"{VERSION}\", the only one that is served");
        return Err(malformed(problem));
    }
    let mut batch = Batch { samples: Vec::new(), asked: Vec::new(), identities: Vec::new() };
    let mut known = Examined::default();
    for (at, item) in body.requests.into_iter().enumerate() {
        if item.history.is_empty() {
            return Err(malformed(format!("requests[{at}].history is empty: send a turn")));
        }
        batch.samples.push(sample(item.history, item.metadata.as_deref(), limits, &mut known));
        batch.asked.push(item.required_rewards);
        batch.identities.push(UniRlIdentity {
            request_id: item.request_id,
            sample_id: item.sample_id,
            group_id: item.group_id,
            source_rank: item.source_rank,
            policy_version: item.policy_version,
            scorer_version: item.scorer_version,
            idempotency_key: item.idempotency_key,
        });
    }
    Ok(batch)
}

fn sample(
    history: Vec<UniRlTurn>,
    metadata: Option<&RawValue>,
    limits: &Limits,
    known: &mut Examined,
) -> Result<Sample, ApiError> {
    if history.iter().any(|turn| turn.video_b64.is_some() || turn.video_path.is_some()) {
        let problem = "it has a video: rewards are of images";
        return Err(ApiError::new(Code::InvalidField, problem));
    }
    let prompt = history.last().map(|turn| turn.text.clone());
    let mut images: Vec<Option<String>> = history.into_iter().map(|turn| turn.image_b64).collect();
    let Some(image) = images.pop().flatten() else {
        let problem = "its last turn has no image_b64, which is the generated image";
        return Err(ApiError::new(Code::MissingField, problem));
    };
    let item = Item {
        image: base64(&image),
        prompt,
        references: images.into_iter().flatten().map(|image| base64(&image)).collect(),
        metadata: trainer_metadata(metadata, limits)?,
    };
    item.sample(limits, known)
}
