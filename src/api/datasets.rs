//! `/v1/datasets`: labelled photos of identities, which `aps` learns from.

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
    runs::{self, ProbesError},
    scoring::{AttributesError, DatasetProbes, EncodedImage, Metadata, attribute_labels},
    store::{DatasetRecord, ImagesOf, NewPhoto, PhotoRecord, StoreError},
};

/// The form of `POST /v1/datasets/{dataset}/photos`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents the form, which is read field by field within limits")]
pub(super) struct PhotoForm {
    /// The photo: PNG, JPEG or WebP.
    #[schema(value_type = String, format = Binary)]
    photo: Vec<u8>,
    /// Whose photo it is and what it shows, as JSON.
    metadata: PhotoMetadata,
}

/// Whose photo it is and what it shows.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PhotoMetadata {
    /// Whose photo.
    #[schema(example = "000")]
    identity: String,
    /// Its name among the identity's photos.
    #[schema(example = "0")]
    name: String,
    /// Facial attributes by CelebA name; `true` where present.
    #[serde(default, deserialize_with = "attribute_labels")]
    #[schema(example = json!({"Young": true, "Male": false}))]
    attributes: BTreeMap<String, bool>,
}

/// An enrolled photo.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct EnrolledResponse {
    /// The dataset.
    dataset: String,
    /// Its revision, which grows with every change.
    revision: u64,
    /// Whether the photo was not there before.
    created: bool,
    /// BLAKE3 address of the photo's file: `DELETE /v1/images/{hash}` takes it.
    image: String,
    /// Faces that were found. Without one, nothing is learnt from the photo.
    faces: usize,
}

/// Enrols a labelled photo in a dataset, which is made if it is new.
///
/// The photo's file is not kept: its hash, its labels and the faces in it are, until they are deleted. Identity and name
/// identify it: the same again changes nothing. With another pack loaded, enrol the photos again, since each pack has
/// faces of its own.
#[utoipa::path(
    post, path = "/v1/datasets/{dataset}/photos", operation_id = "enrol_photo", tag = "datasets",
    params(("dataset" = String, Path, description = "The dataset's name")),
    request_body(content = PhotoForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "Enrolled", body = EnrolledResponse),
        (status = 400, description = "The form cannot be read", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The name is taken by another photo, or the service stores no faces", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "A limit of size is exceeded", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "Not a form, or not an image", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Understood but not usable", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "At the limit: retry after `Retry-After` seconds", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "A defect of the service; the log has the cause", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Starting, stopping, without store, or without face graphs", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "Not ready before the deadline", body = Problem, content_type = "application/problem+json"),
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
            "this service stores no faces (privacy.face_retention_days is 0), and without them nothing can be learnt from a photo",
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
            "the loaded pack has no face graphs: GET /v1/metrics names what is missing for aps",
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

/// The form's field is `photo`, where a sample's is `image`.
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

/// The dataset that a path names.
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
    Err(ApiError::new(Code::NotFound, "there is no dataset of this name: GET /v1/datasets lists them"))
}

/// Which page of datasets.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParameters {
    /// Begins behind the dataset of this name.
    after: Option<String>,
    /// Rows of a page, 1 to 1000. Default: 100.
    limit: Option<u32>,
}

/// One page of datasets.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct DatasetsResponse {
    /// By name.
    datasets: Vec<DatasetEntry>,
    /// Send as `after` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A dataset.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct DatasetEntry {
    /// Its name.
    name: String,
    /// Grows with every change.
    revision: u64,
    /// Enrolled photos.
    photos: u64,
    /// Registered prompts.
    prompts: u64,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    created: OffsetDateTime,
}

impl From<DatasetRecord> for DatasetEntry {
    fn from(record: DatasetRecord) -> Self {
        let DatasetRecord { name, revision, photos, prompts, created, .. } = record;
        Self { name, revision, photos, prompts, created }
    }
}

/// Lists the datasets.
#[utoipa::path(
    get, path = "/v1/datasets", operation_id = "list_datasets", tag = "datasets", params(ListParameters),
    responses(
        (status = 200, description = "One page", body = DatasetsResponse),
        (status = 400, description = "A parameter cannot be used", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "A defect of the service; the log has the cause", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be reached", body = Problem, content_type = "application/problem+json"),
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
    /// Photos in which the loaded pack finds a face.
    with_face: usize,
    /// Photos in which it finds none: nothing is learnt from them.
    without_face: usize,
    /// Photos that were enrolled with another pack: enrol them again to learn from them.
    unknown: usize,
    /// How many photos with a face have each attribute, for those that are judged.
    attributes: BTreeMap<String, Labels>,
    /// One page of its photos, by identity and name.
    items: Vec<PhotoEntry>,
}

/// How often an attribute is present and absent.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
struct Labels {
    /// Photos labelled `true`.
    present: usize,
    /// Photos labelled `false`.
    absent: usize,
}

/// An enrolled photo.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct PhotoEntry {
    /// Whose photo.
    identity: String,
    /// Its name among the identity's photos.
    name: String,
    /// BLAKE3 address of its file.
    image: String,
    /// Its labels.
    attributes: BTreeMap<String, bool>,
    /// Faces that the loaded pack finds; null where it was enrolled with another pack.
    faces: Option<usize>,
    /// When it was enrolled.
    #[serde(with = "time::serde::rfc3339")]
    created: OffsetDateTime,
}

/// Reads a dataset: how many photos teach what, and one page of them.
#[utoipa::path(
    get, path = "/v1/datasets/{dataset}", operation_id = "read_dataset", tag = "datasets",
    params(("dataset" = String, Path, description = "The dataset's name"), PageParameters),
    responses(
        (status = 200, description = "The dataset", body = DatasetResponse),
        (status = 400, description = "A parameter cannot be used", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such dataset", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "A defect of the service; the log has the cause", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be reached", body = Problem, content_type = "application/problem+json"),
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

/// How many faces the loaded pack finds in those of these photos that it knows.
async fn faces_in(app: &App, photos: &[PhotoRecord]) -> Result<HashMap<ContentHash, usize>, ApiError> {
    let images: Vec<ContentHash> = photos.iter().map(|photo| photo.image).collect();
    let known = app.scoring.known_faces(&images).await.map_err(attributes_error)?;
    Ok(known.into_iter().map(|(image, features)| (image, count(&features))).collect())
}

/// What the photos of a dataset teach altogether.
#[derive(Clone)]
pub(super) struct Summary {
    with_face: usize,
    without_face: usize,
    unknown: usize,
    attributes: BTreeMap<String, Labels>,
}

/// Summaries that were made.
pub(super) type Summaries = ResponseCache<FacesKey, Summary>;

/// A summary is of a few hundred bytes.
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

/// What the dataset of a sample's metadata teaches, fitted if its newest revision was not yet.
pub(super) async fn probes(app: &App, metadata: &Metadata) -> Result<Option<DatasetProbes>, ApiError> {
    runs::probes(&app.store, &app.scoring, metadata).await.map_err(probes_error)
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
