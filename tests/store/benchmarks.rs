//! The two benchmarks in one run: each has the numbers of a run that has no others, bit for bit.

use std::collections::BTreeMap;

use serde_json::json;
use stellar_score::analysis::{
    CompareOptions, Comparison, Grouping, LeaderboardQuery, LeaderboardRow, Policy, Samples,
    compare, compare_benchmark, leaderboard_rows, refresh_stale, rows_on_common,
};
use stellar_score::store::{
    NewScore, RunName, RunWideScore, RunWideScores, ScoreValue, Slice, StandingsFilter, Store,
};
use uuid::Uuid;

use crate::harness::*;

const METHODS: [&str; 3] = ["A", "B", "C"];

/// Returns a number in [0, 1) that depends on all arguments.
fn noise(method: usize, place: u32, salt: u32) -> f64 {
    let mixed = (place + 1).wrapping_mul(2_654_435_761)
        ^ (method as u32 + 1).wrapping_mul(40_503)
        ^ salt.wrapping_mul(97_531);
    f64::from(mixed.wrapping_mul(2_246_822_519) >> 8) / f64::from(1_u32 << 24)
}

/// Returns the scores of a sample. Some lack a score, and some are null.
fn scores(method: usize, place: u32, is_t: bool) -> Vec<NewScore> {
    // The reference images match prompts of Stellar-H less evenly, so that its penalty is another.
    let spread = if is_t { 0.01 } else { 0.2 };
    let mut scores = vec![
        number("clip_n", 0.2 + spread * noise(method, place, 1)),
        number("dino", noise(method, place, 2)),
    ];
    if place % 11 != 4 {
        scores.push(number("clip_t", 0.22 + 0.2 * noise(method, place, 3)));
    }
    scores.push(if place % 7 == 2 {
        null("ips", "no_face_in_reference")
    } else {
        number("ips", 0.2 * method as f64 + noise(method, place, 4))
    });
    if !is_t {
        scores.push(number("goa", noise(method, place, 5)));
    }
    scores
}

/// Records the samples of these kinds, for each method in one or two runs, with their attributes.
async fn record(store: &Store, kinds: &[&str]) {
    for (method, name) in METHODS.into_iter().enumerate() {
        for run in 0..=u32::from(method == 2) {
            let (mut id, mut samples) = (None, Vec::new());
            for place in 0..45_u32 {
                let is_t = place % 3 != 0;
                let kind = if is_t { "T" } else { "H" };
                if !kinds.contains(&kind) || method == 1 && place == 17 {
                    continue;
                }
                let mut metadata = json!({"prompt_kind": kind});
                if place % 10 != 9 {
                    metadata["identity"] = json!(format!("person {}", (place * 5 + run) % 8));
                }
                let mut new = scored(
                    name,
                    &format!("{place:02}"),
                    scores(method + run as usize, place, is_t),
                );
                new.inputs.metadata = metadata;
                new.run = Some(RunName::new(name, Some(format!("run {run}"))));
                let recorded = store.record(&new).await.unwrap();
                id = recorded.run;
                samples.push((recorded.sample, place));
            }
            judge(store, id.unwrap(), method, &samples).await;
        }
    }
    refresh_stale(store).await.unwrap();
}

/// Adds `aps`. In Stellar-T, nobody is `Male`, so that its area is over the other attribute alone.
async fn judge(store: &Store, run: Uuid, method: usize, samples: &[(Uuid, u32)]) {
    let outcomes = |place: u32| {
        let of = |salt: u32, target: bool| (target, target == (noise(method, place, salt) < 0.7));
        BTreeMap::from([
            ("Male".to_owned(), of(6, place.is_multiple_of(6))),
            ("Young".to_owned(), of(7, place % 4 < 2)),
        ])
    };
    let judged = || samples.iter().filter(|(_, place)| place % 13 != 5);
    let share = |place: u32| {
        let all = outcomes(place);
        let right = all.values().filter(|(target, said)| target == said).count();
        ScoreValue::Number(right as f64 / all.len() as f64)
    };
    let scores = RunWideScores {
        run,
        created: at(0),
        pack: official(),
        service_version: "0.1.0".into(),
        metric: "aps".into(),
        metric_version: 1,
        graphs: None,
        scores: judged()
            .map(|(id, place)| RunWideScore {
                sample: *id,
                value: share(*place),
                outcomes: Some(outcomes(*place)),
                images: vec![],
            })
            .collect(),
    };
    store.add_run_wide(&scores).await.unwrap();
}

/// Everything that the leaderboard says, without ids: under every policy, by method and by run,
/// over all and over common samples.
async fn boards(store: &Store, slice: Slice) -> Vec<LeaderboardRow> {
    let mut found = Vec::new();
    for policy in Policy::ALL {
        for by in [Grouping::Method, Grouping::Run] {
            let query = LeaderboardQuery {
                filter: StandingsFilter { slice: slice.clone(), ..StandingsFilter::default() },
                policy,
                by,
                ..LeaderboardQuery::default()
            };
            found.extend(leaderboard_rows(store, &query).await.unwrap());
            if policy != Policy::Stellar || by != Grouping::Method {
                continue;
            }
            let query = LeaderboardQuery { on: Samples::Common, ..query };
            let runs = store.standings(&query.standings()).await.unwrap();
            found.extend(rows_on_common(store, &query, &runs).await.unwrap());
        }
    }
    for row in &mut found {
        row.runs.clear();
    }
    found
}

/// Compares A with B under every policy; only Stellar-T or Stellar-H, or everything.
async fn comparisons(store: &Store, kind: Option<&str>) -> Vec<Comparison> {
    let page = by_run(store).await;
    let mut runs = Vec::new();
    for row in &page.rows[..2] {
        runs.push(store.run_data(row.runs[0], None).await.unwrap().unwrap());
    }
    let of = |policy| {
        let options = CompareOptions { policy, slices: false, ..CompareOptions::default() };
        match kind {
            Some(kind) => compare_benchmark(&runs[0], &runs[1], kind, &options),
            None => compare(&runs[0], &runs[1], &options),
        }
    };
    Policy::ALL.map(of).into()
}

pub(crate) async fn a_benchmark_has_the_numbers_of_a_run_of_its_own(db: Database) {
    let store = db.open().await;
    record(&store, &["T", "H"]).await;
    let mut both = Vec::new();
    for kind in ["T", "H"] {
        let slice = Slice::new(Slice::PROMPT_KIND, kind);
        both.push((kind, boards(&store, slice).await, comparisons(&store, Some(kind)).await));
    }
    let whole = boards(&store, Slice::all()).await;
    let slices = store.run_slices(by_run(&store).await.rows[0].runs[0], &official().digest).await;
    store.close().await;
    for (kind, boards_of_part, comparisons_of_part) in both {
        db.recreate().await;
        let store = db.open().await;
        record(&store, &[kind]).await;
        // Debug output has every bit of a number.
        let alone = boards(&store, Slice::all()).await;
        assert_eq!(alone.len(), 3 * (3 + 4) + 3);
        for (part, alone) in boards_of_part.iter().zip(&alone) {
            assert_eq!(format!("{part:#?}"), format!("{alone:#?}"), "{kind}");
        }
        assert_eq!(boards_of_part.len(), alone.len());
        let alone = comparisons(&store, None).await;
        assert_eq!(format!("{comparisons_of_part:?}"), format!("{alone:?}"), "{kind}");
        store.close().await;
    }

    // The test would prove nothing if the halves were alike, or had no penalty, ranks or areas.
    let row = whole.iter().find(|row| row.method == "A").unwrap();
    let metric = |code: &str| row.metrics.iter().find(|of| of.summary.metric == code).unwrap();
    assert!(metric("ips").rank.is_some() && metric("aps").area.unwrap().mean.is_some());
    let slices = slices.unwrap().unwrap();
    let of = |label: &str| {
        let wanted = |row: &&stellar_score::store::SliceSummary| {
            row.slice.label == label && row.metric == "ips" && row.policy == "stellar"
        };
        slices.rows.iter().find(wanted).unwrap().penalised
    };
    let penalised = ["T", "H", ""].map(of);
    assert!(penalised[1] > 0, "{penalised:?}");
    assert_ne!(penalised[0] + penalised[1], penalised[2], "penalties of their own");
}

pub(crate) async fn attributes_and_objects_are_slices_with_a_matrix_of_methods(db: Database) {
    use stellar_score::analysis::matrix;
    let store = db.open().await;
    record(&store, &["T", "H"]).await;
    let query = LeaderboardQuery {
        metrics: vec!["aps".into()],
        min_samples: 5,
        policy: Policy::Stellar,
        ..LeaderboardQuery::default()
    };
    let runs = store.standings(&query.standings()).await.unwrap();
    let ids: Vec<Uuid> = runs.iter().map(|run| run.run).collect();
    for kind in [Slice::APS_ATTRIBUTE, Slice::PROMPT_KIND] {
        let summaries = store
            .summaries_of_kind(&ids, &official().digest, kind, "aps", "stellar")
            .await
            .unwrap();
        assert_eq!(summaries.len(), 4 * 2, "two labels in each of four runs");
        let found = matrix(&query, &runs, kind, "aps", summaries, 50);
        assert_eq!((found.columns.len(), found.rows.len(), found.labels), (3, 2, 2));
        for row in &found.rows {
            // A cell is the row of the leaderboard with this label as its filter.
            let slice = Slice::new(kind, row.label.clone());
            let filter = StandingsFilter { slice, ..StandingsFilter::default() };
            let board = LeaderboardQuery { filter, ..query.clone() };
            let rows = leaderboard_rows(&store, &board).await.unwrap();
            assert_eq!(rows.len(), 3);
            for (cell, row) in row.cells.iter().flatten().zip(&rows) {
                let of = &row.metrics[0];
                let detail = of.detail.as_ref().unwrap();
                assert_eq!(
                    (cell.n, cell.mean, cell.rank),
                    (of.summary.n, of.summary.mean, of.rank)
                );
                assert_eq!(cell.samples, detail.samples);
                let [one, other] = [cell.interval, detail.interval].map(Option::unwrap);
                // Sums of several runs are added in another order.
                assert!((one.low - other.low).abs() < 1e-12, "{one:?} {other:?}");
                assert!((one.high - other.high).abs() < 1e-12, "{one:?} {other:?}");
            }
            let best = row.cells.iter().flatten().filter(|cell| cell.is_best).count();
            // B lacks a sample of Stellar-T and H alike, so only A and C are over the same samples.
            assert!(best <= 1, "{row:?}");
        }
    }
}
