//! `GET /v1/runs/{id}/ranked`: the samples of a run in the order of a metric.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::http::{ApiError, Id, Query, page};
use crate::api::runs::{find, report, unknown_run};
use crate::api::state::{App, Shared};
use crate::{
    blocking::blocking,
    metrics::{self, Direction, ListError},
    pack_id::PackId,
    store::{RunRecord, SampleBrief},
};

/// Selects samples by a metric.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RankedQuery {
    /// Code of the metric.
    #[param(example = "ips")]
    pub(crate) metric: String,
    /// Order of the samples. Default: `best`.
    #[serde(default)]
    pub(crate) order: RankedOrder,
    /// Digest of the pack of the scores, or the name of an import's source. Default: the run's
    /// pack, or the only pack that the run has scores of.
    pub(crate) pack: Option<String>,
    /// Number of samples to skip. Default: 0.
    pub(crate) offset: Option<u32>,
    /// Rows per page, 1 to 1000. Default: 100.
    pub(crate) limit: Option<u32>,
}

/// Order of samples by a metric.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RankedOrder {
    /// The best sample first; the largest number, if the metric has no direction.
    #[default]
    Best,
    /// The worst sample first; the smallest number, if the metric has no direction.
    Worst,
}

/// Samples of a run in the order of a metric.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct RankedResponse {
    /// Id of the run.
    pub(crate) run_id: Uuid,
    /// The pack of the scores; null without scores.
    pub(crate) pack: Option<PackId>,
    /// Code of the metric.
    pub(crate) metric: String,
    /// The samples with a number; those without one are left out.
    pub(crate) samples: Vec<RankedSample>,
}

/// A sample with its score.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct RankedSample {
    /// Name of the sample in the run.
    pub(crate) name: String,
    /// The score, as measured: no penalty is applied.
    pub(crate) value: f64,
    /// The sample.
    #[serde(flatten)]
    pub(crate) brief: Brief,
}

/// What lists show of a sample.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = SampleBrief)]
pub(crate) struct Brief {
    /// Id of the sample.
    pub(crate) id: Uuid,
    /// The prompt that the image was generated from.
    pub(crate) prompt: Option<String>,
    /// The person that it is about.
    pub(crate) identity: Option<String>,
    /// BLAKE3 hash of the generated image's file; null if the scores were imported.
    pub(crate) image: Option<String>,
    /// BLAKE3 hashes of the files of the reference images.
    pub(crate) references: Vec<String>,
}

impl From<SampleBrief> for Brief {
    fn from(brief: SampleBrief) -> Self {
        let SampleBrief { id, prompt, identity, image, references } = brief;
        Self { id, prompt, identity, image, references }
    }
}

/// Lists the samples of a run in the order of a metric, best or worst first.
#[utoipa::path(
    get, path = "/v1/runs/{id}/ranked", operation_id = "rank_samples", tag = "runs",
    params(("id" = Uuid, Path, description = "Id of the run (`run_id`)"), RankedQuery),
    responses(
        (status = 200, description = "One page", body = RankedResponse),
        (status = 422, description = "Unknown metric, or the run has scores of several packs"),
    )
)]
pub(crate) async fn list(
    State(app): Shared,
    Query(parameters): Query<RankedQuery>,
    id: Id<RunRecord>,
) -> Result<Json<RankedResponse>, ApiError> {
    respond(&app, id, parameters).await.map(Json)
}

/// Returns the samples of a run in the order of a metric.
pub(crate) async fn respond(
    app: &App,
    id: Id<RunRecord>,
    parameters: RankedQuery,
) -> Result<RankedResponse, ApiError> {
    let code = &parameters.metric;
    let metric = metrics::find(code).ok_or_else(|| ListError::unknown(code))?;
    let limit = page(parameters.limit)?;
    let run = find(app, id).await?;
    let pack = report::pack(app, &run, parameters.pack.as_deref()).await?;
    let is_best = parameters.order == RankedOrder::Best;
    let mut samples = Vec::new();
    if let Some(pack) = &pack {
        let descending = is_best == (metric.direction != Direction::LowerIsBetter);
        let (first, most) = (parameters.offset.unwrap_or_default() as usize, limit as usize);
        let data = app.store.run_data(run.id, Some(&pack.digest)).await?.ok_or_else(unknown_run)?;
        let ranked = blocking(move || {
            let Some(column) = data.metrics.get(metric.code) else { return Vec::new() };
            let places = column.ranked(descending).into_iter().skip(first).take(most);
            let ranked = places.filter_map(|at| Some((data.names[at].clone(), column.values[at]?)));
            ranked.collect::<Vec<_>>()
        });
        let ranked = ranked.await;
        let names: Vec<String> = ranked.iter().map(|(name, _)| name.clone()).collect();
        let mut briefs = app.store.sample_briefs(run.id, &names).await?;
        // A sample that was deleted between the statements is left out.
        samples.extend(ranked.into_iter().filter_map(|(name, value)| {
            let brief = briefs.remove(&name)?.into();
            Some(RankedSample { name, value, brief })
        }));
    }
    Ok(RankedResponse { run_id: run.id, pack, metric: metric.code.to_owned(), samples })
}
