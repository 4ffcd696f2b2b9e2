//! The scoring service: plans the features of a sample, gathers them, and applies the metrics.

use std::{
    collections::HashSet,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    EncodedImage, FeatureUse, ImageFaces, RelationEvidence, Sample, Scorecard, ScoringError,
    faces::{self, FaceStorage, FaceStorageError},
    images::{DecodeBudget, Decoder},
    plan::{Plan, plan},
    probes::{ProbeCache, probe_cache},
    relations,
    sources::{Found, Sources},
};
use crate::{
    blocking::blocking,
    cache::Caches,
    content::ContentHash,
    engine::{Engine, Feature, Pack, PackError},
    metrics::{FeatureSet, FeatureSource, Input, Metric, Relations, Role, Subject},
    text::relations::annotated,
    vision::DecodeLimits,
};

/// Scores samples with the graphs of one pack.
pub struct Scoring {
    pack: Arc<Pack>,
    pub(super) sources: Sources,
    caches: Caches,
    pub(super) probes: Arc<ProbeCache>,
    shows_embeddings: AtomicBool,
    others: OnceLock<Arc<dyn Evict>>,
}

/// Something that caches what is derived from images.
pub trait Evict: Send + Sync {
    /// Evicts what is derived from these images and returns the number of evicted entries.
    fn evict(&self, images: &HashSet<ContentHash>) -> u64;

    /// Evicts everything.
    fn evict_all(&self);
}

impl Scoring {
    /// Creates the service on a started engine. It holds at most `pixel_bytes` bytes of decoded
    /// pixels.
    ///
    /// # Errors
    /// Fails if a tokenizer of the pack or the labels of its scene graph cannot be read.
    pub fn new(
        engine: Engine,
        pack: Arc<Pack>,
        limits: DecodeLimits,
        pixel_bytes: u64,
    ) -> Result<Self, PackError> {
        let sources = Sources::new(&pack, engine, Decoder::new(limits, pixel_bytes))?;
        let caches = Caches::default();
        let probes = probe_cache(&caches);
        let shows_embeddings = AtomicBool::new(false);
        Ok(Self { pack, sources, caches, probes, shows_embeddings, others: OnceLock::new() })
    }

    /// Sets the storage for the faces that are found from now on.
    pub fn set_face_store(&self, storage: Arc<dyn FaceStorage>) {
        self.sources.faces.keep_in(storage);
    }

    /// Returns the digest of the face graphs if the faces that they find are stored beyond this
    /// process; `None` if not, or if the pack has none.
    #[must_use]
    pub fn stored_face_graphs(&self) -> Option<ContentHash> {
        self.sources.faces.storage().map(|(_, graphs)| graphs)
    }

    /// Stores the cached faces of images that a sample of a run needs.
    ///
    /// # Errors
    /// Fails if they cannot be stored now.
    pub async fn store_faces_again(&self, images: &[ContentHash]) -> Result<(), FaceStorageError> {
        self.sources.faces.store_again(images).await
    }

    /// Adds another cache from which deleted images are evicted; the first one stays.
    pub fn evict_from(&self, other: Arc<dyn Evict>) {
        // A second one would belong to another service.
        let _ = self.others.set(other);
    }

    /// Sets whether the evidence of scores from now on includes face embeddings, which identify
    /// people. Off by default.
    pub fn show_embeddings(&self, show: bool) {
        self.shows_embeddings.store(show, Ordering::Relaxed);
    }

    /// Returns the faces in one image and their origin; `None` if the pack has no face graphs.
    ///
    /// # Errors
    /// Fails if the image cannot be decoded, a queue is full, or a graph fails.
    pub async fn faces(&self, of: &EncodedImage) -> Result<Option<Feature>, ScoringError> {
        let Sources { decoder, faces, .. } = &self.sources;
        if !self.sources.has(FeatureSource::Faces) {
            return Ok(None);
        }
        let job = decoder.job(of, Vec::new(), !faces.are_cached(of.hash));
        let found = faces.feature(of.hash, job).await.map(Some);
        found.map_err(|error| ScoringError::of(FeatureSource::Faces, Input::Image, error))
    }

    /// Evicts everything derived from these images and returns the number of features that were
    /// cached.
    pub async fn forget(self: &Arc<Self>, images: Vec<ContentHash>) -> u64 {
        let this = Arc::clone(self);
        // This scans the whole cache, which must not delay a request.
        let gone = move || {
            let images = images.into_iter().collect();
            let elsewhere = this.others.get().map_or(0, |other| other.evict(&images));
            this.engine().forget(&images) + elsewhere
        };
        let features = blocking(gone).await;
        // Features first, from which probes could be fitted again.
        self.caches.clear();
        features
    }

    /// Evicts all features, also those of texts.
    pub async fn forget_all(self: &Arc<Self>) {
        let this = Arc::clone(self);
        let gone = move || {
            if let Some(other) = this.others.get() {
                other.evict_all();
            }
            this.engine().forget_all();
        };
        blocking(gone).await;
        self.caches.clear();
    }

    /// Returns the turns and the memory for decoding, to be shared with a generator.
    #[must_use]
    pub fn decode_budget(&self) -> DecodeBudget {
        self.sources.decoder.budget()
    }

    /// Bytes of pixels that are decoded or being decoded.
    #[must_use]
    pub fn pixel_bytes(&self) -> u64 {
        self.sources.decoder.pixel_bytes()
    }

    /// Limit of [`pixel_bytes`](Self::pixel_bytes).
    #[must_use]
    pub fn pixel_limit_bytes(&self) -> u64 {
        self.sources.decoder.pixel_limit_bytes()
    }

    /// The limits for decoding an image.
    #[must_use]
    pub fn decode_limits(&self) -> &DecodeLimits {
        self.sources.decoder.limits()
    }

    /// Returns the number of tokens of a prompt for `clip_t`, without the start and the end token.
    #[must_use]
    pub fn prompt_tokens(&self, prompt: &str) -> Option<usize> {
        self.sources.texts.prompt_tokens(prompt)
    }

    /// The pack that samples are scored with.
    #[must_use]
    pub fn pack(&self) -> &Arc<Pack> {
        &self.pack
    }

    /// The underlying engine, for health and status.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.sources.engine
    }

    /// Returns the graphs that a metric needs and the pack lacks; empty if the metric can be
    /// computed.
    #[must_use]
    pub fn missing_graphs(&self, metric: &Metric) -> Vec<Role> {
        let needed = metric.needs.iter().flat_map(|need| need.source.graphs());
        let mut missing: Vec<_> =
            needed.filter(|role| self.engine().graph(role).is_none()).collect();
        missing.dedup();
        missing
    }

    /// Scores one sample: computes all features concurrently, each once, and then the metrics.
    ///
    /// Dropping the future removes its items from every queue.
    ///
    /// # Errors
    /// Fails if an image cannot be decoded, a queue is full, or a graph fails. There are no partial
    /// results.
    pub async fn score(
        &self,
        sample: &Sample,
        metrics: &[&'static Metric],
    ) -> Result<Scorecard, ScoringError> {
        let (relations, mapped) = self.map_relations(sample, metrics).await?;
        let plan = plan(sample, metrics, &relations, |source| self.sources.has(source));
        let inputs = self.sources.inputs(sample, &plan, &relations);
        let found = self.sources.gather(&plan, &inputs).await?;
        let features = inputs.feature_set(&found, relations);
        let scores = plan.apply(&features);
        let graphs = found.iter().flat_map(|found| found.source.graphs());
        Ok(Scorecard {
            graphs: graphs.chain(mapped.iter().map(|_| relations::TEXT)).collect(),
            texts: inputs.text_evidence(),
            faces: self.face_evidence(sample, &found),
            searched: found
                .iter()
                .filter(|found| found.source == FeatureSource::Faces)
                .filter_map(|found| Some(sample.at(found.input)?.hash))
                .collect(),
            objects: inputs.object_evidence(&scores),
            relations: self.relation_evidence(&plan, &features),
            features: mapped.into_iter().chain(found.iter().map(Found::used)).collect(),
            scores,
        })
    }

    /// Maps the sample's relations to labels of the pack's scene graph, if a metric needs them and
    /// the pack has one. Also returns the features that this used.
    async fn map_relations(
        &self,
        sample: &Sample,
        metrics: &[&'static Metric],
    ) -> Result<(Relations, Option<FeatureUse>), ScoringError> {
        let mut needs = metrics.iter().flat_map(|metric| metric.needs);
        match &self.sources.relations {
            Some(finder) if needs.any(|need| need.of == Subject::Relations) => {
                finder.seek(sample, &self.sources.texts).await.map_err(ScoringError::of_words)
            }
            _ => Ok((Relations::default(), None)),
        }
    }

    fn face_evidence(&self, sample: &Sample, found: &[Found]) -> Vec<ImageFaces> {
        let embeddings = self.shows_embeddings.load(Ordering::Relaxed);
        let faces = |found: &Found| ImageFaces {
            of: found.input.to_string(),
            size: sample.at(found.input).map(|image| [image.header.width, image.header.height]),
            faces: faces::evidence(&found.feature.features, embeddings),
        };
        found.iter().filter(|found| found.source == FeatureSource::Faces).map(faces).collect()
    }

    fn relation_evidence(&self, plan: &Plan, features: &FeatureSet) -> Vec<RelationEvidence> {
        let Some(finder) = &self.sources.relations else { return Vec::new() };
        let ran = plan.features.contains(&(FeatureSource::Relations, Input::Image));
        finder.evidence(features.relations(), features, ran)
    }

    /// Maps annotated relations to labels of the pack's scene graph, without any image and
    /// therefore without scores. Empty if the pack has no scene graph.
    ///
    /// # Errors
    /// Fails if a queue is full or a text graph fails.
    pub async fn words_of(
        &self,
        triplets: &[[String; 3]],
    ) -> Result<Vec<RelationEvidence>, ScoringError> {
        let Sources { relations: Some(finder), texts, .. } = &self.sources else {
            return Ok(Vec::new());
        };
        let (sought, _) =
            finder.words(annotated(triplets), texts).await.map_err(ScoringError::of_words)?;
        let relations = Relations { sought, ..Relations::default() };
        Ok(finder.evidence(&relations, &FeatureSet::default(), false))
    }
}
