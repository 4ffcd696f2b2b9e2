//! Objects of the prompt in the image: OWL-ViT searches for each label, and the labels of one image
//! compete.
//!
//! The feature of an image is the logit of every label in every box. As in the toolkit, each box
//! counts only for the label that fits it best.

use std::cmp::Ordering;

use super::{
    Explanation, FeatureSet, FeatureSource, Flag, Input, MetricResult, NullReason, ObjectScore,
    Score, SkipReason, Skipped,
};
use crate::text::relations::is_role;

/// Splits detectables into those to find and those to skip. Duplicates are detected later, by their
/// tokens.
#[must_use]
pub fn choose(detectables: &[String]) -> (Vec<&String>, Vec<Skipped>) {
    let mut skipped = Vec::new();
    let mut chosen = Vec::new();
    for text in detectables {
        let why = if text.chars().all(|c| c.is_whitespace() || c.is_control()) {
            Some(SkipReason::Empty)
        } else {
            is_role(text).then_some(SkipReason::Role)
        };
        match why {
            Some(why) => skipped.push(Skipped { text: text.clone(), why }),
            None => chosen.push(text),
        }
    }
    (chosen, skipped)
}

/// Mean over the labels of the sigmoid of the largest logit among the boxes that the label wins.
pub(super) fn goa(features: &FeatureSet) -> MetricResult {
    let objects = features.objects();
    if objects.labels.is_empty() {
        return Err(NullReason::NoDetectables);
    }
    let logits = features.get(FeatureSource::Objects, Input::Objects, "logits");
    let boxes =
        features.get(FeatureSource::Objects, Input::Objects, "boxes").data.as_chunks::<4>().0;
    // Further columns are phrases of relations and padding, which do not compete with labels.
    let columns = logits.shape[1];
    let mut best: Vec<Option<(f32, usize)>> = vec![None; objects.labels.len()];
    for (at, row) in logits.data.chunks_exact(columns).enumerate() {
        let Some((label, logit)) = winner(&row[..objects.labels.len()]) else { continue };
        if best[label].is_none_or(|(most, _)| logit > most) {
            best[label] = Some((logit, at));
        }
    }
    let found: Vec<ObjectScore> = objects
        .labels
        .iter()
        .zip(best)
        .map(|(label, best)| ObjectScore {
            label: label.text.clone(),
            score: best.map_or(0.0, |(logit, _)| sigmoid(logit)),
            corners: best.and_then(|(_, at)| boxes.get(at)).map(|b| corners(*b, objects.size)),
            truncated: label.truncated,
        })
        .collect();
    let mean = found.iter().map(|object| object.score).sum::<f64>() / found.len() as f64;
    let flags = if found.iter().any(|object| object.truncated) {
        vec![Flag::Truncated]
    } else {
        Vec::new()
    };
    Ok(Score { value: mean, flags, explanation: Explanation::Objects(found) })
}

/// Returns the largest logit and its index, the first of equals.
fn winner(logits: &[f32]) -> Option<(usize, f32)> {
    let first_largest = |a: &(usize, f32), b: &(usize, f32)| match a.1.total_cmp(&b.1) {
        Ordering::Equal => Ordering::Greater,
        other => other,
    };
    logits.iter().copied().enumerate().max_by(first_largest)
}

pub(super) fn sigmoid(logit: f32) -> f64 {
    1.0 / (1.0 + (-f64::from(logit)).exp())
}

/// Converts centre, width and height as shares of the image to left, top, right, bottom in pixels.
pub(super) fn corners([x, y, width, height]: [f32; 4], size: (u32, u32)) -> [f64; 4] {
    let (columns, rows) = (f64::from(size.0), f64::from(size.1));
    let side =
        |centre: f32, length: f32, sign: f64| f64::from(centre) + sign * f64::from(length) / 2.0;
    [
        side(x, width, -1.0) * columns,
        side(y, height, -1.0) * rows,
        side(x, width, 1.0) * columns,
        side(y, height, 1.0) * rows,
    ]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::metrics::{Label, Objects};
    use crate::tensor::{Features, Output};

    fn set(labels: &[&str], columns: usize, logits: &[f32]) -> FeatureSet {
        let rows = logits.len() / columns;
        let boxes: Vec<f32> =
            (0..rows).flat_map(|at| [0.5, 0.25, 0.5 / (at + 1) as f32, 0.5]).collect();
        let output = |shape: Vec<usize>, data: Vec<f32>| Output { shape, data };
        let label = |text: &&str| Label { text: (*text).to_owned(), truncated: text.len() > 20 };
        let labels = labels.iter().map(label).collect();
        let mut set = FeatureSet::new(0).with_objects(Arc::new(Objects {
            labels,
            size: (200, 100),
            ..Objects::default()
        }));
        let features = Features::new(vec![
            ("logits".into(), output(vec![rows, columns], logits.to_vec())),
            ("boxes".into(), output(vec![rows, 4], boxes)),
        ]);
        set.insert(FeatureSource::Objects, Input::Objects, Arc::new(features));
        set
    }

    fn found(score: &Score) -> &[ObjectScore] {
        let Explanation::Objects(found) = &score.explanation else { panic!("{score:?}") };
        found
    }

    #[test]
    fn every_box_counts_for_its_best_label_and_padding_for_none() {
        // Three boxes; the padding column is the largest everywhere.
        let logits = [2.0, 1.0, 9.0, 0.5, 0.0, 9.0, -1.0, -0.5, 9.0];
        let score = goa(&set(&["dog", "cat"], 3, &logits)).unwrap();
        let [dog, cat] = found(&score) else { panic!("two labels") };
        assert!((dog.score - 1.0 / (1.0 + (-2.0_f64).exp())).abs() < 1e-9);
        assert!((cat.score - 1.0 / (1.0 + 0.5_f64.exp())).abs() < 1e-9, "1.0 lost against dog");
        assert!((score.value - f64::midpoint(dog.score, cat.score)).abs() < 1e-12);
        assert_eq!(dog.corners, Some([50.0, 0.0, 150.0, 50.0]));
        assert!(score.flags.is_empty());
    }

    #[test]
    fn a_label_that_wins_no_box_scores_0() {
        let score =
            goa(&set(&["dog", "a label that is longer than the text model reads"], 2, &[1.0, 0.0]));
        let score = score.unwrap();
        assert_eq!((found(&score)[1].score, found(&score)[1].corners), (0.0, None));
        assert_eq!(score.flags, [Flag::Truncated]);
    }

    #[test]
    fn no_labels_give_null() {
        assert_eq!(goa(&set(&[], 1, &[])).unwrap_err(), NullReason::NoDetectables);
    }

    #[test]
    fn roles_and_blanks_are_left_out_whatever_their_case() {
        let given =
            ["Clown", " dj ", "EGYPTIAN  pharaoh", "", " \n\u{7}", "skis", "Skis", "king crab"];
        let given: Vec<String> = given.map(str::to_owned).to_vec();
        let (chosen, skipped) = choose(&given);
        assert_eq!(chosen, ["skis", "Skis", "king crab"]);
        let why: Vec<_> = skipped.iter().map(|skipped| skipped.why).collect();
        assert_eq!(
            why,
            [
                SkipReason::Role,
                SkipReason::Role,
                SkipReason::Role,
                SkipReason::Empty,
                SkipReason::Empty
            ]
        );
    }
}
