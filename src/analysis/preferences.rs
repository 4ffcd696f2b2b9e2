//! Methods in the order of annotators' preferences, and the pairs to judge next.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::alignment::JudgedPair;
use super::reasons::NoInterval;
use crate::stats::{
    Bootstrap, Choice, ChoiceError, ChoiceModel, Interval, choice_model, normal_quantile,
    student_quantile,
};
use crate::store::VoteCount;

/// Annotators' preferences for one method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MethodPreference {
    /// The method.
    pub method: String,
    /// Pairs with another method's image.
    pub pairs: usize,
    /// Pairs in which this method's image was preferred.
    pub wins: usize,
    /// Pairs without a preference.
    pub ties: usize,
    /// Preference share: (wins + ties / 2) / pairs.
    pub share: f64,
    /// Lower end of its 95 % confidence interval, clustered by prompt.
    pub share_low: Option<f64>,
    /// Upper end.
    pub share_high: Option<f64>,
    /// Reason if the share has no interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_interval: Option<NoInterval>,
    /// Logarithm of the Bradley-Terry strength; the strengths sum to 0. A method is preferred to
    /// another with probability 1 / (1 + exp(other − own)). `no_strengths` gives the reason for
    /// null.
    pub strength: Option<f64>,
    /// Lower end of its 95 % confidence interval, from the curvature of the likelihood, which
    /// assumes that votes are independent. If answers are several votes (`clustered`), it is from
    /// the spread over prompts. If `penalised`, it is the wider one of the two.
    pub strength_low: Option<f64>,
    /// Upper end.
    pub strength_high: Option<f64>,
}

/// Annotators' preferences by method, best first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MethodPreferences {
    /// The methods.
    pub methods: Vec<MethodPreference>,
    /// Reason for missing strengths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_strengths: Option<String>,
    /// Whether half a win was added to each side of every compared pair before fitting, because
    /// some methods never lost or never won, as in studies. Strengths are then shrunk together
    /// instead of infinitely far apart.
    pub penalised: bool,
    /// Whether the intervals of strengths are from the spread over prompts, because some answers
    /// are several votes (a choice of one out of several images), which are not independent.
    #[serde(default)]
    pub clustered: bool,
}

/// Two methods whose next comparison is the most informative.
#[derive(Debug, Clone, PartialEq)]
pub struct NextPair {
    /// One method.
    pub a: String,
    /// The other.
    pub b: String,
    /// Pairs already judged.
    pub judged: usize,
    /// Estimated probability that A is preferred.
    pub expected: f64,
    /// Expected information of one more judgement on their difference in strength: p(1 − p) / (1 +
    /// judged).
    pub gain: f64,
}

/// Counts between methods, by name of the sample.
struct Tally<'a> {
    methods: Vec<&'a str>,
    /// Number of wins by winner and loser; a tie counts half for each.
    wins: BTreeMap<(usize, usize), f64>,
    /// Number of comparisons by the earlier and the later of two methods.
    judged: BTreeMap<(usize, usize), usize>,
    pairs: Vec<(&'a str, usize, usize, i8)>,
    /// Whether a trial has several pairs.
    has_trials: bool,
}

fn tally<'a>(pairs: &'a [(String, JudgedPair)], methods: &'a BTreeMap<Uuid, String>) -> Tally<'a> {
    let mut names: Vec<&str> = methods.values().map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    let place = |run| names.binary_search(&methods.get(&run)?.as_str()).ok();
    let mut trials = BTreeSet::new();
    let has_trials = pairs.iter().filter_map(|(_, pair)| pair.trial).any(|of| !trials.insert(of));
    let (mut wins, mut judged, mut between) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    for (name, pair) in pairs {
        let Some((a, b)) = place(pair.a).zip(place(pair.b)).filter(|(a, b)| a != b) else {
            continue;
        };
        let share = f64::midpoint(1.0, pair.preference.into());
        *wins.entry((a, b)).or_insert(0.0) += share;
        *wins.entry((b, a)).or_insert(0.0) += 1.0 - share;
        *judged.entry((a.min(b), a.max(b))).or_insert(0) += 1;
        between.push((name.as_str(), a, b, pair.preference));
    }
    Tally { methods: names, wins, judged, pairs: between, has_trials }
}

/// Returns the counts between methods, without the single pairs.
fn tally_of_counts<'a>(votes: &[VoteCount], methods: &'a BTreeMap<Uuid, String>) -> Tally<'a> {
    let mut of = tally(&[], methods);
    let place = |run| of.methods.binary_search(&methods.get(&run)?.as_str()).ok();
    for vote in votes {
        let Some((a, b)) = place(vote.a).zip(place(vote.b)).filter(|(a, b)| a != b) else {
            continue;
        };
        let (share, times) = (f64::midpoint(1.0, vote.preference.into()), vote.times as f64);
        *of.wins.entry((a, b)).or_insert(0.0) += share * times;
        *of.wins.entry((b, a)).or_insert(0.0) += (1.0 - share) * times;
        *of.judged.entry((a.min(b), a.max(b))).or_insert(0) += vote.times;
    }
    of
}

/// Wins that a penalised fit adds to each side of every compared pair.
const PENALTY: f64 = 0.5;

/// Strengths with the reach of their intervals, by method.
struct Fitted {
    strengths: Vec<Option<(f64, Option<f64>)>>,
    penalised: bool,
    problem: Option<String>,
}

impl Tally<'_> {
    fn fit(&self) -> Result<ChoiceModel, ChoiceError> {
        let won = self.wins.iter().filter(|(_, times)| **times > 0.0);
        let choice = |(&(winner, loser), &times): (&(usize, usize), &f64)| Choice {
            set: vec![winner.min(loser), winner.max(loser)],
            chosen: winner,
            times,
            cluster: 0,
        };
        choice_model(self.methods.len(), &won.map(choice).collect::<Vec<_>>(), 0.0)
    }

    /// Returns the judgements as choices of one out of two, for the methods that `place` has an
    /// index of. The cluster of a choice is its prompt; of counts without prompts, it is 0.
    fn choices(&self, prompts: &[&str], place: impl Fn(usize) -> Option<usize>) -> Vec<Choice> {
        let choice = |a: usize, b: usize, share: f64, times: f64, cluster: usize| {
            let [a, b] = [place(a)?, place(b)?];
            let set = vec![a.min(b), a.max(b)];
            let each = move |(chosen, share)| Choice {
                set: set.clone(),
                chosen,
                times: share * times,
                cluster,
            };
            Some([(a, share), (b, 1.0 - share)].map(each))
        };
        if self.pairs.is_empty() {
            let won = self.wins.iter().filter_map(|(&(a, b), times)| choice(a, b, 1.0, *times, 0));
            return won.flatten().collect();
        }
        let of_pair = |&(name, a, b, preference): &(&str, usize, usize, i8)| {
            let cluster = prompts.binary_search(&name).unwrap_or_default();
            choice(a, b, f64::midpoint(1.0, preference.into()), 1.0, cluster)
        };
        self.pairs.iter().filter_map(of_pair).flatten().collect()
    }

    /// Returns how far the interval of each strength reaches, from the spread over prompts.
    fn reaches_over_prompts(&self, prompts: &[&str]) -> Vec<Option<f64>> {
        let n = self.methods.len();
        let Ok(fit) = choice_model(n, &self.choices(prompts, Some), 0.0) else {
            return vec![None; n];
        };
        let reach = student_quantile(0.975, fit.clusters.saturating_sub(1));
        (0..n).map(|at| Some(fit.error(at)? * reach)).collect()
    }

    /// Returns the largest set of methods that are connected by comparisons, and whether there are
    /// others.
    fn largest_group(&self) -> (Vec<usize>, bool) {
        let mut group: Vec<usize> = (0..self.methods.len()).collect();
        // Each method gets the smallest index that it is connected with. There are few methods, so
        // repeating the pass is fast enough.
        loop {
            let mut changed = false;
            for &(a, b) in self.judged.keys() {
                let least = group[a].min(group[b]);
                changed |= group[a] != least || group[b] != least;
                (group[a], group[b]) = (least, least);
            }
            if !changed {
                break;
            }
        }
        let mut sizes: BTreeMap<usize, usize> = BTreeMap::new();
        for of in &group {
            *sizes.entry(*of).or_default() += 1;
        }
        let largest = sizes
            .iter()
            .max_by_key(|(of, size)| (**size, std::cmp::Reverse(**of)))
            .map(|(of, _)| *of);
        let members = (0..group.len()).filter(|at| Some(group[*at]) == largest).collect();
        (members, sizes.len() > 1)
    }

    /// Fits strengths if some methods never lost: half a win is added to each side of every
    /// compared pair, so that the strengths do not diverge. Only the largest set of methods
    /// connected by comparisons is fitted; other methods share no scale with it.
    ///
    /// The error of a strength is the larger one of those from the spread over prompts and from the
    /// curvature of the penalised likelihood ([`ChoiceModel::error`](ChoiceModel::error)).
    fn fit_penalised(&self, prompts: &[&str]) -> Fitted {
        let (members, has_others) = self.largest_group();
        let place = |method: usize| members.binary_search(&method).ok();
        let none = |problem: String| Fitted {
            strengths: vec![None; self.methods.len()],
            penalised: false,
            problem: Some(problem),
        };
        if members.len() < 2 {
            return none("no methods were compared".to_owned());
        }
        let fit = match choice_model(members.len(), &self.choices(prompts, place), PENALTY) {
            Ok(fit) => fit,
            Err(error) => return none(error.to_string()),
        };
        let over_prompts = student_quantile(0.975, fit.clusters.saturating_sub(1));
        let mut strengths = vec![None; self.methods.len()];
        for (at, method) in members.iter().enumerate() {
            // A single prompt has no spread; its votes count as independent ones.
            let alone = (!self.has_trials).then(|| fit.errors[at] * normal_quantile(0.975));
            let reach = fit.error(at).map(|error| error * over_prompts).or(alone);
            strengths[*method] = Some((fit.strengths[at], reach));
        }
        let problem = has_others.then(|| {
            "some methods were not compared with any of the others: add comparisons".to_owned()
        });
        Fitted { strengths, penalised: true, problem }
    }
}

/// Computes preference shares and Bradley-Terry strengths of methods, given the method of each run.
#[must_use]
pub fn method_preferences(
    pairs: &[(String, JudgedPair)],
    methods: &BTreeMap<Uuid, String>,
) -> MethodPreferences {
    // Methods without judgements would break the scale.
    let judged: std::collections::BTreeSet<Uuid> =
        pairs.iter().flat_map(|(_, pair)| [pair.a, pair.b]).collect();
    let methods = methods.iter().filter(|(run, _)| judged.contains(*run));
    let methods: BTreeMap<Uuid, String> =
        methods.map(|(run, method)| (*run, method.clone())).collect();
    let tally = tally(pairs, &methods);
    let prompts: Vec<&str> = {
        let mut prompts: Vec<&str> = tally.pairs.iter().map(|(name, ..)| *name).collect();
        prompts.sort_unstable();
        prompts.dedup();
        prompts
    };
    let mut sums = vec![vec![(0.0, 0_usize); prompts.len()]; tally.methods.len()];
    let mut counts = vec![(0, 0, 0); tally.methods.len()];
    for &(name, a, b, preference) in &tally.pairs {
        let prompt = prompts.binary_search(&name).expect("every name is among them");
        for (method, value) in [(a, preference), (b, -preference)] {
            sums[method][prompt].0 += f64::midpoint(1.0, value.into());
            sums[method][prompt].1 += 1;
            counts[method].0 += 1;
            counts[method].1 += usize::from(value > 0);
            counts[method].2 += usize::from(value == 0);
        }
    }
    let intervals = Bootstrap { resamples: 4_000, ..Bootstrap::default() }.means(&sums);
    let fit = match tally.fit() {
        Ok(fit) => {
            let reaches: Vec<Option<f64>> = if tally.has_trials {
                tally.reaches_over_prompts(&prompts)
            } else {
                fit.errors.iter().map(|error| Some(error * normal_quantile(0.975))).collect()
            };
            Fitted {
                strengths: fit.strengths.into_iter().zip(reaches).map(Some).collect(),
                penalised: false,
                problem: None,
            }
        }
        Err(_) => tally.fit_penalised(&prompts),
    };
    let mut found: Vec<MethodPreference> = (0..tally.methods.len())
        .map(|at| {
            let (pairs, wins, ties) = counts[at];
            let strength = fit.strengths[at].map(|(strength, _)| strength);
            let ends = strength.zip(fit.strengths[at].and_then(|(_, reach)| reach));
            let interval = intervals[at].map(|interval: Interval| interval.within(0.0, 1.0));
            let share =
                if pairs == 0 { 0.0 } else { (wins as f64 + ties as f64 / 2.0) / pairs as f64 };
            MethodPreference {
                method: tally.methods[at].to_owned(),
                pairs,
                wins,
                ties,
                share,
                share_low: interval.map(|ends| ends.low),
                share_high: interval.map(|ends| ends.high),
                no_interval: NoInterval::of(
                    Some(share),
                    interval.map(|ends| ends.low),
                    sums[at].iter().filter(|(_, count)| *count > 0).count(),
                    2,
                    NoInterval::TooFewPrompts,
                ),
                strength,
                strength_low: ends.map(|(at, reach)| at - reach),
                strength_high: ends.map(|(at, reach)| at + reach),
            }
        })
        .filter(|of| of.pairs > 0)
        .collect();
    let order = |of: &MethodPreference| of.strength.unwrap_or(of.share);
    found.sort_by(|one, other| {
        order(other).total_cmp(&order(one)).then_with(|| one.method.cmp(&other.method))
    });
    MethodPreferences {
        methods: found,
        penalised: fit.penalised,
        no_strengths: fit.problem,
        clustered: tally.has_trials,
    }
}

/// Returns pairs of methods ordered by the information of their next comparison, best first: pairs
/// of similar strength and pairs with few comparisons. A method without a strength is as strong as
/// the average.
#[must_use]
pub fn next_pairs(votes: &[VoteCount], methods: &BTreeMap<Uuid, String>) -> Vec<NextPair> {
    let tally = tally_of_counts(votes, methods);
    let n = tally.methods.len();
    let strengths = tally.fit().map_or_else(
        |_| {
            let fitted = tally.fit_penalised(&[]).strengths;
            fitted.into_iter().map(|of| of.map_or(0.0, |(strength, _)| strength)).collect()
        },
        |fit| fit.strengths,
    );
    let mut found = Vec::new();
    for a in 0..n {
        for b in a + 1..n {
            let expected = 1.0 / (1.0 + (strengths[b] - strengths[a]).exp());
            let judged = tally.judged.get(&(a, b)).copied().unwrap_or_default();
            found.push(NextPair {
                a: tally.methods[a].to_owned(),
                b: tally.methods[b].to_owned(),
                judged,
                expected,
                gain: expected * (1.0 - expected) / (1 + judged) as f64,
            });
        }
    }
    found.sort_by(|one, other| {
        other.gain.total_cmp(&one.gain).then_with(|| (&one.a, &one.b).cmp(&(&other.a, &other.b)))
    });
    found
}

#[cfg(test)]
mod tests {
    use super::super::alignment::tests::{run, vote};
    use super::*;
    use crate::analysis::judged_pairs;

    #[test]
    fn shares_and_strengths_order_methods_and_unconnected_ones_have_shares_only() {
        let methods: BTreeMap<Uuid, String> =
            (0..3).map(|at| (run(at), format!("method {at}"))).collect();
        let mut answers = Vec::new();
        for name in 0..40 {
            answers.push(vote(0, name, 0, 1, if name % 4 == 0 { -1 } else { 1 }));
            answers.push(vote(0, name, 1, 2, i8::from(name % 3 != 0)));
        }
        let found = method_preferences(&judged_pairs(&answers), &methods);
        let names: Vec<_> = found.methods.iter().map(|of| of.method.as_str()).collect();
        assert_eq!((names, &found.no_strengths), (vec!["method 0", "method 1", "method 2"], &None));
        let first = &found.methods[0];
        assert_eq!((first.pairs, first.wins, first.ties, first.share), (40, 30, 0, 0.75));
        assert!(
            first.share_low.unwrap() < 0.75
                && first.strength_low.unwrap() < first.strength.unwrap()
        );
        // 30 to 10: the odds are 3.
        let apart = first.strength.unwrap() - found.methods[1].strength.unwrap();
        assert!((apart - 3_f64.ln()).abs() < 1e-9);

        let found = method_preferences(&judged_pairs(&answers[..1]), &methods);
        assert_eq!(found.methods.len(), 2);
        assert!(
            found.penalised && found.methods[0].strength.is_some() && found.no_strengths.is_none()
        );
        // One and a half wins to a half: the odds are 3.
        let apart = found.methods[0].strength.unwrap() - found.methods[1].strength.unwrap();
        assert!((apart - 3_f64.ln()).abs() < 1e-9);
    }

    #[test]
    fn an_unbeaten_method_has_a_strength_and_an_unconnected_one_has_none() {
        let methods: BTreeMap<Uuid, String> =
            (0..5).map(|at| (run(at), format!("method {at}"))).collect();
        let mut answers = Vec::new();
        for name in 0..20 {
            answers.push(vote(0, name, 0, 1, 1));
            answers.push(vote(0, name, 1, 2, if name % 2 == 0 { 1 } else { -1 }));
        }
        answers.push(vote(0, 99, 3, 4, 1));
        let found = method_preferences(&judged_pairs(&answers), &methods);
        assert!(
            found.penalised
                && found
                    .no_strengths
                    .as_ref()
                    .is_some_and(|why| why.contains("not compared with any of the others"))
        );
        let strength =
            |name: &str| found.methods.iter().find(|of| of.method == name).unwrap().strength;
        assert!(strength("method 0").unwrap() > strength("method 1").unwrap());
        assert_eq!((strength("method 3"), strength("method 4")), (None, None));
    }

    #[test]
    fn the_next_pair_is_one_not_compared_yet_and_then_the_closest() {
        let methods: BTreeMap<Uuid, String> =
            (0..3).map(|at| (run(at), format!("method {at}"))).collect();
        let votes =
            [1, -1].map(|preference| VoteCount { a: run(0), b: run(1), preference, times: 5 });
        let next = next_pairs(&votes, &methods);
        assert_eq!(next.iter().map(|pair| pair.judged).collect::<Vec<_>>(), [0, 0, 10]);
        assert!((next[0].gain - 0.25).abs() < 1e-12);
    }
}
