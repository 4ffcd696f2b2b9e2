//! The preferred methods, and what more votes would settle.

use std::collections::BTreeSet;

use maud::{Markup, html};

use crate::analysis::{MethodPreference, NoAlpha, NoInterval};
use crate::api::analysis::alignment::PreferencesResponse;
use crate::api::pages::{
    address::Address,
    charts::agreement::{self, Line, Words},
    number,
    table::{Cell, Column, Table},
    view::View,
};
use crate::api::preferences::next::NextResponse;

/// Maximum number of methods that are shown.
const MOST_METHODS: usize = 30;

/// Maximum number of pairs of methods that are shown.
const MOST_PAIRS: usize = 10;

/// Renders shares and strengths.
pub(super) fn section(view: &mut View, of: &PreferencesResponse) -> Markup {
    let methods = &of.preferences.methods;
    let shown = &methods[..methods.len().min(view.most(MOST_METHODS))];
    if shown.is_empty() {
        return html! {
            h2 { "Which method do people prefer?" }
            p { "No vote is between two methods, and no two images of a prompt were rated." }
        };
    }
    let lines: Vec<Line> = shown
        .iter()
        .map(|method| Line {
            label: method.method.clone(),
            value: method.share,
            interval: method.share_low.zip(method.share_high),
            other: None,
        })
        .collect();
    let chart = agreement::chart(
        Words {
            name: "shares",
            title: "Preference share by method".to_owned(),
            description:
                "The share of pairs in which people preferred the method’s image, with 95 % \
                intervals. The table has the numbers."
                    .to_owned(),
            reference: (0.5, "as often as not"),
        },
        &lines,
    );
    html! {
        h2 #methods { "Which method do people prefer?" }
        p {
            "The " strong { "share" } " is the part of a method’s pairs that it won; a tie counts half. \
                It depends on which methods it met. The " strong { "strength" } " (Bradley-Terry) takes \
                that into account: 0 is average, and a lead of 1.1 means three wins to one."
        }
        @if let Some(why) = &of.preferences.no_strengths { p.note.warn { "Strengths: " (why) "." } }
        @if of.preferences.penalised {
            p.note { "Some methods never lost or never won. Half a win was added to each side of every \
                pair of methods, so strengths are closer together than the votes say." }
        }
        (view.chart(&chart))
        (view.table(&table(shown)))
        @if methods.len() > shown.len() {
            p.fine { "The first " (shown.len()) " of " (methods.len()) " methods. The downloads have all \
                of them." }
        }
    }
}

fn table(methods: &[MethodPreference]) -> Table {
    let columns = vec![
        Column::text("method"),
        Column::number("pairs"),
        Column::number("wins"),
        Column::number("ties"),
        Column::number("share"),
        Column::number("share low"),
        Column::number("share high"),
        Column::number("strength"),
        Column::number("strength low"),
        Column::number("strength high"),
    ];
    let row = |of: &MethodPreference| {
        let count = |count: usize| Cell::number(Some(count as f64), count.to_string());
        let percent = |share: Option<f64>| {
            let missing = no_interval(of.no_interval);
            Cell::number(share, share.map_or_else(|| missing.to_owned(), number::percent))
        };
        // The note above the table says why.
        let unknown = if of.strength.is_none() { "no strength" } else { "too few prompts" };
        let strength = |value: Option<f64>| {
            let shown = value.map_or_else(|| unknown.to_owned(), |value| number::rounded(value, 2));
            Cell::number(value, shown)
        };
        let board = Address::new("/leaderboard").with("method", &of.method);
        vec![
            Cell::text(&*of.method).shown(html! { a href=(board) { bdi { (of.method) } } }).head(),
            count(of.pairs),
            count(of.wins),
            count(of.ties),
            percent(Some(of.share)),
            percent(of.share_low),
            percent(of.share_high),
            strength(of.strength),
            strength(of.strength_low),
            strength(of.strength_high),
        ]
        .into()
    };
    Table {
        name: "methods",
        caption: "Methods by the preferences of people".to_owned(),
        columns,
        rows: methods.iter().map(row).collect(),
    }
}

/// Says why a number has no interval.
pub(super) fn no_interval(reason: Option<NoInterval>) -> &'static str {
    match reason {
        None => "not known",
        Some(NoInterval::TooFewPeople) => "too few people",
        Some(NoInterval::TooFewPrompts) => "too few prompts",
        Some(NoInterval::TooFewShared) => "too few shared",
        Some(NoInterval::NoVariation) => "all equal",
        Some(NoInterval::Pending) => "not ready",
        Some(NoInterval::Declared) => "declared",
    }
}

/// Says why there is no alpha over the items of a study.
pub(super) fn alpha_words(reason: Option<NoAlpha>) -> &'static str {
    match reason {
        Some(NoAlpha::NoVariation) => {
            "All shared items got the same answer. Agreement beyond chance cannot be computed from that."
        }
        _ => "No item was answered by two annotators.",
    }
}

/// Renders what more votes would settle.
pub(super) fn next(view: &mut View, of: &PreferencesResponse, next: &NextResponse) -> Markup {
    let mut seen = BTreeSet::new();
    let pairs: Vec<_> = next
        .pairs
        .iter()
        .filter(|pair| seen.insert((pair.method_a.as_str(), pair.method_b.as_str())))
        .take(MOST_PAIRS)
        .collect();
    let row = |pair: &&crate::api::preferences::next::NextEntry| {
        let name = |name: &str| Cell::text(name).shown(html! { bdi { (name) } });
        vec![
            name(&pair.method_a).head(),
            name(&pair.method_b),
            Cell::number(Some(pair.judged as f64), pair.judged.to_string()),
            Cell::number(Some(pair.expected), number::percent(pair.expected)),
            Cell::number(Some(pair.gain), number::rounded(pair.gain, 4)),
            Cell::text(verdict(of, &pair.method_a, &pair.method_b)).class("verdict"),
        ]
        .into()
    };
    let table = Table {
        name: "next",
        caption: "Pairs of methods whose next vote tells most".to_owned(),
        columns: vec![
            Column::text("one"),
            Column::text("other"),
            Column::number("votes"),
            Column::number("expected wins of one"),
            Column::number("information"),
            Column::text("so far"),
        ],
        rows: pairs.iter().map(row).collect(),
    };
    let question = String::from(of.question.clone());
    html! {
        h2 #next { "What would more votes settle?" }
        @if pairs.is_empty() {
            p { "Every pair of images has a vote on this question outside studies. More runs, or more annotators on the \
                same pairs, would add information." }
        } @else {
            p { "Close methods and methods that were hardly compared come first: the information of a \
                vote falls as its outcome is clearer, and as the two methods are judged more often. \
                Votes of all studies are among them. "
                a href=(Address::new("/vote").with("question", question)) { "Vote" }
                " asks about them in this order." }
            (view.table(&table))
        }
    }
}

/// Says whether the strengths of two methods are told apart.
fn verdict(of: &PreferencesResponse, one: &str, other: &str) -> &'static str {
    let strength = |name: &str| {
        let method = of.preferences.methods.iter().find(|method| method.method == name)?;
        method.strength_low.zip(method.strength_high)
    };
    match strength(one).zip(strength(other)) {
        None => "not compared on one scale yet",
        Some((one, other)) if one.0 > other.1 || other.0 > one.1 => "the intervals are apart",
        Some(_) => "the intervals overlap: not settled",
    }
}
