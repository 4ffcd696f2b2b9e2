//! What the service answers while it starts: it is alive, and not ready yet.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU8, Ordering},
};

use axum::{
    Json, Router,
    extract::{Request, State},
    middleware,
    response::IntoResponse,
    routing::get,
};
use tower::{ServiceExt as _, service_fn};

use crate::{
    api::{
        health,
        http::{
            ApiError, Check, drain, request_id,
            telemetry::{self, exposition},
        },
        readiness::{Board, verdict},
    },
    telemetry::Telemetry,
};

/// A part of the start that takes time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The store is opened and migrated.
    Migrations = 0,
    /// The files of the pack are compared with their digests.
    Pack = 1,
    /// The graphs are loaded and warmed up.
    Graphs = 2,
}

/// The progress of a start.
#[derive(Debug)]
pub struct Starting {
    step: AtomicU8,
    board: Board,
    telemetry: Telemetry,
    /// Whether `/metrics` answers before keys can be checked.
    open_metrics: bool,
    started: OnceLock<Router>,
}

impl Starting {
    /// Begins with the first step. `open_metrics` is false if `/metrics` may need a key: it is then
    /// refused until keys can be checked.
    #[must_use]
    pub fn new(telemetry: Telemetry, open_metrics: bool) -> Arc<Self> {
        let step = AtomicU8::new(Step::Migrations as u8);
        let (board, started) = (Board::default(), OnceLock::new());
        Arc::new(Self { step, board, telemetry, open_metrics, started })
    }

    /// Records that this step has begun, and those before it are done.
    pub fn begin(&self, step: Step) {
        self.step.store(step as u8, Ordering::Relaxed);
        // Fixes the time of the change.
        self.checks();
    }

    /// Sends all further requests to the routes of the started service.
    pub fn finish(&self, routes: Router) {
        // It is called once, at the end of the start.
        let _ = self.started.set(routes);
    }

    fn checks(&self) -> Vec<Check> {
        let now = self.step.load(Ordering::Relaxed);
        let check = |name, step: Step| {
            let waits = (step as u8) >= now;
            self.board.check(name, waits.then(|| "loading".to_owned()))
        };
        vec![
            check("migrations", Step::Migrations),
            check("pack", Step::Pack),
            check("graphs", Step::Graphs),
        ]
    }

    /// Returns routes that answer from now on, first for a service that is starting.
    pub fn routes(self: Arc<Self>) -> Router {
        let probes = Router::new()
            .route("/livez", get(health::live))
            .route("/readyz", get(not_ready))
            .route("/startupz", get(not_ready));
        let waiting =
            if self.open_metrics { probes.route("/metrics", get(export)) } else { probes }
                .fallback(refuse)
                .layer(middleware::from_fn_with_state(self.telemetry.clone(), telemetry::observe))
                .layer(middleware::from_fn(request_id::assign))
                .with_state(Arc::clone(&self));
        Router::new().fallback_service(service_fn(move |request: Request| {
            self.started.get().unwrap_or(&waiting).clone().oneshot(request)
        }))
    }
}

async fn not_ready(State(starting): State<Arc<Starting>>) -> Result<Json<Vec<Check>>, ApiError> {
    verdict(starting.checks()).map(Json)
}

async fn export(State(starting): State<Arc<Starting>>) -> impl IntoResponse {
    exposition(&starting.telemetry)
}

async fn refuse(request: Request) -> Result<(), ApiError> {
    let starts = "the service is starting: retry when /readyz returns 200";
    drain::whole(request, |_| async { Err(ApiError::unavailable(starts)) }).await
}
