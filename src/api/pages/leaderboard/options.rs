//! The filters of the leaderboard, as a form.

use maud::{Markup, html};

use super::page::{Page, Shape, is_date};
use crate::api::datasets::{self, DatasetsQuery};
use crate::api::http::ApiError;
use crate::api::http::filters::SLICES;
use crate::api::state::App;
use crate::metrics::{ATTRIBUTES, Direction, Metric, in_reading_order};

/// Maximum number of datasets that are suggested.
const MOST_DATASETS: u32 = 100;

/// The metrics of the paper's tables.
const PAPER: &str = "ips,aps,sis,goa,rfs,clip_t";

/// Parameters of the filters that are folded away.
const MORE: [&str; 8] = [
    "pack",
    "method",
    "run",
    "trained_on_evaluation_photos",
    "cross_validated_training",
    "since",
    "until",
    "min_samples",
];

/// Returns the names of datasets to suggest.
pub(super) async fn datasets(app: &App) -> Result<Vec<String>, ApiError> {
    let first = DatasetsQuery { after: None, limit: Some(MOST_DATASETS) };
    let datasets = datasets::respond_list(app, first).await?.datasets;
    Ok(datasets.into_iter().map(|dataset| dataset.name).collect())
}

/// Renders the form. Every change leads to the address of its view.
pub(super) fn form(page: &Page, shape: Shape, datasets: &[String]) -> Markup {
    let set = |names: &[&str]| names.iter().filter(|name| page.address.get(name).is_some()).count();
    // Of two metrics there are neither columns nor an order.
    let is_plane = shape == Shape::Plane;
    let kept: &[&str] = if is_plane { &["sort", "metrics", "published"] } else { &[] };
    html! {
        form.filters.board method="get" action="/leaderboard" data-auto {
            @for name in ["view", "x", "y", "intervals", "limit"].iter().chain(kept) {
                @if let Some(value) = page.address.get(name) {
                    input type="hidden" name=(name) value=(value);
                }
            }
            (select(page, "by", "Rows", &[("", "Methods"), ("run", "Runs")]))
            (text(page, "dataset", "Dataset", Some("datasets")))
            (text(page, "split", "Split", None))
            (select(page, "policy", "Penalty for copies", &[
                ("", "stellar: copies count as 0"),
                ("toolkit", "toolkit: as in the paper's code"),
                ("none", "none: scores as measured"),
            ]))
            (select(page, "on", "Images", &[
                ("", "All of each row"),
                ("common", "Shared by all rows"),
            ]))
            @if !is_plane {
                (sort(page))
                label.check {
                    input type="checkbox" name="published" value="true"
                        checked[page.address.get("published") == Some("true")];
                    "Published results"
                }
            }
            details.wide open[set(&SLICES) > 0] {
                summary { "Part of the images" (count(set(&SLICES))) }
                p.fine { "At most one: results are stored for single parts, not for their overlaps." }
                div.fields data-one-of {
                    (text(page, "prompt_kind", "Kind of prompt (T, H)", None))
                    (text(page, "category", "Category of the prompt", None))
                    (select(page, "relation", "Relation in the prompt", &[
                        ("", "Any"),
                        ("interaction", "An action"),
                        ("location", "A place"),
                        ("none", "None"),
                    ]))
                    (text(page, "attribute", "Attribute (! for without)", Some("attributes")))
                    (select(page, "size", "Shorter side", &[
                        ("", "Any"),
                        ("under_512", "Under 512 pixels"),
                        ("512_to_1023", "512 to 1023 pixels"),
                        ("1024_and_more", "1024 pixels and more"),
                    ]))
                    (text(page, "detectable", "Object in the prompt", None))
                    (text(page, "predicate", "Predicate of a relation", None))
                    (text(page, "template", "Template with [object]", None))
                    (text(page, "fine_attribute", "Level, as Smiling=3", None))
                    (text(page, "aps_attribute", "Attribute of APS", Some("attributes")))
                }
            }
            details.wide open[set(&MORE) > 0] {
                summary { "More filters" (count(set(&MORE))) }
                div.fields {
                    (text(page, "method", "Method", None))
                    (text(page, "run", "Run", None))
                    (text(page, "pack", "Pack (name, digest or all)", None))
                    (flag(page, "trained_on_evaluation_photos", "Trained on evaluation photos"))
                    (flag(page, "cross_validated_training", "Cross-validated training"))
                    (date(page, "since", "Runs since"))
                    (date(page, "until", "Runs before"))
                    label {
                        "Fewest images"
                        input type="number" name="min_samples" min="0"
                            value=[page.address.get("min_samples")];
                    }
                }
            }
            @if !is_plane { (columns(page)) }
            noscript { button.main type="submit" { "Apply" } }
            datalist #datasets { @for name in datasets { option value=(name); } }
            datalist #attributes {
                @for name in ATTRIBUTES { option value=(name); option value=(format!("!{name}")); }
            }
        }
    }
}

fn count(set: usize) -> Markup {
    html! { @if set > 0 { " (" (set) " set)" } }
}

fn text(page: &Page, name: &str, label: &str, list: Option<&str>) -> Markup {
    html! {
        label {
            (label)
            input type="text" name=(name) value=[page.address.get(name)] list=[list] autocomplete="off";
        }
    }
}

fn date(page: &Page, name: &str, label: &str) -> Markup {
    let value = page.address.get(name);
    // A time of day has no field in browsers.
    let kind = if value.is_none_or(is_date) { "date" } else { "text" };
    html! { label { (label) input type=(kind) name=(name) value=[value]; } }
}

fn flag(page: &Page, name: &str, label: &str) -> Markup {
    select(page, name, label, &[("", "Any"), ("true", "Declared"), ("false", "Not declared")])
}

fn select(page: &Page, name: &str, label: &str, options: &[(&str, &str)]) -> Markup {
    let current = page.address.get(name).unwrap_or_default();
    html! {
        label {
            (label)
            select name=(name) {
                @for (value, label) in options {
                    option value=(value) selected[*value == current] { (label) }
                }
                // A value that the list lacks, such as the default in words, stays in the form.
                @if !options.iter().any(|(value, _)| *value == current) {
                    option value=(current) selected { (current) }
                }
            }
        }
    }
}

fn sort(page: &Page) -> Markup {
    let current = if page.sort == "mean_rank" { "" } else { &*page.sort };
    html! {
        label {
            "Order"
            select name="sort" {
                option value="" selected[current.is_empty()] { "Mean rank" }
                option value="name" selected[current == "name"] { "Name" }
                @for metric in in_reading_order() {
                    option value=(metric.code) selected[current == metric.code] {
                        (metric.guide.label())
                    }
                }
            }
        }
    }
}

/// Renders the choice of columns. Browsers send the boxes from first to last, so that the order of
/// the columns is kept.
fn columns(page: &Page) -> Markup {
    let chosen = page.chosen.clone().unwrap_or_default();
    let is_chosen = |metric: &Metric| chosen.iter().any(|each| each.code == metric.code);
    let others = in_reading_order().into_iter().filter(|metric| !is_chosen(metric));
    html! {
        details.wide {
            summary {
                "Columns"
                @if !chosen.is_empty() { " (" (chosen.len()) " chosen)" } @else { " (all)" }
            }
            p.fine {
                "Without a choice all are shown. Chosen ones come first, in the order of the columns: "
                a href=(page.address.with("metrics", PAPER)) { "those of the paper" } ", "
                a href=(page.address.without("metrics")) { "all" } "."
            }
            div.boxes {
                @for metric in chosen.iter().copied().chain(others) {
                    label.check {
                        input type="checkbox" name="metrics" value=(metric.code)
                            checked[is_chosen(metric)];
                        (metric.guide.label())
                        @if metric.direction == Direction::Support { " " span.tag { "not ranked" } }
                    }
                }
            }
        }
    }
}
