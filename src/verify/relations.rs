//! Validation of a scene graph: true relations of images are compared with the same relations with
//! another predicate, and with another object.
//!
//! Replacements are drawn from the true relations elsewhere in the same list, with their frequency.
//! A model that only knows which predicates are common therefore gets one half, like a random one.

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};

use crate::{
    metrics::{self, FeatureSource},
    pack_id::{PackId, Weights},
    scoring::{EncodedImage, Metadata, RelationEvidence, Sample, Scoring},
    stats::{Bootstrap, Interval, Rng},
};

/// Number of images scored concurrently, so that the graphs run in batches.
const AT_ONCE: usize = 4;

/// Maximum number of relations of one image scored together.
const IN_ONE_GO: usize = 256;

type Triplet = [String; 3];

/// One line of the list: an image and the relations that hold in it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrueImage {
    /// Image file, relative to the list.
    pub image: PathBuf,
    /// Subject, predicate and object of each relation.
    pub relations: Vec<Triplet>,
}

/// Options of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Number of false relations of each kind to draw per true one.
    pub negatives: usize,
    /// Seed of the draws and of the intervals.
    pub seed: u64,
}

/// Result of a comparison.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The pack of the scene graph.
    pub pack: PackId,
    /// Kind of the scene graph.
    pub backend: String,
    /// Name of the checkpoint that it was exported from.
    pub checkpoint: String,
    /// How to read the numbers.
    pub note: &'static str,
    /// Number of images with relations.
    pub images: usize,
    /// Number of true relations, each counted once per image.
    pub relations: usize,
    /// True relations outside the graph's vocabulary, which are left out.
    pub unmapped: usize,
    /// Number of false relations of each kind drawn per true one.
    pub negatives: usize,
    /// Seed of the draws.
    pub seed: u64,
    /// Comparison with the same relation with another predicate.
    pub swapped_predicate: Ordering,
    /// Comparison with the same relation with another object.
    pub swapped_object: Ordering,
}

/// Share of comparisons in which the true relation scores above the false one.
#[derive(Debug, Default, Serialize)]
pub struct Ordering {
    /// Number of true relations for which a false one could be drawn.
    pub relations: usize,
    /// Number of comparisons.
    pub pairs: usize,
    /// Comparisons in which both score the same; each counts half.
    pub ties: usize,
    /// Share of comparisons in which the true relation is above, averaged over true relations; null
    /// without any.
    pub above: Option<f64>,
    /// 95 % confidence interval of that share, resampling images; null for fewer than two images.
    pub interval: Option<[f64; 2]>,
}

/// Reads a list, one JSON object per line.
///
/// # Errors
/// A file that cannot be read, an invalid line, or a list without relations.
pub fn read_pairs(path: &Path) -> anyhow::Result<Vec<TrueImage>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let images: Vec<TrueImage> = lines
        .map(|(at, line)| {
            let image: TrueImage = serde_json::from_str(line).with_context(|| {
                format!(
                    "{}:{}: not of the form {{\"image\": \"a.jpg\", \"relations\": \
                        [[\"person\", \"riding\", \"horse\"]]}}",
                    path.display(),
                    at + 1
                )
            })?;
            Ok(TrueImage { image: folder.join(image.image), ..image })
        })
        .collect::<anyhow::Result<_>>()?;
    anyhow::ensure!(
        images.iter().any(|image| !image.relations.is_empty()),
        "{} lists no image with a relation",
        path.display()
    );
    Ok(images)
}

/// Scores true and false relations, and compares.
///
/// # Errors
/// A pack without a scene graph, an image that cannot be read, or a graph that fails.
pub async fn compare(
    scoring: &Scoring,
    images: &[TrueImage],
    settings: Settings,
    read: impl Fn(&Path) -> anyhow::Result<EncodedImage>,
) -> anyhow::Result<Report> {
    let pack = scoring.pack();
    let graph = pack.graph(FeatureSource::SCENE_GRAPH).with_context(|| {
        format!(
            "pack {} has no scene graph: use a pack with a graph of the role `{}`",
            pack.name,
            FeatureSource::SCENE_GRAPH,
        )
    })?;
    let mut truths = Vec::new();
    for image in images {
        truths.push(scoring.words_of(&image.relations).await?);
    }
    let questions = questions(&truths, settings);
    let scores: Vec<BTreeMap<Triplet, f64>> = stream::iter(images.iter().zip(&questions))
        .map(|(image, questions)| {
            let image = read(&image.image);
            async { ask(scoring, image?, questions).await }
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;

    let mut tallies = [Tally::default(), Tally::default()];
    for (questions, scores) in questions.iter().zip(&scores) {
        for tally in &mut tallies {
            tally.clusters.push((0.0, 0));
        }
        for question in questions {
            let Some(truth) = scores.get(&question.truth) else { continue };
            let score = |wrong: &Vec<Triplet>| -> Vec<f64> {
                wrong.iter().filter_map(|triplet| scores.get(triplet)).copied().collect()
            };
            for (tally, wrong) in tallies.iter_mut().zip([&question.predicates, &question.objects])
            {
                tally.add(*truth, &score(wrong));
            }
        }
    }
    let bootstrap = Bootstrap { seed: settings.seed, ..Bootstrap::default() };
    let [swapped_predicate, swapped_object] = tallies.map(|tally| tally.ordering(&bootstrap));
    Ok(Report {
        pack: pack.id(),
        backend: graph.backend.clone().unwrap_or_default(),
        checkpoint: graph.source.checkpoint.clone(),
        note: match pack.weights {
            Weights::Official | Weights::Imported => "chance level is one half",
            Weights::Demo => {
                "demo weights: the numbers mean nothing, expect chance level, one half"
            }
        },
        images: images.iter().filter(|image| !image.relations.is_empty()).count(),
        relations: truths.iter().map(Vec::len).sum(),
        unmapped: truths.iter().flatten().filter(|truth| truth.unmapped.is_some()).count(),
        negatives: settings.negatives,
        seed: settings.seed,
        swapped_predicate,
        swapped_object,
    })
}

/// A true relation and false ones to compare with it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Question {
    truth: Triplet,
    predicates: Vec<Triplet>,
    objects: Vec<Triplet>,
}

/// Draws false relations for every true one within the graph's vocabulary.
fn questions(truths: &[Vec<RelationEvidence>], settings: Settings) -> Vec<Vec<Question>> {
    let mapped = |truth: &&RelationEvidence| truth.unmapped.is_none();
    let all: Vec<&RelationEvidence> = truths.iter().flatten().filter(mapped).collect();
    let mut rng = Rng::new(settings.seed);
    let mut draw = |candidates: &[Triplet]| -> Vec<Triplet> {
        let count = if candidates.is_empty() { 0 } else { settings.negatives };
        (0..count).map(|_| candidates[rng.below(candidates.len())].clone()).collect()
    };
    let of_image = |here: &Vec<RelationEvidence>| {
        let here: Vec<&RelationEvidence> = here.iter().filter(mapped).collect();
        here.iter()
            .map(|truth| {
                // Excludes predicates that the graph may see as true between the person and this
                // object.
                let with_it = here.iter().filter(|other| same_object(truth, other));
                let held: HashSet<&String> = with_it.flat_map(|other| &other.seen_as).collect();
                let predicates: Vec<Triplet> = all
                    .iter()
                    .filter(|other| other.seen_as.iter().all(|name| !held.contains(name)))
                    .map(|other| triplet(truth, &other.predicate, &truth.object))
                    .collect();
                let objects: Vec<Triplet> = all
                    .iter()
                    .filter(|other| here.iter().all(|present| !same_object(present, other)))
                    .map(|other| triplet(truth, &truth.predicate, &other.object))
                    .collect();
                Question {
                    truth: triplet(truth, &truth.predicate, &truth.object),
                    predicates: draw(&predicates),
                    objects: draw(&objects),
                }
            })
            .collect()
    };
    truths.iter().map(of_image).collect()
}

fn triplet(truth: &RelationEvidence, predicate: &str, object: &str) -> Triplet {
    [truth.subject.clone(), predicate.to_owned(), object.to_owned()]
}

/// Returns whether two objects may be the same thing, by their words or by a class of the graph.
fn same_object(a: &RelationEvidence, b: &RelationEvidence) -> bool {
    a.object.trim().to_lowercase() == b.object.trim().to_lowercase()
        || a.classes.iter().any(|class| b.classes.contains(class))
}

/// Scores all relations of the questions; relations without a score are left out.
async fn ask(
    scoring: &Scoring,
    image: EncodedImage,
    questions: &[Question],
) -> anyhow::Result<BTreeMap<Triplet, f64>> {
    let metric = metrics::find("rfs").context("rfs is not a metric")?;
    let distinct: HashSet<&Triplet> = questions
        .iter()
        .flat_map(|question| {
            std::iter::once(&question.truth).chain(&question.predicates).chain(&question.objects)
        })
        .collect();
    let mut triplets: Vec<Triplet> = distinct.into_iter().cloned().collect();
    triplets.sort_unstable();
    let mut scores = BTreeMap::new();
    for relations in triplets.chunks(IN_ONE_GO) {
        let metadata = Metadata { relations: relations.to_vec(), ..Metadata::default() };
        let sample = Sample {
            image: image.clone(),
            prompt: None,
            references: Vec::new(),
            auxiliary: Vec::new(),
            metadata,
            dataset: None,
        };
        let card = scoring.score(&sample, &[metric]).await?;
        scores.extend(card.relations.into_iter().filter_map(|found| {
            let RelationEvidence { subject, predicate, object, score, .. } = found;
            Some(([subject, predicate, object], score?))
        }));
    }
    Ok(scores)
}

/// Running sums of comparisons of one kind.
#[derive(Debug, Default)]
struct Tally {
    /// Sum and count of the true relations' shares by image.
    clusters: Vec<(f64, usize)>,
    pairs: usize,
    ties: usize,
}

impl Tally {
    fn add(&mut self, truth: f64, wrong: &[f64]) {
        let Some(cluster) = self.clusters.last_mut().filter(|_| !wrong.is_empty()) else { return };
        let points = |wrong: &f64| match truth.total_cmp(wrong) {
            std::cmp::Ordering::Greater => 1.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Less => 0.0,
        };
        cluster.0 += wrong.iter().map(points).sum::<f64>() / wrong.len() as f64;
        cluster.1 += 1;
        self.pairs += wrong.len();
        self.ties += wrong.iter().filter(|&wrong| truth.total_cmp(wrong).is_eq()).count();
    }

    fn ordering(self, bootstrap: &Bootstrap) -> Ordering {
        let sum: f64 = self.clusters.iter().map(|(sum, _)| sum).sum();
        let relations: usize = self.clusters.iter().map(|(_, count)| count).sum();
        Ordering {
            relations,
            pairs: self.pairs,
            ties: self.ties,
            above: (relations > 0).then(|| sum / relations as f64),
            interval: bootstrap.mean(&self.clusters).map(|interval| {
                let Interval { low, high } = interval.within(0.0, 1.0);
                [low, high]
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::relations::{RelationKind, RelationSource};

    const SETTINGS: Settings = Settings { negatives: 20, seed: 3 };

    fn truth(
        predicate: &str,
        object: &str,
        seen_as: &[&str],
        classes: &[&str],
    ) -> RelationEvidence {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        RelationEvidence {
            subject: "person".into(),
            predicate: predicate.into(),
            object: object.into(),
            kind: RelationKind::Interaction,
            source: RelationSource::Annotation,
            seen_as: owned(seen_as),
            classes: owned(classes),
            approximate: false,
            nearest: None,
            unmapped: None,
            score: None,
            strict: None,
            factors: None,
            subject_box: None,
            object_box: None,
            grounding: None,
            truncated: false,
        }
    }

    fn truths() -> Vec<Vec<RelationEvidence>> {
        vec![
            vec![
                truth("riding", "horse", &["riding", "on"], &["horse"]),
                truth("near", "tree", &["near"], &["tree"]),
            ],
            vec![truth("on", "pony", &["on"], &["horse"])],
            vec![truth("holding", "Cup", &["holding"], &["cup"])],
        ]
    }

    #[test]
    fn false_relations_are_true_elsewhere_and_cannot_be_true_here() {
        let asked = questions(&truths(), SETTINGS);
        let of = |wrong: &[Triplet], at: usize| -> HashSet<String> {
            wrong.iter().map(|triplet| triplet[at].clone()).collect()
        };
        let riding = &asked[0][0];
        assert_eq!(riding.predicates.len(), 20);
        assert_eq!(
            of(&riding.predicates, 1),
            HashSet::from(["near".into(), "holding".into()]),
            "`on` may hold"
        );
        assert_eq!(
            of(&riding.objects, 2),
            HashSet::from(["Cup".into()]),
            "a pony may be the horse"
        );
        assert!(riding.predicates.iter().all(|wrong| wrong[2] == "horse"));
        assert!(riding.objects.iter().all(|wrong| wrong[1] == "riding"));
        assert_eq!(questions(&truths(), SETTINGS), asked, "the same seed draws the same");
        assert_ne!(questions(&truths(), Settings { seed: 4, ..SETTINGS }), asked);
    }

    #[test]
    fn relations_outside_the_vocabulary_are_left_out() {
        let mut truths = truths();
        truths[0][0].unmapped = Some(crate::metrics::Unmapped::Predicate);
        let asked = questions(&truths, SETTINGS);
        assert_eq!(asked[0].len(), 1);
        assert!(asked.iter().flatten().all(|question| {
            question.predicates.iter().chain(&question.objects).all(|wrong| wrong[1] != "riding")
        }));
    }

    #[test]
    fn ties_count_half_and_images_are_resampled_as_wholes() {
        let mut tally = Tally::default();
        tally.clusters.push((0.0, 0));
        tally.add(0.5, &[0.4, 0.5, 0.6, 0.1]);
        tally.add(0.5, &[]);
        let alone = Tally { clusters: tally.clusters.clone(), ..Tally::default() };
        assert_eq!(alone.ordering(&Bootstrap::default()).interval, None, "one image has no spread");
        tally.clusters.push((0.0, 0));
        tally.add(0.9, &[0.1]);
        let ordering = tally.ordering(&Bootstrap::default());
        assert_eq!((ordering.relations, ordering.pairs, ordering.ties), (2, 5, 1));
        assert!((ordering.above.unwrap() - f64::midpoint(0.625, 1.0)).abs() < 1e-12);
        let [low, high] = ordering.interval.unwrap();
        let share = ordering.above.unwrap();
        assert!(low >= 0.0 && low < share, "{low} to {high}");
        assert!(high <= 1.0 && high > share, "two images give a wide interval: {low} to {high}");
    }

    #[test]
    fn errors_name_the_line_that_is_invalid() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("pairs.jsonl");
        let read = |text: &str| {
            std::fs::write(&list, text).unwrap();
            read_pairs(&list).map_err(|error| format!("{error:#}"))
        };
        let line = r#"{"image": "a.jpg", "relations": [["person", "on", "horse"]]}"#;
        assert_eq!(read(&format!("{line}\n\n")).unwrap()[0].image, folder.path().join("a.jpg"));
        assert!(
            read(&format!("{line}\n{{}}\n"))
                .unwrap_err()
                .contains("pairs.jsonl:2: not of the form")
        );
        assert!(read("\n").unwrap_err().contains("lists no image"));
    }
}
