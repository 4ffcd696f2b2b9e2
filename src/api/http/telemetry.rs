//! The middleware that counts every request once.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request, State},
    http::{Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tracing::{Instrument as _, Span, field::Empty};

use super::{error::Reported, request_id};
use crate::{
    telemetry::Telemetry,
    trace::{self, span},
};

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
pub(crate) async fn observe(
    State(telemetry): State<Telemetry>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let _in_flight = InFlight::enter(&telemetry.in_flight);
    let method = label(request.method());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("none".to_owned(), |path| path.as_str().to_owned());
    let body = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok())
        .filter(|length| *length > 0);
    let span = server_span(&request, &route, method);
    let response = next.run(request).instrument(span.clone()).await;
    span.record("http.response.status_code", response.status().as_u16());
    if response.status().is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    telemetry.request(&route, method, response.status().as_u16(), started.elapsed(), body);
    if let Some(Reported { code, bound }) = response.extensions().get() {
        telemetry.admission.problem(&code.name());
        if let Some(bound) = bound {
            telemetry.admission.refused(*bound);
        }
    }
    response
}

/// Starts the span of a request, in the trace of its caller. Names and attributes are those of
/// OpenTelemetry's conventions, without the path and the query, which have names in them.
fn server_span(request: &Request, route: &str, method: &str) -> Span {
    let span = span!(
        parent: None,
        "request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
        stellar.request_id = request_id::current(),
    );
    if !span.is_disabled()
        && let Some(caller) = request.headers().get("traceparent")
        && let Some(caller) = caller.to_str().ok().and_then(trace::caller)
    {
        trace::continue_from(&span, caller);
    }
    span
}

/// Returns all service metrics as a response.
pub(crate) fn exposition(telemetry: &Telemetry) -> impl IntoResponse + use<> {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], telemetry.export())
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
