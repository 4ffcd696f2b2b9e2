//! Faces in an image: runs the face cascade on the lanes and embeds each face.

mod gathering;
mod networks;

use std::{
    collections::{BTreeSet, HashMap},
    error::Error,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, OnceLock},
};

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::sync::{OnceCell, Semaphore};
use utoipa::ToSchema;

use self::{
    gathering::Gathering,
    networks::{Blocking, Lanes, OwnNetworks},
};
use super::images::{ImageJob, Turns};
use crate::{
    blocking::blocking,
    clock,
    content::ContentHash,
    engine::{Engine, EngineError, Feature, Provider},
    metrics::FeatureSource,
    sync::lock,
    tensor::{Features, Output, Tensor},
    vision::{
        Image,
        faces::{self, CROP_SIDE, Face},
    },
};

const EMBED: &str = FeatureSource::FACE_GRAPHS[3];
/// Name of the feature in the engine.
const FAMILY: &str = FeatureSource::Faces.name();

/// Upper limit on pieces of images that are pending in the lanes, so that an image of a crowd does
/// not fill a queue.
const PIECES: usize = 256;

/// A face in the evidence. Its embedding is personal data and is omitted unless the operator
/// enables it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FaceEvidence {
    /// Left, top, right, bottom in pixels of the upright image; may extend beyond its edges.
    #[serde(rename = "box")]
    #[schema(example = json!([62.1, 40.5, 121.9, 120.2]))]
    pub corners: [f32; 4],
    /// Probability that the detector assigns to the face.
    pub probability: f32,
    /// x and y of left eye, right eye, nose, left and right corner of the mouth, as seen by the
    /// viewer.
    pub landmarks: [[f32; 2]; 5],
    /// The embedding; in responses only if the configuration allows it
    /// (`privacy.return_embeddings`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding: Option<Vec<f32>>,
}

/// Error of loading or storing faces.
pub type FaceStorageError = Arc<dyn Error + Send + Sync>;

/// Storage of faces beyond this process.
pub trait FaceStorage: Send + Sync {
    /// Loads the faces that the graphs of this digest found. Images without stored faces are absent
    /// from the result.
    fn load<'a>(
        &'a self,
        images: &'a [ContentHash],
        graphs: ContentHash,
    ) -> BoxFuture<'a, Result<HashMap<ContentHash, Vec<u8>>, FaceStorageError>>;

    /// Stores the faces that the graphs of this digest found in an image. For a request, `began` is
    /// the time at which the search started: nothing is stored if the image was deleted since then.
    /// `None` stands for a sample of a run: then nothing is stored if nothing needs the image any
    /// more.
    fn save(
        &self,
        image: ContentHash,
        graphs: ContentHash,
        faces: Vec<u8>,
        began: Option<OffsetDateTime>,
    ) -> BoxFuture<'_, Result<(), FaceStorageError>>;
}

/// Finds faces with the lanes of one engine.
pub(super) struct FaceFinder {
    engine: Arc<Engine>,
    /// Limits the concurrent searches, each of which holds a decoded image in memory.
    searches: Arc<Turns>,
    /// Brings the faces of several images into one batch; absent if the embedding does not run on
    /// the CPU, where nothing is gained by waiting.
    gathering: Option<Arc<Gathering>>,
    /// Limits the pieces that are pending in the queues.
    room: Arc<Semaphore>,
    storage: OnceLock<Arc<dyn FaceStorage>>,
    unsaved: Arc<Unsaved>,
    /// Our own networks, once compared with the graphs.
    own: Arc<OnceCell<Arc<OwnNetworks>>>,
}

/// Images whose faces are cached but could not be stored.
#[derive(Default)]
struct Unsaved(Mutex<BTreeSet<ContentHash>>);

/// Maximum number of images remembered as unsaved. Faces of forgotten ones are found again.
const MOST_UNSAVED: usize = 10_000;

impl Unsaved {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<ContentHash>> {
        lock(&self.0)
    }

    fn note(&self, image: ContentHash) {
        let mut images = self.lock();
        images.insert(image);
        if images.len() > MOST_UNSAVED {
            images.pop_first();
        }
    }
}

impl FaceFinder {
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        let room = PIECES.min(engine.queue_capacity());
        let embeds_on_cpu = engine.provider_of(EMBED) == Some(Provider::Cpu);
        let searches = Turns::new();
        Self {
            engine,
            gathering: embeds_on_cpu.then(|| Gathering::new(searches.cores())),
            searches,
            room: Arc::new(Semaphore::new(room)),
            storage: OnceLock::new(),
            unsaved: Arc::default(),
            own: Arc::default(),
        }
    }

    pub(super) fn keep_in(&self, storage: Arc<dyn FaceStorage>) {
        // Only the first call takes effect: a process has one storage of faces.
        let _ = self.storage.set(storage);
    }

    /// Returns the storage, with the digest of the face graphs.
    pub(super) fn storage(&self) -> Option<(&Arc<dyn FaceStorage>, ContentHash)> {
        self.storage.get().zip(self.engine.family_digest(FAMILY))
    }

    /// Stores the cached faces of images that a sample of a run needs.
    pub(super) async fn store_again(&self, images: &[ContentHash]) -> Result<(), FaceStorageError> {
        let Some((storage, graphs)) = self.storage() else { return Ok(()) };
        for image in images {
            if let Some(features) = self.engine.cached_family(FAMILY, *image) {
                storage.save(*image, graphs, write(&features), None).await?;
            }
        }
        Ok(())
    }

    /// Returns the faces of the images for which they are known, from the feature cache or the
    /// storage.
    pub(super) async fn known(
        &self,
        images: &[ContentHash],
    ) -> Result<HashMap<ContentHash, Arc<Features>>, FaceStorageError> {
        let mut known = HashMap::new();
        let Some(graphs) = self.engine.family_digest(FAMILY) else { return Ok(known) };
        let mut unknown = Vec::new();
        for image in images {
            match self.engine.cached_family(FAMILY, *image) {
                Some(features) => drop(known.insert(*image, features)),
                None => unknown.push(*image),
            }
        }
        let Some(storage) = self.storage.get() else { return Ok(known) };
        for (image, bytes) in storage.load(&unknown, graphs).await? {
            if let Some(features) = read(&bytes) {
                known.insert(image, Arc::new(features));
            }
        }
        Ok(known)
    }

    /// Returns true if the faces in an image are in the feature cache.
    pub(super) fn are_cached(&self, image: ContentHash) -> bool {
        self.engine.cached_family(FAMILY, image).is_some()
    }

    /// Returns the faces in an image as a feature, which is cached.
    pub(super) async fn feature(
        &self,
        image: ContentHash,
        job: Arc<ImageJob>,
    ) -> Result<Feature, EngineError> {
        let must_be_stored = job.is_background();
        let found = self.recall_or_find(image, job);
        let feature = self.engine.family_feature(FAMILY, image, found).await?;
        if must_be_stored && self.unsaved.lock().contains(&image) {
            // Another process may finish the run, and then needs the stored faces.
            self.store_again(&[image]).await.map_err(EngineError::NotStored)?;
            self.unsaved.lock().remove(&image);
        }
        Ok(feature)
    }

    /// Loads the faces in an image from the storage, or finds them and stores them there.
    fn recall_or_find(
        &self,
        image: ContentHash,
        job: Arc<ImageJob>,
    ) -> impl Future<Output = Result<Features, EngineError>> + Send + use<> {
        let storage = self.storage().map(|(storage, graphs)| (Arc::clone(storage), graphs));
        let is_requested = !job.is_background();
        let (find, unsaved) = (self.find(job), Arc::clone(&self.unsaved));
        async move {
            let Some((storage, graphs)) = storage else { return find.await };
            // If the storage fails, that costs time but no scores: the faces are found again.
            match storage.load(&[image], graphs).await {
                Ok(known) => {
                    if let Some(features) = known.get(&image).and_then(|bytes| read(bytes)) {
                        return Ok(features);
                    }
                }
                Err(error) => tracing::warn!(%error, "failed to load faces"),
            }
            let began = is_requested.then(clock::now);
            let features = find.await?;
            if let Err(error) = storage.save(image, graphs, write(&features), began).await {
                // A request needs only the scores. For a sample of a run, they are stored again.
                tracing::warn!(%error, "failed to store faces");
                unsaved.note(image);
            }
            Ok(features)
        }
    }

    /// Finds the faces in an image. Returns the features `boxes` `[n, 4]`, `probabilities` `[n]`,
    /// `landmarks` `[n, 5, 2]` and `embedding` `[n, width]`, the largest face first.
    fn find(
        &self,
        job: Arc<ImageJob>,
    ) -> impl Future<Output = Result<Features, EngineError>> + Send + use<> {
        let (searches, gathering) = (Arc::clone(&self.searches), self.gathering.clone());
        let lanes = Lanes::new(Arc::clone(&self.engine), Arc::clone(&self.room));
        let own = Arc::clone(&self.own);
        async move {
            let search = gathering.as_ref().map(Gathering::begin);
            let turn = searches.take(job.is_background()).await;
            let image = job.image().await.map_err(|error| EngineError::Prepare(Arc::new(error)))?;
            // Dropped with this future, when no request waits for it any more.
            let _leaving = lanes.leaving();
            // An error is not cached: if a lane was too busy to compare our own networks with its
            // graph, the next search compares again.
            let own = own.get_or_try_init(|| {
                Box::pin(async { OwnNetworks::new(&lanes).await.map(Arc::new) })
            });
            let networks = Blocking::new(lanes.clone(), Arc::clone(own.await?));
            let detect = move || {
                let found = faces::detect(&image, &networks)?;
                let crop = |face: Face| faces::crop(&image, &face).map(|crop| (face, crop));
                Ok::<_, EngineError>(
                    found.into_iter().filter_map(crop).unzip::<_, _, Vec<_>, Vec<_>>(),
                )
            };
            let (found, crops) = blocking(detect).await?;
            drop((search, turn));
            if let Some(gathering) = gathering.filter(|_| !crops.is_empty()) {
                gathering.gathered().await;
            }
            let embeddings = lanes.run(EMBED, crops.into_iter().map(pixels).collect()).await?;
            Ok(features(&found, &embeddings))
        }
    }
}

/// Builds the feature of an image from its faces and their embeddings.
fn features(found: &[Face], embeddings: &[Arc<Features>]) -> Features {
    let embeddings: Vec<&Output> =
        embeddings.iter().filter_map(|features| features.get("embedding")).collect();
    let count = found.len();
    let output = |shape: Vec<usize>, data: Vec<f32>| Output { shape, data };
    let width = embeddings.first().map_or(1, |embedding| embedding.data.len());
    Features::new(vec![
        (
            "boxes".into(),
            output(vec![count, 4], found.iter().flat_map(|face| face.corners).collect()),
        ),
        (
            "probabilities".into(),
            output(vec![count], found.iter().map(|face| face.probability).collect()),
        ),
        (
            "landmarks".into(),
            output(
                vec![count, 5, 2],
                found.iter().flat_map(|face| face.landmarks.into_iter().flatten()).collect(),
            ),
        ),
        (
            "embedding".into(),
            output(
                vec![count, width],
                embeddings
                    .into_iter()
                    .flat_map(|embedding| embedding.data.iter().copied())
                    .collect(),
            ),
        ),
    ])
}

/// Returns the evidence for the faces in an image.
///
/// Embeddings are copied only if `embeddings` is set.
pub(super) fn evidence(features: &Features, embeddings: bool) -> Vec<FaceEvidence> {
    let numbers = |name| features.get(name).map_or(&[][..], |output| output.data.as_slice());
    let (boxes, landmarks) =
        (numbers("boxes").as_chunks::<4>().0, numbers("landmarks").as_chunks::<2>().0);
    let width = features
        .get("embedding")
        .and_then(|output| output.shape.get(1))
        .map_or(1, |width| (*width).max(1));
    let faces = boxes.iter().zip(numbers("probabilities")).zip(landmarks.as_chunks::<5>().0);
    faces
        .zip(numbers("embedding").chunks_exact(width))
        .map(|(((corners, probability), landmarks), embedding)| FaceEvidence {
            corners: *corners,
            probability: *probability,
            landmarks: *landmarks,
            embedding: embeddings.then(|| embedding.to_vec()),
        })
        .collect()
}

/// Outputs of the feature, in the order in which they are written.
const OUTPUTS: [&str; 4] = ["boxes", "probabilities", "landmarks", "embedding"];

/// First byte of stored faces, the version of their layout. Faces in another layout are found
/// again.
const LAYOUT: u8 = 1;

/// Serialises the faces in an image: layout, count and width of the embeddings, and the numbers of
/// all outputs, all little-endian.
fn write(features: &Features) -> Vec<u8> {
    let shape = features.get("embedding").map_or(&[0, 1][..], |output| &output.shape);
    let mut bytes = vec![LAYOUT];
    for side in shape {
        bytes.extend((*side as u32).to_le_bytes());
    }
    for name in OUTPUTS {
        bytes.extend(
            features.values(name).unwrap_or_default().iter().flat_map(|value| value.to_le_bytes()),
        );
    }
    bytes
}

/// Reads the bytes of [`write`]; `None` for anything else.
fn read(bytes: &[u8]) -> Option<Features> {
    let (&LAYOUT, rest) = bytes.split_first()? else { return None };
    let (words, []) = rest.as_chunks::<4>() else { return None };
    let (shape, numbers) = words.split_at_checked(2)?;
    let [count, width] = [shape[0], shape[1]].map(|word| u32::from_le_bytes(word) as usize);
    let mut numbers = numbers.iter().map(|word| f32::from_le_bytes(*word));
    let shapes = [vec![count, 4], vec![count], vec![count, 5, 2], vec![count, width]];
    let total = shapes.iter().map(|shape| shape.iter().product::<usize>()).sum::<usize>();
    (numbers.len() == total && numbers.clone().all(f32::is_finite)).then_some(())?;
    let outputs = OUTPUTS.into_iter().zip(shapes).map(|(name, shape)| {
        let data = numbers.by_ref().take(shape.iter().product()).collect();
        (name.into(), Output { shape, data })
    });
    Some(Features::new(outputs.collect()))
}

fn pixels(crop: Image) -> Tensor {
    let side = CROP_SIDE as usize;
    Tensor::U8 { shape: vec![side, side, 3], data: crop.pixels.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn face(probability: f32) -> Face {
        Face { corners: [1.0, 2.0, 3.5, 4.0], probability, landmarks: [[0.5, -0.25]; 5] }
    }

    #[test]
    fn stored_faces_are_read_back_bit_for_bit_and_other_bytes_are_rejected() {
        let embedding = |value| {
            Arc::new(Features::new(vec![(
                "embedding".into(),
                Output { shape: vec![3], data: vec![value, 0.1, -1e-30] },
            )]))
        };
        for features in [
            features(&[face(0.9), face(0.8)], &[embedding(0.3), embedding(-0.7)]),
            features(&[], &[]),
        ] {
            let bytes = write(&features);
            assert_eq!(read(&bytes).as_ref(), Some(&features));
            for wrong in
                [&bytes[..bytes.len() - 1], &bytes[1..], &[], &[&[9], &bytes[1..]].concat()]
            {
                assert_eq!(read(wrong), None);
            }
        }
    }
}
