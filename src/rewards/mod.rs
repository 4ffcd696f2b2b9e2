//! Rewards for training: named scales of metrics, weighted combinations, and statistics of groups.
//!
//! Pure functions from scores to rewards. A trainer's "PickScore" is not another's, so a scale
//! names what one project computes, with its source.

mod combine;
mod groups;
mod scale;

pub use combine::{Combination, OnNull};
pub use groups::{EPSILON, GroupStatistics};
pub use scale::{Reward, RewardError, SCALES, Scale};
