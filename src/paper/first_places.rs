//! How often each method has the best image of a prompt, by each metric and by people.

use super::{
    board::digits,
    options::slug,
    part::Part,
    people::short,
    source::Answered,
    text::{bold, interval},
};
use crate::analysis::FirstPlaceShare;
use crate::api::analysis::first_places::FirstPlacesResponse;
use crate::figures::number;
use crate::figures::table::{Cell, Column, Row, Table, latex};

pub(super) fn part(answer: &Answered<FirstPlacesResponse>, kind: Option<&str>) -> Part {
    let of = &answer.of;
    let over =
        kind.map_or_else(|| "all prompts".to_owned(), |kind| format!("prompts of kind {kind}"));
    let question: String = of.question.clone().into();
    let caption = format!(
        "Share of {} in which each method has the best image: by each metric, over the {} prompts \
         that all methods have, and by people: question \\texttt{{{}}}; the newest run of each \
         method. Scores are as measured, without penalty; a shared \
         place is a part of one. 95\\,\\% intervals by identity, and by prompt for people. The \
         largest share of a row is bold.",
        latex(&over),
        number::count(of.prompts as u64),
        latex(&question)
    );
    let name = format!("first-places-{}", kind.map_or_else(|| "all".to_owned(), slug));
    Part::new(name, "First places", caption)
        .requested(&answer.request)
        .latex(&table(of))
        .csv(&lines(of, kind))
}

/// A row of shares: by a metric or by people.
fn shares(of: &FirstPlacesResponse) -> impl Iterator<Item = (&str, &[FirstPlaceShare])> {
    let people = of.people.iter().map(|of| ("people", &of.shares[..]));
    of.metrics.iter().map(|of| (&*of.metric, &of.shares[..])).chain(people)
}

fn table(of: &FirstPlacesResponse) -> Table {
    let mut columns = vec![Column::text("By"), Column::number("Prompts or answers")];
    columns.extend(of.runs.iter().map(|run| Column::number(&*run.method)));
    let row = |(by, shares): (&str, &[FirstPlaceShare])| {
        let best = shares.iter().filter_map(|of| of.share).reduce(f64::max);
        let most = shares.iter().map(|of| of.of).max().unwrap_or_default();
        let name = if by == "people" { "People" } else { short(by) };
        let mut cells = vec![Cell::text(name), Cell::text(number::count(most as u64))];
        cells.extend(shares.iter().map(|of| {
            let Some(share) = of.share else {
                return Cell { latex: Some("--".to_owned()), ..Cell::default() };
            };
            let text = latex(&number::rounded(share, 3));
            let is_best = best.is_some_and(|best| best.total_cmp(&share).is_eq());
            let mut text = if is_best { bold(&text) } else { text };
            if let Some((low, high)) = of.low.zip(of.high) {
                let [low, high] = [low, high].map(|end| number::rounded(end, 2));
                text = format!("{text} {}", interval(&low, &high));
            }
            Cell { latex: Some(text), ..Cell::default() }
        }));
        Row::from(cells)
    };
    let rows = shares(of).map(row).collect();
    Table { name: "first", caption: String::new(), columns, rows }
}

fn lines(of: &FirstPlacesResponse, kind: Option<&str>) -> Table {
    let heads = ["by", "kind", "method", "run", "first", "of", "share", "low", "high"];
    let mut rows: Vec<Row> = Vec::new();
    for (by, shares) in shares(of) {
        for (run, share) in of.runs.iter().zip(shares) {
            let mut cells = vec![
                Cell::text(by),
                Cell::text(kind.unwrap_or_default()),
                Cell::text(&*run.method),
                Cell::text(&*run.run),
                digits(Some(share.first)),
                digits(Some(share.of)),
            ];
            cells.extend([share.share, share.low, share.high].map(digits));
            rows.push(cells.into());
        }
    }
    let columns = heads.map(Column::text).into();
    Table { name: "first", caption: String::new(), columns, rows }
}
