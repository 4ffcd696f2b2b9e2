//! The reward server of Flow-Factory: one reward, a batch of images in base64.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{Request, State},
};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use utoipa::ToSchema;

use super::batch::{Examined, Head, Item, base64, malformed, numbers};
use crate::api::http::{ApiError, InPath, body, drain};
use crate::api::state::{App, Shared};
use crate::{
    config::{Limits, Protocol},
    scoring::{Metadata, Sample},
};

/// Maximum number of items, and of condition images of an item, that are parsed.
const MOST_ITEMS: usize = 16_384;
const MOST_CONDITIONS: usize = 32;

/// A list of at most so many entries.
#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
struct Few<const MOST: usize, T>(#[serde(deserialize_with = "body::at_most::<MOST, _, _>")] Vec<T>);

/// A batch of Flow-Factory.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct FlowFactoryRequest {
    /// The prompts.
    #[serde(deserialize_with = "body::at_most::<MOST_ITEMS, _, _>")]
    prompt: Vec<String>,
    /// The generated images: files in base64, one for each prompt.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    image: Option<Few<MOST_ITEMS, String>>,
    /// Not supported.
    #[serde(default)]
    #[schema(value_type = Option<Vec<Object>>)]
    video: Option<IgnoredAny>,
    /// For each prompt, the images that the generator was given. They are reference images.
    #[serde(default)]
    #[schema(value_type = Option<Vec<Vec<String>>>)]
    condition_images: Option<Few<MOST_ITEMS, Few<MOST_CONDITIONS, String>>>,
    /// Not supported.
    #[serde(default)]
    #[schema(value_type = Option<Vec<Object>>)]
    condition_videos: Option<IgnoredAny>,
}

/// Rewards of a batch.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FlowFactoryResponse {
    /// A number for each prompt; none if there is an error.
    pub(super) rewards: Vec<f64>,
    /// Why there are no numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

/// Readiness of an adapter.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FlowFactoryHealth {
    /// `"ok"`.
    status: &'static str,
    /// The configured reward.
    reward: String,
}

/// Scores a batch of Flow-Factory.
///
/// The client repeats a request at once at every HTTP error, and does not show its text. So what is
/// wrong with a batch is `error` in a response with status 200.
#[utoipa::path(
    post, path = "/rl/flow-factory/{name}/compute", operation_id = "score_flow_factory",
    tag = "rewards",
    params(("name" = String, Path, description = "Name of the adapter in the configuration")),
    request_body = FlowFactoryRequest,
    responses(
        (status = 200, description = "Scored, or `error` says what is wrong with the batch",
            body = FlowFactoryResponse),
        (status = 404, description = "No adapter of this name is configured"),
        (status = 503, description = "No capacity became free in time; retry after `Retry-After` \
            seconds"),
        (status = 504, description = "The deadline passed before the response was ready"),
    )
)]
pub(crate) async fn compute(
    State(app): Shared,
    name: InPath<String>,
    request: Request,
) -> Result<Json<FlowFactoryResponse>, ApiError> {
    drain::whole(request, |request| answer(&app, name, request)).await.map(Json)
}

/// Reports that an adapter is ready.
#[utoipa::path(
    get, path = "/rl/flow-factory/{name}/health", operation_id = "get_flow_factory_health",
    tag = "rewards",
    params(("name" = String, Path, description = "Name of the adapter in the configuration")),
    responses(
        (status = 200, description = "Ready", body = FlowFactoryHealth),
        (status = 404, description = "No adapter of this name is configured"),
    )
)]
pub(crate) async fn health(
    State(app): Shared,
    name: InPath<String>,
) -> Result<Json<FlowFactoryHealth>, ApiError> {
    let reward = app.adapters.one(Protocol::FlowFactory, name)?.name.clone();
    Ok(Json(FlowFactoryHealth { status: "ok", reward }))
}

async fn answer(
    app: &Arc<App>,
    name: InPath<String>,
    request: Request,
) -> Result<FlowFactoryResponse, ApiError> {
    let reward = app.adapters.one(Protocol::FlowFactory, name)?;
    let head = Head::of(&request, app, Protocol::FlowFactory);
    let samples = head.read(app, request, |bytes, limits| read(&bytes, limits)).await?;
    let columns = head.score(app, std::slice::from_ref(reward), samples).await?;
    let rewards = numbers(columns.into_iter().next().unwrap_or_default())?;
    Ok(FlowFactoryResponse { rewards, error: None })
}

fn read(bytes: &Bytes, limits: &Limits) -> Result<Vec<Result<Sample, ApiError>>, ApiError> {
    let body: FlowFactoryRequest = serde_json::from_slice(bytes).map_err(|error| {
        malformed(format!("the body is not a request of Flow-Factory: {error}"))
    })?;
    if body.video.is_some() || body.condition_videos.is_some() {
        return Err(malformed("the batch has videos: rewards are of images"));
    }
    let images = body.image.ok_or_else(|| malformed("`image` is null: send the images"))?.0;
    let prompts = body.prompt.len();
    let conditions = body.condition_images.map(|all| all.0);
    for (name, count) in
        [("image", Some(images.len())), ("condition_images", conditions.as_ref().map(Vec::len))]
    {
        if let Some(count) = count.filter(|count| *count != prompts) {
            return Err(malformed(format!(
                "`{name}` has {count} entries for {prompts} prompts: send one for each prompt"
            )));
        }
    }
    let mut conditions = conditions.map(Vec::into_iter);
    let mut known = Examined::default();
    let samples = images.into_iter().zip(body.prompt).map(|(image, prompt)| {
        let conditions = conditions.as_mut().and_then(Iterator::next);
        let conditions = conditions.map(|few| few.0).unwrap_or_default();
        let item = Item {
            image: base64(&image),
            prompt: Some(prompt),
            references: conditions.iter().map(|image| base64(image)).collect(),
            metadata: Metadata::default(),
        };
        item.sample(limits, &mut known)
    });
    Ok(samples.collect())
}
