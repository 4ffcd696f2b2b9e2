//! Runs of the real program: killed at any moment they end in the same scores.

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

const SAMPLES: u32 = 24;
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
    let facts = json!({"method": "mine", "metrics": ["clip_t", "clip_i", "clip_n", "aesthetic"]});
    let answer = post(server.address, "/v1/runs", &facts).expect("an answer");
    answer.json()["run_id"].as_str().expect("an id").to_owned()
}

/// Every third sample sends its photo, the others name it: what a killed service forgot is sent again.
fn form(seed: u32, by_hash: bool) -> Form {
    let form = Form::new().file("image", png(seed)).field("prompt", format!("a person number {seed}"));
    let photo = png(1000 + seed / 3);
    if by_hash {
        form.field("reference_hash", ContentHash::of(&photo).to_hex())
    } else {
        form.file("reference", photo)
    }
}

/// Submits everything to whoever serves at the moment, until each sample was answered with success.
fn submit(at: &Mutex<SocketAddr>, run: &str) {
    for seed in 0..SAMPLES {
        let mut by_hash = seed % 3 != 0;
        until("a sample to be accepted", || {
            let to = *at.lock().expect("no holder panics");
            let answer = put(to, run, &format!("s{seed:02}"), form(seed, by_hash)).ok()?;
            match answer.status {
                200 | 202 => Some(()),
                422 => {
                    assert_eq!(answer.json()["code"], "image_unknown");
                    by_hash = false;
                    None
                }
                429 | 503 => None,
                status => panic!("{status}: {}", answer.json()),
            }
        });
    }
}

pub(crate) fn counts(server: &Server, run: &str) -> (u64, u64) {
    let counts = &server.get(&format!("/v1/runs/{run}")).json()["counts"];
    (counts["scored"].as_u64().expect("a count"), counts["failed"].as_u64().expect("a count"))
}

/// The scores of each sample by name, once all are there.
fn scores(server: &Server, run: &str) -> BTreeMap<String, Vec<Value>> {
    until("all scores", || (counts(server, run).0 == u64::from(SAMPLES)).then_some(()));
    assert_eq!(counts(server, run).1, 0);
    let finish = post(server.address, &format!("/v1/runs/{run}/finish"), &json!({})).expect("an answer");
    assert!(matches!(finish.status, 200 | 202));
    until("its end", || (server.get(&format!("/v1/runs/{run}")).json()["state"] == "finished").then_some(()));
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

fn kept_files(folder: &Path) -> usize {
    let parts = std::fs::read_dir(folder.join("files")).expect("a folder").filter_map(Result::ok);
    // What a kill left behind without a row is in the trash from the next start on.
    let folders = parts.filter(|part| part.path().is_dir() && part.file_name() != "trash");
    folders.map(|part| std::fs::read_dir(part.path()).expect("a folder").count()).sum()
}

#[test]
fn a_run_during_which_the_service_is_killed_again_and_again_has_the_scores_of_an_undisturbed_one() {
    let calm = folder();
    let server = Server::start(calm.path(), &[]);
    let run = new_run(&server);
    submit(&Mutex::new(server.address), &run);
    let expected = scores(&server, &run);
    assert_eq!(expected.len(), SAMPLES as usize);
    drop(server);

    let wild = folder();
    let mut server = Server::start(wild.path(), &[]);
    let run = new_run(&server);
    let at = Mutex::new(server.address);
    let seed = RandomState::new().hash_one(0);
    let (done, submitted) = mpsc::channel();
    let server = std::thread::scope(|scope| {
        scope.spawn(|| {
            submit(&at, &run);
            done.send(()).expect("somebody listens");
        });
        for kill in 0..KILLS {
            // Some kills fall into the submission, some into the scoring, some into the start before anything is done.
            let pause = RandomState::new().hash_one(seed ^ u64::from(kill)) % 400;
            std::thread::sleep(Duration::from_millis(pause));
            server.kill();
            server = Server::start(wild.path(), &[]);
            *at.lock().expect("no holder panics") = server.address;
        }
        submitted.recv().expect("all are submitted");
        server
    });
    // Of what was answered with success nothing is lost, and nothing counts twice.
    assert_eq!(scores(&server, &run), expected);
    assert_eq!(server.counted("mine", "aesthetic"), u64::from(SAMPLES));
    until("kept files to go", || (kept_files(wild.path()) == 0).then_some(()));
}

#[test]
fn sigterm_ends_scoring_and_watching_and_the_next_start_goes_on() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    let run = new_run(&server);
    submit(&Mutex::new(server.address), &run);
    let mut watching =
        Exchange::begin(server.address, &format!("GET /v1/runs/{run}/events"), &[], 0).expect("a connection");
    assert_eq!(watching.receive().expect("an answer").status, 200);
    let started = Instant::now();
    server.terminate();
    let (status, log) = server.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("still in flight"), "{log}");
    assert!(started.elapsed() < Duration::from_secs(20), "a watcher held the service up");
    let server = Server::start(folder.path(), &[]);
    assert_eq!(scores(&server, &run).len(), SAMPLES as usize);
}

#[test]
fn a_folder_of_files_that_another_service_uses_is_refused() {
    let (one, other) = (folder(), folder());
    let _server = Server::start(one.path(), &[]);
    let files = one.path().join("files").display().to_string();
    let mut second = crate::harness::serve(other.path());
    crate::harness::run(second.env("STELLAR_STORE__SPOOL", &files))
        .failed(&["is used by another service", "store.spool"]);
}

#[test]
fn samples_that_wait_for_another_pack_are_announced_at_start_and_not_touched() {
    let folder = folder();
    // Makes the database and the folder of files.
    drop(Server::start(folder.path(), &[]));
    let url = format!("sqlite:{}", folder.path().join("stellar.db").display());
    let id = read(&folder.path().join("files/id"));
    let accept = async {
        let store = Store::open(&url, &StoreOptions::default()).await.expect("the database is there");
        let now = time::OffsetDateTime::now_utc();
        let name = RunName::new("mine", None);
        let (run, _) = store.create_run(&name, &RunFacts::default(), now).await.expect("a run");
        let waiting = of_another_pack(run.id, id.trim());
        store.accept(&waiting).await.expect("it waits");
        store.close().await;
        run.id
    };
    let run = tokio::runtime::Runtime::new().expect("a runtime").block_on(accept);
    let server = Server::start(folder.path(), &[]);
    let log = until("the announcement", || {
        let log = read(&folder.path().join("log.txt"));
        log.contains("samples wait for a pack that is not loaded").then_some(log)
    });
    assert!(log.contains(&other_pack().digest), "{log}");
    let now = server.get(&format!("/v1/runs/{run}")).json();
    assert_eq!(
        (&now["counts"]["pending"], &now["held"]["code"]),
        (&Value::from(1), &Value::from("pack_not_loaded"))
    );
}
