//! `POST /v1/score`: scores an image at once and stores the result.

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
use tracing::Instrument as _;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::http::form::Form;
use crate::api::http::{ApiError, drain};
use crate::api::state::{App, Shared};
use crate::{
    clock,
    engine::{Origin, Pack},
    metrics::{Flag, NullReason},
    pack_id::{PackId, Weights},
    scoring::{DatasetProbes, FeatureUse, Metadata, MetricScore, Scorecard},
    service::{Evidence, new_sample, probes},
    store::{NewSample, RecordOutcome, RunName, ScoreRecord, ScoreValue},
    trace::span,
};

/// The form of `POST /v1/score`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents the form, which is read field by field within limits")]
pub(super) struct ScoreForm {
    /// The generated image: PNG, JPEG, WebP or PPM.
    #[schema(value_type = String, format = Binary)]
    image: Vec<u8>,
    /// The prompt that the image was generated from, used as sent: placeholders are not filled in.
    prompt: Option<String>,
    /// Reference images, which the generator was given; repeat the field for several.
    #[schema(value_type = Option<Vec<String>>, format = Binary)]
    reference: Option<Vec<Vec<u8>>>,
    /// Auxiliary images: further images of the same person; repeat the field for several.
    #[schema(value_type = Option<Vec<String>>, format = Binary)]
    auxiliary: Option<Vec<Vec<u8>>>,
    /// Metadata of the prompt and the person, as JSON.
    metadata: Option<Metadata>,
    /// Codes of the metrics to compute, separated by commas. Default: all.
    #[schema(example = "clip_t,aesthetic")]
    metrics: Option<String>,
    /// Name of the method; the sample counts on its leaderboard row.
    method: Option<String>,
    /// Name of the method's run. Default: `default`.
    run: Option<String>,
    /// Name of the sample in its run. The same name with the same content counts once. Default: the
    /// content hash.
    name: Option<String>,
    /// If true, the response includes the evidence behind the scores. Default: false.
    evidence: Option<bool>,
}

/// The scores of one sample.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ScoreResponse {
    /// Id of the stored sample, for GET /v1/samples/{id}.
    pub sample: Uuid,
    /// The effect of storing the sample.
    pub outcome: RecordOutcome,
    /// Method that the sample belongs to, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Name of the method's run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Id of the run, for GET /v1/runs/{id}/attributes and DELETE /v1/runs/{id}.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<Uuid>,
    /// `demo` stands for weights that know nothing of real images: their scores are meaningless.
    pub weights: Weights,
    /// Every requested metric, by code.
    pub scores: BTreeMap<String, ScoreEntry>,
    /// True if no model ran because every feature was cached.
    pub cached: bool,
    /// Features behind the scores, with the origin of each in this request, even if the scores are
    /// those of an earlier request.
    pub features: Vec<FeatureUse>,
    /// Evidence behind the scores as found by this request, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// Time spent on the request.
    pub timings: Timings,
    /// Provenance of the scores. For a sample that existed, the versions of the metrics are those
    /// of its stored scores.
    pub provenance: Provenance,
}

/// A score: a number, or null with a reason.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ScoreEntry {
    /// The score; null if it cannot be computed.
    #[schema(example = 0.2731)]
    pub value: Option<f64>,
    /// Reason why the score is null.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<NullReason>,
    /// Advice on what to send or load to get a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Flags that a reader of the number must know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<Flag>,
}

/// Milliseconds spent on a request.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "the unit belongs to each name")]
pub struct Timings {
    /// Reading and checking the upload.
    pub read_ms: f64,
    /// Decoding, queues, models and arithmetic.
    pub score_ms: f64,
    /// Storing the sample and its scores.
    pub store_ms: f64,
    /// The whole request.
    pub total_ms: f64,
}

/// Pack, graphs and versions behind the scores.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Provenance {
    /// Version of the service.
    pub service_version: String,
    /// The model pack.
    pub pack: PackId,
    /// The dataset in the sample's metadata, at the revision that was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<DatasetSource>,
    /// Version of each metric's definition, by code.
    pub metric_versions: BTreeMap<String, u32>,
    /// The checkpoint of every graph that was used, by role.
    pub graphs: BTreeMap<String, GraphSource>,
}

/// The dataset from which `aps` learnt.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DatasetSource {
    /// Name of the dataset.
    pub name: String,
    /// Revision of the dataset; every change raises it.
    pub revision: u64,
    /// Number of its photos with a face.
    pub faces: usize,
}

/// Source of a graph's weights.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct GraphSource {
    /// Hub id or file of the checkpoint.
    pub checkpoint: String,
    /// Revision of the checkpoint.
    pub revision: String,
    /// `fp32` or `fp16`.
    pub precision: crate::engine::Precision,
    /// SHA-256 of the graph's file.
    pub sha256: String,
}

/// Scores one generated image and stores the result.
///
/// The response has every requested metric, as a number or as null with a reason. Sending the same
/// sample again is idempotent: it is scored from the cache and counted once.
#[utoipa::path(
    post, path = "/v1/score", operation_id = "score_sample", tag = "scores",
    request_body(content = ScoreForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "Scored and stored", body = ScoreResponse),
        (status = 400, description = "Malformed form"),
        (status = 404, description = "The dataset in the metadata does not exist"),
        (status = 409, description = "The name is taken by a sample with other content, or the run \
            is finished"),
        (status = 413, description = "A size limit is exceeded"),
        (status = 415, description = "Not a multipart form, or not a supported image"),
        (status = 422, description = "A field is missing, repeated, unknown or invalid"),
        (status = 504, description = "The deadline passed before the response was ready"),
    )
)]
pub(super) async fn create(
    State(app): Shared,
    request: Request,
) -> Result<Json<ScoreResponse>, ApiError> {
    Box::pin(drain::whole(request, |request| answer(&app, request))).await
}

async fn answer(app: &App, request: Request) -> Result<Json<ScoreResponse>, ApiError> {
    Box::pin(respond(app, Form::read(request, &app.limits))).await.map(Json)
}

/// Scores the sample of a form and stores it.
pub(crate) async fn respond(
    app: &App,
    form: impl Future<Output = Result<Form, ApiError>>,
) -> Result<ScoreResponse, ApiError> {
    app.admission.room()?;
    // Before the body is read, which may take long.
    drop(app.scoring.engine().enter()?);
    let (started, began) = (Instant::now(), Some(clock::now()));
    let work = async {
        let mut form = form.await?;
        let loaded = app.scoring.engine().enter()?;
        let held = (app.admission.enter()?, app.runs.enter_interactive(), loaded);
        let read = started.elapsed();
        form.sample.dataset = probes(&app.store, &app.scoring, &form.sample.metadata).await?;
        let scoring = app.scoring.score(&form.sample, &form.metrics);
        let card = scoring.instrument(span!("score")).await?;
        let extras = app.keeping.extras(&app.store, &app.scoring, &form.sample, &card, began);
        let extras = extras.await;
        Ok::<_, ApiError>((held, form, read, card, extras))
    };
    let (_held, form, read, card, extras) = app.before_deadline(work).await?;
    let scored = started.elapsed();
    // Outside the deadline: if a transaction is cut off, it is unknown whether it was stored.
    let pack = Arc::clone(app.scoring.pack());
    let row = NewSample {
        run: run_name(&form),
        name: form.name.clone(),
        extras,
        ..new_sample(&form.sample, &card, pack.id())
    };
    let recorded = app.store.record(&row).await?;
    let stored = started.elapsed();
    tracing::info!(
        sample = %recorded.sample,
        milliseconds = stored.as_millis() as u64,
        "sample scored and stored"
    );
    let mut scores: BTreeMap<_, _> = card
        .scores
        .iter()
        .map(|score| (score.metric.code.to_owned(), score_entry(score)))
        .collect();
    let mut provenance = provenance(&card, &pack, form.sample.dataset.as_deref());
    if recorded.outcome != RecordOutcome::Created {
        // Stored scores stay: the response has those of the leaderboard and GET /v1/samples/{id}.
        let stored = app
            .store
            .sample(recorded.sample)
            .await?
            .map(|sample| sample.scores)
            .unwrap_or_default();
        for score in stored.into_iter().filter(|score| score.pack == pack.id()) {
            if let Some(entry) = scores.get_mut(&score.metric) {
                provenance.metric_versions.insert(score.metric.clone(), score.metric_version);
                *entry = stored_entry(score, entry);
            }
        }
    }
    let run = run_name(&form);
    Ok(ScoreResponse {
        sample: recorded.sample,
        outcome: recorded.outcome,
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
    })
}

pub(super) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn run_name(form: &Form) -> Option<RunName> {
    form.method.as_ref().map(|method| RunName::new(method, form.run.clone()))
}

/// Converts a stored score for the response to a repeated sample; the help text is the current one.
fn stored_entry(score: ScoreRecord, now: &ScoreEntry) -> ScoreEntry {
    let known = |word: String| serde_json::from_value(serde_json::Value::String(word)).ok();
    let flags = score.flags.into_iter().filter_map(known).collect();
    match score.value {
        ScoreValue::Number(value) => {
            ScoreEntry { value: Some(value), reason: None, help: None, flags }
        }
        ScoreValue::Null { reason } => {
            let reason: Option<NullReason> =
                serde_json::from_value(serde_json::Value::String(reason)).ok();
            let help =
                reason.map_or_else(|| now.help.clone(), |reason| Some(reason.help().to_owned()));
            ScoreEntry { value: None, reason, help, flags }
        }
    }
}

/// Converts a metric's result for a response.
#[must_use]
pub fn score_entry(score: &MetricScore) -> ScoreEntry {
    match &score.outcome {
        Ok(score) => ScoreEntry {
            value: Some(score.value),
            reason: None,
            help: None,
            flags: score.flags.clone(),
        },
        Err(reason) => ScoreEntry {
            value: None,
            reason: Some(*reason),
            help: Some(reason.help().to_owned()),
            flags: Vec::new(),
        },
    }
}

fn provenance(card: &Scorecard, pack: &Pack, dataset: Option<&DatasetProbes>) -> Provenance {
    Provenance {
        service_version: crate::VERSION.to_owned(),
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
            .filter(|graph| card.graphs.contains(&graph.role.as_str()))
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
