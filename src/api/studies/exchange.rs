//! Studies on other platforms: tasks as CSV, and the answers to them.

use std::collections::{BTreeMap, BTreeSet};

use axum::{
    Json,
    extract::{Request, State},
    response::Response,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::datasets::showing;
use crate::api::http::form::clean_label;
use crate::api::http::{ApiError, Code, Id, Query, body, csv, page};
use crate::api::state::Shared;
use crate::api::studies::{answers::checked, code, find, question_of};
use crate::{
    analysis::shown_order,
    clock, spreadsheet,
    store::{NewStudyAnswer, StudyItem, StudyRecord, StudyState},
};

/// Limits of an import: rows, columns and bytes. Results of Mechanical Turk have about forty
/// columns.
const MOST_ROWS: usize = 5_000;
const MOST_COLUMNS: usize = 256;
const MOST_BYTES: usize = 8 << 20;

/// Rows of one page of tasks.
const MOST_TASKS: usize = 20_000;

/// Photos of the person that a task has.
const PHOTOS: usize = 4;

/// Tasks to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct TasksQuery {
    /// The question. Default: the first one of the study.
    question: Option<String>,
    /// Address before the hash of each image. Default: only the hashes, as names of files.
    #[param(example = "https://images.example.org/")]
    images: Option<String>,
    /// Ending after the hash of each image, such as `.png`.
    ending: Option<String>,
    /// The value of `X-Next-Page` of the previous page.
    after: Option<u32>,
    /// Items per page, 1 to 1000; each has as many rows as it wants answers. Pages have at most
    /// 20,000 rows, and thus fewer items if these want many answers. Default: 100.
    limit: Option<u32>,
}

/// Lists the tasks of a study as CSV, one row for each wanted answer, for Mechanical Turk or
/// Prolific.
///
/// A row has its own random order of the images. Photos of people are left out unless all runs are
/// over registered datasets, and all datasets of the service are `redistributable`.
#[utoipa::path(
    get, path = "/v1/studies/{id}/tasks", operation_id = "list_study_tasks", tag = "studies",
    params(("id" = Uuid, Path, description = "Id of the study"), TasksQuery),
    responses(
        (status = 200, description = "The tasks: task, question, prompt, image_1 …, photo_1 …, \
            photos_withheld, code", body = String, content_type = "text/csv"),
        (status = 404, description = "No such study"),
        (status = 422, description = "The study does not ask this question, or an address is \
            invalid"),
    )
)]
pub(crate) async fn list(
    State(app): Shared,
    id: Id<StudyRecord>,
    Query(parameters): Query<TasksQuery>,
) -> Result<Response, ApiError> {
    let limit = page(parameters.limit)? as usize;
    let study = find(&app, id).await?;
    let plan = &study.plan;
    let limit = limit.min(MOST_TASKS / plan.answers_per_item.max(1) as usize).max(1);
    let question = question_of(plan, parameters.question.as_deref())?;
    let prefix = text("images", parameters.images)?;
    let ending = text("ending", parameters.ending)?;
    let is_first = plan.questions.first().is_some_and(|first| first == question.as_str());
    let mut items = app.store.study_items(study.id).await?;
    items.retain(|item| {
        parameters.after.is_none_or(|after| item.place > after)
            && (item.right.is_none() || is_first)
    });
    let next = items.get(limit.saturating_sub(1)).map(|item| item.place);
    let next = next.filter(|_| items.len() > limit);
    items.truncate(limit);
    let mut wanted: BTreeMap<Uuid, BTreeSet<String>> = BTreeMap::new();
    for item in &items {
        for run in &item.runs {
            wanted.entry(*run).or_default().insert(item.name.clone());
        }
    }
    let shown = app.store.shown_samples(&wanted).await?;
    let withheld = showing::withheld(&app, plan.all_runs()).await?;
    let address = |hash: &str| format!("{prefix}{hash}{ending}");
    let mut lines = Vec::new();
    for item in &items {
        let of = |run: &Uuid| shown.get(&(*run, item.name.clone()));
        let prompt = item.runs.iter().find_map(|run| of(run)?.prompt.clone());
        let photos =
            item.runs.iter().find_map(|run| Some(&of(run)?.photos).filter(|of| !of.is_empty()));
        for copy in 1..=plan.answers_per_item {
            let task = format!("{}-{copy}", item.place);
            let order = shown_order(plan.seed, &format!("task {task}"), item);
            let mut line = vec![
                task.clone(),
                question.as_str().to_owned(),
                prompt.clone().unwrap_or_default(),
            ];
            line.extend(order.iter().map(|run| {
                let image = of(run).and_then(|sample| sample.image);
                image.map(|image| address(&image.to_hex())).unwrap_or_default()
            }));
            line.extend((0..PHOTOS).map(|at| {
                let photo = photos.filter(|_| withheld.is_none()).and_then(|all| all.get(at));
                photo.map(|photo| address(photo)).unwrap_or_default()
            }));
            line.push(withheld.as_ref().map(|why| format!("withheld: {why}")).unwrap_or_default());
            line.push(task_code(&study, &task, question.as_str()));
            lines.push(line);
        }
    }
    let numbered = |name: &str, most: usize| -> Vec<String> {
        (1..=most).map(|at| format!("{name}_{at}")).collect()
    };
    let mut header: Vec<String> = ["task", "question", "prompt"].map(str::to_owned).into();
    header.extend(numbered("image", plan.images()));
    header.extend(numbered("photo", PHOTOS));
    header.extend(["photos_withheld", "code"].map(str::to_owned));
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    Ok(csv::answer("tasks.csv", &header, lines, next.map(|next| next.to_string()).as_deref()))
}

/// Returns a part of an address as it was sent, if it is short and visible.
fn text(name: &str, value: Option<String>) -> Result<String, ApiError> {
    value.map_or_else(|| Ok(String::new()), |text| clean_label(name, &text))
}

fn task_code(study: &StudyRecord, task: &str, question: &str) -> String {
    code(study, &format!("task {task} {question}"))
}

/// Outcome of reading answers.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ImportedAnswers {
    /// Number of recorded answers.
    accepted: usize,
}

/// Columns by the names that platforms give them.
const COLUMNS: [(&str, &[&str]); 4] = [
    ("task", &["task", "Input.task"]),
    ("annotator", &["annotator", "WorkerId", "participant_id", "Participant id", "PROLIFIC_PID"]),
    ("choice", &["choice", "Answer.choice"]),
    ("code", &["code", "Answer.code"]),
];

/// Records answers to tasks that another platform collected, all or none.
///
/// The columns are `task`, `annotator`, `choice` (a position from 1 on, `tie` or `cannot_tell`) and
/// `code`; those of Mechanical Turk (`Input.task`, `WorkerId`, `Answer.choice`, `Answer.code`) and
/// Prolific (`participant_id`) have their own names. `question` or `Input.question` is optional.
/// Other columns are ignored.
#[utoipa::path(
    post, path = "/v1/studies/{id}/import", operation_id = "import_study_answers",
    tag = "studies",
    params(("id" = Uuid, Path, description = "Id of the study")),
    request_body(content((String = "text/csv"))),
    responses(
        (status = 200, description = "Recorded", body = ImportedAnswers),
        (status = 404, description = "No such study"),
        (status = 409, description = "The study is a draft"),
        (status = 415, description = "The content type is not text/csv"),
        (status = 422, description = "A row has an unknown task, a wrong code, no valid choice, or \
            a second answer; nothing was recorded"),
    )
)]
pub(crate) async fn import(
    State(app): Shared,
    id: Id<StudyRecord>,
    request: Request,
) -> Result<Json<ImportedAnswers>, ApiError> {
    let text = body::csv(request, MOST_BYTES).await?;
    let study = find(&app, id).await?;
    if study.state == StudyState::Draft {
        let problem = "the study is a draft: open it first";
        return Err(ApiError::new(Code::StudyClosed, problem));
    }
    let items = app.store.study_items(study.id).await?;
    let items: BTreeMap<u32, StudyItem> =
        items.into_iter().map(|item| (item.place, item)).collect();
    let known = app.store.study_answers(study.id, None).await?;
    let mut answered: BTreeSet<(String, u32, String)> = BTreeSet::new();
    let mut of_each: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    for answer in known {
        of_each.entry(answer.annotator.clone()).or_default().insert(answer.item);
        answered.insert((answer.annotator, answer.item, answer.question.as_str().to_owned()));
    }
    let mut new = Vec::new();
    for (at, row) in rows(&text)?.into_iter().enumerate() {
        let place = format!("line {}", at + 2);
        let answer = answer(&study, &items, &row).map_err(|error| error.within(&place))?;
        let refuse =
            |problem: String| Err(ApiError::new(Code::InvalidField, problem).within(&place));
        let item = answer.item.place;
        let key = (answer.annotator.clone(), item, answer.question.as_str().to_owned());
        if !answered.insert(key) {
            return refuse(format!("this annotator has answered about item {item} already"));
        }
        let own = of_each.entry(answer.annotator.clone()).or_default();
        own.insert(item);
        if own.len() > study.plan.most_items() {
            return refuse("this annotator is over the quota of the study".to_owned());
        }
        new.push(answer);
    }
    let gold = study.plan.gold.as_ref();
    let now = clock::now();
    let accepted = app.store.add_study_answers(study.id, gold, &new, now).await?.len();
    Ok(Json(ImportedAnswers { accepted }))
}

/// A row: task, annotator, choice, code and question.
struct Row {
    cells: [String; 4],
    question: Option<String>,
}

fn rows(text: &str) -> Result<Vec<Row>, ApiError> {
    let invalid = |problem: String| ApiError::new(Code::InvalidField, problem);
    spreadsheet::check_width(text, MOST_COLUMNS).map_err(|error| invalid(error.to_string()))?;
    let mut reader =
        ::csv::ReaderBuilder::new().trim(::csv::Trim::All).from_reader(text.as_bytes());
    let header = reader.headers().map_err(|error| invalid(error.to_string()))?.clone();
    let place = |names: &[&str]| {
        // What the worker typed is preferred to what the task had.
        names.iter().rev().find_map(|name| header.iter().position(|head| head == *name))
    };
    let mut places = [0; 4];
    for (at, (name, names)) in COLUMNS.iter().enumerate() {
        places[at] = place(names).ok_or_else(|| {
            invalid(format!("there is no column {name} (or one of {})", names.join(", ")))
        })?;
    }
    let question = place(&["question", "Input.question"]);
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| invalid(error.to_string()))?;
        if rows.len() == MOST_ROWS {
            return Err(invalid(format!(
                "there are more than {MOST_ROWS} rows: send fewer at once"
            )));
        }
        let cell = |at: usize| spreadsheet::plain(record.get(at).unwrap_or_default()).to_owned();
        rows.push(Row {
            cells: places.map(cell),
            question: question.map(cell).filter(|word| !word.is_empty()),
        });
    }
    if rows.is_empty() {
        return Err(invalid("there are no rows".to_owned()));
    }
    Ok(rows)
}

fn answer(
    study: &StudyRecord,
    items: &BTreeMap<u32, StudyItem>,
    row: &Row,
) -> Result<NewStudyAnswer, ApiError> {
    let [task, annotator, choice, given] = &row.cells;
    let plan = &study.plan;
    let invalid = |problem: &str| Err(ApiError::new(Code::InvalidField, problem));
    let parsed = task.split_once('-').and_then(|(item, copy)| {
        let copy =
            copy.parse::<u32>().ok().filter(|copy| (1..=plan.answers_per_item).contains(copy));
        copy.and(items.get(&item.parse().ok()?))
    });
    let Some(item) = parsed else {
        return invalid("the study has no such task: `task` must be as in the list of tasks");
    };
    let question = question_of(plan, row.question.as_deref())?;
    if !given.eq_ignore_ascii_case(&task_code(study, task, question.as_str())) {
        return invalid("the code is not the one of this task");
    }
    let annotator = clean_label("annotator", annotator)?;
    let shown = shown_order(plan.seed, &format!("task {task}"), item);
    checked(plan, item.clone(), Some(question.as_str()), &annotator, choice, shown)
}
