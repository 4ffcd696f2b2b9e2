//! Failures of a graph, the database or the clock. No accepted sample is lost, errors are clear,
//! and the service recovers without a restart.

use std::{
    path::PathBuf,
    str::FromStr as _,
    time::{Duration, Instant},
};

use serde_json::json;
use sqlx::{Connection as _, Executor as _, SqliteConnection, postgres::PgConnectOptions};
use stellar_score::engine::fake::Trouble;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
};

use crate::{
    database::{Database, Kind},
    harness::{App, ONE_GRAPH, tells},
    instances::{eventually, new_run, put},
    support::{form::Form, images::png},
};

fn image(seed: u32) -> Form {
    Form::new().file("image", png(seed))
}

fn score(seed: u32) -> Form {
    image(seed).field("metrics", ONE_GRAPH)
}

async fn counts(app: &App, run: &str) -> serde_json::Value {
    app.get(&format!("/v1/runs/{run}")).await.ok()["counts"].clone()
}

#[tokio::test]
async fn a_hanging_graph_blocks_no_other_and_loses_no_sample() {
    let app = App::with(|setup| {
        setup.config.server.deadline_seconds = 1;
        // The hanging graph holds the only device turn.
        setup.config.engine.concurrent_batches = 1;
        // The first counted attempt would be the last.
        setup.config.runs.attempts = 1;
    })
    .await;
    app.gate.hang("clip_l.image");
    tells(
        &app.score(score(1)).await.problem(504, "deadline_exceeded"),
        &["1 s", "nothing was stored"],
    );
    eventually!("the report of the hanging graph", app.get("/readyz").await.status == 503);
    tells(&app.get("/readyz").await.problem(503, "unavailable"), &["hang", "clip_l.image"]);
    app.get("/livez").await.ok();
    // Other graphs run, and requests for the hanging one are refused at once.
    app.score(image(2).field("metrics", "clip_t").field("prompt", "a person")).await.ok();
    tells(&app.score(score(3)).await.problem(503, "unavailable"), &["clip_l.image", "retry later"]);

    let run = new_run(&app).await;
    assert_eq!(put(&app, &run, "waits", image(4).file("reference", png(100))).await, 202);
    app.until_at_least("stellar_background_attempts_total{outcome=\"postponed\"}", 1).await;
    assert_eq!(
        counts(&app, &run).await["pending"],
        1,
        "the sample must not fail because of the graph"
    );

    app.gate.open();
    eventually!("readiness", app.get("/readyz").await.status == 200);
    app.score(score(5)).await.ok();
    eventually!("the score", counts(&app, &run).await["scored"] == 1);
}

/// Graphs that fail on every input, or return only NaN.
async fn a_graph_in_trouble(trouble: Trouble) {
    let app = App::with(|setup| setup.config.runs.attempts = 1).await;
    app.graphs.always(Some(trouble));
    for seed in 0..3 {
        app.score(score(seed)).await.problem(500, "internal");
        let other = image(seed).file("reference", png(100)).field("metrics", "clip_i");
        app.score(other).await.problem(500, "internal");
    }
    // Both graphs that the run needs.
    tells(&app.get("/readyz").await.problem(503, "unavailable"), &["clip_l.image", "clip.image"]);
    let run = new_run(&app).await;
    assert_eq!(put(&app, &run, "waits", image(4).file("reference", png(100))).await, 202);
    app.until_at_least("stellar_background_attempts_total{outcome=\"postponed\"}", 1).await;
    assert_eq!(
        counts(&app, &run).await["pending"],
        1,
        "the sample must not fail because of the graph"
    );
    app.graphs.always(None);
    eventually!("the score", counts(&app, &run).await["scored"] == 1);
    assert_eq!(app.counted("m", ONE_GRAPH).await, 1);
}

#[tokio::test]
async fn a_broken_graph_fails_no_accepted_sample() {
    tokio::join!(a_graph_in_trouble(Trouble::Fails), a_graph_in_trouble(Trouble::NotANumber));
}

/// Simulates a database outage: with a proxy before PostgreSQL, or with another connection's lock
/// on SQLite.
struct Outage {
    url: String,
    away: watch::Sender<bool>,
    lock: Option<SqliteConnection>,
}

impl Outage {
    async fn of(database: &Database) -> Self {
        let (away, is_away) = watch::channel(false);
        let url = match database.kind {
            Kind::Sqlite => database.url.clone(),
            Kind::Postgres => through_proxy(&database.url, is_away).await,
        };
        Self { url, away, lock: None }
    }

    async fn begin(&mut self) {
        if self.url.starts_with("sqlite") {
            let mut other = SqliteConnection::connect(&self.url).await.expect("a database");
            other.execute("BEGIN IMMEDIATE").await.expect("the lock");
            self.lock = Some(other);
        }
        self.away.send_replace(true);
    }

    async fn end(&mut self) {
        if let Some(mut other) = self.lock.take() {
            other.execute("ROLLBACK").await.expect("the end of the lock");
        }
        self.away.send_replace(false);
    }
}

/// The same database through a proxy that cuts and refuses all connections while `away`.
async fn through_proxy(url: &str, away: watch::Receiver<bool>) -> String {
    let options = PgConnectOptions::from_str(url).expect("a valid URL");
    let socket =
        options.get_socket().map(|folder| folder.join(format!(".s.PGSQL.{}", options.get_port())));
    let server = format!("{}:{}", options.get_host(), options.get_port());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("a bound listener has an address").port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (socket, server, mut away) = (socket.clone(), server.clone(), away.clone());
            tokio::spawn(async move {
                tokio::select! {
                    _ = away.wait_for(|away| *away) => {}
                    () = forward(client, socket, &server) => {}
                }
            });
        }
    });
    let (head, query) = url.split_once('?').unwrap_or((url, ""));
    let (user, database) = (head.split('@').next(), head.rsplit('/').next());
    let others =
        query.split('&').filter(|part| !part.starts_with("host=") && !part.starts_with("port="));
    format!(
        "{}@127.0.0.1:{port}/{}?{}",
        user.unwrap_or_default(),
        database.unwrap_or_default(),
        others.collect::<Vec<_>>().join("&")
    )
}

async fn forward(mut client: TcpStream, socket: Option<PathBuf>, server: &str) {
    // Errors affect only this client.
    if let Some(path) = socket {
        let mut upstream = UnixStream::connect(path).await.expect("PostgreSQL listens");
        drop(copy_bidirectional(&mut client, &mut upstream).await);
    } else {
        let mut upstream = TcpStream::connect(server).await.expect("PostgreSQL listens");
        drop(copy_bidirectional(&mut client, &mut upstream).await);
    }
}

async fn a_database_outage_loses_no_accepted_sample(database: Database) {
    let mut outage = Outage::of(&database).await;
    let url = outage.url.clone();
    let app = App::with(move |setup| {
        setup.config.store.url = url;
        setup.store.timeout = Duration::from_secs(1);
    })
    .await;
    let run = new_run(&app).await;
    app.gate.close();
    for seed in 0..3 {
        assert_eq!(
            put(&app, &run, &format!("s{seed}"), image(seed).file("reference", png(100))).await,
            202
        );
    }
    app.gate.reached_by(1).await;
    outage.begin().await;
    // Samples in flight now complete, but cannot be recorded.
    app.gate.open();
    let named = || score(10).field("method", "other").field("name", "one");
    tells(
        &app.score(named()).await.problem(503, "unavailable"),
        &["the store", "nothing was saved", "retry"],
    );
    assert_eq!(put(&app, &run, "late", image(11).file("reference", png(100))).await, 503);
    app.get("/livez").await.ok();
    if database.kind == Kind::Postgres {
        app.get("/readyz").await.problem(503, "unavailable");
        app.get("/v1/leaderboard").await.problem(503, "unavailable");
    }
    outage.end().await;

    eventually!("readiness", app.get("/readyz").await.status == 200);
    assert_eq!(app.score(named()).await.ok()["outcome"], "created", "the refused score was stored");
    assert_eq!(put(&app, &run, "late", image(11).file("reference", png(100))).await, 202);
    eventually!("all scores", counts(&app, &run).await["pending"] == 0);
    assert_eq!(
        counts(&app, &run).await,
        json!({"accepted": 4, "pending": 0, "scored": 4, "failed": 0})
    );
    assert_eq!(app.counted("m", ONE_GRAPH).await, 4, "each sample counts once");
}

/// One of two runs has a row that no version of this program wrote.
async fn an_unreadable_run_does_not_block_other_runs(database: Database) {
    let url = database.url.clone();
    let app = App::with(move |setup| setup.config.store.url = url).await;
    let mut runs = Vec::new();
    for method in ["broken", "sound"] {
        let body =
            json!({"method": method, "run": "r", "metrics": ["clip_i", "aesthetic"]}).to_string();
        let request =
            axum::http::Request::post("/v1/runs").header("content-type", "application/json");
        let run = app.send(request.body(body.into()).expect("a valid request")).await.json();
        runs.push(run["run_id"].as_str().expect("an id").to_owned());
    }
    for (at, run) in runs.iter().enumerate() {
        assert_eq!(put(&app, run, "s", image(at as u32).file("reference", png(100))).await, 202);
        eventually!("the score", counts(&app, run).await["scored"] == 1);
    }
    // The older run is checked first, and both are out of date.
    database
        .execute(&format!("UPDATE samples SET metadata = '\"x\"' WHERE run = '{}'", runs[0]))
        .await;
    database.execute("UPDATE runs SET revision = revision + 1").await;
    for run in &runs {
        let request = axum::http::Request::post(format!("/v1/runs/{run}/finish"))
            .body(axum::body::Body::empty());
        assert_eq!(app.send(request.expect("a valid request")).await.status, 202);
    }
    let state = async |run: &str| app.get(&format!("/v1/runs/{run}")).await.ok()["state"].clone();
    eventually!("the end of the sound run", state(&runs[1]).await == "finished");
    let slices = format!("/v1/analysis/slices?run={}", runs[1]);
    eventually!(
        "its summary",
        app.get(&slices).await.status == 200 && app.get(&slices).await.ok()["stale"] == false
    );
    app.until("stellar_failing_runs{what=\"summary\"}", 1.0).await;
    app.get("/readyz").await.ok();
}

/// The end of a pause is stored as a date, which a clock change can move years away.
async fn a_clock_change_does_not_delay_a_postponed_sample(database: Database) {
    let url = database.url.clone();
    let app = App::with(move |setup| setup.config.store.url = url).await;
    let run = new_run(&app).await;
    app.graphs.always(Some(Trouble::Fails));
    let mut postponed = 0;
    for (name, due) in
        [("back", "2090-01-01T00:00:00.000000Z"), ("forth", "2001-01-01T00:00:00.000000Z")]
    {
        assert_eq!(put(&app, &run, name, image(postponed).file("reference", png(100))).await, 202);
        postponed += 1;
        app.until_at_least("stellar_background_attempts_total{outcome=\"postponed\"}", postponed)
            .await;
        app.graphs.always(None);
        database
            .execute(&format!("UPDATE pending_samples SET due = '{due}' WHERE name = '{name}'"))
            .await;
        eventually!("the score", counts(&app, &run).await["scored"] == postponed);
        app.graphs.always(Some(Trouble::Fails));
    }
}

crate::on_both_databases!(
    a_database_outage_loses_no_accepted_sample,
    an_unreadable_run_does_not_block_other_runs,
    a_clock_change_does_not_delay_a_postponed_sample,
);
