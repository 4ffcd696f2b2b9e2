//! `GET /v1/audit`: who wrote or deleted what.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::http::{ApiError, Query, page_of};
use crate::api::state::Shared;
use crate::store::{AuditEntry, AuditQuery};

/// Filters of the audit log, and the page.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditParameters {
    /// Only entries of the key with this name.
    key: Option<String>,
    /// Only entries about this resource, as in `resource`.
    resource: Option<String>,
    /// Only entries since this time, in RFC 3339.
    #[serde(default, with = "time::serde::rfc3339::option")]
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<OffsetDateTime>,
    /// Starts after the entry with this id, going back in time.
    after: Option<Uuid>,
    /// Rows per page, 1 to 1000. Default: 100.
    limit: Option<u32>,
}

/// One page of the audit log.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct AuditResponse {
    /// Entries, the newest first.
    items: Vec<AuditRow>,
    /// Cursor of the next page, to be sent as `after`; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Uuid>,
}

/// A write or a deletion.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditRow {
    /// Id of the entry.
    id: Uuid,
    /// Time at which the request arrived.
    #[serde(with = "time::serde::rfc3339")]
    time: OffsetDateTime,
    /// Id of the key; absent if keys were not in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<Uuid>,
    /// Name of the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// HTTP method.
    #[schema(example = "DELETE")]
    method: String,
    /// Template of the route.
    #[schema(example = "/v1/runs/{id}")]
    route: String,
    /// Values of the template's parameters, separated by slashes. Names of samples and annotators
    /// are hashes.
    resource: String,
    /// Address of the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// Id of the request in the log.
    request_id: String,
    /// HTTP status of the response; 499 if the client left before it.
    status: u16,
}

impl From<AuditEntry> for AuditRow {
    fn from(entry: AuditEntry) -> Self {
        let (key_id, key) = entry.key.unzip();
        Self {
            id: entry.id,
            time: entry.time,
            key_id,
            key,
            method: entry.method,
            route: entry.route,
            resource: entry.resource,
            address: entry.address.map(|address| address.to_string()),
            request_id: entry.request_id,
            status: entry.status,
        }
    }
}

/// Lists writes and deletions, the newest first.
///
/// Requests that were refused for their key, limits or host are not listed, except those whose key
/// lacks the scope.
#[utoipa::path(
    get, path = "/v1/audit", operation_id = "read_audit", tag = "privacy",
    params(AuditParameters),
    responses((status = 200, description = "One page", body = AuditResponse))
)]
pub(super) async fn list(
    State(app): Shared,
    Query(parameters): Query<AuditParameters>,
) -> Result<Json<AuditResponse>, ApiError> {
    let AuditParameters { key, resource, since, after: before, limit } = parameters;
    let read =
        async |limit| app.store.audit(&AuditQuery { key, resource, since, before, limit }).await;
    let (items, next) = page_of(limit, read, |entry| entry.id).await?;
    Ok(Json(AuditResponse { items, next }))
}
