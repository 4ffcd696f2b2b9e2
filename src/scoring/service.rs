//! The scoring service: plans features, requests them from the engine, and applies the metrics.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use futures_util::future::try_join_all;

use super::{
    EncodedImage, FeatureUse, ImageFaces, MetricScore, RelationEvidence, Sample, Scorecard,
    TextEvidence,
    faces::{self, FaceFinder, FaceMemory},
    images::{Decoder, ImageJob},
    objects::{self, ObjectFinder, Wanted},
    plan::plan,
    probes::ProbeCache,
    relations::RelationFinder,
    texts::{EncodedText, Texts},
};
use crate::{
    blocking::blocking,
    content::ContentHash,
    engine::{Engine, EngineError, Feature, FeatureRequest, Pack, PackError},
    metrics::{
        AttributeInputs, FACES, FeatureSet, Input, Metric, OBJECTS, RELATIONS, Relations, Subject,
    },
    tensor::Tensor,
    text::relations::annotated,
    vision::{DecodeError, DecodeLimits, Geometry},
};

/// Scores samples with the graphs of one pack.
pub struct Scoring {
    engine: Arc<Engine>,
    pack: Arc<Pack>,
    decoder: Decoder,
    texts: Texts,
    pub(super) faces: FaceFinder,
    objects: ObjectFinder,
    relations: Option<RelationFinder>,
    pub(super) probes: ProbeCache,
    shows_embeddings: AtomicBool,
}

/// Error of scoring a sample.
#[derive(Debug, thiserror::Error)]
pub enum ScoringError {
    /// An image of the sample cannot be decoded.
    #[error("{of}: {source}")]
    Decode {
        /// The input: `image` or `reference[0]` and so on.
        of: String,
        /// The cause.
        source: DecodeError,
    },
    /// The engine failed to compute a feature.
    #[error("{graph} of {of}: {source}")]
    Engine {
        /// Role of the graph.
        graph: &'static str,
        /// The input.
        of: String,
        /// The cause.
        source: EngineError,
    },
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
        let texts = Texts::load(&pack)?;
        let engine = Arc::new(engine);
        let faces = FaceFinder::new(Arc::clone(&engine));
        let objects = ObjectFinder::new(Arc::clone(&engine));
        let grounded = graphs_of(OBJECTS).iter().all(|role| engine.graph(role).is_some());
        let relations = RelationFinder::of(&pack, &engine, &texts, grounded)?;
        let (probes, decoder) = (ProbeCache::default(), Decoder::new(limits, pixel_bytes));
        let shows_embeddings = AtomicBool::new(false);
        Ok(Self {
            engine,
            pack,
            decoder,
            texts,
            faces,
            objects,
            relations,
            probes,
            shows_embeddings,
        })
    }

    /// Sets the storage for the faces that are found from now on.
    pub fn set_face_store(&self, memory: Arc<dyn FaceMemory>) {
        self.faces.keep_in(memory);
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
        if !graphs_of(FACES).iter().all(|role| self.has(role)) {
            return Ok(None);
        }
        let keep = self.engine.cached_family(FACES, of.hash).is_none();
        let jobs = HashMap::from([(of.hash, self.decoder.job(of, Vec::new(), keep))]);
        match self.face_feature(of, &jobs).await {
            Ok(feature) => Ok(Some(feature)),
            Err(error) => Err(attribute(FACES, Input::Image, error)),
        }
    }

    /// Evicts everything derived from these images and returns the number of features that were
    /// cached.
    pub async fn forget(self: &Arc<Self>, images: Vec<ContentHash>) -> u64 {
        self.probes.clear();
        let this = Arc::clone(self);
        // This scans the whole cache, which must not delay a request.
        blocking(move || this.engine.forget(&images.into_iter().collect())).await
    }

    /// Bytes of pixels that are decoded or being decoded.
    #[must_use]
    pub fn pixel_bytes(&self) -> u64 {
        self.decoder.pixel_bytes()
    }

    /// The limits for decoding an image.
    #[must_use]
    pub fn decode_limits(&self) -> &DecodeLimits {
        self.decoder.limits()
    }

    /// The pack that samples are scored with.
    #[must_use]
    pub fn pack(&self) -> &Arc<Pack> {
        &self.pack
    }

    /// The underlying engine, for health and status.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Returns the graphs that a metric needs and the pack lacks; empty if the metric can be
    /// computed.
    #[must_use]
    pub fn missing_graphs(&self, metric: &Metric) -> Vec<String> {
        let mut missing: Vec<_> = metric
            .needs
            .iter()
            .flat_map(|need| graphs_of(need.graph))
            .filter(|role| !self.has(role))
            .collect();
        missing.dedup();
        missing
    }

    fn has(&self, role: &str) -> bool {
        self.engine.graph(role).is_some()
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
        let (finder, relations, mapped_by) = self.seek_relations(sample, metrics).await?;
        let available = |role: &str| graphs_of(role).iter().all(|role| self.has(role));
        let plan = plan(sample, metrics, &relations, available);
        let jobs = self.image_jobs(sample, plan.features.iter().copied());
        let texts = self.encode(sample, plan.features.iter().copied());
        let looks = plan.features.contains(&(OBJECTS, Input::Objects));
        let wanted = looks
            .then(|| Wanted::of(sample, plan.measures(Subject::Objects), &relations, &self.texts));
        let (jobs, encoded, looked_for) = (&jobs, &texts, &wanted);
        let asked = plan.features.iter().map(|&(role, input)| async move {
            let started = Instant::now();
            let feature = match input {
                Input::Prompt => self.text_feature(role, &encoded[role]).await,
                Input::ImageWithPrompt => {
                    self.joint_feature(role, &sample.image, jobs, &encoded[role]).await
                }
                Input::Objects => {
                    let wanted = looked_for.as_ref().expect("prepared if the plan has objects");
                    let (hash, geometry) = (sample.image.hash, self.geometry(role));
                    self.objects.find(hash, Arc::clone(&jobs[&hash]), geometry, wanted).await
                }
                _ if role == RELATIONS => {
                    let finder = finder.expect("only available graphs are planned");
                    let (hash, geometry) = (sample.image.hash, self.geometry(role));
                    finder.look(hash, Arc::clone(&jobs[&hash]), geometry).await
                }
                _ if role == FACES => self.face_feature(image_of(sample, input), jobs).await,
                Input::Image | Input::Reference(_) | Input::Auxiliary(_) => {
                    self.image_feature(role, image_of(sample, input), jobs).await
                }
            };
            match feature {
                Ok(feature) => Ok((role, input, feature, started.elapsed())),
                Err(error) => Err(attribute(role, input, error)),
            }
        });

        let mut features =
            FeatureSet::new(sample.references.len()).with_auxiliary(sample.auxiliary.len());
        if let Some(wanted) = &wanted {
            features = features.with_objects(Arc::clone(&wanted.objects));
        }
        if let Some(dataset) = &sample.dataset {
            features = features.with_attributes(AttributeInputs {
                probes: Arc::clone(&dataset.probes),
                targets: sample.metadata.attributes.clone(),
            });
        }
        let ran = plan.features.contains(&(RELATIONS, Input::Image));
        let relations = Arc::new(relations);
        features = features.with_relations(Arc::clone(&relations));
        let mut found = Vec::new();
        let mut uses: Vec<FeatureUse> = mapped_by.into_iter().collect();
        for (role, input, feature, took) in try_join_all(asked).await? {
            if role == FACES {
                let faces = faces::evidence(
                    &feature.features,
                    self.shows_embeddings.load(Ordering::Relaxed),
                );
                found.push(ImageFaces { of: name(input), faces });
            }
            features.insert(role, input, feature.features);
            uses.push(FeatureUse {
                graph: role.to_owned(),
                of: name(input),
                origin: feature.origin,
                milliseconds: took.as_secs_f64() * 1e3,
                batch: feature.timing.batch,
            });
        }
        let mut evidence = Vec::new();
        for (role, text) in texts {
            if text.tokens.truncated {
                features.note_prompt_cut(role);
            }
            evidence.push(TextEvidence {
                graph: role.to_owned(),
                tokens: text.tokens.count,
                context: text.context,
                truncated: text.tokens.truncated,
            });
        }
        evidence.sort_by(|a, b| a.graph.cmp(&b.graph));
        let scores: Vec<MetricScore> = plan
            .metrics
            .into_iter()
            .map(|(metric, obstacle)| MetricScore {
                metric,
                outcome: obstacle.map_or_else(|| (metric.compute)(&features), Err),
            })
            .collect();
        let scored = scores.iter().filter_map(|score| score.outcome.as_ref().ok());
        let scored: Vec<_> = scored.flat_map(|score| score.objects.iter().cloned()).collect();
        let skipped = wanted.as_ref().map_or(&[][..], |wanted| &wanted.objects.skipped);
        let objects = objects::evidence(&scored, skipped);
        let relations =
            finder.map_or_else(Vec::new, |finder| finder.evidence(&relations, &features, ran));
        Ok(Scorecard { scores, features: uses, texts: evidence, faces: found, objects, relations })
    }

    /// Maps the sample's relations to labels of the pack's scene graph, if a metric needs them and
    /// the pack has one. Also returns the features that this used.
    async fn seek_relations(
        &self,
        sample: &Sample,
        metrics: &[&'static Metric],
    ) -> Result<(Option<&RelationFinder>, Relations, Option<FeatureUse>), ScoringError> {
        let asked = metrics
            .iter()
            .any(|metric| metric.needs.iter().any(|need| need.of == Subject::Relations));
        let Some(finder) = self.relations.as_ref().filter(|_| asked) else {
            return Ok((None, Relations::default(), None));
        };
        let (relations, used) = finder.seek(sample, &self.texts).await.map_err(of_words)?;
        Ok((Some(finder), relations, used))
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
        let Some(finder) = &self.relations else { return Ok(Vec::new()) };
        let (sought, _) = finder.words(annotated(triplets), &self.texts).await.map_err(of_words)?;
        let relations = Relations { sought, ..Relations::default() };
        Ok(finder.evidence(&relations, &FeatureSet::default(), false))
    }

    /// Creates one job per distinct image, with every geometry that the plan needs.
    fn image_jobs(
        &self,
        sample: &Sample,
        planned: impl Iterator<Item = (&'static str, Input)>,
    ) -> HashMap<ContentHash, Arc<ImageJob>> {
        let mut wanted: HashMap<ContentHash, (&EncodedImage, Vec<Geometry>, bool)> = HashMap::new();
        for (role, input) in planned.filter(|(_, input)| *input != Input::Prompt) {
            let image = image_of(sample, input);
            let (_, geometries, keep) =
                wanted.entry(image.hash).or_insert_with(|| (image, Vec::new(), false));
            if role == FACES {
                *keep = self.engine.cached_family(FACES, image.hash).is_none();
                continue;
            }
            let geometry = self.geometry(&image_graph(role));
            if !geometries.contains(&geometry) {
                geometries.push(geometry);
            }
        }
        wanted
            .into_iter()
            .map(|(hash, (image, geometries, keep))| {
                (hash, self.decoder.job(image, geometries, keep))
            })
            .collect()
    }

    fn encode(
        &self,
        sample: &Sample,
        planned: impl Iterator<Item = (&'static str, Input)>,
    ) -> HashMap<&'static str, EncodedText> {
        let Some(prompt) = &sample.prompt else { return HashMap::new() };
        planned
            .filter(|(_, input)| matches!(input, Input::Prompt | Input::ImageWithPrompt))
            .map(|(role, _)| {
                let text =
                    self.texts.encode(role, prompt).expect("a pack's text graphs have tokenizers");
                (role, text)
            })
            .collect()
    }

    async fn text_feature(
        &self,
        role: &'static str,
        text: &EncodedText,
    ) -> Result<Feature, EngineError> {
        let tensors = vec![text.ids()];
        let prepare = async move { Ok::<_, DecodeError>(tensors) };
        self.engine.feature(FeatureRequest::new(role, text.hash(), prepare)).await
    }

    async fn image_feature(
        &self,
        role: &'static str,
        file: &EncodedImage,
        jobs: &HashMap<ContentHash, Arc<ImageJob>>,
    ) -> Result<Feature, EngineError> {
        let job = Arc::clone(&jobs[&file.hash]);
        let geometry = self.geometry(role);
        self.engine.feature(FeatureRequest::new(role, file.hash, job.tensor(geometry))).await
    }

    async fn face_feature(
        &self,
        file: &EncodedImage,
        jobs: &HashMap<ContentHash, Arc<ImageJob>>,
    ) -> Result<Feature, EngineError> {
        let find = self.faces.recall_or_find(file.hash, Arc::clone(&jobs[&file.hash]));
        self.engine.family_feature(FACES, file.hash, find).await
    }

    /// Runs a graph on the image's tokens and the prompt. The tokens are a feature of their own, so
    /// another prompt for the same image does not run the image tower again.
    async fn joint_feature(
        &self,
        role: &'static str,
        file: &EncodedImage,
        jobs: &HashMap<ContentHash, Arc<ImageJob>>,
        text: &EncodedText,
    ) -> Result<Feature, EngineError> {
        let tower = image_graph(role);
        let geometry = self.geometry(&tower);
        let (engine, job, image) =
            (Arc::clone(&self.engine), Arc::clone(&jobs[&file.hash]), file.hash);
        let (ids, mask) = (text.ids(), text.mask());
        let prepare = async move {
            let request = FeatureRequest::new(&tower, image, job.tensor(geometry));
            let tokens = engine.feature(request).await?.features;
            let (_, tokens) = tokens.iter().next().expect("every graph has an output");
            let tokens =
                Tensor::F32 { shape: tokens.shape.clone(), data: tokens.data.as_slice().into() };
            Ok::<_, EngineError>(vec![tokens, ids, mask])
        };
        self.engine.feature(FeatureRequest::new(role, image, prepare).with(text.hash())).await
    }

    fn geometry(&self, role: &str) -> Geometry {
        let graph = self.engine.graph(role).expect("only available graphs are planned");
        graph.geometry.expect("a pack's image graphs have geometries")
    }
}

fn image_of(sample: &Sample, input: Input) -> &EncodedImage {
    match input {
        Input::Reference(index) => &sample.references[index],
        Input::Auxiliary(index) => &sample.auxiliary[index],
        Input::Image | Input::ImageWithPrompt | Input::Objects | Input::Prompt => &sample.image,
    }
}

/// Returns the graph that takes the pixels: the tower `family.image` for a joint graph
/// `family.score`, else the graph itself.
fn image_graph(role: &str) -> String {
    match role.strip_suffix(".score") {
        Some(family) => format!("{family}.image"),
        None => role.to_owned(),
    }
}

/// Returns every graph that a role stands for. A joint graph runs on the output of its image tower.
#[must_use]
pub fn graphs_of(role: &str) -> Vec<String> {
    if role == FACES {
        return faces::GRAPHS.map(str::to_owned).to_vec();
    }
    if role == OBJECTS {
        return vec![objects::TEXT.to_owned(), OBJECTS.to_owned()];
    }
    let mut graphs = vec![image_graph(role), role.to_owned()];
    graphs.dedup();
    graphs
}

/// Returns the name of an input in responses.
pub(crate) fn name(input: Input) -> String {
    match input {
        Input::Image => "image".to_owned(),
        Input::Prompt => "prompt".to_owned(),
        Input::ImageWithPrompt => "image with prompt".to_owned(),
        Input::Objects => "image with objects".to_owned(),
        Input::Reference(index) => format!("reference[{index}]"),
        Input::Auxiliary(index) => format!("auxiliary[{index}]"),
    }
}

/// Wraps an error of mapping predicates to the scene graph.
fn of_words(source: EngineError) -> ScoringError {
    ScoringError::Engine { graph: RELATIONS, of: "the prompt's predicates".to_owned(), source }
}

/// Adds the input that an engine's error is about.
fn attribute(graph: &'static str, input: Input, error: EngineError) -> ScoringError {
    let of = name(input);
    if let EngineError::Prepare(cause) = &error {
        if let Some(decode) = cause.downcast_ref::<DecodeError>() {
            let whole = matches!(input, Input::ImageWithPrompt | Input::Objects);
            let of = if whole { name(Input::Image) } else { of };
            return ScoringError::Decode { of, source: decode.clone() };
        }
        if let Some(tower) = cause.downcast_ref::<EngineError>() {
            return attribute(graph, input, tower.clone());
        }
    }
    ScoringError::Engine { graph, of, source: error }
}
