//! Features that a metric reads, by source and input.

use std::{collections::HashMap, sync::Arc};

use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::{AttributeInputs, Flag, Input, NullReason, Objects, Relations};
use crate::tensor::{Features, Output};

/// Role of a graph, its name in every pack.
pub type Role = &'static str;

/// The graphs that compute a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FeatureSource {
    /// A graph that takes an image.
    Image(Role),
    /// A graph that takes a text.
    Text(Role),
    /// A graph that takes the outputs of an image graph, and a text.
    Joint {
        /// The image graph.
        image: Role,
        /// The graph whose outputs are the feature.
        score: Role,
    },
    /// The face cascade, and the graph that embeds each face.
    Faces,
    /// The detector, which takes an image and the embeddings of words.
    Objects,
    /// The scene graph.
    Relations,
}

impl FeatureSource {
    /// P-Net, R-Net and O-Net of the face cascade, and the face embedding.
    pub const FACE_GRAPHS: [Role; 4] =
        ["faces.pnet", "faces.rnet", "faces.onet", "faces.embedding"];
    /// The text tower of the detector, whose embeddings are its queries, and its image tower.
    pub const OBJECT_GRAPHS: [Role; 2] = ["owlvit.text", "owlvit.image"];
    /// The scene graph. It maps an image to boxes, and the logits of their classes, predicates and
    /// pairs.
    pub const SCENE_GRAPH: Role = "relations";

    /// Returns the name in responses: the role of the graph whose outputs are the feature, or the
    /// family `faces`.
    #[must_use]
    pub const fn name(self) -> Role {
        match self {
            Self::Image(role) | Self::Text(role) | Self::Joint { score: role, .. } => role,
            Self::Faces => "faces",
            Self::Objects => Self::OBJECT_GRAPHS[1],
            Self::Relations => Self::SCENE_GRAPH,
        }
    }

    /// Returns every graph that the feature needs.
    #[must_use]
    pub fn graphs(self) -> Vec<Role> {
        match self {
            Self::Image(role) | Self::Text(role) => vec![role],
            Self::Joint { image, score } => vec![image, score],
            Self::Faces => Self::FACE_GRAPHS.to_vec(),
            Self::Objects => Self::OBJECT_GRAPHS.to_vec(),
            Self::Relations => vec![Self::SCENE_GRAPH],
        }
    }

    /// Returns the graph that takes a whole image; `None` if there is none.
    #[must_use]
    pub fn image_graph(self) -> Option<Role> {
        match self {
            Self::Image(role) | Self::Joint { image: role, .. } => Some(role),
            Self::Text(_) | Self::Faces => None,
            Self::Objects | Self::Relations => Some(self.name()),
        }
    }
}

impl Serialize for FeatureSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// The part of a sample that a metric needs features of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// The generated image.
    Image,
    /// The prompt.
    Prompt,
    /// Every reference image.
    References,
    /// Every image of the person: reference and auxiliary images.
    Photos,
    /// The generated image together with the prompt, in one graph.
    ImageWithPrompt,
    /// The generated image together with the objects to find in it.
    Objects,
    /// The generated image, scored for the relations of the prompt.
    Relations,
    /// The labelled photos of the sample's dataset.
    Dataset,
}

impl Subject {
    /// Returns the reason why a score is null if this part is missing.
    #[must_use]
    pub fn missing(self) -> NullReason {
        match self {
            Self::Prompt | Self::ImageWithPrompt => NullReason::NoPrompt,
            Self::References | Self::Photos | Self::Image => NullReason::NoReference,
            Self::Objects => NullReason::NoDetectables,
            Self::Relations => NullReason::NoRelations,
            Self::Dataset => NullReason::NeedsDataset,
        }
    }
}

/// All features that were computed for one sample.
#[derive(Debug, Default)]
pub struct FeatureSet {
    features: HashMap<(FeatureSource, Input), Arc<Features>>,
    references: usize,
    auxiliary: usize,
    prompt_cut_for: Vec<FeatureSource>,
    objects: Arc<Objects>,
    relations: Arc<Relations>,
    attributes: Option<AttributeInputs>,
}

impl FeatureSet {
    /// Creates an empty set for a sample with `references` reference images.
    #[must_use]
    pub fn new(references: usize) -> Self {
        Self { references, ..Self::default() }
    }

    /// Sets the number of auxiliary images.
    #[must_use]
    pub fn with_auxiliary(self, auxiliary: usize) -> Self {
        Self { auxiliary, ..self }
    }

    /// Sets the objects that were searched for in the image.
    #[must_use]
    pub fn with_objects(self, objects: Arc<Objects>) -> Self {
        Self { objects, ..self }
    }

    /// Returns the objects that were searched for.
    #[must_use]
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Sets the relations of the prompt.
    #[must_use]
    pub fn with_relations(self, relations: Arc<Relations>) -> Self {
        Self { relations, ..self }
    }

    /// Returns the relations of the prompt.
    #[must_use]
    pub fn relations(&self) -> &Relations {
        &self.relations
    }

    /// Sets the linear probes and labels of a sample with a dataset.
    #[must_use]
    pub fn with_attributes(self, attributes: AttributeInputs) -> Self {
        Self { attributes: Some(attributes), ..self }
    }

    /// Returns the linear probes and labels if the sample has a dataset.
    #[must_use]
    pub fn attributes(&self) -> Option<&AttributeInputs> {
        self.attributes.as_ref()
    }

    /// Iterates over the inputs that are reference images.
    pub fn reference_photos(&self) -> impl Iterator<Item = Input> + use<> {
        (0..self.references).map(Input::Reference)
    }

    /// Iterates over the inputs that are images of the person: reference images, then auxiliary
    /// ones.
    pub fn photos(&self) -> impl Iterator<Item = Input> + use<> {
        self.reference_photos().chain((0..self.auxiliary).map(Input::Auxiliary))
    }

    /// Adds the feature of an input.
    pub fn insert(&mut self, source: FeatureSource, input: Input, features: Arc<Features>) {
        self.features.insert((source, input), features);
    }

    /// Records that the text graph of this source truncated the prompt.
    pub fn note_prompt_cut(&mut self, source: FeatureSource) {
        self.prompt_cut_for.push(source);
    }

    /// Returns the flags of a metric that reads the prompt through this source.
    #[must_use]
    pub fn prompt_flags(&self, source: FeatureSource) -> Vec<Flag> {
        if self.prompt_cut_for.contains(&source) { vec![Flag::Truncated] } else { Vec::new() }
    }

    /// Returns an output of the source for an input.
    ///
    /// # Panics
    /// Panics if the feature is missing. This cannot happen to a metric that reads only what its
    /// registry row names: the service computes exactly that, and the engine has checked the
    /// outputs against the manifest.
    #[must_use]
    pub fn get(&self, source: FeatureSource, input: Input, output: &str) -> &Output {
        self.find(source, input, output).unwrap_or_else(|| {
            let name = source.name();
            panic!("{name} has no {output} for {input:?}: the registry row does not name it")
        })
    }

    /// Returns an optional output, which not every pack's graph has.
    #[must_use]
    pub fn find(&self, source: FeatureSource, input: Input, output: &str) -> Option<&Output> {
        self.features.get(&(source, input)).and_then(|features| features.get(output))
    }

    /// Iterates over the same output for every reference image, in the order of the sample.
    pub fn references<'a>(
        &'a self,
        source: FeatureSource,
        output: &'a str,
    ) -> impl Iterator<Item = &'a Output> {
        (0..self.references).map(move |index| self.get(source, Input::Reference(index), output))
    }
}
