//! `GET /methods/{name}`: a method with what its authors declare, its runs and their settings.

use axum::{extract::State, response::Response};
use maud::{Markup, html};

use super::{
    address::Address,
    charts::clip,
    number, show,
    table::{Cell, Column, Row, Table},
    view::{Section, View},
};
use crate::api::http::{ApiError, InPath};
use crate::api::methods::{self, DeclaredBy, MethodResponse, MethodRun, TrainingTerm};
use crate::api::state::Shared;
use crate::card::{CollectedSetting, Cost, MethodCard, Paper};

/// Longest address that is shown in full, in characters.
const URL: usize = 80;

/// Values of a mixed setting that are shown.
const VALUES: usize = 4;

/// Settings of images, in the order of the columns.
const SETTINGS: [(&str, &str); 4] =
    [("model", "Model"), ("steps", "Steps"), ("guidance", "Guidance"), ("seed", "Seed")];

/// Parameters that the page takes: none but downloads.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct NoParameters {}

/// Responds with the page.
pub(super) async fn read(
    State(app): Shared,
    path: InPath<String>,
    address: Address,
) -> Result<Response, ApiError> {
    let NoParameters {} = address.query(&[])?;
    let response = methods::respond(&app, &methods::name_in(path)?).await?;
    let method = &response.method;
    let title = clip(&method.name, show::NAME);
    let mut view = View::new(Section::Leaderboard, title, &address).style("runs.css");
    let runs = view.table(&table(&view, &response.runs));
    let content = html! {
        div.title { h1 { bdi { (method.name) } } (view.share()) }
        p.lead { "What the authors of a method declare about it. Nothing of it is measured here." }
        @if let Some(description) = &method.description { p { bdi { (description) } } }
        h2 { "Card" }
        @match &method.card {
            Some(card) => (facts(&view, card)),
            None => p.fine {
                "The method has no card. " code { "POST /v1/methods" } " takes one."
            },
        }
        h2 { "Training" }
        (training(&response))
        h2 { "Runs and settings" }
        p.fine {
            "Settings are those of the images' own files, counted when a run is finished. "
            em { "Mixed" } " means that images of a run differ; the most frequent values come first."
        }
        (runs)
        @if method.runs > response.runs.len() as u64 {
            p.fine {
                (response.runs.len()) " of " (number::count(method.runs)) " runs are shown, the newest. "
                (view.link(&Address::new("/runs").with("method", &method.name), &html! { "All runs" }))
            }
        }
    };
    view.respond(&app, &content)
}

fn facts(view: &View, card: &MethodCard) -> Markup {
    let tuning = match (card.subject_tuning, card.tuning_steps) {
        (Some(true), Some(steps)) => {
            Some(format!("yes, {} steps", number::count(u64::from(steps))))
        }
        (Some(true), None) => Some("yes".to_owned()),
        (Some(false), _) => Some("no".to_owned()),
        (None, _) => None,
    };
    let cost = |cost: &Option<Cost>| {
        cost.as_ref().map(|Cost { seconds, gpu }| match gpu {
            Some(gpu) => format!("{seconds} s on {gpu}"),
            None => format!("{seconds} s"),
        })
    };
    let texts = [
        ("Licence", card.licence.clone()),
        ("Base model", card.base_model.clone()),
        ("Photos per subject", card.photos_per_subject.map(|photos| photos.to_string())),
        ("Tuned for each subject", tuning),
        ("Time per subject", cost(&card.per_subject)),
        ("Time per image", cost(&card.per_image)),
    ];
    html! {
        dl.facts {
            @if let Some(Paper { title, url }) = &card.paper {
                dt { "Paper" }
                dd {
                    @if let Some(title) = title { bdi { (title) } " " }
                    @if let Some(url) = url { (external(view, url)) }
                }
            }
            @if let Some(url) = &card.code_url { dt { "Code" } dd { (external(view, url)) } }
            @for (name, text) in &texts {
                dt { (name) }
                dd {
                    @match text {
                        Some(text) => bdi { (text) },
                        None => span.fine { "not declared" },
                    }
                }
            }
        }
    }
}

/// Renders a link to another site, which learns nothing of this page.
fn external(view: &View, url: &str) -> Markup {
    let shown = html! { bdi { (clip(url, URL)) } };
    html! {
        @if view.is_shared() { (shown) } @else {
            a rel="external nofollow noopener noreferrer" href=(url) { (shown) }
        }
    }
}

fn training(response: &MethodResponse) -> Markup {
    let terms = &response.training;
    html! {
        dl.facts {
            dt { "Evaluation photos excluded" } dd { (term(&terms.evaluation_photos_excluded)) }
            dt { "Trained on evaluation prompts" } dd { (term(&terms.trained_on_prompts)) }
        }
    }
}

fn term(term: &TrainingTerm) -> Markup {
    html! {
        @match term.value {
            Some(true) => "yes",
            Some(false) => "no",
            None => span.fine { "not declared" },
        }
        @match term.declared_by {
            Some(DeclaredBy::Card) => span.fine { " by the card" },
            Some(DeclaredBy::RunFlags) => span.fine { " by the flags of its runs" },
            None => {}
        }
        @if term.contradicted { " " span.tag.bad { "a run declares the opposite" } }
    }
}

fn table(view: &View, runs: &[MethodRun]) -> Table {
    let mut columns = vec![
        Column::text("Run"),
        Column::text("Dataset"),
        Column::text("State"),
        Column::number("Images"),
    ];
    columns.extend(SETTINGS.map(|(_, label)| Column::text(label)));
    columns.push(Column::text("Created"));
    Table {
        name: "runs",
        caption: "Runs and settings".to_owned(),
        columns,
        rows: runs.iter().map(|run| row(view, run)).collect(),
    }
}

fn row(view: &View, run: &MethodRun) -> Row {
    let to = Address::new(format!("/runs/{}", run.run_id));
    let link = view.link(&to, &html! { bdi { (clip(&run.run, show::NAME)) } });
    let dataset = [run.dataset.as_deref(), run.split.as_deref()];
    let dataset: Vec<&str> = dataset.into_iter().flatten().collect();
    let dataset = dataset.join(" · ");
    let mut cells = vec![
        Cell::text(&run.run).shown(link).head(),
        Cell::text(&dataset).shown(html! { bdi { (clip(&dataset, 80)) } }),
        Cell::text(run.state.as_str()).shown(show::state(run.state)),
        Cell::number(Some(run.scored as f64), number::count(run.scored)),
    ];
    let settings = run.image_settings.as_ref();
    cells.extend(SETTINGS.map(|(name, _)| {
        let text = settings.and_then(|all| all.settings.get(name)).map(words);
        match text {
            Some(text) => Cell::text(&text).shown(html! { bdi { (clip(&text, 120)) } }),
            None => Cell::default(),
        }
    }));
    cells.push(Cell::text(run.created.to_string()).shown(show::time(run.created)));
    cells.into()
}

/// Returns a setting in words: its value, or the values of a mixed one with their counts.
fn words(setting: &CollectedSetting) -> String {
    match &setting.values[..] {
        [only] if !setting.mixed => only.value.clone(),
        values => {
            let listed = values.iter().take(VALUES);
            let listed = listed.map(|value| format!("{} ({})", value.value, value.samples));
            let mut parts: Vec<String> = listed.collect();
            let more = setting.distinct.saturating_sub(parts.len() as u64);
            if more > 0 {
                parts.push(format!("{more} more values"));
            }
            if setting.missing > 0 {
                parts.push(format!("none ({})", setting.missing));
            }
            format!("mixed: {}", parts.join(", "))
        }
    }
}
