//! Simulates claims about metrics and methods with known truth: the size of tests of differences of
//! Kendall's tau, and the coverage of intervals of these differences, of shares of first places, of
//! penalised strengths, and of variance components.
//!
//! ```sh
//! cargo run --release -p stellar-stats --example claims -- 2000
//! ```
//!
//! The argument is the number of rounds per line. Truths without a formula are those of one very
//! large simulation.

use stellar_stats::{
    Bootstrap, Choice, ClusterSums, NestedSums, Rng, Variances, choice_model, holm_of,
    normal_quantile, share_intervals, student_quantile, tau_difference, variances,
};

fn normal(rng: &mut Rng) -> f64 {
    normal_quantile(rng.unit().max(1e-12))
}

fn percent(count: usize, of: usize) -> String {
    format!("{:.1}", 100.0 * count as f64 / of.max(1) as f64)
}

/// A comparison of metrics: people with prompts, two images for each, and votes on them.
struct Votes {
    people: usize,
    /// Prompts per person: from 1 to twice as many less 1.
    prompts: usize,
    /// Correlation of each metric with the quality of images.
    quality: Vec<f64>,
    /// Part of the metrics' noise that all metrics share.
    shared: f64,
}

/// Returns the orders of each pair by people and by each metric, with the person.
fn votes(rng: &mut Rng, design: &Votes) -> Vec<(usize, f64, Vec<f64>)> {
    let mut pairs = Vec::new();
    for person in 0..design.people {
        // What a metric makes of this face, for each of the two methods.
        let own: Vec<f64> = design.quality.iter().map(|_| 0.7 * normal(rng)).collect();
        for _ in 0..=rng.below(2 * design.prompts - 1) {
            let (difference, common) = (normal(rng), normal(rng));
            let human = if difference + 0.7 * normal(rng) > 0.0 { 1.0 } else { -1.0 };
            let human = if rng.unit() < 0.1 { 0.0 } else { human };
            let orders = design.quality.iter().zip(&own).map(|(quality, own)| {
                let noise = design.shared.sqrt() * common
                    + (1.0 - design.shared).sqrt() * normal(rng)
                    + own;
                (quality * difference + (1.0 - quality * quality).sqrt() * noise).signum()
            });
            pairs.push((person, human, orders.collect()));
        }
    }
    pairs
}

fn sums(
    pairs: &[(usize, f64, Vec<f64>)],
    people: usize,
    a: usize,
    b: usize,
) -> Vec<ClusterSums<5>> {
    let mut sums = vec![([0.0; 5], 0); people];
    for (person, human, orders) in pairs {
        let (of, count) = &mut sums[*person];
        let parts =
            [human * orders[a], human * orders[b], human.abs(), orders[a].abs(), orders[b].abs()];
        of.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part);
        *count += 1;
    }
    sums
}

fn tau(pairs: &[(usize, f64, Vec<f64>)], metric: usize) -> f64 {
    let (mut sum, mut free, mut own) = (0.0, 0.0, 0.0);
    for (_, human, orders) in pairs {
        sum += human * orders[metric];
        free += human.abs();
        own += orders[metric].abs();
    }
    sum / (free * own).sqrt()
}

fn taus(out: &mut impl std::io::Write, rounds: usize) {
    let _ = writeln!(
        out,
        "| metrics | people | prompts each | better by | coverage, % | p < 0.05, % | \
            out of the best group, % | best alone, % |\n\
            |---:|---:|---:|---:|---:|---:|---:|---:|"
    );
    for (metrics, people, prompts, lead) in [
        (2, 10, 5, 0.0),
        (2, 20, 5, 0.0),
        (2, 40, 5, 0.0),
        (2, 100, 3, 0.0),
        (6, 20, 5, 0.0),
        (6, 100, 3, 0.0),
        (12, 20, 5, 0.0),
        (12, 100, 3, 0.0),
        (2, 40, 5, 0.3),
        (6, 100, 3, 0.3),
        (12, 100, 3, 0.3),
    ] {
        let mut quality = vec![0.4; metrics];
        quality[0] += lead;
        let design = Votes { people, prompts, quality, shared: 0.3 };
        let many = Votes { people: 100_000, quality: design.quality.clone(), ..design };
        let all = votes(&mut Rng::new(u64::MAX), &many);
        let truth = tau(&all, 0) - tau(&all, 1);
        // Equal metrics differ by nothing, not by the noise of a large simulation.
        let truth = if lead == 0.0 { 0.0 } else { truth };
        let (mut covered, mut rejected, mut wrong, mut alone) = (0, 0, 0, 0);
        for round in 0..rounds {
            let mut rng = Rng::new(round as u64);
            let pairs = votes(&mut rng, &design);
            let bootstrap = Bootstrap { resamples: 4_000, ..Bootstrap::default() };
            let one = bootstrap.smooth(tau_difference, &[sums(&pairs, people, 0, 1)])[0];
            if let Some((interval, p)) = one.and_then(|of| of.interval.zip(of.p)) {
                covered += usize::from(interval.low <= truth && truth <= interval.high);
                rejected += usize::from(p < 0.05);
            }
            let best = (0..metrics)
                .max_by(|a, b| tau(&pairs, *a).total_cmp(&tau(&pairs, *b)))
                .unwrap_or_default();
            let others: Vec<usize> = (0..metrics).filter(|at| *at != best).collect();
            let sets: Vec<_> = others.iter().map(|at| sums(&pairs, people, *at, best)).collect();
            let found = bootstrap.smooth(tau_difference, &sets);
            let p: Vec<f64> =
                found.iter().map(|of| of.and_then(|of| of.p).unwrap_or(1.0)).collect();
            let holm = holm_of(&p, metrics * (metrics - 1) / 2);
            let is_out = |at: &usize| holm[*at] < 0.05;
            let is_best = |at: &usize| lead == 0.0 || others[*at] == 0;
            wrong += usize::from((0..others.len()).any(|at| is_out(&at) && is_best(&at)));
            alone +=
                usize::from(lead > 0.0 && best == 0 && (0..others.len()).all(|at| is_out(&at)));
        }
        let power = if lead > 0.0 { percent(alone, rounds) } else { "–".to_owned() };
        let _ = writeln!(
            out,
            "| {metrics} | {people} | {prompts} | {truth:.2} | {} | {} | {} | {power} |",
            percent(covered, rounds),
            percent(rejected, rounds),
            percent(wrong, rounds),
        );
    }
}

fn first_places(out: &mut impl std::io::Write, rounds: usize) {
    let _ = writeln!(
        out,
        "\n| methods | people | prompts each | effect of a person | truth, % | coverage, % |\n\
            |---:|---:|---:|---:|---:|---:|"
    );
    for (methods, people, prompts, effect) in [
        (4, 10, 5, 0.7),
        (4, 20, 5, 0.7),
        (4, 40, 5, 0.7),
        (4, 200, 5, 0.7),
        (4, 200, 1, 0.0),
        (8, 20, 5, 0.7),
        (8, 100, 5, 0.7),
    ] {
        let draw = |rng: &mut Rng, people: usize| -> Vec<(f64, usize)> {
            (0..people)
                .map(|_| {
                    let own: Vec<f64> = (0..methods).map(|_| effect * normal(rng)).collect();
                    let count = 1 + rng.below(2 * prompts - 1);
                    let first = (0..count)
                        .filter(|_| {
                            let score = |at: usize, rng: &mut Rng| {
                                own[at] + normal(rng) - 0.3 * at.min(1) as f64
                            };
                            let first = score(0, rng);
                            (1..methods).all(|at| score(at, rng) < first)
                        })
                        .count();
                    (first as f64, count)
                })
                .collect()
        };
        let share = |of: &[(f64, usize)]| {
            of.iter().map(|(sum, _)| sum).sum::<f64>()
                / of.iter().map(|(_, count)| *count as f64).sum::<f64>()
        };
        let truth = share(&draw(&mut Rng::new(u64::MAX), 200_000));
        let covered = (0..rounds)
            .filter(|round| {
                let found = draw(&mut Rng::new(*round as u64), people);
                let bootstrap = Bootstrap { resamples: 4_000, ..Bootstrap::default() };
                share_intervals(&bootstrap, &[found])[0]
                    .is_some_and(|(ends, _)| ends.low <= truth && truth <= ends.high)
            })
            .count();
        let _ = writeln!(
            out,
            "| {methods} | {people} | {prompts} | {effect} | {:.1} | {} |",
            100.0 * truth,
            percent(covered, rounds)
        );
    }
}

/// Pairs of methods of which one wins often: strengths from −`reach` to `reach`.
fn strengths(out: &mut impl std::io::Write, rounds: usize) {
    let _ = writeln!(
        out,
        "\n| methods | prompts | votes each | strongest | prompt effect | penalised, % | strength, \
            % | difference, % | prompts alone, % |\n\
            |---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    );
    for (methods, prompts, each, reach, effect) in [
        (2, 20, 1, 1.2, 0.0),
        (3, 20, 1, 1.5, 0.0),
        (4, 20, 2, 1.5, 0.0),
        (4, 20, 2, 1.5, 0.7),
        (6, 30, 2, 2.0, 0.0),
        (6, 30, 2, 2.0, 0.7),
        (4, 40, 3, 2.0, 0.7),
    ] {
        let truth: Vec<f64> =
            (0..methods).map(|at| reach - 2.0 * reach * at as f64 / (methods - 1) as f64).collect();
        let draw = |rng: &mut Rng, prompts: usize| {
            let mut choices = Vec::new();
            for cluster in 0..prompts {
                let of: Vec<f64> = truth.iter().map(|of| of + effect * normal(rng)).collect();
                let a = rng.below(methods);
                let b = (a + 1 + rng.below(methods - 1)) % methods;
                for _ in 0..each {
                    let chosen =
                        if rng.unit() < 1.0 / (1.0 + (of[b] - of[a]).exp()) { a } else { b };
                    choices.push(Choice { set: vec![a, b], chosen, times: 1.0, cluster });
                }
            }
            choices
        };
        let fitted = choice_model(methods, &draw(&mut Rng::new(u64::MAX), 400_000), 0.0)
            .expect("all methods won and lost")
            .strengths;
        let (mut used, mut within, mut apart, mut alone) = (0, 0, 0, 0);
        for round in 0..rounds {
            let choices = draw(&mut Rng::new(round as u64), prompts);
            if choice_model(methods, &choices, 0.0).is_ok() {
                continue;
            }
            let Ok(fit) = choice_model(methods, &choices, 0.5) else { continue };
            used += 1;
            let t = student_quantile(0.975, fit.clusters - 1);
            for (at, fitted) in fitted.iter().enumerate() {
                let far = (fit.strengths[at] - fitted).abs();
                within += usize::from(fit.error(at).is_some_and(|error| far <= t * error));
                alone += usize::from(far <= t * fit.covariance[at * methods + at].max(0.0).sqrt());
            }
            let (difference, error) = fit.difference(0, methods - 1);
            let far = (difference - (fitted[0] - fitted[methods - 1])).abs();
            apart += usize::from(error.is_some_and(|error| far <= t * error));
        }
        let _ = writeln!(
            out,
            "| {methods} | {prompts} | {each} | {reach} | {effect} | {} | {} | {} | {} |",
            percent(used, rounds),
            percent(within, used * methods),
            percent(apart, used),
            percent(alone, used * methods),
        );
    }
}

fn photos(out: &mut impl std::io::Write, rounds: usize) {
    let _ = writeln!(
        out,
        "\n| people | prompts each | photos | images of a photo | scores | share, % | spread, \
            % | share within, % | share of the photo, % |\n\
            |---:|---:|---:|---:|---|---:|---:|---:|---:|"
    );
    for (people, prompts, photos, images, skewed) in [
        (10, 4, 2, 1, false),
        (20, 4, 2, 1, false),
        (40, 4, 2, 1, false),
        (100, 4, 2, 1, false),
        (20, 4, 3, 2, false),
        (40, 4, 3, 2, false),
        (100, 4, 3, 2, false),
        (40, 4, 2, 1, true),
        (100, 4, 2, 1, true),
    ] {
        // Standard deviations of a person, a prompt, a photo and the rest.
        let parts = [0.8, 0.6, 0.6, 0.4];
        let score = |rng: &mut Rng| {
            let z = normal(rng);
            // Log-normal noise with mean 0 and variance 1.
            if skewed { ((0.7 * z).exp() - 0.245_f64.exp()) / 0.915 } else { z }
        };
        let between = parts[0] * parts[0] + parts[1] * parts[1];
        let (photo, rest) = (parts[2] * parts[2], parts[3] * parts[3]);
        let scale: f64 =
            if skewed { (0.49_f64.exp() - 1.0) * 0.49_f64.exp() / 0.837_225 } else { 1.0 };
        let within = photo + rest * scale;
        let share = within / (within + between);
        let photo_share = photo / (within + between);
        let (mut spreads, mut shares, mut of_photo) = (0, 0, 0);
        for round in 0..rounds {
            let mut rng = Rng::new(round as u64);
            let sums: Vec<NestedSums> = (0..people)
                .map(|_| {
                    let person = parts[0] * normal(&mut rng);
                    let groups: Vec<Vec<Vec<f64>>> = (0..=rng.below(2 * prompts - 1))
                        .map(|_| {
                            let prompt = person + parts[1] * normal(&mut rng);
                            (0..photos)
                                .map(|_| {
                                    let photo = prompt + parts[2] * normal(&mut rng);
                                    (0..images)
                                        .map(|_| photo + parts[3] * score(&mut rng))
                                        .collect()
                                })
                                .collect()
                        })
                        .collect();
                    NestedSums::of(&groups)
                })
                .collect();
            let bootstrap = Bootstrap { resamples: 2_000, ..Bootstrap::default() };
            let contains = |truth: f64, of: fn(&Variances) -> Option<f64>| {
                let statistic = |times: &[u32]| {
                    variances(&sums, times).as_ref().and_then(of).unwrap_or(f64::NAN)
                };
                let found = bootstrap.interval(sums.len(), statistic);
                usize::from(found.is_some_and(|of| of.low <= truth && truth <= of.high))
            };
            spreads += contains(within.sqrt(), |of| Some(of.within.sqrt()));
            shares += contains(share, Variances::share_within);
            if images > 1 {
                of_photo += contains(photo_share, Variances::share_of_units);
            }
        }
        let of_photo = if images > 1 { percent(of_photo, rounds) } else { "–".to_owned() };
        let kind = if skewed { "skewed" } else { "normal" };
        let _ = writeln!(
            out,
            "| {people} | {prompts} | {photos} | {images} | {kind} | {:.1} | {} | {} | {of_photo} |",
            100.0 * share,
            percent(spreads, rounds),
            percent(shares, rounds),
        );
    }
}

fn main() {
    let rounds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(200);
    let mut out = std::io::stdout().lock();
    taus(&mut out, rounds);
    first_places(&mut out, rounds);
    strengths(&mut out, rounds);
    photos(&mut out, rounds);
}
