//! Summaries by slice, and the leaderboard that is based on them.

use serde_json::json;
use stellar_score::analysis::{
    Grouping, LeaderboardPage, LeaderboardQuery, Policy, RankedMetric, Sort, leaderboard,
    refresh_run, refresh_stale,
};
use stellar_score::store::{NewSample, RunFacts, RunFlags, RunName, Slice, StandingsFilter, Store};
use uuid::Uuid;

use crate::harness::*;

/// Records a run of 24 samples of six identities. The score of a sample is the number of its
/// identity plus `shift`; every fourth sample follows its prompt no better than its photo does.
async fn record(store: &Store, method: &str, run: &str, people: u32, shift: f64) -> Uuid {
    let mut id = None;
    for place in 0..24_u32 {
        let person = people + place % 6;
        let clip_t = if place % 4 == 3 { 0.1 } else { 0.5 };
        let scores = vec![
            number("ips", 0.1 * f64::from(place % 6) + shift),
            number("clip_t", clip_t),
            number("clip_n", 0.2),
        ];
        let metadata = json!({
            "identity": format!("person {person}"),
            "prompt_kind": if place < 20 { "T" } else { "H" },
            "attributes": {"Young": place % 2 == 0},
        });
        let mut new = scored(method, &format!("{place:02}"), scores);
        new.inputs.metadata = metadata;
        new.run = Some(RunName::new(method, Some(run.into())));
        id = store.record(&new).await.unwrap().run;
    }
    id.unwrap()
}

async fn ask(store: &Store, query: LeaderboardQuery) -> LeaderboardPage {
    leaderboard(store, &query).await.unwrap()
}

fn of<'a>(page: &'a LeaderboardPage, row: usize, metric: &str) -> &'a RankedMetric {
    page.rows[row].metrics.iter().find(|of| of.summary.metric == metric).unwrap()
}

fn slice(kind: &str, label: &str) -> LeaderboardQuery {
    LeaderboardQuery {
        filter: StandingsFilter { slice: Slice::new(kind, label), ..StandingsFilter::default() },
        ..LeaderboardQuery::default()
    }
}

pub(crate) async fn a_summarised_run_has_intervals_until_it_changes(db: Database) {
    let store = db.open().await;
    let run = record(&store, "A", "run", 0, 0.0).await;
    let before = ask(&store, LeaderboardQuery::default()).await;
    let pending = of(&before, 0, "ips");
    assert_eq!((pending.summary.n, &pending.detail, pending.rank), (24, &None, None));

    assert_eq!(refresh_run(&store, run).await.unwrap(), 1);
    assert_eq!(refresh_run(&store, run).await.unwrap(), 0, "nothing has changed since");
    let page = ask(&store, LeaderboardQuery::default()).await;
    let ips = of(&page, 0, "ips");
    let detail = ips.detail.as_ref().unwrap();
    let (interval, mean) = (detail.interval.unwrap(), ips.summary.mean.unwrap());
    assert!((mean - 0.25).abs() < 1e-12 && interval.low < mean && mean < interval.high);
    assert!((mean - of(&before, 0, "ips").summary.mean.unwrap()).abs() < 1e-12);
    assert_eq!((detail.samples, detail.penalised, ips.rank), (24, 0, Some(1)));

    store.record(&scored("A", "another", vec![number("ips", 9.0)])).await.unwrap();
    let page = ask(&store, LeaderboardQuery::default()).await;
    assert_eq!((of(&page, 0, "ips").summary.n, &of(&page, 0, "ips").detail), (25, &None));
    assert!(store.run_slices(run, &official().digest).await.unwrap().unwrap().stale);
    assert_eq!(refresh_stale(&store).await.unwrap(), 1);
    let kept = store.run_slices(run, &official().digest).await.unwrap().unwrap();
    assert_eq!((kept.stale, kept.samples), (false, 25));
    let page = ask(&store, LeaderboardQuery::default()).await;
    assert!(of(&page, 0, "ips").detail.is_some());
}

pub(crate) async fn slices_are_read_by_label_with_a_minimum_size(db: Database) {
    let store = db.open().await;
    record(&store, "A", "run", 0, 0.0).await;
    assert!(ask(&store, slice("prompt_kind", "T")).await.rows.is_empty(), "not summarised yet");
    refresh_stale(&store).await.unwrap();
    let page = ask(&store, slice("prompt_kind", "T")).await;
    assert_eq!((of(&page, 0, "ips").summary.n, page.rows[0].metrics.len()), (20, 3));
    let page = ask(&store, slice("attribute", "!Young")).await;
    // Identities 1, 3 and 5.
    assert!((of(&page, 0, "ips").summary.mean.unwrap() - 0.3).abs() < 1e-12);
    assert!(
        ask(&store, slice("prompt_kind", "H")).await.rows.is_empty(),
        "slices of 4 samples are not stored"
    );
    let few = LeaderboardQuery { min_samples: 21, ..slice("prompt_kind", "T") };
    assert!(ask(&store, few).await.rows.is_empty());
    assert!(ask(&store, slice("category", "none of them")).await.rows.is_empty());
}

pub(crate) async fn the_cached_leaderboard_is_never_stale(db: Database) {
    let store = db.open().await;
    let a = record(&store, "A", "run", 0, 0.5).await;
    record(&store, "B", "run", 0, 0.0).await;
    let queries = || {
        let by_metric = Sort::Metric { metric: "ips".into(), version: 1, descending: true };
        [
            LeaderboardQuery::default(),
            LeaderboardQuery {
                policy: Policy::Stellar,
                sort: by_metric,
                ..LeaderboardQuery::default()
            },
            LeaderboardQuery { metrics: vec!["clip_t".into()], ..slice(Slice::PROMPT_KIND, "T") },
        ]
    };
    // A newly opened store has an empty cache.
    let check = async |what: &str| {
        let fresh = db.open().await;
        for query in queries() {
            let expected = ask(&fresh, query.clone()).await;
            assert_eq!(ask(&store, query).await, expected, "{what}");
        }
        ask(&fresh, LeaderboardQuery::default()).await.rows.len()
    };
    assert_eq!(check("as recorded").await, 2);
    refresh_stale(&store).await.unwrap();
    check("summarised").await;
    record(&store, "B", "second", 6, 0.25).await;
    check("a further run").await;
    refresh_stale(&store).await.unwrap();
    check("merged").await;
    // The same number of scores and metrics as before, but one has another version and number.
    let run = Some(RunName::new("B", Some("run".into())));
    let again = NewSample { run, ..scored("B", "00", vec![versioned("ips", 2, 0.9)]) };
    store.record(&again).await.unwrap();
    check("another version").await;
    store.delete_run(a).await.unwrap().unwrap();
    assert_eq!(check("deleted").await, 1);
}

pub(crate) async fn the_penalty_follows_the_requested_policy(db: Database) {
    let store = db.open().await;
    record(&store, "A", "run", 0, 0.5).await;
    refresh_stale(&store).await.unwrap();
    let with = |policy| LeaderboardQuery { policy, ..LeaderboardQuery::default() };
    let plain = ask(&store, with(Policy::None)).await;
    for policy in [Policy::Stellar, Policy::Toolkit] {
        let page = ask(&store, with(policy)).await;
        let ips = of(&page, 0, "ips");
        assert_eq!(ips.detail.as_ref().unwrap().penalised, 6);
        assert!(ips.summary.mean < of(&plain, 0, "ips").summary.mean);
        assert_eq!(of(&page, 0, "clip_t").summary, of(&plain, 0, "clip_t").summary);
    }
}

pub(crate) async fn runs_of_a_method_merge_by_identity(db: Database) {
    let store = db.open().await;
    // The same six identities twice, and twelve different ones.
    record(&store, "Same", "first", 0, 0.0).await;
    record(&store, "Same", "second", 0, 0.0).await;
    record(&store, "Other", "first", 0, 0.0).await;
    record(&store, "Other", "second", 6, 0.0).await;
    refresh_stale(&store).await.unwrap();
    let page = ask(&store, LeaderboardQuery::default()).await;
    let width = |row: usize| {
        let ips = of(&page, row, "ips");
        assert_eq!(ips.summary.n, 48);
        assert!((ips.summary.mean.unwrap() - 0.25).abs() < 1e-12);
        let interval = ips.detail.as_ref().unwrap().interval.unwrap();
        interval.high - interval.low
    };
    assert_eq!((page.rows[0].method.as_str(), page.rows[0].runs.len()), ("Other", 2));
    // Twice as many identities halve the variance, repeated ones do not. Student's quantile also
    // depends on their number.
    let ratio = width(1) / width(0);
    assert!((1.6..1.9).contains(&ratio), "{ratio}");
    let by_run =
        ask(&store, LeaderboardQuery { by: Grouping::Run, ..LeaderboardQuery::default() }).await;
    assert_eq!(by_run.rows.len(), 4);
    let one = of(&by_run, 2, "ips").detail.as_ref().unwrap().interval.unwrap();
    // Twice as many identities would make it √2 times narrower. The bootstrap interval of one run
    // need not have exactly Student's width.
    assert!(
        width(1) > 0.8 * (one.high - one.low),
        "a second run of the same identities does not narrow the interval"
    );
}

pub(crate) async fn filters_select_runs_by_their_facts(db: Database) {
    let store = db.open().await;
    for (run, dataset, trained) in [("one", "Stellar-T", true), ("two", "Stellar-H", false)] {
        let facts = RunFacts {
            dataset: Some(dataset.into()),
            split: Some("test".into()),
            flags: RunFlags { trained_on_evaluation_photos: trained, ..RunFlags::default() },
            ..RunFacts::default()
        };
        store.create_run(&RunName::new("A", Some(run.into())), &facts, at(0)).await.unwrap();
        record(&store, "A", run, 0, 0.0).await;
    }
    let all = LeaderboardQuery { by: Grouping::Run, ..LeaderboardQuery::default() };
    let runs =
        |page: LeaderboardPage| page.rows.into_iter().filter_map(|row| row.run).collect::<Vec<_>>();
    let flag = |set| [("trained_on_evaluation_photos".to_owned(), set)].into();
    let (any, both) = (StandingsFilter::default, vec!["one", "two"]);
    let only = |filter| LeaderboardQuery { filter, ..all.clone() };
    for (query, expected) in [
        (only(StandingsFilter { dataset: Some("Stellar-T".into()), ..any() }), vec!["one"]),
        (only(StandingsFilter { split: Some("test".into()), ..any() }), both.clone()),
        (only(StandingsFilter { split: Some("train".into()), ..any() }), vec![]),
        (only(StandingsFilter { since: Some(at(0)), until: Some(at(1)), ..any() }), both),
        (only(StandingsFilter { since: Some(at(1)), ..any() }), vec![]),
        (only(StandingsFilter { until: Some(at(0)), ..any() }), vec![]),
        (LeaderboardQuery { flags: flag(true), ..all.clone() }, vec!["one"]),
        (LeaderboardQuery { flags: flag(false), ..all.clone() }, vec!["two"]),
    ] {
        assert_eq!(runs(ask(&store, query.clone()).await), expected, "{query:?}");
    }
}

pub(crate) async fn rows_are_ranked_by_mean_rank_page_by_page(db: Database) {
    let store = db.open().await;
    for (method, shift) in [("middle", 5.0), ("best", 9.0), ("worst", 0.0), ("alike", 5.0)] {
        record(&store, method, "run", 0, shift).await;
    }
    refresh_stale(&store).await.unwrap();
    let query = LeaderboardQuery { sort: Sort::MeanRank, limit: 3, ..LeaderboardQuery::default() };
    let first = ask(&store, query.clone()).await;
    let rest = ask(&store, LeaderboardQuery { after: first.next.clone(), ..query }).await;
    let rows: Vec<_> = first.rows.iter().chain(&rest.rows).map(|row| row.method.as_str()).collect();
    assert_eq!(
        (rows, first.total, rest.next.clone()),
        (vec!["best", "alike", "middle", "worst"], 4, None)
    );
    let ranks: Vec<_> = (0..3).map(|row| of(&first, row, "ips").rank).collect();
    assert_eq!(ranks, [Some(1), Some(2), Some(2)], "two equal methods share a rank");
    assert_eq!(of(&rest, 0, "ips").rank, Some(4));
}

pub(crate) async fn deletion_removes_computed_summaries(db: Database) {
    let store = db.open().await;
    let run = record(&store, "A", "run", 0, 0.0).await;
    refresh_stale(&store).await.unwrap();
    let sample = store.record(&scored("A", "24", vec![])).await.unwrap().sample;
    store.delete_sample(sample).await.unwrap().unwrap();
    assert_eq!(
        store.run_slices(run, &official().digest).await.unwrap(),
        None,
        "it must be computed again without the sample"
    );
    assert_eq!(refresh_stale(&store).await.unwrap(), 1);
    store.delete_run(run).await.unwrap().unwrap();
    for table in ["slice_summaries", "slice_sums", "run_slices", "run_quantiles", "benchmark_sets"]
    {
        assert_eq!(db.count(table).await, 0, "{table}");
    }
    let version =
        stellar_score::store::RunVersion { run, pack: official().digest, fingerprint: "x".into() };
    let summary = stellar_score::store::RunSummary {
        samples: 0,
        sample_set: String::new(),
        cluster_keys: vec![],
        benchmarks: vec![],
        slices: vec![],
        quantiles: vec![],
    };
    assert!(
        !store.save_run_summary(&version, &summary, at(0)).await.unwrap(),
        "nothing is stored for a deleted run"
    );
}

pub(crate) async fn distributions_are_stored_by_run(db: Database) {
    let store = db.open().await;
    let run = record(&store, "A", "run", 0, 0.0).await;
    refresh_stale(&store).await.unwrap();
    let kept = store.run_quantiles(&official().digest).await.unwrap();
    let (of_run, ips) = kept.iter().find(|(_, of)| of.metric == "ips").unwrap();
    assert_eq!((*of_run, ips.n, ips.places.len()), (run, 24, 201));
    assert_eq!((ips.places[0], ips.places[200]), (0.0, 0.5));
    assert!(ips.places.is_sorted());
    assert!(store.run_quantiles("another").await.unwrap().is_empty());
}
