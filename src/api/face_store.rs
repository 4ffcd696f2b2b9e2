//! Faces in the store, for the face finder: see `docs/PRIVACY.md`.

use std::{collections::HashMap, sync::Arc};

use futures_util::future::BoxFuture;
use time::OffsetDateTime;

use crate::{
    clock,
    content::ContentHash,
    scoring::{FaceStorage, FaceStorageError},
    store::{FacesRecord, Store},
};

/// Adapts the store to the face finder.
pub(super) struct StoredFaces(pub(super) Store);

impl FaceStorage for StoredFaces {
    fn load<'a>(
        &'a self,
        images: &'a [ContentHash],
        graphs: ContentHash,
    ) -> BoxFuture<'a, Result<HashMap<ContentHash, Vec<u8>>, FaceStorageError>> {
        Box::pin(async move {
            self.0.faces(images, graphs).await.map_err(|error| Arc::new(error) as FaceStorageError)
        })
    }

    fn save(
        &self,
        image: ContentHash,
        graphs: ContentHash,
        faces: Vec<u8>,
        began: Option<OffsetDateTime>,
    ) -> BoxFuture<'_, Result<(), FaceStorageError>> {
        Box::pin(async move {
            let record = FacesRecord { image, graphs, faces, created: clock::now() };
            let saved = match began {
                Some(began) => self.0.save_found_faces(&record, began).await,
                None => self.0.save_needed_faces(&record).await,
            };
            saved.map_err(|error| Arc::new(error) as FaceStorageError)
        })
    }
}
