//! The statistics match scipy, scikit-learn, statsmodels, krippendorff and choix on the numbers
//! that `scripts/stats_fixtures.py` wrote.

use serde::Deserialize;
use stellar_score::analysis::{Coefficient, correlations};
use stellar_score::stats::{
    Bootstrap, Choice, ClusterMean, Level, bca, benjamini_hochberg, choice_model, fit_logistic,
    holm, kendall_tau_b, krippendorff_alpha, normal_cdf, normal_quantile, pearson, percentile,
    roc_auc, sign_flip_test, spearman, student_cdf, student_quantile, summarize,
};

#[derive(Deserialize)]
struct Golden {
    summaries: Vec<SummaryCase>,
    coefficients: Vec<CoefficientCase>,
    areas: Vec<AreaCase>,
    normal: NormalCase,
    corrections: Vec<CorrectionCase>,
    intervals: Vec<IntervalCase>,
    clustered: Vec<ClusteredCase>,
    regressions: Vec<RegressionCase>,
    agreements: Vec<AgreementCase>,
    strengths: Vec<StrengthCase>,
    student: StudentCase,
    linearised: Vec<LinearisedCase>,
    studentised: Vec<ClusteredCase>,
    sign_flips: Vec<SignFlipCase>,
    pairwise: Vec<PairwiseCase>,
    tied_strengths: Vec<TiedStrengthCase>,
}

#[derive(Deserialize)]
struct StudentCase {
    cdf: Vec<(f64, usize, f64)>,
    quantile: Vec<(f64, usize, f64)>,
}

#[derive(Deserialize)]
struct SignFlipCase {
    sums: Vec<f64>,
    p: f64,
}

#[derive(Deserialize)]
struct PairwiseCase {
    columns: Vec<Vec<Option<f64>>>,
    pearson: Vec<Option<f64>>,
    spearman: Vec<Option<f64>>,
    kendall: Vec<Option<f64>>,
}

#[derive(Deserialize)]
struct TiedStrengthCase {
    methods: usize,
    wins: Vec<(usize, usize, f64)>,
    strengths: Vec<f64>,
    errors: Vec<f64>,
}

#[derive(Deserialize)]
struct SummaryCase {
    values: Vec<f64>,
    mean: f64,
    std: f64,
}

#[derive(Deserialize)]
struct CoefficientCase {
    x: Vec<f64>,
    y: Vec<f64>,
    pearson: Option<f64>,
    spearman: Option<f64>,
    kendall: Option<f64>,
}

#[derive(Deserialize)]
struct AreaCase {
    scores: Vec<f64>,
    labels: Vec<bool>,
    area: f64,
}

#[derive(Deserialize)]
struct NormalCase {
    cdf: Vec<(f64, f64)>,
    quantile: Vec<(f64, f64)>,
}

#[derive(Deserialize)]
struct CorrectionCase {
    p: Vec<f64>,
    holm: Vec<f64>,
    benjamini_hochberg: Vec<f64>,
}

#[derive(Deserialize)]
struct IntervalCase {
    distribution: Vec<f64>,
    estimate: f64,
    jackknife: Vec<f64>,
    confidence: f64,
    percentile: (f64, f64),
    bca: (f64, f64),
}

#[derive(Deserialize)]
struct ClusteredCase {
    clusters: Vec<(f64, usize)>,
    interval: (f64, f64),
}

#[derive(Deserialize)]
struct LinearisedCase {
    clusters: Vec<(f64, usize)>,
    error: f64,
    degrees: f64,
    interval: (f64, f64),
}

#[derive(Deserialize)]
struct RegressionCase {
    name: String,
    columns: usize,
    features: Vec<f64>,
    labels: Vec<bool>,
    weights: Vec<f64>,
    coefficients: Vec<f64>,
    intercept: f64,
    decisions: Vec<f64>,
}

#[derive(Deserialize)]
struct AgreementCase {
    ratings: Vec<Vec<Option<f64>>>,
    nominal: f64,
    ordinal: f64,
    interval: f64,
}

#[derive(Deserialize)]
struct StrengthCase {
    methods: usize,
    pairs: Vec<(usize, usize)>,
    strengths: Vec<f64>,
    errors: Vec<f64>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../data/stats/golden.json")).unwrap()
}

#[track_caller]
fn close(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "{found} is not {expected} within {tolerance}");
}

#[track_caller]
fn all_close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        close(*found, *expected, tolerance);
    }
}

#[test]
fn means_and_deviations_match_numpy() {
    for case in golden().summaries {
        let summary = summarize(&case.values);
        close(summary.mean.unwrap(), case.mean, 1e-12 * case.mean.abs().max(1.0));
        close(summary.std.unwrap(), case.std, 1e-9 * case.std);
    }
}

#[test]
fn coefficients_match_scipy() {
    for case in golden().coefficients {
        let found =
            [pearson, spearman, kendall_tau_b].map(|coefficient| coefficient(&case.x, &case.y));
        for (found, expected) in found.into_iter().zip([case.pearson, case.spearman, case.kendall])
        {
            match (found, expected) {
                (Some(found), Some(expected)) => close(found, expected, 1e-12),
                (found, expected) => assert_eq!(found, expected, "{:?} {:?}", case.x, case.y),
            }
        }
    }
}

#[test]
fn areas_under_the_curve_match_scikit_learn() {
    for case in golden().areas {
        close(roc_auc(&case.scores, &case.labels).unwrap(), case.area, 1e-12);
    }
}

#[test]
fn the_normal_distribution_matches_scipy() {
    let NormalCase { cdf, quantile } = golden().normal;
    for (x, expected) in cdf {
        close(normal_cdf(x), expected, 1e-15_f64.min(1e-11 * expected));
    }
    for (p, expected) in quantile {
        close(normal_quantile(p), expected, 1e-9);
    }
}

#[test]
fn corrections_match_statsmodels() {
    for case in golden().corrections {
        all_close(&holm(&case.p), &case.holm, 1e-12);
        all_close(&benjamini_hochberg(&case.p), &case.benjamini_hochberg, 1e-12);
    }
}

#[test]
fn intervals_of_a_distribution_match_scipy() {
    for case in golden().intervals {
        let found = percentile(&case.distribution, case.confidence).unwrap();
        all_close(&[found.low, found.high], &[case.percentile.0, case.percentile.1], 1e-12);
        let found =
            bca(&case.distribution, case.estimate, &case.jackknife, case.confidence).unwrap();
        all_close(&[found.low, found.high], &[case.bca.0, case.bca.1], 1e-9);
    }
}

#[test]
fn intervals_of_clustered_means_match_scipy_within_sampling_error() {
    for case in golden().clustered {
        let clusters = &case.clusters;
        let mean = |times: &[u32]| {
            let drawn = clusters.iter().zip(times).map(|((sum, count), times)| {
                (f64::from(*times) * sum, f64::from(*times) * *count as f64)
            });
            let (sum, count) = drawn.fold((0.0, 0.0), |all, each| (all.0 + each.0, all.1 + each.1));
            sum / count
        };
        let distribution = Bootstrap { resamples: 50_000, ..Bootstrap::default() }
            .distribution(clusters.len(), mean);
        let without =
            |left_out| (0..clusters.len()).map(|at| u32::from(at != left_out)).collect::<Vec<_>>();
        let jackknife: Vec<f64> = (0..clusters.len()).map(|at| mean(&without(at))).collect();
        let found = bca(&distribution, mean(&vec![1; clusters.len()]), &jackknife, 0.95).unwrap();
        let (low, high) = case.interval;
        all_close(&[found.low, found.high], &[low, high], 0.02 * (high - low));
    }
}

#[test]
fn logistic_regressions_match_scikit_learn() {
    for case in golden().regressions {
        let fit = fit_logistic(&case.features, case.columns, &case.labels, &case.weights).unwrap();
        let decisions: Vec<f64> =
            case.features.chunks(case.columns).map(|row| fit.decision(row)).collect();
        assert_eq!(decisions.len(), case.decisions.len());
        for (found, expected) in decisions.iter().zip(&case.decisions) {
            assert!((found - expected).abs() < 1e-5, "{}: {found} is not {expected}", case.name);
        }
        all_close(&fit.weights, &case.coefficients, 1e-5);
        close(fit.intercept, case.intercept, 1e-5);
    }
}

#[test]
fn alphas_match_krippendorff() {
    for case in golden().agreements {
        close(krippendorff_alpha(&case.ratings, Level::Nominal).unwrap(), case.nominal, 1e-12);
        close(krippendorff_alpha(&case.ratings, Level::Ordinal).unwrap(), case.ordinal, 1e-12);
        close(krippendorff_alpha(&case.ratings, Level::Interval).unwrap(), case.interval, 1e-12);
    }
}

fn beat(winner: usize, loser: usize, times: f64) -> Choice {
    Choice { set: vec![winner, loser], chosen: winner, times, cluster: 0 }
}

#[test]
fn strengths_match_choix_and_their_errors_match_statsmodels() {
    for case in golden().strengths {
        let comparisons: Vec<_> =
            case.pairs.iter().map(|&(winner, loser)| beat(winner, loser, 1.0)).collect();
        let fit = choice_model(case.methods, &comparisons, 0.0).unwrap();
        all_close(&fit.strengths, &case.strengths, 1e-8);
        all_close(&fit.errors, &case.errors, 1e-8);
    }
}

#[test]
fn students_distribution_matches_scipy() {
    let StudentCase { cdf, quantile } = golden().student;
    for (t, degrees, expected) in cdf {
        // scipy itself is off by 1.4e-11 near 0, where one degree of freedom has a closed form.
        close(student_cdf(t, degrees), expected, 1e-10);
    }
    for (p, degrees, expected) in quantile {
        close(student_quantile(p, degrees), expected, 1e-9 * expected.abs().max(1.0));
    }
}

#[test]
fn errors_over_clusters_match_bell_and_mccaffrey() {
    for case in golden().linearised {
        let found = ClusterMean::new(&case.clusters).unwrap();
        close(found.error, case.error, 1e-12);
        close(found.degrees, case.degrees, 1e-9);
        // Between integer degrees of freedom the quantile is interpolated, never below the true
        // value.
        let (interval, width) = (found.interval(0.95), case.interval.1 - case.interval.0);
        all_close(
            &[interval.low, interval.high],
            &[case.interval.0, case.interval.1],
            5e-3 * width,
        );
        assert!(interval.high - interval.low > width * (1.0 - 1e-5));
    }
}

#[test]
fn studentised_intervals_match_numpy_within_sampling_error() {
    for case in golden().studentised {
        let found =
            Bootstrap { resamples: 200_000, ..Bootstrap::default() }.mean(&case.clusters).unwrap();
        let (low, high) = case.interval;
        all_close(&[found.low, found.high], &[low, high], 0.015 * (high - low));
    }
}

#[test]
fn sign_flips_match_scipy() {
    for case in golden().sign_flips {
        close(sign_flip_test(&case.sums, 0, 0).unwrap(), case.p, 1e-12);
    }
}

#[test]
fn matrices_of_columns_with_gaps_match_scipy() {
    for case in golden().pairwise {
        let columns: Vec<&[Option<f64>]> = case.columns.iter().map(Vec::as_slice).collect();
        for (coefficient, expected) in [
            (Coefficient::Pearson, &case.pearson),
            (Coefficient::Spearman, &case.spearman),
            (Coefficient::Kendall, &case.kendall),
        ] {
            let matrix = correlations(&columns, coefficient, None);
            let found: Vec<Option<f64>> =
                matrix.into_iter().flatten().map(|cell| cell.value).collect();
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                match (found, expected) {
                    (Some(found), Some(expected)) => close(*found, *expected, 1e-12),
                    (found, expected) => assert_eq!(found, expected),
                }
            }
        }
    }
}

#[test]
fn ties_count_as_half_a_win_each_as_in_a_weighted_regression() {
    for case in golden().tied_strengths {
        let comparisons: Vec<_> =
            case.wins.iter().map(|&(winner, loser, times)| beat(winner, loser, times)).collect();
        let fit = choice_model(case.methods, &comparisons, 0.0).unwrap();
        all_close(&fit.strengths, &case.strengths, 1e-8);
        all_close(&fit.errors, &case.errors, 1e-8);
    }
}
