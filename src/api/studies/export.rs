//! `GET /v1/studies/{id}/answers`: all answers, with pseudonyms.

use std::collections::{BTreeMap, BTreeSet};

use axum::{
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::http::{ApiError, Id, Query, csv};
use crate::api::state::Shared;
use crate::api::studies::{find, results::methods};
use crate::content::ContentHash;
use crate::store::StudyRecord;

/// Format of an export.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ExportFormat {
    /// Comma-separated values with a header line.
    #[default]
    Csv,
    /// A JSON object in each line.
    Jsonl,
}

/// Options of an export.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExportQuery {
    /// Format. Default: `csv`.
    #[serde(default)]
    format: ExportFormat,
}

/// An answer as it is exported.
#[derive(Debug, Serialize)]
struct Exported {
    annotator: String,
    item: u32,
    name: String,
    question: String,
    choice: String,
    position: Option<usize>,
    shown: Vec<String>,
    gold: bool,
    right: Option<bool>,
    excluded: bool,
}

/// Exports all answers of a study, without names and times.
///
/// An annotator has the same pseudonym throughout an export and another one in each export, since
/// its salt is not kept. Answers are in the order of items, not of time. The columns are
/// `annotator`, `item`, `name` of the samples, `question`, `choice` (a method, `tie` or
/// `cannot_tell`), `position` of the chosen image, `shown` (the methods in the order of their
/// images), `gold`, `right` (of gold items) and `excluded`.
#[utoipa::path(
    get, path = "/v1/studies/{id}/answers", operation_id = "export_study_answers",
    tag = "studies",
    params(("id" = Uuid, Path, description = "Id of the study"), ExportQuery),
    responses(
        (status = 200, description = "The answers", content(
            (String = "text/csv"), (String = "application/jsonl"))),
        (status = 404, description = "No such study"),
    )
)]
pub(crate) async fn read(
    State(app): Shared,
    id: Id<StudyRecord>,
    Query(parameters): Query<ExportQuery>,
) -> Result<Response, ApiError> {
    let study = find(&app, id).await?;
    let mut salt = [0; 32];
    getrandom::fill(&mut salt).map_err(|error| ApiError::internal(&error))?;
    let runs: Vec<Uuid> = study.plan.all_runs().into_iter().collect();
    let methods: BTreeMap<Uuid, String> = methods(&app, &runs).await?.into_iter().collect();
    let items = app.store.study_items(study.id).await?;
    let excluded = app.store.exclusions(study.id).await?;
    let excluded: BTreeSet<&str> = excluded.iter().map(|of| of.annotator.as_str()).collect();
    let name = |run: &Uuid| methods.get(run).cloned().unwrap_or_else(|| format!("run {run}"));
    let mut rows: Vec<Exported> = Vec::new();
    for answer in app.store.study_answers(study.id, None).await? {
        let at = items.binary_search_by_key(&answer.item, |item| item.place);
        let Some(item) = at.ok().map(|at| &items[at]) else { continue };
        let pseudonym = ContentHash::of_parts([&salt[..], answer.annotator.as_bytes()]).to_hex();
        let (word, chosen) = answer.choice.parts();
        rows.push(Exported {
            annotator: pseudonym[..16].to_owned(),
            item: item.place,
            name: item.name.clone(),
            question: answer.question.as_str().to_owned(),
            choice: chosen.as_ref().map_or_else(|| word.to_owned(), &name),
            position: answer.shown.iter().position(|run| Some(*run) == chosen).map(|at| at + 1),
            shown: answer.shown.iter().map(name).collect(),
            gold: item.right.is_some(),
            right: item.right.map(|right| chosen == Some(right)),
            excluded: excluded.contains(answer.annotator.as_str()),
        });
    }
    rows.sort_by(|a, b| {
        (a.item, &a.question, &a.annotator).cmp(&(b.item, &b.question, &b.annotator))
    });
    if parameters.format == ExportFormat::Jsonl {
        let line = |row| serde_json::to_string(row).expect("plain data always serialises") + "\n";
        let mut response = rows.iter().map(line).collect::<String>().into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jsonl"));
        return Ok(response);
    }
    let lines = rows.into_iter().map(|row| {
        vec![
            row.annotator,
            row.item.to_string(),
            row.name,
            row.question,
            row.choice,
            csv::optional(row.position),
            row.shown.join(" | "),
            row.gold.to_string(),
            csv::optional(row.right),
            row.excluded.to_string(),
        ]
    });
    let header = [
        "annotator",
        "item",
        "name",
        "question",
        "choice",
        "position",
        "shown",
        "gold",
        "right",
        "excluded",
    ];
    Ok(csv::answer("answers.csv", &header, lines.collect(), None))
}
