//! `GET /v1/analysis/gallery`: the same prompts and people across runs, side by side.

use std::collections::{BTreeMap, BTreeSet};

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::chosen::{Choosing, Chosen, judgements};
use crate::api::http::filters::SliceFilter;
use crate::api::http::{ApiError, Code, Query, page};
use crate::api::questions::QuestionWord;
use crate::api::runs::ranked::Brief;
use crate::api::state::{App, Shared};
use crate::{
    analysis::{self, Gallery, GalleryFilter, GalleryOptions, GallerySort, judged_pairs},
    blocking::blocking,
    metrics,
    pack_id::PackId,
    store::SampleBrief,
};

/// Maximum number of runs side by side.
pub(crate) const MOST_RUNS: usize = 6;

/// Runs, selection and order of a gallery, and the page.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct GalleryQuery {
    /// Ids of at most 6 runs, separated by commas. Default: the newest finished run of each method
    /// over the dataset.
    pub(crate) runs: Option<String>,
    /// Dataset of the runs, if they are not named. Default: that of the newest finished run.
    pub(crate) dataset: Option<String>,
    /// Name or digest of the pack of the scores. Default: the loaded pack if a run has scores of
    /// it, or else a pack of the first run.
    pub(crate) pack: Option<String>,
    /// Only these metrics, codes separated by commas. Default: all that have a direction.
    #[param(example = "ips,clip_t")]
    pub(crate) metrics: Option<String>,
    /// Only samples of this person.
    pub(crate) identity: Option<String>,
    /// Only prompts of this kind. At most one filter by slice is allowed.
    pub(crate) prompt_kind: Option<String>,
    /// Only prompts of this category.
    pub(crate) category: Option<String>,
    /// Only prompts with a relation of this kind: `interaction`, `location` or `none`.
    pub(crate) relation: Option<String>,
    /// Only people with this attribute, or without it if `!` precedes its name.
    pub(crate) attribute: Option<String>,
    /// Only images of this class of the shorter side: `under_512`, `512_to_1023` or
    /// `1024_and_more`.
    pub(crate) size: Option<String>,
    /// Only images whose prompt names this object.
    #[param(example = "dog")]
    pub(crate) detectable: Option<String>,
    /// Only images whose prompt has this predicate.
    #[param(example = "riding")]
    pub(crate) predicate: Option<String>,
    /// Only images with a prompt of this template: its text with `[object]` for each object.
    #[param(example = "a person riding a [object]")]
    pub(crate) template: Option<String>,
    /// Only images of people with this level of a fine-grained attribute.
    #[param(example = "Smiling=3")]
    pub(crate) fine_attribute: Option<String>,
    /// Order of the rows. Default: `name`.
    #[serde(default)]
    pub(crate) sort: GallerySort,
    /// Question of the judgements that metrics are compared with. Default: `overall`.
    pub(crate) question: Option<QuestionWord>,
    /// Number of rows to skip. Default: 0.
    pub(crate) offset: Option<usize>,
    /// Rows per page, 1 to 1000. Default: 20.
    pub(crate) limit: Option<u32>,
}

/// Runs side by side.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct GalleryResponse {
    /// The runs, in the order of a row's images.
    pub(crate) runs: Vec<GalleryRun>,
    /// The dataset of the runs, if they were not named.
    pub(crate) dataset: Option<String>,
    /// The pack of the scores; null if no run has scores.
    pub(crate) pack: Option<PackId>,
    /// Codes of the metrics.
    pub(crate) metrics: Vec<String>,
    /// Number of rows on all pages.
    pub(crate) total: usize,
    /// The rows of this page.
    pub(crate) rows: Vec<GalleryRowEntry>,
    /// Offset of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<usize>,
    /// Categories of the prompts of all rows, before any filter.
    pub(crate) categories: BTreeSet<String>,
    /// Kinds of the prompts of all rows.
    pub(crate) prompt_kinds: BTreeSet<String>,
    /// People of all rows.
    pub(crate) identities: BTreeSet<String>,
    /// Names of the people's attributes.
    pub(crate) attributes: BTreeSet<String>,
}

/// A run in a gallery.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct GalleryRun {
    /// Id of the run.
    pub(crate) id: Uuid,
    /// Method of the run.
    pub(crate) method: String,
    /// Name of the run.
    pub(crate) run: String,
    /// Whether the run has scores of the pack.
    pub(crate) has_scores: bool,
}

/// Samples of one name.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = GalleryRow)]
pub(crate) struct GalleryRowEntry {
    /// Name of the samples.
    pub(crate) name: String,
    /// The person, if it is known.
    pub(crate) identity: Option<String>,
    /// Prompt of the first image.
    pub(crate) prompt: Option<String>,
    /// Whether an image of the row has another prompt: then the row does not compare like with
    /// like.
    pub(crate) prompts_differ: bool,
    /// Hash of the first reference image.
    pub(crate) reference: Option<String>,
    /// Disagreement of the metrics, 0 to 1: for each pair of images, the share of the metrics on
    /// the smaller side among the largest that it can be, and the mean over the pairs. Null if no
    /// pair is decided by two metrics.
    pub(crate) disagreement: Option<f64>,
    /// Disagreement of the metrics with people, 0 to 1: the share of metrics that prefer the image
    /// that a person did not prefer, and the mean over the judgements. Null without judgements.
    pub(crate) against_people: Option<f64>,
    /// Judgements of people with a preference between images of the row.
    pub(crate) votes: usize,
    /// The image of each run; null if the run has no sample of this name.
    pub(crate) images: Vec<Option<GalleryImage>>,
}

/// An image of a row.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct GalleryImage {
    /// The sample.
    #[serde(flatten)]
    pub(crate) brief: Brief,
    /// Scores as measured, by metric; metrics without a number are left out.
    pub(crate) scores: BTreeMap<String, f64>,
    /// Metrics that have this image first in the row: no image has a better score, and another one
    /// has a worse score.
    pub(crate) first: Vec<String>,
}

/// Returns samples of the same name side by side, with the metrics' choices in each row.
///
/// A row has the samples of at least two of the runs. Samples are matched by name.
#[utoipa::path(
    get, path = "/v1/analysis/gallery", operation_id = "read_gallery", tag = "analysis",
    params(GalleryQuery),
    responses(
        (status = 200, description = "One page", body = GalleryResponse),
        (status = 404, description = "No such run"),
        (status = 422, description = "Unknown metric"),
    )
)]
pub(crate) async fn read(
    State(app): Shared,
    Query(parameters): Query<GalleryQuery>,
) -> Result<Json<GalleryResponse>, ApiError> {
    respond(&app, parameters).await.map(Json)
}

/// Returns one page of a gallery.
pub(crate) async fn respond(
    app: &App,
    parameters: GalleryQuery,
) -> Result<GalleryResponse, ApiError> {
    let wanted = parameters.metrics.as_deref().map(metrics::parse_codes).transpose()?;
    let limit = page(Some(parameters.limit.unwrap_or(20)))? as usize;
    let offset = parameters.offset.unwrap_or_default();
    let question =
        app.questions.of(parameters.question.unwrap_or_default(), Code::MalformedRequest)?;
    let slice = SliceFilter {
        prompt_kind: parameters.prompt_kind,
        category: parameters.category,
        relation: parameters.relation,
        attribute: parameters.attribute,
        size: parameters.size,
        detectable: parameters.detectable,
        predicate: parameters.predicate,
        template: parameters.template,
        fine_attribute: parameters.fine_attribute,
        aps_attribute: None,
    };
    let options = GalleryOptions {
        filter: GalleryFilter { slice: slice.slice()?, identity: parameters.identity },
        metrics: wanted,
        sort: parameters.sort,
        offset,
        limit,
    };
    let choosing = Choosing {
        runs: parameters.runs.as_deref(),
        dataset: parameters.dataset,
        pack: parameters.pack.as_deref(),
        most: MOST_RUNS,
        ..Choosing::default()
    };
    let chosen = choosing.choose(app).await?;
    let data = chosen.data(app).await?;
    let Chosen { dataset, pack, .. } = chosen;
    let named = data.iter().map(|run| GalleryRun {
        id: run.run,
        method: run.name.method.clone(),
        run: run.name.run.clone(),
        has_scores: run.pack.is_some(),
    });
    let named: Vec<GalleryRun> = named.collect();
    let judged = judgements(app, &question, &data, None).await?;
    let found = blocking(move || analysis::gallery(&data, &judged_pairs(&judged), &options)).await;
    let Gallery { metrics, total, rows, categories, prompt_kinds, identities, attributes } = found;
    let names: Vec<String> = rows.iter().map(|row| row.name.clone()).collect();
    let mut briefs = Vec::new();
    for run in &named {
        briefs.push(app.store.sample_briefs(run.id, &names).await?);
    }
    let next = offset.saturating_add(rows.len());
    let rows = rows.into_iter().map(|row| entry(row, &metrics, &briefs)).collect();
    Ok(GalleryResponse {
        runs: named,
        dataset,
        pack,
        metrics,
        total,
        rows,
        next: (next < total).then_some(next),
        categories,
        prompt_kinds,
        identities,
        attributes,
    })
}

fn entry(
    row: analysis::GalleryRow,
    metrics: &[String],
    briefs: &[BTreeMap<String, SampleBrief>],
) -> GalleryRowEntry {
    let of = |place: usize| briefs[place].get(&row.name);
    let shown: Vec<&SampleBrief> = (0..briefs.len()).filter_map(of).collect();
    let prompt = shown.first().and_then(|brief| brief.prompt.clone());
    let prompts_differ = shown.iter().any(|brief| brief.prompt != prompt);
    let reference = shown.iter().find_map(|brief| brief.references.first().cloned());
    let images = row.images.into_iter().enumerate().map(|(place, image)| {
        let (image, brief) = (image?, of(place)?.clone());
        let scores = metrics.iter().zip(&image.scores);
        let first = metrics.iter().zip(&image.first).filter(|(_, is_first)| **is_first);
        Some(GalleryImage {
            brief: brief.into(),
            scores: scores.filter_map(|(code, score)| Some((code.clone(), (*score)?))).collect(),
            first: first.map(|(code, _)| code.clone()).collect(),
        })
    });
    let images = images.collect();
    GalleryRowEntry {
        identity: row.identity,
        prompt,
        prompts_differ,
        reference,
        disagreement: row.disagreement,
        against_people: row.against_people,
        votes: row.votes,
        images,
        name: row.name,
    }
}
