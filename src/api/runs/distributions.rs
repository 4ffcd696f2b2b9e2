//! `GET /v1/runs/{id}/distributions`: how the scores of a run are distributed.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::http::{ApiError, Id, Query};
use crate::api::runs::report::{self, ReportQuery};
use crate::api::state::Shared;
use crate::{
    analysis::{Distribution, Policy},
    metrics,
    pack_id::PackId,
    store::RunRecord,
};

/// Options of distributions.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DistributionsQuery {
    /// Only these metrics, codes separated by commas.
    #[param(example = "ips,clip_t")]
    metrics: Option<String>,
    /// Digest of the pack of the scores, or the name of an import's source. Default: the run's
    /// pack, or the only pack that the run has scores of.
    pack: Option<String>,
}

/// The distributions of a run's scores.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct DistributionsResponse {
    /// Id of the run.
    run_id: Uuid,
    /// The pack of the scores; null without scores.
    pack: Option<PackId>,
    /// One entry for each metric with numbers, sorted by code.
    metrics: Vec<Distribution>,
}

/// Returns a histogram and the quartiles of each metric over the samples of a run.
///
/// The scores are those as measured: no penalty is applied.
#[utoipa::path(
    get, path = "/v1/runs/{id}/distributions", operation_id = "read_distributions", tag = "runs",
    params(("id" = Uuid, Path, description = "Id of the run (`run_id`)"), DistributionsQuery),
    responses(
        (status = 200, description = "The distributions", body = DistributionsResponse),
        (status = 422, description = "Unknown metric, or the run has scores of several packs"),
    )
)]
pub(crate) async fn read(
    State(app): Shared,
    Query(parameters): Query<DistributionsQuery>,
    id: Id<RunRecord>,
) -> Result<Json<DistributionsResponse>, ApiError> {
    let wanted = parameters.metrics.as_deref().map(metrics::parse_list).transpose()?;
    let query = ReportQuery { pack: parameters.pack, ..ReportQuery::of(Policy::None) };
    let tabulated = report::tabulated(&app, id, &query).await?;
    let is_wanted = |code: &str| {
        wanted.as_ref().is_none_or(|wanted| wanted.iter().any(|metric| metric.code == code))
    };
    let all = tabulated.table.distributions.iter();
    Ok(Json(DistributionsResponse {
        run_id: tabulated.run.id,
        pack: tabulated.pack,
        metrics: all.filter(|of| is_wanted(&of.metric)).cloned().collect(),
    }))
}
