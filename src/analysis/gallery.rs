//! The same prompts and people across runs, row by row, with the metrics' choices in each row.
//!
//! **Disagreement of metrics.** In a row, every metric with a direction prefers one image of each
//! pair, or none if both have the same score. A pair's disagreement is the size of the smaller side
//! divided by the largest size that a smaller side can have: 0 if all metrics prefer the same
//! image, 1 if they are divided as evenly as possible. A row's disagreement is the mean over its
//! pairs of images that at least two metrics decide.
//!
//! **Disagreement with people.** The mean, over the judgements of people on two images of the row,
//! of the share of metrics that prefer the other image; a metric without a preference counts half.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::alignment::JudgedPair;
use super::labels::size_class;
use super::ranks::more_is_better;
use crate::store::{RunData, Slice};

/// Order of the rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GallerySort {
    /// By the name of the samples.
    #[default]
    Name,
    /// Rows in which the metrics disagree most come first.
    Disagreement,
    /// Rows in which the metrics disagree most with people come first; rows without judgements come
    /// last.
    People,
}

/// Selects rows.
#[derive(Debug, Clone)]
pub struct GalleryFilter {
    /// Only samples of this slice.
    pub slice: Slice,
    /// Only samples of this person.
    pub identity: Option<String>,
}

/// Selection, order and page of the rows.
#[derive(Debug, Clone)]
pub struct GalleryOptions {
    /// Selects rows.
    pub filter: GalleryFilter,
    /// Only these metrics; all with a direction if `None`.
    pub metrics: Option<Vec<String>>,
    /// Order of the rows.
    pub sort: GallerySort,
    /// Number of rows to skip.
    pub offset: usize,
    /// Maximum number of rows.
    pub limit: usize,
}

/// One page of rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Gallery {
    /// Codes of the metrics, in the order of the scores.
    pub metrics: Vec<String>,
    /// Number of rows on all pages.
    pub total: usize,
    /// The rows.
    pub rows: Vec<GalleryRow>,
    /// Categories of the prompts, before any filter.
    pub categories: BTreeSet<String>,
    /// Kinds of the prompts, before any filter.
    pub prompt_kinds: BTreeSet<String>,
    /// People, before any filter.
    pub identities: BTreeSet<String>,
    /// Names of the people's attributes, before any filter.
    pub attributes: BTreeSet<String>,
}

/// Samples of one name.
#[derive(Debug, Clone, PartialEq)]
pub struct GalleryRow {
    /// Name of the samples.
    pub name: String,
    /// The person, as far as a run has it.
    pub identity: Option<String>,
    /// Disagreement of the metrics, 0 to 1; `None` if no pair of images is decided by two metrics.
    pub disagreement: Option<f64>,
    /// Disagreement of the metrics with people, 0 to 1; `None` without judgements or scores.
    pub against_people: Option<f64>,
    /// Judgements of people with a preference between two images of the row.
    pub votes: usize,
    /// The sample of each run, in the order of the runs; `None` if the run has none of this name.
    pub images: Vec<Option<GalleryImage>>,
}

/// A sample in a row.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GalleryImage {
    /// Scores in the order of the metrics, as measured.
    pub scores: Vec<Option<f64>>,
    /// Whether each metric has this image first in the row: no image of the row has a better score,
    /// and another one has a worse score.
    pub first: Vec<bool>,
}

/// Arranges samples of the same name. Rows have a sample of at least two runs, or of the only run.
/// The scores of all runs should be of one pack.
#[must_use]
pub fn gallery(
    runs: &[Arc<RunData>],
    judged: &[(String, JudgedPair)],
    options: &GalleryOptions,
) -> Gallery {
    let metrics = shared_metrics(runs, options.metrics.as_deref());
    let mut names: BTreeMap<&str, Vec<Option<usize>>> = BTreeMap::new();
    for (run, data) in runs.iter().enumerate() {
        for (at, name) in data.names.iter().enumerate() {
            names.entry(name).or_insert_with(|| vec![None; runs.len()])[run] = Some(at);
        }
    }
    let fewest = runs.len().min(2);
    names.retain(|_, places| places.iter().flatten().count() >= fewest);
    let mut found = Gallery { metrics, ..Gallery::default() };
    for places in names.values() {
        let (run, at) = first(places);
        found.categories.extend(runs[run].categories[at].iter().cloned());
        found.prompt_kinds.extend(runs[run].prompt_kinds[at].clone());
        found.identities.extend(runs[run].identities[at].clone());
    }
    for run in runs {
        found.attributes.extend(run.attributes.keys().cloned());
    }
    names.retain(|_, places| {
        let (run, at) = first(places);
        options.filter.has(&runs[run], at)
    });
    let mut votes: BTreeMap<&str, Vec<&JudgedPair>> = BTreeMap::new();
    for (name, pair) in judged.iter().filter(|(_, pair)| pair.preference != 0) {
        votes.entry(name).or_default().push(pair);
    }
    let row = |name: &str, places: &[Option<usize>]| {
        let judged = votes.get(name).map_or(&[][..], Vec::as_slice);
        found.row(runs, name, places, judged)
    };
    let mut order: Vec<_> = names
        .into_iter()
        .map(|(name, places)| {
            let key = match options.sort {
                GallerySort::Name => None,
                GallerySort::Disagreement => row(name, &places).disagreement,
                GallerySort::People => row(name, &places).against_people,
            };
            (name, places, key)
        })
        .collect();
    // The sort is stable: ties stay in the order of names, and rows without a key are last.
    order.sort_by(|(_, _, one), (_, _, other)| {
        other.unwrap_or(-1.0).total_cmp(&one.unwrap_or(-1.0))
    });
    let total = order.len();
    let page = order.into_iter().skip(options.offset).take(options.limit);
    let rows = page.map(|(name, places, _)| row(name, &places)).collect();
    Gallery { total, rows, ..found }
}

/// Returns the codes of the metrics in which some run has a number, in order of the registry.
/// Numbers of different versions of a metric are not compared: such a metric is left out.
pub(super) fn shared_metrics(runs: &[Arc<RunData>], wanted: Option<&[String]>) -> Vec<String> {
    let has = |code: &str| {
        let columns = runs.iter().filter_map(|run| run.metrics.get(code));
        let mut with_numbers = columns.filter(|column| column.values.iter().any(Option::is_some));
        let first = with_numbers.next().map(|column| column.version);
        first.is_some_and(|first| with_numbers.all(|column| column.version == first))
    };
    let codes = crate::metrics::REGISTRY.iter().map(|metric| metric.code);
    let is_wanted = |code: &&str| match wanted {
        Some(wanted) => wanted.iter().any(|each| each == code),
        None => more_is_better(code).is_some(),
    };
    codes.filter(is_wanted).filter(|code| has(code)).map(str::to_owned).collect()
}

/// Returns the first sample of a row: its run and its position.
fn first(places: &[Option<usize>]) -> (usize, usize) {
    let found = places.iter().enumerate().find_map(|(run, at)| Some((run, (*at)?)));
    found.expect("a row has a sample")
}

impl GalleryFilter {
    fn has(&self, run: &RunData, at: usize) -> bool {
        let Self { slice: Slice { kind, label }, identity } = self;
        let is_person =
            identity.as_ref().is_none_or(|name| run.identities[at].as_ref() == Some(name));
        let relations = run.relations[at];
        let has = |places: &[u32]| places.binary_search(&(at as u32)).is_ok();
        is_person
            && match &**kind {
                "" => true,
                Slice::PROMPT_KIND => run.prompt_kinds[at].as_ref() == Some(label),
                Slice::CATEGORY => run.categories[at].contains(label),
                Slice::RELATION => match &**label {
                    "interaction" => relations.interaction,
                    "location" => relations.location,
                    _ => !relations.interaction && !relations.location,
                },
                Slice::ATTRIBUTE => match label.strip_prefix('!') {
                    Some(name) => run.attributes.get(name).is_some_and(|of| has(&of.absent)),
                    None => run.attributes.get(label).is_some_and(|of| has(&of.present)),
                },
                Slice::SIZE => run.sizes[at]
                    .is_some_and(|(width, height)| size_class(width.min(height)) == label),
                fine => run
                    .labels
                    .get(fine)
                    .and_then(|labels| labels.get(label))
                    .is_some_and(|places| has(places)),
            }
    }
}

impl Gallery {
    fn row(
        &self,
        runs: &[Arc<RunData>],
        name: &str,
        places: &[Option<usize>],
        judged: &[&JudgedPair],
    ) -> GalleryRow {
        let score =
            |run: usize, at: usize, code: &String| *runs[run].metrics.get(code)?.values.get(at)?;
        let mut images: Vec<Option<GalleryImage>> = places
            .iter()
            .enumerate()
            .map(|(run, at)| {
                let scores = self.metrics.iter().map(|code| score(run, (*at)?, code));
                (*at).map(|_| GalleryImage {
                    scores: scores.collect(),
                    first: vec![false; self.metrics.len()],
                })
            })
            .collect();
        for (at, code) in self.metrics.iter().enumerate() {
            let Some(more) = more_is_better(code) else { continue };
            let sign = if more { 1.0 } else { -1.0 };
            let numbers = images.iter().flatten().filter_map(|image| image.scores[at]);
            let (worst, best) = numbers.fold((f64::INFINITY, f64::NEG_INFINITY), |ends, number| {
                (ends.0.min(sign * number), ends.1.max(sign * number))
            });
            for image in images.iter_mut().flatten() {
                let is_best = image.scores[at].is_some_and(|number| sign * number >= best);
                image.first[at] = is_best && worst < best;
            }
        }
        let (run, place) = first(places);
        let ids: Vec<Uuid> = runs.iter().map(|run| run.run).collect();
        let of = |id: Uuid| images[ids.iter().position(|each| *each == id)?].as_ref();
        let against: Vec<Option<f64>> = judged
            .iter()
            .filter_map(|pair| {
                let (a, b) = (of(pair.a)?, of(pair.b)?);
                let (mut with, mut against) = self.sides(a, b);
                if pair.preference < 0 {
                    (with, against) = (against, with);
                }
                let all = self.decided(a, b) as f64;
                let ties = all - (with + against) as f64;
                Some((all > 0.0).then(|| (against as f64 + ties / 2.0) / all))
            })
            .collect();
        GalleryRow {
            name: name.to_owned(),
            identity: runs[run].identities[place].clone(),
            disagreement: self.disagreement(&images),
            votes: against.len(),
            against_people: mean(against.into_iter().flatten()),
            images,
        }
    }

    fn disagreement(&self, images: &[Option<GalleryImage>]) -> Option<f64> {
        let images: Vec<&GalleryImage> = images.iter().flatten().collect();
        let pairs = images.iter().enumerate().flat_map(|(at, a)| {
            images[at + 1..].iter().filter_map(|b| {
                let (for_a, for_b) = self.sides(a, b);
                let largest = usize::midpoint(for_a, for_b);
                (largest > 0).then(|| for_a.min(for_b) as f64 / largest as f64)
            })
        });
        mean(pairs)
    }

    /// Counts the metrics that prefer each of two images.
    fn sides(&self, a: &GalleryImage, b: &GalleryImage) -> (usize, usize) {
        let mut sides = (0, 0);
        for (at, code) in self.metrics.iter().enumerate() {
            let (Some(a), Some(b), Some(more)) = (a.scores[at], b.scores[at], more_is_better(code))
            else {
                continue;
            };
            let order = if more { a.partial_cmp(&b) } else { b.partial_cmp(&a) };
            match order {
                Some(std::cmp::Ordering::Greater) => sides.0 += 1,
                Some(std::cmp::Ordering::Less) => sides.1 += 1,
                _ => {}
            }
        }
        sides
    }

    /// Counts the metrics with a direction in which both images have a score.
    fn decided(&self, a: &GalleryImage, b: &GalleryImage) -> usize {
        let both = |at: usize| a.scores[at].is_some() && b.scores[at].is_some();
        let codes = self.metrics.iter().enumerate();
        codes.filter(|(at, code)| both(*at) && more_is_better(code).is_some()).count()
    }
}

fn mean(numbers: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = numbers.fold((0.0, 0), |(sum, count), number| (sum + number, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

#[cfg(test)]
mod tests;
