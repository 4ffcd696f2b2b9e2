//! Pickles, as `flow_grpo`, `verl-omni` and `deepgen` send and read them.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Request, State},
    http::header,
    response::{IntoResponse, Response},
};
use stellar_pickle::{Blob, Value};

use super::batch::{Head, Item, malformed, numbers};
use crate::api::http::{ApiError, InPath, drain};
use crate::api::state::{App, Shared};
use crate::{
    config::{Limits, Protocol},
    scoring::{Metadata, Sample},
};

/// Names of the list of numbers: `verl-omni` and `deepgen` read the first, `flow_grpo` the second.
const NAMES: [&str; 2] = ["scores", "outputs"];

/// Media type of pickles.
pub(super) const KIND: &str = "application/octet-stream";

/// Scores a pickled batch.
///
/// For the clients of `flow_grpo`, `verl-omni` and `deepgen`. The body is the pickle of a dict with
/// `images` (a list of files) and `prompts`; any media type is accepted, and nothing in it is
/// called. The response is the pickle of `{"scores": [...], "outputs": [...]}` at protocol 3, or of
/// `{"error": text}`. One broken image fails the request.
#[utoipa::path(
    post, path = "/rl/pickle/{name}", operation_id = "score_pickle", tag = "rewards",
    params(("name" = String, Path, description = "Name of the adapter in the configuration")),
    request_body(content((Vec<u8> = "application/octet-stream"))),
    responses(
        (status = 200, description = "Pickled scores, in the order of the images", body = Vec<u8>,
            content_type = "application/octet-stream"),
        (status = 400, description = "The pickle is not read, or an image has no score"),
        (status = 404, description = "No adapter of this name is configured"),
        (status = 422, description = "There are no images or too many, or the reward belongs to \
            another checkpoint than the pack's"),
        (status = 503, description = "No capacity became free in time; retry after `Retry-After` \
            seconds"),
        (status = 504, description = "The deadline passed before the response was ready"),
    )
)]
pub(crate) async fn score(
    State(app): Shared,
    name: InPath<String>,
    request: Request,
) -> Result<Response, ApiError> {
    drain::whole(request, |request| answer(&app, name, request)).await
}

async fn answer(
    app: &Arc<App>,
    name: InPath<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let reward = app.adapters.one(Protocol::Pickle, name)?;
    let head = Head::of(&request, app, Protocol::Pickle);
    let samples = head.read(app, request, |bytes, limits| batch(&bytes, limits)).await?;
    let columns = head.score(app, std::slice::from_ref(reward), samples).await?;
    let scores = numbers(columns.into_iter().next().unwrap_or_default())?;
    let body = stellar_pickle::numbers(&NAMES, &scores);
    Ok(([(header::CONTENT_TYPE, KIND)], body).into_response())
}

type Samples = Vec<Result<Sample, ApiError>>;

/// Reads the images and prompts of a pickle.
fn batch(bytes: &Bytes, limits: &Limits) -> Result<Samples, ApiError> {
    let pickle = stellar_pickle::read(bytes).map_err(|error| malformed(error.to_string()))?;
    if pickle.entries().is_none() {
        let found = pickle.type_name();
        return Err(malformed(format!("the pickle has a {found}: send a dict with `images`")));
    }
    let files = |value: &Value, name: &str| -> Result<Vec<Result<Bytes, String>>, ApiError> {
        let list = value.items().ok_or_else(|| {
            let found = value.type_name();
            malformed(format!("`{name}` is a {found}: send a list of image files as bytes"))
        })?;
        Ok(list.iter().map(|item| file(bytes, item)).collect())
    };
    let images = pickle.get("images").ok_or_else(|| malformed("the dict has no `images`"))?;
    let (images, sources) = if images.entries().is_some() {
        // deepgen's editreward: images before and after an edit.
        let of = |name: &str| {
            let list = images.get(name);
            let missing = || malformed(format!("the dict `images` has no list `{name}`"));
            files(list.ok_or_else(missing)?, &format!("images.{name}"))
        };
        (of("edited")?, Some(of("source")?))
    } else {
        (files(images, "images")?, None)
    };
    let prompts = prompts(pickle.get("prompts"))?;
    for (name, count) in
        [("prompts", prompts.as_ref().map(Vec::len)), ("source", sources.as_ref().map(Vec::len))]
    {
        if let Some(count) = count.filter(|count| *count != images.len()) {
            let wanted = images.len();
            return Err(malformed(format!(
                "`{name}` has {count} entries for {wanted} images: send one for each image"
            )));
        }
    }
    let mut prompts = prompts.map(Vec::into_iter);
    let mut sources = sources.map(Vec::into_iter);
    let samples = images.into_iter().map(|image| {
        let item = Item {
            image,
            prompt: prompts.as_mut().and_then(Iterator::next).flatten(),
            references: sources.as_mut().and_then(Iterator::next).into_iter().collect(),
            metadata: Metadata::default(),
        };
        item.sample(limits)
    });
    Ok(samples.collect())
}

/// Returns an image file, which is a part of the body if it can be.
fn file(body: &Bytes, value: &Value) -> Result<Bytes, String> {
    match value {
        Value::Bytes(Blob::Input(bytes)) => Ok(body.slice_ref(bytes)),
        Value::Bytes(Blob::Shared(bytes)) => Ok(Bytes::from(bytes.to_vec())),
        other => Err(format!("it is a {}: send the file's bytes", other.type_name())),
    }
}

/// Returns the prompts; a `None` among them is an image without a prompt.
fn prompts(value: Option<&Value>) -> Result<Option<Vec<Option<String>>>, ApiError> {
    let refused = |found: &Value, at: &str| {
        let found = found.type_name();
        malformed(format!("`prompts`{at} is a {found}: send a list of texts"))
    };
    match value {
        None | Some(Value::None) => Ok(None),
        Some(Value::Texts(texts)) => Ok(Some(texts.iter().cloned().map(Some).collect())),
        Some(list) => {
            let items = list.items().ok_or_else(|| refused(list, ""))?;
            let texts = items.iter().enumerate().map(|(at, item)| match item {
                Value::None => Ok(None),
                Value::Text(text) => Ok(Some((*text).to_owned())),
                other => Err(refused(other, &format!("[{at}]"))),
            });
            texts.collect::<Result<_, _>>().map(Some)
        }
    }
}
