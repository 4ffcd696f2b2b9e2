//! Simulates studies with known strengths: how often the intervals of shares and strengths contain
//! the truth.
//!
//! ```sh
//! cargo run --release -p stellar-stats --example studies -- 2000
//! ```
//!
//! Annotators choose one of the images of an item with the probabilities of the Plackett-Luce
//! model. Each prompt changes the strength of each method by a normal effect, which all annotators
//! share, so that answers about one prompt are alike. The truth of a share is its mean over
//! prompts; that of a strength is what endless answers about endless prompts would give. The
//! argument is the number of rounds per line.

use std::io::Write as _;

use stellar_stats::{
    Bootstrap, Choice, Rng, choice_model, normal_quantile, share_intervals, student_quantile,
};

/// A kind of study.
struct Design {
    methods: usize,
    images: usize,
    prompts: usize,
    answers: usize,
    /// Standard deviation of the effect of a prompt on a method.
    effect: f64,
}

/// Returns known strengths from 0.6 down to −0.6.
fn strengths(methods: usize) -> Vec<f64> {
    (0..methods).map(|at| 0.6 - 1.2 * at as f64 / (methods - 1) as f64).collect()
}

fn draw(rng: &mut Rng, set: &[usize], of: &[f64]) -> usize {
    let parts: Vec<f64> = set.iter().map(|method| of[*method].exp()).collect();
    let mut left = rng.unit() * parts.iter().sum::<f64>();
    for (method, part) in set.iter().zip(&parts) {
        left -= part;
        if left < 0.0 {
            return *method;
        }
    }
    set[set.len() - 1]
}

/// Returns the strengths for one prompt.
fn of_prompt(rng: &mut Rng, design: &Design) -> Vec<f64> {
    let mut of = strengths(design.methods);
    for strength in &mut of {
        *strength += design.effect * normal_quantile(rng.unit().max(1e-12));
    }
    of
}

/// Returns a set of methods; all sets are used equally often over many prompts.
fn set(rng: &mut Rng, design: &Design) -> Vec<usize> {
    let mut all: Vec<usize> = (0..design.methods).collect();
    for last in (1..all.len()).rev() {
        all.swap(last, rng.below(last + 1));
    }
    all.truncate(design.images);
    all.sort_unstable();
    all
}

fn simulate(rng: &mut Rng, design: &Design) -> Vec<Choice> {
    let mut choices = Vec::new();
    for cluster in 0..design.prompts {
        let (set, of) = (set(rng, design), of_prompt(rng, design));
        for _ in 0..design.answers {
            let chosen = draw(rng, &set, &of);
            choices.push(Choice { set: set.clone(), chosen, times: 1.0, cluster });
        }
    }
    choices
}

/// Returns sums and counts of each method by prompt.
fn sums(design: &Design, choices: &[Choice]) -> Vec<Vec<(f64, usize)>> {
    let mut sums = vec![vec![(0.0, 0); design.prompts]; design.methods];
    for choice in choices {
        for &method in &choice.set {
            sums[method][choice.cluster].1 += 1;
        }
        sums[choice.chosen][choice.cluster].0 += choice.times;
    }
    sums
}

fn main() {
    let rounds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(200_u64);
    let mut out = std::io::stdout().lock();
    let _ = writeln!(
        out,
        "| methods | images | prompts | answers each | prompt effect | share, % | strength, % | \
            difference, % | penalised, % |\n|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    );
    for (methods, images, prompts, answers, effect) in [
        (4, 4, 20, 3, 0.0),
        (4, 4, 20, 3, 0.7),
        (4, 4, 40, 1, 0.7),
        (4, 4, 60, 5, 0.0),
        (4, 4, 60, 5, 0.7),
        (4, 4, 200, 5, 0.7),
        (8, 4, 60, 5, 0.0),
        (8, 4, 200, 5, 0.7),
        (2, 2, 60, 3, 0.7),
    ] {
        let design = Design { methods, images, prompts, answers, effect };
        // The truth, from a study that is far larger than those of the rounds.
        let endless = Design { prompts: 200_000, answers: 1, ..design };
        let all = simulate(&mut Rng::new(u64::MAX), &endless);
        let truth = choice_model(methods, &all, 0.0).expect("all methods were chosen").strengths;
        let shares: Vec<f64> = sums(&endless, &all)
            .iter()
            .map(|of| {
                let count: usize = of.iter().map(|(_, count)| count).sum();
                of.iter().map(|(sum, _)| sum).sum::<f64>() / count as f64
            })
            .collect();
        let (mut share, mut strength, mut difference, mut penalised) = (0, 0, 0, 0);
        for round in 0..rounds {
            let choices = simulate(&mut Rng::new(round), &design);
            let options = Bootstrap { resamples: 1_000, ..Bootstrap::default() };
            let intervals = share_intervals(&options, &sums(&design, &choices));
            for (interval, truth) in intervals.iter().zip(&shares) {
                let covers = interval.is_some_and(|(of, _)| of.low <= *truth && *truth <= of.high);
                share += u64::from(covers);
            }
            let fit = choice_model(methods, &choices, 0.0).or_else(|_| {
                penalised += 1;
                choice_model(methods, &choices, 0.5)
            });
            let Ok(fit) = fit else { continue };
            let reach = student_quantile(0.975, fit.clusters - 1);
            for (at, truth) in truth.iter().enumerate() {
                let error = fit.covariance[at * methods + at].sqrt();
                strength += u64::from((fit.strengths[at] - truth).abs() <= reach * error);
            }
            let (found, error) = fit.difference(0, methods - 1);
            let error = error.unwrap_or_default();
            let off = found - (truth[0] - truth[methods - 1]);
            difference += u64::from(off.abs() <= reach * error);
        }
        let percent = |count: u64, of: u64| 100.0 * count as f64 / of as f64;
        let each = rounds * methods as u64;
        let _ = writeln!(
            out,
            "| {methods} | {images} | {prompts} | {answers} | {effect} | {:.1} | {:.1} | {:.1} | {:.1} |",
            percent(share, each),
            percent(strength, each),
            percent(difference, rounds),
            percent(penalised, rounds)
        );
        let _ = out.flush();
    }
}
