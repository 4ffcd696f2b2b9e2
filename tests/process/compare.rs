//! `stellar-score compare` as a gate for training pipelines, on imported scores.

use std::fmt::Write as _;

use serde_json::json;

use crate::{
    harness::{Ran, Server, folder, program, run},
    support::client,
};

/// Imports a run of 24 samples of eight identities, with `shift` added to each `dino` score, and
/// returns its id.
fn import(server: &Server, name: &str, shift: f64) -> String {
    let headers = [("content-type", "application/json")];
    let body = json!({"method": "mine", "run": name}).to_string();
    let made = client::send(server.address, "POST /v1/runs", &headers, body.as_bytes())
        .expect("a response")
        .json();
    let id = made["run_id"].as_str().expect("an id").to_owned();
    let mut csv = ",name,dino_fidelity\n".to_owned();
    for at in 0..24_u32 {
        let value = f64::from(at % 8) / 20.0
            + f64::from(at * 7 % 24) / 500.0
            + shift * (0.5 + f64::from(at % 3) / 2.0);
        let _ = writeln!(csv, "{at},{:03}-0-{at},{value}", at % 8);
    }
    let headers = [("content-type", "text/csv")];
    let request = format!("POST /v1/runs/{id}/import?source=elsewhere");
    let response =
        client::send(server.address, &request, &headers, csv.as_bytes()).expect("a response");
    assert_eq!(response.json()["rows"], 24);
    id
}

fn compare(server: &Server, arguments: &[&str]) -> Ran {
    let url = format!("http://{}", server.address);
    let mut command = program(&["compare"]);
    command.args(arguments).args(["--server", &url, "--patience", "5"]);
    run(&mut command)
}

#[test]
fn the_gate_fails_only_a_worse_run() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    import(&server, "old", 0.1);
    let new = import(&server, "new", 0.0);
    import(&server, "same", 0.1);

    let worse = compare(&server, &["mine/new", "mine/old", "--fail-if-worse", "dino"]);
    assert_eq!(worse.code, Some(3), "{}", worse.stderr);
    assert!(
        worse.stdout.contains("24 pairs")
            && worse.stdout.contains("mine/new is worse than mine/old in dino")
    );
    // Better and equal runs pass. Nothing fails without a gate.
    for (a, b) in [("mine/old", "mine/new"), ("mine/same", "mine/old")] {
        assert!(compare(&server, &[a, b, "--fail-if-worse", "dino"]).printed().contains("dino"));
    }
    assert!(compare(&server, &[&new, "mine/old"]).printed().contains("worse"));
    let json = compare(&server, &["mine/new", "mine/old", "--json"]).printed();
    let found: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(found["slices"][0]["metrics"][0]["finding"], "worse");
    assert_eq!(found["slices"][0]["metrics"][0]["clusters"], 8);
}

#[test]
fn a_gate_without_a_verdict_fails_with_the_reason() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    import(&server, "old", 0.1);
    import(&server, "new", 0.0);
    compare(&server, &["mine/new", "mine/old", "--fail-if-worse", "goa"])
        .failed(&["goa cannot be compared"]);
    compare(&server, &["mine/new", "mine/old", "--fail-if-worse", "clip_n"])
        .failed(&["clip_n has no direction"]);
    compare(&server, &["mine/new", "mine/old", "--fail-if-worse", "beauty"])
        .failed(&["unknown metric `beauty`"]);
    compare(&server, &["mine/new", "mine/none"]).failed(&["run mine/none not found"]);
}
