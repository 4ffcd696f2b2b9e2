//! `/v1/preferences`: votes and ratings of annotators.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use axum::{
    Json,
    extract::{Path, Request, State},
    http::{StatusCode, header},
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::http::form::clean_label;
use crate::api::http::{
    ApiError, Code, Id, InPath, Query, Resource, body, not_found, page, page_of,
};
use crate::api::questions::{QuestionWord, Questions};
use crate::api::state::{App, Shared};
use crate::{
    analysis::{judged_pairs, next_pairs},
    blocking::blocking,
    label, spreadsheet,
    store::{self, Judgement, NewPreference, Preference, RunsQuery},
};

/// Maximum number of methods from which the next pairs are chosen.
const MOST_METHODS: usize = 200;

/// Maximum number of pairs of methods that are searched for unjudged samples: each is a statement.
const MOST_QUESTIONS: usize = 200;

/// Limits of one request: its number of preferences, and its body in bytes.
const MOST_PREFERENCES: usize = 10_000;
const MOST_BYTES: usize = 8 << 20;

/// Maximum number of columns of a CSV of preferences; seven are known.
const MOST_COLUMNS: usize = 32;

/// The preferred one of two images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Choice {
    /// The image of `run_a`.
    A,
    /// The image of `run_b`.
    B,
    /// Neither is preferred.
    Tie,
}

/// A preference: a vote with `run_a`, `run_b` and `preferred`, or a rating with `run` and `rating`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"question": "overall", "annotator": "ada", "name": "0007-0042",
    "run_a": "0197a7c6-6f00-7000-8000-000000000001", "run_b": "0197a7c6-6f00-7000-8000-000000000002", "preferred": "a"}))]
pub(super) struct PreferenceEntry {
    /// The question put to the annotator.
    question: QuestionWord,
    /// Name of the annotator; any name that distinguishes annotators.
    annotator: String,
    /// Name of the sample in the run, or in both runs.
    name: String,
    /// First run of a vote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run_a: Option<Uuid>,
    /// Second run of a vote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run_b: Option<Uuid>,
    /// The preferred image of a vote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    preferred: Option<Choice>,
    /// Run of a rating.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run: Option<Uuid>,
    /// The rating; higher is better. Any scale is allowed if it is the same for all ratings of an
    /// annotator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rating: Option<f64>,
}

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
    accepted: usize,
}

/// A stored preference.
#[derive(Debug, Serialize, ToSchema)]
struct StoredPreference {
    /// Id of the preference.
    id: Uuid,
    /// The preference. The two runs of a vote may be swapped relative to the request.
    #[serde(flatten)]
    preference: PreferenceEntry,
    /// Time at which it was recorded.
    #[serde(with = "time::serde::rfc3339")]
    created: OffsetDateTime,
}

/// Records preferences of annotators, all or nothing.
///
/// The body is JSON, or text/csv with a header: `question,annotator,name,run_a,run_b,preferred` for
/// votes, `question,annotator,name,run,rating` for ratings. A preference replaces an earlier one of
/// the same annotator, question and images.
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
    let new: Vec<NewPreference> = preferences
        .into_iter()
        .enumerate()
        .map(|(at, preference)| {
            preference.into_new(&app.questions).map_err(|error| error.within(&place(at)))
        })
        .collect::<Result<_, _>>()?;
    match app.store.add_preferences(&new, OffsetDateTime::now_utc()).await? {
        Ok(accepted) => Ok(Json(Accepted { accepted })),
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

impl PreferenceEntry {
    fn into_new(self, questions: &Questions) -> Result<NewPreference, ApiError> {
        let invalid = |why| Err(ApiError::new(Code::InvalidField, why));
        let Self { question, annotator, name, run_a, run_b, preferred, run, rating } = self;
        let judgement = match (run_a, run_b, preferred, run, rating) {
            (Some(a), Some(b), Some(preferred), None, None) => {
                if a == b {
                    return invalid("run_a and run_b are the same: a vote is between two runs");
                }
                let preference = match preferred {
                    Choice::A => 1,
                    Choice::B => -1,
                    Choice::Tie => 0,
                };
                Judgement::Vote { a, b, preference }
            }
            (None, None, None, Some(run), Some(rating)) => Judgement::Rating { run, rating },
            _ => {
                return invalid(
                    "it is neither a vote nor a rating: a vote has run_a, run_b and preferred, a \
                        rating has run and rating",
                );
            }
        };
        let question = questions.of(question, Code::InvalidField)?;
        let (annotator, name) =
            (clean_label("annotator", &annotator)?, clean_label("name", &name)?);
        Ok(NewPreference { question, annotator, name, judgement })
    }
}

impl Resource for Preference {
    const NAME: &'static str = "preference";
}

impl From<Preference> for StoredPreference {
    fn from(of: Preference) -> Self {
        let Preference { id, question, annotator, name, judgement, created } = of;
        let of_nothing = PreferenceEntry {
            question: question.into(),
            annotator,
            name,
            run_a: None,
            run_b: None,
            preferred: None,
            run: None,
            rating: None,
        };
        let preference = match judgement {
            Judgement::Vote { a, b, preference } => {
                let preferred = match preference {
                    1.. => Choice::A,
                    0 => Choice::Tie,
                    _ => Choice::B,
                };
                PreferenceEntry {
                    run_a: Some(a),
                    run_b: Some(b),
                    preferred: Some(preferred),
                    ..of_nothing
                }
            }
            Judgement::Rating { run, rating } => {
                PreferenceEntry { run: Some(run), rating: Some(rating), ..of_nothing }
            }
        };
        Self { id, preference, created }
    }
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
    let PreferencesQuery { question, annotator, run, after, limit } = parameters;
    let question = question.map(|word| app.questions.of(word, Code::MalformedRequest));
    let question = question.transpose()?;
    let read = async |limit| {
        let limit = Some(limit);
        let query = store::PreferencesQuery { question, annotator, run, after, limit };
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
    if app.store.delete_preference(id.0).await? {
        return Ok(StatusCode::NO_CONTENT);
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

/// Selects pairs to label next.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct NextQuery {
    /// The question. Default: `overall`.
    question: Option<QuestionWord>,
    /// Number of pairs, 1 to 1000. Default: 100.
    limit: Option<u32>,
}

/// Pairs to label next.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"question": "overall", "pairs": [{
    "name": "0007-0042", "method_a": "mine", "run_a": "0197a7c6-6f00-7000-8000-000000000001", "method_b": "yours",
    "run_b": "0197a7c6-6f00-7000-8000-000000000002", "judged": 12, "expected": 0.48, "gain": 0.0192}]}))]
pub(super) struct NextResponse {
    /// The question.
    question: QuestionWord,
    /// Pairs of images without a vote on this question. Those of the most informative pairs of
    /// methods come first.
    pairs: Vec<NextEntry>,
}

/// A pair of images to put to annotators.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct NextEntry {
    /// Name of the sample in both runs.
    name: String,
    /// First method.
    method_a: String,
    /// Newest run of the first method.
    run_a: Uuid,
    /// Second method.
    method_b: String,
    /// Newest run of the second method.
    run_b: Uuid,
    /// Number of judged pairs of images of the two methods so far.
    judged: usize,
    /// Estimated probability that A is preferred.
    expected: f64,
    /// Expected information of one more vote: p(1 − p) / (1 + judged), at most 0.25.
    gain: f64,
}

/// Lists pairs of images to label next.
///
/// Pairs of methods that can hardly be distinguished yet, or were hardly compared, come first.
#[utoipa::path(
    get, path = "/v1/preferences/next", operation_id = "next_pair", tag = "analysis",
    params(NextQuery),
    responses((status = 200, description = "The pairs, most informative \
        first", body = NextResponse))
)]
pub(super) async fn next(
    State(app): Shared,
    Query(parameters): Query<NextQuery>,
) -> Result<Json<NextResponse>, ApiError> {
    let question =
        app.questions.of(parameters.question.unwrap_or_default(), Code::MalformedRequest)?;
    let limit = page(parameters.limit)? as usize;
    let query = store::PreferencesQuery {
        question: Some(question.clone()),
        ..store::PreferencesQuery::default()
    };
    let preferences = app.store.preferences(&query).await?;
    let mut methods = methods_of_runs(&app).await?;
    // Ids are ordered by time: the largest is the newest.
    let newest: BTreeMap<String, Uuid> =
        methods.iter().map(|(run, method)| (method.clone(), *run)).collect();
    // The methods with the newest runs if there are many: the number of pairs is quadratic.
    let mut recent: Vec<Uuid> = newest.values().copied().collect();
    recent.sort_unstable_by(|a, b| b.cmp(a));
    recent.truncate(MOST_METHODS);
    let recent: BTreeSet<&String> =
        newest.iter().filter(|(_, run)| recent.contains(run)).map(|(name, _)| name).collect();
    methods.retain(|_, method| recent.contains(method));
    let ranked = blocking(move || next_pairs(&judged_pairs(&preferences), &methods)).await;
    // A share for each of the first pairs of methods, so that no pair of methods fills the list.
    let each = limit.div_ceil(ranked.len().clamp(1, 10)) as u32;
    let mut pairs = Vec::new();
    for pair in ranked.into_iter().take(MOST_QUESTIONS) {
        if pairs.len() >= limit {
            break;
        }
        let (run_a, run_b) = (newest[&pair.a], newest[&pair.b]);
        for name in app.store.unjudged(&question, run_a, run_b, each).await? {
            pairs.push(NextEntry {
                name,
                method_a: pair.a.clone(),
                run_a,
                method_b: pair.b.clone(),
                run_b,
                judged: pair.judged,
                expected: pair.expected,
                gain: pair.gain,
            });
        }
    }
    pairs.truncate(limit);
    Ok(Json(NextResponse { question: question.into(), pairs }))
}

/// Returns the method of each run.
pub(super) async fn methods_of_runs(
    app: &App,
) -> Result<std::collections::BTreeMap<Uuid, String>, ApiError> {
    let mut methods = std::collections::BTreeMap::new();
    let mut after = None;
    loop {
        let runs =
            app.store.runs(&RunsQuery { after, limit: 1_000, ..RunsQuery::default() }).await?;
        after = runs.last().map(|run| run.id);
        let more = runs.len() == 1_000;
        methods.extend(runs.into_iter().map(|run| (run.id, run.name.method)));
        if !more {
            return Ok(methods);
        }
    }
}
