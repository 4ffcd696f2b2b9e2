//! Compares embeddings in f64, so that rounding here does not affect a score.

use super::{FeatureSet, FeatureSource, Input, Score};

/// Name of the output that every tower has.
pub(super) const EMBEDDING: &str = "embedding";

/// cos(text(prompt), image(generated)) between the towers of one model.
pub(super) fn text_image(
    features: &FeatureSet,
    text: FeatureSource,
    image: FeatureSource,
) -> Score {
    let prompt = &features.get(text, Input::Prompt, EMBEDDING).data;
    let embedding = &features.get(image, Input::Image, EMBEDDING).data;
    Score { flags: features.prompt_flags(text), ..cosine(prompt, embedding).into() }
}

/// Mean over the reference images of `compare(embedding of the image, embedding of the reference)`.
pub(super) fn image_references(
    features: &FeatureSet,
    source: FeatureSource,
    compare: impl Fn(&[f32], &[f32]) -> f64,
) -> Score {
    let image = &features.get(source, Input::Image, EMBEDDING).data;
    mean_over_references(features, source, |reference| compare(image, reference))
}

/// Mean over the reference images of a function of their embeddings.
pub(super) fn mean_over_references(
    features: &FeatureSet,
    source: FeatureSource,
    value: impl Fn(&[f32]) -> f64,
) -> Score {
    let values: Vec<f64> =
        features.references(source, EMBEDDING).map(|embedding| value(&embedding.data)).collect();
    mean(&values).into()
}

/// Cosine of the angle between two vectors, in [-1, 1].
///
/// Each norm is at least 1e-8, as in `torch.nn.functional.cosine_similarity`, which the toolkit
/// uses: a zero vector gives 0 rather than NaN.
pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    debug_assert_eq!(a.len(), b.len(), "embeddings of one space have one width");
    let dot = |x: &[f32], y: &[f32]| {
        x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>()
    };
    let norm = |x: &[f32]| dot(x, x).sqrt().max(1e-8);
    dot(a, b) / (norm(a) * norm(b))
}

/// Arithmetic mean; callers pass at least one value.
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosine_ignores_length_and_keeps_sign() {
        assert!((cosine(&[2.0, 0.0], &[5.0, 0.0]) - 1.0).abs() < 1e-15);
        assert!((cosine(&[1.0, 1.0], &[-3.0, -3.0]) + 1.0).abs() < 1e-15);
        assert!(cosine(&[1.0, 0.0], &[0.0, 1.0]).abs() < 1e-15);
    }

    #[test]
    fn cosine_of_a_zero_vector_is_zero_as_in_torch() {
        assert!(cosine(&[0.0, 0.0], &[1.0, 0.0]).abs() < 1e-15);
    }

    #[test]
    fn mean_of_one_value_is_the_value() {
        assert!((mean(&[0.25]) - 0.25).abs() < 1e-15);
    }
}
