//! The feature sources of a pack: they compute the planned features of a sample.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;

use super::{
    EncodedImage, FeatureUse, MetricScore, ObjectEvidence, Sample, ScoringError, TextEvidence,
    faces::FaceFinder,
    images::{Decoder, ImageJob},
    objects::{self, ObjectFinder, Wanted},
    plan::Plan,
    relations::RelationFinder,
    texts::{EncodedText, Texts},
};
use crate::{
    content::ContentHash,
    engine::{Engine, EngineError, Feature, FeatureRequest, Pack, PackError},
    metrics::{
        AttributeInputs, Explanation, FeatureSet, FeatureSource, Input, Relations, Role, Subject,
    },
    tensor::Tensor,
    vision::Geometry,
};

/// The sources of one pack.
pub(super) struct Sources {
    pub(super) engine: Arc<Engine>,
    pub(super) decoder: Decoder,
    pub(super) texts: Texts,
    pub(super) faces: FaceFinder,
    objects: ObjectFinder,
    pub(super) relations: Option<RelationFinder>,
}

/// The inputs of a sample, prepared for its planned features.
pub(super) struct Inputs<'a> {
    sample: &'a Sample,
    /// One job per distinct image, with every geometry that the plan needs.
    images: HashMap<ContentHash, Arc<ImageJob>>,
    /// The prompt, for each source that reads it.
    texts: HashMap<FeatureSource, EncodedText>,
    wanted: Option<Wanted>,
}

/// A computed feature of a sample.
pub(super) struct Found {
    pub(super) source: FeatureSource,
    pub(super) input: Input,
    pub(super) feature: Feature,
    took: Duration,
}

impl Sources {
    pub(super) fn new(pack: &Pack, engine: Engine, decoder: Decoder) -> Result<Self, PackError> {
        let (texts, engine) = (Texts::load(pack)?, Arc::new(engine));
        let grounded = has(&engine, FeatureSource::Objects);
        Ok(Self {
            decoder,
            faces: FaceFinder::new(Arc::clone(&engine)),
            objects: ObjectFinder::new(Arc::clone(&engine)),
            relations: RelationFinder::of(pack, &engine, &texts, grounded)?,
            texts,
            engine,
        })
    }

    /// Returns true if the pack has every graph of a source.
    pub(super) fn has(&self, source: FeatureSource) -> bool {
        has(&self.engine, source)
    }

    /// Prepares the inputs of the planned features. Images are decoded later, if they must be.
    pub(super) fn inputs<'a>(
        &self,
        sample: &'a Sample,
        plan: &Plan,
        relations: &Relations,
    ) -> Inputs<'a> {
        let mut texts = HashMap::new();
        let mut images: HashMap<_, (&EncodedImage, Vec<Geometry>, bool)> = HashMap::new();
        for &(source, input) in &plan.features {
            if let FeatureSource::Text(role) | FeatureSource::Joint { score: role, .. } = source {
                let prompt = sample.prompt.as_deref().expect("planned only if there is a prompt");
                let text = self.texts.encode(role, prompt);
                texts.insert(source, text.expect("a pack's text graphs have tokenizers"));
            }
            if let FeatureSource::Text(_) = source {
                continue;
            }
            let image = image_of(sample, input);
            let (_, geometries, keep) =
                images.entry(image.hash).or_insert_with(|| (image, Vec::new(), false));
            match source.image_graph().map(|role| self.geometry(role)) {
                Some(geometry) if geometries.contains(&geometry) => {}
                Some(geometry) => geometries.push(geometry),
                None => *keep = !self.faces.are_cached(image.hash),
            }
        }
        let job =
            |(hash, (image, geometries, keep))| (hash, self.decoder.job(image, geometries, keep));
        let wanted = plan
            .features
            .contains(&(FeatureSource::Objects, Input::Objects))
            .then(|| Wanted::of(sample, plan.measures(Subject::Objects), relations, &self.texts));
        Inputs { sample, images: images.into_iter().map(job).collect(), texts, wanted }
    }

    /// Computes all planned features concurrently.
    pub(super) async fn gather(
        &self,
        plan: &Plan,
        inputs: &Inputs<'_>,
    ) -> Result<Vec<Found>, ScoringError> {
        let features = plan.features.iter().map(|&(source, input)| async move {
            let started = Instant::now();
            match self.feature(source, input, inputs).await {
                Ok(feature) => Ok(Found { source, input, feature, took: started.elapsed() }),
                Err(error) => Err(ScoringError::of(source, input, error)),
            }
        });
        try_join_all(features).await
    }

    async fn feature(
        &self,
        source: FeatureSource,
        input: Input,
        inputs: &Inputs<'_>,
    ) -> Result<Feature, EngineError> {
        let image = image_of(inputs.sample, input).hash;
        let job = || Arc::clone(&inputs.images[&image]);
        let pixels = |role| job().tensor(self.geometry(role));
        let request = match source {
            FeatureSource::Image(role) => FeatureRequest::new(role, image, pixels(role)),
            FeatureSource::Text(role) => inputs.texts[&source].request(role),
            FeatureSource::Joint { image: tower, score } => {
                // The tower's tokens are a feature of their own, so another prompt for the same
                // image does not run it again.
                let tokens = FeatureRequest::new(tower, image, pixels(tower));
                let (engine, text) = (Arc::clone(&self.engine), &inputs.texts[&source]);
                let (ids, mask) = (text.ids(), text.mask());
                let prepare = async move {
                    let tokens = engine.feature(tokens).await?.features;
                    let (_, tokens) = tokens.iter().next().expect("every graph has an output");
                    let data = tokens.data.as_slice().into();
                    let tokens = Tensor::F32 { shape: tokens.shape.clone(), data };
                    Ok::<_, EngineError>(vec![tokens, ids, mask])
                };
                FeatureRequest::new(score, image, prepare).with(text.hash())
            }
            FeatureSource::Faces => return self.faces.feature(image, job()).await,
            FeatureSource::Objects => {
                let wanted = inputs.wanted.as_ref().expect("prepared if the plan has objects");
                self.objects.request(image, pixels(source.name()), wanted)
            }
            FeatureSource::Relations => {
                let finder = self.relations.as_ref().expect("only available graphs are planned");
                finder.request(image, pixels(source.name()))
            }
        };
        self.engine.feature(request).await
    }

    fn geometry(&self, role: Role) -> Geometry {
        let graph = self.engine.graph(role).expect("only available graphs are planned");
        graph.geometry.expect("a pack's image graphs have geometries")
    }
}

impl Inputs<'_> {
    /// Returns the features for the metrics, with what else they read.
    pub(super) fn feature_set(&self, found: &[Found], relations: Relations) -> FeatureSet {
        let mut features = FeatureSet::new(self.sample.references.len())
            .with_auxiliary(self.sample.auxiliary.len())
            .with_relations(Arc::new(relations));
        if let Some(wanted) = &self.wanted {
            features = features.with_objects(Arc::clone(&wanted.objects));
        }
        if let Some(dataset) = &self.sample.dataset {
            features = features.with_attributes(AttributeInputs {
                probes: Arc::clone(&dataset.probes),
                targets: self.sample.metadata.attributes.clone(),
            });
        }
        for Found { source, input, feature, .. } in found {
            features.insert(*source, *input, Arc::clone(&feature.features));
        }
        for (source, _) in self.texts.iter().filter(|(_, text)| text.tokens.truncated) {
            features.note_prompt_cut(*source);
        }
        features
    }

    /// Returns how each text graph read the prompt.
    pub(super) fn text_evidence(&self) -> Vec<TextEvidence> {
        let texts = self.texts.iter().map(|(source, text)| TextEvidence {
            graph: source.name().to_owned(),
            tokens: text.tokens.count,
            context: text.context,
            truncated: text.tokens.truncated,
        });
        let mut texts: Vec<_> = texts.collect();
        texts.sort_by(|a, b| a.graph.cmp(&b.graph));
        texts
    }

    /// Returns the objects of these scores, and those that were skipped.
    pub(super) fn object_evidence(&self, scores: &[MetricScore]) -> Vec<ObjectEvidence> {
        let scores = scores.iter().filter_map(|score| score.outcome.as_ref().ok());
        let found = scores.filter_map(|score| match &score.explanation {
            Explanation::Objects(found) => Some(found),
            _ => None,
        });
        let skipped = self.wanted.as_ref().map_or(&[][..], |wanted| &wanted.objects.skipped);
        objects::evidence(found.flatten(), skipped)
    }
}

impl Found {
    /// Returns the evidence that the feature was used.
    pub(super) fn used(&self) -> FeatureUse {
        FeatureUse {
            graph: self.source.name().to_owned(),
            of: self.input.to_string(),
            origin: self.feature.origin,
            milliseconds: self.took.as_secs_f64() * 1e3,
            batch: self.feature.timing.batch,
        }
    }
}

fn has(engine: &Engine, source: FeatureSource) -> bool {
    source.graphs().iter().all(|role| engine.graph(role).is_some())
}

fn image_of(sample: &Sample, input: Input) -> &EncodedImage {
    match input {
        Input::Reference(index) => &sample.references[index],
        Input::Auxiliary(index) => &sample.auxiliary[index],
        Input::Image | Input::ImageWithPrompt | Input::Objects | Input::Prompt => &sample.image,
    }
}
