//! The items of a study, and the order in which their images are shown.

use uuid::Uuid;

use crate::content::ContentHash;
use crate::stats::Rng;
use crate::store::{StudyForm, StudyItem, StudyPlan};

/// Maximum number of different sets of methods: they are chosen in quadratic time.
pub const MOST_SETS: usize = 5_000;

/// Returns the number of sets of `k` out of `n`, at most [`MOST_SETS`] + 1.
#[must_use]
pub fn sets(n: usize, k: usize) -> usize {
    let mut count: usize = 1;
    for step in 0..k.min(n) {
        count = count.saturating_mul(n - step) / (step + 1);
        if count > MOST_SETS {
            return MOST_SETS + 1;
        }
    }
    count
}

/// Returns the number of items for each prompt.
#[must_use]
pub fn sets_per_prompt(plan: &StudyPlan) -> usize {
    let all = sets(plan.runs.len(), plan.images());
    let by_default = if plan.form == StudyForm::Pairs { all } else { 1 };
    plan.sets_per_prompt.map_or(by_default, |given| given as usize)
}

/// Draws the items of a study from the names of the samples that its runs have in common; gold
/// items are last. The seed of the plan decides.
///
/// Sets of runs are chosen so that every two runs meet about equally often. Items of one prompt are
/// far apart, and the prompts are shuffled, so that an annotator does not meet one person after the
/// other.
#[must_use]
pub fn draw_items(plan: &StudyPlan, mut names: Vec<String>) -> Vec<StudyItem> {
    names.sort_unstable();
    names.dedup();
    let mut rng = Rng::new(number(&[b"prompts", &plan.seed.to_le_bytes()]));
    shuffle(&mut names, &mut rng);
    if let Some(sample) = plan.prompts.sample {
        names.truncate(sample as usize);
    }
    let each = sets_per_prompt(plan);
    let sets = balanced(plan.runs.len(), plan.images(), names.len() * each, &mut rng);
    let mut items = Vec::with_capacity(names.len() * each);
    for set in 0..each {
        for (prompt, name) in names.iter().enumerate() {
            // Sets of one prompt follow each other, so that they differ.
            let chosen = &sets[(prompt * each + set) % sets.len()];
            items.push(StudyItem {
                place: items.len() as u32,
                name: name.clone(),
                runs: chosen.iter().map(|at| plan.runs[*at]).collect(),
                right: None,
            });
        }
    }
    for gold in plan.gold.iter().flat_map(|gold| &gold.items) {
        items.push(StudyItem {
            place: items.len() as u32,
            name: gold.name.clone(),
            runs: gold.runs.clone(),
            right: Some(gold.right),
        });
    }
    items
}

/// Returns different sets of `k` out of `n`, at most `wanted`: each is the one whose members have
/// met least in those before.
fn balanced(n: usize, k: usize, wanted: usize, rng: &mut Rng) -> Vec<Vec<usize>> {
    let mut left = combinations(n, k);
    shuffle(&mut left, rng);
    let mut met = vec![0_u32; n * n];
    let mut chosen = Vec::new();
    while chosen.len() < wanted.max(1) && !left.is_empty() {
        let cost = |set: &Vec<usize>| -> u32 {
            let pairs = set.iter().flat_map(|a| set.iter().map(move |b| (a, b)));
            pairs.map(|(a, b)| met[a * n + b]).sum()
        };
        let best = (0..left.len()).min_by_key(|at| cost(&left[*at])).unwrap_or_default();
        let set = left.swap_remove(best);
        for a in &set {
            for b in &set {
                met[a * n + b] += 1;
            }
        }
        chosen.push(set);
    }
    chosen
}

fn combinations(n: usize, k: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for _ in 0..k {
        all = all
            .into_iter()
            .flat_map(|set: Vec<usize>| {
                let first = set.last().map_or(0, |last| last + 1);
                (first..n).map(move |next| set.iter().copied().chain([next]).collect())
            })
            .collect();
    }
    all
}

/// Returns the runs of an item in the order in which an annotator is shown their images. Seed,
/// annotator and item decide, so that a reload does not change it.
///
/// Items come in blocks of as many as there are images. A random order of each annotator and block
/// is rotated by one from item to item (a cyclic Latin square), so that over a block every place is
/// in every position once.
#[must_use]
pub fn shown_order(seed: u32, annotator: &str, item: &StudyItem) -> Vec<Uuid> {
    let k = item.runs.len();
    let (block, row) = (item.place as usize / k.max(1), item.place as usize % k.max(1));
    let mut order: Vec<usize> = (0..k).collect();
    let parts: [&[u8]; 4] =
        [b"order", &seed.to_le_bytes(), annotator.as_bytes(), &(block as u64).to_le_bytes()];
    shuffle(&mut order, &mut Rng::new(number(&parts)));
    (0..k).map(|at| item.runs[order[(at + row) % k]]).collect()
}

/// Returns the item at which an annotator begins, the first of a block.
#[must_use]
pub fn first_item(seed: u32, annotator: &str, items: usize, images: usize) -> u32 {
    let blocks = items / images.max(1);
    if blocks == 0 {
        return 0;
    }
    let drawn = number(&[b"start", &seed.to_le_bytes(), annotator.as_bytes()]);
    ((drawn % blocks as u64) as usize * images) as u32
}

/// Returns the gold item that an annotator is asked about after so many items, if it is the turn of
/// one: one at a random turn of each round of `every`.
#[must_use]
pub fn gold_turn<'a>(
    seed: u32,
    annotator: &str,
    every: u32,
    answered: usize,
    open: &'a [StudyItem],
) -> Option<&'a StudyItem> {
    let (round, turn) = (answered as u64 / u64::from(every), answered as u64 % u64::from(every));
    let parts: [&[u8]; 4] =
        [b"gold", &seed.to_le_bytes(), annotator.as_bytes(), &round.to_le_bytes()];
    let drawn = number(&parts);
    if open.is_empty() || turn != drawn % u64::from(every) {
        return None;
    }
    open.get((drawn >> 32) as usize % open.len())
}

/// Returns a number that these parts decide.
fn number(parts: &[&[u8]]) -> u64 {
    let hash = ContentHash::of_parts(parts.iter().copied());
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(bytes)
}

/// Shuffles a list (R. Durstenfeld, *Algorithm 235*, Communications of the ACM 7(7), 1964).
fn shuffle<T>(list: &mut [T], rng: &mut Rng) {
    for last in (1..list.len()).rev() {
        list.swap(last, rng.below(last + 1));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    pub(in super::super) fn plan(runs: usize, form: &str, k: u32) -> StudyPlan {
        let runs: Vec<Uuid> = (1..=runs).map(|at| Uuid::from_u128(at as u128)).collect();
        let plan = serde_json::json!({"name": "s", "runs": runs, "form": form, "k": k});
        serde_json::from_value(plan).unwrap()
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|at| format!("{at:03}")).collect()
    }

    #[test]
    fn all_pairs_of_a_prompt_are_asked_and_are_far_apart() {
        let items = draw_items(&plan(4, "pairs", 2), names(10));
        assert_eq!(items.len(), 60);
        let first: BTreeSet<&str> = items[..10].iter().map(|item| &*item.name).collect();
        assert_eq!(first.len(), 10);
        let pairs: BTreeSet<_> = items.iter().map(|item| (&item.name, &item.runs)).collect();
        assert_eq!(pairs.len(), 60);
    }

    #[test]
    fn methods_meet_equally_often_and_the_seed_decides() {
        let of = plan(8, "best_of", 4);
        let items = draw_items(&of, names(70));
        let mut met: BTreeMap<(Uuid, Uuid), usize> = BTreeMap::new();
        for item in &items {
            for a in &item.runs {
                for b in &item.runs {
                    *met.entry((*a, *b)).or_default() += 1;
                }
            }
        }
        // 70 sets of 4 out of 8: each method in 35, every two together in 15.
        for ((a, b), times) in met {
            assert_eq!(times, if a == b { 35 } else { 15 });
        }
        assert_eq!(items, draw_items(&of, names(70)));
        assert_ne!(items, draw_items(&StudyPlan { seed: 1, ..of }, names(70)));
    }

    #[test]
    fn every_method_is_in_every_position_equally_often() {
        let items = draw_items(&plan(4, "best_of", 4), names(40));
        let mut seen: BTreeMap<(Uuid, usize), usize> = BTreeMap::new();
        for item in &items {
            let shown = shown_order(7, "ada", item);
            assert_eq!(shown, shown_order(7, "ada", item));
            for (position, run) in shown.iter().enumerate() {
                *seen.entry((*run, position)).or_default() += 1;
            }
        }
        assert_eq!(seen.len(), 16);
        assert!(seen.values().all(|times| *times == 10), "{seen:?}");
        let differ = items
            .iter()
            .filter(|item| shown_order(7, "ada", item) != shown_order(7, "bob", item))
            .count();
        assert!(differ > 20, "{differ}");
    }

    #[test]
    fn one_of_every_ten_items_is_gold_while_there_are_any() {
        let gold = [StudyItem { place: 9, name: "g".into(), runs: vec![], right: None }];
        let turns = |open: &[StudyItem]| {
            (0..50).filter(|at| gold_turn(0, "ada", 10, *at, open).is_some()).count()
        };
        assert_eq!((turns(&gold), turns(&[])), (5, 0));
    }

    #[test]
    fn sets_are_counted_up_to_the_limit() {
        assert_eq!((sets(4, 4), sets(4, 2), sets(20, 4), sets(20, 8)), (1, 6, 4_845, 5_001));
        assert_eq!(combinations(6, 3).len(), 20);
    }
}
