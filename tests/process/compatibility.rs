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
    assert_eq!(server.counted("old", "aesthetic"), 2);

    // The same sample with the same pack is a repetition: names, hashes and numbers are unchanged.
    let goldens = root.join("packs/demo/goldens");
    let form = Form::new()
        .file("image", fs::read(goldens.join("astronaut.jpg")).unwrap())
        .file("reference", fs::read(goldens.join("astronaut-face.jpg")).unwrap())
        .field("prompt", "a person in an orange space suit")
        .field("method", "old")
        .field("name", "one");
    let response = server.score(form).json();
    assert_eq!(response["outcome"], "repeated", "{response}");
    assert_eq!(server.counted("old", "aesthetic"), 2);
}
