//! Pages for people, rendered by the server (`docs/PAGES.md`).
//!
//! A page reads what the API reads, through the functions behind its handlers, and has no
//! statistics of its own. The whole state of a view is its address. Pages work without JavaScript;
//! scripts add sorting, filtering and live updates.

mod address;
mod assets;
mod compare;
mod correlations;
mod datasets;
mod first_places;
mod gallery;
mod images;
mod leaderboard;
mod matrix;
mod method;
mod metrics;
mod portable;
pub(crate) mod problems;
mod questions;
mod run;
mod runs;
mod sample;
mod score;
mod show;
mod study;
mod submissions;
mod view;
mod vote;

use std::sync::Arc;

use axum::routing::{get, post};

use super::http::access::{Access, Guarded};
use super::state::App;
use crate::key::Scope;

pub(in crate::api::pages) use crate::figures::{charts, number, table};

/// Adds the pages that read a few rows.
pub(super) fn add(guarded: Guarded<Arc<App>>) -> Guarded<Arc<App>> {
    let read = Access::Scope(Scope::Read);
    // Annotators see the images that they compare, and nothing else.
    let images = Access::Either(Scope::Read, Scope::Annotate);
    guarded
        .page(Access::Open, "/assets/{name}", get(assets::serve))
        .page(read, "/metrics-guide", get(metrics::read))
        .page(images, "/images/{hash}", get(images::read))
        .page(Access::AnyKey, "/", get(score::form))
        .page(Access::AnyKey, "/score", get(score::to_form))
        .form(Scope::Score, "/score", post(score::submit))
        .form(Scope::Score, "/score/example", post(score::example))
        .page(read, "/runs", get(runs::read))
        .page(read, "/submissions", get(submissions::read))
        .page(read, "/methods/{name}", get(method::read))
        .page(read, "/datasets", get(datasets::list))
        .form(Scope::Annotate, "/vote", post(vote::cast))
        .form(Scope::Annotate, "/vote/undo", post(vote::withdraw))
        .form(Scope::Annotate, "/vote/study", post(vote::study::cast))
        .form(Scope::Annotate, "/vote/study/undo", post(vote::study::withdraw))
        .form(Scope::Score, "/study/new", post(study::actions::create))
        .form(Scope::Score, "/study/state", post(study::actions::set_state))
        .form(Scope::Score, "/study/exclude", post(study::actions::exclude))
        .form(Scope::Score, "/study/include", post(study::actions::include))
}

/// Adds the pages over whole runs, which are admitted like the analyses that they show.
pub(super) fn add_analyses(guarded: Guarded<Arc<App>>) -> Guarded<Arc<App>> {
    let read = Access::Scope(Scope::Read);
    guarded
        .page(read, "/samples/{id}", get(sample::read))
        .page(read, "/runs/{id}", get(run::read))
        .page(read, "/compare", get(compare::read))
        .page(read, "/gallery", get(gallery::read))
        .page(read, "/leaderboard", get(leaderboard::read))
        .page(read, "/correlations", get(correlations::read))
        .page(read, "/matrix", get(matrix::read))
        .page(read, "/first-places", get(first_places::read))
        .page(read, "/datasets/{dataset}", get(datasets::read))
        .page(read, "/study", get(study::read))
        .page(Access::Scope(Scope::Annotate), "/vote", get(vote::read))
}
