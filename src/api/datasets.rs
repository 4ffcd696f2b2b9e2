//! `/v1/datasets`: labelled photos of identities, from which `aps` learns.

use std::collections::{BTreeMap, HashMap};

use axum::{
    Json,
    extract::{Multipart, Path, Request, State, rejection::PathRejection},
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use super::{
    ApiError, App, Code, Problem, Query, Shared, drain, form,
    page::{PageParameters, cut, page},
    response_cache::{FacesKey, ResponseCache},
};
use crate::{
    content::ContentHash,
    label,
    metrics::ATTRIBUTES,
    scoring::{AttributesError, DatasetProbes, EncodedImage, Metadata, attribute_labels},
    service::{self, ProbesError},
    store::{DatasetRecord, ImagesOf, NewPhoto, PhotoRecord, StoreError},
};

/// The form of `POST /v1/datasets/{dataset}/photos`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents the form, which is read field by field within limits")]
pub(super) struct PhotoForm {
    /// The photo: PNG, JPEG or WebP.
    #[schema(value_type = String, format = Binary)]
    photo: Vec<u8>,
    /// The photo's identity, name and labels, as JSON.
    metadata: PhotoMetadata,
}

/// The identity, name and labels of a photo.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PhotoMetadata {
    /// The identity that the photo shows.
    #[schema(example = "000")]
    identity: String,
    /// Name of the photo among those of its identity.
    #[schema(example = "0")]
    name: String,
    /// Facial attributes by CelebA name; `true` if present.
    #[serde(default, deserialize_with = "attribute_labels")]
    #[schema(example = json!({"Young": true, "Male": false}))]
    attributes: BTreeMap<String, bool>,
}

/// An enrolled photo.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct EnrolledResponse {
    /// Name of the dataset.
    dataset: String,
    /// Revision of the dataset; every change raises it.
    revision: u64,
    /// True if the photo was not enrolled before.
    created: bool,
    /// BLAKE3 hash of the photo's file, as taken by `DELETE /v1/images/{hash}`.
    image: String,
    /// Number of faces found. Nothing is learnt from a photo without a face.
    faces: usize,
}

/// Enrols a labelled photo in a dataset; creates the dataset if it does not exist.
///
/// The photo's file is not stored. Its hash, its labels and its faces are stored until they are
/// deleted. A photo is identified by identity and name; enrolling the same photo again is
/// idempotent. Faces belong to a pack: after loading another pack, enrol the photos again.
#[utoipa::path(
    post, path = "/v1/datasets/{dataset}/photos", operation_id = "enrol_photo", tag = "datasets",
    params(("dataset" = String, Path, description = "Name of the dataset")),
    request_body(content = PhotoForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "Enrolled", body = EnrolledResponse),
        (status = 400, description = "Malformed form", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The name is taken by another photo, or the service does not store faces", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "A size limit is exceeded", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "Not a multipart form, or not a supported image", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is missing, repeated, unknown or invalid", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Limit reached; retry after `Retry-After` seconds", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "Internal error; the log has the cause", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Starting, stopping, store unavailable, or no face graphs in the pack", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "The deadline passed before the response was ready", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn enrol(
    State(app): Shared,
    dataset: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<EnrolledResponse>, ApiError> {
    drain::whole(request, |request| enrolled(&app, dataset, request)).await
}

async fn enrolled(
    app: &App,
    dataset: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<EnrolledResponse>, ApiError> {
    let Path(dataset) =
        dataset.map_err(|rejection| ApiError::new(Code::MalformedRequest, rejection.body_text()))?;
    let dataset = form::clean_label("dataset", &dataset)?;
    if app.face_retention_days == 0 {
        return Err(ApiError::new(
            Code::FacesNotStored,
            "this service does not store faces (privacy.face_retention_days is 0), and nothing can be learnt from a photo without them",
        ));
    }
    app.admission.room()?;
    let work = async {
        let (photo, metadata) = read(app, request).await?;
        let permit = app.admission.enter()?;
        let known = app.scoring.known_faces(&[photo.hash]).await.map_err(attributes_error)?;
        let faces = app.scoring.faces(&photo).await.map_err(rename);
        Ok::<_, ApiError>((permit, photo, metadata, known.is_empty(), faces?))
    };
    let (_permit, photo, metadata, new_faces, faces) = app.before_deadline(work).await?;
    let faces = faces.ok_or_else(|| {
        ApiError::unavailable(
            "the loaded pack has no face graphs: GET /v1/metrics lists the missing graphs of aps",
        )
    })?;
    let enrolled = app
        .store
        .enrol(&NewPhoto {
            dataset: dataset.clone(),
            identity: metadata.identity,
            name: metadata.name,
            image: photo.hash,
            attributes: metadata.attributes,
            created: OffsetDateTime::now_utc(),
            new_faces,
        })
        .await?;
    Ok(Json(EnrolledResponse {
        dataset,
        revision: enrolled.revision,
        created: enrolled.created,
        image: photo.hash.to_hex(),
        faces: count(&faces.features),
    }))
}

fn count(features: &crate::tensor::Features) -> usize {
    features.values("probabilities").map_or(0, <[f32]>::len)
}

/// Names the field `photo` in an error, where scoring says `image`.
fn rename(error: crate::scoring::ScoringError) -> crate::scoring::ScoringError {
    use crate::scoring::ScoringError::{EncodedImage, Engine};
    match error {
        EncodedImage { source, .. } => EncodedImage { of: "photo".to_owned(), source },
        Engine { graph, source, .. } => Engine { graph, of: "photo".to_owned(), source },
    }
}

async fn read(app: &App, request: Request) -> Result<(EncodedImage, PhotoMetadata), ApiError> {
    let limits = &app.limits;
    let mut multipart: Multipart = form::multipart(request, limits).await?;
    let (mut photo, mut metadata) = (None, None);
    while let Some(field) = multipart.next_field().await.map_err(form::malformed)? {
        match field.name().map(str::to_owned).as_deref() {
            Some("photo") => {
                form::once(&mut photo, "photo", form::read_image(field, "photo", limits).await?)?;
            }
            Some("metadata") => {
                let text = form::text(field, "metadata", limits.metadata_bytes).await?;
                form::once(&mut metadata, "metadata", form::metadata::<PhotoMetadata>(&text)?)?;
            }
            other => {
                let name: String = other.unwrap_or_default().chars().take(80).collect();
                return Err(ApiError::new(
                    Code::UnknownField,
                    format!("unknown field `{name}`: the fields are photo and metadata"),
                ));
            }
        }
    }
    let missing = |name: &str, what: &str| {
        ApiError::new(Code::MissingField, format!("the field `{name}` with {what} is missing"))
    };
    let mut metadata = metadata.ok_or_else(|| missing("metadata", "identity and name"))?;
    metadata.identity = form::clean_label("metadata.identity", &metadata.identity)?;
    metadata.name = form::clean_label("metadata.name", &metadata.name)?;
    let labels = Metadata { attributes: metadata.attributes, ..Metadata::default() };
    metadata.attributes = form::clean_metadata(labels, limits.detectables)?.attributes;
    let photo = photo.ok_or_else(|| missing("photo", "the photo's file"))?;
    Ok((form::examine(photo, "photo", limits)?, metadata))
}

/// Finds the dataset named in a path.
pub(super) async fn find(
    app: &App,
    name: Result<Path<String>, PathRejection>,
) -> Result<DatasetRecord, ApiError> {
    let name = name.map(|Path(name)| name).unwrap_or_default();
    for name in label::forms(&name) {
        if let Some(dataset) = app.store.dataset(&name).await? {
            return Ok(dataset);
        }
    }
    Err(ApiError::new(
        Code::NotFound,
        "there is no dataset with this name: GET /v1/datasets lists all datasets",
    ))
}

/// Selects a page of datasets.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParameters {
    /// Starts after the dataset with this name.
    after: Option<String>,
    /// Rows per page, 1 to 1000. Default: 100.
    limit: Option<u32>,
}

/// One page of datasets.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct DatasetsResponse {
    /// Datasets, sorted by name.
    datasets: Vec<DatasetEntry>,
    /// Cursor of the next page, to be sent as `after`; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A dataset.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct DatasetEntry {
    /// Name of the dataset.
    name: String,
    /// Revision; every change raises it.
    revision: u64,
    /// Number of enrolled photos.
    photos: u64,
    /// Number of registered prompts.
    prompts: u64,
    /// Time at which it was created.
    #[serde(with = "time::serde::rfc3339")]
    created: OffsetDateTime,
}

impl From<DatasetRecord> for DatasetEntry {
    fn from(record: DatasetRecord) -> Self {
        let DatasetRecord { name, revision, photos, prompts, created, .. } = record;
        Self { name, revision, photos, prompts, created }
    }
}

/// Lists datasets.
#[utoipa::path(
    get, path = "/v1/datasets", operation_id = "list_datasets", tag = "datasets", params(ListParameters),
    responses(
        (status = 200, description = "One page", body = DatasetsResponse),
        (status = 400, description = "Invalid parameter", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "Internal error; the log has the cause", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store is unavailable", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    State(app): Shared,
    Query(parameters): Query<ListParameters>,
) -> Result<Json<DatasetsResponse>, ApiError> {
    let limit = page(parameters.limit)?;
    let datasets = app.store.datasets(&parameters.after.unwrap_or_default(), limit + 1).await?;
    let (datasets, next) = cut(datasets, limit, |dataset| dataset.name.clone());
    Ok(Json(DatasetsResponse { datasets: datasets.into_iter().map(Into::into).collect(), next }))
}

/// A dataset with one page of its photos.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct DatasetResponse {
    /// The dataset.
    #[serde(flatten)]
    dataset: DatasetEntry,
    /// Number of photos in which the loaded pack finds a face.
    with_face: usize,
    /// Number of photos in which the loaded pack finds no face: nothing is learnt from them.
    without_face: usize,
    /// Number of photos enrolled with another pack: enrol them again to learn from them.
    unknown: usize,
    /// Number of photos with a face by attribute and label, for the attributes that are judged.
    attributes: BTreeMap<String, Labels>,
    /// One page of photos, sorted by identity and name.
    items: Vec<PhotoEntry>,
}

/// Number of photos by label of one attribute.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
struct Labels {
    /// Number of photos labelled `true`.
    present: usize,
    /// Number of photos labelled `false`.
    absent: usize,
}

/// An enrolled photo.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct PhotoEntry {
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
    params(("dataset" = String, Path, description = "Name of the dataset"), PageParameters),
    responses(
        (status = 200, description = "The dataset", body = DatasetResponse),
        (status = 400, description = "Invalid parameter", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such dataset", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "Internal error; the log has the cause", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store is unavailable", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn read_one(
    State(app): Shared,
    name: Result<Path<String>, PathRejection>,
    Query(parameters): Query<PageParameters>,
) -> Result<Json<DatasetResponse>, ApiError> {
    let limit = page(parameters.limit)?;
    let dataset = find(&app, name).await?;
    let of = ImagesOf::Dataset(dataset.id);
    let summary = app.datasets.of_faces(&app, of, dataset.revision, summarise(&app, &dataset)).await?;
    let offset = parameters.offset.unwrap_or(0) as u64;
    let photos = app.store.photos_page(dataset.id, offset, limit).await?;
    let known = faces_in(&app, &photos).await?;
    let items = photos.into_iter().map(|photo| PhotoEntry {
        faces: known.get(&photo.image).copied(),
        identity: photo.identity,
        name: photo.name,
        image: photo.image.to_hex(),
        attributes: photo.attributes,
        created: photo.created,
    });
    let Summary { with_face, without_face, unknown, attributes } = (*summary).clone();
    Ok(Json(DatasetResponse {
        dataset: dataset.into(),
        with_face,
        without_face,
        unknown,
        attributes,
        items: items.collect(),
    }))
}

/// Returns the number of faces in each photo for which the loaded pack's faces are stored.
async fn faces_in(app: &App, photos: &[PhotoRecord]) -> Result<HashMap<ContentHash, usize>, ApiError> {
    let images: Vec<ContentHash> = photos.iter().map(|photo| photo.image).collect();
    let known = app.scoring.known_faces(&images).await.map_err(attributes_error)?;
    Ok(known.into_iter().map(|(image, features)| (image, count(&features))).collect())
}

/// Totals over all photos of a dataset.
#[derive(Clone)]
pub(super) struct Summary {
    with_face: usize,
    without_face: usize,
    unknown: usize,
    attributes: BTreeMap<String, Labels>,
}

/// Cache of summaries.
pub(super) type Summaries = ResponseCache<FacesKey, Summary>;

/// Limit of the cache, in bytes; a summary takes a few hundred.
pub(super) const KEPT_BYTES: u64 = 1 << 20;

pub(super) fn summaries() -> Summaries {
    ResponseCache::new(KEPT_BYTES, |summary| 128 * summary.attributes.len())
}

async fn summarise(app: &App, dataset: &DatasetRecord) -> Result<Summary, ApiError> {
    let photos = app.store.photos(dataset.id).await?;
    let known = faces_in(app, &photos).await?;
    let counts: Vec<_> = photos.iter().map(|photo| known.get(&photo.image).copied()).collect();
    let mut attributes: BTreeMap<String, Labels> = BTreeMap::new();
    for (photo, _) in photos.iter().zip(&counts).filter(|(_, count)| count.is_some_and(|count| count > 0)) {
        for (name, present) in photo.attributes.iter().filter(|(name, _)| ATTRIBUTES.contains(&name.as_str()))
        {
            let labels = attributes.entry(name.clone()).or_default();
            *(if *present { &mut labels.present } else { &mut labels.absent }) += 1;
        }
    }
    let of = |wanted: fn(usize) -> bool| counts.iter().flatten().filter(|count| wanted(**count)).count();
    Ok(Summary {
        with_face: of(|count| count > 0),
        without_face: of(|count| count == 0),
        unknown: counts.iter().filter(|count| count.is_none()).count(),
        attributes,
    })
}

/// Returns the classifiers fitted on the dataset of a sample's metadata. Fits them first if they
/// are not of its newest revision.
pub(super) async fn probes(app: &App, metadata: &Metadata) -> Result<Option<DatasetProbes>, ApiError> {
    service::probes(&app.store, &app.scoring, metadata).await.map_err(probes_error)
}

pub(super) fn probes_error(error: ProbesError) -> ApiError {
    match error {
        ProbesError::NoDataset => ApiError::new(Code::NotFound, error.to_string()),
        ProbesError::Store(error) => error.into(),
        ProbesError::Attributes(error) => attributes_error(error),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape of map_err")]
pub(super) fn attributes_error(error: AttributesError) -> ApiError {
    match &error {
        AttributesError::Memory(cause)
            if matches!(
                cause.downcast_ref(),
                Some(StoreError::Unavailable(_) | StoreError::Contended(_))
            ) =>
        {
            tracing::error!(%error, "store unavailable");
            ApiError::unavailable("the store cannot be reached; retry later")
        }
        _ => ApiError::internal(&error),
    }
}
