//! Databases and packs of version 0.1, from before the renaming, still open.
//!
//! `tests/data/store/0.1.zip` is a SQLite database that a build of 0.1 (28 November 2026) wrote:
//! `POST /v1/score` of the demo
//! pack's astronaut as method `old`, and a finished run `background` with the same sample.

use std::{fs, path::Path};

use crate::{
    harness::{Server, folder},
    support::form::Form,
};

/// Digest of the demo pack of that build. The present one has other weights.
const PACK: &str = "7dceae0d6df89f7fd3274762c0ceed7c78148726dc83ee4990bc5f64c3bc0183";

#[test]
fn a_database_of_0_1_opens_and_its_samples_are_still_the_same() {
    let folder = folder();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let archive = fs::File::open(root.join("tests/data/store/0.1.zip")).unwrap();
    zip::ZipArchive::new(archive).unwrap().extract(folder.path()).unwrap();

    let server = Server::start(folder.path(), &[]);
    let runs = server.get("/v1/runs").json();
    let mut names: Vec<_> =
        runs["runs"].as_array().unwrap().iter().map(|run| run["run"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["background", "default"]);
    let counted = |pack: &str| {
        let board = server.get(&format!("/v1/leaderboard?method=old&pack={pack}")).json();
        board["rows"][0]["metrics"]["aesthetic"]["n"].as_u64().unwrap_or(0)
    };
    assert_eq!(counted(PACK), 2);

    // The same sample is still the same one: it gets the scores of another pack in addition.
    let goldens = root.join("packs/demo/goldens");
    let form = Form::new()
        .file("image", fs::read(goldens.join("astronaut.jpg")).unwrap())
        .file("reference", fs::read(goldens.join("astronaut-face.jpg")).unwrap())
        .field("prompt", "a person in an orange space suit")
        .field("method", "old")
        .field("name", "one");
    let response = server.score(form).json();
    assert_eq!(response["outcome"], "rescored", "{response}");
    assert_eq!((counted(PACK), server.counted("old", "aesthetic")), (2, 1));
}
