//! Pickles, as `flow_grpo`, `verl-omni` and `deepgen` send and read them.

use std::{collections::HashMap, sync::Arc};

use axum::{
    body::Bytes,
    extract::{Request, State},
    http::header,
    response::{IntoResponse, Response},
};
use stellar_pickle::{Blob, Value};

use super::batch::{Examined, Head, Item, check_count, malformed, numbers};
use crate::api::http::form::check_prompt;
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
    let most = app.rewards.items;
    let samples = head.read(app, request, move |bytes, limits| batch(&bytes, limits, most)).await?;
    let columns = head.score(app, std::slice::from_ref(reward), samples).await?;
    let scores = numbers(columns.into_iter().next().unwrap_or_default())?;
    let body = stellar_pickle::numbers(&NAMES, &scores);
    Ok(([(header::CONTENT_TYPE, KIND)], body).into_response())
}

type Samples = Vec<Result<Sample, ApiError>>;

/// Reads the images and prompts of a pickle: at most so many. It may name one large image or prompt
/// a hundred thousand times, so nothing is copied or hashed before its number is known.
fn batch(body: &Bytes, limits: &Limits, most: usize) -> Result<Samples, ApiError> {
    let pickle = stellar_pickle::read(body).map_err(|error| malformed(error.to_string()))?;
    if pickle.entries().is_none() {
        let found = pickle.type_name();
        return Err(malformed(format!("the pickle has a {found}: send a dict with `images`")));
    }
    let images = pickle.get("images").ok_or_else(|| malformed("the dict has no `images`"))?;
    let (images, sources) = if images.entries().is_some() {
        // deepgen's editreward: images before and after an edit.
        let of = |name: &str| {
            let missing = || malformed(format!("the dict `images` has no list `{name}`"));
            list(images.get(name).ok_or_else(missing)?, &format!("images.{name}"))
        };
        (of("edited")?, Some(of("source")?))
    } else {
        (list(images, "images")?, None)
    };
    check_count(images.len(), most)?;
    let prompts = Prompts::of(pickle.get("prompts"))?;
    for (name, count) in [("prompts", prompts.count()), ("source", sources.map(<[_]>::len))] {
        if let Some(count) = count.filter(|count| *count != images.len()) {
            let wanted = images.len();
            return Err(malformed(format!(
                "`{name}` has {count} entries for {wanted} images: send one for each image"
            )));
        }
    }
    let mut files = Files { body, copies: HashMap::new() };
    let mut known = Examined::default();
    let samples = images.iter().enumerate().map(|(at, image)| {
        let prompt = match prompts.get(at)? {
            None => None,
            Some(text) => match check_prompt(text, limits) {
                Ok(()) => Some(text.to_owned()),
                Err(error) => return Ok(Err(error)),
            },
        };
        let item = Item {
            image: files.file(image),
            prompt,
            references: sources.iter().map(|all| files.file(&all[at])).collect(),
            metadata: Metadata::default(),
        };
        Ok(item.sample(limits, &mut known))
    });
    samples.collect()
}

fn list<'v, 'a>(value: &'v Value<'a>, name: &str) -> Result<&'v [Value<'a>], ApiError> {
    value.items().ok_or_else(|| {
        let found = value.type_name();
        malformed(format!("`{name}` is a {found}: send a list of image files as bytes"))
    })
}

/// Image files of a pickle.
struct Files<'b> {
    body: &'b Bytes,
    /// Files that are not in the body as such, each once, by where they are.
    copies: HashMap<usize, Bytes>,
}

impl Files<'_> {
    /// Returns an image file, which is a part of the body if it can be.
    fn file(&mut self, value: &Value) -> Result<Bytes, String> {
        match value {
            Value::Bytes(Blob::Input(bytes)) => Ok(self.body.slice_ref(bytes)),
            Value::Bytes(Blob::Shared(bytes)) => {
                let place = Arc::as_ptr(bytes) as usize;
                let copy = || Bytes::from(bytes.to_vec());
                Ok(self.copies.entry(place).or_insert_with(copy).clone())
            }
            other => Err(format!("it is a {}: send the file's bytes", other.type_name())),
        }
    }
}

/// The prompts of a pickle.
enum Prompts<'v, 'a> {
    None,
    Texts(&'v [String]),
    List(&'v [Value<'a>]),
}

impl<'v, 'a> Prompts<'v, 'a> {
    fn of(value: Option<&'v Value<'a>>) -> Result<Self, ApiError> {
        match value {
            None | Some(Value::None) => Ok(Self::None),
            Some(Value::Texts(texts)) => Ok(Self::Texts(texts)),
            Some(list) => list.items().map(Self::List).ok_or_else(|| no_text(list, "")),
        }
    }

    fn count(&self) -> Option<usize> {
        match self {
            Self::None => None,
            Self::Texts(texts) => Some(texts.len()),
            Self::List(items) => Some(items.len()),
        }
    }

    /// Returns a prompt; a `None` is an image without one.
    fn get(&self, at: usize) -> Result<Option<&'v str>, ApiError> {
        match self {
            Self::None => Ok(None),
            Self::Texts(texts) => Ok(Some(&texts[at])),
            Self::List(items) => match &items[at] {
                Value::None => Ok(None),
                Value::Text(text) => Ok(Some(*text)),
                other => Err(no_text(other, &format!("[{at}]"))),
            },
        }
    }
}

fn no_text(found: &Value, at: &str) -> ApiError {
    let found = found.type_name();
    malformed(format!("`prompts`{at} is a {found}: send a list of texts"))
}
