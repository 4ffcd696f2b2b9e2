//! The multipart form of a sample: reads it within limits, with precise errors.

mod page;

use axum::extract::{Request, multipart::Field};
use bytes::{Bytes, BytesMut};
use tracing::Instrument as _;

use super::error::{ApiError, Code};
use super::keys;
pub(crate) use super::multipart::{malformed, multipart};
use crate::{
    config::Limits,
    content::ContentHash,
    label,
    metrics::{self, Metric, REGISTRY},
    scoring::{EncodedImage, Metadata, Sample},
    trace::span,
    vision,
};

/// Maximum length of a small field, in bytes.
const NAME_BYTES: usize = label::MAX_BYTES;

/// A sample to be scored at once, and options.
#[derive(Debug)]
pub(crate) struct Form {
    pub(crate) sample: Sample,
    pub(crate) metrics: Vec<&'static Metric>,
    pub(crate) method: Option<String>,
    pub(crate) run: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) evidence: bool,
}

/// A sample to be scored later.
#[derive(Debug)]
pub(crate) struct RunSample {
    pub(crate) image: EncodedImage,
    pub(crate) prompt: Option<String>,
    pub(crate) references: Vec<Photo>,
    pub(crate) auxiliary: Vec<Photo>,
    pub(crate) metadata: Metadata,
}

/// A reference or auxiliary image: a file, or the hash of an image that the run already has.
#[derive(Debug)]
pub(crate) enum Photo {
    Sent(EncodedImage),
    Known(ContentHash),
}

impl Photo {
    pub(crate) fn hash(&self) -> ContentHash {
        match self {
            Self::Sent(image) => image.hash,
            Self::Known(hash) => *hash,
        }
    }

    /// Returns the hash of an image that was not sent as a file.
    pub(crate) fn kept(&self) -> Option<ContentHash> {
        match self {
            Self::Sent(_) => None,
            Self::Known(hash) => Some(*hash),
        }
    }
}

impl RunSample {
    /// Reads the request's body.
    pub(crate) async fn read(request: Request, limits: &Limits) -> Result<Self, ApiError> {
        let fields = Fields::read_all(request, limits, Kind::RunSample).instrument(span!("read"));
        fields.await?.into_run_sample(limits)
    }

    /// Returns the images that were sent as files.
    pub(crate) fn files(&self) -> impl Iterator<Item = &EncodedImage> {
        let photos =
            self.references.iter().chain(&self.auxiliary).filter_map(|photo| match photo {
                Photo::Sent(file) => Some(file),
                Photo::Known(_) => None,
            });
        std::iter::once(&self.image).chain(photos)
    }
}

/// The form to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The sample is scored at once.
    Score,
    /// The same, from the form of a page: browsers send every field, also empty ones.
    Page,
    /// The sample is accepted and scored later.
    RunSample,
}

impl Kind {
    fn fields(self) -> &'static str {
        match self {
            Self::Score => {
                "image, prompt, reference, auxiliary, metadata, metrics, method, run, name and \
                    evidence"
            }
            Self::RunSample => {
                "image, prompt, reference, reference_hash, auxiliary, auxiliary_hash and metadata"
            }
            Self::Page => {
                "image, prompt, reference, auxiliary, detectables, metadata, method, run and name"
            }
        }
    }
}

/// A reference or auxiliary image as it arrives.
enum SentPhoto {
    File(Bytes),
    Hash(ContentHash),
}

/// The fields as they arrive.
#[derive(Default)]
struct Fields {
    image: Option<Bytes>,
    prompt: Option<String>,
    references: Vec<SentPhoto>,
    auxiliary: Vec<SentPhoto>,
    metadata: Option<Metadata>,
    metrics: Option<Vec<&'static Metric>>,
    method: Option<String>,
    run: Option<String>,
    name: Option<String>,
    evidence: Option<bool>,
    /// Objects to add to the metadata.
    detectables: Vec<String>,
}

impl Form {
    /// Reads the request's body.
    pub(crate) async fn read(request: Request, limits: &Limits) -> Result<Self, ApiError> {
        let fields = Fields::read_all(request, limits, Kind::Score).instrument(span!("read"));
        fields.await?.into_form(limits)
    }

    /// Reads the body of a page's form: empty fields count as absent.
    pub(crate) async fn read_page(request: Request, limits: &Limits) -> Result<Self, ApiError> {
        let fields = Fields::read_all(request, limits, Kind::Page).instrument(span!("read"));
        fields.await?.into_form(limits)
    }
}

impl Fields {
    async fn read_all(request: Request, limits: &Limits, kind: Kind) -> Result<Self, ApiError> {
        let caller = keys::caller(&request);
        let mut multipart = multipart(request, limits).await?;
        let mut fields = Self::default();
        let read = async {
            while let Some(field) = multipart.next_field().await.map_err(malformed)? {
                fields.read(field, limits, kind).await?;
            }
            Ok(())
        };
        let read = read.await;
        // Also those of a form that is refused afterwards.
        if let Some(caller) = caller {
            caller.count_images(fields.images());
        }
        read.map(|()| fields)
    }

    /// Returns the number of images that were sent as files.
    fn images(&self) -> usize {
        let photos = self.references.iter().chain(&self.auxiliary);
        let files = photos.filter(|photo| matches!(photo, SentPhoto::File(_))).count();
        files + usize::from(self.image.is_some())
    }

    async fn read(
        &mut self,
        field: Field<'_>,
        limits: &Limits,
        kind: Kind,
    ) -> Result<(), ApiError> {
        let Some(name) = field.name().map(str::to_owned) else {
            return Err(ApiError::new(Code::MalformedRequest, "a part of the form has no name"));
        };
        let (score, run_sample) = (kind != Kind::RunSample, kind == Kind::RunSample);
        // Browsers and axios append `[]` to the name of a field that may be repeated.
        let name = match name.strip_suffix("[]") {
            Some(field @ ("reference" | "auxiliary" | "reference_hash" | "auxiliary_hash")) => {
                field.to_owned()
            }
            _ => name,
        };
        if kind == Kind::Page {
            return self.read_filled(field, &name, limits).await;
        }
        match name.as_str() {
            "image" => once(&mut self.image, &name, read_image(field, &name, limits).await?),
            "reference" => {
                several(&mut self.references, field, &name, limits.references, limits).await
            }
            "auxiliary" => {
                several(&mut self.auxiliary, field, &name, limits.auxiliary, limits).await
            }
            "reference_hash" if run_sample => {
                photo_hash(&mut self.references, field, &name, limits.references).await
            }
            "auxiliary_hash" if run_sample => {
                photo_hash(&mut self.auxiliary, field, &name, limits.auxiliary).await
            }
            "prompt" => once(&mut self.prompt, &name, prompt(field, limits).await?),
            "metadata" => {
                let text = text(field, &name, limits.metadata_bytes).await?;
                once(&mut self.metadata, &name, sample_metadata(&text, limits.detectables)?)
            }
            "metrics" if score => {
                let chosen = metrics::parse_list(&text(field, &name, NAME_BYTES * 4).await?)?;
                once(&mut self.metrics, &name, chosen)
            }
            "method" if score => once(&mut self.method, &name, label(field, &name).await?),
            "run" if score => once(&mut self.run, &name, label(field, &name).await?),
            "name" if score => once(&mut self.name, &name, label(field, &name).await?),
            "evidence" if score => {
                let value = match text(field, &name, NAME_BYTES).await?.as_str() {
                    "true" => true,
                    "false" => false,
                    other => {
                        return Err(ApiError::new(
                            Code::InvalidField,
                            format!("evidence is `{other}`: send true or false"),
                        ));
                    }
                };
                once(&mut self.evidence, &name, value)
            }
            _ => Err(unknown_field(&name, kind)),
        }
    }

    fn into_run_sample(self, limits: &Limits) -> Result<RunSample, ApiError> {
        Ok(RunSample {
            image: examine(required(self.image)?, "image", limits)?,
            prompt: self.prompt,
            references: examine_all(self.references, "reference", limits)?,
            auxiliary: examine_all(self.auxiliary, "auxiliary", limits)?,
            metadata: self.metadata.unwrap_or_default(),
        })
    }

    fn into_form(self, limits: &Limits) -> Result<Form, ApiError> {
        let image = required(self.image)?;
        if self.run.is_some() && self.method.is_none() {
            return Err(ApiError::new(
                Code::MissingField,
                "a run belongs to a method: send the field `method` too",
            ));
        }
        let mut metadata = self.metadata.unwrap_or_default();
        if !self.detectables.is_empty() {
            metadata.detectables.extend(self.detectables);
            metadata = clean_metadata(metadata, limits.detectables)?;
        }
        let several = |files: Vec<SentPhoto>, name: &str| {
            let photos = examine_all(files, name, limits)?;
            let sent = photos.into_iter().filter_map(|photo| match photo {
                Photo::Sent(file) => Some(file),
                Photo::Known(_) => None,
            });
            Ok::<Vec<_>, ApiError>(sent.collect())
        };
        Ok(Form {
            sample: Sample {
                image: examine(image, "image", limits)?,
                prompt: self.prompt,
                references: several(self.references, "reference")?,
                auxiliary: several(self.auxiliary, "auxiliary")?,
                metadata,
                dataset: None,
            },
            metrics: self.metrics.unwrap_or_else(|| REGISTRY.iter().collect()),
            method: self.method,
            run: self.run,
            name: self.name,
            evidence: self.evidence.unwrap_or(false),
        })
    }
}

fn unknown_field(name: &str, kind: Kind) -> ApiError {
    let name: String = name.chars().take(80).collect();
    let problem = format!("unknown field `{name}`: the fields are {}", kind.fields());
    ApiError::new(Code::UnknownField, problem)
}

fn required(image: Option<Bytes>) -> Result<Bytes, ApiError> {
    image.ok_or_else(|| {
        ApiError::new(
            Code::MissingField,
            "the field `image` with the file of the generated image is missing",
        )
    })
}

fn examine_all(
    photos: Vec<SentPhoto>,
    name: &str,
    limits: &Limits,
) -> Result<Vec<Photo>, ApiError> {
    let examined = photos.into_iter().enumerate().map(|(index, photo)| match photo {
        SentPhoto::File(file) => {
            examine(file, &format!("{name}[{index}]"), limits).map(Photo::Sent)
        }
        SentPhoto::Hash(hash) => Ok(Photo::Known(hash)),
    });
    examined.collect()
}

/// Checks a file's header against the limits. Pixels are decoded later, if a feature needs them.
pub(crate) fn examine(bytes: Bytes, of: &str, limits: &Limits) -> Result<EncodedImage, ApiError> {
    let header = vision::read_header(&bytes, &limits.decode())
        .map_err(|error| ApiError::image(of, &error))?;
    let least = limits.image_min_side;
    if header.width < least || header.height < least {
        return Err(ApiError::new(
            Code::ImageTooSmall,
            format!(
                "{of} has {}×{} pixels: at least {least}×{least} are required",
                header.width, header.height
            ),
        ));
    }
    Ok(EncodedImage { hash: ContentHash::of(&bytes), bytes, header })
}

pub(crate) fn once<T>(slot: &mut Option<T>, name: &str, value: T) -> Result<(), ApiError> {
    if slot.replace(value).is_some() {
        return Err(ApiError::new(
            Code::RepeatedField,
            format!("the field `{name}` was sent more than once: send it once"),
        ));
    }
    Ok(())
}

fn room(photos: &[SentPhoto], name: &str, most: usize) -> Result<(), ApiError> {
    if photos.len() < most {
        return Ok(());
    }
    Err(ApiError::new(
        Code::RepeatedField,
        format!("there are more than {most} images in `{name}`: send fewer"),
    ))
}

async fn photo_hash(
    photos: &mut Vec<SentPhoto>,
    field: Field<'_>,
    name: &str,
    most: usize,
) -> Result<(), ApiError> {
    room(photos, name, most)?;
    let hash = ContentHash::from_hex(&text(field, name, NAME_BYTES).await?).ok_or_else(|| {
        let problem =
            format!("`{name}` is not a BLAKE3 hash: send 64 hexadecimal digits, or the image file");
        ApiError::new(Code::InvalidField, problem)
    })?;
    photos.push(SentPhoto::Hash(hash));
    Ok(())
}

async fn several(
    files: &mut Vec<SentPhoto>,
    field: Field<'_>,
    name: &str,
    most: usize,
    limits: &Limits,
) -> Result<(), ApiError> {
    room(files, name, most)?;
    let of = format!("{name}[{}]", files.len());
    files.push(SentPhoto::File(read_image(field, &of, limits).await?));
    Ok(())
}

pub(crate) async fn read_image(
    field: Field<'_>,
    of: &str,
    limits: &Limits,
) -> Result<Bytes, ApiError> {
    bounded(field, limits.image_bytes()).await?.ok_or_else(|| {
        ApiError::new(
            Code::PayloadTooLarge,
            format!("{of}: the file is larger than {} MiB: send a smaller one", limits.image_mib),
        )
    })
}

/// Reads a prompt.
pub(crate) async fn prompt(field: Field<'_>, limits: &Limits) -> Result<String, ApiError> {
    let bytes =
        bounded(field, limits.prompt_bytes).await?.ok_or_else(|| prompt_too_long(limits))?;
    let prompt = utf8(bytes, "prompt")?;
    check_prompt(&prompt, limits)?;
    Ok(prompt)
}

/// Refuses a prompt that is too long for every text model, or that a database cannot store.
pub(crate) fn check_prompt(prompt: &str, limits: &Limits) -> Result<(), ApiError> {
    if prompt.len() > limits.prompt_bytes {
        return Err(prompt_too_long(limits));
    }
    if prompt.contains('\0') {
        return Err(ApiError::new(
            Code::InvalidField,
            "the prompt contains the character U+0000: remove it",
        ));
    }
    Ok(())
}

fn prompt_too_long(limits: &Limits) -> ApiError {
    let most = limits.prompt_bytes;
    let problem =
        format!("the prompt is longer than {most} bytes, which no text model can read: shorten it");
    ApiError::new(Code::PromptTooLong, problem)
}

async fn label(field: Field<'_>, name: &str) -> Result<String, ApiError> {
    let text = text(field, name, NAME_BYTES).await?;
    clean_label(name, &text)
}

/// Returns a name as it is stored; refuses one that is empty, too long or not entirely visible.
pub(crate) fn clean_label(name: &str, text: &str) -> Result<String, ApiError> {
    label::clean(text)
        .map_err(|problem| ApiError::new(Code::InvalidField, format!("`{name}` {problem}")))
}

pub(crate) async fn text(field: Field<'_>, name: &str, most: usize) -> Result<String, ApiError> {
    let bytes = bounded(field, most).await?.ok_or_else(|| {
        ApiError::new(
            Code::InvalidField,
            format!("`{name}` is longer than {most} bytes: shorten it"),
        )
    })?;
    utf8(bytes, name)
}

pub(crate) fn metadata<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, ApiError> {
    let invalid = |why: &dyn std::fmt::Display| {
        ApiError::new(
            Code::InvalidField,
            format!("metadata is not the expected JSON object: {why}"),
        )
    };
    // serde would also accept a list, with the fields in their order.
    if !text.trim_start().starts_with('{') {
        return Err(invalid(&"it does not begin with `{`"));
    }
    serde_json::from_str(text).map_err(|error| invalid(&error))
}

pub(crate) fn sample_metadata(text: &str, detectables: usize) -> Result<Metadata, ApiError> {
    clean_metadata(metadata(text)?, detectables)
}

/// Returns metadata as they are stored; refuses unreadable names, and too many of them.
pub(crate) fn clean_metadata(metadata: Metadata, detectables: usize) -> Result<Metadata, ApiError> {
    metadata.clean(detectables).map_err(|problem| ApiError::new(Code::InvalidField, problem))
}

fn utf8(bytes: Bytes, name: &str) -> Result<String, ApiError> {
    String::from_utf8(bytes.into())
        .map_err(|_| ApiError::new(Code::InvalidField, format!("`{name}` is not UTF-8 text")))
}

/// Returns the field's bytes, or `None` as soon as there are more than `most`.
async fn bounded(mut field: Field<'_>, most: usize) -> Result<Option<Bytes>, ApiError> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = field.chunk().await.map_err(malformed)? {
        if bytes.len() + chunk.len() > most {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes.freeze()))
}
