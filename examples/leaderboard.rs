//! Fills a database with summaries of many large runs; measures the leaderboard and the time to
//! summarise one run.
//!
//! ```sh
//! cargo run --release --example leaderboard -- sqlite:bench.db 100 20000
//! scripts/postgres.sh run sh -c \
//!     'cargo run --release --example leaderboard -- $TEST_DATABASE_URL 100 20000'
//! ```
//!
//! The arguments are an empty database, the number of methods (two runs each, with half of the
//! samples) and the number of samples. The scores of one run are stored and summarised as in the
//! service. Its summaries are then copied for the other runs, since the leaderboard reads only
//! summaries. 15 metrics, 200 identities, 20 categories, 8 attributes.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqliteConnection};
use stellar_score::analysis::{LeaderboardQuery, Policy, Sort, leaderboard, refresh_run};
use stellar_score::content::ContentHash;
use stellar_score::metrics::REGISTRY;
use stellar_score::stats::Rng;
use stellar_score::store::{
    NewSample, NewScore, PackId, RunFacts, RunName, RunVersion, SampleInputs, ScoreValue, Slice,
    StandingsFilter, Store, StoreOptions, Weights,
};
use time::OffsetDateTime;
use uuid::Uuid;

const METRICS: usize = 15;

#[tokio::main]
#[expect(clippy::too_many_lines, reason = "a list of measurements, one after the other")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "sqlite:target/leaderboard.db".to_owned());
    let mut number =
        |default: usize| arguments.next().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (methods, samples) = (number(100), number(20_000));
    let mut out = std::io::stdout();
    let store = Store::open(&url, &StoreOptions::default()).await?;
    let pack = PackId { digest: "a".repeat(64), name: "bench".into(), weights: Weights::Official };

    let started = Instant::now();
    let run = record(&store, &pack, samples / 2).await?;
    writeln!(
        out,
        "{} samples with {METRICS} scores stored in {:.1?}",
        samples / 2,
        started.elapsed()
    )?;
    let started = Instant::now();
    refresh_run(&store, run).await?;
    writeln!(out, "summarised by slice and policy in {:.1?}", started.elapsed())?;

    let started = Instant::now();
    let summary = stellar_score::analysis::summarise(
        &store.run_data(run, Some(&pack.digest)).await?.expect("it was just recorded"),
        &BTreeMap::new(),
    );
    for method in 0..methods {
        for half in ["first", "second"] {
            let name = RunName::new(format!("method {method:03}"), Some(half.into()));
            let (made, _) =
                store.create_run(&name, &RunFacts::default(), OffsetDateTime::now_utc()).await?;
            copy(&store, &url, &pack, run, made.id, &summary, method as f64 / 1000.0).await?;
        }
    }
    let rows = summary.slices.len() * methods * 2;
    writeln!(out, "{rows} summaries of {} runs written in {:.1?}", 2 * methods, started.elapsed())?;

    let base = LeaderboardQuery {
        filter: StandingsFilter { pack: Some(pack.digest.clone()), ..StandingsFilter::default() },
        ..LeaderboardQuery::default()
    };
    let ips = Sort::Metric { metric: "ips".into(), version: 1, descending: true };
    let mine =
        |query: &LeaderboardQuery| LeaderboardQuery { policy: Policy::Stellar, ..query.clone() };
    let queries = [
        (
            "by name, one row per run",
            LeaderboardQuery { by: stellar_score::analysis::Grouping::Run, ..mine(&base) },
        ),
        (
            "by ips, one row per method (merged by identity)",
            LeaderboardQuery { sort: ips.clone(), ..mine(&base) },
        ),
        ("by mean rank", LeaderboardQuery { sort: Sort::MeanRank, ..mine(&base) }),
        (
            "a category, by ips",
            LeaderboardQuery {
                filter: StandingsFilter {
                    slice: Slice::new(Slice::CATEGORY, "category 3"),
                    ..base.filter.clone()
                },
                sort: ips,
                ..mine(&base)
            },
        ),
        (
            "one method",
            LeaderboardQuery {
                filter: StandingsFilter {
                    method: Some("method 007".into()),
                    ..base.filter.clone()
                },
                ..mine(&base)
            },
        ),
    ];
    for (what, query) in queries {
        let started = Instant::now();
        let mut rows = leaderboard(&store, &query).await?.rows.len();
        let first = started.elapsed();
        let mut times = Vec::new();
        for _ in 0..30 {
            let started = Instant::now();
            rows = leaderboard(&store, &query).await?.rows.len();
            times.push(started.elapsed());
        }
        times.sort();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        writeln!(
            out,
            "{what}: {rows} rows, first {:.1} ms, then median {:.1} ms, slowest {:.1} ms",
            ms(first),
            ms(times[15]),
            ms(times[29])
        )?;
    }
    let ips = Sort::Metric { metric: "ips".into(), version: 1, descending: true };
    let query = LeaderboardQuery { sort: ips, ..mine(&base) };
    let mut times = Vec::new();
    for turn in 0..20 {
        let version =
            RunVersion { run, pack: pack.digest.clone(), fingerprint: format!("turn {turn}") };
        store.save_run_summary(&version, &summary, OffsetDateTime::now_utc()).await?;
        let started = Instant::now();
        leaderboard(&store, &query).await?;
        times.push(started.elapsed());
    }
    times.sort();
    writeln!(
        out,
        "by ips after a change of one run: median {:.1} ms",
        times[10].as_secs_f64() * 1e3
    )?;
    for line in store.explain_standings(&mine(&base).standings()).await? {
        writeln!(out, "plan: {line}")?;
    }
    store.close().await;
    Ok(())
}

/// Records a run with random scores.
async fn record(store: &Store, pack: &PackId, samples: usize) -> anyhow::Result<Uuid> {
    let mut rng = Rng::new(1);
    let mut run = None;
    for place in 0..samples {
        let scores = REGISTRY.iter().take(METRICS).map(|metric| NewScore {
            metric: metric.code.to_owned(),
            metric_version: metric.version,
            value: ScoreValue::Number(match metric.code {
                "clip_t" => 0.3 + 0.2 * rng.unit(),
                "clip_n" => 0.2 + 0.1 * rng.unit(),
                _ => rng.unit(),
            }),
            flags: Vec::new(),
        });
        let scores = scores.collect();
        let person = place % 200;
        let young = |bit: usize| person >> bit & 1 == 1;
        let attributes = [
            "Young",
            "Male",
            "Big_Lips",
            "Big_Nose",
            "Narrow_Eyes",
            "Double_Chin",
            "Pointy_Nose",
            "High_Cheekbones",
        ];
        let attributes: serde_json::Map<_, _> = attributes
            .iter()
            .enumerate()
            .map(|(bit, name)| ((*name).to_owned(), json!(young(bit))))
            .collect();
        let sample = NewSample {
            id: Uuid::now_v7(),
            created: OffsetDateTime::now_utc(),
            run: Some(RunName::new("scored", None)),
            name: Some(format!("{place:06}")),
            width: 1024,
            height: 1024,
            pack: pack.clone(),
            service_version: "bench".into(),
            extras: stellar_score::store::Extras::default(),
            scores,
            inputs: SampleInputs {
                content: ContentHash::of(&place.to_le_bytes()),
                prompt: Some("a person riding a horse near Saturn".into()),
                image: ContentHash::of(&place.to_be_bytes()),
                references: Vec::new(),
                auxiliary: Vec::new(),
                metadata: json!({"identity": format!("person \
                {person}"), "prompt_kind": if place % 2 == 0 { "T" } else { "H" },
                             "categories": [format!("category \
                                 {}", place % 20)], "attributes": attributes}),
            },
        };
        run = store.record(&sample).await?.run;
    }
    Ok(run.expect("the samples name a run"))
}

/// Copies the summaries of a run to another one, shifted: both the running ones and those by slice.
async fn copy(
    store: &Store,
    url: &str,
    pack: &PackId,
    from: Uuid,
    to: Uuid,
    summary: &stellar_score::store::RunSummary,
    shift: f64,
) -> anyhow::Result<()> {
    let mut summary = summary.clone();
    for row in &mut summary.slices {
        for number in [&mut row.mean, &mut row.low, &mut row.high].into_iter().flatten() {
            *number += shift;
        }
        for (sum, count) in &mut row.sums {
            *sum += shift * *count as f64;
        }
    }
    running_summaries(url, from, to).await?;
    let version = RunVersion { run: to, pack: pack.digest.clone(), fingerprint: "bench".into() };
    store.save_run_summary(&version, &summary, OffsetDateTime::now_utc()).await?;
    Ok(())
}

/// Copies the running summaries behind the store's back: the store itself would need 20,000
/// samples.
async fn running_summaries(url: &str, from: Uuid, to: Uuid) -> anyhow::Result<()> {
    let sql = format!(
        "INSERT INTO summaries (run, pack, metric, metric_version, n, nulls, pivot, total, squares)
         SELECT '{to}', pack, metric, metric_version, n, nulls, pivot, total, squares FROM \
         summaries WHERE run = '{from}'"
    );
    let sql = AssertSqlSafe(sql);
    if url.starts_with("sqlite") {
        let mut connection = SqliteConnection::connect(url).await?;
        connection.execute(sql).await?;
        connection.close().await?;
    } else {
        let mut connection = PgConnection::connect(url).await?;
        connection.execute(sql).await?;
        connection.close().await?;
    }
    Ok(())
}
