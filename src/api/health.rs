//! `/livez` and `/readyz`, the probes of orchestrators.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ApiError, Problem, Shared};

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
        (status = 503, description = "Not ready; the detail says why", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn ready(State(app): Shared) -> Result<Json<Health>, ApiError> {
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
        let why =
            format!("background tasks panicked a moment ago: {}; the log has the cause", failing.join(", "));
        return Err(ApiError::unavailable(why));
    }
    app.store.ping().await?;
    Ok(ok())
}
