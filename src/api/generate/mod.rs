//! `POST /v1/generate`: an image of a person from a prompt and a photo.

mod form;

use std::{collections::BTreeSet, time::Instant};

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response as HttpResponse},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;
use utoipa::ToSchema;

use self::form::Fields;
pub(super) use self::form::GenerateForm;
use crate::api::{
    generation::Generation,
    http::{ApiError, Code, drain, keys},
    state::{App, Shared},
};
use crate::{
    blocking::blocking,
    content::ContentHash,
    generation::{GenerationError, ImageFlag, ImageProvenance, Picture},
    telemetry::{GenerationOutcome, GenerationTelemetry},
};

/// Response header with the flags of an image, separated by commas.
const FLAGS: HeaderName = HeaderName::from_static("stellar-flags");

/// Counts a request that is dropped because its client left.
struct Counted<'a> {
    telemetry: &'a GenerationTelemetry,
    outcome: GenerationOutcome,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.telemetry.ended(self.outcome);
    }
}

/// The PNG file of a generated image.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "documents the body")]
struct GeneratedFile(Vec<u8>);

/// A generated image with its provenance.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GenerateResponse {
    /// Content hash of the file.
    hash: String,
    /// What was not as expected, such as `unmasked`.
    flags: BTreeSet<ImageFlag>,
    /// Pack and settings of the image, as in the file.
    provenance: ImageProvenance,
    /// Time to generate the image, in seconds.
    seconds: f64,
    /// The PNG file, in base64.
    image: String,
}

/// Generates an image of the person in a photo.
///
/// The response is a PNG file, or JSON with the file in base64 if `Accept` has `application/json`
/// and no image.
/// The file says that it is generated, with which pack and settings (a text `stellar-score`). The
/// same request gives the same bytes. Photo and prompt are not stored. If the client leaves, the
/// work stops after the current step. Without `generator.pack` in the configuration, the response
/// is 404.
#[utoipa::path(
    post, path = "/v1/generate", operation_id = "generate_image", tag = "generation",
    request_body(content = GenerateForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "The image; the header `stellar-flags` has its flags",
            content(
                (GeneratedFile = "image/png"),
                (GenerateResponse = "application/json"),
            )),
        (status = 400, description = "Malformed form"),
        (status = 404, description = "No generator is configured"),
        (status = 413, description = "A size limit is exceeded"),
        (status = 415, description = "Not a multipart form, or not a supported image"),
        (status = 422, description = "A field is missing, repeated, unknown or invalid"),
        (status = 429, description = "`generator.concurrency` images are being generated, or a \
            limit of the key is reached; retry after `Retry-After` seconds"),
        (status = 503, description = "The models are offloaded, or a graph is being loaded again; \
            retry after `Retry-After` seconds"),
        (status = 504, description = "The deadline passed before the image was ready"),
    )
)]
pub(super) async fn create(State(app): Shared, request: Request) -> Result<HttpResponse, ApiError> {
    Box::pin(drain::whole(request, |request| answer(&app, request))).await
}

async fn answer(app: &App, request: Request) -> Result<HttpResponse, ApiError> {
    let Some(generation) = &app.generation else {
        let problem = "no generator is configured: the operator must set generator.pack to the \
            folder of a generator pack";
        return Err(ApiError::new(Code::NotFound, problem));
    };
    let telemetry = &generation.telemetry;
    let mut counted = Counted { telemetry, outcome: GenerationOutcome::Cancelled };
    let found = tokio::time::timeout(generation.deadline, respond(app, generation, request)).await;
    let found = found.unwrap_or_else(|_| {
        let seconds = generation.deadline.as_secs();
        let problem = format!(
            "not ready after {seconds} s (generator.deadline_seconds): ask for fewer steps or a \
                smaller image, or retry when the service is less busy"
        );
        Err(ApiError::new(Code::DeadlineExceeded, problem))
    });
    counted.outcome = match &found {
        Ok(_) => GenerationOutcome::Generated,
        Err(error) if error.code().status().is_server_error() => GenerationOutcome::Failed,
        Err(_) => GenerationOutcome::Refused,
    };
    found
}

async fn respond(
    app: &App,
    generation: &Generation,
    request: Request,
) -> Result<HttpResponse, ApiError> {
    generation.room()?;
    let generator = generation.generator();
    let (wants_json, caller) = (wants_json(&request), keys::caller(&request));
    let fields = Fields::read(request, &app.limits).await?;
    let request = fields.into_request(generator.spec(), &app.limits, &generation.bounds)?;
    generator.check(&request)?;
    let _place = generation.enter()?;
    if let Some(caller) = caller {
        caller.generate()?;
    }
    let started = Instant::now();
    let picture = generator.generate(&request, |_| ()).await?;
    let provenance = generator.provenance(request.settings);
    let (picture, file) = encode(picture, provenance.clone()).await?;
    let taken = started.elapsed();
    generation.telemetry.generated(taken);
    tracing::info!(milliseconds = taken.as_millis() as u64, "image generated");
    if wants_json {
        return Ok(Json(GenerateResponse {
            hash: ContentHash::of(&file).to_string(),
            flags: picture.flags,
            provenance,
            seconds: taken.as_secs_f64(),
            image: STANDARD.encode(&file),
        })
        .into_response());
    }
    let flags = picture.flags.iter().map(|flag| flag.code()).collect::<Vec<_>>().join(", ");
    let flags = HeaderValue::from_str(&flags).expect("codes are constant words");
    let kind = HeaderValue::from_static("image/png");
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, kind), (FLAGS, flags)], file).into_response())
}

async fn encode(
    picture: Picture,
    provenance: ImageProvenance,
) -> Result<(Picture, Vec<u8>), GenerationError> {
    blocking(move || picture.png(&provenance).map(|file| (picture, file))).await
}

/// Returns whether the client accepts JSON and no image.
fn wants_json(request: &Request) -> bool {
    let accepted = request.headers().get_all(header::ACCEPT).iter();
    let accepted: Vec<_> = accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|kind| kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
        .collect();
    let has = |kinds: &[&str]| accepted.iter().any(|kind| kinds.contains(&kind.as_str()));
    has(&["application/json"]) && !has(&["image/png", "image/*"])
}

impl From<GenerationError> for ApiError {
    fn from(error: GenerationError) -> Self {
        match error {
            GenerationError::Request { key, problem } => {
                let field = if key == "photo" { "reference" } else { key };
                Self::new(Code::InvalidField, format!("{field} {problem}"))
            }
            GenerationError::Photo(error) => Self::image("reference", &error),
            GenerationError::Mask(error) => Self::image("mask", &error),
            GenerationError::Engine(error) => error.into(),
            error @ (GenerationError::NoGenerator { .. }
            | GenerationError::Pack(_)
            | GenerationError::Output { .. }
            | GenerationError::NoMasks
            | GenerationError::Words { .. }
            | GenerationError::Encode(_)) => Self::internal(&error),
        }
    }
}
