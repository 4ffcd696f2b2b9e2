//! Models of human preference: HPSv1, HPSv2, PickScore and ImageReward.

use super::{Explanation, FeatureSet, FeatureSource, Input, Score, vector::text_image};

/// The towers of HPSv1: openai ViT-L/14, fine-tuned.
pub(super) const HPSV1_IMAGE: FeatureSource = FeatureSource::Image("hpsv1.image");
/// See [`HPSV1_IMAGE`].
pub(super) const HPSV1_TEXT: FeatureSource = FeatureSource::Text("hpsv1.text");
/// The towers of HPSv2: open_clip ViT-H/14, fine-tuned; its version is in the pack's source.
pub(super) const HPSV2_IMAGE: FeatureSource = FeatureSource::Image("hpsv2.image");
/// See [`HPSV2_IMAGE`].
pub(super) const HPSV2_TEXT: FeatureSource = FeatureSource::Text("hpsv2.text");
/// The towers of PickScore: CLIP ViT-H/14, fine-tuned.
pub(super) const PICK_IMAGE: FeatureSource = FeatureSource::Image("pick.image");
/// See [`PICK_IMAGE`].
pub(super) const PICK_TEXT: FeatureSource = FeatureSource::Text("pick.text");
/// BLIP's text encoder over the image's tokens, with ImageReward's head and normalisation folded
/// in.
pub(super) const IMAGE_REWARD: FeatureSource =
    FeatureSource::Joint { image: "image_reward.image", score: "image_reward.score" };

/// Cosine of HPSv1's embeddings of prompt and image; no logit scale.
pub(super) fn hpsv1(features: &FeatureSet) -> Score {
    text_image(features, HPSV1_TEXT, HPSV1_IMAGE)
}

/// Cosine of HPSv2's embeddings of prompt and image; no logit scale, as published.
pub(super) fn hpsv2(features: &FeatureSet) -> Score {
    text_image(features, HPSV2_TEXT, HPSV2_IMAGE)
}

/// Cosine of PickScore's embeddings of prompt and image, as the toolkit reports it.
///
/// The authors publish the cosine times the model's logit scale (about 100). That value is
/// in the explanation.
pub(super) fn pick_score(features: &FeatureSet) -> Score {
    let mut score = text_image(features, PICK_TEXT, PICK_IMAGE);
    if let Some(scale) = features.find(PICK_TEXT, Input::Prompt, "logit_scale") {
        let published = score.value * f64::from(scale.data[0]);
        score.explanation = Explanation::Detail("published_scale", published);
    }
    score
}

/// ImageReward's reward, normalised by the mean and standard deviation that its authors publish.
pub(super) fn image_reward(features: &FeatureSet) -> Score {
    let reward = features.get(IMAGE_REWARD, Input::ImageWithPrompt, "reward").data[0];
    Score { flags: features.prompt_flags(IMAGE_REWARD), ..f64::from(reward).into() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        metrics::{Flag, vector::EMBEDDING},
        tensor::{Features, Output},
    };

    fn features(outputs: &[(&str, &[f32])]) -> Arc<Features> {
        let output = |(name, data): &(&str, &[f32])| {
            ((*name).into(), Output { shape: vec![data.len()], data: data.to_vec() })
        };
        Arc::new(Features::new(outputs.iter().map(output).collect()))
    }

    #[test]
    fn pick_score_is_the_plain_cosine_with_the_published_value_as_explanation() {
        let mut set = FeatureSet::new(0);
        set.insert(PICK_IMAGE, Input::Image, features(&[(EMBEDDING, &[1.0, 0.0])]));
        set.insert(
            PICK_TEXT,
            Input::Prompt,
            features(&[(EMBEDDING, &[0.6, 0.8]), ("logit_scale", &[100.0])]),
        );
        let score = pick_score(&set);
        assert!((score.value - 0.6).abs() < 1e-7);
        let Explanation::Detail("published_scale", published) = score.explanation else {
            panic!("{:?}", score.explanation)
        };
        assert!((published - 60.0).abs() < 1e-5);
    }

    #[test]
    fn image_reward_is_flagged_if_the_prompt_exceeds_35_tokens() {
        let mut set = FeatureSet::new(0);
        set.insert(IMAGE_REWARD, Input::ImageWithPrompt, features(&[("reward", &[-1.5])]));
        assert!(image_reward(&set).flags.is_empty());
        set.note_prompt_cut(IMAGE_REWARD);
        assert_eq!(image_reward(&set).flags, [Flag::Truncated]);
        assert!((image_reward(&set).value + 1.5).abs() < 1e-7);
    }
}
