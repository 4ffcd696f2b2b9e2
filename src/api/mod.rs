//! The HTTP API: one file for each resource. This file has all routes.

mod admission;
mod alignment;
mod analyses;
mod attributes;
mod bodies;
mod body;
mod compare;
mod correlations;
mod csv;
mod datasets;
mod drain;
mod error;
mod events;
mod filters;
mod form;
mod health;
mod hosts;
mod import;
mod leaderboard;
mod metrics;
mod models;
mod page;
mod preferences;
mod privacy;
mod prompts;
mod questions;
mod report;
mod request_id;
mod response_cache;
mod run_samples;
mod runs;
mod samples;
mod score;
mod slices;
mod telemetry;
mod toolkit;
mod trade_off;

use std::{any::Any, future::Future, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::DefaultBodyLimit,
    http::StatusCode,
    middleware,
    response::{IntoResponse as _, Response},
    routing::{delete, get},
};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};
use utoipa_swagger_ui::SwaggerUi;

use admission::Admission;
pub use error::{ApiError, Code, Problem};
pub use score::{Evidence, ScoreResponse, score_entry};

use crate::{
    config::Config,
    label,
    runs::Runs,
    scoring::Scoring,
    store::{LEADERBOARD_BYTES, Store},
    telemetry::Telemetry,
};

/// State shared by all handlers.
#[derive(Clone)]
pub struct App {
    scoring: Arc<Scoring>,
    store: Store,
    runs: Arc<Runs>,
    limits: crate::config::Limits,
    deadline: Duration,
    pace: bodies::Pace,
    hosts: hosts::Hosts,
    face_retention_days: u32,
    analysis: crate::config::Analysis,
    admission: Arc<Admission>,
    telemetry: Telemetry,
    reports: Arc<report::Reports>,
    boards: Arc<leaderboard::Boards>,
    imports: Arc<tokio::sync::Semaphore>,
    questions: Arc<questions::Questions>,
    judged: Arc<attributes::JudgedRuns>,
    datasets: Arc<datasets::Summaries>,
}

/// Returns the limit of all response caches together, in bytes.
#[must_use]
pub fn response_cache_bytes() -> u64 {
    report::KEPT_BYTES
        + leaderboard::KEPT_BYTES
        + attributes::KEPT_BYTES
        + datasets::KEPT_BYTES
        + LEADERBOARD_BYTES
}

/// Returns the limit of memory for concurrent imports, in bytes.
#[must_use]
pub fn import_bytes() -> u64 {
    import::MEMORY_BYTES
}

type Shared = axum::extract::State<Arc<App>>;

impl App {
    /// Creates the application from a started engine, an open store and an open spool.
    #[must_use]
    pub fn new(
        config: &Config,
        scoring: Arc<Scoring>,
        store: Store,
        runs: Arc<Runs>,
        telemetry: Telemetry,
    ) -> Self {
        if config.privacy.face_retention_days > 0 {
            scoring.set_face_store(Arc::new(privacy::StoredFaces(store.clone())));
        }
        scoring.show_embeddings(config.privacy.return_embeddings);
        Self {
            scoring,
            store,
            runs,
            limits: config.limits.clone(),
            deadline: config.server.deadline(),
            pace: bodies::Pace {
                grace: Duration::from_secs(config.server.body_seconds),
                bytes_per_second: config.server.body_bytes_per_second,
                deadline: config.server.deadline(),
            },
            hosts: hosts::Hosts::new(&config.server),
            face_retention_days: config.privacy.face_retention_days,
            analysis: config.analysis.clone(),
            admission: Arc::new(Admission::new(&config.limits)),
            telemetry,
            reports: Arc::new(report::reports()),
            questions: Arc::new(questions::Questions::new(&config.analysis.questions)),
            boards: Arc::new(leaderboard::boards()),
            imports: Arc::new(tokio::sync::Semaphore::new(import::AT_ONCE)),
            judged: Arc::new(attributes::judged_runs()),
            datasets: Arc::new(datasets::summaries()),
        }
    }

    /// Returns the same application for analyses, which have their own database connections.
    fn for_analyses(&self) -> Self {
        Self { store: self.store.for_analyses(analyses::connections(&self.analysis)), ..self.clone() }
    }

    /// Returns the digest of the pack with this name or digest; without one, of the loaded pack.
    async fn digest_of(&self, named: Option<&str>) -> Result<String, ApiError> {
        let loaded = self.scoring.pack().id();
        let Some(named) = named else { return Ok(loaded.digest) };
        if named == loaded.digest || named == loaded.name {
            return Ok(loaded.digest);
        }
        let mut packs = self.store.packs().await?;
        // A digest identifies one pack. Among several packs of one name, any choice is a guess.
        packs.retain(|pack| *pack != loaded);
        let of_name: Vec<_> = packs.iter().filter(|pack| pack.name == named).collect();
        if let Some(pack) = packs.iter().find(|pack| pack.digest == named) {
            return Ok(pack.digest.clone());
        }
        if let [pack] = of_name[..] {
            return Ok(pack.digest.clone());
        }
        let named: String = named.chars().take(80).collect();
        let list =
            std::iter::once(&loaded).chain(&packs).map(|pack| format!("{} ({})", pack.name, pack.digest));
        let list = list.take(50).collect::<Vec<_>>().join(", ");
        let problem = match of_name.len() {
            0 => format!("unknown pack `{named}`: the known packs are {list}"),
            _ => format!(
                "several packs are named `{named}`, give a digest instead: the known packs are {list}"
            ),
        };
        Err(ApiError::new(Code::MalformedRequest, problem))
    }

    /// Like `digest_of`; `all` stands for every pack and returns `None`.
    async fn digest_or_all(&self, named: Option<&str>) -> Result<Option<String>, ApiError> {
        if named == Some("all") { Ok(None) } else { self.digest_of(named).await.map(Some) }
    }

    /// Runs work that stores nothing; fails if it is not ready before the deadline.
    async fn before_deadline<T>(
        &self,
        work: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        tokio::time::timeout(self.deadline, work).await.unwrap_or_else(|_| {
            Err(ApiError::new(
                Code::DeadlineExceeded,
                format!(
                    "not ready after {} s: nothing was stored, retry when the service is less busy",
                    self.deadline.as_secs()
                ),
            ))
        })
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "stellar-score",
        description = "Scores images of personalised text-to-image generators with the same numbers as the reference \
                       implementations, stores the scores and ranks the generators.",
        license(name = "MIT OR Apache-2.0")
    ),
    tags(
        (name = "scores", description = "Score images and read the scores back"),
        (name = "runs", description = "Evaluate a generator: samples are accepted at once and scored in the background"),
        (name = "datasets", description = "Labelled photos from which metrics learn, and prompts"),
        (name = "privacy", description = "Delete stored data"),
        (name = "leaderboard", description = "Methods ranked by their scores"),
        (name = "analysis", description = "Comparisons of runs, slices, and agreement with annotators"),
        (name = "catalogue", description = "Available metrics and loaded models"),
        (name = "health", description = "Probes and service metrics for orchestrators")
    )
)]
struct Document;

fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(score::create))
        .routes(routes!(privacy::delete_sample))
        .routes(routes!(runs::create_method, runs::list_methods))
        .routes(routes!(runs::create, runs::list))
        .routes(routes!(runs::read, privacy::delete_run))
        .routes(routes!(run_samples::list))
        .routes(routes!(run_samples::put))
        .routes(routes!(events::watch))
        .routes(routes!(runs::finish))
        .routes(routes!(import::create))
        .routes(routes!(datasets::enrol))
        .routes(routes!(datasets::list))
        .routes(routes!(prompts::register, prompts::list))
        .routes(routes!(datasets::read_one, privacy::delete_dataset))
        .routes(routes!(privacy::delete_image))
        .routes(routes!(preferences::add, preferences::list))
        .routes(routes!(preferences::delete))
        .routes(routes!(preferences::delete_annotator))
        .routes(routes!(metrics::list))
        .routes(routes!(models::list))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(telemetry::export))
}

/// Routes over whole runs: admitted, computed and read separately from the others (`analyses.rs`).
fn analysis_routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(samples::read))
        .routes(routes!(report::read))
        .routes(routes!(toolkit::list))
        .routes(routes!(toolkit::read))
        .routes(routes!(attributes::read))
        .routes(routes!(leaderboard::read))
        .routes(routes!(compare::read))
        .routes(routes!(correlations::read))
        .routes(routes!(slices::read))
        .routes(routes!(trade_off::read))
        .routes(routes!(alignment::read))
        .routes(routes!(alignment::preferences))
        .routes(routes!(preferences::next))
}

/// Returns the OpenAPI document of all routes.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut document = routes().into_openapi();
    let mut analyses = analysis_routes().into_openapi();
    for item in analyses.paths.paths.values_mut() {
        let Some(operation) = &mut item.get else { continue };
        for (status, description) in [
            (
                "429",
                "The limit of concurrent and queued analyses is reached; retry after `Retry-After` seconds",
            ),
            ("504", "The deadline passed before the response was ready"),
        ] {
            let responses = &mut operation.responses.responses;
            responses.entry(status.to_owned()).or_insert_with(|| problem_response(description));
        }
    }
    document.merge(analyses);
    with_common_responses(document)
}

fn problem_response(description: &str) -> utoipa::openapi::RefOr<utoipa::openapi::Response> {
    let schema = utoipa::openapi::Ref::from_schema_name("Problem");
    let content = utoipa::openapi::ContentBuilder::new().schema(Some(schema)).build();
    let response = utoipa::openapi::ResponseBuilder::new().description(description);
    utoipa::openapi::RefOr::T(response.content("application/problem+json", content).build())
}

/// Adds the responses of the middleware around all routes.
fn with_common_responses(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    for item in document.paths.paths.values_mut() {
        let operations =
            [(&mut item.get, false), (&mut item.put, true), (&mut item.post, true), (&mut item.delete, true)];
        for (operation, writes) in operations {
            let Some(operation) = operation else { continue };
            let mut add = |status: &str, description: &str| {
                let responses = &mut operation.responses.responses;
                responses.entry(status.to_owned()).or_insert_with(|| problem_response(description));
            };
            add("400", "Malformed request");
            add("421", "The host is not one of this service (`server.hosts`)");
            if writes {
                add("403", "The request was sent by a page of another site");
            }
            if operation.request_body.is_some() {
                add("408", "The body did not arrive in time");
                add("413", "The body is too large");
                add("415", "Unsupported media type, or a compressed body");
                add("429", "Limit reached; retry after `Retry-After` seconds");
            }
        }
    }
    document
}

/// Builds the router with all routes and their middleware.
pub fn router(app: Arc<App>) -> Router {
    let (router, _) = routes().split_for_parts();
    let (analysed, _) = analysis_routes().split_for_parts();
    let documented = openapi();
    let analyses = analyses::Analyses::start(&app.analysis, app.deadline);
    let analysed = analysed
        .layer(middleware::from_fn_with_state(analyses, analyses::admit))
        .with_state(Arc::new(app.for_analyses()));
    router
        .route("/", get(|| async { axum::response::Redirect::temporary("/docs/") }))
        .route("/openapi.json", get(move || async move { Json(documented) }))
        .merge(SwaggerUi::new("/docs").config(utoipa_swagger_ui::Config::from("/openapi.json")))
        .merge(analysed)
        .route("/v1/pictures/{hash}", delete(images_of_pictures))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(app.limits.request_bytes()))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), bodies::bound))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), hosts::guard))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), telemetry::observe))
        .layer(middleware::from_fn(request_id::assign))
        .with_state(app)
}

/// Redirects the route's old name from version 0.1; to be removed in 0.3.
async fn images_of_pictures(
    axum::extract::Path(hash): axum::extract::Path<String>,
) -> axum::response::Redirect {
    tracing::warn!("deprecated route /v1/pictures was used; use /v1/images, the old route is removed in 0.3");
    // Other characters are never part of a hash and must not reach the header.
    let hash: String = hash.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
    axum::response::Redirect::permanent(&format!("/v1/images/{hash}"))
}

async fn not_found() -> ApiError {
    ApiError::new(Code::NotFound, "no such route: GET /docs lists all routes")
}

async fn method_not_allowed() -> ApiError {
    ApiError::new(Code::MethodNotAllowed, "the route does not accept this method: GET /docs lists all routes")
}

/// Turns a panic, which is a defect, into an error response like any other; only its request ends.
#[expect(clippy::needless_pass_by_value, reason = "the shape of a panic handler")]
fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("unknown panic");
    let response = ApiError::internal(&message).into_response();
    debug_assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    response
}

/// Limit of a query string, in bytes: long lists of names fit, and no valid query needs more.
const MOST_QUERY_BYTES: usize = 8 << 10;

/// The parameters of a query string; errors are problem documents.
struct Query<T>(T);

impl<T: serde::de::DeserializeOwned, S: Send + Sync> axum::extract::FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        state: &S,
    ) -> Result<Self, Self::Rejection> {
        let text = parts.uri.query().unwrap_or_default();
        if text.len() > MOST_QUERY_BYTES {
            let problem =
                format!("the query string is longer than {MOST_QUERY_BYTES} bytes: request less at once");
            return Err(ApiError::new(Code::MalformedRequest, problem));
        }
        let pairs = axum::extract::Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let pairs = pairs.map(|pairs| pairs.0).unwrap_or_default();
        for (name, value) in &pairs {
            if let Err(problem) = label::check_visible(name).and_then(|()| label::check_visible(value)) {
                let name: String = label::visible(name).chars().take(80).collect();
                return Err(ApiError::new(
                    Code::MalformedRequest,
                    format!("`{name}` in the query {problem}"),
                ));
            }
        }
        let query = if pairs.iter().any(|(_, value)| label::normal(value) != value.as_str()) {
            axum::extract::Query::<T>::try_from_uri(&normal_uri(&pairs))
        } else {
            axum::extract::Query::<T>::from_request_parts(parts, state).await
        };
        match query {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(rejection) => Err(ApiError::new(Code::MalformedRequest, rejection.body_text())),
        }
    }
}

/// Returns the same query with its values in the form in which names are stored.
fn normal_uri(pairs: &[(String, String)]) -> axum::http::Uri {
    let encoded = |text: &str| {
        text.bytes().fold(String::new(), |mut encoded, byte| {
            use std::fmt::Write as _;
            let _ = write!(encoded, "%{byte:02X}");
            encoded
        })
    };
    let pairs =
        pairs.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(&label::normal(value))));
    let query = pairs.collect::<Vec<_>>().join("&");
    format!("/?{query}").parse().expect("percent-encoded text is a valid query")
}
