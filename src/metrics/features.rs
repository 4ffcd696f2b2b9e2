//! Features that a metric reads, by graph and input.

use std::{collections::HashMap, sync::Arc};

use serde::Serialize;
use utoipa::ToSchema;

use super::{AttributeInputs, Flag, Input, NullReason, Objects, Relations};
use crate::tensor::{Features, Output};

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
    features: HashMap<(&'static str, Input), Arc<Features>>,
    references: usize,
    auxiliary: usize,
    prompt_cut_for: Vec<&'static str>,
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

    /// Adds the outputs of a role's graph for an input.
    pub fn insert(&mut self, role: &'static str, input: Input, features: Arc<Features>) {
        self.features.insert((role, input), features);
    }

    /// Records that the text graph of this role truncated the prompt.
    pub fn note_prompt_cut(&mut self, role: &'static str) {
        self.prompt_cut_for.push(role);
    }

    /// Returns the flags of a metric that reads the prompt through this role.
    #[must_use]
    pub fn prompt_flags(&self, role: &str) -> Vec<Flag> {
        if self.prompt_cut_for.contains(&role) { vec![Flag::Truncated] } else { Vec::new() }
    }

    /// Returns an output of the role's graph for an input.
    ///
    /// # Panics
    /// Panics if the feature is missing. This cannot happen to a metric that reads only what its
    /// registry row names: the service computes exactly that, and the engine has checked the
    /// outputs against the manifest.
    #[must_use]
    pub fn get(&self, role: &'static str, input: Input, output: &str) -> &Output {
        self.features.get(&(role, input)).and_then(|features| features.get(output)).unwrap_or_else(
            || panic!("{role} has no {output} for {input:?}: the registry row does not name it"),
        )
    }

    /// Returns an optional output, which not every pack's graph of this role has.
    #[must_use]
    pub fn find(&self, role: &'static str, input: Input, output: &str) -> Option<&Output> {
        self.features.get(&(role, input)).and_then(|features| features.get(output))
    }

    /// Iterates over the same output for every reference image, in the order of the sample.
    pub fn references<'a>(
        &'a self,
        role: &'static str,
        output: &'a str,
    ) -> impl Iterator<Item = &'a Output> {
        (0..self.references).map(move |index| self.get(role, Input::Reference(index), output))
    }
}
