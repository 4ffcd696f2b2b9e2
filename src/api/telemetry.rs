//! `GET /metrics` for Prometheus, and the middleware that counts every request once.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{App, Shared};

/// Counts an in-flight request in a gauge; also correct if the client leaves and the handler is
/// dropped.
struct InFlight<'a>(&'a prometheus::IntGauge);

impl<'a> InFlight<'a> {
    fn enter(gauge: &'a prometheus::IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Counts and times every request, in one place so that no handler can omit it.
pub(super) async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let _in_flight = InFlight::enter(&app.telemetry.in_flight);
    let method = label(request.method());
    let route =
        request.extensions().get::<MatchedPath>().map_or("none".to_owned(), |path| path.as_str().to_owned());
    let body = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok())
        .filter(|length| *length > 0);
    let response = next.run(request).await;
    app.telemetry.request(&route, method, response.status().as_u16(), started.elapsed(), body);
    response
}

/// Returns the label of a method. Clients may invent methods, and every label creates a permanent
/// time series.
fn label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// Returns the service metrics in the text format of Prometheus.
#[utoipa::path(
    get, path = "/metrics", operation_id = "export_telemetry", tag = "health",
    responses((status = 200, description = "Prometheus text format", body = String, content_type = "text/plain"))
)]
pub(super) async fn export(State(app): Shared) -> impl IntoResponse {
    for (what, bytes) in [
        ("reports", app.reports.bytes()),
        ("boards", app.boards.bytes()),
        ("attributes", app.judged.bytes()),
        ("datasets", app.datasets.bytes()),
        ("leaderboards", app.store.remembered_bytes()),
    ] {
        app.telemetry.response_cache.set(&[what], bytes as i64);
    }
    app.telemetry.upload_bytes.set(app.admission.upload_bytes() as i64);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.telemetry.export())
}
