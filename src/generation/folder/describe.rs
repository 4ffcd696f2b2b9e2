//! The JSON file beside an image, with the toolkit's keys.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::plan::{Job, People};
use super::state::FolderState;
use crate::engine::pack::generator_roles as roles;
use crate::generation::{Generator, ImageFlag, Settings};

/// Hidden layers of each perceptron that makes words, as in the authors' system.
const MAPPER_LAYERS: usize = 2;

/// Keys and order of the files that the paper's authors published with their toolkit.
#[derive(Serialize)]
struct Description<'a> {
    index: usize,
    generation_datetime: &'a str,
    prompt: &'a str,
    attributes: BTreeMap<&'a str, i8>,
    detectables: &'a [String],
    image_path: &'a str,
    save_name: &'a str,
    model_name: &'a str,
    steps: usize,
    guidance_scale: Value,
    model_seed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_stellar_t: Option<bool>,
    aux_metadata: Value,
}

/// Returns the text of the JSON file of a job.
pub(super) fn describe<'a>(
    generator: &Generator,
    state: &FolderState,
    job: &Job,
    settings: &Settings,
    flags: impl IntoIterator<Item = &'a ImageFlag>,
) -> String {
    let flags: Vec<_> = flags.into_iter().map(|flag| flag.code()).collect();
    let sign = |present: bool| if present { 1 } else { -1 };
    let description = Description {
        index: job.index,
        generation_datetime: &state.begun,
        prompt: &job.prompt,
        attributes: job.attributes.iter().map(|(name, is)| (name.as_str(), sign(*is))).collect(),
        detectables: &job.detectables,
        image_path: &job.image_path,
        save_name: &job.name,
        model_name: &state.settings.method,
        steps: settings.steps,
        guidance_scale: number(settings.guidance),
        model_seed: settings.seed,
        is_stellar_t: match job.kind.as_deref() {
            Some("T") => Some(true),
            Some("H") => Some(false),
            _ => None,
        },
        aux_metadata: auxiliary(generator, state, &flags),
    };
    serde_json::to_string_pretty(&description).expect("plain data always serialises") + "\n"
}

/// Whole numbers are written as such, as in the authors' files.
fn number(value: f32) -> Value {
    if value.fract() == 0.0 { json!(value as i64) } else { json!(value) }
}

/// The authors' keys, and the pack. What the pack does not say is null.
fn auxiliary(generator: &Generator, state: &FolderState, flags: &[&str]) -> Value {
    let pack = generator.pack();
    let source = |role: &str| pack.graph(role).map(|graph| &graph.source);
    let (denoiser, decoder) = (source(roles::DENOISER), source(roles::DECODER));
    let base = denoiser.map(|source| Value::from(source.checkpoint.as_str()));
    let trained = |key: &str| generator.training().and_then(|of| of.get(key)).cloned();
    let are_learned = matches!(state.settings.people, People::Words(_));
    let has_words = !are_learned && pack.graph(roles::WORDS).is_some();
    let mut keys = json!({
        "model_name": trained("base").or(base),
        "vae_model_name": decoder.map(|source| source.checkpoint.as_str()),
        "revision": denoiser.map(|source| source.revision.as_str()).filter(|of| *of != "local"),
        "unet_lora_rank": trained("lora_rank"),
        "inject_encoder": has_words.then_some("all"),
        "image_encoders_to_use": has_words.then_some("all"),
        "mapper_hidden_dim": trained("hidden").filter(|_| has_words),
        "num_mapper_layers": has_words.then_some(MAPPER_LAYERS),
        "num_inject_embeddings": has_words.then_some(generator.spec().words),
        "pack": pack.id(),
    });
    if state.settings.people != People::Photos {
        keys["people"] = json!(state.settings.people);
    }
    if are_learned {
        // Words are learned from the very photos that the images are evaluated with.
        keys["excludes_evaluation"] = json!(false);
    }
    if !flags.is_empty() {
        keys["flags"] = json!(flags);
    }
    keys
}
