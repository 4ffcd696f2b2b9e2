//! `/livez` and `/readyz`, the probes of orchestrators, and `/metrics` for Prometheus.

use std::sync::Arc;

use axum::{Json, extract::State, http::header, response::IntoResponse};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    api::{
        http::ApiError,
        state::{App, Shared},
    },
    blocking::blocking,
    engine::Pack,
    telemetry::CertificateState,
    verify::DriftCertificate,
};

/// Response of the probes.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct Health {
    /// Always `ok`.
    status: String,
}

fn ok() -> Json<Health> {
    Json(Health { status: "ok".to_owned() })
}

/// Reports liveness: the process responds to requests.
#[utoipa::path(
    get, path = "/livez", operation_id = "read_liveness", tag = "health",
    responses((status = 200, description = "The process is alive", body = Health))
)]
pub(super) async fn live() -> Json<Health> {
    ok()
}

/// Reports readiness: every graph is loaded, warm and healthy, and the store responds.
#[utoipa::path(
    get, path = "/readyz", operation_id = "read_readiness", tag = "health",
    responses(
        (status = 200, description = "Ready", body = Health),
        (status = 503, description = "Not ready; the detail says why"),
    )
)]
pub(super) async fn ready(State(app): Shared) -> Result<Json<Health>, ApiError> {
    readiness(&app).await.map(|()| ok())
}

async fn readiness(app: &App) -> Result<(), ApiError> {
    let health = app.scoring.engine().health().borrow().clone();
    if !health.is_ready() {
        let failing: Vec<_> = health.failing.iter().map(AsRef::as_ref).collect();
        let why = if health.stopping {
            "the service is stopping".to_owned()
        } else {
            format!("graphs fail repeatedly or hang: {}; the log has the cause", failing.join(", "))
        };
        return Err(ApiError::unavailable(why));
    }
    let failing = app.runs.supervisor().failing();
    if !failing.is_empty() {
        let why = format!(
            "background tasks panicked a moment ago: {}; the log has the cause",
            failing.join(", ")
        );
        return Err(ApiError::unavailable(why));
    }
    app.store.ping().await?;
    Ok(())
}

/// Returns the service metrics in the text format of Prometheus.
#[utoipa::path(
    get, path = "/metrics", operation_id = "export_telemetry", tag = "health",
    responses((status = 200, description = "Prometheus text \
        format", body = String, content_type = "text/plain"))
)]
pub(super) async fn export(State(app): Shared) -> impl IntoResponse {
    for (what, bytes) in app.store.caches().bytes() {
        app.telemetry.response_cache.set(&[what], bytes as i64);
    }
    let telemetry = &app.telemetry;
    telemetry.admission.upload_bytes.set(app.admission.upload_bytes() as i64);
    telemetry.admission.requests.set(app.admission.requests() as i64);
    telemetry.ready.set(i64::from(readiness(&app).await.is_ok()));
    app.store.report_connections();
    let pack = Arc::clone(app.scoring.pack());
    telemetry.pack.certificate(blocking(move || certificate(&pack)).await);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.telemetry.export())
}

/// Reads the pack's certificate each time, since it may be stored while the pack is loaded.
fn certificate(pack: &Pack) -> CertificateState {
    match DriftCertificate::stored(pack) {
        Ok(Some(_)) => CertificateState::Valid,
        Ok(None) => CertificateState::Missing,
        Err(_) => CertificateState::Invalid,
    }
}
