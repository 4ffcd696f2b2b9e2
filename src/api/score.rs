//! `POST /v1/score`: an image in, every score out, stored.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json,
    extract::{Request, State},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{ApiError, App, Problem, SERVICE_VERSION, Shared, datasets, drain, form::Form};
use crate::{
    engine::{Origin, Pack},
    metrics::{AttributePrediction, Flag, NullReason},
    pack_id::{PackId, Weights},
    runs::new_sample,
    scoring::{
        self, DatasetProbes, FeatureUse, ImageFaces, Metadata, MetricScore, ObjectEvidence, RelationEvidence,
        Scorecard, TextEvidence, graphs_of,
    },
    store::{self, NewSample, RunName, ScoreRecord, ScoreValue},
};

/// The form of `POST /v1/score`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents the form, which is read field by field within limits")]
pub(super) struct ScoreForm {
    /// The generated image: PNG, JPEG or WebP.
    #[schema(value_type = String, format = Binary)]
    image: Vec<u8>,
    /// The prompt it was generated for. Taken as it is: placeholders are not filled in.
    prompt: Option<String>,
    /// Photos of the subject that the generator was given; repeat the field for several.
    #[schema(value_type = Option<Vec<String>>, format = Binary)]
    reference: Option<Vec<Vec<u8>>>,
    /// Further photos of the same person; repeat the field for several.
    #[schema(value_type = Option<Vec<String>>, format = Binary)]
    auxiliary: Option<Vec<Vec<u8>>>,
    /// What is known about prompt and subject, as JSON.
    metadata: Option<Metadata>,
    /// Codes of metrics, separated by commas. Default: all.
    #[schema(example = "clip_t,aesthetic")]
    metrics: Option<String>,
    /// The generator: the sample counts on its leaderboard row.
    method: Option<String>,
    /// The method's run, `default` if not given.
    run: Option<String>,
    /// The sample's name in its run. The same name with the same content is counted once. Default: the
    /// address of the content.
    name: Option<String>,
    /// Whether the answer shows what the scores stand on. Default: false.
    evidence: Option<bool>,
}

/// The scores of one sample.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ScoreResponse {
    /// The stored sample: GET /v1/samples/{id} reads it back.
    pub sample: Uuid,
    /// Whether the sample was new, was there with all these scores, or got further ones.
    pub outcome: Outcome,
    /// The method it counts for, if one was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The method's run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The run's id: GET /v1/runs/{id}/attributes and DELETE /v1/runs/{id} take it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<Uuid>,
    /// `demo` means random weights: the numbers mean nothing.
    pub weights: Weights,
    /// Every metric asked for, by code.
    pub scores: BTreeMap<String, ScoreEntry>,
    /// Whether no model ran: every feature was known already.
    pub cached: bool,
    /// The features behind the scores and where each came from, in this request: also where the numbers are those of an earlier one.
    pub features: Vec<FeatureUse>,
    /// What the scores stand on, where it was asked for, as this request found it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// Where the time went.
    pub timings: Timings,
    /// With what the scores were computed; of a sample that was there the versions of the metrics are those of its stored scores.
    pub provenance: Provenance,
}

/// What storing the sample changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The sample is new.
    Created,
    /// The sample was there with all these scores; nothing is counted twice.
    Repeated,
    /// The sample was there; scores were added or, for another version of a metric, replaced.
    Rescored,
}

/// A number, or the reason why there is none.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ScoreEntry {
    /// The score; null where it cannot be computed.
    #[schema(example = 0.2731)]
    pub value: Option<f64>,
    /// Why there is no number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<NullReason>,
    /// What to send, or load, to get one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// What to know when reading the number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<Flag>,
}

/// What the scores stand on.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Evidence {
    /// How each text model read the prompt.
    pub texts: Vec<TextEvidence>,
    /// The checkpoint behind each metric that has a number, by code: for `hpsv2` it names the version.
    pub checkpoints: BTreeMap<String, String>,
    /// Further numbers behind a metric's value, by code: `pick_score` has `published_scale`, its value
    /// times the model's logit scale.
    pub details: BTreeMap<String, BTreeMap<String, f64>>,
    /// The faces found in each image, where a metric looks for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faces: Vec<ImageFaces>,
    /// The most similar faces of the generated image and each photo, by metric code.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub matches: BTreeMap<String, Vec<Match>>,
    /// How well each object of `detectables` was found, where a metric looks for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<ObjectEvidence>,
    /// How well each relation of the prompt was found, where a metric looks for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relations: Vec<RelationEvidence>,
    /// What `aps` says of each facial attribute.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<AttributePrediction>,
}

/// A pair of faces.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Match {
    /// The photo: `reference[0]`, `auxiliary[0]` and so on.
    #[schema(example = "reference[0]")]
    pub photo: String,
    /// Which face of the generated image, from 0 in the order of `faces`.
    pub image_face: usize,
    /// Which face of the photo.
    pub photo_face: usize,
    /// Cosine of their embeddings.
    pub cosine: f64,
}

impl Evidence {
    /// What a scorecard stands on.
    #[must_use]
    pub fn of(card: &Scorecard, pack: &Pack) -> Self {
        let checkpoints = card.scores.iter().filter(|score| score.outcome.is_ok()).filter_map(|score| {
            let graph = pack.graph(score.metric.needs.first()?.graph)?;
            Some((score.metric.code.to_owned(), graph.source.checkpoint.clone()))
        });
        let details = card.scores.iter().filter_map(|MetricScore { metric, outcome }| {
            let details = &outcome.as_ref().ok()?.details;
            let named = details.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
            (!details.is_empty()).then_some((metric.code.to_owned(), named))
        });
        let matches = card.scores.iter().filter_map(|MetricScore { metric, outcome }| {
            let matches = &outcome.as_ref().ok()?.matches;
            let named = matches.iter().map(|pair| Match {
                photo: scoring::name(pair.photo),
                image_face: pair.image_face,
                photo_face: pair.photo_face,
                cosine: pair.cosine,
            });
            (!matches.is_empty()).then(|| (metric.code.to_owned(), named.collect()))
        });
        Self {
            texts: card.texts.clone(),
            checkpoints: checkpoints.collect(),
            details: details.collect(),
            faces: card.faces.clone(),
            attributes: card
                .scores
                .iter()
                .filter_map(|score| score.outcome.as_ref().ok())
                .flat_map(|score| score.predictions.iter().cloned())
                .collect(),
            matches: matches.collect(),
            objects: card.objects.clone(),
            relations: card.relations.clone(),
        }
    }
}

/// Milliseconds spent on a request.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "the unit belongs to each name")]
pub struct Timings {
    /// Reading the upload and checking it.
    pub read_ms: f64,
    /// Decoding, queues, models and arithmetic.
    pub score_ms: f64,
    /// Storing sample and scores.
    pub store_ms: f64,
    /// All of it.
    pub total_ms: f64,
}

/// With what scores were computed.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Provenance {
    /// Version of the service.
    pub service_version: String,
    /// The model pack.
    pub pack: PackId,
    /// The dataset of the sample's metadata, as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<DatasetSource>,
    /// Version of each metric's definition, by code.
    pub metric_versions: BTreeMap<String, u32>,
    /// The checkpoint of every graph that was used, by role.
    pub graphs: BTreeMap<String, GraphSource>,
}

/// What `aps` learnt from.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DatasetSource {
    /// The dataset.
    pub name: String,
    /// Its revision, which grows with every change.
    pub revision: u64,
    /// Its photos with a face.
    pub faces: usize,
}

/// Where a graph's weights come from.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct GraphSource {
    /// Hub id or file of the checkpoint.
    pub checkpoint: String,
    /// Its revision.
    pub revision: String,
    /// `fp32` or `fp16`.
    pub precision: crate::engine::Precision,
    /// SHA-256 of the graph's file.
    pub sha256: String,
}

/// Scores one generated image and stores the result.
///
/// Every metric asked for is in the answer, as a number or as null with the reason. The same sample sent
/// again is answered from the cache and counted once.
#[utoipa::path(
    post, path = "/v1/score", operation_id = "score_sample", tag = "scores",
    request_body(content = ScoreForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "Scored and stored", body = ScoreResponse),
        (status = 400, description = "The form cannot be read", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The metadata name a dataset that does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The name is taken by a sample of other content, or the run is finished", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "A limit of size is exceeded", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "Not a form, or not an image", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Understood but not usable", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "At the limit: retry after `Retry-After` seconds", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "A defect of the service; the log has the cause", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Starting, stopping, or without store", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "Not ready before the deadline", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn create(State(app): Shared, request: Request) -> Result<Json<ScoreResponse>, ApiError> {
    drain::whole(request, |request| answer(&app, request)).await
}

async fn answer(app: &App, request: Request) -> Result<Json<ScoreResponse>, ApiError> {
    app.admission.room()?;
    let started = Instant::now();
    let work = async {
        let mut form = Form::read(request, &app.limits).await?;
        let held = (app.admission.enter()?, app.runs.enter_interactive());
        let read = started.elapsed();
        form.sample.dataset = datasets::probes(app, &form.sample.metadata).await?;
        let card = app.scoring.score(&form.sample, &form.metrics).await?;
        Ok::<_, ApiError>((held, form, read, card))
    };
    let (_held, form, read, card) = app.before_deadline(work).await?;
    let scored = started.elapsed();
    // Not under the deadline: of a transaction that is cut off nobody could say that nothing was stored.
    let pack = Arc::clone(app.scoring.pack());
    let row = NewSample {
        run: run_name(&form),
        name: form.name.clone(),
        ..new_sample(&form.sample, &card, pack.id())
    };
    let recorded = app.store.record(&row).await?;
    let stored = started.elapsed();
    tracing::info!(
        sample = %recorded.sample,
        milliseconds = stored.as_millis() as u64,
        "sample scored and stored"
    );
    let mut scores: BTreeMap<_, _> =
        card.scores.iter().map(|score| (score.metric.code.to_owned(), score_entry(score))).collect();
    let mut provenance = provenance(&card, &pack, form.sample.dataset.as_ref());
    if recorded.outcome != store::RecordOutcome::Created {
        // What was there stays: the answer is what the leaderboard and GET /v1/samples/{id} say.
        let stored = app.store.sample(recorded.sample).await?.map(|sample| sample.scores).unwrap_or_default();
        for score in stored.into_iter().filter(|score| score.pack == pack.id()) {
            if let Some(entry) = scores.get_mut(&score.metric) {
                provenance.metric_versions.insert(score.metric.clone(), score.metric_version);
                *entry = stored_entry(score, entry);
            }
        }
    }
    let run = run_name(&form);
    Ok(Json(ScoreResponse {
        sample: recorded.sample,
        outcome: match recorded.outcome {
            store::RecordOutcome::Created => Outcome::Created,
            store::RecordOutcome::Repeated => Outcome::Repeated,
            store::RecordOutcome::Rescored => Outcome::Rescored,
        },
        method: run.as_ref().map(|run| run.method.clone()),
        run: run.map(|run| run.run),
        run_id: recorded.run,
        weights: pack.weights,
        scores,
        cached: card.features.iter().all(|feature| feature.origin == Origin::Cached),
        provenance,
        evidence: form.evidence.then(|| Evidence::of(&card, &pack)),
        features: card.features,
        timings: Timings {
            read_ms: milliseconds(read),
            score_ms: milliseconds(scored.saturating_sub(read)),
            store_ms: milliseconds(stored.saturating_sub(scored)),
            total_ms: milliseconds(stored),
        },
    }))
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn run_name(form: &Form) -> Option<RunName> {
    form.method.as_ref().map(|method| RunName::new(method, form.run.clone()))
}

/// A stored score as the answer to whoever sends its sample again; what to send for a number is said as it is now.
fn stored_entry(score: ScoreRecord, now: &ScoreEntry) -> ScoreEntry {
    let known = |word: String| serde_json::from_value(serde_json::Value::String(word)).ok();
    let flags = score.flags.into_iter().filter_map(known).collect();
    match score.value {
        ScoreValue::Number(value) => ScoreEntry { value: Some(value), reason: None, help: None, flags },
        ScoreValue::Null { reason } => {
            let reason: Option<NullReason> = serde_json::from_value(serde_json::Value::String(reason)).ok();
            let help = reason.map_or_else(|| now.help.clone(), |reason| Some(reason.help().to_owned()));
            ScoreEntry { value: None, reason, help, flags }
        }
    }
}

/// A metric's answer as clients see it.
#[must_use]
pub fn score_entry(score: &MetricScore) -> ScoreEntry {
    match &score.outcome {
        Ok(score) => {
            ScoreEntry { value: Some(score.value), reason: None, help: None, flags: score.flags.clone() }
        }
        Err(reason) => ScoreEntry {
            value: None,
            reason: Some(*reason),
            help: Some(reason.help().to_owned()),
            flags: Vec::new(),
        },
    }
}

fn provenance(card: &Scorecard, pack: &Pack, dataset: Option<&DatasetProbes>) -> Provenance {
    let used: Vec<String> = card.features.iter().flat_map(|feature| graphs_of(&feature.graph)).collect();
    Provenance {
        service_version: SERVICE_VERSION.to_owned(),
        pack: pack.id(),
        dataset: dataset.map(|dataset| DatasetSource {
            name: dataset.name.clone(),
            revision: dataset.revision,
            faces: dataset.faces,
        }),
        metric_versions: card
            .scores
            .iter()
            .map(|score| (score.metric.code.to_owned(), score.metric.version))
            .collect(),
        graphs: pack
            .graphs
            .iter()
            .filter(|graph| used.contains(&graph.role))
            .map(|graph| {
                let source = GraphSource {
                    checkpoint: graph.source.checkpoint.clone(),
                    revision: graph.source.revision.clone(),
                    precision: graph.precision,
                    sha256: graph.files[0].sha256.to_string(),
                };
                (graph.role.clone(), source)
            })
            .collect(),
    }
}
