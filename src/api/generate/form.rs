//! The form of `POST /v1/generate`.

use axum::extract::Request;
use bytes::Bytes;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::api::generation::Bounds;
use crate::api::http::{
    ApiError, Code,
    form::{check_prompt, examine, metadata, once, prompt, read_image, text},
    keys,
    multipart::{malformed, multipart},
};
use crate::{
    config::Limits,
    engine::pack::GeneratorSpec,
    generation::{self, Person, Settings, Subject},
};

/// Settings of the paper's images.
const SEED: u64 = 42;
const STEPS: usize = 100;
const GUIDANCE: f32 = 5.0;

/// The form of `POST /v1/generate`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents the form, which is read field by field within limits")]
pub(crate) struct GenerateForm {
    /// The prompt; `{}` stands for the person in the photo.
    #[schema(example = "{} as a clown skiing")]
    prompt: String,
    /// The photo of the person: PNG, JPEG, WebP or PPM. Required if the prompt has a `{}`.
    #[schema(value_type = Option<String>, format = Binary)]
    reference: Option<Vec<u8>>,
    /// The person in the photo: an image in which every pixel with a channel above 0 is foreground.
    /// It is resized to the photo. Default: the whole photo, with the flag `unmasked`.
    #[schema(value_type = Option<String>, format = Binary)]
    mask: Option<Vec<u8>>,
    /// Settings, as JSON.
    metadata: Option<GenerateSettings>,
}

/// Settings of an image. What is not there is as in the paper's images.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct GenerateSettings {
    /// Seed of the noise, the same as PyTorch's on a CPU. Default: 42.
    #[schema(minimum = 0)]
    seed: Option<u64>,
    /// Denoising steps, 1 to `generator.most_steps` (150). Default: 100.
    #[schema(minimum = 1)]
    steps: Option<usize>,
    /// Guidance scale, 0 to 100; up to 1 there is none. Default: 5.
    #[schema(minimum = 0, maximum = 100)]
    guidance: Option<f32>,
    /// Width in pixels: a multiple of the model's, usually 32. Default: the model's.
    #[schema(minimum = 1)]
    width: Option<usize>,
    /// Height in pixels, as `width`.
    #[schema(minimum = 1)]
    height: Option<usize>,
    /// What the image must not show.
    negative_prompt: Option<String>,
}

/// The fields as they arrive.
#[derive(Default)]
pub(super) struct Fields {
    prompt: Option<String>,
    reference: Option<Bytes>,
    mask: Option<Bytes>,
    settings: Option<GenerateSettings>,
}

impl Fields {
    /// Reads the body of a request.
    pub(super) async fn read(request: Request, limits: &Limits) -> Result<Self, ApiError> {
        let caller = keys::caller(&request);
        let mut form = multipart(request, limits).await?;
        let mut fields = Self::default();
        while let Some(field) = form.next_field().await.map_err(malformed)? {
            let Some(name) = field.name().map(str::to_owned) else {
                return Err(ApiError::new(
                    Code::MalformedRequest,
                    "a part of the form has no name",
                ));
            };
            match name.as_str() {
                "prompt" => {
                    once(&mut fields.prompt, &name, prompt(field, limits).await?)?;
                }
                "reference" | "mask" => {
                    let file = read_image(field, &name, limits).await?;
                    if let Some(caller) = &caller {
                        caller.count_images(1);
                    }
                    examine(file.clone(), &name, limits)?;
                    let slot = match name.as_str() {
                        "mask" => &mut fields.mask,
                        _ => &mut fields.reference,
                    };
                    once(slot, &name, file)?;
                }
                "metadata" => {
                    let text = text(field, &name, limits.metadata_bytes).await?;
                    once(&mut fields.settings, &name, metadata(&text)?)?;
                }
                other => {
                    let name: String = other.chars().take(80).collect();
                    let problem = format!(
                        "unknown field `{name}`: the fields are prompt, reference, mask and \
                            metadata"
                    );
                    return Err(ApiError::new(Code::UnknownField, problem));
                }
            }
        }
        Ok(fields)
    }

    /// Fills in the defaults of a pack.
    pub(super) fn into_request(
        self,
        spec: &GeneratorSpec,
        limits: &Limits,
        bounds: &Bounds,
    ) -> Result<generation::Request, ApiError> {
        let missing = |problem: &str| ApiError::new(Code::MissingField, problem);
        let prompt = self.prompt.ok_or_else(|| missing("the field `prompt` is missing"))?;
        let settings = self.settings.unwrap_or_default();
        if let Some(text) = &settings.negative_prompt {
            check_prompt(text, limits).map_err(|error| error.within("negative_prompt"))?;
        }
        let steps = settings.steps.unwrap_or(STEPS);
        let (width, height) = (
            settings.width.unwrap_or(spec.default_side),
            settings.height.unwrap_or(spec.default_side),
        );
        for (key, number, most) in [
            ("steps", steps, bounds.most_steps),
            ("width", width, bounds.largest_side),
            ("height", height, bounds.largest_side),
        ] {
            if number == 0 || number > most {
                let problem = format!("{key} is {number}: it must be 1 to {most}");
                return Err(ApiError::new(Code::InvalidField, problem));
            }
        }
        let person = match (self.reference, self.mask) {
            (Some(photo), mask) => Some(Person::Photo(Subject { photo, mask })),
            (None, None) => None,
            (None, Some(_)) => {
                return Err(missing("the field `reference` is missing: `mask` is a mask of it"));
            }
        };
        Ok(generation::Request {
            prompt,
            negative_prompt: settings.negative_prompt,
            person,
            settings: Settings {
                seed: settings.seed.unwrap_or(SEED),
                steps,
                guidance: settings.guidance.unwrap_or(GUIDANCE),
                width,
                height,
            },
        })
    }
}
