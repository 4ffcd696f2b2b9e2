//! A sample that kills the process whenever it is scored: it is tried alone, fails after a few
//! deaths, and does not block other samples.
//!
//! Its file is a named pipe: reading it never returns, and the test kills the process. So each
//! death happens while the sample is being scored, even on the slowest machine.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use stellar_score::content::ContentHash;

use crate::{
    harness::{Server, folder, read, until},
    runs::{counts, new_run, put},
    support::{form::Form, images::png},
};

/// Number of times that a sample may kill the process while it is tried alone.
const DEATHS: u32 = 6;

pub(crate) fn kept(folder: &Path, image: &[u8]) -> PathBuf {
    let hex = ContentHash::of(image).to_hex();
    folder.join("files").join(&hex[..2]).join(&hex[2..])
}

/// Creates a pipe without a writer at the path of a spooled file.
pub(crate) fn block(file: &Path) {
    fs::create_dir_all(file.parent().expect("every file is in a folder")).expect("a folder");
    assert!(Command::new("mkfifo").arg(file).status().expect("coreutils").success());
}

/// Ids of the samples that the spool's note lists as in flight.
fn in_flight(folder: &Path) -> BTreeSet<String> {
    let note: Value =
        serde_json::from_str(&read(&folder.join("files/in-flight.json"))).expect("JSON");
    let ids = note["in_flight"].as_array().into_iter().flatten();
    ids.map(|id| id.as_str().expect("an id").to_owned()).collect()
}

fn until_in_flight(folder: &Path, samples: &[&String]) {
    let expected: BTreeSet<_> = samples.iter().map(|&sample| sample.clone()).collect();
    until("these samples, and no others, to be scored", || {
        (in_flight(folder) == expected).then_some(())
    });
}

/// Submits a sample and returns its id.
fn submit(server: &Server, run: &str, name: &str, image: &[u8]) -> String {
    let response =
        put(server.address, run, name, Form::new().file("image", image)).expect("a response");
    assert_eq!(response.status, 202, "{}", response.json());
    response.json()["id"].as_str().expect("an id").to_owned()
}

fn until_scored(server: &Server, run: &str, samples: u64) {
    until("the samples to be scored", || (counts(server, run).0 == samples).then_some(()));
}

#[test]
fn a_sample_that_kills_the_process_is_isolated_and_fails_after_a_few_deaths() {
    let folder = folder();
    let at = folder.path();
    let settings = [("STELLAR_RUNS__CONCURRENCY", "4")];
    let mut server = Server::quick(at, &settings);
    let run = new_run(&server);
    let (killer, bystander) = (png(1), png(2));
    block(&kept(at, &killer));
    block(&kept(at, &bystander));
    let (killing, standing_by) =
        (submit(&server, &run, "killer", &killer), submit(&server, &run, "bystander", &bystander));
    // Later samples are scored meanwhile.
    for seed in 3..6 {
        submit(&server, &run, &format!("s{seed}"), &png(seed));
    }
    until_scored(&server, &run, 3);
    until_in_flight(at, &[&killing, &standing_by]);
    // Either of the two could be the cause, so each is now tried alone, oldest first.
    server.kill();
    fs::remove_file(kept(at, &bystander)).expect("the pipe is there");
    fs::write(kept(at, &bystander), &bystander).expect("a file");
    for death in 0..DEATHS {
        server = Server::quick(at, &settings);
        until_in_flight(at, &[&killing]);
        submit(&server, &run, &format!("later{death}"), &png(100 + death));
        // After each score the service may begin another sample; it must not.
        server.score(Form::new().file("image", png(200 + death)).field("metrics", "aesthetic"));
        assert_eq!(in_flight(at).len(), 1, "another sample is in flight");
        let (scored, failed) = counts(&server, &run);
        assert_eq!(failed, 0, "it failed before its {DEATHS} deaths");
        // The first time it is the oldest; later it is postponed, and others may go first.
        assert!(scored == 3 || death > 0, "{scored} samples scored");
        server.kill();
    }
    server = Server::quick(at, &settings);
    until_scored(&server, &run, 3 + 1 + u64::from(DEATHS));
    until("the sample to fail", || (counts(&server, &run).1 == 1).then_some(()));
    let failed = server.get(&format!("/v1/runs/{run}/samples?state=failed")).json();
    let failed = failed["items"].as_array().expect("a list");
    assert_eq!((failed.len(), &failed[0]["name"]), (1, &Value::from("killer")), "{failed:?}");
    assert_eq!(failed[0]["error"]["code"], "service_ended", "{failed:?}");
    let detail = failed[0]["error"]["detail"].as_str().expect("words");
    assert!(detail.contains("memory"), "{detail}");
    until_in_flight(at, &[]);
    // No file remains that would be tried again.
    until("its file to be deleted", || (!kept(at, &killer).exists()).then_some(()));
}

#[test]
fn a_hanging_sample_does_not_delay_the_stop_and_is_scored_at_the_next_start() {
    let folder = folder();
    let at = folder.path();
    let settings = [("STELLAR_SERVER__DRAIN_SECONDS", "2")];
    let server = Server::quick(at, &settings);
    let run = new_run(&server);
    let image = png(1);
    block(&kept(at, &image));
    let hangs = submit(&server, &run, "hangs", &image);
    until_in_flight(at, &[&hangs]);
    server.terminate();
    // `ended` waits far less than the deadline of the sample.
    let (status, log) = server.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    fs::remove_file(kept(at, &image)).expect("the pipe is there");
    fs::write(kept(at, &image), &image).expect("a file");
    let server = Server::quick(at, &settings);
    until_scored(&server, &run, 1);
    assert_eq!(counts(&server, &run), (1, 0));
}
