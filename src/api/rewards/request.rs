//! Reads a request for rewards in its three forms: JSON with base64, a multipart form, and
//! safetensors with raw pixels.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use axum::{body::Bytes, extract::Request, http::header};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::tensors::Tensors;
use crate::api::http::form::{self, check_prompt, examine, sample_metadata};
use crate::api::http::multipart::{malformed, multipart};
use crate::api::http::{ApiError, Code, body};
use crate::{
    blocking::blocking,
    config::Limits,
    rewards::Combination,
    scoring::{EncodedImage, Metadata, Sample},
};

/// Maximum number of rewards in a request.
const MOST_REWARDS: usize = 64;

/// Maximum number of items that are parsed. `rewards.items` may allow fewer.
const MOST_ITEMS: usize = 65_536;

/// Maximum number of images of one kind that are parsed. `limits` may allow fewer.
const MOST_IMAGES: usize = 1_024;

/// Media type of requests with raw pixels.
const SAFETENSORS: &str = "application/x-safetensors";

/// A batch of images to be rewarded.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"rewards": ["pick_score@flow_grpo", "ips"], "items": [
    {"image": "iVBORw0KGgo…", "prompt": "a person riding a horse", "references": ["/9j/4AAQ…"], "group": "g1"}],
    "combine": {"weights": {"pick_score@flow_grpo": 1.0, "ips": 0.5}, "on_null": "skip"}, "statistics": true}))]
pub(crate) struct RewardsRequest {
    /// `metric` or `metric@scale`, 1 to 64 of them.
    #[serde(deserialize_with = "body::at_most::<MOST_REWARDS, _, _>")]
    #[schema(example = json!(["pick_score@flow_grpo"]))]
    pub(super) rewards: Vec<String>,
    /// The items.
    #[serde(deserialize_with = "body::at_most::<MOST_ITEMS, _, _>")]
    pub(super) items: Vec<Item>,
    /// A weighted sum of the rewards.
    #[serde(default)]
    pub(super) combine: Option<Combination>,
    /// If true, statistics of each group: of the combination, or else of the only reward.
    #[serde(default)]
    pub(super) statistics: bool,
}

/// The form of `POST /v1/rewards`. Each image is a further part, under the name by which an item of
/// the document calls it: `{"part": "photo"}`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents the form, which is read part by part within limits")]
pub(super) struct RewardsForm {
    /// The batch, as JSON.
    request: RewardsRequest,
}

/// A safetensors file: the batch as JSON in `__metadata__.request`, and 8-bit pixels in tensors
/// `images`, `references` and `auxiliary` of shape `[N, H, W, 3]`, or `images.0` of `[H, W, 3]`.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "documents the body, which is read within limits")]
pub(super) struct RewardsTensors(Vec<u8>);

/// A generated image with what it is judged by.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Item {
    /// The generated image.
    image: ImageSource,
    /// The prompt that it was generated from.
    #[serde(default)]
    prompt: Option<String>,
    /// Reference images of the person.
    #[serde(default, deserialize_with = "body::at_most::<MOST_IMAGES, _, _>")]
    references: Vec<ImageSource>,
    /// Further images of the person.
    #[serde(default, deserialize_with = "body::at_most::<MOST_IMAGES, _, _>")]
    auxiliary: Vec<ImageSource>,
    /// Metadata as of a sample, or that of `GenEval`, whose `include` names the objects.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    metadata: Option<Box<RawValue>>,
    /// Group of the item: those of one prompt.
    #[serde(default)]
    pub(super) group: Option<String>,
    /// Any name; it is repeated in errors.
    #[serde(default)]
    pub(super) id: Option<String>,
}

/// Where an image is.
#[derive(Debug, ToSchema)]
#[serde(untagged)]
pub(crate) enum ImageSource {
    /// The file in base64; a `data:` prefix and line breaks are allowed.
    Base64(String),
    /// In a body of safetensors: index into `images`, `references` or `auxiliary`.
    Tensor {
        /// Index in the first dimension, or in the tensor's name (`images.0`).
        tensor: usize,
    },
    /// In a multipart form: name of the part with the file.
    Part {
        /// Name of the part.
        part: String,
    },
}

impl<'de> Deserialize<'de> for ImageSource {
    /// Reads a text, or an object with one of the two names. Nothing else is kept while it is read.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Source;

        impl<'de> Visitor<'de> for Source {
            type Value = ImageSource;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a file in base64, {\"tensor\": INDEX} or {\"part\": NAME}")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ImageSource, E> {
                Ok(ImageSource::Base64(text.to_owned()))
            }

            fn visit_string<E: serde::de::Error>(self, text: String) -> Result<ImageSource, E> {
                Ok(ImageSource::Base64(text))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ImageSource, A::Error> {
                let name = map.next_key::<String>()?;
                let source = match name.as_deref() {
                    Some("tensor") => ImageSource::Tensor { tensor: map.next_value()? },
                    Some("part") => ImageSource::Part { part: map.next_value()? },
                    _ => return Err(A::Error::custom("an image has a `tensor` or a `part`")),
                };
                if map.next_key::<IgnoredAny>()?.is_some() {
                    return Err(A::Error::custom("an image has one source"));
                }
                Ok(source)
            }
        }

        deserializer.deserialize_any(Source)
    }
}

/// A request and the images that came beside it.
pub(super) struct Batch {
    pub(super) request: RewardsRequest,
    files: Files,
}

enum Files {
    None,
    Parts(HashMap<String, Bytes>),
    Tensors(Tensors),
}

impl Batch {
    /// Reads a request's body.
    pub(super) async fn read(request: Request, limits: &Limits) -> Result<Self, ApiError> {
        let media_type = request.headers().get(header::CONTENT_TYPE);
        let media_type = media_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_lowercase();
        match media_type.as_str() {
            "application/json" => {
                let request = body::json(request, limits.request_bytes()).await?;
                Ok(Self { request, files: Files::None })
            }
            "multipart/form-data" => read_parts(request, limits).await,
            SAFETENSORS => {
                let bytes = body::bytes(request, limits.request_bytes(), SAFETENSORS, "-H").await?;
                blocking(move || {
                    let (tensors, text) = Tensors::parse(bytes)?;
                    Ok(Self { request: parse(&text)?, files: Files::Tensors(tensors) })
                })
                .await
            }
            _ => Err(ApiError::new(
                Code::UnsupportedMediaType,
                "the body is none of application/json, multipart/form-data and \
                    application/x-safetensors: send one of them with its Content-Type",
            )),
        }
    }

    /// Returns the number of images that the items name.
    pub(super) fn images(&self) -> usize {
        let of = |item: &Item| 1 + item.references.len() + item.auxiliary.len();
        self.request.items.iter().map(of).sum()
    }

    /// Returns the request without its items, their names, and their samples or what is wrong with
    /// them. This decodes and copies, and gives the texts of images back as it goes.
    pub(super) fn samples(
        mut self,
        limits: &Limits,
    ) -> (RewardsRequest, Vec<Named>, Vec<Result<Sample, ApiError>>) {
        let items = std::mem::take(&mut self.request.items);
        let mut images = Images { files: self.files, limits, known: HashMap::new() };
        let mut names = Vec::with_capacity(items.len());
        let samples = items
            .into_iter()
            .map(|mut item| {
                names.push(Named { group: item.group.take(), id: item.id.take() });
                images.sample(item)
            })
            .collect();
        (self.request, names, samples)
    }
}

/// How a request names an item.
pub(super) struct Named {
    pub(super) group: Option<String>,
    pub(super) id: Option<String>,
}

/// The images of a request. One that several items name is read once.
struct Images<'a> {
    files: Files,
    limits: &'a Limits,
    known: HashMap<String, EncodedImage>,
}

impl Images<'_> {
    fn sample(&mut self, item: Item) -> Result<Sample, ApiError> {
        if let Some(prompt) = &item.prompt {
            check_prompt(prompt, self.limits)?;
        }
        let metadata = item
            .metadata
            .as_ref()
            .map_or(Ok(Metadata::default()), |metadata| item_metadata(metadata, self.limits))?;
        let Limits { references, auxiliary, .. } = *self.limits;
        Ok(Sample {
            image: self.image(item.image, "images", "image")?,
            prompt: item.prompt,
            references: self.several(item.references, "references", "reference", references)?,
            auxiliary: self.several(item.auxiliary, "auxiliary", "auxiliary", auxiliary)?,
            metadata,
            dataset: None,
        })
    }

    fn several(
        &mut self,
        sources: Vec<ImageSource>,
        field: &str,
        name: &str,
        most: usize,
    ) -> Result<Vec<EncodedImage>, ApiError> {
        if sources.len() > most {
            let problem = format!("there are more than {most} images in `{field}`: send fewer");
            return Err(ApiError::new(Code::RepeatedField, problem));
        }
        let sources = sources.into_iter().enumerate();
        sources.map(|(at, source)| self.image(source, field, &format!("{name}[{at}]"))).collect()
    }

    fn image(
        &mut self,
        source: ImageSource,
        tensors: &str,
        name: &str,
    ) -> Result<EncodedImage, ApiError> {
        let invalid = |why: &str| Err(ApiError::new(Code::InvalidField, format!("{name}: {why}")));
        let key = match &source {
            ImageSource::Base64(_) => None,
            ImageSource::Tensor { tensor } => Some(format!("{tensors}.{tensor}")),
            ImageSource::Part { part } => Some(part.clone()),
        };
        if let Some(known) = key.as_ref().and_then(|key| self.known.get(key)) {
            return Ok(known.clone());
        }
        let file = match (source, &self.files) {
            (ImageSource::Base64(text), _) => match base64(&text) {
                Some(bytes) => bytes.into(),
                None => return invalid("it is not base64: send the file's bytes in base64"),
            },
            (ImageSource::Tensor { tensor }, Files::Tensors(all)) => {
                all.image(tensors, tensor).map_err(|error| error.within(name))?
            }
            (ImageSource::Part { part }, Files::Parts(parts)) => match parts.get(&part) {
                Some(bytes) => bytes.clone(),
                None => return invalid("the form has no part of that name"),
            },
            (ImageSource::Tensor { .. }, _) => {
                return invalid("it refers to a tensor, and the body is not safetensors");
            }
            (ImageSource::Part { .. }, _) => {
                return invalid("it refers to a part, and the body is not a multipart form");
            }
        };
        let image = examine(file, name, self.limits)?;
        if let Some(key) = key {
            self.known.insert(key, image.clone());
        }
        Ok(image)
    }
}

async fn read_parts(request: Request, limits: &Limits) -> Result<Batch, ApiError> {
    let mut form = multipart(request, limits).await?;
    let (mut text, mut parts) = (None, HashMap::new());
    while let Some(field) = form.next_field().await.map_err(malformed)? {
        let Some(name) = field.name().map(str::to_owned) else {
            return Err(ApiError::new(Code::MalformedRequest, "a part of the form has no name"));
        };
        if name == "request" {
            let found = form::text(field, &name, limits.request_bytes()).await?;
            form::once(&mut text, &name, found)?;
        } else {
            let of = form::read_image(field, &name, limits).await?;
            if parts.insert(name, of).is_some() {
                let problem = "two parts of the form have one name: give each its own";
                return Err(ApiError::new(Code::RepeatedField, problem));
            }
        }
    }
    let text = text.ok_or_else(|| {
        let problem = "the part `request` with the JSON document is missing";
        ApiError::new(Code::MissingField, problem)
    })?;
    let request = blocking(move || parse(&text)).await?;
    Ok(Batch { request, files: Files::Parts(parts) })
}

fn parse(text: &str) -> Result<RewardsRequest, ApiError> {
    serde_json::from_str(text).map_err(|error| {
        let problem = format!("the request is not the expected JSON object: {error}");
        ApiError::new(Code::InvalidField, problem)
    })
}

/// Decodes base64 with an optional `data:` prefix and line breaks.
pub(crate) fn base64(text: &str) -> Option<Vec<u8>> {
    let text = match text.strip_prefix("data:") {
        Some(rest) => rest.split_once(',')?.1,
        None => text,
    };
    if text.bytes().any(|byte| byte.is_ascii_whitespace()) {
        let plain: String = text.split_ascii_whitespace().collect();
        return STANDARD.decode(plain).ok();
    }
    STANDARD.decode(text).ok()
}

/// An object that `GenEval`'s metadata asks for. Number, colour and position have no counterpart.
#[derive(Deserialize)]
struct Included {
    class: String,
}

/// Fields of a sample's metadata, which `GenEval`'s does not have.
const OURS: [&str; 7] =
    ["attributes", "detectables", "relations", "categories", "dataset", "identity", "prompt_kind"];

fn check_length(metadata: &RawValue, limits: &Limits) -> Result<(), ApiError> {
    let most = limits.metadata_bytes;
    if metadata.get().len() > most {
        let problem = format!("`metadata` is longer than {most} bytes: shorten it");
        return Err(ApiError::new(Code::InvalidField, problem));
    }
    Ok(())
}

/// Fields of a trainer's metadata that metrics need. Others are the trainer's own.
const OF_TRAINERS: [&str; 6] =
    ["include", "attributes", "detectables", "relations", "dataset", "identity"];

/// Reads what metrics need of the metadata that a trainer's client sends.
pub(crate) fn trainer_metadata(
    metadata: Option<&RawValue>,
    limits: &Limits,
) -> Result<Metadata, ApiError> {
    let Some(metadata) = metadata else { return Ok(Metadata::default()) };
    check_length(metadata, limits)?;
    let Ok(serde_json::Value::Object(mut known)) = serde_json::from_str(metadata.get()) else {
        return Ok(Metadata::default());
    };
    known.retain(|name, _| OF_TRAINERS.contains(&name.as_str()));
    let known = RawValue::from_string(serde_json::Value::Object(known).to_string());
    item_metadata(&known.expect("a JSON value is written as JSON"), limits)
}

/// Reads the metadata of a sample, or of `GenEval`, which has a list `include`.
fn item_metadata(metadata: &RawValue, limits: &Limits) -> Result<Metadata, ApiError> {
    check_length(metadata, limits)?;
    let text = metadata.get();
    let fields: serde_json::Value = serde_json::from_str(text).map_err(|error| {
        ApiError::new(Code::InvalidField, format!("`metadata` is not JSON: {error}"))
    })?;
    let text = match fields.get("include") {
        None => text.to_owned(),
        Some(include) => {
            if let Some(own) = OURS.into_iter().find(|name| fields.get(name).is_some()) {
                let problem = format!(
                    "metadata has `include` of GenEval and our `{own}`: send one or the other"
                );
                return Err(ApiError::new(Code::InvalidField, problem));
            }
            let included: Vec<Included> =
                serde_json::from_value(include.clone()).map_err(|error| {
                    let problem = format!("metadata.include is not that of GenEval: {error}");
                    ApiError::new(Code::InvalidField, problem)
                })?;
            let mut seen = HashSet::new();
            let classes = included.into_iter().map(|each| each.class);
            let detectables: Vec<_> = classes.filter(|class| seen.insert(class.clone())).collect();
            serde_json::json!({ "detectables": detectables }).to_string()
        }
    };
    sample_metadata(&text, limits.detectables)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn base64_may_have_a_prefix_and_line_breaks() {
        for text in ["aGVsbG8=", "data:image/png;base64,aGVsbG8=", "aGVs\nbG8=\r\n"] {
            assert_eq!(base64(text).as_deref(), Some(&b"hello"[..]), "{text:?}");
        }
        assert_eq!(base64("a&b"), None);
        assert_eq!(base64("data:nothing"), None);
    }

    #[test]
    fn metadata_of_geneval_names_objects() {
        let limits = Config::load(None).unwrap().limits;
        let geneval = serde_json::json!({
            "tag": "counting", "include": [{"class": "bench", "count": 2}, {"class": "dog"}, {"class": "bench"}],
            "prompt": "a photo of two benches"
        });
        let read = |of: &serde_json::Value| {
            item_metadata(&RawValue::from_string(of.to_string()).unwrap(), &limits)
        };
        let metadata = read(&geneval).unwrap();
        assert_eq!(metadata.detectables, ["bench", "dog"]);
        let ours = serde_json::json!({"detectables": ["horse"]});
        assert_eq!(read(&ours).unwrap().detectables, ["horse"]);
        assert!(read(&serde_json::json!({"include": 3})).is_err());
        assert!(read(&serde_json::json!({"unknown": 3})).is_err());
        assert!(read(&serde_json::json!({"include": [], "dataset": "x"})).is_err());
    }
}
