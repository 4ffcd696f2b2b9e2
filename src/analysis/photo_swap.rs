//! How scores change when the photo that an image was made from is swapped for another one of the
//! same person.
//!
//! A *group* is the samples of one person and one prompt whose reference images differ: at least
//! two different sets of them. Scores of a group differ because of the photo, and because a
//! generator never makes the same image twice. Where a group has several samples of the same photo,
//! the two causes are told apart; otherwise they are reported together. Variance components are
//! those of [`variances`](crate::stats::variances), intervals resample people (BCa).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::gallery::shared_metrics;
use super::reasons::NoInterval;
use crate::stats::{
    Bootstrap, FEW_CLUSTERS, FEWEST_CLUSTERS, Interval, NestedSums, Variances, variances,
};
use crate::store::{RunData, SamplePhotos};

/// Number of resamples of an interval.
const RESAMPLES: usize = 4_000;

/// Spread of one metric within groups.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SwappedMetric {
    /// Code of the metric.
    #[schema(example = "sis")]
    pub metric: String,
    /// Version of the metric's definition.
    pub version: u32,
    /// Groups with numbers for at least two photos.
    pub groups: usize,
    /// Different photos in these groups; a photo in two groups counts twice.
    pub photos: usize,
    /// Samples in these groups.
    pub samples: usize,
    /// People in these groups.
    pub people: usize,
    /// Whether there are fewer than 8 people, so that intervals are based on little data.
    pub few_people: bool,
    /// Mean over these samples.
    pub mean: f64,
    /// Standard deviation within groups, in the metric's unit: how far scores of one person and
    /// prompt typically are from their mean when the photo is swapped.
    pub spread: f64,
    /// Lower end of its 95 % confidence interval.
    pub spread_low: Option<f64>,
    /// Upper end.
    pub spread_high: Option<f64>,
    /// Share of the variance that is within groups, 0 to 1: 1 − ICC(1). The rest is between people
    /// and prompts. Null for a single group, or without any variance.
    pub share: Option<f64>,
    /// Lower end of its 95 % confidence interval.
    pub share_low: Option<f64>,
    /// Upper end.
    pub share_high: Option<f64>,
    /// Standard deviation between photos alone, without the spread of samples of one photo. Null if
    /// no group has two samples of one photo.
    pub photo_spread: Option<f64>,
    /// Standard deviation of samples of one person, prompt and photo. Null as `photo_spread`.
    pub rest_spread: Option<f64>,
    /// Share of the variance that is between photos alone. Null as `photo_spread`.
    pub photo_share: Option<f64>,
    /// Lower end of its 95 % confidence interval.
    pub photo_share_low: Option<f64>,
    /// Upper end.
    pub photo_share_high: Option<f64>,
    /// Reason if the spread has no interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_interval: Option<NoInterval>,
}

/// Reason if no photo was swapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoSwap {
    /// No person and prompt has samples with two different sets of reference images. A sample needs
    /// its prompt, `metadata.identity` and its reference image.
    NoSwappedPhotos,
    /// There are such samples, but no metric has numbers for two of them.
    NoScores,
}

/// Spread of scores when photos are swapped.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PhotoSwap {
    /// Groups: people and prompts with at least two different photos.
    pub groups: usize,
    /// Samples in these groups.
    pub samples: usize,
    /// People in these groups.
    pub people: usize,
    /// Groups with several samples of one photo, by which photo and other causes are told apart.
    pub groups_with_repeats: usize,
    /// Reason if no metric has a spread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_swap: Option<NoSwap>,
    /// One entry per metric with a direction, in the order of the registry.
    pub metrics: Vec<SwappedMetric>,
}

/// A run with what its samples were made from, by name.
pub type RunPhotos = (Arc<RunData>, BTreeMap<String, SamplePhotos>);

/// Positions of samples, each the run and the sample in it: by person, group, and photo.
type People = Vec<Vec<Vec<Vec<(usize, usize)>>>>;

/// Measures the spread of scores within people and prompts whose photos were swapped, over runs of
/// one method: in all prompts, or in those of one kind.
#[must_use]
pub fn photo_swap(runs: &[RunPhotos], wanted: Option<&[String]>, kind: Option<&str>) -> PhotoSwap {
    let people = people(runs, kind);
    let groups = || people.iter().flatten();
    let mut found = PhotoSwap {
        groups: groups().count(),
        samples: groups().flatten().map(Vec::len).sum(),
        people: people.len(),
        groups_with_repeats: groups().filter(|of| of.iter().any(|photo| photo.len() > 1)).count(),
        no_swap: None,
        metrics: Vec::new(),
    };
    let data: Vec<Arc<RunData>> = runs.iter().map(|(data, _)| Arc::clone(data)).collect();
    for code in shared_metrics(&data, wanted) {
        let score = |&(run, at): &(usize, usize)| data[run].metrics.get(&code)?.values[at];
        found.metrics.extend(spread(&code, version(&data, &code), &people, score));
    }
    found.no_swap = match (found.groups, found.metrics.len()) {
        (0, _) => Some(NoSwap::NoSwappedPhotos),
        (_, 0) => Some(NoSwap::NoScores),
        _ => None,
    };
    found
}

fn version(data: &[Arc<RunData>], code: &str) -> u32 {
    data.iter().find_map(|run| run.metrics.get(code)).map_or(0, |column| column.version)
}

/// Collects the samples by person, prompt and photo, where a prompt has at least two photos.
fn people(runs: &[RunPhotos], kind: Option<&str>) -> People {
    type Photos<'a> = BTreeMap<BTreeSet<&'a String>, Vec<(usize, usize)>>;
    let mut people: BTreeMap<&str, BTreeMap<&str, Photos<'_>>> = BTreeMap::new();
    for (run, (data, photos)) in runs.iter().enumerate() {
        for (at, name) in data.names.iter().enumerate() {
            let of_kind = kind.is_none_or(|kind| data.prompt_kinds[at].as_deref() == Some(kind));
            let Some(sample) = photos.get(name).filter(|_| of_kind) else { continue };
            let Some((person, prompt)) =
                data.identities[at].as_deref().zip(sample.prompt.as_deref())
            else {
                continue;
            };
            if sample.references.is_empty() {
                continue;
            }
            let groups = people.entry(person).or_default().entry(prompt).or_default();
            groups.entry(sample.references.iter().collect()).or_default().push((run, at));
        }
    }
    let of_person = |groups: BTreeMap<&str, Photos<'_>>| -> Vec<Vec<Vec<(usize, usize)>>> {
        let groups = groups.into_values().filter(|photos| photos.len() > 1);
        groups.map(|photos| photos.into_values().collect()).collect()
    };
    people.into_values().map(of_person).filter(|groups| !groups.is_empty()).collect()
}

fn spread(
    code: &str,
    version: u32,
    people: &People,
    score: impl Fn(&(usize, usize)) -> Option<f64>,
) -> Option<SwappedMetric> {
    // Numbers by person, group and photo, without groups that have numbers for one photo only.
    let numbers: Vec<Vec<Vec<Vec<f64>>>> = people
        .iter()
        .map(|groups| {
            let of_group = |photos: &Vec<Vec<(usize, usize)>>| -> Vec<Vec<f64>> {
                let of = photos.iter().map(|photo| photo.iter().filter_map(&score).collect());
                of.filter(|photo: &Vec<f64>| !photo.is_empty()).collect()
            };
            groups.iter().map(of_group).filter(|photos| photos.len() > 1).collect()
        })
        .filter(|groups: &Vec<Vec<Vec<f64>>>| !groups.is_empty())
        .collect();
    let all = || numbers.iter().flatten().flatten();
    let samples = all().map(Vec::len).sum::<usize>();
    if samples == 0 {
        return None;
    }
    let first = *all().flatten().next()?;
    let is_constant = all().flatten().all(|number| number.to_bits() == first.to_bits());
    // Rounding of the mean must not make constant scores vary.
    let mean = if is_constant { first } else { all().flatten().sum::<f64>() / samples as f64 };
    let sums: Vec<NestedSums> = numbers
        .iter()
        .map(|groups| {
            let near_zero = |photo: &Vec<f64>| photo.iter().map(|number| number - mean).collect();
            let groups: Vec<Vec<Vec<f64>>> =
                groups.iter().map(|photos| photos.iter().map(near_zero).collect()).collect();
            NestedSums::of(&groups)
        })
        .collect();
    let found = variances(&sums, &vec![1; sums.len()])?;
    let bootstrap = Bootstrap { resamples: RESAMPLES, ..Bootstrap::default() };
    let interval = |of: fn(&Variances) -> Option<f64>| -> Option<Interval> {
        let statistic = |times: &[u32]| variances(&sums, times).as_ref().and_then(of);
        let found = bootstrap.interval(sums.len(), |times| statistic(times).unwrap_or(f64::NAN));
        // Equal numbers differ by rounding.
        found.filter(|ends| ends.high - ends.low > 1e-12 * ends.high.abs())
    };
    let spread = interval(|of| Some(of.within.sqrt()));
    let share = interval(Variances::share_within);
    let photo_share = interval(Variances::share_of_units);
    let ends = |of: Option<Interval>| (of.map(|ends| ends.low), of.map(|ends| ends.high));
    let (spread_low, spread_high) = ends(spread);
    let (share_low, share_high) = ends(share);
    let (photo_share_low, photo_share_high) = ends(photo_share);
    Some(SwappedMetric {
        metric: code.to_owned(),
        version,
        groups: numbers.iter().map(Vec::len).sum(),
        photos: all().count(),
        samples,
        people: numbers.len(),
        few_people: numbers.len() < FEW_CLUSTERS,
        mean,
        spread: found.within.sqrt(),
        spread_low,
        spread_high,
        share: found.share_within(),
        share_low,
        share_high,
        photo_spread: found.units.map(f64::sqrt),
        rest_spread: found.rest.map(f64::sqrt),
        photo_share: found.share_of_units(),
        photo_share_low,
        photo_share_high,
        no_interval: NoInterval::of(
            Some(found.within),
            spread_low,
            numbers.len(),
            FEWEST_CLUSTERS,
            NoInterval::TooFewPeople,
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::super::compare::tests::simulated;
    use super::*;

    /// A run of `people` people with two prompts and two photos each. The score is `by_photo` for
    /// the second photo, plus a part of the person and the prompt.
    fn swapped(people: usize, by_photo: f64) -> RunPhotos {
        let mut data = simulated(people, 4, 1, 1, 0.0);
        let names = data.names.clone();
        let values = &mut data.metrics.get_mut("dino").unwrap().values;
        let mut photos = BTreeMap::new();
        for (at, name) in names.into_iter().enumerate() {
            let (person, prompt, photo) = (at / 4, at / 2 % 2, at % 2);
            let own = (person * 7 % 5) as f64 + prompt as f64 * 3.0;
            values[at] = Some(own + photo as f64 * by_photo);
            let references = vec![format!("{person}-{photo}")];
            let prompt = Some(format!("prompt {prompt}"));
            photos.insert(name, SamplePhotos { prompt, references });
        }
        (Arc::new(data), photos)
    }

    #[test]
    fn a_photo_that_changes_every_score_by_two_has_the_spread_of_it() {
        let found = photo_swap(&[swapped(12, 2.0)], None, None);
        let of = &found.metrics[0];
        assert_eq!((found.groups, found.samples, found.people), (24, 48, 12));
        assert_eq!((of.groups, of.photos, of.samples, of.people), (24, 48, 48, 12));
        // Two numbers that are 2 apart have the variance 2.
        assert!((of.spread - 2_f64.sqrt()).abs() < 1e-12, "{of:?}");
        assert_eq!((of.no_interval, of.photo_spread), (Some(NoInterval::NoVariation), None));
        assert!(of.share.unwrap() > 0.1 && of.share_low.unwrap() < of.share.unwrap());
        let (none, all) = (photo_swap(&[swapped(12, 0.0)], None, None), of.share.unwrap());
        assert_eq!(none.metrics[0].share, Some(0.0));
        assert!(all < 1.0);
    }

    #[test]
    fn a_second_run_with_the_same_photos_tells_photo_and_chance_apart() {
        let (first, photos) = swapped(12, 2.0);
        let mut second = RunData::clone(&first);
        for (at, value) in second.metrics.get_mut("dino").unwrap().values.iter_mut().enumerate() {
            // Every photo has two samples that are 1 apart.
            *value = value.map(|value| value + if at % 3 == 0 { 1.0 } else { -1.0 });
        }
        let runs = [(first, photos.clone()), (Arc::new(second), photos)];
        let found = photo_swap(&runs, None, None);
        let of = &found.metrics[0];
        assert_eq!((found.groups, found.groups_with_repeats, of.samples), (24, 24, 96));
        assert!((of.rest_spread.unwrap() - 0.5_f64.sqrt()).abs() < 1e-12, "{of:?}");
        assert!(of.photo_spread.unwrap() > 1.2 && of.photo_share.unwrap() < of.share.unwrap());
    }

    #[test]
    fn without_swapped_photos_the_reason_is_given() {
        let (data, mut photos) = swapped(3, 1.0);
        for sample in photos.values_mut() {
            sample.references.truncate(0);
        }
        let found = photo_swap(&[(Arc::clone(&data), photos.clone())], None, None);
        assert_eq!((found.no_swap, found.groups), (Some(NoSwap::NoSwappedPhotos), 0));
        assert!(found.metrics.is_empty());
        let mut bare = RunData::clone(&data);
        bare.metrics.clear();
        let found = photo_swap(&[(Arc::new(bare), swapped(3, 1.0).1)], None, None);
        assert_eq!((found.no_swap, found.groups), (Some(NoSwap::NoScores), 6));
        assert_eq!(photo_swap(&[swapped(3, 1.0)], None, Some("T")).groups, 0);
    }
}
