//! Agreement of annotators with each other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::reasons::{NoAlpha, NoInterval};
use crate::stats::{
    Bootstrap, FEWEST_CLUSTERS, Level, krippendorff_alpha, krippendorff_alpha_interval,
};
use crate::store::{Judgement, Preference};

/// Agreement of annotators with each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AnnotatorAgreement {
    /// Number of annotators.
    pub annotators: usize,
    /// Pairs of images with votes of several annotators.
    pub votes_shared: usize,
    /// Krippendorff's alpha of the votes on an ordinal scale of three: 1 for perfect agreement, 0
    /// for chance. Null if no pair has two votes or all votes are the same.
    pub votes_alpha: Option<f64>,
    /// Reason if `votes_alpha` is null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub votes_alpha_reason: Option<NoAlpha>,
    /// Lower end of its 95 % confidence interval, resampling pairs of images. Null if alpha is null
    /// or there are fewer than three pairs.
    pub votes_alpha_low: Option<f64>,
    /// Upper end.
    pub votes_alpha_high: Option<f64>,
    /// Reason if `votes_alpha` has no interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub votes_alpha_no_interval: Option<NoInterval>,
    /// Images with ratings of several annotators.
    pub ratings_shared: usize,
    /// Krippendorff's alpha of the ratings on an ordinal scale.
    pub ratings_alpha: Option<f64>,
    /// Reason if `ratings_alpha` is null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratings_alpha_reason: Option<NoAlpha>,
    /// Lower end of its 95 % confidence interval, resampling images.
    pub ratings_alpha_low: Option<f64>,
    /// Upper end.
    pub ratings_alpha_high: Option<f64>,
    /// Reason if `ratings_alpha` has no interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratings_alpha_no_interval: Option<NoInterval>,
}

pub(super) fn no_alpha(alpha: Option<f64>, shared: usize) -> Option<NoAlpha> {
    match (alpha, shared) {
        (Some(_), _) => None,
        (None, 0) => Some(NoAlpha::NothingShared),
        (None, _) => Some(NoAlpha::NoVariation),
    }
}

/// Computes the agreement of annotators with each other.
#[must_use]
pub fn annotator_agreement(preferences: &[Preference]) -> AnnotatorAgreement {
    let mut votes: BTreeMap<(&str, Uuid, Uuid), Vec<Option<f64>>> = BTreeMap::new();
    let mut ratings: BTreeMap<(&str, Uuid), Vec<Option<f64>>> = BTreeMap::new();
    let mut annotators = std::collections::BTreeSet::new();
    for preference in preferences {
        annotators.insert(&preference.annotator);
        match preference.judgement {
            Judgement::Vote { a, b, preference: value } => {
                // The store orders the two runs of every vote.
                votes.entry((&preference.name, a, b)).or_default().push(Some(value.into()));
            }
            Judgement::CannotTell { .. } => {}
            Judgement::Rating { run, rating } => {
                ratings.entry((&preference.name, run)).or_default().push(Some(rating));
            }
        }
    }
    let (votes, ratings): (Vec<_>, Vec<_>) =
        (votes.into_values().collect(), ratings.into_values().collect());
    let shared = |units: &[Vec<Option<f64>>]| units.iter().filter(|unit| unit.len() > 1).count();
    let bootstrap = Bootstrap { resamples: 2_000, ..Bootstrap::default() };
    let ends = |units: &[Vec<Option<f64>>]| {
        let interval = krippendorff_alpha_interval(units, Level::Ordinal, &bootstrap);
        interval.map(|ends| (ends.low, ends.high)).unzip()
    };
    let ((votes_low, votes_high), (ratings_low, ratings_high)) = (ends(&votes), ends(&ratings));
    let alpha = |units: &[Vec<Option<f64>>]| krippendorff_alpha(units, Level::Ordinal);
    let (votes_alpha, ratings_alpha) = (alpha(&votes), alpha(&ratings));
    let no_interval = |alpha, low, units: &[Vec<Option<f64>>]| {
        NoInterval::of(alpha, low, shared(units), FEWEST_CLUSTERS, NoInterval::TooFewShared)
    };
    AnnotatorAgreement {
        annotators: annotators.len(),
        votes_shared: shared(&votes),
        votes_alpha,
        votes_alpha_reason: no_alpha(votes_alpha, shared(&votes)),
        votes_alpha_low: votes_low,
        votes_alpha_high: votes_high,
        votes_alpha_no_interval: no_interval(votes_alpha, votes_low, &votes),
        ratings_shared: shared(&ratings),
        ratings_alpha,
        ratings_alpha_reason: no_alpha(ratings_alpha, shared(&ratings)),
        ratings_alpha_low: ratings_low,
        ratings_alpha_high: ratings_high,
        ratings_alpha_no_interval: no_interval(ratings_alpha, ratings_low, &ratings),
    }
}

#[cfg(test)]
mod tests {
    use super::super::alignment::tests::{rating, vote};
    use super::*;

    #[test]
    fn annotators_who_agree_have_an_alpha_of_one() {
        let answers: Vec<_> = (0..10)
            .flat_map(|name| {
                (0..3).map(move |who| vote(who, name, 0, 1, if name % 2 == 0 { 1 } else { -1 }))
            })
            .chain([rating(0, 0, 3.0)])
            .collect();
        let found = annotator_agreement(&answers);
        assert_eq!((found.annotators, found.votes_shared, found.votes_alpha), (3, 10, Some(1.0)));
        assert_eq!((found.votes_alpha_low, found.votes_alpha_high), (Some(1.0), Some(1.0)));
        assert_eq!(
            (found.ratings_shared, found.ratings_alpha, found.ratings_alpha_low),
            (0, None, None)
        );
    }
}
