//! `GET /v1/runs/{id}/photo-swap`: how scores change when a person's photo is swapped.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::http::{ApiError, Code, Id, Query};
use crate::api::runs::compare::{ComparedRun, nothing};
use crate::api::runs::find;
use crate::api::state::{App, Shared};
use crate::{
    analysis::{PhotoSwap, RunPhotos, photo_swap},
    blocking::blocking,
    metrics,
    pack_id::PackId,
    store::RunRecord,
};

/// Maximum number of further runs: all their scores are in memory at once.
const MOST_RUNS: usize = 8;

/// Further runs, and what to measure.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PhotoSwapQuery {
    /// Ids of at most 8 further runs of the same method, separated by commas, such as one with
    /// other photos of the same people.
    pub(crate) with: Option<String>,
    /// Only these metrics, codes separated by commas. Default: all that have a direction.
    #[param(example = "ips,sis")]
    pub(crate) metrics: Option<String>,
    /// Only prompts of this kind (`metadata.prompt_kind`).
    #[param(example = "T")]
    pub(crate) kind: Option<String>,
    /// Name or digest of the pack of the scores. Default: the pack of most of the run's scores.
    pub(crate) pack: Option<String>,
}

/// Spread of scores when photos are swapped.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "runs": [{"id": "0197a7c6-6f00-7000-8000-000000000001", "method": "mine", "run": "two photos"}],
    "pack": {"name": "official", "digest": "…", "weights": "official"},
    "groups": 400, "samples": 800, "people": 100, "groups_with_repeats": 0,
    "metrics": [{"metric": "ips", "version": 1, "groups": 396, "photos": 792, "samples": 792, "people": 100, "few_people": false,
        "mean": 0.52, "spread": 0.061, "spread_low": 0.055, "spread_high": 0.068, "share": 0.31, "share_low": 0.26, "share_high": 0.37,
        "photo_spread": null, "rest_spread": null, "photo_share": null, "photo_share_low": null, "photo_share_high": null}]}))]
pub(crate) struct PhotoSwapResponse {
    /// The runs.
    pub(crate) runs: Vec<ComparedRun>,
    /// The pack of the scores.
    pub(crate) pack: PackId,
    /// The spread.
    #[serde(flatten)]
    pub(crate) swap: PhotoSwap,
}

/// Measures how scores change when the photo of a person is swapped for another one.
///
/// Samples of one person (`metadata.identity`) and one prompt are a group if their reference images
/// differ. `spread` is the standard deviation of scores within groups, and `share` the part of the
/// whole variance that is within groups. If a group has several samples of one photo, the part of
/// the photo alone is given too. Intervals resample people. Without such groups, `no_swap` is set.
#[utoipa::path(
    get, path = "/v1/runs/{id}/photo-swap", operation_id = "read_photo_swap", tag = "analysis",
    params(("id" = Uuid, Path, description = "Id of the run (`run_id`)"), PhotoSwapQuery),
    responses(
        (status = 200, description = "The spread", body = PhotoSwapResponse),
        (status = 409, description = "A run has no scores of the pack"),
        (status = 422, description = "Unknown metric, or a further run is of another method"),
    )
)]
pub(crate) async fn read(
    State(app): Shared,
    Query(parameters): Query<PhotoSwapQuery>,
    id: Id<RunRecord>,
) -> Result<Json<PhotoSwapResponse>, ApiError> {
    respond(&app, id, parameters).await.map(Json)
}

/// Measures the spread of scores when photos are swapped.
pub(crate) async fn respond(
    app: &App,
    id: Id<RunRecord>,
    parameters: PhotoSwapQuery,
) -> Result<PhotoSwapResponse, ApiError> {
    let wanted = parameters.metrics.as_deref().map(metrics::parse_codes).transpose()?;
    let mut records = vec![find(app, id).await?];
    let with = parameters.with.as_deref().unwrap_or_default();
    for id in with.split(',').map(str::trim).filter(|id| !id.is_empty()) {
        let run = find(app, Id::parse(id)?).await?;
        if run.name.method != records[0].name.method {
            let problem = format!(
                "`with` has the run {id} of another method: name runs of the same method only, \
                 since a swap of methods is no swap of photos"
            );
            return Err(ApiError::new(Code::InvalidField, problem));
        }
        if records.iter().all(|each| each.id != run.id) {
            records.push(run);
        }
        if records.len() > MOST_RUNS + 1 {
            let problem = format!("`with` names more than {MOST_RUNS} runs: name fewer");
            return Err(ApiError::new(Code::MalformedRequest, problem));
        }
    }
    let mut asked = match &parameters.pack {
        Some(named) => Some(app.digest_of(Some(named)).await?),
        None => None,
    };
    let (mut runs, mut named, mut pack): (Vec<RunPhotos>, _, Option<PackId>) =
        (Vec::new(), Vec::new(), None);
    for record in &records {
        let data = app.store.run_data(record.id, asked.as_deref()).await?;
        let Some(data) = data else { continue };
        let Some(own) = &data.pack else { return Err(nothing(&data, asked.as_deref())) };
        // Scores of different packs are not compared.
        asked = Some(own.digest.clone());
        pack.get_or_insert_with(|| own.clone());
        named.push(ComparedRun {
            id: record.id,
            method: record.name.method.clone(),
            run: record.name.run.clone(),
        });
        runs.push((Arc::clone(&data), app.store.sample_photos(record.id).await?));
    }
    let kind = parameters.kind;
    let swap = blocking(move || photo_swap(&runs, wanted.as_deref(), kind.as_deref())).await;
    let pack = pack.ok_or_else(crate::api::runs::unknown_run)?;
    Ok(PhotoSwapResponse { runs: named, pack, swap })
}
