//! `/livez`, `/startupz` and `/readyz`, the probes of orchestrators, and `/metrics` for Prometheus.

use std::sync::Arc;

use axum::{Json, extract::State, response::IntoResponse};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    api::{
        http::{ApiError, Check, telemetry::exposition},
        readiness::verdict,
        state::Shared,
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
    /// The checks behind the response; none for liveness.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    checks: Vec<Check>,
}

fn ok(checks: Vec<Check>) -> Json<Health> {
    Json(Health { status: "ok".to_owned(), checks })
}

/// Reports liveness: the process responds to requests.
#[utoipa::path(
    get, path = "/livez", operation_id = "read_liveness", tag = "health",
    responses((status = 200, description = "The process is alive", body = Health))
)]
pub(super) async fn live() -> Json<Health> {
    ok(Vec::new())
}

/// Reports whether the service has started: the store is migrated, and every graph was loaded.
#[utoipa::path(
    get, path = "/startupz", operation_id = "read_start", tag = "health",
    responses(
        (status = 200, description = "Started", body = Health),
        (status = 503, description = "Loading; `checks` says what"),
    )
)]
pub(super) async fn started() -> Json<Health> {
    ok(Vec::new())
}

/// Reports readiness: every graph is warm and healthy, the store responds, disks have room, and
/// background tasks run.
#[utoipa::path(
    get, path = "/readyz", operation_id = "read_readiness", tag = "health",
    responses(
        (status = 200, description = "Ready", body = Health),
        (status = 503, description = "Not ready; `detail` and `checks` say why"),
    )
)]
pub(super) async fn ready(State(app): Shared) -> Result<Json<Health>, ApiError> {
    verdict(app.readiness.checks(&app.scoring, &app.store, &app.runs).await).map(ok)
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
    telemetry.admission.rewards_items.set(app.reward_turns.taken() as i64);
    telemetry.admission.rewards_waiting.set(app.reward_turns.waiting() as i64);
    telemetry.admission.rewards_bytes.set(app.admission.queued_bytes() as i64);
    let checks = app.readiness.checks(&app.scoring, &app.store, &app.runs).await;
    telemetry.ready.set(i64::from(verdict(checks).is_ok()));
    app.store.report_connections();
    let pack = Arc::clone(app.scoring.pack());
    telemetry.pack.certificate(blocking(move || certificate(&pack)).await);
    exposition(telemetry)
}

/// Reads the pack's certificate each time, since it may be stored while the pack is loaded.
fn certificate(pack: &Pack) -> CertificateState {
    match DriftCertificate::stored(pack) {
        Ok(Some(_)) => CertificateState::Valid,
        Ok(None) => CertificateState::Missing,
        Err(_) => CertificateState::Invalid,
    }
}
