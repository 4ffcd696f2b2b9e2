//! Commands that print and exit.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
};

use serde_json::Value;
use stellar_score::engine::pack::Sha;

use crate::{
    harness::{copied_pack, folder, golden, program, read, run},
    support::images::png_of,
    verify::made_up_run,
};

fn score(arguments: &[&str]) -> std::process::Command {
    let mut command = program(&["score", "--image", &golden("astronaut.jpg")]);
    command.args(arguments);
    command
}

#[test]
fn score_prints_a_table_and_a_note_about_demo_weights() {
    let table = run(&mut score(&[
        "--prompt",
        "a person in an orange space suit",
        "--reference",
        &golden("astronaut-face.jpg"),
        "--metrics",
        "clip_t,clip_i,clip_n,aesthetic",
    ]))
    .printed();
    let lines: Vec<Vec<&str>> =
        table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["metric", "score", "better", "note"]);
    for (line, metric) in lines[1..5].iter().zip(["clip_t", "clip_i", "clip_n", "aesthetic"]) {
        assert_eq!(line[0], metric);
        assert!(line[1].parse::<f64>().is_ok(), "{table}");
    }
    assert!(table.contains("the numbers mean nothing"), "{table}");
}

#[test]
fn score_names_the_missing_input_of_a_null_score() {
    let table = run(&mut score(&["--metrics", "clip_t,aesthetic"])).printed();
    assert!(table.contains("no_prompt: send the prompt"), "{table}");
}

#[test]
fn score_prints_json_with_the_same_numbers_as_the_table() {
    let arguments = ["--prompt", "a person", "--metrics", "clip_t"];
    let table = run(&mut score(&arguments)).printed();
    let json = run(score(&arguments).arg("--json")).printed();
    let document: Value = serde_json::from_str(&json).unwrap();
    let value = document["scores"]["clip_t"]["value"].as_f64().unwrap();
    assert!(table.contains(&format!("{value:.5}")), "{value} is missing in: {table}");
    assert_eq!(document["weights"], "demo");
    assert_eq!(document["evidence"]["texts"][0]["tokens"], 4);
    assert_eq!(document["provenance"]["pack"]["name"], "demo");
}

#[test]
fn score_takes_metadata_from_a_file() {
    let folder = folder();
    let file = folder.path().join("known.json");
    fs::write(&file, r#"{"detectables": ["helmet"]}"#).unwrap();
    let arguments = ["--metrics", "aesthetic", "--metadata", file.to_str().unwrap()];
    run(&mut score(&arguments)).printed();
    fs::write(&file, r#"{"detectable": ["helmet"]}"#).unwrap();
    run(&mut score(&arguments)).failed(&["known.json", "unknown field"]);
}

#[test]
fn score_refuses_an_unknown_metric_and_lists_the_known_ones() {
    run(&mut score(&["--metrics", "beauty"])).failed(&["`beauty`", "clip_t", "aesthetic"]);
}

#[test]
fn score_names_an_unusable_file() {
    run(&mut program(&["score", "--image", "/nowhere/x.png"]))
        .failed(&["cannot read /nowhere/x.png"]);
    run(&mut program(&["score", "--image", "Cargo.toml"]))
        .failed(&["Cargo.toml", "PNG, JPEG, WebP or PPM"]);
    let folder = folder();
    let half = folder.path().join("half.jpg");
    let whole = fs::read(golden("astronaut.jpg")).unwrap();
    fs::write(&half, &whole[..whole.len() / 2]).unwrap();
    run(&mut program(&["score", "--image", half.to_str().unwrap()])).failed(&["truncated"]);
}

#[test]
fn pack_inspect_lists_the_graphs_with_their_sources() {
    let text = run(&mut program(&["pack", "inspect", "packs/demo"])).printed();
    let digest =
        Sha::of(&fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/packs/demo/pack.toml")).unwrap());
    for word in [
        "clip.image",
        "clip.text",
        "clip_l.image",
        "fp32",
        "pixels u8[224, 224, 3]",
        "goldens   present",
    ] {
        assert!(text.contains(word), "`{word}` is missing in: {text}");
    }
    assert!(text.contains(&digest.to_string()), "{text}");
}

#[test]
fn pack_inspect_names_the_damaged_file() {
    let folder = folder();
    let pack = copied_pack(folder.path());
    fs::write(pack.join("graphs/clip.text.onnx"), "no graph").unwrap();
    run(program(&["pack", "inspect"]).arg(&pack)).failed(&["graph `clip.text`", "expected sha256"]);
}

#[test]
fn pack_verify_passes_for_the_demo_pack() {
    let text = run(&mut program(&["pack", "verify"])).printed();
    assert!(text.contains("\npassed: "), "{text}");
    assert!(!text.contains("FAILED"), "{text}");
    let json = run(&mut program(&["pack", "verify", "--json"])).printed();
    let certificate: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(certificate["passed"], true);
}

#[test]
fn pack_verify_fails_for_a_pack_that_misses_its_goldens() {
    let folder = folder();
    let pack = copied_pack(folder.path());
    let file = pack.join("goldens/goldens.json");
    let before = Sha::of(&fs::read(&file).unwrap()).to_string();
    let mut goldens: Value = serde_json::from_str(&read(&file)).unwrap();
    let expected = &mut goldens["samples"][0]["expected"]["clip_t"];
    *expected = (expected.as_f64().unwrap() + 0.01).into();
    let changed = goldens.to_string();
    fs::write(&file, &changed).unwrap();
    let manifest =
        read(&pack.join("pack.toml")).replace(&before, &Sha::of(changed.as_bytes()).to_string());
    fs::write(pack.join("pack.toml"), manifest).unwrap();
    let ran = run(program(&["pack", "verify"]).arg(&pack));
    assert_eq!(ran.code, Some(1), "{}", ran.stdout);
    let line = ran.stdout.lines().find(|line| line.starts_with("clip_t")).unwrap();
    assert!(line.ends_with("FAILED"), "{line}");
    assert!(ran.stdout.contains("\nFAILED: "), "{}", ran.stdout);
}

#[test]
fn openapi_prints_the_committed_document() {
    let printed = run(&mut program(&["openapi"])).printed();
    let committed = read(concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json").as_ref());
    assert!(
        printed == committed,
        "openapi/openapi.json is out of date: run `make openapi` and commit it"
    );
}

#[test]
fn config_prints_defaults_that_load_from_a_file() {
    let printed = run(&mut program(&["config"])).printed();
    assert!(printed.contains("[limits]"), "{printed}");
    let folder = folder();
    let file = folder.path().join("own.toml");
    fs::write(&file, printed).unwrap();
    let url = format!("sqlite:{}", folder.path().join("stellar.db").display());
    let mut command = program(&["migrate"]);
    run(command.env("STELLAR_STORE__URL", &url).arg("--config").arg(&file)).printed();
    let mut command = program(&["migrate"]);
    run(command.env("STELLAR_STORE__URL", &url).env("STELLAR_CONFIG_FILE", &file)).printed();
}

#[test]
fn migrate_is_idempotent() {
    let folder = folder();
    let database = folder.path().join("new/folder/stellar.db");
    for _ in 0..2 {
        let mut command = program(&["migrate"]);
        command.env("STELLAR_STORE__URL", format!("sqlite:{}", database.display()));
        assert_eq!(run(&mut command).printed(), "the database schema is up to date\n");
        assert!(database.is_file());
    }
}

#[test]
fn help_shows_examples() {
    let help = run(&mut program(&["--help"])).printed();
    for word in
        ["serve", "score", "pack", "migrate", "openapi", "config", "Examples:", "STELLAR_PACK="]
    {
        assert!(help.contains(word), "`{word}` is missing in: {help}");
    }
    let help = run(&mut program(&["score", "--help"])).printed();
    for word in ["--image", "--prompt", "--reference", "--metrics", "--json"] {
        assert!(help.contains(word), "`{word}` is missing in: {help}");
    }
    let version = run(&mut program(&["--version"])).printed();
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
}

#[test]
fn the_old_spelling_of_evaluate_works_and_warns() {
    let folder = folder();
    made_up_run(folder.path());
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (dataset, images, out) = (at("stellar"), at("generations"), at("results"));
    let mut command = program(&["run", "--method", "mine", "--metrics", "aesthetic"]);
    command.args(["--dataset", &dataset, "--run", &images, "--name", "old", "--out", &out]);
    let ran = run(&mut command);
    for word in ["`run` is now `evaluate`", "--run DIR is now --images DIR"] {
        assert_eq!(
            ran.stderr.matches(word).count(),
            1,
            "`{word}` must occur once in: {}",
            ran.stderr
        );
    }
    let table = ran.printed();
    assert!(table.contains("mine/old") && table.contains("| aesthetic |"), "{table}");
}

#[test]
fn an_unknown_command_is_refused_with_a_hint() {
    let ran = run(&mut program(&["rank"]));
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("'rank'") && ran.stderr.contains("--help"), "{}", ran.stderr);
}

const IMAGES: usize = 20;

/// Images with arbitrary relations that count as true: with demo weights, the true ones can only
/// be expected to score no better than the others.
fn list_of_images(folder: &std::path::Path) -> String {
    let predicates =
        ["riding", "holding", "wearing", "near", "behind", "eating", "sitting on", "under"];
    let objects = ["horse", "cup", "hat", "tree", "car", "pizza", "bench", "Saturn", "umbrella"];
    let lines = (0..IMAGES).map(|at| {
        fs::write(
            folder.join(format!("{at}.png")),
            png_of(48, 40 + (at as u32 % 3) * 10, at as u32),
        )
        .unwrap();
        let relation = |k: usize| {
            let (predicate, object) =
                ((at * 5 + k * 3) % predicates.len(), (at * 7 + k * 4) % objects.len());
            ["person", predicates[predicate], objects[object]]
        };
        let relations: Vec<_> = (0..3).map(relation).collect();
        serde_json::json!({ "image": format!("{at}.png"), "relations": relations }).to_string()
    });
    let list = folder.join("pairs.jsonl");
    fs::write(&list, lines.collect::<Vec<_>>().join("\n")).unwrap();
    list.to_str().unwrap().to_owned()
}

#[test]
fn validate_relations_is_near_chance_on_random_weights_and_reports_it() {
    let folder = folder();
    let list = list_of_images(folder.path());
    let validate = |more: &[&str]| {
        let mut command = program(&["validate", "relations", "--pairs", &list, "--negatives", "4"]);
        run(command.args(more)).printed()
    };
    let text = validate(&["--json"]);
    let report: Value = serde_json::from_str(&text).unwrap();
    let counts = ["images", "relations", "unmapped"].map(|name| report[name].as_u64().unwrap());
    assert_eq!(counts, [IMAGES as u64, 3 * IMAGES as u64, 0]);
    assert_eq!(
        (&report["backend"], &report["checkpoint"]),
        (&"egtr".into(), &"naver-ai/egtr".into())
    );
    assert!(report["note"].as_str().unwrap().contains("demo weights"), "{report}");
    for kind in ["swapped_predicate", "swapped_object"] {
        let of = |name: &str| report[kind][name].as_f64().unwrap();
        assert!((of("above") - 0.5).abs() < 0.15, "{report}");
        let [low, high] = [0, 1].map(|end| report[kind]["interval"][end].as_f64().unwrap());
        assert!(low < of("above") && of("above") < high && high - low < 0.4, "{report}");
        assert!(of("pairs") <= (3 * 4 * IMAGES) as f64 && of("pairs") > 0.0);
    }
    assert_eq!(validate(&["--json"]), text, "the same seed gives the same report");
    let table = validate(&["--seed", "1"]);
    for word in ["other predicate", "other object", "demo weights", "naver-ai/egtr"] {
        assert!(table.contains(word), "`{word}` is missing in: {table}");
    }
}

#[test]
fn validate_relations_names_the_unusable_line_and_file() {
    let folder = folder();
    let list = folder.path().join("pairs.jsonl");
    let validate = |text: &str| {
        fs::write(&list, text).unwrap();
        run(&mut program(&["validate", "relations", "--pairs", list.to_str().unwrap()]))
    };
    validate("[]").failed(&["pairs.jsonl:1: not of the form", "riding"]);
    validate(r#"{"image": "absent.png", "relations": [["person", "on", "horse"]]}"#)
        .failed(&["absent.png"]);
    validate(r#"{"image": "a.png", "relations": []}"#).failed(&["no image with a relation"]);
}

/// A server that answers every request with 507 and the number of earlier requests.
fn full_server() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound listener has an address");
    std::thread::spawn(move || {
        for (asked, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            while lines.next().is_some_and(|line| !line.is_empty()) {}
            let body = format!(
                r#"{{"detail": "the 5 MiB set aside are used up, asked {asked} times: finish runs", "code": "storage_full"}}"#
            );
            let head = "HTTP/1.1 507 Insufficient Storage\r\nretry-after: 1\r\nconnection: close";
            // The command may have given up by now.
            let _ = write!(&stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        }
    });
    address
}

#[test]
fn a_command_reports_a_full_server_once_and_gives_up_after_its_patience() {
    let url = format!("http://{}", full_server());
    let ran = run(&mut program(&["report", "mine", "--server", &url, "--patience", "1"]));
    let notes: Vec<_> = ran.stderr.lines().filter(|line| line.starts_with("note: ")).collect();
    assert_eq!(notes.len(), 1, "{}", ran.stderr);
    assert!(
        notes[0].contains("507") && notes[0].contains("asked 0 times: finish runs"),
        "{}",
        notes[0]
    );
    let message = ran.failed(&["has accepted no requests for", "repeat the command to resume"]);
    assert!(message.contains("finish runs"), "{message}");
}
