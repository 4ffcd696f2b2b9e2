//! Resemblance of images as a whole: DreamSim and DINO.

use super::{
    FeatureSet, FeatureSource, Score,
    vector::{cosine, image_references},
};

/// The ensemble of three ViT-B/16, LoRA merged; embeddings are mean-centred and normalised in the
/// graph.
pub(super) const DREAMSIM: FeatureSource = FeatureSource::Image("dreamsim.image");
/// DINO ViT-S/16; the embedding is the normalised CLS token.
pub(super) const DINO: FeatureSource = FeatureSource::Image("dino.image");

/// 1 − cosine of the mean-centred DreamSim embeddings, averaged over the reference images.
pub(super) fn dreamsim(features: &FeatureSet) -> Score {
    image_references(features, DREAMSIM, |image, reference| 1.0 - cosine(image, reference))
}

/// Cosine of the DINO CLS tokens, averaged over the reference images.
pub(super) fn dino(features: &FeatureSet) -> Score {
    image_references(features, DINO, cosine)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        metrics::{Input, vector::EMBEDDING},
        tensor::{Features, Output},
    };

    #[test]
    fn the_same_image_has_distance_zero_and_similarity_one() {
        for (source, metric, expected) in
            [(DREAMSIM, dreamsim as fn(&_) -> Score, 0.0), (DINO, dino, 1.0)]
        {
            let embedding = Output { shape: vec![2], data: vec![0.6, -0.8] };
            let same = Arc::new(Features::new(vec![(EMBEDDING.into(), embedding)]));
            let mut set = FeatureSet::new(1);
            set.insert(source, Input::Image, Arc::clone(&same));
            set.insert(source, Input::Reference(0), same);
            assert!((metric(&set).value - expected).abs() < 1e-7, "{source:?}");
        }
    }
}
