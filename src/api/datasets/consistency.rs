//! `GET /v1/datasets/{dataset}/consistency`: how alike the photos of each person are.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::datasets::find;
use crate::api::datasets::people::{OutlierEntry, People, PersonEntry};
use crate::api::http::{ApiError, InPath};
use crate::api::state::{App, Shared};
use crate::{
    blocking::blocking,
    metrics::{PersonPhotos, PhotoFaces, photo_consistency},
    store::{DatasetRecord, ImagesOf, PhotoRecord},
};

/// How alike the photos of each person of a dataset are.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"dataset": "stellar", "revision": 40, "people": [{
    "identity": "000", "photos": 4, "with_face": 4, "unknown": 0, "consistency": 0.61, "lowest": 0.12, "lowest_photo": "3",
    "disagreement": "outlier_photos", "outliers": [
        {"name": "3", "image": "…", "similarity": 0.12, "closer_to": "001"}]}]}))]
pub(crate) struct ConsistencyResponse {
    /// Name of the dataset.
    pub(crate) dataset: String,
    /// Revision of the dataset.
    pub(crate) revision: u64,
    /// The people with photos, by identity.
    pub(crate) people: Vec<PersonEntry>,
}

/// Measures how alike the photos of each person are.
///
/// A photo of a wrong person spoils every score of identity. Nothing is searched for faces: the
/// stored ones are compared, so people without stored faces have null and the reason.
#[utoipa::path(
    get, path = "/v1/datasets/{dataset}/consistency", operation_id = "read_consistency",
    tag = "datasets",
    params(("dataset" = String, Path, description = "Name of the dataset")),
    responses(
        (status = 200, description = "The people", body = ConsistencyResponse),
        (status = 404, description = "No such dataset"),
    )
)]
pub(crate) async fn read(
    State(app): Shared,
    name: InPath<String>,
) -> Result<Json<ConsistencyResponse>, ApiError> {
    let dataset = find(&app, name).await?;
    respond(&app, &dataset).await.map(Json)
}

/// Measures how alike the photos of each person of a dataset are.
pub(crate) async fn respond(
    app: &App,
    dataset: &DatasetRecord,
) -> Result<ConsistencyResponse, ApiError> {
    let of = ImagesOf::Dataset(dataset.id);
    let work = compare(app, dataset);
    let people: Arc<People> =
        app.of_faces(&app.caches.consistency, of, dataset.revision, work).await?;
    Ok(ConsistencyResponse {
        dataset: dataset.name.clone(),
        revision: dataset.revision,
        people: people.0.clone(),
    })
}

async fn compare(app: &App, dataset: &DatasetRecord) -> Result<People, ApiError> {
    let photos = app.store.photos(dataset.id).await?;
    let images: Vec<_> = photos.iter().map(|photo| photo.image).collect();
    let known = app.scoring.known_faces(&images).await?;
    Ok(blocking(move || {
        // Photos are ordered by identity.
        let people: Vec<&[PhotoRecord]> =
            photos.chunk_by(|one, next| one.identity == next.identity).collect();
        let faces = |photo: &PhotoRecord| known.get(&photo.image)?.get("embedding");
        let compared: Vec<Vec<PhotoFaces<'_>>> =
            people.iter().map(|photos| photos.iter().map(faces).collect()).collect();
        let found = photo_consistency(&compared);
        let entries = people.iter().zip(&compared).zip(found);
        People(entries.map(|((photos, faces), of)| entry(&people, photos, faces, &of)).collect())
    })
    .await)
}

fn entry(
    people: &[&[PhotoRecord]],
    photos: &[PhotoRecord],
    faces: &[PhotoFaces<'_>],
    of: &PersonPhotos,
) -> PersonEntry {
    let has_face = |faces: &&PhotoFaces<'_>| faces.is_some_and(|faces| !faces.data.is_empty());
    let outliers = photos.iter().zip(&of.photos).filter_map(|(photo, place)| {
        Some(OutlierEntry {
            name: photo.name.clone(),
            image: photo.image.to_hex(),
            similarity: place.similarity,
            closer_to: people[place.closer_to?][0].identity.clone(),
        })
    });
    let known = photos
        .iter()
        .zip(&of.photos)
        .filter_map(|(photo, place)| Some((place.similarity?, &photo.name)));
    let lowest = known.min_by(|a, b| a.0.total_cmp(&b.0));
    PersonEntry {
        identity: photos[0].identity.clone(),
        photos: photos.len(),
        with_face: faces.iter().filter(has_face).count(),
        unknown: faces.iter().filter(|faces| faces.is_none()).count(),
        consistency: of.consistency.ok(),
        reason: of.consistency.err(),
        lowest: lowest.map(|(similarity, _)| similarity),
        lowest_photo: lowest.map(|(_, name)| name.clone()),
        disagreement: of.disagreement,
        outliers: outliers.collect(),
    }
}
