//! The order in which one annotator is asked: new pairs, pairs that others judged, and repeats.

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::preferences::entry::Side;
use crate::content::ContentHash;
use crate::store::{Judgement, Preference, Question};

/// Turns after which the order begins again.
const ROUND: usize = 10;

/// The turns of a round for pairs that others judged.
const SHARED: [usize; 2] = [4, 9];

/// The turn of a round for a pair that the annotator judged before.
const REPEATED: usize = 7;

/// Answers between a vote and its repeat, so that the annotator does not remember it.
const APART: usize = 5;

/// Name of the samples, and their runs in order.
pub(crate) type Key = (String, Uuid, Uuid);

/// Why a pair is put to an annotator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Purpose {
    /// Nobody has judged it.
    New,
    /// Others judged it: shows how far annotators agree.
    Shared,
    /// The annotator judged it before: shows how consistent the annotator is. Send `repeat` with
    /// the vote.
    Repeat,
}

/// A pair to put to an annotator.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Asked {
    pub(crate) name: String,
    pub(crate) a: Uuid,
    pub(crate) b: Uuid,
    pub(crate) purpose: Purpose,
    /// Run that was shown first before, of a repeat.
    pub(crate) before: Option<Uuid>,
}

impl Asked {
    pub(crate) fn new(name: String, a: Uuid, b: Uuid) -> Self {
        Self { name, a, b, purpose: Purpose::New, before: None }
    }

    /// Returns the image to show first. A hash decides, so that a reload does not change it.
    pub(crate) fn show_first(&self, question: &Question, annotator: &str) -> Side {
        let (a, b) = (self.a.min(self.b), self.a.max(self.b));
        let text = format!("{}\n{annotator}\n{}\n{a}\n{b}", question.as_str(), self.name);
        let is_odd = ContentHash::of(text.as_bytes()).as_bytes()[0] % 2 == 1;
        let drawn = if is_odd { a } else { b };
        let other = |run| if run == a { b } else { a };
        let first = match (self.purpose, self.before) {
            (Purpose::Repeat, Some(before)) => other(before),
            (Purpose::Repeat, None) => other(drawn),
            _ => drawn,
        };
        if first == self.a { Side::A } else { Side::B }
    }
}

/// What an annotator has answered, and may be asked again or in addition.
#[derive(Debug)]
pub(crate) struct Turns {
    annotator: String,
    answered: usize,
    /// Pairs with an answer.
    known: BTreeSet<Key>,
    shared: Vec<Asked>,
    repeats: Vec<Asked>,
}

impl Turns {
    /// Takes the judgements of the annotator on a question that count, and those that do not, and
    /// the pairs that others judged and the annotator did not, in the order of their turns.
    pub(crate) fn new(
        annotator: String,
        counted: &[Preference],
        uncounted: &[Preference],
        others: Vec<Key>,
    ) -> Self {
        let (mut known, mut repeated) = (BTreeSet::new(), BTreeSet::new());
        let mut own = Vec::new();
        for vote in counted {
            let Some(key) = key(vote) else { continue };
            known.insert(key.clone());
            own.push((vote.created, key, vote.shown_first));
        }
        for vote in uncounted {
            let Some(key) = key(vote) else { continue };
            if vote.is_repeat {
                repeated.insert(key);
            } else {
                known.insert(key);
            }
        }
        let answered = known.len() + repeated.len();
        own.sort();
        own.truncate(own.len().saturating_sub(APART));
        let repeats = own.into_iter().filter(|(_, key, _)| !repeated.contains(key)).map(
            |(_, (name, a, b), before)| Asked { name, a, b, purpose: Purpose::Repeat, before },
        );
        let shared = others
            .into_iter()
            .map(|(name, a, b)| Asked { purpose: Purpose::Shared, ..Asked::new(name, a, b) });
        Self { repeats: repeats.collect(), shared: shared.collect(), annotator, answered, known }
    }

    pub(crate) fn annotator(&self) -> &str {
        &self.annotator
    }

    /// Returns the number of answers.
    pub(crate) fn answered(&self) -> usize {
        self.answered
    }

    /// Returns true if the annotator has answered about the pair.
    pub(crate) fn has_answered(&self, name: &str, a: Uuid, b: Uuid) -> bool {
        self.known.contains(&(name.to_owned(), a.min(b), a.max(b)))
    }

    /// Returns at most `limit` pairs in the order of the turns, beginning with the present one.
    /// Pairs that others judged also come when there are no new ones.
    pub(crate) fn order(&self, new: Vec<Asked>, limit: usize) -> Vec<Asked> {
        let mut new = VecDeque::from(new);
        let mut shared: VecDeque<_> = self.shared.iter().cloned().collect();
        let mut repeats: VecDeque<_> = self.repeats.iter().cloned().collect();
        let mut order = Vec::new();
        while order.len() < limit {
            let turn = (self.answered + order.len()) % ROUND;
            let preferred = match turn {
                REPEATED => repeats.pop_front(),
                turn if SHARED.contains(&turn) => shared.pop_front(),
                _ => None,
            };
            let Some(next) = preferred.or_else(|| new.pop_front()).or_else(|| shared.pop_front())
            else {
                break;
            };
            order.push(next);
        }
        order
    }
}

/// Returns the pair of a vote; `None` for a rating.
fn key(vote: &Preference) -> Option<Key> {
    match vote.judgement {
        Judgement::Vote { a, b, .. } | Judgement::CannotTell { a, b } => {
            Some((vote.name.clone(), a.min(b), a.max(b)))
        }
        Judgement::Rating { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;

    fn run(at: u128) -> Uuid {
        Uuid::from_u128(at)
    }

    fn vote(annotator: &str, name: usize, at: i64) -> Preference {
        Preference {
            id: Uuid::nil(),
            question: Question::Overall,
            annotator: annotator.to_owned(),
            name: name.to_string(),
            judgement: Judgement::Vote { a: run(1), b: run(2), preference: 1 },
            shown_first: Some(run(2)),
            is_repeat: false,
            trial: None,
            created: OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(at),
        }
    }

    fn new(names: impl Iterator<Item = usize>) -> Vec<Asked> {
        names.map(|name| Asked::new(name.to_string(), run(1), run(2))).collect()
    }

    fn keys(names: std::ops::Range<usize>) -> Vec<Key> {
        names.map(|name| (name.to_string(), run(1), run(2))).collect()
    }

    fn names(asked: &[Asked]) -> Vec<&str> {
        asked.iter().map(|asked| &*asked.name).collect()
    }

    #[test]
    fn a_round_has_new_pairs_two_of_others_and_a_repeat() {
        let own: Vec<_> = (0..10).map(|name| vote("ada", name, name as i64)).collect();
        let turns = Turns::new("ada".to_owned(), &own, &[], keys(20..24));
        let order = turns.order(new(100..200), 10);
        assert_eq!(
            names(&order),
            ["100", "101", "102", "103", "20", "104", "105", "0", "106", "21"]
        );
        assert_eq!(order[7].purpose, Purpose::Repeat);
        // Run 2 was first.
        assert_eq!(order[7].show_first(&Question::Overall, "ada"), Side::A);
    }

    #[test]
    fn without_new_pairs_those_of_others_remain_and_then_nothing() {
        let turns = Turns::new("ada".to_owned(), &[], &[], keys(0..3));
        assert_eq!(names(&turns.order(Vec::new(), 10)), ["0", "1", "2"]);
        let counted: Vec<_> = (0..3).map(|name| vote("bob", name, 0)).collect();
        let done = Turns::new("bob".to_owned(), &counted, &[], Vec::new());
        assert!(done.order(Vec::new(), 10).is_empty(), "a repeat needs answers in between");
    }

    #[test]
    fn what_an_annotator_cannot_tell_is_an_answer() {
        let untold = Preference {
            judgement: Judgement::CannotTell { a: run(1), b: run(2) },
            ..vote("ada", 3, 0)
        };
        let turns = Turns::new("ada".to_owned(), &[], &[untold], Vec::new());
        assert_eq!(turns.answered(), 1);
        assert!(turns.has_answered("3", run(2), run(1)) && turns.order(Vec::new(), 5).is_empty());
    }

    #[test]
    fn the_first_image_is_random_and_stays() {
        let first = |name: usize, a, b| {
            let asked = Asked::new(name.to_string(), run(a), run(b));
            let side = asked.show_first(&Question::Overall, "ada");
            if side == Side::A { a } else { b }
        };
        let ones = (0..200).filter(|name| first(*name, 1, 2) == 1).count();
        assert!((70..130).contains(&ones), "{ones}");
        assert!((0..50).all(|name| first(name, 1, 2) == first(name, 2, 1)));
    }
}
