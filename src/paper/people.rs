//! What people prefer, and which metrics agree with them.

use std::collections::BTreeMap;

use super::{
    board::digits,
    options::slug,
    part::Part,
    source::Answered,
    text::{bold, interval},
};
use crate::analysis::{MetricAlignment, TauDifference};
use crate::api::analysis::alignment::{AlignmentResponse, PreferencesResponse};
use crate::api::analysis::alignment_differences::AlignmentDifferencesResponse;
use crate::api::studies::results::ResultsResponse;
use crate::figures::charts::agreement::{self, Line, Words};
use crate::figures::number;
use crate::figures::table::{Cell, Column, Row, Table, latex};
use crate::metrics::{self, Direction, Metric, in_reading_order};

const SECTION: &str = "People";

/// Agreement of metrics with people about one question, and whether it differs between metrics.
pub(super) struct Agreement {
    pub(super) of: Answered<AlignmentResponse>,
    pub(super) differences: Option<Answered<AlignmentDifferencesResponse>>,
}

impl Agreement {
    fn question(&self) -> String {
        self.of.of.question.clone().into()
    }

    fn has_published(&self) -> bool {
        !self.of.of.published.tau.is_empty()
    }

    /// Returns the comparison of a metric with the one that agrees best.
    fn difference(&self, code: &str) -> Option<&TauDifference> {
        let slice = self.differences.as_ref()?.of.slices.first()?;
        slice.metrics.iter().find(|of| of.metric == code)
    }
}

/// Agreement of metrics with people, by question.
pub(super) fn alignment(answers: &[Agreement]) -> Part {
    let caption = "Kendall's $\\tau_b$ of each metric with people's preferences between two images of \
                   one prompt, oriented so that 1 is agreement, with 95\\,\\% intervals by identity. \
                   Bold: the metric that agrees best, and those that are not shown to be worse (Holm). \
                   Published numbers are of other images, people \
                   and questions, and were not measured here.";
    let mut part = Part::new("agreement", SECTION, caption.to_owned());
    for answer in answers {
        part.requests.push(answer.of.request.clone());
        part.requests.extend(answer.differences.iter().map(|of| of.request.clone()));
        let question = answer.question();
        let lines = lines(&answer.of.of);
        if !lines.is_empty() {
            let words = Words {
                name: "agreement",
                title: format!("Agreement with people: {question}"),
                description: format!(
                    "Kendall's tau-b of {} metrics with people, with 95 % intervals. Rings are \
                     published numbers.",
                    lines.len()
                ),
                reference: (0.0, "chance"),
            };
            let name = format!("agreement-{}", slug(&question));
            part = part.svg(&name, agreement::chart(words, &lines).document());
        }
    }
    part.latex(&alignment_table(answers)).csv(&alignment_lines(answers))
}

/// Returns the numbers over all pairs, by metric.
fn overall(of: &AlignmentResponse) -> BTreeMap<&str, &MetricAlignment> {
    let metrics = of.slices.first().into_iter().flat_map(|slice| &slice.metrics);
    metrics.map(|of| (&*of.metric, of)).collect()
}

fn lines(of: &AlignmentResponse) -> Vec<Line> {
    let found = overall(of);
    let line = |metric: &Metric| {
        let numbers = found.get(metric.code)?;
        Some(Line {
            label: metric.guide.label(),
            value: numbers.tau?,
            interval: numbers.low.zip(numbers.high),
            other: of.published.tau.get(metric.code).copied(),
        })
    };
    let mut lines: Vec<Line> = in_reading_order().into_iter().filter_map(line).collect();
    lines.sort_by(|a, b| b.value.total_cmp(&a.value));
    lines
}

fn alignment_table(answers: &[Agreement]) -> Table {
    let mut columns = vec![Column::text("Metric")];
    for answer in answers {
        let question = answer.question();
        columns.push(Column::number(question.clone()));
        if answer.has_published() {
            columns.push(Column::number(format!("{question} (published)")));
        }
    }
    let found: Vec<_> = answers.iter().map(|answer| overall(&answer.of.of)).collect();
    let is_known = |metric: &&Metric| {
        metric.direction != Direction::Support
            && found.iter().any(|of| of.contains_key(metric.code))
    };
    let row = |metric: &Metric| {
        let mut cells = vec![Cell::text(metric.guide.short).head()];
        for (answer, of) in answers.iter().zip(&found) {
            let numbers = of.get(metric.code);
            let tau = numbers.and_then(|of| of.tau);
            let mut text = tau.map_or("--".to_owned(), |tau| latex(&number::rounded(tau, 3)));
            let is_best = answer.difference(metric.code).is_some_and(|of| of.best == Some(true));
            if tau.is_some() && is_best {
                text = bold(&text);
            }
            let ends = numbers.and_then(|of| of.low.zip(of.high));
            if let Some((low, high)) = ends {
                let [low, high] = [low, high].map(|end| number::rounded(end, 2));
                text = format!("{text} {}", interval(&low, &high));
            }
            cells.push(Cell { latex: Some(text), ..Cell::default() });
            if answer.has_published() {
                let of = answer.of.of.published.tau.get(metric.code);
                let text = of.map_or("--".to_owned(), |tau| latex(&number::rounded(*tau, 3)));
                cells.push(Cell { latex: Some(text), ..Cell::default() });
            }
        }
        Row::from(cells)
    };
    let rows = in_reading_order().into_iter().filter(is_known).map(row).collect();
    Table { name: "agreement", caption: String::new(), columns, rows }
}

fn alignment_lines(answers: &[Agreement]) -> Table {
    let heads = [
        "question",
        "metric",
        "version",
        "pairs",
        "tau",
        "low",
        "high",
        "agreement",
        "published",
        "pack",
        "answers",
        "difference",
        "difference_low",
        "difference_high",
        "p",
        "p_holm",
        "best",
    ];
    let mut rows: Vec<Row> = Vec::new();
    for answer in answers {
        let (question, of) = (answer.question(), &answer.of.of);
        for (code, numbers) in overall(of) {
            let mut cells = vec![
                Cell::text(question.clone()),
                Cell::text(code),
                Cell::text(numbers.version.to_string()),
                digits(Some(numbers.pairs)),
            ];
            let taus = [numbers.tau, numbers.low, numbers.high, numbers.agreement];
            cells.extend(taus.map(digits));
            cells.push(digits(of.published.tau.get(code)));
            cells.extend([Cell::text(&*of.pack), digits(Some(of.answers))]);
            let than_best = answer.difference(code);
            let number = |of: fn(&TauDifference) -> Option<f64>| digits(than_best.and_then(of));
            cells.extend([
                number(|of| of.difference),
                number(|of| of.low),
                number(|of| of.high),
                number(|of| of.p),
                number(|of| of.p_holm),
                digits(than_best.and_then(|of| of.best)),
            ]);
            rows.push(cells.into());
        }
    }
    let columns = heads.map(Column::text).into();
    Table { name: "agreement", caption: String::new(), columns, rows }
}

/// A share and a strength of a method.
struct Preferred {
    group: String,
    method: String,
    answers: f64,
    share: Option<f64>,
    share_ends: Option<(f64, f64)>,
    strength: Option<f64>,
    strength_ends: Option<(f64, f64)>,
}

/// Shares of preferred pairs, by question.
pub(super) fn preferences(answers: &[Answered<PreferencesResponse>]) -> Part {
    let caption = "Shares of preferred pairs of images with 95\\,\\% intervals by prompt, and \
                   Bradley--Terry strengths. A tie is half a preference.";
    let rows = answers.iter().flat_map(|Answered { of, .. }| {
        let group: String = of.question.clone().into();
        of.preferences.methods.iter().map(move |method| Preferred {
            group: group.clone(),
            method: method.method.clone(),
            answers: method.pairs as f64,
            share: Some(method.share),
            share_ends: method.share_low.zip(method.share_high),
            strength: method.strength,
            strength_ends: method.strength_low.zip(method.strength_high),
        })
    });
    let rows: Vec<Preferred> = rows.collect();
    let mut part = Part::new("preferences", SECTION, caption.to_owned());
    part.requests = answers.iter().map(|answer| answer.request.clone()).collect();
    for Answered { of, .. } in answers {
        if let Some(why) = &of.preferences.no_strengths {
            let question: String = of.question.clone().into();
            part.remarks.push(format!("{question}: no strengths, since {why}"));
        }
        if of.preferences.penalised {
            part.notes.push(
                "Some methods never lost or never won: half a win was added to each side of every \
                 compared pair, which shrinks strengths."
                    .to_owned(),
            );
        }
    }
    part.notes.dedup();
    part.latex(&preferred_table("Question", &rows)).csv(&preferred_lines("question", &rows))
}

/// First-choice shares of studies.
pub(super) fn studies(answers: &[Answered<ResultsResponse>]) -> Part {
    let caption = "First-choice shares of studies with 95\\,\\% intervals, and Plackett--Luce \
                   strengths.";
    let rows = answers.iter().flat_map(|Answered { of, .. }| {
        let group = format!("{}: {}", of.study.plan.name, of.question);
        of.results.methods.iter().map(move |method| Preferred {
            group: group.clone(),
            method: method.method.clone(),
            answers: method.shown as f64,
            share: method.share,
            share_ends: method.share_low.zip(method.share_high),
            strength: method.strength,
            strength_ends: method.strength_low.zip(method.strength_high),
        })
    });
    let rows: Vec<Preferred> = rows.collect();
    let mut part = Part::new("studies", SECTION, caption.to_owned());
    part.requests = answers.iter().map(|answer| answer.request.clone()).collect();
    part.latex(&preferred_table("Study", &rows)).csv(&preferred_lines("study", &rows))
}

fn preferred_table(group: &str, rows: &[Preferred]) -> Table {
    let columns = vec![
        Column::text(group),
        Column::text("Method"),
        Column::number("Answers"),
        Column::number("Share"),
        Column::number("Strength"),
    ];
    let with_ends = |value: Option<f64>, ends: Option<(f64, f64)>, is_best: bool| {
        let Some(value) = value else {
            return Cell { latex: Some("--".to_owned()), ..Cell::default() };
        };
        let text = latex(&number::rounded(value, 3));
        let mut text = if is_best { bold(&text) } else { text };
        if let Some((low, high)) = ends {
            let [low, high] = [low, high].map(|end| number::rounded(end, 2));
            text = format!("{text} {}", interval(&low, &high));
        }
        Cell { latex: Some(text), ..Cell::default() }
    };
    let best = |group: &str| {
        let of_group = rows.iter().filter(|row| row.group == group);
        of_group.filter_map(|row| row.share).reduce(f64::max)
    };
    let row = |of: &Preferred| {
        let is_best = of.share.zip(best(&of.group)).is_some_and(|(a, b)| a.total_cmp(&b).is_eq());
        Row::from(vec![
            Cell::text(&*of.group),
            Cell::text(&*of.method),
            digits(Some(of.answers)),
            with_ends(of.share, of.share_ends, is_best),
            with_ends(of.strength, of.strength_ends, false),
        ])
    };
    let rows = rows.iter().map(row).collect();
    Table { name: "preferences", caption: String::new(), columns, rows }
}

fn preferred_lines(group: &'static str, rows: &[Preferred]) -> Table {
    let heads = [
        group,
        "method",
        "answers",
        "share",
        "share_low",
        "share_high",
        "strength",
        "strength_low",
        "strength_high",
    ];
    let row = |of: &Preferred| {
        let ends = |ends: Option<(f64, f64)>| [ends.map(|of| of.0), ends.map(|of| of.1)];
        let mut cells =
            vec![Cell::text(&*of.group), Cell::text(&*of.method), digits(Some(of.answers))];
        cells.push(digits(of.share));
        cells.extend(ends(of.share_ends).map(digits));
        cells.push(digits(of.strength));
        cells.extend(ends(of.strength_ends).map(digits));
        Row::from(cells)
    };
    let columns = heads.map(Column::text).into();
    Table {
        name: "preferences",
        caption: String::new(),
        columns,
        rows: rows.iter().map(row).collect(),
    }
}

/// Returns the name of a metric for people.
pub(super) fn short(code: &str) -> &str {
    metrics::find(code).map_or(code, |metric| metric.guide.short)
}
