//! Slices of a run: is it as good for every kind of prompt and person?

use maud::{Markup, html};

use crate::api::analysis::slices::{self, SliceEntry, SliceMetric, SlicesQuery, SlicesResponse};
use crate::api::http::{ApiError, Code};
use crate::api::pages::{
    address::Address,
    charts::{
        clip,
        forest::{ForestRow, Scales, Tone, forest},
    },
    number, show,
    table::{Cell, Column, Row, Table},
    view::View,
};
use crate::api::runs::RunResponse;
use crate::api::runs::report::Tabulated;
use crate::api::state::App;
use crate::store::Slice;

/// Kinds of slices, in the order of the page.
const KINDS: [&str; 5] =
    [Slice::ATTRIBUTE, Slice::CATEGORY, Slice::PROMPT_KIND, Slice::RELATION, Slice::SIZE];

/// Slices of each kind that are shown, if all kinds are, and if one is.
const SHOWN: (usize, usize) = (12, 80);

/// Renders the slices of a run for one metric.
pub(super) async fn section(
    app: &App,
    view: &mut View,
    run: &RunResponse,
    address: &Address,
    of: &Tabulated,
    metric: &str,
) -> Result<Markup, ApiError> {
    let mut asked: Vec<(&str, &str)> = vec![("metrics", metric)];
    asked.extend(
        ["kind", "policy", "min_samples"]
            .into_iter()
            .filter_map(|name| Some((name, address.get(name)?))),
    );
    let mut query = Address::new("/").with("run", run.run_id);
    for (name, value) in asked {
        query = query.with(name, value);
    }
    if let Some(pack) = &of.pack {
        query = query.with("pack", &pack.digest);
    }
    let heading = html! {
        h3 #slices { "By kind of prompt and person" }
        form.filters data-auto method="get" action="#slices" {
            (show::hidden(address, &["kind"]))
            label {
                "Slices"
                select name="kind" {
                    option value="" { "All kinds" }
                    @for kind in KINDS {
                        option value=(kind) selected[address.get("kind") == Some(kind)] {
                            (show::slice_kind(kind))
                        }
                    }
                }
            }
            button { "Show" }
        }
    };
    let found = match slices::respond(app, query.query::<SlicesQuery>(&[])?).await {
        Ok(found) => found,
        Err(error) if error.code() == Code::NotFound => {
            let text = "The run is not summarised yet: it takes some seconds after its last score.";
            return Ok(html! { (heading) p { (text) " " a href=(address) { "Reload" } "." } });
        }
        Err(error) => return Err(error),
    };
    Ok(html! { (heading) (shown(view, &found, metric, address.get("kind").is_some())) })
}

fn shown(view: &mut View, found: &SlicesResponse, metric: &str, is_one_kind: bool) -> Markup {
    let all = found.slices.iter().find(|slice| slice.kind.is_empty());
    let whole = all.and_then(|slice| slice.metrics.get(metric)?.numbers.mean);
    let most = if is_one_kind { SHOWN.1 } else { SHOWN.0 };
    let mut listed: Vec<(&'static str, Vec<(&SliceEntry, &SliceMetric)>)> = Vec::new();
    let mut is_cut = false;
    for kind in KINDS {
        let of_kind = found.slices.iter().filter(|slice| slice.kind == kind);
        let mut entries: Vec<_> =
            of_kind.filter_map(|slice| Some((slice, slice.metrics.get(metric)?))).collect();
        entries.retain(|(_, of)| of.numbers.mean.is_some());
        entries.sort_by_key(|(slice, _)| std::cmp::Reverse(slice.samples));
        is_cut |= entries.len() > most;
        entries.truncate(most);
        // People with and without an attribute are next to each other.
        entries.sort_by_key(|(slice, _)| {
            let name = slice.label.trim_start_matches('!');
            (name.to_lowercase(), slice.label.starts_with('!'))
        });
        if !entries.is_empty() {
            listed.push((show::slice_kind(kind), entries));
        }
    }
    if listed.is_empty() {
        return html! {
            p {
                "No slice has enough samples with a score. Slices come from the metadata of samples: "
                code { "categories" } ", " code { "prompt_kind" } " and " code { "attributes" } "."
            }
        };
    }
    let mut rows = Vec::new();
    for (words, entries) in &listed {
        rows.push(ForestRow::heading(*words));
        rows.extend(entries.iter().map(|(slice, of)| drawn(slice, of)));
    }
    let title = format!("{metric} by slice");
    let description = "The mean of each slice with its 95 % interval. The vertical line is the mean of \
        the whole run.";
    let chart = forest("slices", title, description.to_owned(), &rows, Scales::Shared(whole));
    html! {
        p {
            "Each dot is the mean of the samples of one slice, with its 95 % interval; the vertical line \
                is the mean of the whole run. Where the intervals of two groups do not overlap, chance is \
                an unlikely explanation of their difference. With many slices, a few stand apart by chance. \
                For fairness, look at the images without a face in the table first: they change what the \
                means are over."
        }
        @if found.stale { p.note { "The run has changed since: reload in some seconds." } }
        (view.chart(&chart))
        @if is_cut {
            p.fine { "The " (most) " largest slices of each kind are shown. Choose a kind to see more of it." }
        }
        details {
            summary { "As a table" }
            (view.table(&table(&listed, metric)))
        }
    }
}

fn label(slice: &SliceEntry) -> String {
    show::slice_label(&slice.kind, &slice.label)
}

fn drawn(slice: &SliceEntry, of: &SliceMetric) -> ForestRow {
    let interval = of.numbers.low.zip(of.numbers.high);
    let mean = of.numbers.mean.unwrap_or_default();
    let shown = interval
        .map_or_else(|| number::plain(mean), |(low, high)| number::with_interval(mean, low, high));
    ForestRow {
        label: label(slice),
        value: of.numbers.mean,
        interval,
        note: format!("{shown} · {} samples", number::count(of.numbers.n)),
        tone: Tone::Plain,
    }
}

fn table(listed: &[(&'static str, Vec<(&SliceEntry, &SliceMetric)>)], metric: &str) -> Table {
    let rows = listed.iter().flat_map(|(words, entries)| {
        entries.iter().map(move |(slice, of)| -> Row {
            let numbers = &of.numbers;
            let plain = |value: Option<f64>| {
                Cell::number(value, value.map_or("–".to_owned(), number::plain))
            };
            let label = label(slice);
            let mut note = numbers.no_interval.map(show::no_interval).unwrap_or_default();
            if of.few_clusters && numbers.low.is_some() {
                note = "few people: the interval is rough";
            }
            vec![
                Cell::text(*words),
                Cell::text(&label).shown(html! { bdi { (clip(&label, show::NAME)) } }).head(),
                plain(numbers.mean),
                plain(numbers.low),
                plain(numbers.high),
                Cell::number(Some(numbers.n as f64), number::count(numbers.n)),
                Cell::number(Some(of.clusters as f64), number::count(of.clusters)),
                Cell::number(Some(of.face_failure_rate), number::percent(of.face_failure_rate)),
                Cell::number(Some(slice.penalised as f64), number::count(slice.penalised)),
                Cell::text(note),
            ]
            .into()
        })
    });
    let columns = vec![
        Column::text("Kind"),
        Column::text("Slice"),
        Column::number(metric),
        Column::number("95 % from"),
        Column::number("to"),
        Column::number("Samples"),
        Column::number("People"),
        Column::number("Without a face"),
        Column::number("Penalised"),
        Column::text("Note"),
    ];
    let caption = format!("{metric} by slice");
    Table { name: "by-slice", caption, columns, rows: rows.collect() }
}
