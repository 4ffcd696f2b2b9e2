//! Tables of the evidence behind a sample's scores.

use maud::{Markup, html};

use super::super::{
    number,
    table::{Cell, Column, Row, Table},
    view::View,
};
use super::words;
use crate::api::samples::StoredEvidence;
use crate::service::{Evidence, Match};

/// Most rows of a table on the page; the API has all.
const MOST: usize = 40;

/// Most characters of a text in a cell.
const MOST_CHARS: usize = 160;

/// Renders every table that has rows.
pub(super) fn all(view: &mut View, evidence: Option<&StoredEvidence>) -> Markup {
    let Some(StoredEvidence { evidence, .. }) = evidence else { return html! {} };
    html! {
        (matches(view, evidence))
        (objects(view, evidence))
        (relations(view, evidence))
        (attributes(view, evidence))
        (texts(view, evidence))
    }
}

fn section(
    view: &mut View,
    name: &'static str,
    title: &str,
    text: &str,
    columns: Vec<Column>,
    mut rows: Vec<Row>,
) -> Markup {
    if rows.is_empty() {
        return html! {};
    }
    let left = rows.len().saturating_sub(MOST);
    rows.truncate(MOST);
    let table = Table { name, caption: title.to_owned(), columns, rows };
    html! {
        section {
            h2 #(name) { (title) }
            p { (text) }
            (view.table(&table))
            @if left > 0 { p.fine { (left) " more rows are in the API's response." } }
        }
    }
}

fn matches(view: &mut View, evidence: &Evidence) -> Markup {
    // Several metrics use the same pair.
    let mut pairs: Vec<(&Match, Vec<&str>)> = Vec::new();
    for (metric, found) in &evidence.matches {
        for pair in found {
            let same = |(other, _): &&mut (&Match, Vec<&str>)| {
                (&other.photo, other.photo_face, other.image_face)
                    == (&pair.photo, pair.photo_face, pair.image_face)
            };
            match pairs.iter_mut().find(same) {
                Some((_, metrics)) => metrics.push(metric),
                None => pairs.push((pair, vec![metric])),
            }
        }
    }
    let rows = pairs.into_iter().map(|(pair, metrics)| {
        let metrics = metrics.join(", ");
        vec![
            Cell::text(words::image_of(&pair.photo)).head(),
            Cell::text((pair.photo_face + 1).to_string()),
            Cell::text((pair.image_face + 1).to_string()),
            Cell::number(Some(pair.cosine), number::rounded(pair.cosine, 3)),
            Cell::text(metrics.clone()).shown(html! { code { (metrics) } }),
        ]
        .into()
    });
    let columns = vec![
        Column::text("Image of the person"),
        Column::number("Its face"),
        Column::number("Generated face"),
        Column::number("Similarity"),
        Column::text("Metrics"),
    ];
    section(
        view,
        "faces",
        "Faces",
        "The most similar pair of faces for each image of the person. Faces are numbered from the \
            largest. With the official weights, two photos of one person mostly reach 0.5 to 0.9, \
            and those of different people about 0.",
        columns,
        rows.collect(),
    )
}

fn objects(view: &mut View, evidence: &Evidence) -> Markup {
    let rows = evidence.objects.iter().map(|object| {
        let note = match (object.skipped, object.corners, object.truncated) {
            (Some(reason), ..) => words::skipped(reason),
            (None, None, _) => "no box fits it best",
            (None, _, true) => "the label was cut off",
            _ => "",
        };
        vec![
            Cell::text(object.label.clone()).shown(short(&object.label)).head(),
            Cell::number(
                object.score,
                object.score.map_or_else(|| "—".to_owned(), |score| number::rounded(score, 3)),
            ),
            Cell::text(note),
        ]
        .into()
    });
    section(
        view,
        "objects",
        "Objects",
        "How sure the detector is of its best box for each object of the prompt, from 0 to 1. \
            Labels compete for boxes: an object has 0 if every box fits another label better.",
        vec![Column::text("Object"), Column::number("Confidence"), Column::text("Note")],
        rows.collect(),
    )
}

fn relations(view: &mut View, evidence: &Evidence) -> Markup {
    let rows = evidence.relations.iter().map(|relation| {
        let words = format!("{} {} {}", relation.subject, relation.predicate, relation.object);
        let factor = |of: fn(&crate::metrics::Factors) -> f64| {
            let value = relation.factors.as_ref().map(of);
            Cell::number(value, shown(value))
        };
        let seen = relation.seen_as.join(", ");
        let note = match relation.unmapped {
            Some(reason) => words::unmapped(reason).to_owned(),
            None if relation.approximate => format!("approximately: {seen}"),
            None if seen.is_empty() => String::new(),
            None => format!("seen as: {seen}"),
        };
        vec![
            Cell::text(words.clone()).shown(short(&words)).head(),
            Cell::number(relation.score, shown(relation.score)),
            factor(|factors| factors.person),
            factor(|factors| factors.predicate),
            factor(|factors| factors.object),
            Cell::text(note.clone()).shown(short(&note)),
        ]
        .into()
    });
    let columns = vec![
        Column::text("Relation"),
        Column::number("Score"),
        Column::number("Person"),
        Column::number("Predicate"),
        Column::number("Object"),
        Column::text("Note"),
    ];
    section(
        view,
        "relations",
        "Relations",
        "What the prompt says the person does, and how sure the scene graph is of it: the score is \
            the product of the three numbers after it.",
        columns,
        rows.collect(),
    )
}

fn attributes(view: &mut View, evidence: &Evidence) -> Markup {
    let word = |label: Option<bool>| match label {
        Some(true) => "yes",
        Some(false) => "no",
        None => "—",
    };
    let rows = evidence.attributes.iter().map(|of| {
        let (result, class) = match (of.left_out, of.prediction == of.target) {
            (Some(reason), _) => (words::left_out(reason), ""),
            (None, true) => ("right", "good"),
            (None, false) => ("wrong", "bad"),
        };
        vec![
            Cell::text(of.attribute.clone())
                .shown(html! { bdi { (of.attribute.replace('_', " ")) } })
                .head(),
            Cell::text(word(of.target)),
            Cell::text(word(of.prediction)),
            Cell::number(of.decision, shown(of.decision)),
            Cell::text(result).class(class),
        ]
        .into()
    });
    let columns = vec![
        Column::text("Attribute"),
        Column::text("Wanted"),
        Column::text("Seen"),
        Column::number("Log odds"),
        Column::text("Result"),
    ];
    section(
        view,
        "attributes",
        "Facial attributes",
        "What the person looks like, and what the classifiers see in the generated face. Log odds \
            above 0 mean yes; near 0 the classifier is unsure.",
        columns,
        rows.collect(),
    )
}

fn texts(view: &mut View, evidence: &Evidence) -> Markup {
    let rows = evidence.texts.iter().map(|text| {
        let note = if text.truncated { "the end of the prompt was cut off" } else { "" };
        vec![
            Cell::text(text.graph.clone()).shown(html! { code { (text.graph) } }).head(),
            Cell::number(Some(text.tokens as f64), text.tokens.to_string()),
            Cell::number(Some(text.context as f64), text.context.to_string()),
            Cell::text(note),
        ]
        .into()
    });
    section(
        view,
        "texts",
        "How the prompt was read",
        "Each text model reads a prompt as tokens, and only so many of them.",
        vec![
            Column::text("Text model"),
            Column::number("Tokens"),
            Column::number("At most"),
            Column::text("Note"),
        ],
        rows.collect(),
    )
}

/// A text of a client, cut where it is very long; downloads have all of it.
fn short(text: &str) -> Markup {
    let cut: String = text.chars().take(MOST_CHARS).collect();
    html! { bdi { (cut) @if cut.len() < text.len() { "…" } } }
}

fn shown(value: Option<f64>) -> String {
    value.map_or_else(|| "—".to_owned(), |value| number::rounded(value, 3))
}
