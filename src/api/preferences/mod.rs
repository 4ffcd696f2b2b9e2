//! `/v1/preferences`: votes and ratings of annotators.

pub(super) mod entry;
pub(super) mod next;
pub(super) mod selection;
pub(super) mod turns;

use std::fmt;

use axum::{
    Json,
    extract::{Path, Request, State},
    http::{StatusCode, header},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::http::{ApiError, Code, Id, InPath, Query, body, not_found, page_of};
use crate::api::preferences::entry::{PreferenceEntry, StoredPreference};
use crate::api::questions::QuestionWord;
use crate::api::state::{App, Shared};
use crate::{
    clock, label, spreadsheet,
    store::{self, NewPreference, Preference, Question},
};

/// Limits of one request: its number of preferences, and its body in bytes.
const MOST_PREFERENCES: usize = 10_000;
const MOST_BYTES: usize = 8 << 20;

/// Maximum number of columns of a CSV of preferences; ten are known.
const MOST_COLUMNS: usize = 32;

/// Preferences to record.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewPreferences {
    /// 1 to 10,000 preferences.
    #[serde(deserialize_with = "body::at_most::<MOST_PREFERENCES, _, _>")]
    preferences: Vec<PreferenceEntry>,
}

/// Outcome of recording preferences.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"accepted": 2}))]
pub(super) struct Accepted {
    /// Number of preferences. If an annotator judges the same images for the same question several
    /// times, the last one counts.
    pub(crate) accepted: usize,
}

/// Records preferences of annotators, all or nothing.
///
/// The body is JSON, or text/csv with a header: `question,annotator,name,run_a,run_b,preferred` for
/// votes, `question,annotator,name,run,rating` for ratings. A preference replaces an earlier one of
/// the same annotator, question and images. Votes of `cannot_tell`, and votes with `repeat`, are
/// kept apart: no analysis of preferences counts them.
#[utoipa::path(
    post, path = "/v1/preferences", operation_id = "add_preferences", tag = "analysis",
    request_body(content((NewPreferences = "application/json"), (String = "text/csv"))),
    responses(
        (status = 200, description = "Recorded", body = Accepted),
        (status = 400, description = "Malformed body"),
        (status = 415, description = "Neither JSON nor CSV"),
        (status = 422, description = "A preference is invalid, or its sample does not exist: \
            nothing was recorded"),
    )
)]
pub(super) async fn add(State(app): Shared, request: Request) -> Result<Json<Accepted>, ApiError> {
    let media_type =
        request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_csv = media_type.is_some_and(|value| value.trim_start().starts_with("text/csv"));
    let preferences = if is_csv {
        read_csv(&body::csv(request, MOST_BYTES).await?)?
    } else {
        body::json::<NewPreferences>(request, MOST_BYTES).await?.preferences
    };
    if preferences.is_empty() || preferences.len() > MOST_PREFERENCES {
        let problem = format!(
            "there are no preferences, or too many: send 1 to {MOST_PREFERENCES} at a time"
        );
        return Err(ApiError::new(Code::InvalidField, problem));
    }
    let place =
        |at: usize| if is_csv { format!("line {}", at + 2) } else { format!("preferences[{at}]") };
    respond(&app, preferences, place).await.map(Json)
}

/// Records preferences; `place` names the one at an index in errors.
pub(crate) async fn respond(
    app: &App,
    preferences: Vec<PreferenceEntry>,
    place: impl Fn(usize) -> String,
) -> Result<Accepted, ApiError> {
    let new: Vec<NewPreference> = preferences
        .into_iter()
        .enumerate()
        .map(|(at, preference)| {
            preference.into_new(&app.questions).map_err(|error| error.within(&place(at)))
        })
        .collect::<Result<_, _>>()?;
    match app.store.add_preferences(&new, clock::now()).await? {
        Ok(accepted) => Ok(Accepted { accepted }),
        Err(unknown) => {
            let name: String = unknown.name.chars().take(80).collect();
            Err(ApiError::new(
                Code::InvalidField,
                format!(
                    "{}: the run {} has no sample `{name}`; nothing was recorded, so correct it \
                        and send all preferences again",
                    place(unknown.place),
                    unknown.run
                ),
            ))
        }
    }
}

fn read_csv(text: &str) -> Result<Vec<PreferenceEntry>, ApiError> {
    let invalid = |error: &dyn fmt::Display| {
        ApiError::new(
            Code::InvalidField,
            format!(
                "the CSV is invalid ({error}): its header must be \
                    question,annotator,name,run_a,run_b,preferred for votes or \
                 question,annotator,name,run,rating for ratings"
            ),
        )
    };
    spreadsheet::check_width(text, MOST_COLUMNS).map_err(|error| invalid(&error))?;
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    // One more than the limit shows that there are too many.
    reader
        .deserialize()
        .take(MOST_PREFERENCES + 1)
        .map(|preference| preference.map_err(|error| invalid(&error)))
        .collect()
}

/// Filters of preferences, and the page.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PreferencesQuery {
    /// Only preferences for this question.
    question: Option<QuestionWord>,
    /// Only preferences of this annotator.
    annotator: Option<String>,
    /// Only preferences about this run.
    run: Option<Uuid>,
    /// Only preferences of this study.
    study: Option<Uuid>,
    /// Only preferences about runs over this dataset.
    dataset: Option<String>,
    /// False for the votes that no analysis counts: "cannot tell", and repeats. Default: true.
    counted: Option<bool>,
    /// `next` of the previous page.
    after: Option<Uuid>,
    /// Preferences per page, 1 to 1000. Default: 100.
    limit: Option<u32>,
}

/// One page of preferences.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PreferencesPage {
    /// Preferences in the order in which they were recorded.
    preferences: Vec<StoredPreference>,
    /// Cursor of the next page, to be sent as `after`; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Uuid>,
}

/// Lists preferences of annotators.
#[utoipa::path(
    get, path = "/v1/preferences", operation_id = "list_preferences", tag = "analysis",
    params(PreferencesQuery),
    responses((status = 200, description = "One page", body = PreferencesPage))
)]
pub(super) async fn list(
    State(app): Shared,
    Query(parameters): Query<PreferencesQuery>,
) -> Result<Json<PreferencesPage>, ApiError> {
    let PreferencesQuery { question, annotator, run, study, dataset, counted, after, limit } =
        parameters;
    let question = question.map(|word| app.questions.of(word, Code::MalformedRequest));
    let (question, uncounted) = (question.transpose()?, counted == Some(false));
    let read = async |limit| {
        let limit = Some(limit);
        let query = store::PreferencesQuery {
            question,
            annotator,
            run,
            study,
            dataset,
            uncounted,
            after,
            limit,
        };
        app.store.preferences(&query).await
    };
    let (preferences, next) = page_of(limit, read, |last| last.id).await?;
    Ok(Json(PreferencesPage { preferences, next }))
}

/// Deletes a preference.
#[utoipa::path(
    delete, path = "/v1/preferences/{id}", operation_id = "delete_preference", tag = "analysis",
    params(("id" = Uuid, Path, description = "Id of the preference")),
    responses(
        (status = 204, description = "Deleted"),
        (status = 404, description = "No such preference"),
    )
)]
pub(super) async fn delete(State(app): Shared, id: Id<Preference>) -> Result<StatusCode, ApiError> {
    withdraw(&app, id.0).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Returns the answers of an annotator to a question, with those that do not count.
pub(crate) async fn answers(
    app: &App,
    question: &Question,
    annotator: &str,
) -> Result<Vec<Preference>, ApiError> {
    let mut found = Vec::new();
    for uncounted in [false, true] {
        let query = store::PreferencesQuery {
            question: Some(question.clone()),
            annotator: Some(annotator.to_owned()),
            uncounted,
            ..store::PreferencesQuery::default()
        };
        let votes = app.store.preferences(&query).await?;
        // Those of studies are withdrawn there.
        found.extend(votes.into_iter().filter(|vote| vote.trial.is_none()));
    }
    Ok(found)
}

/// Deletes a preference.
pub(crate) async fn withdraw(app: &App, id: Uuid) -> Result<(), ApiError> {
    if app.store.delete_preference(id).await? {
        return Ok(());
    }
    Err(not_found("preference with this id: GET /v1/preferences lists all preferences"))
}

/// Outcome of deleting an annotator.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct DeletedPreferences {
    /// Number of deleted preferences.
    preferences: u64,
}

/// Deletes all preferences of an annotator.
#[utoipa::path(
    delete, path = "/v1/annotators/{annotator}", tag = "privacy",
    params(("annotator" = String, Path, description = "Name of the annotator")),
    responses(
        (status = 200, description = "Deleted", body = DeletedPreferences),
        (status = 404, description = "No preferences by this annotator"),
    )
)]
pub(super) async fn delete_annotator(
    State(app): Shared,
    annotator: InPath<String>,
) -> Result<Json<DeletedPreferences>, ApiError> {
    let annotator = annotator.map(|Path(name)| name).unwrap_or_default();
    let mut deleted = 0;
    for name in label::forms(&annotator) {
        deleted += app.store.delete_annotator(&name).await?;
    }
    match deleted {
        0 => Err(ApiError::new(
            Code::NotFound,
            "no preferences by this annotator; GET /v1/preferences lists annotators",
        )),
        preferences => Ok(Json(DeletedPreferences { preferences })),
    }
}
