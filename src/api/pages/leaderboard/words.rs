//! What readers must know before they read the numbers, in plain words.

use maud::{Markup, html};

use super::cells;
use super::page::{Page, group_name, groups};
use super::published;
use crate::analysis::{Policy, Samples};
use crate::api::analysis::leaderboard::{LeaderboardResponse, Row};
use crate::api::pages::address::Address;
use crate::api::pages::{number, show};
use crate::clock;
use crate::metrics::{Direction, Metric};
use crate::pack_id::{PackId, Weights};

/// Maximum number of metrics whose first place is put into words.
const MOST_VERDICTS: usize = 3;

/// Parameters that choose no rows.
const OPTIONS: [&str; 10] =
    ["metrics", "sort", "view", "x", "y", "intervals", "limit", "policy", "on", "by"];

/// Maximum number of names in a sentence.
const MOST_NAMES: usize = 4;

/// Renders what the table is about: it must be readable without the page's address.
pub(super) fn facts(page: &Page, response: &LeaderboardResponse) -> Markup {
    let mut packs: Vec<&PackId> = response.rows.iter().map(|row| &row.pack).collect();
    packs.sort_unstable();
    packs.dedup();
    let filters =
        page.address.parameters().iter().filter(|(name, _)| {
            !OPTIONS.contains(&&**name) && name != "pack" && name != "published"
        });
    let unit = if response.rows.iter().any(|row| row.run.is_some()) { "runs" } else { "methods" };
    html! {
        dl.facts.board {
            dt { "Rows" } dd { (number::count(response.total as u64)) " " (unit) }
            dt { "Pack" }
            dd {
                @for (at, pack) in packs.iter().enumerate() {
                    @if at > 0 { ", " }
                    bdi { (pack.name) } " "
                    code title=(pack.digest) { (pack.digest.chars().take(12).collect::<String>()) }
                    " (" (pack.weights.as_str()) " weights)"
                }
                @if packs.is_empty() { "no measured row" }
            }
            dt { "Penalty" } dd { code { (response.policy.as_str()) } }
            dt { "Images" }
            dd {
                @match response.on {
                    Samples::All => "all of each row",
                    Samples::Common => "only those that all rows of a pack share",
                }
            }
            @for (name, value) in filters {
                dt { (name.replace('_', " ")) } dd { bdi { (value) } }
            }
            dt { "Date" } dd { (clock::now().date()) }
        }
    }
}

/// Renders what forbids comparisons.
pub(super) fn warnings(page: &Page, response: &LeaderboardResponse) -> Markup {
    let rows = &response.rows;
    let has = |weights| rows.iter().any(|row| row.pack.weights == weights);
    let is_mixed = rows.iter().any(|row| row.pack != rows[0].pack);
    let groups = groups(response);
    let count = groups.iter().max().map_or(0, |last| last + 1);
    let common = page.address.with("on", "common");
    html! {
        @if has(Weights::Demo) && page.loaded.weights != Weights::Demo {
            p.note.warn role="note" {
                strong { "Demo weights: numbers mean nothing. " }
                @if is_mixed { "The rows marked so" } @else { "All rows" }
                " were scored with weights that know nothing of real images."
            }
        }
        @if is_mixed {
            p.note.warn role="note" {
                "The rows were scored with different model packs. Numbers of different packs are not \
                 comparable, and ranks count within a pack."
            }
        }
        @if count > 1 {
            div.note.warn role="note" {
                p {
                    strong { "Compare rows of one group only. " }
                    "The rows fall into " (count) " groups, which were measured over different images: a \
                     higher average over easier prompts does not make a method better. Ranks count \
                     within a group."
                }
                ul.plain {
                    @for group in 0..count.min(6) {
                        @let members = groups.iter().filter(|each| **each == group).count() as u64;
                        @let first = groups.iter().position(|each| *each == group);
                        @if let Some(row) = first.map(|at| &rows[at]) {
                            li {
                                "Group " (group_name(group)) ": " (number::count(members)) " "
                                @if members == 1 { "row" } @else { "rows" }
                                @if row.sample_set.is_none() { ", not summarised yet: reload the page" }
                                @else if is_mixed { ", pack " bdi { (row.pack.name) } }
                            }
                        }
                    }
                }
                @if response.on == Samples::All && !page.is_shared {
                    p { a href=(common) { "Compare all rows over the images that they share" } }
                }
            }
        }
        @if let Some(reference) = &response.published {
            p.note role="note" {
                "Rows marked as published are from " (reference.source) ". " (reference.note)
                " They have no interval and no rank."
            }
            (published::user_study(reference))
        }
    }
}

/// Renders the sentences that suffice to read the table.
pub(super) fn how_to_read(policy: Policy, is_table: bool) -> Markup {
    html! {
        section.how {
            h2 { "How to read this" }
            ol {
                li {
                    strong { "Number. " }
                    "The average score of a method over its images. The arrow beside a metric says \
                     which end is better."
                }
                li {
                    strong { "Certainty. " }
                    @if is_table { "The bar below a number " } @else { "The line through a dot " }
                    "shows how far the average may be off (a 95 % interval); the mark on it is the \
                     average, and all bars of a metric share one scale. Two bars that do not overlap: \
                     the difference is certain, as far as 95 % is. Two bars that overlap: treat the \
                     methods as equal."
                }
                li {
                    strong { "Rank. " }
                    "A plain 3 is a settled third place. A range such as 1–2 means first or second: \
                     the data do not tell which."
                }
                li { strong { "Penalty. " } (penalty(policy, is_table)) }
            }
        }
    }
}

fn penalty(policy: Policy, is_table: bool) -> Markup {
    html! {
        @match policy {
            Policy::Stellar => {
                "Some generators copy the person's photo. An image counts as a copy if it matches its \
                 prompt hardly better than the reference photo would; it then gets 0 in the identity \
                 metrics (IPS, SIS, APS), and no other metric changes. The averages include these 0."
                @if is_table { " Penalised is the share of such images." }
            }
            Policy::Toolkit => {
                "As in the paper's toolkit: an image that hardly fits its prompt better than the \
                 reference image does counts as 0 in IPS and SIS, and in APS its wrong predictions \
                 count as right. Use it only beside numbers of the toolkit."
            }
            Policy::None => {
                "None is applied: scores as measured. A method that copies the reference image can \
                 come first in the identity metrics without following any prompt."
            }
        }
    }
}

/// Puts into words who is first, for the metric that the rows are sorted by or the first ones.
pub(super) fn verdicts(
    page: &Page,
    response: &LeaderboardResponse,
    columns: &[&'static Metric],
) -> Markup {
    let is_ranked = |metric: &&&Metric| metric.direction != Direction::Support;
    let sorted = columns.iter().filter(|metric| metric.code == page.sort).filter(is_ranked);
    let others = columns.iter().filter(is_ranked).filter(|metric| metric.code != page.sort);
    let most = if metrics_are_sorted(page, columns) { 1 } else { MOST_VERDICTS };
    let sentences: Vec<Markup> =
        sorted.chain(others).take(most).filter_map(|metric| verdict(response, metric)).collect();
    html! {
        @if !sentences.is_empty() && response.next.is_none() && page.address.get("after").is_none() {
            section.words {
                h2 { "In words" }
                ul { @for sentence in sentences { li { (sentence) } } }
                p.fine {
                    "Comparing two runs image by image separates more than their bars do: see "
                    @if page.is_shared { "the runs" } @else { a href="/runs" { "the runs" } } "."
                }
            }
        }
    }
}

fn metrics_are_sorted(page: &Page, columns: &[&'static Metric]) -> bool {
    columns.iter().any(|metric| metric.code == page.sort)
}

/// Says which rows of the first group are first in a metric, and whether that is certain.
fn verdict(response: &LeaderboardResponse, metric: &Metric) -> Option<Markup> {
    let groups = groups(response);
    let has_groups = groups.iter().any(|group| *group > 0);
    let of = |row: &Row| row.metrics.get(metric.code).and_then(|of| of.rank);
    let all = response.rows.iter().zip(groups).filter(|(_, group)| *group == 0);
    let ranked: Vec<&Row> = all.map(|(row, _)| row).filter(|row| of(row).is_some()).collect();
    if ranked.len() < 2 {
        return None;
    }
    let (mut first, rest): (Vec<&Row>, Vec<&Row>) =
        ranked.into_iter().partition(|row| of(row) == Some(1));
    first.sort_by(|a, b| mean(b, metric).total_cmp(&mean(a, metric)));
    let label = metric.guide.label();
    let scope = if has_groups { "In group A, " } else { "" };
    Some(html! {
        (scope)
        @match (&first[..], &rest[..]) {
            ([only], [other]) => {
                (name(only)) " is better than " (name(other)) " in " (label)
                ", and the difference is certain (at the usual 95 %): their bars do not overlap."
            }
            ([only], _) => {
                (name(only)) " is first in " (label)
                ", and the difference from each of the others is certain (at the usual 95 %)."
            }
            (several, _) => {
                (names(several)) " share the first place in " (label)
                ": the data do not separate them. The best average is that of "
                (name(several[0])) ", which may be chance."
                @if !rest.is_empty() {
                    " Certainly not first: " (names(&rest)) "."
                }
            }
        }
    })
}

/// Returns the mean of a row, oriented so that more is better.
fn mean(row: &Row, metric: &Metric) -> f64 {
    let mean = row.metrics.get(metric.code).and_then(|of| of.numbers.mean);
    let mean = mean.unwrap_or(f64::NEG_INFINITY);
    if metric.direction == Direction::LowerIsBetter { -mean } else { mean }
}

fn name(row: &Row) -> Markup {
    html! {
        strong { bdi { (row.method) } }
        @if let Some(run) = &row.run { " / " bdi { (run) } }
    }
}

fn names(rows: &[&Row]) -> Markup {
    let shown = if rows.len() > MOST_NAMES { MOST_NAMES - 1 } else { rows.len() };
    let left = rows.len() - shown;
    html! {
        @for (at, row) in rows[..shown].iter().enumerate() {
            @if at > 0 { @if at + 1 == shown && left == 0 { " and " } @else { ", " } }
            (name(row))
        }
        @if left > 0 { " and " (number::count(left as u64)) " others" }
    }
}

/// Renders the meaning of the columns, for files that have no links.
pub(super) fn definitions(columns: &[&Metric]) -> Markup {
    html! {
        h2 { "The metrics" }
        dl.facts {
            @for metric in columns {
                dt { (metric.guide.label()) }
                dd { (metric.guide.question) " " span.fine { (cells::better(metric)) } }
            }
        }
    }
}

/// Renders what to do if there are no rows.
pub(super) fn nothing(page: &Page) -> Markup {
    let address = &page.address;
    let is_filtered = address.parameters().iter().any(|(name, _)| !OPTIONS.contains(&&**name));
    html! {
        div.card.empty {
            @if is_filtered {
                h2 { "No row fits these filters" }
                p {
                    "A part of the images is shown from 20 images on (fewest images), and every pack has \
                     rows of its own."
                }
                @if !page.is_shared {
                    p {
                        a.button href=(Address::new("/leaderboard")) { "Clear all filters" } " "
                        a.button href=(address.with("pack", "all")) { "Show every pack" }
                    }
                }
            } @else {
                h2 { "No scores of the loaded pack yet" }
                p {
                    "Submit the images of a generator, or score a single image with a method's name."
                }
                (show::submit())
                @if !page.is_shared {
                    p {
                        a.button href="/" { "Score an image" } " "
                        a.button href=(address.with("pack", "all")) { "Show every pack" } " "
                        a.button href=(address.with("published", "true")) { "Show published results" }
                    }
                }
            }
        }
    }
}
