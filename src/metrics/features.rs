//! The features that a metric reads, addressed by graph and by what of the sample they describe.

use std::{collections::HashMap, sync::Arc};

use serde::Serialize;
use utoipa::ToSchema;

use super::{AttributeInputs, Flag, NullReason, Objects, Relations};
use crate::tensor::{Features, Output};

/// The part of a sample that a metric needs features of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// The generated image.
    Image,
    /// The prompt.
    Prompt,
    /// Every reference photo.
    References,
    /// Every photo of the subject: references and auxiliary ones.
    Photos,
    /// The generated image together with the prompt, in one graph.
    ImageWithPrompt,
    /// The generated image together with the objects to look for in it.
    Objects,
    /// The generated image, in which the relations of the prompt are looked for.
    Relations,
    /// The labelled photos that are enrolled in the sample's dataset.
    Dataset,
}

impl Subject {
    /// Why a metric has no value where this part is missing.
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

/// One input of a sample: what a feature was computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Input {
    /// The generated image.
    Image,
    /// The prompt.
    Prompt,
    /// The reference photo of this index, from 0.
    Reference(usize),
    /// The auxiliary photo of this index, from 0.
    Auxiliary(usize),
    /// The generated image together with the prompt.
    ImageWithPrompt,
    /// The generated image together with the objects to look for in it.
    Objects,
}

/// All features that were computed for one sample.
#[derive(Debug, Default)]
pub struct FeatureSet {
    features: HashMap<(&'static str, Input), Arc<Features>>,
    references: usize,
    auxiliary: usize,
    prompt_cut_for: Vec<&'static str>,
    objects: Arc<Objects>,
    relations: Arc<Relations>,
    attributes: Option<AttributeInputs>,
}

impl FeatureSet {
    /// An empty set for a sample with so many reference photos.
    #[must_use]
    pub fn new(references: usize) -> Self {
        Self { references, ..Self::default() }
    }

    /// The same set for a sample that has so many auxiliary photos beside.
    #[must_use]
    pub fn with_auxiliary(self, auxiliary: usize) -> Self {
        Self { auxiliary, ..self }
    }

    /// The same set for an image in which these objects were looked for.
    #[must_use]
    pub fn with_objects(self, objects: Arc<Objects>) -> Self {
        Self { objects, ..self }
    }

    /// The objects that were looked for.
    #[must_use]
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// The same set for a prompt with these relations.
    #[must_use]
    pub fn with_relations(self, relations: Arc<Relations>) -> Self {
        Self { relations, ..self }
    }

    /// The relations of the prompt.
    #[must_use]
    pub fn relations(&self) -> &Relations {
        &self.relations
    }

    /// The same set for a sample of a dataset.
    #[must_use]
    pub fn with_attributes(self, attributes: AttributeInputs) -> Self {
        Self { attributes: Some(attributes), ..self }
    }

    /// What the sample's dataset teaches, where it has one.
    #[must_use]
    pub fn attributes(&self) -> Option<&AttributeInputs> {
        self.attributes.as_ref()
    }

    /// The inputs that are reference photos.
    pub fn reference_photos(&self) -> impl Iterator<Item = Input> + use<> {
        (0..self.references).map(Input::Reference)
    }

    /// The inputs that are photos of the subject: references, then auxiliary ones.
    pub fn photos(&self) -> impl Iterator<Item = Input> + use<> {
        self.reference_photos().chain((0..self.auxiliary).map(Input::Auxiliary))
    }

    /// Adds what the graph of this role says about an input.
    pub fn insert(&mut self, role: &'static str, input: Input, features: Arc<Features>) {
        self.features.insert((role, input), features);
    }

    /// Notes that the text graph of this role read only the beginning of the prompt.
    pub fn note_prompt_cut(&mut self, role: &'static str) {
        self.prompt_cut_for.push(role);
    }

    /// The flags that a metric which reads the prompt through this role must carry.
    #[must_use]
    pub fn prompt_flags(&self, role: &str) -> Vec<Flag> {
        if self.prompt_cut_for.contains(&role) { vec![Flag::Truncated] } else { Vec::new() }
    }

    /// An output of the role's graph for an input.
    ///
    /// # Panics
    /// Never for a metric that reads what its registry row names: the service computes exactly that, and
    /// the engine has checked the outputs against the manifest.
    #[must_use]
    pub fn get(&self, role: &'static str, input: Input, output: &str) -> &Output {
        self.features.get(&(role, input)).and_then(|features| features.get(output)).unwrap_or_else(|| {
            panic!("{role} gave no {output} for {input:?}: the registry row does not name it")
        })
    }

    /// An output that not every pack's graph of this role has.
    #[must_use]
    pub fn find(&self, role: &'static str, input: Input, output: &str) -> Option<&Output> {
        self.features.get(&(role, input)).and_then(|features| features.get(output))
    }

    /// The same output for every reference photo, in the order of the sample.
    pub fn references<'a>(&'a self, role: &'static str, output: &'a str) -> impl Iterator<Item = &'a Output> {
        (0..self.references).map(move |index| self.get(role, Input::Reference(index), output))
    }
}
