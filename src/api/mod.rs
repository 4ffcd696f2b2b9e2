//! The HTTP API: one file or folder for each resource, and its plumbing in `http`. This file has
//! all routes.

mod adapters;
pub(crate) mod analysis;
mod audit;
mod caches;
pub(crate) mod datasets;
mod deletion;
mod engine;
mod face_store;
mod generate;
mod generation;
mod health;
mod http;
mod images;
mod methods;
mod metrics;
mod models;
mod pages;
mod preferences;
mod questions;
mod readiness;
mod rewards;
mod runs;
mod samples;
mod score;
mod starting;
mod state;
pub(crate) mod studies;
mod submissions;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::DefaultBodyLimit,
    http::Method,
    middleware,
    routing::{delete, get, post},
};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa::openapi::path::{Operation, Parameter, ParameterIn};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder, Schema};
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

use analysis::{
    alignment, alignment_differences, correlations, first_places, gallery, leaderboard, matrix,
    slices::{self, KindWord},
    trade_off,
};
pub use audit::AuditRow;
pub use caches::response_cache_bytes;
use datasets::{composition, consistency, photos, prompts, statistics};
use http::access::{Access, Guarded, add_schemes};
use http::keys::{self, Guard};
pub use http::{ApiError, Check, Code, Problem};
use http::{analyses, bodies, csv, fallback, forward, hosts, leaving, request_id, telemetry};
pub use readiness::Readiness;
pub use runs::import::import_bytes;
use runs::{
    RunOrder, attributes, changes, compare, distributions, events, failures, import, photo_swap,
    ranked, report, toolkit,
};
pub use score::{ScoreResponse, score_entry};
pub use starting::{Starting, Step};
pub use state::App;

use crate::analysis::{GallerySort, GroupBy, Grouping};
use crate::key::Scope;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "stellar-score",
        description = "Scores images of personalised text-to-image generators with the same \
            numbers as the reference implementations, stores the scores and ranks the generators.",
        license(name = "MIT OR Apache-2.0")
    ),
    // The enums of query parameters: utoipa collects schemas from bodies only.
    components(schemas(
        Problem,
        Grouping,
        KindWord,
        csv::Format,
        report::Format,
        GallerySort,
        GroupBy,
        RunOrder,
        studies::export::ExportFormat,
        ranked::RankedOrder,
    )),
    tags(
        (name = "scores", description = "Score images and read the scores back"),
        (name = "runs", description = "Evaluate a generator: samples are accepted at once and \
            scored in the background"),
        (name = "datasets", description = "Labelled photos from which metrics learn, and prompts"),
        (name = "privacy", description = "Delete stored data"),
        (name = "rewards", description = "Score batches during training, without storing them"),
        (name = "generation", description = "Images of a person from a prompt and a photo, if a \
            generator is configured"),
        (name = "leaderboard", description = "Methods ranked by their scores"),
        (name = "analysis", description = "Comparisons of runs, slices, and agreement with \
            annotators"),
        (name = "studies", description = "Human-preference studies: what annotators are asked, and \
            which methods they choose"),
        (name = "submissions", description = "Bundles of scores that are verified before they are \
            on the board, and its change log"),
        (name = "catalogue", description = "Available metrics and loaded models"),
        (name = "health", description = "Probes and service metrics for orchestrators")
    )
)]
struct Document;

/// The routes, each with the scope of the key that it needs (`docs/KEYS.md`).
fn routes() -> Guarded<Arc<App>> {
    Guarded::new(Document::openapi())
        .score(routes!(score::create))
        .admin(routes!(samples::delete))
        .score(routes!(rewards::compute))
        .score(routes!(adapters::pickle::score))
        // deepgen adds a slash.
        .form(Scope::Score, "/rl/pickle/{name}/", post(adapters::pickle::score))
        .score(routes!(adapters::unirl::score))
        .score(routes!(adapters::unirl::health))
        .score(routes!(adapters::unirl::list))
        .score(routes!(adapters::flow_factory::compute))
        .score(routes!(adapters::flow_factory::health))
        .score(routes!(adapters::cosmos::enqueue))
        .score(routes!(adapters::cosmos::pull))
        .score(routes!(adapters::cosmos::ping))
        .generate(routes!(generate::create))
        .score(routes!(methods::create))
        .read(routes!(methods::list))
        .read(routes!(methods::read))
        .score(routes!(runs::create))
        .read(routes!(runs::list))
        .read(routes!(runs::read))
        .admin(routes!(runs::delete))
        .read(routes!(runs::samples::list))
        .score(routes!(runs::samples::put))
        .read(routes!(events::watch))
        .read(routes!(failures::read))
        .score(routes!(runs::finish))
        .score(routes!(import::create))
        .score(routes!(photos::enrol))
        .read(routes!(datasets::list))
        .score(routes!(prompts::register))
        .read(routes!(prompts::list))
        .read(routes!(datasets::read))
        .admin(routes!(datasets::delete))
        .admin(routes!(images::delete))
        .annotate(routes!(preferences::add))
        .read(routes!(preferences::list))
        .annotate(routes!(preferences::delete))
        .admin(routes!(preferences::delete_annotator))
        .score(routes!(studies::create::create))
        .read(routes!(studies::list))
        .read(routes!(studies::read))
        .admin(routes!(studies::delete))
        .score(routes!(studies::set_state))
        .annotate(routes!(studies::next::read))
        .annotate(routes!(studies::answers::add))
        .annotate(routes!(studies::answers::withdraw))
        .score(routes!(studies::exclusions::add))
        .score(routes!(studies::exclusions::delete))
        .score(routes!(studies::exchange::list))
        .score(routes!(studies::exchange::import))
        .read(routes!(studies::sample_size::read))
        .score(routes!(submissions::create::create))
        .read(routes!(submissions::list))
        .read(routes!(submissions::read))
        .read(routes!(submissions::read_bundle))
        .admin(routes!(submissions::decide::verify))
        .admin(routes!(submissions::decide::withdraw))
        .admin(routes!(submissions::delete))
        .read(routes!(submissions::changes::list))
        .read(routes!(metrics::list))
        .read(routes!(models::list))
        .admin(routes!(audit::list))
        .admin(routes!(engine::offload))
        .admin(routes!(engine::reload))
        .open(routes!(health::live))
        .open(routes!(health::started))
        .open(routes!(health::ready))
        .metrics(routes!(health::export))
}

/// Routes over whole runs: admitted, computed and read separately from the others
/// (`http/analyses.rs`).
fn analysis_routes() -> Guarded<Arc<App>> {
    Guarded::new(utoipa::openapi::OpenApi::default())
        .read(routes!(samples::read))
        .read(routes!(report::read))
        .read(routes!(distributions::read))
        .read(routes!(ranked::list))
        .read(routes!(toolkit::list))
        .read(routes!(toolkit::read))
        .read(routes!(attributes::read))
        .read(routes!(leaderboard::read))
        .read(routes!(compare::read))
        .read(routes!(changes::read))
        .read(routes!(gallery::read))
        .read(routes!(correlations::read))
        .read(routes!(slices::read))
        .read(routes!(matrix::read))
        .read(routes!(trade_off::read))
        .read(routes!(alignment::read))
        .read(routes!(alignment_differences::read))
        .read(routes!(first_places::read))
        .read(routes!(photo_swap::read))
        .read(routes!(alignment::preferences))
        .read(routes!(studies::results::read))
        .read(routes!(studies::export::read))
        .read(routes!(composition::read))
        .read(routes!(consistency::read))
        .read(routes!(statistics::read))
        .annotate(routes!(preferences::next::read))
}

/// Returns the OpenAPI document of all routes.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut document = routes().into_openapi();
    let mut analyses = analysis_routes().into_openapi();
    for operation in analyses.paths.paths.values_mut().filter_map(|item| item.get.as_mut()) {
        let full = "The limit of concurrent and queued analyses is reached; retry after \
            `Retry-After` seconds";
        add_response(operation, "429", full);
        add_response(operation, "504", "The deadline passed before the response was ready");
    }
    document.merge(analyses);
    // A response adds its own fields to this one, and a request may not have others.
    let schemas = document.components.as_mut().map(|components| &mut components.schemas);
    if let Some(RefOr::T(Schema::Object(entry))) =
        schemas.and_then(|schemas| schemas.get_mut("PreferenceEntry"))
    {
        entry.additional_properties = None;
    }
    add_schemes(&mut document);
    adapters::problems::describe(with_common_responses(document))
}

/// Adds an error response, unless the operation describes one with this status.
fn add_response(operation: &mut Operation, status: &str, description: &str) {
    let response = || ResponseBuilder::new().description(description).build().into();
    operation.responses.responses.entry(status.to_owned()).or_insert_with(response);
}

/// Gives error responses the problem document as their body, unless they describe another one.
fn add_problem_bodies(operation: &mut Operation) {
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        if status.as_str() >= "400" && response.content.is_empty() {
            let schema = Some(Ref::from_schema_name("Problem"));
            let content = ContentBuilder::new().schema(schema).build();
            response.content.insert("application/problem+json".to_owned(), content.into());
        }
    }
}

/// Adds the responses of the middleware around all routes, and those that any route may give.
fn with_common_responses(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    let in_query = |one: &RefOr<Parameter>| match one {
        RefOr::T(one) => one.parameter_in == ParameterIn::Query,
        RefOr::Ref(_) => false,
    };
    for (path, item) in &mut document.paths.paths {
        let operations = [
            (&mut item.get, false),
            (&mut item.put, true),
            (&mut item.post, true),
            (&mut item.delete, true),
        ];
        for (operation, writes) in operations {
            let Some(operation) = operation else { continue };
            let has_query = operation.parameters.iter().flatten().any(in_query);
            let has_body = operation.request_body.is_some();
            let mut add = |status, description| add_response(operation, status, description);
            add("400", if has_query { "Invalid parameter" } else { "Malformed request" });
            add("421", "The host is not one of this service (`server.hosts`)");
            if path.starts_with("/v1/") {
                add("500", "Internal error; the log has the cause");
                add("503", "The service is starting or stopping, or the store is unavailable");
            }
            if path.starts_with("/v1/runs/{") {
                add("404", "No such run");
            }
            let keyed = operation.security.as_ref().is_some_and(|needs| !needs.is_empty());
            let mut add = |status, description| add_response(operation, status, description);
            if keyed {
                add("401", "The API key is missing, unknown, expired or revoked");
                add("429", "A limit is reached; retry after `Retry-After` seconds");
            }
            match (keyed, writes) {
                (true, true) => add(
                    "403",
                    "The API key does not have the scope of the route, or the request was sent by \
                        a page of another site",
                ),
                (true, false) => add("403", "The API key does not have the scope of the route"),
                (false, true) => add("403", "The request was sent by a page of another site"),
                (false, false) => {}
            }
            if has_body {
                add("408", "The body did not arrive in time");
                add("413", "The body is too large");
                add("415", "Unsupported media type, or a compressed body");
            }
            add_problem_bodies(operation);
        }
    }
    document
}

/// Builds the router with all routes and their middleware.
pub fn router(app: Arc<App>) -> Router {
    let (router, table) = pages::add(routes()).split();
    let (analysed, of_analyses) = pages::add_analyses(analysis_routes()).split();
    let table = table.merge(of_analyses).with(Method::GET, "/openapi.json", Access::AnyKey).with(
        Method::DELETE,
        "/v1/pictures/{hash}",
        Access::Scope(Scope::Admin),
    );
    let keys = Guard { keys: Arc::clone(&app.keys), table: Arc::new(table) };
    let documented = openapi();
    let readiness = Arc::clone(&app.readiness);
    let is_leaving: leaving::IsLeaving = Arc::new(move || readiness.is_leaving());
    let analyses = analyses::Analyses::start(&app.analysis, app.deadline);
    let analysed = analysed
        .layer(middleware::from_fn_with_state(analyses, analyses::admit))
        .with_state(Arc::new(app.for_analyses()));
    router
        .route("/openapi.json", get(move || async move { Json(documented) }))
        .merge(SwaggerUi::new("/docs").config(utoipa_swagger_ui::Config::from("/openapi.json")))
        .merge(analysed)
        .route("/v1/pictures/{hash}", delete(images::redirect))
        .fallback(fallback::no_route)
        .method_not_allowed_fallback(fallback::no_method)
        .layer(DefaultBodyLimit::max(app.limits.request_bytes()))
        .layer(middleware::from_fn_with_state(app.forward.clone(), forward::guard))
        .layer(middleware::from_fn_with_state(app.bodies.clone(), bodies::bound))
        .layer(middleware::from_fn_with_state(keys, keys::guard))
        .layer(CatchPanicLayer::custom(fallback::panicked))
        .layer(middleware::from_fn_with_state(Arc::clone(&app.hosts), hosts::guard))
        .layer(middleware::from_fn(pages::problems::render))
        .layer(middleware::from_fn(adapters::problems::render))
        .layer(middleware::from_fn_with_state(app.telemetry.clone(), telemetry::observe))
        .layer(middleware::from_fn_with_state(is_leaving, leaving::close))
        .layer(middleware::from_fn(request_id::assign))
        .with_state(app)
}
