//! `GET /v1/analysis/alignment` and `/v1/analysis/preferences`: agreement of metrics with
//! annotators and of annotators with each other, and the preferred methods.

use std::collections::{BTreeMap, BTreeSet};

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::http::{ApiError, Code, Query};
use crate::api::preferences::next::methods_of_runs;
use crate::api::preferences::selection::Selection;
use crate::api::questions::QuestionWord;
use crate::api::state::{App, Shared};
use crate::{
    analysis::{
        AnnotatorAgreement, JudgedPair, MethodPreferences, PublishedAlignment, SliceAlignment,
        Voting, alignment, annotator_agreement, judged_pairs, method_preferences, published,
        voting,
    },
    blocking::blocking,
    metrics,
    store::{Preference, Question, RunData},
};

/// Filters of preferences and scores.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AlignmentQuery {
    /// The question put to annotators. Default: `overall`.
    pub(crate) question: Option<QuestionWord>,
    /// Only these metrics, codes separated by commas.
    #[param(example = "ips,clip_t")]
    pub(crate) metrics: Option<String>,
    /// Digest of a model pack. Default: the loaded pack.
    pub(crate) pack: Option<String>,
    /// Only preferences of this annotator.
    pub(crate) annotator: Option<String>,
    /// Slices with fewer pairs are left out. Default: 20.
    pub(crate) min_pairs: Option<usize>,
    /// Only preferences of this study.
    pub(crate) study: Option<Uuid>,
    /// Only preferences about runs over this dataset.
    pub(crate) dataset: Option<String>,
    /// Only preferences about this run.
    pub(crate) run: Option<Uuid>,
    /// Only preferences about prompts of this kind (`metadata.prompt_kind`).
    pub(crate) kind: Option<String>,
}

/// Agreement of metrics with annotators.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "question": "overall", "pack": "…", "answers": 600,
    "agreement": {"annotators": 3, "votes_shared": 200, "votes_alpha": 0.62, "votes_alpha_low": 0.55,
                  "votes_alpha_high": 0.68, "ratings_shared": 0, "ratings_alpha": null, "ratings_alpha_low": null, "ratings_alpha_high": null},
    "slices": [{"kind": "", "label": "", "pairs": 600, "metrics": [
        {"metric": "ips", "version": 1, "pairs": 590, "tau": 0.41, "low": 0.33, "high": 0.49, "agreement": 0.71}]}],
    "published": {"source": "Stellar, arXiv 2312.06116", "tau": {"ips": 0.455}}}))]
pub(crate) struct AlignmentResponse {
    /// The question put to annotators.
    pub(crate) question: QuestionWord,
    /// Digest of the pack of the scores.
    pub(crate) pack: String,
    /// Number of preferences.
    pub(crate) answers: usize,
    /// Agreement of annotators with each other.
    pub(crate) agreement: AnnotatorAgreement,
    /// Agreement over all pairs first, then by slice.
    pub(crate) slices: Vec<SliceAlignment>,
    /// Correlations that the Stellar paper published for this question, not measured here.
    pub(crate) published: PublishedTau,
}

/// Published correlations.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct PublishedTau {
    /// Source of the correlations.
    pub(crate) source: String,
    /// Kendall's tau by code of the metric.
    pub(crate) tau: BTreeMap<String, f64>,
}

/// Measures the agreement of metrics with annotators, by slice and with intervals.
///
/// The agreement is Kendall's tau-b over the pairs of images that annotators compared. Its sign is
/// reversed for metrics where lower is better, so that 1 is full agreement for every metric. Scores
/// are as measured, without any penalty.
#[utoipa::path(
    get, path = "/v1/analysis/alignment", operation_id = "read_alignment", tag = "analysis",
    params(AlignmentQuery),
    responses(
        (status = 200, description = "The agreement", body = AlignmentResponse),
        (status = 422, description = "Unknown metric"),
    )
)]
pub(crate) async fn read(
    State(app): Shared,
    Query(parameters): Query<AlignmentQuery>,
) -> Result<Json<AlignmentResponse>, ApiError> {
    respond(&app, parameters).await.map(Json)
}

/// Measures the agreement of metrics with annotators.
pub(crate) async fn respond(
    app: &App,
    parameters: AlignmentQuery,
) -> Result<AlignmentResponse, ApiError> {
    let min_pairs = parameters.min_pairs.unwrap_or(20);
    let selection = Selection {
        question: app
            .questions
            .of(parameters.question.unwrap_or_default(), Code::MalformedRequest)?,
        annotator: parameters.annotator,
        study: parameters.study,
        dataset: parameters.dataset,
        run: parameters.run,
        kind: parameters.kind,
    };
    let (metrics, pack) = (parameters.metrics.as_deref(), parameters.pack.as_deref());
    let judged = judged(app, selection, metrics, pack).await?;
    let Judged { question, pack, preferences, pairs, data } = judged;
    let (preferences, agreement) = blocking(move || {
        let agreement = annotator_agreement(&preferences);
        (preferences, agreement)
    })
    .await;
    let slices = blocking(move || alignment(&pairs, &data, min_pairs)).await;
    let of = |row: &PublishedAlignment| match question {
        Question::Overall => Some(row.overall),
        Question::Object => Some(row.object),
        Question::Relation => Some(row.relation),
        // Not asked in the paper.
        Question::Identity | Question::Own(_) => None,
    };
    let rows = published().alignment.iter();
    let tau = rows.filter_map(|row| Some((row.metric.clone(), of(row)?))).collect();
    let published = PublishedTau { source: published().source.clone(), tau };
    let question = question.into();
    Ok(AlignmentResponse {
        question,
        pack,
        answers: preferences.len(),
        agreement,
        slices,
        published,
    })
}

/// Judgements, and the scores of the samples that they are about.
pub(super) struct Judged {
    pub(super) question: Question,
    /// Digest of the pack of the scores.
    pub(super) pack: String,
    pub(super) preferences: Vec<Preference>,
    /// The pairs of images in them, each with the name of its samples.
    pub(super) pairs: Vec<(String, JudgedPair)>,
    pub(super) data: RunData,
}

/// Reads judgements with the scores of one pack: of all metrics, or of those that are named.
pub(super) async fn judged(
    app: &App,
    selection: Selection,
    metrics: Option<&str>,
    pack: Option<&str>,
) -> Result<Judged, ApiError> {
    let wanted = metrics.map(metrics::parse_list).transpose()?;
    let pack = app.digest_of(pack).await?;
    let preferences = selection.read(app, false).await?;
    let pairs = judged_pairs(&preferences);
    let mut samples: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for (name, pair) in &pairs {
        for run in [pair.a, pair.b] {
            samples.entry(run).or_default().insert(name.clone());
        }
    }
    let mut data = app.store.samples_data(&samples, &pack).await?;
    if let Some(wanted) = wanted {
        data.metrics.retain(|code, _| wanted.iter().any(|metric| metric.code == code));
    }
    Ok(Judged { question: selection.question, pack, preferences, pairs, data })
}

/// Filters of preferences.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct MethodPreferencesQuery {
    /// The question put to annotators. Default: `overall`.
    pub(crate) question: Option<QuestionWord>,
    /// Only preferences of this annotator.
    pub(crate) annotator: Option<String>,
    /// Only preferences of this study.
    pub(crate) study: Option<Uuid>,
    /// Only preferences about runs over this dataset.
    pub(crate) dataset: Option<String>,
    /// Only preferences about this run.
    pub(crate) run: Option<Uuid>,
    /// Only preferences about prompts of this kind (`metadata.prompt_kind`).
    pub(crate) kind: Option<String>,
}

/// The preferred methods.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "question": "overall", "answers": 600,
    "agreement": {"annotators": 3, "votes_shared": 200, "votes_alpha": 0.62, "votes_alpha_low": 0.55,
                  "votes_alpha_high": 0.68, "ratings_shared": 0, "ratings_alpha": null, "ratings_alpha_low": null, "ratings_alpha_high": null},
    "methods": [{"method": "mine", "pairs": 400, "wins": 260, "ties": 20, "share": 0.675, "share_low": 0.62, "share_high": 0.73,
                 "strength": 0.4, "strength_low": 0.28, "strength_high": 0.52}]}))]
pub(crate) struct PreferencesResponse {
    /// The question put to annotators.
    pub(crate) question: QuestionWord,
    /// Number of preferences.
    pub(crate) answers: usize,
    /// Agreement of annotators with each other.
    pub(crate) agreement: AnnotatorAgreement,
    /// How often annotators repeat their own answer, and whether the position of an image matters.
    #[serde(default)]
    pub(crate) voting: Voting,
    /// Preference shares and strengths of methods.
    #[serde(flatten)]
    pub(crate) preferences: MethodPreferences,
}

/// Returns preference shares and Bradley-Terry strengths of methods.
#[utoipa::path(
    get, path = "/v1/analysis/preferences", operation_id = "read_method_preferences",
    tag = "analysis", params(MethodPreferencesQuery),
    responses((status = 200, description = "The methods, best first", body = PreferencesResponse))
)]
pub(crate) async fn preferences(
    State(app): Shared,
    Query(parameters): Query<MethodPreferencesQuery>,
) -> Result<Json<PreferencesResponse>, ApiError> {
    respond_preferences(&app, parameters).await.map(Json)
}

/// Returns preference shares and strengths of methods.
pub(crate) async fn respond_preferences(
    app: &App,
    parameters: MethodPreferencesQuery,
) -> Result<PreferencesResponse, ApiError> {
    let question =
        app.questions.of(parameters.question.unwrap_or_default(), Code::MalformedRequest)?;
    let selection = Selection {
        question: question.clone(),
        annotator: parameters.annotator,
        study: parameters.study,
        dataset: parameters.dataset,
        run: parameters.run,
        kind: parameters.kind,
    };
    let judged = selection.read(app, false).await?;
    let uncounted = selection.read(app, true).await?;
    let methods = methods_of_runs(app).await?;
    let answers = judged.len();
    let (of, names) = extent(&judged, &methods);
    if of > MOST_METHODS || of * names > MOST_CELLS {
        let problem = format!(
            "the preferences are about {of} methods and {names} samples, but at most \
                {MOST_METHODS} methods and {MOST_CELLS} pairs of \
             method and sample are analysed at once: select an annotator"
        );
        return Err(ApiError::new(Code::MalformedRequest, problem));
    }
    let (agreement, voting, preferences) = blocking(move || {
        let preferences = method_preferences(&judged_pairs(&judged), &methods);
        (annotator_agreement(&judged), voting(&judged, &uncounted), preferences)
    })
    .await;
    let question = question.into();
    Ok(PreferencesResponse { question, answers, agreement, voting, preferences })
}

/// Maximum number of methods whose strengths are fitted together: the cost of the errors is cubic.
const MOST_METHODS: usize = 300;

/// Maximum number of pairs of method and sample that are resampled together.
const MOST_CELLS: usize = 2_000_000;

/// Returns the number of methods and the number of samples that the votes are about.
fn extent(preferences: &[Preference], methods: &BTreeMap<Uuid, String>) -> (usize, usize) {
    let (mut named, mut samples) = (BTreeSet::new(), BTreeSet::new());
    for preference in preferences {
        if let crate::store::Judgement::Vote { a, b, .. } = preference.judgement {
            named.extend([a, b].iter().filter_map(|run| methods.get(run)));
            samples.insert(preference.name.as_str());
        }
    }
    (named.len(), samples.len())
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::store::Judgement;

    #[test]
    fn only_votes_count_methods_and_samples() {
        let runs: Vec<Uuid> = (0..4).map(Uuid::from_u128).collect();
        let methods = runs
            .iter()
            .zip(["a", "a", "b", "c"])
            .map(|(run, method)| (*run, method.to_owned()))
            .collect();
        let preference = |name: &str, judgement| Preference {
            id: Uuid::nil(),
            question: Question::Overall,
            annotator: "x".to_owned(),
            name: name.to_owned(),
            judgement,
            shown_first: None,
            is_repeat: false,
            trial: None,
            created: OffsetDateTime::UNIX_EPOCH,
        };
        let vote = |name, a: usize, b: usize| {
            preference(name, Judgement::Vote { a: runs[a], b: runs[b], preference: 1 })
        };
        let preferences = [
            vote("1", 0, 2),
            vote("1", 1, 2),
            vote("2", 0, 1),
            preference("3", Judgement::Rating { run: runs[3], rating: 1.0 }),
        ];
        assert_eq!(extent(&preferences, &methods), (2, 2));
    }
}
