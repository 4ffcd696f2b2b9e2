//! `GET /v1/board/changes`: the change log of the board.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::http::{ApiError, Query, page_of};
use crate::api::state::{App, Shared};
use crate::store::{BoardChange, SubmissionState};

/// Selects a page of the change log.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ChangesParameters {
    /// `next` of the previous page.
    pub(crate) after: Option<Uuid>,
    /// Rows per page, 1 to 1000. Default: 100.
    pub(crate) limit: Option<u32>,
}

/// One page of the change log.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct BoardChangesResponse {
    /// Changes, the newest first.
    pub(crate) items: Vec<BoardEntry>,
    /// Cursor of the next page, to be sent as `after`; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<Uuid>,
}

/// A change of a submission.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct BoardEntry {
    /// Id of the entry.
    pub(crate) id: Uuid,
    /// Time of the change.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) at: OffsetDateTime,
    /// The state into which the submission came.
    pub(crate) action: SubmissionState,
    /// The submission; null after its deletion.
    pub(crate) submission: Option<Uuid>,
    /// The method.
    pub(crate) method: String,
    /// The run of the method.
    pub(crate) run: String,
    /// Digest of the bundle.
    pub(crate) digest: String,
    /// Note about the change; empty without one.
    pub(crate) note: String,
    /// Id of the API key that made the change; null if keys were not in use.
    pub(crate) by: Option<Uuid>,
}

impl From<BoardChange> for BoardEntry {
    fn from(of: BoardChange) -> Self {
        Self {
            id: of.id,
            at: of.created,
            action: of.action,
            submission: of.submission,
            method: of.name.method,
            run: of.name.run,
            digest: of.digest,
            note: of.note,
            by: of.key,
        }
    }
}

/// Lists the changes of the board, the newest first: when which submission was received, verified
/// and withdrawn.
#[utoipa::path(
    get, path = "/v1/board/changes", operation_id = "list_board_changes", tag = "submissions",
    params(ChangesParameters),
    responses((status = 200, description = "One page", body = BoardChangesResponse))
)]
pub(crate) async fn list(
    State(app): Shared,
    Query(parameters): Query<ChangesParameters>,
) -> Result<Json<BoardChangesResponse>, ApiError> {
    respond(&app, parameters).await.map(Json)
}

/// Returns one page of the change log.
pub(crate) async fn respond(
    app: &App,
    parameters: ChangesParameters,
) -> Result<BoardChangesResponse, ApiError> {
    let read = async |limit| app.store.board_changes(parameters.after, limit).await;
    let (items, next) = page_of(parameters.limit, read, |of| of.id).await?;
    Ok(BoardChangesResponse { items, next })
}
