//! Runs in the real program: kills at any moment do not change their scores.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
    net::SocketAddr,
    path::Path,
    sync::{Mutex, mpsc},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use stellar_score::{
    content::ContentHash,
    store::{RunFacts, RunName, Store, StoreOptions},
};

use crate::{
    harness::{Server, folder, read, until},
    support::{
        client::{self, Answer, Exchange},
        form::Form,
        images::png,
        pending::{of_another_pack, other_pack},
    },
};

pub(crate) const SAMPLES: u32 = 24;
const KILLS: u32 = 6;

fn post(to: SocketAddr, path: &str, body: &Value) -> std::io::Result<Answer> {
    let headers = [("content-type", "application/json")];
    client::send(to, &format!("POST {path}"), &headers, body.to_string().as_bytes())
}

pub(crate) fn put(to: SocketAddr, run: &str, name: &str, form: Form) -> std::io::Result<Answer> {
    let headers = [("content-type", &*Form::content_type())];
    client::send(to, &format!("PUT /v1/runs/{run}/samples/{name}"), &headers, &form.finish())
}

pub(crate) fn new_run(server: &Server) -> String {
    named_run(server, "default")
}

pub(crate) fn named_run(server: &Server, name: &str) -> String {
    let metrics = ["clip_t", "clip_i", "clip_n", "aesthetic"];
    let facts = json!({"method": "mine", "run": name, "metrics": metrics});
    let response = post(server.address, "/v1/runs", &facts).expect("a response");
    response.json()["run_id"].as_str().expect("an id").to_owned()
}

/// Every third sample sends its photo, the others reference it by hash. A photo that a killed
/// service lost is sent again.
fn form(seed: u32, by_hash: bool) -> Form {
    let form =
        Form::new().file("image", png(seed)).field("prompt", format!("a person number {seed}"));
    let photo = png(1000 + seed / 3);
    if by_hash {
        form.field("reference_hash", ContentHash::of(&photo).to_hex())
    } else {
        form.file("reference", photo)
    }
}

/// Submits every sample to the current address until each is accepted.
pub(crate) fn submit(at: &Mutex<SocketAddr>, run: &str) {
    for seed in 0..SAMPLES {
        let mut by_hash = seed % 3 != 0;
        until("a sample to be accepted", || {
            let to = *at.lock().expect("lock not poisoned");
            let response = put(to, run, &format!("s{seed:02}"), form(seed, by_hash)).ok()?;
            match response.status {
                200 | 202 => Some(()),
                422 => {
                    assert_eq!(response.json()["code"], "image_unknown");
                    by_hash = false;
                    None
                }
                429 | 503 => None,
                status => panic!("{status}: {}", response.json()),
            }
        });
    }
}

pub(crate) fn counts(server: &Server, run: &str) -> (u64, u64) {
    let counts = &server.get(&format!("/v1/runs/{run}")).json()["counts"];
    (counts["scored"].as_u64().expect("a count"), counts["failed"].as_u64().expect("a count"))
}

/// Waits until all samples are scored and returns the scores by sample name.
pub(crate) fn scores(server: &Server, run: &str) -> BTreeMap<String, Vec<Value>> {
    until("all scores", || (counts(server, run).0 == u64::from(SAMPLES)).then_some(()));
    assert_eq!(counts(server, run).1, 0);
    let finish =
        post(server.address, &format!("/v1/runs/{run}/finish"), &json!({})).expect("a response");
    assert!(matches!(finish.status, 200 | 202));
    until("the run to finish", || {
        (server.get(&format!("/v1/runs/{run}")).json()["state"] == "finished").then_some(())
    });
    let page = server.get(&format!("/v1/runs/{run}/samples?state=scored")).json();
    let items = page["items"].as_array().expect("a list").clone();
    let of = |item: Value| {
        let id = item["id"].as_str().expect("an id").to_owned();
        let scores = server.get(&format!("/v1/samples/{id}")).json()["scores"].clone();
        let scores = scores.as_array().expect("a list").iter();
        let values = scores.map(|score| json!([score["metric"], score["value"], score["reason"]]));
        (item["name"].as_str().expect("a name").to_owned(), values.collect())
    };
    items.into_iter().map(of).collect()
}

fn spooled_files(folder: &Path) -> usize {
    let parts = std::fs::read_dir(folder.join("files")).expect("a folder").filter_map(Result::ok);
    // The next start moves files that a kill left without a row to the trash.
    let folders = parts.filter(|part| part.path().is_dir() && part.file_name() != "trash");
    folders.map(|part| std::fs::read_dir(part.path()).expect("a folder").count()).sum()
}

/// The scores of a run that nothing disturbs, with its images in a folder.
pub(crate) fn calm_scores(settings: &[(&str, &str)]) -> BTreeMap<String, Vec<Value>> {
    let calm = folder();
    let server = Server::start(calm.path(), settings);
    let run = new_run(&server);
    submit(&Mutex::new(server.address), &run);
    let expected = scores(&server, &run);
    assert_eq!(expected.len(), SAMPLES as usize);
    expected
}

/// Submits a run while the service is killed again and again. Returns the last service and the run.
pub(crate) fn submitted_under_kills(wild: &Path, settings: &[(&str, &str)]) -> (Server, String) {
    let mut server = Server::start(wild, settings);
    let run = new_run(&server);
    let at = Mutex::new(server.address);
    let seed = RandomState::new().hash_one(0);
    let (done, submitted) = mpsc::channel();
    let server = std::thread::scope(|scope| {
        scope.spawn(|| {
            submit(&at, &run);
            done.send(()).expect("the receiver lives");
        });
        for kill in 0..KILLS {
            // Some kills hit the submission, some the scoring, some the start.
            let pause = RandomState::new().hash_one(seed ^ u64::from(kill)) % 400;
            std::thread::sleep(Duration::from_millis(pause));
            server.kill();
            server = Server::start(wild, settings);
            *at.lock().expect("lock not poisoned") = server.address;
        }
        submitted.recv().expect("all are submitted");
        server
    });
    (server, run)
}

#[test]
fn repeated_kills_do_not_change_the_scores_of_a_run() {
    let expected = calm_scores(&[]);
    let wild = folder();
    let (server, run) = submitted_under_kills(wild.path(), &[]);
    // No acknowledged sample is lost, and none counts twice.
    assert_eq!(scores(&server, &run), expected);
    assert_eq!(server.counted("mine", "aesthetic"), u64::from(SAMPLES));
    until("spooled files to be deleted", || (spooled_files(wild.path()) == 0).then_some(()));
}

#[test]
fn sigterm_stops_scoring_and_event_streams_and_the_next_start_resumes() {
    let folder = folder();
    let server = Server::quick(folder.path(), &[]);
    let run = new_run(&server);
    submit(&Mutex::new(server.address), &run);
    let mut watching =
        Exchange::begin(server.address, &format!("GET /v1/runs/{run}/events"), &[], 0)
            .expect("a connection");
    assert_eq!(watching.receive().expect("a response").status, 200);
    let started = Instant::now();
    server.terminate();
    let (status, log) = server.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("drain deadline exceeded"), "{log}");
    assert!(started.elapsed() < Duration::from_secs(20), "an event stream delayed the stop");
    let server = Server::quick(folder.path(), &[]);
    assert_eq!(scores(&server, &run).len(), SAMPLES as usize);
}

#[test]
fn a_spool_in_use_by_another_service_is_refused() {
    let (one, other) = (folder(), folder());
    let _server = Server::quick(one.path(), &[]);
    let files = one.path().join("files").display().to_string();
    let mut second = crate::harness::serve(other.path());
    crate::harness::run(second.env("STELLAR_STORE__SPOOL", &files))
        .failed(&["is in use by another process", "store.spool"]);
}

#[test]
fn blocked_samples_are_logged_at_start_and_stay_pending() {
    let folder = folder();
    // Creates the database and the spool.
    drop(Server::quick(folder.path(), &[]));
    let url = format!("sqlite:{}", folder.path().join("stellar.db").display());
    let id = read(&folder.path().join("files/id"));
    let accept = async {
        let store =
            Store::open(&url, &StoreOptions::default()).await.expect("the database is there");
        let now = time::OffsetDateTime::now_utc();
        let name = RunName::new("mine", None);
        let (run, _) = store.create_run(&name, &RunFacts::default(), now).await.expect("a run");
        let waiting = of_another_pack(run.id, id.trim());
        store.accept(&waiting).await.expect("accepted");
        store.close().await;
        run.id
    };
    let run = tokio::runtime::Runtime::new().expect("a runtime").block_on(accept);
    let server = Server::quick(folder.path(), &[]);
    let log = until("the log message", || {
        let log = read(&folder.path().join("log.txt"));
        log.contains("samples are blocked by a pack that is not loaded").then_some(log)
    });
    assert!(log.contains(&other_pack().digest), "{log}");
    let now = server.get(&format!("/v1/runs/{run}")).json();
    assert_eq!(
        (&now["counts"]["pending"], &now["held"]["code"]),
        (&Value::from(1), &Value::from("pack_not_loaded"))
    );
}
