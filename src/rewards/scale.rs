//! Named scales: what a project's reward of this name is, as a function of a metric's score.

use crate::engine::Pack;
use crate::metrics::{self, Explanation, Metric, Score};
use crate::pack_id::Weights;

/// Factor of CLIP's cosine in the logits of `openai/clip-vit-large-patch14`: the exponential of its
/// `logit_scale`, which its training clips at 100.
const CLIP_L_LOGIT_SCALE: f64 = 100.0;

/// A reward as requested: `metric` or `metric@scale`.
#[derive(Debug, Clone)]
pub struct Reward {
    /// Name in requests and responses.
    pub name: String,
    /// The metric.
    pub metric: &'static Metric,
    /// The scale; `None` is the metric's own value.
    pub scale: Option<&'static Scale>,
}

/// A scale of one metric.
#[derive(Debug, PartialEq)]
pub struct Scale {
    /// Code of the metric.
    pub metric: &'static str,
    /// Name after the `@`.
    pub name: &'static str,
    /// What is computed, for people; `s` is the metric's score.
    pub formula: &'static str,
    /// Project, file and commit that the formula is from.
    pub source: &'static str,
    /// The graph whose checkpoint the scale needs, and a part of the checkpoint's name; `None` if
    /// every checkpoint of the metric will do.
    pub model: Option<(&'static str, &'static str)>,
    apply: Apply,
}

/// How a score becomes a reward.
#[derive(Debug, PartialEq)]
enum Apply {
    /// `factor * s + offset`.
    Affine { factor: f64, offset: f64 },
    /// The cosine times the model's logit scale, divided by a number.
    Logits { divisor: f64 },
}

/// Reason why a reward cannot be computed with the loaded pack, or does not exist.
#[derive(Debug, thiserror::Error)]
pub enum RewardError {
    /// The metric does not exist.
    #[error(transparent)]
    Metric(#[from] metrics::ListError),
    /// The metric has no scale of this name.
    #[error("`{metric}` has no scale `{scale}`: {known}")]
    Scale {
        /// Code of the metric.
        metric: &'static str,
        /// The unknown scale.
        scale: String,
        /// The scales of the metric, or that it has none.
        known: String,
    },
    /// The scale belongs to another checkpoint than the pack's.
    #[error(
        "`{reward}` is defined for the checkpoint `{wanted}`, and the pack has `{found}`: its numbers \
            would be others. Load a pack with that checkpoint, or request another scale"
    )]
    Model {
        /// Name of the reward.
        reward: String,
        /// The checkpoint that the scale is defined for.
        wanted: &'static str,
        /// The checkpoint in the pack.
        found: String,
    },
}

const fn affine(factor: f64, offset: f64) -> Apply {
    Apply::Affine { factor, offset }
}

const FLOW_GRPO: &str = "yifan123/flow_grpo, flow_grpo/rewards.py @ 54809b5";
const DANCE_GRPO: &str = "XueZeyue/DanceGRPO @ 15cc71d";

/// Every scale.
pub static SCALES: &[Scale] = &[
    Scale {
        metric: "pick_score",
        name: "flow_grpo",
        formula: "exp(logit_scale) · s / 26",
        source: FLOW_GRPO,
        model: Some(("pick.image", "PickScore_v1")),
        apply: Apply::Logits { divisor: 26.0 },
    },
    Scale {
        metric: "pick_score",
        name: "dance_grpo",
        formula: "s",
        source: DANCE_GRPO,
        model: Some(("pick.image", "PickScore_v1")),
        apply: affine(1.0, 0.0),
    },
    Scale {
        metric: "pick_score",
        name: "raw",
        formula: "exp(logit_scale) · s",
        source: "Kirstain et al. 2023, arXiv 2305.01569",
        model: Some(("pick.image", "PickScore_v1")),
        apply: Apply::Logits { divisor: 1.0 },
    },
    Scale {
        metric: "hpsv2",
        name: "v2.1",
        formula: "s",
        source: "tgxs002/HPSv2 v2.1; flow_grpo/hpsv2_scorer.py @ 94e23ee",
        model: Some(("hpsv2.image", "v2.1")),
        apply: affine(1.0, 0.0),
    },
    Scale {
        metric: "hpsv2",
        name: "v2.0",
        formula: "s",
        source: "tgxs002/HPSv2 v2.0",
        model: Some(("hpsv2.image", "v2.0")),
        apply: affine(1.0, 0.0),
    },
    Scale {
        metric: "clip_t",
        name: "flow_grpo",
        formula: "100 · s / 30",
        source: FLOW_GRPO,
        model: Some(("clip.image", "openai/clip-vit-large-patch14")),
        apply: affine(CLIP_L_LOGIT_SCALE / 30.0, 0.0),
    },
    Scale {
        metric: "image_reward",
        name: "raw",
        formula: "s",
        source: "THUDM/ImageReward v1.0",
        model: None,
        apply: affine(1.0, 0.0),
    },
    Scale {
        metric: "image_reward",
        name: "unit",
        formula: "(s + 2) / 4",
        source: "Tencent-Hunyuan/UniRL @ 1a7b501",
        model: None,
        apply: affine(0.25, 0.5),
    },
    Scale {
        metric: "aesthetic",
        name: "raw",
        formula: "s",
        source: "Schuhmann 2022, improved-aesthetic-predictor (sac+logos+ava1-l14-linearMSE)",
        model: None,
        apply: affine(1.0, 0.0),
    },
    Scale {
        metric: "aesthetic",
        name: "tenth",
        formula: "s / 10",
        source: "verl-project/verl-omni, verl_omni/utils/reward_score @ 0ef63e5",
        model: None,
        apply: affine(0.1, 0.0),
    },
    Scale {
        metric: "dreamsim",
        name: "negated",
        formula: "-s",
        source: "a distance as a reward: larger is better",
        model: None,
        apply: affine(-1.0, 0.0),
    },
];

impl Reward {
    /// Parses `metric` or `metric@scale`.
    ///
    /// # Errors
    /// The metric or the scale does not exist; the message lists those that do.
    pub fn parse(name: &str) -> Result<Self, RewardError> {
        let (code, scale) = match name.split_once('@') {
            Some((code, scale)) => (code, Some(scale)),
            None => (name, None),
        };
        let metric = metrics::find(code).ok_or_else(|| metrics::ListError::unknown(code))?;
        let scale = scale.map(|scale| {
            let mut of_metric = SCALES.iter().filter(|each| each.metric == metric.code);
            of_metric.find(|each| each.name == scale).ok_or_else(|| {
                let names: Vec<_> = SCALES
                    .iter()
                    .filter(|each| each.metric == metric.code)
                    .map(|each| format!("{code}@{}", each.name))
                    .collect();
                let known = if names.is_empty() {
                    format!("its only scale is its own value, `{code}`")
                } else {
                    format!("its scales are {}, and `{code}` for its own value", names.join(", "))
                };
                let scale = scale.chars().take(80).collect();
                RewardError::Scale { metric: metric.code, scale, known }
            })
        });
        Ok(Self { name: name.to_owned(), metric, scale: scale.transpose()? })
    }

    /// Checks that the pack has the checkpoint that the scale is defined for. Demo packs stand in
    /// for every checkpoint.
    ///
    /// # Errors
    /// The pack has another one.
    pub fn check(&self, pack: &Pack) -> Result<(), RewardError> {
        let Some((role, wanted)) = self.scale.and_then(|scale| scale.model) else { return Ok(()) };
        // Without the graph the reward is null, with its reason.
        let Some(graph) = pack.graph(role) else { return Ok(()) };
        if pack.weights == Weights::Demo || graph.source.checkpoint.contains(wanted) {
            return Ok(());
        }
        let found = graph.source.checkpoint.clone();
        Err(RewardError::Model { reward: self.name.clone(), wanted, found })
    }

    /// Returns the reward for a score of the metric; `None` if the pack's graph has no logit scale,
    /// which the scale needs.
    #[must_use]
    pub fn of(&self, score: &Score) -> Option<f64> {
        match self.scale.map(|scale| &scale.apply) {
            None => Some(score.value),
            Some(Apply::Affine { factor, offset }) => Some(factor * score.value + offset),
            Some(Apply::Logits { divisor }) => match score.explanation {
                Explanation::Detail("published_scale", logits) => Some(logits / divisor),
                _ => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(value: f64) -> Score {
        value.into()
    }

    fn reward(name: &str) -> Reward {
        Reward::parse(name).unwrap()
    }

    #[test]
    fn every_scale_belongs_to_a_metric_and_is_found_by_its_name() {
        for scale in SCALES {
            let found = reward(&format!("{}@{}", scale.metric, scale.name));
            assert_eq!(found.scale, Some(scale));
        }
    }

    #[test]
    fn scales_are_those_of_their_projects() {
        let logits = Score {
            explanation: Explanation::Detail("published_scale", 21.5),
            ..Score::from(0.215)
        };
        let close = |name: &str, of: &Score, wanted: f64| {
            let found = reward(name).of(of).unwrap();
            assert!((found - wanted).abs() < 1e-12, "{name}: {found}");
        };
        close("pick_score", &logits, 0.215);
        close("pick_score@raw", &logits, 21.5);
        close("pick_score@flow_grpo", &logits, 21.5 / 26.0);
        close("pick_score@dance_grpo", &logits, 0.215);
        close("clip_t@flow_grpo", &score(0.3), 1.0);
        close("image_reward@unit", &score(-1.0), 0.25);
        close("aesthetic@tenth", &score(5.5), 0.55);
        close("dreamsim@negated", &score(0.4), -0.4);
        assert_eq!(reward("pick_score@raw").of(&score(0.2)), None, "no logit scale");
    }

    #[test]
    fn unknown_names_are_told_with_those_that_exist() {
        let error = Reward::parse("pick_score@x").unwrap_err().to_string();
        assert!(error.contains("pick_score@flow_grpo"), "{error}");
        let error = Reward::parse("ips@x").unwrap_err().to_string();
        assert!(error.contains("only scale"), "{error}");
        assert!(Reward::parse("nonsense@raw").unwrap_err().to_string().contains("nonsense"));
    }
}
