//! The leaderboard: grouping, filters, order and pages.

use stellar_score::analysis::{Grouping, LeaderboardPage, LeaderboardQuery, Sort, leaderboard};
use stellar_score::store::{
    MAX_PAGE, NewSample, RunName, StandingsFilter, Store, StoreError, Weights,
};
use uuid::Uuid;

use crate::harness::*;

async fn ask(store: &Store, query: &LeaderboardQuery) -> LeaderboardPage {
    leaderboard(store, query).await.unwrap()
}

fn names(page: &LeaderboardPage) -> Vec<String> {
    page.rows
        .iter()
        .map(|row| format!("{}/{}", row.method, row.run.as_deref().unwrap_or("*")))
        .collect()
}

/// Records a sample of `method/run` with this value of the metric `m`.
async fn put(store: &Store, method: &str, run: &str, value: f64) {
    let name = Uuid::now_v7().to_string();
    let run = Some(RunName::new(method, Some(run.into())));
    store
        .record(&NewSample { run, ..scored(method, &name, vec![number("m", value)]) })
        .await
        .unwrap();
}

pub(crate) async fn an_empty_store_has_an_empty_leaderboard(db: Database) {
    let store = db.open().await;
    assert_eq!(
        ask(&store, &LeaderboardQuery::default()).await,
        LeaderboardPage { rows: vec![], next: None, total: 0 }
    );
}

pub(crate) async fn a_row_has_the_mean_and_deviation_of_each_metric(db: Database) {
    let store = db.open().await;
    for (name, a, b) in [("1", 1.0, 0.5), ("2", 2.0, 0.5), ("3", 6.0, 0.5)] {
        store.record(&scored("A", name, vec![number("m", a), number("other", b)])).await.unwrap();
    }
    let page = ask(&store, &LeaderboardQuery::default()).await;
    let mut other = summary(3, 0, Some(0.5), Some(0.0));
    other.metric = "other".into();
    // Deviations -2, -1, 3: their squares sum to 14.
    let metrics = vec![summary(3, 0, Some(3.0), Some(7f64.sqrt())), other];
    assert_eq!((page.rows.len(), page.total), (1, 1));
    let row = &page.rows[0];
    assert_eq!((row.method.as_str(), &row.run, &row.pack), ("A", &None, &official()));
    assert_eq!(summaries(row), metrics);
}

pub(crate) async fn runs_of_a_method_are_merged_or_separate(db: Database) {
    let store = db.open().await;
    for (run, values) in [("first", [1.0, 2.0]), ("second", [6.0, 7.0])] {
        for value in values {
            put(&store, "A", run, value).await;
        }
    }
    let together = ask(&store, &LeaderboardQuery::default()).await;
    assert_eq!(names(&together), ["A/*"]);
    // Deviations from 4: -3, -2, 2, 3.
    assert_eq!(
        summaries(&together.rows[0]),
        [summary(4, 0, Some(4.0), Some((26f64 / 3.0).sqrt()))]
    );

    let apart = by_run(&store).await;
    assert_eq!(names(&apart), ["A/first", "A/second"]);
    assert_eq!(summaries(&apart.rows[0]), [summary(2, 0, Some(1.5), Some(0.5f64.sqrt()))]);
    assert_eq!(summaries(&apart.rows[1]), [summary(2, 0, Some(6.5), Some(0.5f64.sqrt()))]);
}

pub(crate) async fn packs_are_never_averaged(db: Database) {
    let store = db.open().await;
    store.record(&scored("A", "1", vec![number("m", 0.5)])).await.unwrap();
    store
        .record(&NewSample { pack: demo(), ..scored("A", "2", vec![number("m", 1.0)]) })
        .await
        .unwrap();
    let page = ask(&store, &LeaderboardQuery::default()).await;
    let found: Vec<_> =
        page.rows.iter().map(|row| (row.pack.clone(), row.metrics[0].summary.mean)).collect();
    assert_eq!(found, [(official(), Some(0.5)), (demo(), Some(1.0))]);
}

pub(crate) async fn versions_are_never_averaged(db: Database) {
    let store = db.open().await;
    store.record(&scored("A", "1", vec![versioned("m", 1, 0.5)])).await.unwrap();
    store.record(&scored("A", "2", vec![versioned("m", 2, 1.0)])).await.unwrap();
    store.record(&scored("A", "3", vec![versioned("m", 2, 2.0)])).await.unwrap();
    let page = ask(&store, &LeaderboardQuery::default()).await;
    assert_eq!(page.rows.len(), 1);
    let found: Vec<_> = page.rows[0]
        .metrics
        .iter()
        .map(|m| (m.summary.version, m.summary.n, m.summary.mean))
        .collect();
    assert_eq!(found, [(1, 1, Some(0.5)), (2, 2, Some(1.5))]);
}

pub(crate) async fn nulls_are_counted_but_not_averaged(db: Database) {
    let store = db.open().await;
    store.record(&scored("A", "1", vec![null("m", "no_face_in_reference")])).await.unwrap();
    assert_eq!(only_summary(&store).await, summary(0, 1, None, None));
    store.record(&scored("A", "2", vec![number("m", 5.0)])).await.unwrap();
    store.record(&scored("A", "3", vec![null("m", "no_face_in_reference")])).await.unwrap();
    store.record(&scored("A", "4", vec![number("m", 7.0)])).await.unwrap();
    assert_eq!(only_summary(&store).await, summary(2, 2, Some(6.0), Some(2f64.sqrt())));
}

pub(crate) async fn filters_select_rows(db: Database) {
    let store = db.open().await;
    for method in ["A", "B"] {
        for run in ["first", "second"] {
            for (pack, value) in [(official(), 1.0), (demo(), 3.0)] {
                let run = Some(RunName::new(method, Some(run.into())));
                let scores = vec![number("m", value), number("other", 0.5)];
                let new = NewSample { run, pack, ..scored(method, "1", scores) };
                store.record(&new).await.unwrap();
            }
        }
    }
    let all = LeaderboardQuery { by: Grouping::Run, ..LeaderboardQuery::default() };
    assert_eq!(ask(&store, &all).await.rows.len(), 8);

    let one = LeaderboardQuery {
        filter: StandingsFilter {
            method: Some("B".into()),
            run: Some("second".into()),
            pack: Some(demo().digest),
            weights: Some(Weights::Demo),
            ..StandingsFilter::default()
        },
        metrics: vec!["m".into()],
        ..all.clone()
    };
    let page = ask(&store, &one).await;
    assert_eq!(names(&page), ["B/second"]);
    assert_eq!(summaries(&page.rows[0]), [summary(1, 0, Some(3.0), None)]);

    let only =
        |filter| LeaderboardQuery { filter, by: Grouping::Run, ..LeaderboardQuery::default() };
    let of_official =
        StandingsFilter { weights: Some(Weights::Official), ..StandingsFilter::default() };
    let official_only = only(of_official.clone());
    let page = ask(&store, &official_only).await;
    assert_eq!(names(&page), ["A/first", "A/second", "B/first", "B/second"]);
    assert!(page.rows.iter().all(|row| row.pack == official() && row.metrics.len() == 2));

    // A run filter also applies when the runs of a method are merged.
    let run = StandingsFilter { run: Some("first".into()), ..of_official.clone() };
    let first = LeaderboardQuery { by: Grouping::Method, ..only(run) };
    assert!(ask(&store, &first).await.rows.iter().all(|row| row.metrics[0].summary.n == 1));

    for nothing in [
        only(StandingsFilter { method: Some("C".into()), ..StandingsFilter::default() }),
        only(StandingsFilter { pack: Some("0".repeat(64)), ..StandingsFilter::default() }),
        only(StandingsFilter { pack: Some(demo().digest), ..of_official }),
        LeaderboardQuery { metrics: vec!["unknown".into()], ..all },
    ] {
        assert_eq!(ask(&store, &nothing).await.rows, []);
    }
}

pub(crate) async fn rows_sort_by_the_mean_of_a_metric_and_those_without_it_come_last(db: Database) {
    let store = db.open().await;
    // The mean of A over its runs is 2, although its first run alone would be last and its second
    // first.
    for (method, run, value) in [
        ("A", "first", 0.0),
        ("A", "first", 0.0),
        ("A", "second", 6.0),
        ("B", "run", 1.0),
        ("C", "run", -3.0),
    ] {
        put(&store, method, run, value).await;
    }
    store.record(&scored("Without", "1", vec![number("other", 9.0)])).await.unwrap();
    store.record(&scored("Nulls", "1", vec![null("m", "no_detectables")])).await.unwrap();
    store.record(&scored("Old", "1", vec![versioned("m", 7, 100.0)])).await.unwrap();

    let by = |descending| LeaderboardQuery {
        sort: Sort::Metric { metric: "m".into(), version: 1, descending },
        ..LeaderboardQuery::default()
    };
    assert_eq!(
        names(&ask(&store, &by(true)).await),
        ["A/*", "B/*", "C/*", "Nulls/*", "Old/*", "Without/*"]
    );
    assert_eq!(
        names(&ask(&store, &by(false)).await),
        ["C/*", "B/*", "A/*", "Nulls/*", "Old/*", "Without/*"]
    );

    let missing = LeaderboardQuery { metrics: vec!["other".into()], ..by(true) };
    let error = leaderboard(&store, &missing).await.unwrap_err();
    assert!(matches!(&error, StoreError::Invalid { field, .. } if field == "sort"), "{error:?}");
}

pub(crate) async fn pages_cover_all_rows_in_every_order(db: Database) {
    let store = db.open().await;
    for method in 0..23_u32 {
        for run in 0..=method % 3 {
            // Thirds, which have no exact decimal form, and many ties; every seventh method lacks
            // the metric.
            let metric = if method % 7 == 6 { "other" } else { "m" };
            let value = f64::from(method % 5) / 3.0 - 0.5;
            for pack in [official(), demo()] {
                let scores = vec![number(metric, value)];
                let run =
                    Some(RunName::new(format!("method {method}"), Some(format!("run {run}"))));
                store
                    .record(&NewSample { run, pack, ..scored("", &method.to_string(), scores) })
                    .await
                    .unwrap();
            }
        }
    }
    let metric = |descending| Sort::Metric { metric: "m".into(), version: 1, descending };
    for by in [Grouping::Method, Grouping::Run] {
        for sort in [Sort::Name, metric(true), metric(false)] {
            let whole =
                LeaderboardQuery { by, sort, limit: MAX_PAGE, ..LeaderboardQuery::default() };
            let expected = ask(&store, &whole).await;
            assert_eq!(
                expected.rows.len(),
                if by == Grouping::Run { 2 * (23 + 15 + 7) } else { 2 * 23 }
            );
            assert_eq!(expected.next, None);
            for limit in [1, 7, 45] {
                let mut query = LeaderboardQuery { limit, ..whole.clone() };
                let mut rows = Vec::new();
                loop {
                    let page = ask(&store, &query).await;
                    assert!(page.rows.len() <= limit as usize && !page.rows.is_empty());
                    rows.extend(page.rows);
                    query.after = page.next;
                    if query.after.is_none() {
                        break;
                    }
                }
                assert_eq!(rows, expected.rows, "{by:?} {:?} {limit}", whole.sort);
            }
        }
    }
}

pub(crate) async fn names_sort_by_their_bytes(db: Database) {
    let store = db.open().await;
    for method in ["b", "Z", "é", "a b", "a", "👩", "ab", "_"] {
        put(&store, method, "run", 0.5).await;
    }
    let page = ask(&store, &LeaderboardQuery { limit: 3, ..LeaderboardQuery::default() }).await;
    assert_eq!(names(&page), ["Z/*", "_/*", "a/*"]);
    let rest =
        ask(&store, &LeaderboardQuery { after: page.next, ..LeaderboardQuery::default() }).await;
    assert_eq!(names(&rest), ["a b/*", "ab/*", "b/*", "é/*", "👩/*"]);
}

pub(crate) async fn a_cursor_of_another_query_is_refused(db: Database) {
    let store = db.open().await;
    for method in ["A", "B"] {
        put(&store, method, "run", 0.5).await;
    }
    let first = LeaderboardQuery { limit: 1, ..LeaderboardQuery::default() };
    let next = ask(&store, &first).await.next.expect("there is a second page");
    let by_run = LeaderboardQuery { by: Grouping::Run, after: Some(next.clone()), ..first.clone() };
    assert!(matches!(leaderboard(&store, &by_run).await, Err(StoreError::Cursor)));
    for nonsense in ["", "7", "zz", "é", "7b7d", &next[..next.len() - 2]] {
        let query = LeaderboardQuery { after: Some(nonsense.into()), ..first.clone() };
        assert!(
            matches!(leaderboard(&store, &query).await, Err(StoreError::Cursor)),
            "{nonsense:?}"
        );
    }
}

pub(crate) async fn an_invalid_page_size_is_refused(db: Database) {
    let store = db.open().await;
    for limit in [0, MAX_PAGE + 1] {
        let query = LeaderboardQuery { limit, ..LeaderboardQuery::default() };
        let error = leaderboard(&store, &query).await.unwrap_err();
        assert!(
            matches!(&error, StoreError::Invalid { field, .. } if field == "limit"),
            "{error:?}"
        );
    }
}
