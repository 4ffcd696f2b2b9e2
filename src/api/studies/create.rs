//! `POST /v1/studies`: checks a plan and draws its items.

use std::collections::{BTreeMap, BTreeSet};

use axum::{
    Json,
    extract::{Request, State},
    http::StatusCode,
};
use uuid::Uuid;

use crate::api::http::form::clean_label;
use crate::api::http::{ApiError, Code, body};
use crate::api::state::{App, Shared};
use crate::api::studies::StudyResponse;
use crate::{
    analysis::{MOST_SETS, draw_items, sets, sets_per_prompt},
    blocking::blocking,
    clock,
    content::ContentHash,
    label,
    scoring::Metadata,
    store::{
        GoldItem, GoldPlan, PromptSelection, Question, RunRecord, StudyForm, StudyItem, StudyPlan,
        StudyRecord, StudyState,
    },
};

/// Limit of a plan in bytes: ten thousand names fit.
const MOST_BYTES: usize = 4 << 20;

/// Limits of a plan.
pub(crate) const MOST_RUNS: usize = 20;
const MOST_NAMES: usize = 10_000;
const MOST_PEOPLE: usize = 1_000;
const MOST_ITEMS: usize = 20_000;
pub(crate) const MOST_GOLD: usize = 100;
const MOST_ANSWERS: usize = 500_000;
const MOST_SAMPLES: u64 = 100_000;
/// Characters of the text that annotators accept.
pub(crate) const MOST_CONSENT: usize = 4_000;

/// Creates a study, in the state `draft`.
///
/// The items are drawn once, from the samples that all runs have at this moment. The same plan
/// again returns the study that exists; another plan of the same name is refused.
#[utoipa::path(
    post, path = "/v1/studies", operation_id = "create_study", tag = "studies",
    request_body(content = StudyPlan),
    responses(
        (status = 200, description = "It exists with the same plan", body = StudyResponse),
        (status = 201, description = "Created", body = StudyResponse),
        (status = 400, description = "Malformed body"),
        (status = 409, description = "It exists with another plan"),
        (status = 422, description = "The plan is invalid"),
    )
)]
pub(crate) async fn create(
    State(app): Shared,
    request: Request,
) -> Result<(StatusCode, Json<StudyResponse>), ApiError> {
    app.admission.room()?;
    let plan: StudyPlan = body::json(request, MOST_BYTES).await?;
    let _permit = app.admission.enter()?;
    let (study, is_new) = respond(&app, plan).await?;
    Ok((if is_new { StatusCode::CREATED } else { StatusCode::OK }, Json(study)))
}

/// Creates a study. Returns it, and whether it is new.
pub(crate) async fn respond(app: &App, plan: StudyPlan) -> Result<(StudyResponse, bool), ApiError> {
    let plan = clean(app, plan)?;
    let (mut names, samples) = prompts(app, &plan).await?;
    if plan.prompts.names.is_none() {
        // Otherwise, annotators would see the images of a gold item twice.
        let gold = plan.gold.iter().flat_map(|gold| &gold.items);
        let gold: BTreeSet<&str> = gold.map(|item| item.name.as_str()).collect();
        names.retain(|name| !gold.contains(name.as_str()));
    }
    if names.is_empty() {
        return Err(invalid(format!(
            "no prompt fits: all runs must have an image of the same name, the selection must keep \
             it, and gold items must leave it ({samples} samples of the first run have an image)"
        )));
    }
    let gold = plan.gold.as_ref().map_or(&[][..], |gold| &gold.items);
    if let Some((at, run)) = gold_without_image(app, gold).await? {
        let problem = format!("gold.items[{at}]: the run {run} has no image of this name");
        return Err(invalid(problem));
    }
    let drawn = plan.prompts.sample.map_or(names.len(), |most| names.len().min(most as usize));
    let items = drawn * sets_per_prompt(&plan);
    let answers = items * plan.questions.len() * plan.answers_per_item as usize;
    if items > MOST_ITEMS || answers > MOST_ANSWERS {
        return Err(invalid(format!(
            "the study would have {items} items and {answers} answers, and at most {MOST_ITEMS} \
             and {MOST_ANSWERS} are allowed: draw fewer prompts (prompts.sample)"
        )));
    }
    let (plan, items): (StudyPlan, Vec<StudyItem>) = blocking(move || {
        let items = draw_items(&plan, names);
        (plan, items)
    })
    .await;
    let mut secret = [0; 16];
    getrandom::fill(&mut secret).map_err(|error| ApiError::internal(&error))?;
    let study = StudyRecord {
        id: Uuid::now_v7(),
        plan,
        state: StudyState::Draft,
        secret: ContentHash::of(&secret).to_hex(),
        created: clock::now(),
    };
    let (stored, is_new) = app.store.create_study(&study, &items).await?;
    if stored.plan != study.plan {
        return Err(ApiError::new(
            Code::StudyConflict,
            "a study of this name exists with another plan: choose another name, or send the \
                same plan",
        ));
    }
    Ok((stored.into(), is_new))
}

fn invalid(problem: impl Into<String>) -> ApiError {
    ApiError::new(Code::InvalidField, problem)
}

fn within(name: &str, value: usize, least: usize, most: usize) -> Result<(), ApiError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(invalid(format!("`{name}` is {value}: send {least} to {most}")))
}

/// Returns a plan as it is stored, with the defaults that depend on others; refuses an invalid one.
fn clean(app: &App, plan: StudyPlan) -> Result<StudyPlan, ApiError> {
    let mut plan = plan;
    plan.name = clean_label("name", &plan.name)?;
    plan.title = if plan.title.trim().is_empty() {
        plan.name.clone()
    } else {
        clean_label("title", &plan.title)?
    };
    within("runs", plan.runs.len(), 2, MOST_RUNS)?;
    if plan.runs.iter().collect::<BTreeSet<_>>().len() < plan.runs.len() {
        return Err(invalid("`runs` has a run twice"));
    }
    within("questions", plan.questions.len(), 1, 8)?;
    let known: BTreeSet<&str> = app.questions.all().iter().map(Question::as_str).collect();
    let asked: BTreeSet<&str> = plan.questions.iter().map(String::as_str).collect();
    if asked.len() < plan.questions.len() {
        return Err(invalid("`questions` has a question twice"));
    }
    if !asked.is_subset(&known) {
        let known = known.into_iter().collect::<Vec<_>>().join(", ");
        return Err(invalid(format!(
            "`questions` has one that this service does not have: send some of {known}, or have \
             the operator add it to analysis.questions"
        )));
    }
    match plan.form {
        StudyForm::Pairs if plan.k.is_some_and(|k| k != 2) => {
            return Err(invalid("`k` is for the form `best_of`: pairs have two images"));
        }
        StudyForm::BestOf if plan.ties => {
            return Err(invalid("`ties` is for pairs: of several images, one is the best"));
        }
        _ => plan.k = Some(plan.images() as u32),
    }
    let images = plan.images();
    within("k", images, 2, plan.runs.len().min(8))?;
    let all = sets(plan.runs.len(), images);
    if all > MOST_SETS {
        return Err(invalid(format!(
            "there are more than {MOST_SETS} sets of {images} out of {} runs: send fewer runs or \
             a smaller k",
            plan.runs.len()
        )));
    }
    within("sets_per_prompt", sets_per_prompt(&plan), 1, all.min(1_000))?;
    within("answers_per_item", plan.answers_per_item as usize, 1, 1_000)?;
    within("quota", plan.most_items(), 1, 1_000)?;
    plan.prompts = clean_prompts(plan.prompts)?;
    if let Some(gold) = plan.gold.take() {
        plan.gold = Some(clean_gold(gold, images)?);
    }
    if let Some(consent) = &plan.consent {
        within("consent", consent.chars().count(), 1, MOST_CONSENT)?;
        label::check_lines(consent).map_err(|problem| invalid(format!("`consent` {problem}")))?;
    }
    if let Some(code) = plan.completion_code.take() {
        within("completion_code", code.len(), 1, 64)?;
        plan.completion_code = Some(clean_label("completion_code", &code)?);
    }
    Ok(plan)
}

/// A list of names that may be missing.
type Names = Option<Vec<String>>;

fn clean_prompts(prompts: PromptSelection) -> Result<PromptSelection, ApiError> {
    let label =
        |name: &str, value: Option<String>| value.map(|text| clean_label(name, &text)).transpose();
    let list = |name: &str, most: usize, list: Names| -> Result<Names, ApiError> {
        let Some(list) = list else { return Ok(None) };
        within(name, list.len(), 1, most)?;
        let clean = list.iter().map(|text| clean_label(name, text));
        let clean: BTreeSet<String> = clean.collect::<Result<_, _>>()?;
        Ok(Some(clean.into_iter().collect()))
    };
    if let Some(sample) = prompts.sample {
        within("prompts.sample", sample as usize, 1, MOST_NAMES)?;
    }
    Ok(PromptSelection {
        dataset: label("prompts.dataset", prompts.dataset)?,
        split: label("prompts.split", prompts.split)?,
        kind: label("prompts.kind", prompts.kind)?,
        people: list("prompts.people", MOST_PEOPLE, prompts.people)?,
        names: list("prompts.names", MOST_NAMES, prompts.names)?,
        sample: prompts.sample,
    })
}

fn clean_gold(gold: GoldPlan, images: usize) -> Result<GoldPlan, ApiError> {
    let mut gold = gold;
    within("gold.items", gold.items.len(), 1, MOST_GOLD)?;
    let least = gold.least();
    within("gold.least", least as usize, 1, 100)?;
    if least as usize > gold.items.len() {
        return Err(invalid(format!(
            "`gold.least` is {least}, which is more than the number of gold items, {}, so that \
             nobody could ever be left out: send at most their number, or add gold items",
            gold.items.len()
        )));
    }
    gold.least = Some(least);
    within("gold.every", gold.every as usize, 2, 100)?;
    if !(0.0..=1.0).contains(&gold.share) {
        return Err(invalid("`gold.share` is not between 0 and 1"));
    }
    for (at, item) in gold.items.iter_mut().enumerate() {
        let place = format!("gold.items[{at}]");
        item.name = clean_label("name", &item.name).map_err(|error| error.within(&place))?;
        let distinct = item.runs.iter().collect::<BTreeSet<_>>().len();
        if distinct != images || item.runs.len() != images || !item.runs.contains(&item.right) {
            return Err(invalid(format!(
                "{place}: it needs {images} different runs, and `right` must be one of them"
            )));
        }
    }
    Ok(gold)
}

/// Returns the position of the first item with a run that has no image of its name, and this run.
pub(crate) async fn gold_without_image(
    app: &App,
    items: &[GoldItem],
) -> Result<Option<(usize, Uuid)>, ApiError> {
    let mut wanted: BTreeMap<Uuid, BTreeSet<String>> = BTreeMap::new();
    for item in items {
        for run in &item.runs {
            wanted.entry(*run).or_default().insert(item.name.clone());
        }
    }
    let shown = app.store.shown_samples(&wanted).await?;
    let has_image = |run: &Uuid, name: &str| {
        shown.get(&(*run, name.to_owned())).is_some_and(|sample| sample.image.is_some())
    };
    Ok(items.iter().enumerate().find_map(|(at, item)| {
        let run = item.runs.iter().find(|run| !has_image(run, &item.name))?;
        Some((at, *run))
    }))
}

/// Returns the names of the prompts that all runs have and the plan selects, and the number of
/// images of the first run.
async fn prompts(app: &App, plan: &StudyPlan) -> Result<(Vec<String>, usize), ApiError> {
    let mut methods = BTreeSet::new();
    let mut found: Option<BTreeSet<String>> = None;
    let mut of_first = 0;
    for (at, &id) in plan.runs.iter().enumerate() {
        let place = format!("runs[{at}]");
        let run = app.store.run(id).await?;
        let run = run.ok_or_else(|| invalid(format!("{place}: there is no run with this id")))?;
        check_run(&run, plan).map_err(|error| error.within(&place))?;
        if !methods.insert(run.name.method.clone()) {
            return Err(invalid(format!(
                "{place}: another run is of the same method: send one run of each method"
            )));
        }
        let samples = app.store.run_samples(id).await?.unwrap_or_default();
        let (selection, before) = (plan.prompts.clone(), found.take());
        let (kept, images) = blocking(move || {
            let mut kept = BTreeSet::new();
            let mut images = 0;
            for sample in samples.into_iter().filter(|sample| sample.image.is_some()) {
                images += 1;
                let is_common = before.as_ref().is_none_or(|of| of.contains(&sample.name));
                // The first run says of what kind a prompt is.
                if is_common
                    && (before.is_some() || selects(&selection, &sample.name, sample.metadata))
                {
                    kept.insert(sample.name);
                }
            }
            (kept, images)
        })
        .await;
        found = Some(kept);
        if at == 0 {
            of_first = images;
        }
    }
    Ok((found.unwrap_or_default().into_iter().collect(), of_first))
}

fn check_run(run: &RunRecord, plan: &StudyPlan) -> Result<(), ApiError> {
    for (what, wanted, has) in [
        ("dataset", &plan.prompts.dataset, &run.facts.dataset),
        ("split", &plan.prompts.split, &run.facts.split),
    ] {
        if wanted.is_some() && wanted != has {
            return Err(invalid(format!("the run is over another {what} than prompts.{what}")));
        }
    }
    if run.counts.scored > MOST_SAMPLES {
        return Err(invalid(format!("the run has more than {MOST_SAMPLES} samples")));
    }
    Ok(())
}

/// Returns whether a selection keeps a sample.
fn selects(prompts: &PromptSelection, name: &str, metadata: serde_json::Value) -> bool {
    let is_named = |list: &Option<Vec<String>>, name: &str| {
        list.as_ref()
            .is_none_or(|list| list.binary_search_by(|each| each.as_str().cmp(name)).is_ok())
    };
    if !is_named(&prompts.names, name) {
        return false;
    }
    if prompts.kind.is_none() && prompts.people.is_none() {
        return true;
    }
    let facts: Metadata = serde_json::from_value(metadata).unwrap_or_default();
    let is_of_kind = prompts.kind.is_none() || prompts.kind == facts.prompt_kind;
    is_of_kind && is_named(&prompts.people, facts.identity.as_deref().unwrap_or_default())
}
