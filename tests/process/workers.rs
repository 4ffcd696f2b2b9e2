//! Many workers on one queue: an instance without models accepts, workers score, and any of them
//! may die.

use std::{
    env,
    io::{self, Write as _},
    sync::Mutex,
};

use serde_json::json;
use stellar_s3_server::Server as ObjectStore;
use tempfile::TempDir;

use crate::{
    database::{self, Database, Kind},
    harness::{QUICK, Server, folder, golden, program, run, until},
    runs::{SAMPLES, calm_scores, named_run, new_run, scores, submit},
    s3::{borrowed, settings, until_all_are_released},
    support::{client, form::Form},
};

/// What the instances of a cluster share.
struct Cluster {
    settings: Vec<(&'static str, String)>,
    folders: TempDir,
    objects: ObjectStore,
    url: String,
}

impl Cluster {
    /// Returns `None` without a broker.
    fn new(database: &Database) -> Option<Self> {
        let Ok(nats) = env::var("TEST_NATS_URL") else {
            let notice = b"SKIPPED a test of workers: TEST_NATS_URL is not set\n";
            io::stderr().write_all(notice).expect("standard error");
            return None;
        };
        let folders = folder();
        let objects = ObjectStore::start(&folders.path().join("s3"));
        let mut settings = settings(&objects);
        settings.extend([
            ("STELLAR_STORE__URL", database.url.clone()),
            ("STELLAR_DISPATCH__KIND", "nats".to_owned()),
            ("STELLAR_DISPATCH__NATS__SERVERS", format!("[{nats:?}]")),
            ("STELLAR_DISPATCH__NATS__PREFIX", format!("process-{}", uuid())),
            ("STELLAR_DISPATCH__NATS__ACK_SECONDS", "2".to_owned()),
        ]);
        Some(Self { settings, folders, objects, url: database.url.clone() })
    }

    fn folder(&self, name: &str) -> std::path::PathBuf {
        let folder = self.folders.path().join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    /// Starts an instance that has no models.
    fn api(&self) -> Server {
        let mut settings = borrowed(&self.settings);
        settings.push(("STELLAR_DISPATCH__SCORE_HERE", "false"));
        Server::start(&self.folder("api"), &settings)
    }

    fn worker(&self, name: &str) -> Server {
        Server::worker(&self.folder(name), &borrowed(&self.settings))
    }
}

fn uuid() -> String {
    let folder = folder();
    let name = folder.path().file_name().expect("a name").to_string_lossy().into_owned();
    name.trim_start_matches('.').to_owned()
}

fn on_postgres(case: &'static str, test: fn(&Cluster)) {
    database::run(Kind::Postgres, case, move |database| async move {
        let Some(cluster) = Cluster::new(&database) else { return };
        let done = tokio::task::spawn_blocking(move || test(&cluster));
        if let Err(failed) = done.await {
            std::panic::resume_unwind(failed.into_panic());
        }
    });
}

#[test]
fn deaths_of_workers_and_of_the_instance_that_accepts_change_no_score() {
    on_postgres("deaths_of_workers", deaths);
}

fn deaths(cluster: &Cluster) {
    let (api, first) = (cluster.api(), cluster.worker("first"));
    let second = cluster.worker("second");
    let run = new_run(&api);
    submit(&Mutex::new(api.address), &run);
    first.kill();
    api.kill();
    let (api, third) = (cluster.api(), cluster.worker("third"));
    assert_eq!(scores(&api, &run), calm_scores(&QUICK));
    assert_eq!(api.counted("mine", "aesthetic"), u64::from(SAMPLES));
    // The instance that accepts has no models, and one of the others finishes the run.
    let ready = api.get("/readyz");
    assert_eq!(ready.status, 200, "{}", ready.json());
    let headers = [("content-type", "application/json")];
    let path = format!("POST /v1/runs/{run}/finish");
    let finish = client::send(api.address, &path, &headers, b"{}").expect("a response");
    assert!(matches!(finish.status, 200 | 202), "{}", finish.json());
    until("the end of the run", || {
        (api.get(&format!("/v1/runs/{run}")).json()["state"] == "finished").then_some(())
    });
    // A worker that is asked to stop leaves nothing behind.
    let again = named_run(&api, "again");
    submit(&Mutex::new(api.address), &again);
    second.terminate();
    let (status, log) = second.ended();
    assert!(status.success(), "{log}");
    assert_eq!(scores(&api, &again), calm_scores(&QUICK));
    drop(third);
}

#[test]
fn an_offloaded_worker_leaves_samples_to_others() {
    on_postgres("an_offloaded_worker", offloaded);
}

fn offloaded(cluster: &Cluster) {
    let (api, lent, other) = (cluster.api(), cluster.worker("lent"), cluster.worker("other"));
    let offload = |of: &Server| client::send(of.address, "POST /v1/engine/offload", &[], &[]);
    let run = new_run(&api);
    submit(&Mutex::new(api.address), &run);
    assert_eq!(offload(&lent).expect("a response").status, 200);
    assert_eq!(scores(&api, &run), calm_scores(&QUICK));
    let refused = offload(&api).expect("a response");
    assert_eq!(refused.status, 503, "it has no models: {}", refused.json());
    // A worker that stops has released the images of its last samples.
    for worker in [lent, other] {
        worker.terminate();
        let (status, log) = worker.ended();
        assert!(status.success(), "{log}");
    }
    until_all_are_released(&cluster.objects, &cluster.url);
}

#[test]
fn requests_that_need_models_are_forwarded_to_a_worker() {
    on_postgres("requests_that_need_models", forwarding);
}

fn sample() -> Form {
    let read = |name: &str| std::fs::read(golden(name)).expect("a golden image");
    Form::new()
        .file("image", read("astronaut.jpg"))
        .field("prompt", "a person in a space suit")
        .file("reference", read("astronaut-face.jpg"))
}

fn forwarding(cluster: &Cluster) {
    let alone = folder();
    let alone = Server::quick(alone.path(), &[]);
    let expected = alone.score(sample());
    assert_eq!(expected.status, 200);

    let api = cluster.api();
    let refused = api.score(sample());
    let detail = refused.json()["detail"].as_str().expect("a text").to_owned();
    assert_eq!(refused.status, 503, "{detail}");
    assert!(detail.contains("stellar-score worker"), "{detail}");

    let worker = cluster.worker("worker");
    let forwarded = until("a place", || {
        let answer = api.score(sample());
        (answer.status == 200).then(|| answer.json())
    });
    assert_eq!(forwarded["scores"], expected.json()["scores"]);
    // The row is there, whoever wrote it.
    let id = forwarded["sample"].as_str().expect("an id");
    let stored = api.get(&format!("/v1/samples/{id}")).json();
    for row in stored["scores"].as_array().expect("rows") {
        let metric = row["metric"].as_str().expect("a name");
        assert_eq!(row["value"], forwarded["scores"][metric]["value"], "{metric}");
    }

    let mut doctor = program(&["doctor"]);
    doctor.env("STELLAR_STORE__SPOOL", cluster.folder("doctor")).envs(borrowed(&cluster.settings));
    let report = run(&mut doctor).stdout;
    assert!(report.contains("ok       broker"), "{report}");

    let image = std::fs::read(golden("astronaut.jpg")).expect("a golden image");
    let items = json!([{"prompt": "a person in a space suit", "image": base64(&image)}]);
    let batch = json!({"items": items, "rewards": ["clip_t"]});
    let rewards = |of: &Server| {
        let headers = [("content-type", "application/json")];
        client::send(of.address, "POST /v1/rewards", &headers, batch.to_string().as_bytes())
            .expect("a response")
    };
    let (here, there) = (rewards(&alone), rewards(&api));
    assert_eq!(
        (there.status, there.json()["rewards"].clone()),
        (here.status, here.json()["rewards"].clone())
    );

    let recorded = |route: &str| {
        let rows = api.get("/v1/audit?limit=200").json()["items"].clone();
        let mut rows = rows.as_array().expect("rows").clone();
        rows.retain(|row| row["route"] == route && row["status"] == 200);
        assert!(rows.iter().all(|row| row["address"] == "127.0.0.1"), "{rows:?}");
        rows.len()
    };
    until("the audit log", || (recorded("/v1/rewards") > 0).then_some(()));

    let stateful = client::send(api.address, "POST /rl/cosmos/api/reward/ping", &[], &[]);
    assert_eq!(stateful.expect("a response").status, 503);
    until("the count of workers", || (api.gauge("stellar_workers") > 0.5).then_some(()));
    worker.kill();
    until("the death of the worker to show", || (api.score(sample()).status == 503).then_some(()));
    // Only the instance that the client asked records it.
    assert_eq!((recorded("/v1/score"), recorded("/v1/rewards")), (1, 1));
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[test]
fn a_worker_without_a_broker_or_an_address_says_what_to_set() {
    let folder = folder();
    let worker = |settings: &[(&str, &str)]| {
        let mut command = program(&["worker"]);
        command.env("STELLAR_STORE__SPOOL", folder.path().join("files"));
        command.envs(settings.iter().copied());
        run(&mut command)
    };
    worker(&[]).failed(&["dispatch.kind = \"nats\"", "dispatch.nats.servers"]);
    let nats = ("STELLAR_DISPATCH__KIND", "nats");
    worker(&[nats]).failed(&["store.s3.bucket", "PostgreSQL"]);
    let (bucket, url) =
        (("STELLAR_STORE__S3__BUCKET", "images"), ("STELLAR_STORE__URL", "postgres://a@b/c"));
    worker(&[nats, bucket, url, ("STELLAR_DISPATCH__NATS__SERVERS", "[\"http://a\"]")])
        .failed(&["dispatch.nats.servers", "tls://"]);
    let everywhere = ("STELLAR_SERVER__LISTEN", "0.0.0.0:0");
    worker(&[nats, bucket, url, everywhere]).failed(&["dispatch.advertise", "0.0.0.0"]);
    let mut serve = program(&["serve"]);
    serve.env("STELLAR_DISPATCH__SCORE_HERE", "false");
    run(&mut serve).failed(&["dispatch.score_here", "workers"]);
}
