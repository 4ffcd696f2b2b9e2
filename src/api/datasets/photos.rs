//! `POST /v1/datasets/{dataset}/photos`: enrolment of a labelled photo.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{Multipart, Request, State},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::datasets::{count, new_name};
use crate::api::http::keys::caller;
use crate::api::http::{ApiError, Code, InPath, drain, form};
use crate::api::state::{App, Shared};
use crate::{
    clock,
    scoring::{EncodedImage, Metadata, ScoringError, attribute_labels},
    store::NewPhoto,
};

/// The form of `POST /v1/datasets/{dataset}/photos`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents the form, which is read field by field within limits")]
pub(crate) struct PhotoForm {
    /// The photo: PNG, JPEG, WebP or PPM.
    #[schema(value_type = String, format = Binary)]
    photo: Vec<u8>,
    /// The photo's identity, name and labels, as JSON.
    metadata: PhotoMetadata,
}

/// The identity, name and labels of a photo.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PhotoMetadata {
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
pub(crate) struct EnrolledResponse {
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
        (status = 400, description = "Malformed form"),
        (status = 409, description = "The name is taken by another photo, or the service does not \
            store faces"),
        (status = 413, description = "A size limit is exceeded"),
        (status = 415, description = "Not a multipart form, or not a supported image"),
        (status = 422, description = "A field is missing, repeated, unknown or invalid"),
        (status = 503, description = "Starting, stopping, store unavailable, or no face graphs in \
            the pack"),
        (status = 504, description = "The deadline passed before the response was ready"),
    )
)]
pub(crate) async fn enrol(
    State(app): Shared,
    dataset: InPath<String>,
    request: Request,
) -> Result<Json<EnrolledResponse>, ApiError> {
    drain::whole(request, |request| enrolled(&app, dataset, request)).await
}

async fn enrolled(
    app: &App,
    dataset: InPath<String>,
    request: Request,
) -> Result<Json<EnrolledResponse>, ApiError> {
    let dataset = new_name(dataset)?;
    if app.face_retention_days == 0 {
        return Err(ApiError::new(
            Code::FacesNotStored,
            "this service does not store faces (privacy.face_retention_days is 0), and nothing can \
                be learnt from a photo without them",
        ));
    }
    app.admission.room()?;
    let work = async {
        let (photo, metadata) = read(app, request).await?;
        let permit = app.admission.enter()?;
        let known = app.scoring.known_faces(&[photo.hash]).await?;
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
            created: clock::now(),
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

/// Names the field `photo` in an error, where scoring says `image`.
fn rename(error: ScoringError) -> ScoringError {
    match error {
        ScoringError::Decode { source, .. } => {
            ScoringError::Decode { of: "photo".to_owned(), source }
        }
        ScoringError::Engine { graph, source, .. } => {
            ScoringError::Engine { graph, of: "photo".to_owned(), source }
        }
    }
}

async fn read(app: &App, request: Request) -> Result<(EncodedImage, PhotoMetadata), ApiError> {
    let limits = &app.limits;
    if let Some(caller) = caller(&request) {
        caller.count_images(1);
    }
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
