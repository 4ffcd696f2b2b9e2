//! How annotators vote: how often they repeat their own answer, and whether the position of an
//! image matters.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::stats::wilson;
use crate::store::{Judgement, Preference};

/// A share with its interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Proportion {
    /// Numerator.
    pub count: usize,
    /// Denominator.
    pub of: usize,
    /// `count / of`; null if `of` is 0.
    pub share: Option<f64>,
    /// Lower end of its 95 % confidence interval (Wilson), which assumes that votes are
    /// independent.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
}

impl Proportion {
    pub(super) fn new(count: usize, of: usize) -> Self {
        let interval = wilson(count, of, 0.95);
        Self {
            count,
            of,
            share: (of > 0).then(|| count as f64 / of as f64),
            low: interval.map(|ends| ends.low),
            high: interval.map(|ends| ends.high),
        }
    }
}

/// How one annotator votes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AnnotatorVoting {
    /// Name of the annotator.
    pub annotator: String,
    /// Votes that count.
    pub votes: usize,
    /// Those of them without a preference.
    pub ties: usize,
    /// Pairs about which the annotator could not tell. They are not ties and do not count.
    pub cannot_tell: usize,
    /// Repeated pairs with the same answer as before.
    pub consistency: Proportion,
    /// Preferences for the image that was shown first (on the left), of the votes with a
    /// preference and a known position. Without a habit, it is about one half.
    pub first: Proportion,
}

/// How annotators vote, together and one by one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Voting {
    /// Votes that count.
    pub votes: usize,
    /// Those of them without a preference.
    pub ties: usize,
    /// Pairs about which annotators could not tell. They are not ties and do not count.
    pub cannot_tell: usize,
    /// Repeated pairs with the same answer as before.
    pub consistency: Proportion,
    /// Preferences for the image that was shown first (on the left), of the votes with a
    /// preference and a known position.
    pub first: Proportion,
    /// One entry per annotator with a vote, by name.
    pub annotators: Vec<AnnotatorVoting>,
}

/// Counts of one annotator.
#[derive(Default)]
struct Counts {
    votes: usize,
    ties: usize,
    cannot_tell: usize,
    same: usize,
    repeats: usize,
    first: usize,
    placed: usize,
}

/// Question, name of the sample, and the two runs in order.
type Pair<'a> = (&'a str, &'a str, Uuid, Uuid);

/// Describes how annotators vote. `counted` are the judgements that count, `uncounted` those that
/// do not: "cannot tell", and repeats. Ratings are left out.
#[must_use]
pub fn voting(counted: &[Preference], uncounted: &[Preference]) -> Voting {
    let mut by_annotator: BTreeMap<&str, Counts> = BTreeMap::new();
    let mut answers: BTreeMap<(&str, Pair<'_>), Option<i8>> = BTreeMap::new();
    let firsts = uncounted.iter().filter(|vote| !vote.is_repeat);
    for vote in counted.iter().chain(firsts) {
        let Some((pair, answer)) = vote_of(vote) else { continue };
        let of = by_annotator.entry(&vote.annotator).or_default();
        answers.insert((&vote.annotator, pair), answer);
        let Some(preference) = answer else {
            of.cannot_tell += 1;
            continue;
        };
        of.votes += 1;
        of.ties += usize::from(preference == 0);
        if let Some(shown_first) = vote.shown_first.filter(|_| preference != 0) {
            let preferred = if preference > 0 { pair.2 } else { pair.3 };
            of.placed += 1;
            of.first += usize::from(shown_first == preferred);
        }
    }
    for vote in uncounted.iter().filter(|vote| vote.is_repeat) {
        let Some((pair, again)) = vote_of(vote) else { continue };
        // The first answer may have been withdrawn.
        let Some(before) = answers.get(&(&*vote.annotator, pair)) else { continue };
        let of = by_annotator.entry(&vote.annotator).or_default();
        of.repeats += 1;
        of.same += usize::from(*before == again);
    }
    let sum = |of: fn(&Counts) -> usize| by_annotator.values().map(of).sum::<usize>();
    Voting {
        votes: sum(|of| of.votes),
        ties: sum(|of| of.ties),
        cannot_tell: sum(|of| of.cannot_tell),
        consistency: Proportion::new(sum(|of| of.same), sum(|of| of.repeats)),
        first: Proportion::new(sum(|of| of.first), sum(|of| of.placed)),
        annotators: by_annotator
            .iter()
            .map(|(annotator, of)| AnnotatorVoting {
                annotator: (*annotator).to_owned(),
                votes: of.votes,
                ties: of.ties,
                cannot_tell: of.cannot_tell,
                consistency: Proportion::new(of.same, of.repeats),
                first: Proportion::new(of.first, of.placed),
            })
            .collect(),
    }
}

/// Returns the pair of a vote and the answer for the first of its runs, `None` for "cannot tell".
fn vote_of(vote: &Preference) -> Option<(Pair<'_>, Option<i8>)> {
    let (a, b, answer) = match vote.judgement {
        Judgement::Vote { a, b, preference } => (a, b, Some(preference)),
        Judgement::CannotTell { a, b } => (a, b, None),
        Judgement::Rating { .. } => return None,
    };
    let answer = if a < b { answer } else { answer.map(|preference| -preference) };
    Some(((vote.question.as_str(), &*vote.name, a.min(b), a.max(b)), answer))
}

#[cfg(test)]
mod tests {
    use super::super::alignment::tests::{rating, run, vote};
    use super::*;

    fn cannot_tell(annotator: usize, name: usize) -> Preference {
        let judgement = Judgement::CannotTell { a: run(0), b: run(1) };
        Preference { judgement, ..vote(annotator, name, 0, 1, 0) }
    }

    fn repeat(of: Preference) -> Preference {
        Preference { is_repeat: true, ..of }
    }

    #[test]
    fn consistency_compares_repeats_with_the_first_answer() {
        let counted = [vote(0, 0, 0, 1, 1), vote(0, 1, 0, 1, 0), vote(1, 0, 0, 1, -1)];
        let uncounted = [
            cannot_tell(0, 2),
            // The same answer, with the runs swapped.
            repeat(vote(0, 0, 1, 0, -1)),
            repeat(cannot_tell(0, 1)),
            repeat(cannot_tell(0, 2)),
            // Withdrawn before.
            repeat(vote(1, 9, 0, 1, 1)),
        ];
        let found = voting(&counted, &uncounted);
        assert_eq!((found.votes, found.ties, found.cannot_tell), (3, 1, 1));
        assert_eq!((found.consistency.count, found.consistency.of), (2, 3));
        assert!(found.consistency.low < found.consistency.share);
        assert_eq!(found.annotators.len(), 2);
        assert_eq!(found.annotators[1].consistency, Proportion::default());
    }

    #[test]
    fn position_is_counted_for_preferences_with_a_known_one() {
        let placed =
            |vote: Preference, first: usize| Preference { shown_first: Some(run(first)), ..vote };
        let counted = [
            placed(vote(0, 0, 0, 1, 1), 0),
            placed(vote(0, 1, 0, 1, 1), 1),
            placed(vote(0, 2, 0, 1, -1), 1),
            placed(vote(0, 3, 0, 1, 0), 1),
            vote(0, 4, 0, 1, 1),
            rating(0, 0, 3.0),
        ];
        let found = voting(&counted, &[]);
        assert_eq!((found.first.count, found.first.of, found.votes), (2, 3, 5));
    }
}
