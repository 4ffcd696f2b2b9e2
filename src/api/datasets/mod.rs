//! `/v1/datasets`: labelled photos of identities, from which `aps` learns.

pub(crate) mod composition;
pub(crate) mod consistency;
pub(crate) mod people;
pub(crate) mod photos;
pub(crate) mod prompts;
pub(crate) mod showing;
pub(crate) mod statistics;
pub(crate) mod summary;

use std::collections::{BTreeMap, HashMap};

use axum::{
    Json,
    extract::{Path, State},
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use crate::api::datasets::summary::{Labels, Summary};
use crate::api::deletion::{self, DeletedResponse};
use crate::api::http::form::clean_label;
use crate::api::http::{ApiError, Code, InPath, PageQuery, Query, not_found, page, page_of};
use crate::api::state::{App, Shared};
use crate::{
    content::ContentHash,
    label,
    metrics::ATTRIBUTES,
    store::{DatasetRecord, ImagesOf, PhotoRecord},
};

/// Finds the dataset named in a path.
pub(crate) async fn find(app: &App, name: InPath<String>) -> Result<DatasetRecord, ApiError> {
    let name = name.map(|Path(name)| name).unwrap_or_default();
    for name in label::forms(&name) {
        if let Some(dataset) = app.store.dataset(&name).await? {
            return Ok(dataset);
        }
    }
    Err(not_found("dataset with this name: GET /v1/datasets lists all datasets"))
}

/// Returns the name of a dataset that may be created.
pub(crate) fn new_name(name: InPath<String>) -> Result<String, ApiError> {
    let Path(name) =
        name.map_err(|rejection| ApiError::new(Code::MalformedRequest, rejection.body_text()))?;
    clean_label("dataset", &name)
}

/// Selects a page of datasets.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DatasetsQuery {
    /// Starts after the dataset with this name.
    pub(crate) after: Option<String>,
    /// Rows per page, 1 to 1000. Default: 100.
    pub(crate) limit: Option<u32>,
}

/// One page of datasets.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct DatasetsResponse {
    /// Datasets, sorted by name.
    pub(crate) datasets: Vec<DatasetEntry>,
    /// Cursor of the next page, to be sent as `after`; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
}

/// A dataset.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct DatasetEntry {
    /// Name of the dataset.
    pub(crate) name: String,
    /// Revision; every change raises it.
    pub(crate) revision: u64,
    /// Number of enrolled photos.
    pub(crate) photos: u64,
    /// Number of registered prompts.
    pub(crate) prompts: u64,
    /// Whether its photos may be shown to others.
    pub(crate) redistributable: bool,
    /// Time at which it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created: OffsetDateTime,
}

impl From<DatasetRecord> for DatasetEntry {
    fn from(record: DatasetRecord) -> Self {
        let DatasetRecord { name, revision, photos, prompts, redistributable, created, .. } =
            record;
        Self { name, revision, photos, prompts, redistributable, created }
    }
}

/// Lists datasets.
#[utoipa::path(
    get, path = "/v1/datasets", operation_id = "list_datasets", tag = "datasets",
    params(DatasetsQuery),
    responses((status = 200, description = "One page", body = DatasetsResponse))
)]
pub(crate) async fn list(
    State(app): Shared,
    Query(parameters): Query<DatasetsQuery>,
) -> Result<Json<DatasetsResponse>, ApiError> {
    respond_list(&app, parameters).await.map(Json)
}

/// Lists datasets.
pub(crate) async fn respond_list(
    app: &App,
    parameters: DatasetsQuery,
) -> Result<DatasetsResponse, ApiError> {
    let after = parameters.after.unwrap_or_default();
    let read = async |limit| app.store.datasets(&after, limit).await;
    let (datasets, next) = page_of(parameters.limit, read, |dataset| dataset.name.clone()).await?;
    Ok(DatasetsResponse { datasets, next })
}

/// A dataset with one page of its photos.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct DatasetResponse {
    /// The dataset.
    #[serde(flatten)]
    pub(crate) dataset: DatasetEntry,
    /// Totals over all its photos.
    #[serde(flatten)]
    pub(crate) totals: Summary,
    /// One page of photos, sorted by identity and name.
    pub(crate) items: Vec<PhotoEntry>,
}

/// An enrolled photo.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct PhotoEntry {
    /// The identity that the photo shows.
    identity: String,
    /// Name of the photo among those of its identity.
    name: String,
    /// BLAKE3 hash of the photo's file.
    image: String,
    /// Facial attributes by CelebA name; `true` if present.
    attributes: BTreeMap<String, bool>,
    /// Number of faces that the loaded pack finds; null if it was enrolled with another pack.
    faces: Option<usize>,
    /// Time at which it was enrolled.
    #[serde(with = "time::serde::rfc3339")]
    created: OffsetDateTime,
}

/// Returns a dataset: how many photos can be learnt from, and one page of them.
#[utoipa::path(
    get, path = "/v1/datasets/{dataset}", operation_id = "read_dataset", tag = "datasets",
    params(("dataset" = String, Path, description = "Name of the dataset"), PageQuery),
    responses(
        (status = 200, description = "The dataset", body = DatasetResponse),
        (status = 404, description = "No such dataset"),
    )
)]
pub(crate) async fn read(
    State(app): Shared,
    name: InPath<String>,
    Query(parameters): Query<PageQuery>,
) -> Result<Json<DatasetResponse>, ApiError> {
    let dataset = find(&app, name).await?;
    respond(&app, dataset, parameters).await.map(Json)
}

/// Returns a dataset with one page of its photos.
pub(crate) async fn respond(
    app: &App,
    dataset: DatasetRecord,
    parameters: PageQuery,
) -> Result<DatasetResponse, ApiError> {
    let limit = page(parameters.limit)?;
    let of = ImagesOf::Dataset(dataset.id);
    let summary =
        app.of_faces(&app.caches.datasets, of, dataset.revision, summarise(app, &dataset)).await?;
    let offset = parameters.offset.unwrap_or(0) as u64;
    let photos = app.store.photos_page(dataset.id, offset, limit).await?;
    let known = faces_in(app, &photos).await?;
    let items = photos.into_iter().map(|photo| PhotoEntry {
        faces: known.get(&photo.image).copied(),
        identity: photo.identity,
        name: photo.name,
        image: photo.image.to_hex(),
        attributes: photo.attributes,
        created: photo.created,
    });
    Ok(DatasetResponse {
        dataset: dataset.into(),
        totals: (*summary).clone(),
        items: items.collect(),
    })
}

/// Returns the number of faces in each photo for which the loaded pack's faces are stored.
async fn faces_in(
    app: &App,
    photos: &[PhotoRecord],
) -> Result<HashMap<ContentHash, usize>, ApiError> {
    let images: Vec<ContentHash> = photos.iter().map(|photo| photo.image).collect();
    let known = app.scoring.known_faces(&images).await?;
    Ok(known.into_iter().map(|(image, features)| (image, count(&features))).collect())
}

/// Returns the number of faces.
pub(crate) fn count(features: &crate::tensor::Features) -> usize {
    features.values("probabilities").map_or(0, <[f32]>::len)
}

async fn summarise(app: &App, dataset: &DatasetRecord) -> Result<Summary, ApiError> {
    let photos = app.store.photos(dataset.id).await?;
    let known = faces_in(app, &photos).await?;
    let counts: Vec<_> = photos.iter().map(|photo| known.get(&photo.image).copied()).collect();
    let mut attributes: BTreeMap<String, Labels> = BTreeMap::new();
    for (photo, _) in
        photos.iter().zip(&counts).filter(|(_, count)| count.is_some_and(|count| count > 0))
    {
        for (name, present) in
            photo.attributes.iter().filter(|(name, _)| ATTRIBUTES.contains(&name.as_str()))
        {
            let labels = attributes.entry(name.clone()).or_default();
            *(if *present { &mut labels.present } else { &mut labels.absent }) += 1;
        }
    }
    let of =
        |wanted: fn(usize) -> bool| counts.iter().flatten().filter(|count| wanted(**count)).count();
    Ok(Summary {
        with_face: of(|count| count > 0),
        without_face: of(|count| count == 0),
        unknown: counts.iter().filter(|count| count.is_none()).count(),
        attributes,
    })
}

/// Deletes a dataset with its enrolled photos, and their faces unless other data needs them.
///
/// Scores are not deleted.
#[utoipa::path(
    delete, path = "/v1/datasets/{dataset}", operation_id = "delete_dataset", tag = "privacy",
    params(("dataset" = String, Path, description = "Name of the dataset")),
    responses(
        (status = 200, description = "Deleted", body = DeletedResponse),
        (status = 404, description = "No such dataset"),
    )
)]
pub(crate) async fn delete(
    State(app): Shared,
    name: InPath<String>,
) -> Result<Json<DeletedResponse>, ApiError> {
    let what = "dataset with this name";
    let Path(name) = name.map_err(|_| deletion::deleted_already(what))?;
    let store = app.store.clone();
    let every_form = async move {
        for name in label::forms(&name) {
            if let Some(deleted) = store.delete_dataset(&name).await? {
                return Ok(Some(deleted));
            }
        }
        Ok(None)
    };
    deletion::delete(app, what, None, every_form).await
}
