//! The CLIP family: prompt adherence, resemblance to the reference image, and the aesthetic
//! predictor.
//!
//! The pack's graphs return projected, L2-normalised embeddings. As in the toolkit, the cosine is
//! reported without logit scale and without a clamp at 0.

use super::{
    FeatureSet, FeatureSource, Input, Score,
    vector::{EMBEDDING, cosine, image_references, mean_over_references, text_image},
};

/// The image tower of the pack's CLIP.
pub(super) const IMAGE: FeatureSource = FeatureSource::Image("clip.image");
/// The text tower of the pack's CLIP.
pub(super) const TEXT: FeatureSource = FeatureSource::Text("clip.text");
/// The image tower of `openai/clip-vit-large-patch14` with the aesthetic head folded in.
pub(super) const AESTHETIC: FeatureSource = FeatureSource::Image("clip_l.image");

/// cos(text(prompt), image(generated)).
pub(super) fn clip_t(features: &FeatureSet) -> Score {
    text_image(features, TEXT, IMAGE)
}

/// cos(image(reference), image(generated)), averaged over the reference images.
pub(super) fn clip_i(features: &FeatureSet) -> Score {
    image_references(features, IMAGE, cosine)
}

/// cos(text(prompt), image(reference)), averaged over the reference images: the fit of the
/// reference image itself to the prompt.
pub(super) fn clip_n(features: &FeatureSet) -> Score {
    let prompt = &features.get(TEXT, Input::Prompt, EMBEDDING).data;
    let score = mean_over_references(features, IMAGE, |reference| cosine(prompt, reference));
    Score { flags: features.prompt_flags(TEXT), ..score }
}

/// Output of the aesthetic head. Its five linear layers without activations are one affine map of
/// the embedding, which the exporter folds into the graph.
pub(super) fn aesthetic(features: &FeatureSet) -> Score {
    f64::from(features.get(AESTHETIC, Input::Image, "aesthetic").data[0]).into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        metrics::Flag,
        tensor::{Features, Output},
    };

    fn vector(data: &[f32]) -> Arc<Features> {
        let embedding = Output { shape: vec![data.len()], data: data.to_vec() };
        Arc::new(Features::new(vec![(EMBEDDING.into(), embedding)]))
    }

    fn sample() -> FeatureSet {
        let mut features = FeatureSet::new(2);
        features.insert(IMAGE, Input::Image, vector(&[1.0, 0.0]));
        features.insert(TEXT, Input::Prompt, vector(&[0.6, 0.8]));
        features.insert(IMAGE, Input::Reference(0), vector(&[0.0, 1.0]));
        features.insert(IMAGE, Input::Reference(1), vector(&[1.0, 0.0]));
        features
    }

    #[test]
    fn scores_are_cosines_and_references_are_averaged() {
        let features = sample();
        assert!((clip_t(&features).value - 0.6).abs() < 1e-7);
        assert!((clip_i(&features).value - 0.5).abs() < 1e-7);
        assert!((clip_n(&features).value - 0.7).abs() < 1e-7);
    }

    #[test]
    fn a_cut_prompt_is_flagged_where_the_prompt_is_read() {
        let mut features = sample();
        features.note_prompt_cut(TEXT);
        assert_eq!(clip_t(&features).flags, [Flag::Truncated]);
        assert_eq!(clip_n(&features).flags, [Flag::Truncated]);
        assert!(clip_i(&features).flags.is_empty());
    }
}
