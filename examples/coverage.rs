//! Simulates methods with known true means: coverage of the intervals, type I error and power of
//! the gate, and shared ranks of equal methods.
//!
//! ```sh
//! cargo run --release --example coverage -- 2000
//! ```
//!
//! A score is the sum of an effect of the identity, an interaction of identity and method (half as
//! large), and noise. Each part is normal or skewed with deviation 1; identities have unequal
//! numbers of prompts. The argument is the number of trials per line.

use std::collections::BTreeMap;
use std::io::Write as _;

use stellar_score::analysis::{CompareOptions, Finding, compare, summarise};
use stellar_score::stats::{ClusterMean, Rng, normal_quantile};
use stellar_score::store::{MetricColumn, RelationKinds, RunData, RunName, SliceSummary};

/// The distribution of the parts of a score; both have mean 0.
#[derive(Clone, Copy)]
enum Shape {
    Normal,
    /// Exponential, as scores near their ceiling are skewed.
    Skewed,
}

impl Shape {
    fn draw(self, rng: &mut Rng) -> f64 {
        let unit = rng.unit().max(1e-12);
        match self {
            Self::Normal => normal_quantile(unit),
            Self::Skewed => 1.0 + unit.ln(),
        }
    }
}

/// Simulates a run over identities with 1 to 9 prompts each. `people` seeds the identities and
/// their prompts, which all methods share.
fn simulate(shape: Shape, identities: usize, people: u64, own: u64, truth: f64) -> RunData {
    let (mut people, mut own) = (Rng::new(people), Rng::new(own));
    let (mut names, mut owners, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for identity in 0..identities {
        let person = shape.draw(&mut people);
        let suits = 0.5 * shape.draw(&mut own);
        for prompt in 0..=people.below(9) {
            names.push(format!("{identity:05}-{prompt}"));
            owners.push(Some(format!("person {identity}")));
            values.push(Some(truth + person + suits + shape.draw(&mut own)));
        }
    }
    let samples = names.len();
    let column = MetricColumn { version: 1, values, ..MetricColumn::default() };
    RunData {
        run: uuid::Uuid::nil(),
        name: RunName::new("simulated", None),
        pack: None,
        names,
        identities: owners,
        prompt_kinds: vec![None; samples],
        categories: vec![Vec::new(); samples],
        attributes: BTreeMap::new(),
        relations: vec![RelationKinds::default(); samples],
        labels: BTreeMap::new(),
        sizes: vec![None; samples],
        metrics: BTreeMap::from([("dino".to_owned(), column)]),
    }
}

fn whole(data: &RunData) -> SliceSummary {
    summarise(data, &BTreeMap::new()).slices.swap_remove(0)
}

/// Counts of trials.
#[derive(Default)]
struct Counts {
    run: u32,
    merged: u32,
    difference: u32,
    alarms: u32,
    power: u32,
    shared: u32,
}

fn trial(shape: Shape, identities: usize, seed: u64, counts: &mut Counts) {
    let own = |which: u64| seed * 10 + which;
    let people = own(0);
    let a = simulate(shape, identities, people, own(1), 0.0);
    let b = simulate(shape, identities, people, own(2), 0.0);
    let (of_a, of_b) = (whole(&a), whole(&b));
    let covers = |low: f64, high: f64| u32::from(low <= 0.0 && 0.0 <= high);
    let ends =
        |of: &SliceSummary| (of.low.expect("many clusters"), of.high.expect("many clusters"));
    let ((low_a, high_a), (low_b, high_b)) = (ends(&of_a), ends(&of_b));
    counts.run += covers(low_a, high_a);
    counts.shared += u32::from(low_a <= high_b && low_b <= high_a);

    // Merges two runs of one method over the same identities: sums by identity.
    let both: Vec<(f64, usize)> = of_a
        .sums
        .iter()
        .zip(&of_b.sums)
        .map(|(one, other)| (one.0 + other.0, one.1 + other.1))
        .collect();
    let merged = ClusterMean::new(&both).expect("many clusters").interval(0.95);
    counts.merged += covers(merged.low, merged.high);

    let options = CompareOptions { slices: false, resamples: 2_000, ..CompareOptions::default() };
    let equal = &compare(&a, &b, &options).slices[0].metrics[0];
    counts.difference +=
        covers(equal.low.expect("many clusters"), equal.high.expect("many clusters"));
    counts.alarms += u32::from(equal.finding == Finding::Worse);
    let worse = simulate(shape, identities, people, own(1), -0.4);
    counts.power +=
        u32::from(compare(&worse, &b, &options).slices[0].metrics[0].finding == Finding::Worse);
}

fn main() -> std::io::Result<()> {
    let trials: u32 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(500);
    let mut out = std::io::stdout();
    let error = |share: f64| 100.0 * (share * (1.0 - share) / f64::from(trials)).sqrt();
    writeln!(
        out,
        "{trials} trials per line; shares in % (standard error {:.2} of 95, {:.2} of 2.5)",
        error(0.95),
        error(0.025)
    )?;
    writeln!(
        out,
        "{:<8} {:>10} {:>12} {:>14} {:>12} {:>12} {:>14} {:>12}",
        "scores",
        "identities",
        "run covers",
        "merged covers",
        "A-B covers",
        "false alarm",
        "power at -0.4",
        "equal share"
    )?;
    for (name, shape) in [("normal", Shape::Normal), ("skewed", Shape::Skewed)] {
        for identities in [5, 10, 20, 40, 200] {
            let mut counts = Counts::default();
            for seed in 0..trials {
                trial(shape, identities, 1 + u64::from(seed), &mut counts);
            }
            let percent = |count: u32| 100.0 * f64::from(count) / f64::from(trials);
            let Counts { run, merged, difference, alarms, power, shared } = counts;
            writeln!(
                out,
                "{name:<8} {identities:>10} {:>12.1} {:>14.1} {:>12.1} {:>12.1} {:>14.1} {:>12.1}",
                percent(run),
                percent(merged),
                percent(difference),
                percent(alarms),
                percent(power),
                percent(shared)
            )?;
        }
    }
    Ok(())
}
