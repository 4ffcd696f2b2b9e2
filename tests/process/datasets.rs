//! Datasets from damaged or malicious downloads and folders.

use std::{fs::File, io::Write as _};

use zip::{ZipWriter, write::SimpleFileOptions};

use crate::harness::{folder, program, run};

#[test]
fn an_archive_that_escapes_its_folder_is_refused_and_nothing_is_written() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let arguments =
        ["dataset", "synthesize", "--out", &at("trial"), "--identities", "2", "--prompts", "4"];
    run(&mut program(&arguments)).printed();
    let archive = File::options()
        .read(true)
        .write(true)
        .open(at("trial/download/image.zip"))
        .expect("it was made");
    let mut archive = ZipWriter::new_append(archive).expect("an archive");
    archive.start_file("../../escaped.jpg", SimpleFileOptions::default()).expect("an entry");
    archive.write_all(b"escaped").expect("its bytes");
    archive.finish().expect("an archive");

    let (download, prompts, out) = (at("trial/download"), at("trial/prompts"), at("stellar"));
    let arguments =
        ["dataset", "prepare", "--download", &download, "--prompts", &prompts, "--out", &out];
    run(&mut program(&arguments)).failed(&["image.zip", "escaped.jpg", "points outside"]);
    for name in ["stellar", "escaped.jpg", "trial/escaped.jpg"] {
        assert!(!folder.path().join(name).exists(), "{name} was written");
    }
}

#[test]
fn problems_of_a_folder_are_printed_with_control_characters_escaped() {
    let folder = folder();
    let root = folder.path().join("set");
    std::fs::create_dir(&root).expect("a folder");
    let name = "\u{1b}[31mred\u{202e}gpj.png";
    let line = serde_json::json!({"identity": "bob", "photo": name});
    std::fs::write(root.join("dataset.jsonl"), format!("{line}\n")).expect("a file");
    std::fs::write(root.join(name), "no image").expect("a file");
    let output =
        program(&["dataset", "check", &root.display().to_string()]).output().expect("it runs");
    let output =
        String::from_utf8(output.stdout).expect("text") + &String::from_utf8_lossy(&output.stderr);
    assert!(output.contains("\\u001b[31mred\\u202egpj.png"), "{output}");
    assert!(!output.contains(['\u{1b}', '\u{202e}']), "{output:?}");
}
