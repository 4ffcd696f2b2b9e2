//! Results of a study: how often each method is the first choice, and how strong it is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::annotators::no_alpha;
use super::reasons::{NoAlpha, NoInterval};
use super::voting::Proportion;
use crate::stats::{
    Bootstrap, Choice, ChoiceModel, FEWEST_CLUSTERS, Level, ShareMethod, choice_model,
    krippendorff_alpha, krippendorff_alpha_interval, normal_quantile, share_intervals,
    student_quantile,
};
use crate::store::{StudyAnswer, StudyChoice, StudyItem};

/// How the interval of a share was computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ShareInterval {
    /// Wilson's, over answers: no prompt (or person) has two, so that they are independent.
    Wilson,
    /// Wilson's, over prompts (or people): the method was never or always chosen.
    WilsonOverPrompts,
    /// The studentised bootstrap over prompts (or people).
    Bootstrap,
}

impl From<ShareMethod> for ShareInterval {
    fn from(method: ShareMethod) -> Self {
        match method {
            ShareMethod::Wilson => Self::Wilson,
            ShareMethod::WilsonOverClusters => Self::WilsonOverPrompts,
            ShareMethod::Bootstrap => Self::Bootstrap,
        }
    }
}

/// A method of a study.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StudyMethod {
    /// The method.
    pub method: String,
    /// Its run.
    pub run: Uuid,
    /// Counted answers about items with its image.
    pub shown: usize,
    /// Those in which its image was chosen; a tie is half of one.
    pub chosen: f64,
    /// First-choice share: `chosen / shown`; null if it was not shown.
    pub share: Option<f64>,
    /// Lower end of its 95 % confidence interval; `share_interval` says how it was computed.
    pub share_low: Option<f64>,
    /// Upper end.
    pub share_high: Option<f64>,
    /// How the interval was computed.
    pub share_interval: Option<ShareInterval>,
    /// Reason if the share has no interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_interval: Option<NoInterval>,
    /// Logarithm of the Plackett-Luce strength; the strengths sum to 0. Out of an item, a method is
    /// chosen with probability exp(own) / Σ exp. `no_strengths` gives the reason for null.
    pub strength: Option<f64>,
    /// Lower end of its 95 % confidence interval, from the spread over prompts.
    pub strength_low: Option<f64>,
    /// Upper end.
    pub strength_high: Option<f64>,
}

/// Two methods that follow each other, and what would settle their order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StudyDifference {
    /// The method with the larger strength.
    pub better: String,
    /// The method with the next smaller one.
    pub worse: String,
    /// Difference of their strengths.
    pub difference: f64,
    /// Lower end of its 95 % confidence interval, from the spread over prompts.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// Whether the interval is entirely above 0.
    pub settled: bool,
    /// Further answers after which the order would be settled with probability 0.8, if the
    /// difference is as measured: n ((1.96 + 0.84)² e² / d² − 1), where e is the standard error of
    /// the difference d over n answers. Null if it is settled or cannot be computed.
    pub more_answers: Option<u64>,
}

/// Agreement of annotators about items.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StudyAgreement {
    /// Items with counted answers of several annotators.
    pub shared: usize,
    /// Share of pairs of answers to the same item that are equal.
    pub equal: Option<f64>,
    /// Krippendorff's alpha, nominal: 1 for perfect agreement, 0 for chance.
    pub alpha: Option<f64>,
    /// Lower end of its 95 % confidence interval, resampling items.
    pub alpha_low: Option<f64>,
    /// Upper end.
    pub alpha_high: Option<f64>,
    /// Reason if there is no alpha.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_alpha: Option<NoAlpha>,
}

/// Results for one question of a study.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StudyResults {
    /// Counted answers: those of annotators who are left out, about gold items, and "cannot tell"
    /// are none.
    pub answers: usize,
    /// Ties among them.
    pub ties: usize,
    /// Answers "cannot tell", which count for no image.
    pub cannot_tell: usize,
    /// Prompts with a counted answer.
    pub prompts: usize,
    /// Annotators with a counted answer.
    pub annotators: usize,
    /// First-choice share of a method that is as good as the others: 1/k.
    pub chance: f64,
    /// The methods, best first.
    pub methods: Vec<StudyMethod>,
    /// Reason for missing strengths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_strengths: Option<String>,
    /// Whether half a win was added to each side of every two methods that were shown together,
    /// because some never lost or never won.
    pub penalised: bool,
    /// Methods that follow each other in the order of their strengths.
    pub differences: Vec<StudyDifference>,
    /// Agreement of annotators.
    pub agreement: StudyAgreement,
    /// Choices by the position of the chosen image, from the first position on. The Wilson
    /// intervals treat answers as independent. Without a habit, all shares are about 1/k.
    pub positions: Vec<Proportion>,
}

/// Computes the results of a study for one question from its counted answers. `items` are all
/// items in order of their places, `methods` the method of each run, and `images` the number of
/// images of an item.
#[must_use]
pub fn study_results(
    items: &[StudyItem],
    answers: &[StudyAnswer],
    methods: &[(Uuid, String)],
    images: usize,
) -> StudyResults {
    let place = |run: &Uuid| methods.iter().position(|(of, _)| of == run);
    let mut prompts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut annotators = std::collections::BTreeSet::new();
    let mut units: BTreeMap<u32, Vec<Option<f64>>> = BTreeMap::new();
    let mut positions = vec![0; images];
    let (mut choices, mut ties, mut cannot_tell, mut count) = (Vec::new(), 0, 0, 0);
    for answer in answers {
        let item = items.binary_search_by_key(&answer.item, |item| item.place);
        let Some(item) = item.ok().map(|at| &items[at]).filter(|item| item.right.is_none()) else {
            continue;
        };
        let Some(set) = item.runs.iter().map(place).collect::<Option<Vec<usize>>>() else {
            continue;
        };
        let chosen = match answer.choice {
            StudyChoice::CannotTell => {
                cannot_tell += 1;
                continue;
            }
            StudyChoice::Tie => None,
            StudyChoice::One(run) => match place(&run).filter(|chosen| set.contains(chosen)) {
                Some(chosen) => Some((run, chosen)),
                None => continue,
            },
        };
        count += 1;
        annotators.insert(answer.annotator.as_str());
        let next = prompts.len();
        let cluster = *prompts.entry(&item.name).or_insert(next);
        let category = chosen.map_or(methods.len(), |(_, chosen)| chosen);
        units.entry(item.place).or_default().push(Some(category as f64));
        if let Some((run, chosen)) = chosen {
            if let Some(at) = answer.shown.iter().position(|shown| *shown == run)
                && let Some(position) = positions.get_mut(at)
            {
                *position += 1;
            }
            choices.push(Choice { set, chosen, times: 1.0, cluster });
        } else {
            ties += 1;
            let times = 1.0 / set.len() as f64;
            let each = set.clone();
            let parts =
                each.into_iter().map(|chosen| Choice { set: set.clone(), chosen, times, cluster });
            choices.extend(parts);
        }
    }
    let sums = sums(methods.len(), prompts.len(), &choices);
    let (fit, penalised, no_strengths) = fit(methods.len(), &choices);
    let methods_found = rows(methods, &sums, fit.as_ref());
    let differences = differences(&methods_found, methods, fit.as_ref(), count);
    let placed = positions.iter().sum();
    StudyResults {
        answers: count,
        ties,
        cannot_tell,
        prompts: prompts.len(),
        annotators: annotators.len(),
        chance: 1.0 / images.max(1) as f64,
        methods: methods_found,
        no_strengths,
        penalised,
        differences,
        agreement: agreement(&units.into_values().collect::<Vec<_>>()),
        positions: positions.into_iter().map(|of| Proportion::new(of, placed)).collect(),
    }
}

/// Returns the choices and the answers of each method by prompt.
fn sums(methods: usize, prompts: usize, choices: &[Choice]) -> Vec<Vec<(f64, usize)>> {
    let mut shown = vec![vec![0.0; prompts]; methods];
    let mut chosen = vec![vec![0.0; prompts]; methods];
    for choice in choices {
        chosen[choice.chosen][choice.cluster] += choice.times;
        for &method in &choice.set {
            shown[method][choice.cluster] += choice.times;
        }
    }
    chosen
        .into_iter()
        .zip(shown)
        .map(|(chosen, shown)| {
            // Parts of ties sum to whole answers.
            chosen.into_iter().zip(shown).map(|(sum, of)| (sum, of.round() as usize)).collect()
        })
        .collect()
}

/// Fits strengths, with the penalty only if there are none without it.
fn fit(methods: usize, choices: &[Choice]) -> (Option<ChoiceModel>, bool, Option<String>) {
    if choices.is_empty() {
        return (None, false, Some("there are no answers".to_owned()));
    }
    match choice_model(methods, choices, 0.0) {
        Ok(fit) => (Some(fit), false, None),
        Err(_) => match choice_model(methods, choices, 0.5) {
            Ok(fit) => (Some(fit), true, None),
            Err(error) => (None, false, Some(error.to_string())),
        },
    }
}

fn rows(
    methods: &[(Uuid, String)],
    sums: &[Vec<(f64, usize)>],
    fit: Option<&ChoiceModel>,
) -> Vec<StudyMethod> {
    let bootstrap = Bootstrap { resamples: 4_000, ..Bootstrap::default() };
    let intervals = share_intervals(&bootstrap, sums);
    let row = |(at, (run, method)): (usize, &(Uuid, String))| {
        let shown: usize = sums[at].iter().map(|(_, count)| count).sum();
        let chosen: f64 = sums[at].iter().map(|(sum, _)| sum).sum();
        let share = (shown > 0).then(|| chosen / shown as f64);
        let filled = sums[at].iter().filter(|(_, count)| *count > 0).count();
        let interval = intervals[at].map(|(ends, _)| ends);
        let strength = fit.map(|fit| fit.strengths[at]);
        let reach =
            fit.and_then(|fit| Some(fit.error(at)? * student_quantile(0.975, fit.clusters - 1)));
        let ends = strength.zip(reach);
        StudyMethod {
            method: method.clone(),
            run: *run,
            shown,
            chosen,
            share,
            share_low: interval.map(|ends| ends.low),
            share_high: interval.map(|ends| ends.high),
            share_interval: intervals[at].map(|(_, method)| method.into()),
            no_interval: NoInterval::of(
                share,
                interval.map(|ends| ends.low),
                filled,
                2,
                NoInterval::TooFewPrompts,
            ),
            strength,
            strength_low: ends.map(|(at, reach)| at - reach),
            strength_high: ends.map(|(at, reach)| at + reach),
        }
    };
    let mut rows: Vec<StudyMethod> = methods.iter().enumerate().map(row).collect();
    let order = |of: &StudyMethod| of.strength.or(of.share).unwrap_or(f64::NEG_INFINITY);
    rows.sort_by(|a, b| order(b).total_cmp(&order(a)).then_with(|| a.method.cmp(&b.method)));
    rows
}

fn differences(
    rows: &[StudyMethod],
    methods: &[(Uuid, String)],
    fit: Option<&ChoiceModel>,
    answers: usize,
) -> Vec<StudyDifference> {
    let Some(fit) = fit else { return Vec::new() };
    let place = |row: &StudyMethod| methods.iter().position(|(run, _)| *run == row.run);
    let reach = student_quantile(0.975, fit.clusters.saturating_sub(1));
    let wanted = normal_quantile(0.975) + normal_quantile(0.8);
    rows.windows(2)
        .filter_map(|pair| {
            let (difference, error) = fit.difference(place(&pair[0])?, place(&pair[1])?);
            let low = error.map(|error| difference - reach * error);
            let settled = low.is_some_and(|low| low > 0.0);
            let more = error.filter(|_| !settled && difference > 0.0).map(|error| {
                answers as f64 * ((wanted * error / difference).powi(2) - 1.0).max(0.0)
            });
            Some(StudyDifference {
                better: pair[0].method.clone(),
                worse: pair[1].method.clone(),
                difference,
                low,
                high: error.map(|error| difference + reach * error),
                settled,
                more_answers: more.filter(|more| *more < 1e9).map(|more| more.ceil() as u64),
            })
        })
        .collect()
}

fn agreement(units: &[Vec<Option<f64>>]) -> StudyAgreement {
    let (mut equal, mut pairs) = (0_usize, 0_usize);
    for unit in units {
        for (at, one) in unit.iter().enumerate() {
            pairs += unit.len() - at - 1;
            equal += unit[at + 1..].iter().filter(|other| *other == one).count();
        }
    }
    let shared = units.iter().filter(|unit| unit.len() > 1).count();
    let alpha = krippendorff_alpha(units, Level::Nominal);
    let bootstrap = Bootstrap { resamples: 2_000, ..Bootstrap::default() };
    let interval = (shared >= FEWEST_CLUSTERS)
        .then(|| krippendorff_alpha_interval(units, Level::Nominal, &bootstrap))
        .flatten();
    StudyAgreement {
        shared,
        equal: (pairs > 0).then(|| equal as f64 / pairs as f64),
        alpha,
        alpha_low: interval.map(|ends| ends.low),
        alpha_high: interval.map(|ends| ends.high),
        no_alpha: no_alpha(alpha, shared),
    }
}
