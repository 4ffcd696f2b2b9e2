//! How the scores of a run change when the photo of a person is swapped.

use maud::{Markup, html};

use crate::analysis::{NoSwap, SwappedMetric};
use crate::api::http::{ApiError, Code, Id};
use crate::api::pages::{
    address::Address,
    number, show,
    table::{Cell, Column, Table},
    view::View,
};
use crate::api::runs::RunResponse;
use crate::api::runs::photo_swap::{self, PhotoSwapQuery, PhotoSwapResponse};
use crate::api::runs::report::Tabulated;
use crate::api::state::App;

/// Renders the section if the address asks for it, or else a link to it.
pub(super) async fn section(
    app: &App,
    view: &mut View,
    run: &RunResponse,
    address: &Address,
    of: &Tabulated,
) -> Result<Markup, ApiError> {
    if address.get("photos") != Some("true") {
        let to = format!("{}#photos", address.with("photos", "true"));
        return Ok(html! {
            @if !view.is_shared() {
                p { a href=(to) { "How much do scores depend on the photo?" }
                    " For runs with several photos of one person and prompt." }
            }
        });
    }
    let query = PhotoSwapQuery {
        with: address.get("with").map(ToOwned::to_owned),
        pack: of.pack.as_ref().map(|pack| pack.digest.clone()),
        ..PhotoSwapQuery::default()
    };
    let shown = match photo_swap::respond(app, Id::new(run.run_id), query).await {
        Ok(found) => found_section(view, &found),
        Err(error) if error.code() == Code::NothingToCompare => html! { p { (error.detail()) } },
        Err(error) => return Err(error),
    };
    Ok(html! { h2 #photos { "When the photo is swapped" } (shown) })
}

fn found_section(view: &mut View, found: &PhotoSwapResponse) -> Markup {
    let swap = &found.swap;
    match swap.no_swap {
        Some(NoSwap::NoSwappedPhotos) => {
            return html! {
                p {
                    "No person and prompt has images from two different photos. Send such a run: for each \
                     person and prompt several samples with names of their own, the same prompt and "
                    code { "metadata.identity" } ", and another reference image each. Photos in two runs \
                     of one method are compared with " code { "with=RUN_ID" } "."
                }
            };
        }
        Some(NoSwap::NoScores) => {
            return html! { p { "No metric has numbers for two photos of one person and prompt." } };
        }
        None => {}
    }
    html! {
        p {
            "Over " (number::count(swap.groups as u64)) " groups of images of one person and prompt, made \
                from different photos (" (number::count(swap.samples as u64)) " images of "
            (number::count(swap.people as u64)) " people). " strong { "Spread" } " is the standard \
                deviation of scores within a group, in the unit of the metric: small if a method \
                makes as good an image of any photo. " strong { "Share" } " is the part of the whole \
                variance that is within groups; the rest is between people and prompts. Brackets are \
                95 % intervals over people."
        }
        @if swap.groups_with_repeats == 0 {
            p.note {
                "Every photo has one image only, so the spread is that of photos and of chance together. \
                 With several images of one photo (other seeds), the two would be told apart."
            }
        }
        @if found.runs.len() > 1 { p.fine { "Runs: " @for (at, run) in found.runs.iter().enumerate() {
            @if at > 0 { ", " } (show::run_link(run.id, &run.method, &run.run))
        } } }
        (view.table(&table(&swap.metrics)))
    }
}

fn table(metrics: &[SwappedMetric]) -> Table {
    let row = |of: &SwappedMetric| {
        let missing = of.no_interval.map_or("not known", |reason| match reason {
            crate::analysis::NoInterval::NoVariation => "no spread",
            _ => "too few people",
        });
        let decimals = number::decimals(of.spread);
        let plain = |value: Option<f64>, missing: &str| {
            let shown =
                value.map_or_else(|| missing.to_owned(), |value| number::rounded(value, decimals));
            Cell::number(value, shown)
        };
        let percent = |value: Option<f64>, missing: &str| {
            Cell::number(value, value.map_or_else(|| missing.to_owned(), number::percent))
        };
        let alone = "one image a photo";
        vec![
            Cell::text(&*of.metric).shown(show::metric(&of.metric)).head(),
            Cell::number(Some(of.groups as f64), number::count(of.groups as u64)),
            Cell::number(Some(of.people as f64), number::count(of.people as u64)),
            plain(Some(of.mean), ""),
            plain(Some(of.spread), ""),
            plain(of.spread_low, missing),
            plain(of.spread_high, missing),
            percent(of.share, "one group"),
            percent(of.share_low, missing),
            percent(of.share_high, missing),
            plain(of.photo_spread, alone),
            plain(of.rest_spread, alone),
            percent(of.photo_share, alone),
        ]
        .into()
    };
    Table {
        name: "photos",
        caption: "Spread of scores when the photo is swapped".to_owned(),
        columns: vec![
            Column::text("metric"),
            Column::number("groups"),
            Column::number("people"),
            Column::number("mean"),
            Column::number("spread"),
            Column::number("spread low"),
            Column::number("spread high"),
            Column::number("share"),
            Column::number("share low"),
            Column::number("share high"),
            Column::number("spread of photos"),
            Column::number("spread of images of a photo"),
            Column::number("share of photos"),
        ],
        rows: metrics.iter().map(row).collect(),
    }
}
