//! Linear probes: one classifier per facial attribute.

use std::{collections::BTreeMap, sync::Arc};

use super::{AttributePrediction, LeftOut};
use crate::stats::{Logistic, LogisticError, fit_logistic};

/// Evaluated attributes, by CelebA name; others are ignored.
pub const ATTRIBUTES: [&str; 8] = [
    "Young",
    "Male",
    "High_Cheekbones",
    "Pointy_Nose",
    "Narrow_Eyes",
    "Double_Chin",
    "Big_Lips",
    "Big_Nose",
];

/// A labelled face: its embedding and the attributes of its person.
#[derive(Debug, Clone, Copy)]
pub struct LabelledFace<'a> {
    /// The embedding of the photo's largest face.
    pub embedding: &'a [f32],
    /// Labels by CelebA name.
    pub attributes: &'a BTreeMap<String, bool>,
    /// Weight of the photo in the fit.
    pub weight: f64,
}

/// One linear probe per attribute, or the reason why there is none.
#[derive(Debug, Clone, PartialEq)]
pub struct Probes(pub(super) BTreeMap<&'static str, Result<Logistic, LeftOut>>);

impl Probes {
    /// Returns the approximate memory of the probes, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.0.values().flatten().map(|probe| 64 + size_of_val(&*probe.weights)).sum()
    }

    /// Fits the probes.
    ///
    /// # Errors
    /// Fails if the embeddings differ in width or have a number that is not finite.
    pub fn fit(faces: &[LabelledFace<'_>]) -> Result<Self, LogisticError> {
        let columns = faces.first().map_or(0, |face| face.embedding.len());
        if faces.iter().any(|face| face.embedding.len() != columns) {
            return Err(LogisticError::Features);
        }
        let fit = |attribute: &'static str| {
            let labelled =
                || faces.iter().filter_map(|face| Some((face, *face.attributes.get(attribute)?)));
            if labelled().next().is_none() {
                return Ok((attribute, Err(LeftOut::Unlabelled)));
            }
            let features: Vec<f64> = labelled()
                .flat_map(|(face, _)| face.embedding.iter().copied().map(f64::from))
                .collect();
            let labels: Vec<bool> = labelled().map(|(_, label)| label).collect();
            let weights: Vec<f64> = labelled().map(|(face, _)| face.weight).collect();
            match fit_logistic(&features, columns, &labels, &weights) {
                Ok(probe) => Ok((attribute, Ok(probe))),
                Err(LogisticError::OneClass) => Ok((attribute, Err(LeftOut::Constant))),
                Err(error) => Err(error),
            }
        };
        ATTRIBUTES.into_iter().map(fit).collect::<Result<_, _>>().map(Self)
    }

    /// Predicts the attributes of the largest face in an image (`None` if it has no face), along
    /// with their targets.
    #[must_use]
    pub fn predict(
        &self,
        face: Option<&[f32]>,
        targets: &BTreeMap<String, bool>,
    ) -> Vec<AttributePrediction> {
        let face: Option<Vec<f64>> = face.map(|face| face.iter().copied().map(f64::from).collect());
        let predict = |(attribute, probe): (&&'static str, &Result<Logistic, LeftOut>)| {
            let target = targets.get(*attribute).copied();
            let item = |prediction, decision, left_out| AttributePrediction {
                attribute: (*attribute).to_owned(),
                target,
                prediction,
                decision,
                left_out,
            };
            match (probe, target, &face) {
                (_, None, _) => item(None, None, Some(LeftOut::NoTarget)),
                (Err(reason), _, _) => item(None, None, Some(*reason)),
                (Ok(_), Some(target), None) => item(Some(!target), None, None),
                (Ok(probe), Some(_), Some(face)) => {
                    let decision = probe.decision(face);
                    item(Some(decision > 0.0), Some(decision), None)
                }
            }
        };
        self.0.iter().map(predict).collect()
    }
}

/// Input of `aps`: the probes of the sample's dataset and the labels of the person.
#[derive(Debug, Clone)]
pub struct AttributeInputs {
    /// Probes fitted on the dataset's photos.
    pub probes: Arc<Probes>,
    /// Attribute labels of the sample.
    pub targets: BTreeMap<String, bool>,
}
