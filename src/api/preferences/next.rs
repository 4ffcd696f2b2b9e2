//! `GET /v1/preferences/next`: the pairs of images to put to annotators next.

use std::collections::{BTreeMap, BTreeSet};

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::http::{ApiError, Code, Query, page};
use crate::api::preferences::entry::Side;
use crate::api::preferences::turns::{Asked, Purpose, Turns};
use crate::api::questions::QuestionWord;
use crate::api::state::{App, Shared};
use crate::{
    analysis::{NextPair, next_pairs},
    blocking::blocking,
    content::ContentHash,
    store::{Preference, PreferencesQuery, Question, RunsQuery},
};

/// Maximum number of methods from which the next pairs are chosen.
const MOST_METHODS: usize = 200;

/// Maximum number of pairs of methods that are searched for unjudged samples: each is a statement.
const MOST_QUESTIONS: usize = 200;

/// Number of unjudged samples of two methods from which those for an annotator are drawn, so that
/// an annotator does not meet one person after the other in the order of the names.
const DRAWN_FROM: u32 = 5_000;

/// Selects pairs to label next.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct NextQuery {
    /// The question. Default: `overall`.
    pub(crate) question: Option<QuestionWord>,
    /// The annotator who will be asked. Leaves out what the annotator has answered, and adds pairs
    /// that others judged and pairs to repeat.
    pub(crate) annotator: Option<String>,
    /// Number of pairs, 1 to 1000. Default: 100.
    pub(crate) limit: Option<u32>,
}

/// Pairs to label next.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"question": "overall", "pairs": [{
    "name": "0007-0042", "method_a": "mine", "run_a": "0197a7c6-6f00-7000-8000-000000000001", "method_b": "yours",
    "run_b": "0197a7c6-6f00-7000-8000-000000000002", "judged": 12, "expected": 0.48, "gain": 0.0192,
    "purpose": "new", "show_first": "b", "prompt": "a person riding a horse", "image_a": "…", "image_b": "…",
    "photos": ["…"]}]}))]
pub(crate) struct NextResponse {
    /// The question.
    pub(crate) question: QuestionWord,
    /// Number of answers of the annotator to this question so far, with "cannot tell" and repeats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) answered: Option<usize>,
    /// Pairs of images without a vote on this question outside studies, those of the most
    /// informative pairs of methods first. With `annotator`, in the order in which the annotator
    /// should be asked.
    pub(crate) pairs: Vec<NextEntry>,
}

/// A pair of images to put to annotators.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct NextEntry {
    /// Name of the sample in both runs.
    pub(crate) name: String,
    /// First method.
    pub(crate) method_a: String,
    /// Newest run of the first method.
    pub(crate) run_a: Uuid,
    /// Second method.
    pub(crate) method_b: String,
    /// Newest run of the second method.
    pub(crate) run_b: Uuid,
    /// Number of votes about the two methods so far, also in studies.
    pub(crate) judged: usize,
    /// Estimated probability that A is preferred.
    pub(crate) expected: f64,
    /// Expected information of one more vote: p(1 − p) / (1 + judged), at most 0.25.
    pub(crate) gain: f64,
    /// Why it is put to an annotator.
    pub(crate) purpose: Purpose,
    /// Image to show first (on the left): random, but always the same for an annotator and a pair.
    /// A repeat shows the other one first.
    pub(crate) show_first: Side,
    /// The prompt of the images.
    pub(crate) prompt: Option<String>,
    /// BLAKE3 hash of the file of A's image; null if only scores were imported.
    pub(crate) image_a: Option<String>,
    /// BLAKE3 hash of the file of B's image.
    pub(crate) image_b: Option<String>,
    /// BLAKE3 hashes of the photos of the person: the reference images, then the auxiliary ones.
    pub(crate) photos: Vec<String>,
}

/// Lists pairs of images to label next.
///
/// Pairs of methods that can hardly be distinguished yet, or were hardly compared, come first. With
/// `annotator`, two of ten pairs are ones that others judged, and one of ten is repeated, so that
/// agreement and consistency can be measured.
#[utoipa::path(
    get, path = "/v1/preferences/next", operation_id = "next_pair", tag = "analysis",
    params(NextQuery),
    responses((status = 200, description = "The pairs, most informative \
        first", body = NextResponse))
)]
pub(crate) async fn read(
    State(app): Shared,
    Query(parameters): Query<NextQuery>,
) -> Result<Json<NextResponse>, ApiError> {
    respond(&app, parameters).await.map(Json)
}

/// Lists pairs of images to label next.
pub(crate) async fn respond(app: &App, parameters: NextQuery) -> Result<NextResponse, ApiError> {
    let question =
        app.questions.of(parameters.question.unwrap_or_default(), Code::MalformedRequest)?;
    let limit = page(parameters.limit)? as usize;
    let votes = app.store.vote_counts(&question).await?;
    let turns = match parameters.annotator {
        Some(annotator) => Some(turns(app, &question, annotator, limit as u32).await?),
        None => None,
    };
    let all = methods_of_runs(app).await?;
    // Ids are ordered by time: the largest is the newest.
    let newest: BTreeMap<String, Uuid> =
        all.iter().map(|(run, method)| (method.clone(), *run)).collect();
    // The methods with the newest runs if there are many: the number of pairs is quadratic.
    let mut recent: Vec<Uuid> = newest.values().copied().collect();
    recent.sort_unstable_by(|a, b| b.cmp(a));
    recent.truncate(MOST_METHODS);
    let recent: BTreeSet<&String> =
        newest.iter().filter(|(_, run)| recent.contains(run)).map(|(name, _)| name).collect();
    let mut methods = all.clone();
    methods.retain(|_, method| recent.contains(method));
    let ranked = blocking(move || next_pairs(&votes, &methods)).await;
    let new = unjudged(app, &question, &ranked, &newest, turns.as_ref(), limit).await?;
    let (asked, answered) = match &turns {
        Some(turns) => (turns.order(new, limit), Some(turns.answered())),
        None => (new, None),
    };
    let annotator = turns.as_ref().map_or("", |turns| turns.annotator());
    let pairs = entries(app, &question, annotator, asked, &ranked, &all).await?;
    Ok(NextResponse { question: question.into(), answered, pairs })
}

/// Reads what the order of one annotator depends on: their own judgements, and a bounded number of
/// pairs that others judged.
async fn turns(
    app: &App,
    question: &Question,
    annotator: String,
    limit: u32,
) -> Result<Turns, ApiError> {
    let own = |uncounted| PreferencesQuery {
        question: Some(question.clone()),
        annotator: Some(annotator.clone()),
        uncounted,
        ..PreferencesQuery::default()
    };
    let outside = |mut votes: Vec<Preference>| {
        votes.retain(|vote| vote.trial.is_none());
        votes
    };
    let counted = outside(app.store.preferences(&own(false)).await?);
    let uncounted = outside(app.store.preferences(&own(true)).await?);
    let others = app.store.judged_by_others(question, &annotator, limit).await?;
    Ok(Turns::new(annotator, &counted, &uncounted, others))
}

/// Returns pairs that nobody judged, those of the most informative pairs of methods first.
async fn unjudged(
    app: &App,
    question: &Question,
    ranked: &[NextPair],
    newest: &BTreeMap<String, Uuid>,
    turns: Option<&Turns>,
    limit: usize,
) -> Result<Vec<Asked>, ApiError> {
    // A share for each of the first pairs of methods, so that no pair of methods fills the list.
    let each = limit.div_ceil(ranked.len().clamp(1, 10));
    let mut found = Vec::new();
    for pair in ranked.iter().take(MOST_QUESTIONS) {
        if found.len() >= limit {
            break;
        }
        let (a, b) = (newest[&pair.a], newest[&pair.b]);
        let most = if turns.is_some() { DRAWN_FROM } else { each as u32 };
        let mut names = app.store.unjudged(question, a, b, most).await?;
        if let Some(turns) = turns {
            // What the annotator could not tell has no vote, and is not asked again.
            names.retain(|name| !turns.has_answered(name, a, b));
            names.sort_by_cached_key(|name| ContentHash::of(name.as_bytes()).to_hex());
        }
        found.extend(names.into_iter().take(each).map(|name| Asked::new(name, a, b)));
    }
    found.truncate(limit);
    Ok(found)
}

/// Adds to pairs what an annotator is shown.
async fn entries(
    app: &App,
    question: &Question,
    annotator: &str,
    asked: Vec<Asked>,
    ranked: &[NextPair],
    methods: &BTreeMap<Uuid, String>,
) -> Result<Vec<NextEntry>, ApiError> {
    let mut wanted: BTreeMap<Uuid, BTreeSet<String>> = BTreeMap::new();
    for pair in &asked {
        for run in [pair.a, pair.b] {
            wanted.entry(run).or_default().insert(pair.name.clone());
        }
    }
    let shown = app.store.shown_samples(&wanted).await?;
    let ranks: BTreeMap<(&str, &str), &NextPair> =
        ranked.iter().map(|pair| ((&*pair.a, &*pair.b), pair)).collect();
    let entry = |pair: Asked| {
        // Deleted meanwhile.
        let method_a = methods.get(&pair.a)?;
        let method_b = methods.get(&pair.b)?;
        let of_a = shown.get(&(pair.a, pair.name.clone()))?;
        let of_b = shown.get(&(pair.b, pair.name.clone()))?;
        let straight = ranks.get(&(&**method_a, &**method_b)).map(|rank| (*rank, false));
        let swapped = || ranks.get(&(&**method_b, &**method_a)).map(|rank| (*rank, true));
        let rank = straight.or_else(swapped);
        let expected = rank.map_or(
            0.5,
            |(rank, swapped)| {
                if swapped { 1.0 - rank.expected } else { rank.expected }
            },
        );
        Some(NextEntry {
            show_first: pair.show_first(question, annotator),
            purpose: pair.purpose,
            method_a: method_a.clone(),
            run_a: pair.a,
            method_b: method_b.clone(),
            run_b: pair.b,
            judged: rank.map_or(0, |(rank, _)| rank.judged),
            expected,
            gain: rank.map_or(0.0, |(rank, _)| rank.gain),
            prompt: of_a.prompt.clone().or_else(|| of_b.prompt.clone()),
            image_a: of_a.image.map(|image| image.to_hex()),
            image_b: of_b.image.map(|image| image.to_hex()),
            photos: if of_a.photos.is_empty() { of_b } else { of_a }.photos.clone(),
            name: pair.name,
        })
    };
    Ok(asked.into_iter().filter_map(entry).collect())
}

/// Returns one pair as an annotator is shown it, if both images exist.
pub(crate) async fn one(
    app: &App,
    question: &Question,
    annotator: &str,
    asked: Asked,
) -> Result<Option<NextEntry>, ApiError> {
    let methods = methods_of_runs(app).await?;
    Ok(entries(app, question, annotator, vec![asked], &[], &methods).await?.pop())
}

/// Returns the method of each run.
pub(crate) async fn methods_of_runs(app: &App) -> Result<BTreeMap<Uuid, String>, ApiError> {
    let mut methods = BTreeMap::new();
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
