//! `GET /v1/datasets/{dataset}/statistics`: words, tokens, parts of speech and objects of the
//! prompts of a dataset.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::datasets::find;
use crate::api::http::{ApiError, InPath};
use crate::api::state::{App, Shared};
use crate::{
    analysis::{
        KindStatistics, MOST_KINDS, PromptCounter, PromptText, PublishedFigure, published_figures,
    },
    blocking::blocking,
    store::{DatasetRecord, PromptQuery},
};

/// Prompts per statement.
const PROMPTS_PER_QUERY: u32 = 1_000;

/// Statistics of the prompts of a dataset.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"dataset": "stellar", "statistics": [{"kind": null, "prompts": 2, "texts": 2,
    "people": 1, "prompts_per_person": {"total": 2, "mean": 2.0, "median": 2.0, "max": 2},
    "quantities": [{"quantity": "words", "distinct": 9,
        "per_prompt": {"total": 12, "mean": 6.0, "median": 6.0, "max": 7},
        "per_person": {"total": 12, "mean": 12.0, "median": 12.0, "max": 12}}]}],
    "published": [{"kind": "T", "quantity": "verbs", "published": 96, "found": 1}]}))]
pub(crate) struct StatisticsResponse {
    /// Name of the dataset.
    pub(crate) dataset: String,
    /// All prompts first, then the 100 kinds with most prompts; empty without prompts.
    pub(crate) statistics: Vec<KindStatistics>,
    /// Figures that were published for a dataset of this name, beside those found. They need not
    /// be equal: the authors may have counted with another tagger.
    pub(crate) published: Vec<PublishedFigure>,
}

/// Counts words, tokens, parts of speech and objects of the prompts of a dataset.
///
/// Sums, means, medians and maxima over prompts, and over people of the sum over each person's
/// prompts. Tokens are those of the loaded pack's CLIP.
#[utoipa::path(
    get, path = "/v1/datasets/{dataset}/statistics", operation_id = "read_dataset_statistics",
    tag = "datasets",
    params(("dataset" = String, Path, description = "Name of the dataset")),
    responses(
        (status = 200, description = "The statistics", body = StatisticsResponse),
        (status = 404, description = "No such dataset"),
    )
)]
pub(crate) async fn read(
    State(app): Shared,
    name: InPath<String>,
) -> Result<Json<StatisticsResponse>, ApiError> {
    let dataset = find(&app, name).await?;
    respond(&app, &dataset).await.map(Json)
}

/// Counts the prompts of a dataset.
pub(crate) async fn respond(
    app: &App,
    dataset: &DatasetRecord,
) -> Result<StatisticsResponse, ApiError> {
    let scoring = Arc::clone(&app.scoring);
    let kinds = app.store.largest_prompt_kinds(dataset.id, MOST_KINDS as u32).await?;
    let mut counter = PromptCounter::new(kinds, move |prompt| scoring.prompt_tokens(prompt));
    let mut after = None;
    loop {
        let query = PromptQuery { after, limit: PROMPTS_PER_QUERY, ..PromptQuery::default() };
        let prompts = app.store.prompts(dataset.id, &query).await?;
        let is_last = prompts.len() < PROMPTS_PER_QUERY as usize;
        after = prompts.last().map(|(cursor, _)| cursor.clone());
        counter = blocking(move || {
            for (_, prompt) in &prompts {
                counter.add(&PromptText {
                    identity: &prompt.identity,
                    text: &prompt.text,
                    kind: prompt.kind.as_deref(),
                    detectables: &prompt.facts.detectables,
                });
            }
            counter
        })
        .await;
        if is_last {
            break;
        }
    }
    let statistics = blocking(move || counter.finish()).await;
    let published = published_figures(&dataset.name, &statistics);
    Ok(StatisticsResponse { dataset: dataset.name.clone(), statistics, published })
}
