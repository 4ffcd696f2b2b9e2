//! Attribute preservation: compares facial attributes of the generated image, such as young or
//! male, with those of the person.
//!
//! For each facial attribute, a linear probe is fitted on the embeddings of labelled photos and
//! applied to the largest face of the generated image. As in the toolkit, it is a logistic
//! regression with an L2 penalty (C = 1) and an intercept, and its prediction is hard. The caller
//! chooses the labelled images: the photos of a dataset, or the reference images of a whole run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    AttributeInputs, AttributePrediction, Explanation, FeatureSet, FeatureSource, Flag, Input,
    LabelledFace, LeftOut, MetricResult, NullReason, Probes, Score, vector::EMBEDDING,
};
use crate::{
    stats::{LogisticError, roc_auc},
    tensor::Output,
};

/// Returns the share of correct predictions, or `None` if no attribute counts.
#[must_use]
pub fn share_right(predictions: &[AttributePrediction]) -> Option<f64> {
    let counted = predictions.iter().filter(|item| item.prediction.is_some());
    let (right, count) = counted.fold((0_u32, 0_u32), |(right, count), item| {
        (right + u32::from(item.prediction == item.target), count + 1)
    });
    (count > 0).then(|| f64::from(right) / f64::from(count))
}

/// Returns the embedding of the largest face, if there is a face.
#[must_use]
pub fn largest(embeddings: &Output) -> Option<&[f32]> {
    embeddings.data.chunks_exact(*embeddings.shape.get(1)?).next()
}

pub(super) fn aps(features: &FeatureSet) -> MetricResult {
    let Some(AttributeInputs { probes, targets }) = features.attributes() else {
        return Err(NullReason::NeedsDataset);
    };
    let face = largest(features.get(FeatureSource::Faces, Input::Image, EMBEDDING));
    let predictions = probes.predict(face, targets);
    let value = share_right(&predictions).ok_or(NullReason::NoAttributes)?;
    let flags = if face.is_none() { vec![Flag::NoFaceInImage] } else { Vec::new() };
    Ok(Score { value, flags, explanation: Explanation::Predictions(predictions) })
}

/// A sample of a run.
#[derive(Debug, Clone, Copy)]
pub struct RunRow<'a> {
    /// Embedding of the largest face in the generated image; `None` if it has no face.
    pub image: Option<&'a [f32]>,
    /// Embedding of the largest face in the reference image; `None` if it has no face.
    pub reference: Option<&'a [f32]>,
    /// Attribute labels of the person.
    pub attributes: &'a BTreeMap<String, bool>,
    /// Kind of the prompt, if it has one: each is a benchmark with probes of its own.
    pub prompt_kind: Option<&'a str>,
}

/// Result for one attribute over a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AttributeSummary {
    /// CelebA name of the attribute.
    pub attribute: String,
    /// Area under the ROC curve of the hard predictions; null if the attribute is left out or all
    /// targets are equal.
    pub auc: Option<f64>,
    /// Samples with a target.
    pub n: usize,
    /// Samples with a target whose person has the attribute.
    pub positives: usize,
    /// Samples with a target that are predicted correctly.
    pub right: usize,
    /// Reason why the attribute does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOut>,
}

/// Attribute preservation of a whole run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunAttributes {
    /// Mean area over the attributes that have one.
    pub auc: Option<f64>,
    /// Results by attribute.
    pub attributes: Vec<AttributeSummary>,
    /// Predictions for each sample, in the order of the rows.
    pub predictions: Vec<Vec<AttributePrediction>>,
    /// Rows whose reference image has no face. They are not used in the fit.
    pub faceless_references: usize,
}

/// Evaluates attribute preservation like the toolkit: the probes are fitted on the reference images
/// of the run itself, one row per sample, so that an image counts once for each of its prompts.
///
/// Rows of each kind of prompt have probes of their own. The predictions for Stellar-T are thus the
/// same whether or not the run has prompts of Stellar-H too. The summaries are over all rows.
///
/// # Errors
/// Fails if the embeddings differ in width or have a number that is not finite.
pub fn evaluate(rows: &[RunRow<'_>]) -> Result<RunAttributes, LogisticError> {
    let mut kinds: BTreeMap<Option<&str>, Vec<usize>> = BTreeMap::new();
    for (at, row) in rows.iter().enumerate() {
        kinds.entry(row.prompt_kind).or_default().push(at);
    }
    let mut predictions = vec![Vec::new(); rows.len()];
    // Why an attribute has no probe for any kind; `None` once it has one.
    let mut left_out: BTreeMap<&'static str, Option<LeftOut>> = BTreeMap::new();
    for places in kinds.into_values() {
        let probes = fit(places.iter().map(|&at| &rows[at]))?;
        for (attribute, probe) in &probes.0 {
            let reason = probe.as_ref().err().copied();
            let known = left_out.entry(*attribute).or_insert(reason);
            *known = known.and(reason);
        }
        for at in places {
            predictions[at] = probes.predict(rows[at].image, rows[at].attributes);
        }
    }
    if left_out.is_empty() {
        let probes = Probes::fit(&[])?;
        left_out.extend(probes.0.iter().map(|(name, of)| (*name, of.as_ref().err().copied())));
    }
    let attributes: Vec<_> = left_out
        .into_iter()
        .map(|(attribute, left_out)| {
            let items = predictions.iter().flatten().filter(|item| item.attribute == *attribute);
            let pairs: Vec<(bool, bool)> =
                items.clone().filter_map(|item| Some((item.target?, item.prediction?))).collect();
            let targets: Vec<bool> = pairs.iter().map(|(target, _)| *target).collect();
            let answers: Vec<f64> =
                pairs.iter().map(|(_, answer)| if *answer { 1.0 } else { -1.0 }).collect();
            let with_target = items.filter_map(|item| item.target);
            AttributeSummary {
                attribute: attribute.to_owned(),
                auc: roc_auc(&answers, &targets),
                n: with_target.clone().count(),
                positives: with_target.filter(|target| *target).count(),
                right: pairs.iter().filter(|(target, answer)| target == answer).count(),
                left_out,
            }
        })
        .collect();
    let areas: Vec<f64> = attributes.iter().filter_map(|attribute| attribute.auc).collect();
    Ok(RunAttributes {
        auc: (!areas.is_empty()).then(|| areas.iter().sum::<f64>() / areas.len() as f64),
        attributes,
        predictions,
        faceless_references: rows.iter().filter(|row| row.reference.is_none()).count(),
    })
}

/// Fits probes on reference images. Equal images with equal labels are one row with a weight: the
/// optimum is the same, with less work.
fn fit<'a>(rows: impl Iterator<Item = &'a RunRow<'a>>) -> Result<Probes, LogisticError> {
    let mut faces: BTreeMap<(Vec<u32>, &BTreeMap<String, bool>), LabelledFace<'_>> =
        BTreeMap::new();
    for row in rows {
        let Some(embedding) = row.reference else { continue };
        let key = (embedding.iter().map(|value| value.to_bits()).collect(), row.attributes);
        let fresh = LabelledFace { embedding, attributes: row.attributes, weight: 0.0 };
        faces.entry(key).or_insert(fresh).weight += 1.0;
    }
    Probes::fit(&faces.into_values().collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{metrics::ATTRIBUTES, tensor::Features};

    fn labels(labels: &[(&str, bool)]) -> BTreeMap<String, bool> {
        labels.iter().map(|(name, label)| ((*name).to_owned(), *label)).collect()
    }

    fn probes() -> Probes {
        let people = [
            ([2.0, 0.1], labels(&[("Young", true), ("Male", true)])),
            ([1.5, -0.2], labels(&[("Young", true), ("Male", true)])),
            ([-2.0, 0.3], labels(&[("Young", false), ("Male", true), ("Bald", true)])),
        ];
        let faces: Vec<_> = people
            .iter()
            .map(|(embedding, attributes)| LabelledFace { embedding, attributes, weight: 1.0 })
            .collect();
        Probes::fit(&faces).unwrap()
    }

    fn sample(face: &[f32], targets: &[(&str, bool)]) -> FeatureSet {
        let embedding = Output { shape: vec![face.len() / 2, 2], data: face.to_vec() };
        let mut set = FeatureSet::new(0).with_attributes(AttributeInputs {
            probes: Arc::new(probes()),
            targets: labels(targets),
        });
        set.insert(
            FeatureSource::Faces,
            Input::Image,
            Arc::new(Features::new(vec![(EMBEDDING.into(), embedding)])),
        );
        set
    }

    #[test]
    fn attributes_without_two_kinds_or_without_a_target_are_left_out_with_a_reason() {
        let score = aps(&sample(
            &[3.0, 0.0, -3.0, 0.0],
            &[("Young", true), ("Male", true), ("Big_Nose", true)],
        ))
        .unwrap();
        assert!((score.value - 1.0).abs() < 1e-12, "the largest face decides");
        let found = score.predictions();
        let of = |name: &str| found.iter().find(|item| item.attribute == name).unwrap();
        assert_eq!((of("Young").prediction, of("Young").left_out), (Some(true), None));
        assert!(of("Young").decision.unwrap() > 0.0);
        assert_eq!(of("Male").left_out, Some(LeftOut::Constant));
        assert_eq!(of("Big_Nose").left_out, Some(LeftOut::Unlabelled));
        assert_eq!(of("Big_Lips").left_out, Some(LeftOut::NoTarget));
        assert_eq!(found.len(), ATTRIBUTES.len(), "Bald is not one of them");
    }

    #[test]
    fn a_wrong_prediction_is_0_and_so_is_an_image_without_a_face() {
        let wrong = aps(&sample(&[-3.0, 0.0], &[("Young", true)])).unwrap();
        assert!(wrong.value.abs() < 1e-12 && wrong.flags.is_empty());
        for target in [true, false] {
            let faceless = aps(&sample(&[], &[("Young", target)])).unwrap();
            assert!(faceless.value.abs() < 1e-12);
            assert_eq!(faceless.flags, [Flag::NoFaceInImage]);
            let item =
                faceless.predictions().iter().find(|item| item.attribute == "Young").unwrap();
            assert_eq!((item.prediction, item.decision), (Some(!target), None));
        }
    }

    #[test]
    fn without_a_usable_attribute_or_dataset_the_score_is_null() {
        assert_eq!(
            aps(&sample(&[1.0, 0.0], &[("Male", true)])).unwrap_err(),
            NullReason::NoAttributes
        );
        assert_eq!(aps(&sample(&[], &[])).unwrap_err(), NullReason::NoAttributes);
        assert_eq!(aps(&FeatureSet::new(0)).unwrap_err(), NullReason::NeedsDataset);
    }

    #[test]
    fn a_run_fits_its_reference_images_and_counts_each_once_per_prompt() {
        let (young, old) = (labels(&[("Young", true)]), labels(&[("Young", false)]));
        let row = |image, reference, attributes| RunRow {
            image,
            reference,
            attributes,
            prompt_kind: None,
        };
        let rows = [
            row(Some(&[1.0, 0.0][..]), Some(&[1.0, 0.5][..]), &young),
            row(Some(&[-1.0, 0.0][..]), Some(&[1.0, 0.5][..]), &young),
            row(Some(&[-2.0, 0.0][..]), Some(&[-1.0, 0.5][..]), &old),
            row(None, None, &old),
        ];
        let run = evaluate(&rows).unwrap();
        let of_young =
            run.attributes.iter().find(|attribute| attribute.attribute == "Young").unwrap();
        assert_eq!((of_young.n, of_young.positives, of_young.right), (4, 2, 2));
        // Predicted: +, −, −, and + for the image without a face.
        assert!((of_young.auc.unwrap() - 0.5).abs() < 1e-12);
        assert_eq!(run.auc, of_young.auc);
        assert_eq!(run.faceless_references, 1);
        assert_eq!(share_right(&run.predictions[0]), Some(1.0));
        assert_eq!(share_right(&run.predictions[3]), Some(0.0));

        let faces = [(&[1.0, 0.5], &young), (&[1.0, 0.5], &young), (&[-1.0, 0.5], &old)]
            .map(|(embedding, attributes)| LabelledFace { embedding, attributes, weight: 1.0 });
        let repeated = Probes::fit(&faces).unwrap().predict(Some(&[1.0, 0.0]), &young);
        let decision = |items: &[AttributePrediction]| {
            items.iter().find(|item| item.attribute == "Young").unwrap().decision.unwrap()
        };
        assert!((decision(&run.predictions[0]) - decision(&repeated)).abs() < 1e-7);
    }

    #[test]
    fn each_kind_of_prompt_has_the_predictions_of_a_run_of_its_own() {
        let (young, old) = (labels(&[("Young", true)]), labels(&[("Young", false)]));
        let row = |image, reference, attributes, kind| RunRow {
            image: Some(image),
            reference: Some(reference),
            attributes,
            prompt_kind: Some(kind),
        };
        let all = [
            row(&[0.4, 0.1][..], &[1.0, 0.5][..], &young, "T"),
            row(&[0.2, 0.3][..], &[0.9, -0.5][..], &young, "H"),
            row(&[-0.3, 0.2][..], &[-1.0, 0.5][..], &old, "T"),
            row(&[-0.1, 0.9][..], &[2.0, 0.3][..], &old, "H"),
            row(&[0.1, 0.2][..], &[0.2, 0.1][..], &old, "T"),
        ];
        let run = evaluate(&all).unwrap();
        for kind in ["T", "H"] {
            let is = |row: &&RunRow<'_>| row.prompt_kind == Some(kind);
            let own: Vec<RunRow<'_>> = all.iter().filter(is).copied().collect();
            let part = all.iter().zip(&run.predictions).filter(|(row, _)| is(row));
            let part: Vec<_> = part.map(|(_, predictions)| predictions.clone()).collect();
            assert_eq!(part, evaluate(&own).unwrap().predictions, "{kind}");
        }
        let pooled: Vec<RunRow<'_>> =
            all.iter().map(|row| RunRow { prompt_kind: None, ..*row }).collect();
        assert_ne!(run.predictions, evaluate(&pooled).unwrap().predictions);
    }

    #[test]
    fn embeddings_of_different_widths_are_rejected() {
        let young = labels(&[("Young", true)]);
        let face = |embedding| LabelledFace { embedding, attributes: &young, weight: 1.0 };
        assert_eq!(
            Probes::fit(&[face(&[1.0]), face(&[1.0, 2.0])]).unwrap_err(),
            LogisticError::Features
        );
    }
}
