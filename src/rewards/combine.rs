//! Weighted combinations of rewards.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, MapAccess, Visitor},
};
use utoipa::ToSchema;

/// A weighted sum of rewards.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"weights": {"pick_score@flow_grpo": 1.0, "ips": 0.5}, "on_null": "skip"}))]
pub struct Combination {
    /// Weight of each reward, by name, from -1e6 to 1e6. Rewards without a weight do not count.
    #[serde(deserialize_with = "weights")]
    pub weights: BTreeMap<String, f64>,
    /// What a null reward means. There is no default: each choice trains another model.
    pub on_null: OnNull,
}

/// Maximum number of weights; a request has no more rewards.
const MOST: usize = 64;

/// Largest absolute weight: sums of scores stay finite.
const LARGEST: f64 = 1e6;

/// Reads a few weights, each once.
fn weights<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, f64>, D::Error> {
    struct Weights;

    impl<'de> Visitor<'de> for Weights {
        type Value = BTreeMap<String, f64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MOST} weights by reward")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut weights = BTreeMap::new();
            while let Some((name, weight)) = map.next_entry::<String, f64>()? {
                if weights.len() == MOST {
                    return Err(A::Error::custom(format!("there are more than {MOST} weights")));
                }
                if weight.is_nan() || weight.abs() > LARGEST {
                    return Err(A::Error::custom("a weight is beyond ±1e6: scale all of them"));
                }
                if weights.insert(name, weight).is_some() {
                    return Err(A::Error::custom("a reward has two weights: send one"));
                }
            }
            Ok(weights)
        }
    }

    deserializer.deserialize_map(Weights)
}

/// Meaning of a null reward in a combination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnNull {
    /// It is left out, and the other weights grow so that their absolute values add up to the
    /// same. The combination is null if nothing is left.
    Skip,
    /// It counts as 0.
    Zero,
    /// The combination is null.
    Fail,
}

impl Combination {
    /// Returns the combination of an item's rewards, by name; `None` if it is null.
    #[must_use]
    pub fn of(&self, rewards: &BTreeMap<&str, Option<f64>>) -> Option<f64> {
        let (mut sum, mut total, mut found) = (0.0, 0.0, 0.0);
        let mut is_whole = true;
        for (name, weight) in &self.weights {
            total += weight.abs();
            match (rewards.get(name.as_str()).copied().flatten(), self.on_null) {
                (Some(reward), _) => {
                    sum += weight * reward;
                    found += weight.abs();
                }
                (None, OnNull::Zero) => {}
                (None, OnNull::Skip) => is_whole = false,
                (None, OnNull::Fail) => return None,
            }
        }
        let combined = match self.on_null {
            // Nothing is missing.
            OnNull::Skip if is_whole => sum,
            OnNull::Skip if found == 0.0 => return None,
            OnNull::Skip => sum * (total / found),
            OnNull::Zero | OnNull::Fail => sum,
        };
        combined.is_finite().then_some(combined)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn combined(on_null: OnNull, rewards: [Option<f64>; 2]) -> Option<f64> {
        let weights = [("a", 1.0), ("b", 3.0)].map(|(name, weight)| (name.to_owned(), weight));
        let combination = Combination { weights: weights.into(), on_null };
        combination.of(&BTreeMap::from([("a", rewards[0]), ("b", rewards[1])]))
    }

    #[test]
    fn complete_rewards_are_summed_by_weight() {
        for rule in [OnNull::Skip, OnNull::Zero, OnNull::Fail] {
            assert_eq!(combined(rule, [Some(2.0), Some(1.0)]), Some(5.0), "{rule:?}");
        }
    }

    #[test]
    fn a_null_means_what_the_rule_says() {
        assert_eq!(combined(OnNull::Skip, [Some(2.0), None]), Some(8.0));
        assert_eq!(combined(OnNull::Zero, [Some(2.0), None]), Some(2.0));
        assert_eq!(combined(OnNull::Fail, [Some(2.0), None]), None);
        assert_eq!(combined(OnNull::Skip, [None, None]), None);
        assert_eq!(combined(OnNull::Zero, [None, None]), Some(0.0));
    }

    #[test]
    fn weights_of_both_signs_keep_their_signs() {
        let weights = [("a", 1.0), ("b", -1.0)].map(|(name, weight)| (name.to_owned(), weight));
        let skip = Combination { weights: weights.into(), on_null: OnNull::Skip };
        assert_eq!(skip.of(&BTreeMap::from([("a", Some(3.0)), ("b", Some(1.0))])), Some(2.0));
        assert_eq!(skip.of(&BTreeMap::from([("a", Some(3.0)), ("b", None)])), Some(6.0));
        assert_eq!(skip.of(&BTreeMap::from([("a", None), ("b", Some(3.0))])), Some(-6.0));
    }
}
