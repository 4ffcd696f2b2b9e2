//! `GET /compare`: two runs over the same samples.

mod detail;
mod difference;

use axum::{extract::State, response::Response};
use maud::{Markup, html};
use uuid::Uuid;

use self::difference::{differences, sign, signed, tone, turned};
use super::{
    address::Address,
    charts::forest::{ForestRow, Scales, forest},
    number, portable, show,
    view::{Section, View},
};
use crate::analysis::{Difference, GroupBy, Policy};
use crate::api::http::{ApiError, Code, Id};
use crate::api::runs::changes::{self, ChangesQuery};
use crate::api::runs::compare::{self, CompareQuery, CompareResponse, ComparedRun};
use crate::api::state::{App, Shared};
use crate::metrics::{self, ListError};

/// Parameters of the page that the API does not have as parameters of the query.
const OWN: [&str; 5] = ["a", "b", "runs", "metric", "by"];

/// Runs in a choice.
const CHOICES: u32 = 100;

/// Responds with the page.
pub(super) async fn read(State(app): Shared, address: Address) -> Result<Response, ApiError> {
    let query: CompareQuery = address.query(&OWN)?;
    // The list of runs sends its choice as `runs`.
    let mut picked = address.all("runs");
    let mut side = |name| address.get(name).or_else(|| picked.next()).map(str::to_owned);
    let (a, b) = (side("a"), side("b"));
    let is_cut = address.all("runs").count() > 2;
    let mut address = address.without("runs");
    for (name, id) in [("a", &a), ("b", &b)] {
        if let Some(id) = id {
            address = address.with(name, id);
        }
    }
    let mut view = View::new(Section::Runs, "Compare runs", &address).style("runs.css");
    let choice = choice(&app, &address, &query).await?;
    let (Some(a), Some(b)) = (a, b) else {
        let content = html! {
            h1 { "Compare runs" }
            p.lead { "Choose two runs. Their samples are paired by name." }
            (choice)
        };
        return view.respond(&app, &content);
    };
    let (a, b) = (run_id(&a)?, run_id(&b)?);
    let pair = compare::pair(&app, &a.to_string(), &b.to_string(), query.pack.as_deref()).await;
    let found = match pair {
        Ok(pair) => compare::respond(&pair, &query).await.map(|found| (pair, found)),
        Err(error) => Err(error),
    };
    let (pair, found) = match found {
        Ok(found) => found,
        // The choice stays on the page, so that another run can be chosen.
        Err(error) if error.code() == Code::NothingToCompare => {
            let content = html! {
                h1 { "Compare runs" }
                (choice)
                p.note.warn { "There is nothing to compare: " (error.detail()) "." }
            };
            return view.respond(&app, &content);
        }
        Err(error) => return Err(error),
    };
    let metric = chosen(&address, &found)?;
    let details = match metric {
        Some(metric) => {
            let query = ChangesQuery {
                metric: metric.to_owned(),
                by: by(&address),
                pack: query.pack.clone(),
                policy: query.policy,
                confidence: query.confidence,
                min_pairs: None,
                limit: Some(detail::GROUPS),
            };
            Some(changes::respond(&app, &pair, &query).await?)
        }
        None => None,
    };
    let swapped = address.with("a", b).with("b", a);
    let content = html! {
        div.title { h1 { "Compare runs" } (view.share()) }
        p.lead.sides {
            strong { "A" } " " (side_link(&found.a)) " against " strong { "B" } " " (side_link(&found.b)) " "
            a.fine href=(swapped) { "Swap" }
        }
        (choice)
        @if is_cut { p.note { "The first two of the selected runs are compared." } }
        (whole(&mut view, &found))
        @if let Some(details) = &details { (detail::detail(&mut view, &address, &found, details)) }
    };
    let content =
        portable::content(view.is_shared(), &app, content, [found.a.id, found.b.id]).await?;
    view.respond(&app, &content)
}

fn run_id(text: &str) -> Result<Uuid, ApiError> {
    Id::<crate::store::RunRecord>::parse(text).map(|id| id.0)
}

fn side_link(run: &ComparedRun) -> Markup {
    show::run_link(run.id, &run.method, &run.run)
}

fn by(address: &Address) -> GroupBy {
    if address.get("by") == Some("prompt") { GroupBy::Prompt } else { GroupBy::Identity }
}

/// Returns the metric of the details: the requested one, or the one whose difference is surest.
fn chosen(address: &Address, found: &CompareResponse) -> Result<Option<&'static str>, ApiError> {
    if let Some(code) = address.get("metric") {
        return Ok(Some(metrics::find(code).ok_or_else(|| ListError::unknown(code))?.code));
    }
    let all = found.comparison.slices.first().map_or(&[][..], |slice| &slice.metrics);
    let surest = all
        .iter()
        .filter(|of| show::direction(&of.metric).is_some())
        .min_by(|one, other| one.p.unwrap_or(1.0).total_cmp(&other.p.unwrap_or(1.0)));
    Ok(surest.or(all.first()).and_then(|of| metrics::find(&of.metric)).map(|metric| metric.code))
}

async fn choice(app: &App, address: &Address, query: &CompareQuery) -> Result<Markup, ApiError> {
    let listed = show::scored_runs(app, None, CHOICES).await?;
    let chosen = |name| address.get(name).and_then(|id| id.parse().ok());
    let policy = query.policy.unwrap_or_default();
    Ok(html! {
        @if listed.is_empty() {
            div.card.empty {
                p { "No run has scores yet. Send two runs over the same prompts:" }
                (show::submit())
            }
        }
        form.filters method="get" action="/compare" {
            (show::hidden(address, &["a", "b", "policy"]))
            (show::run_choice("a", "A, which is judged", &listed, chosen("a")))
            (show::run_choice("b", "B, the baseline", &listed, chosen("b")))
            label {
                "Penalty"
                select name="policy" {
                    @for each in Policy::ALL {
                        option value=(each.as_str()) selected[each == policy] { (each.as_str()) }
                    }
                }
            }
            button.main { "Compare" }
        }
    })
}

fn whole(view: &mut View, found: &CompareResponse) -> Markup {
    let comparison = &found.comparison;
    let Some(all) = comparison.slices.first() else { return html! {} };
    let of_all: Vec<_> = all.metrics.iter().map(|of| (all, of)).collect();
    let percent = number::percent(comparison.confidence);
    let rows: Vec<ForestRow> = all.metrics.iter().filter_map(row).collect();
    let description = "For each metric the difference A − B, drawn so that better for A is on the right, \
        with its interval. Each row has its own scale; the line is zero.";
    let chart = forest(
        "differences",
        "A compared with B".to_owned(),
        description.to_owned(),
        &rows,
        Scales::Own,
    );
    html! {
        p {
            (number::count(comparison.pairs as u64)) " pairs of samples with the same name. "
            @if comparison.only_a + comparison.only_b > 0 {
                (number::count(comparison.only_a as u64)) " samples of A and "
                (number::count(comparison.only_b as u64)) " of B have no partner and are left out. "
            }
            "Scores are of the pack " (found.pack.name) "."
        }
        @if !comparison.not_compared.is_empty() {
            p.note.warn {
                "Not compared, because only one run has them, or in different versions: "
                (comparison.not_compared.join(", ")) "."
            }
        }
        p.legend {
            span.better { "● A is better" } " " span.worse { "● A is worse" } " "
            span.fine { "● undecided: the interval contains zero" }
            br;
            "Right is better for A. Each row has its own scale, with zero at the line."
        }
        (view.chart(&chart))
        (view.table(&differences("comparison", "Differences by metric", &of_all)))
        p.fine {
            "Difference is A − B over pairs, so that hard prompts and people count for both alike. The \
                interval is the range of differences that the data are compatible with ("
            (percent) "): if it contains zero, the data do not decide. A wins counts the pairs in which \
                A is better; ties count half. p is the probability of a difference at least this large \
                if the runs were equal, corrected for the number of metrics (Holm)."
        }
    }
}

fn row(of: &Difference) -> Option<ForestRow> {
    show::direction(&of.metric)?;
    Some(ForestRow {
        label: of.metric.clone(),
        value: Some(sign(&of.metric) * of.difference),
        interval: turned(&of.metric, of.low, of.high),
        note: signed(of.difference, of.low.zip(of.high)),
        tone: tone(of.finding),
    })
}
