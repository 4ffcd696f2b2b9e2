//! Comparing a pack with another one and with the toolkit's files, on the user's images.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{
    harness::{Server, copied_pack, folder, golden, program, read, run},
    support::form::Form,
};

/// Metrics of small graphs; the whole registry takes longer and proves nothing more.
const QUICK: &str = "clip_t,dino,goa,ips";

/// A synthetic run of the toolkit with its dataset: `generations` and `stellar` in `folder`.
pub(crate) fn made_up_run(folder: &Path) {
    let at = |name: &str| folder.join(name).display().to_string();
    let arguments =
        ["dataset", "synthesize", "--out", &at(""), "--identities", "2", "--prompts", "4"];
    run(&mut program(&arguments)).printed();
    let (download, prompts, out) = (at("download"), at("prompts"), at("stellar"));
    run(&mut program(&[
        "dataset",
        "prepare",
        "--download",
        &download,
        "--prompts",
        &prompts,
        "--out",
        &out,
    ]))
    .printed();
}

/// The scores of the run in the toolkit's files, computed by the service instead of `pack verify`.
fn scores_of_the_service(folder: &Path) -> PathBuf {
    let at = |name: &str| folder.join(name).display().to_string();
    let (dataset, generations, out) = (at("stellar"), at("generations"), at("scores"));
    let arguments = [
        "evaluate",
        "--method",
        "mine",
        "--dataset",
        &dataset,
        "--images",
        &generations,
        "--out",
        &out,
    ];
    run(&mut program(&arguments)).printed();
    folder.join("scores")
}

/// A copy of the demo pack with `from` replaced by `to` in the manifest.
fn changed_pack(folder: &Path, from: &str, to: &str) -> PathBuf {
    let pack = copied_pack(folder);
    let manifest = read(&pack.join("pack.toml"));
    assert!(manifest.contains(from), "{from}");
    fs::write(pack.join("pack.toml"), manifest.replace(from, to)).expect("a manifest");
    pack
}

fn metric<'a>(certificate: &'a Value, code: &str) -> &'a Value {
    let metrics = certificate["metrics"].as_array().expect("metrics");
    metrics
        .iter()
        .find(|line| line["metric"] == code)
        .unwrap_or_else(|| panic!("{code}: {certificate:#}"))
}

#[test]
fn toolkit_files_are_compared_by_row_and_a_changed_number_is_named() {
    let folder = folder();
    made_up_run(folder.path());
    let scores = scores_of_the_service(folder.path());
    let verify = |arguments: &[&str]| {
        let mut command = program(&["pack", "verify", "--toolkit"]);
        run(command.arg(folder.path()).args(arguments))
    };
    let certificate: Value =
        serde_json::from_str(&verify(&["--json"]).printed()).expect("a certificate");
    assert_eq!((&certificate["passed"], &certificate["samples"]), (&json!(true), &json!(8)));
    for (code, rows) in
        [("clip_t", 8), ("hpsv2", 8), ("dreamsim", 8), ("ips", 6), ("sis", 6), ("rfs", 4)]
    {
        let line = metric(&certificate, code);
        assert!(line["rows"].as_u64() >= Some(rows), "{line}");
        assert!(line["largest_difference"].as_f64() < Some(1e-5), "{line}");
    }
    for code in ["goa", "aps"] {
        assert!(metric(&certificate, code)["rows"].as_u64() > Some(0), "{certificate:#}");
    }

    let ips = scores.join("identity_preservation.csv");
    let text = read(&ips);
    let row = text.lines().find(|line| line.contains("001-0-00")).expect("a row");
    let (before, number) = row.rsplit_once(',').expect("a number");
    let changed = format!("{before},{}", number.parse::<f64>().expect("a number") + 0.01);
    fs::write(&ips, text.replace(row, &changed)).expect("a file");
    let ran = verify(&["--metrics", "ips,clip_t"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let line = ran.stdout.lines().find(|line| line.starts_with("ips ")).expect("a line");
    assert!(line.contains("FAILED") && line.ends_with("001-0-00"), "{line}");
    assert!(ran.stdout.contains("ips: 001-0-00: "), "{}", ran.stdout);
    assert!(
        ran.stdout.lines().any(|line| line.starts_with("clip_t ") && line.contains(" ok ")),
        "{}",
        ran.stdout
    );
    verify(&["--metrics", "ips", "--tolerance", "ips=0.02"]).printed();

    fs::write(&ips, text.replace("001-0-00", "stranger")).expect("a file");
    let ran = verify(&["--metrics", "ips"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stdout.contains("row \"stranger\" has no scored image"), "{}", ran.stdout);
}

#[test]
fn two_packs_are_compared_on_user_images_and_the_first_stores_the_certificate() {
    let folder = folder();
    let geometry = |filter: &str| {
        format!("height = 224, width = 224, filter = \"{filter}\", crop = \"none\", dtype = \"u8\"")
    };
    let pack = changed_pack(folder.path(), &geometry("bilinear"), &geometry("bicubic"));
    let images = folder.path().join("images");
    fs::create_dir(&images).expect("a folder");
    let sample = |name: &str, image: &str, reference: &str| {
        let line = json!({
            "name": name, "image": golden(image), "reference": golden(reference), "prompt": "a \
                person with a cup",
            "metadata": {"detectables": ["cup"]},
        });
        format!("{line}\n")
    };
    let list = sample("one", "astronaut.jpg", "astronaut-face.jpg")
        + &sample("two", "coffee.jpg", "astronaut.jpg")
        + &sample("three", "rocket.jpg", "coffee.jpg");
    fs::write(images.join("samples.jsonl"), list).expect("a list");

    let verify = |arguments: &[&str]| {
        let mut command =
            program(&["pack", "verify", "--against", "packs/demo", "--metrics", QUICK, "--images"]);
        run(command.arg(&images).args(arguments).arg(&pack))
    };
    let file = folder.path().join("drift-elsewhere.json");
    let text = verify(&[&format!("--json={}", file.display())]).printed();
    assert!(text.contains("Drift of pack demo") && text.contains("3 samples"), "{text}");
    assert!(!pack.join("drift.json").exists(), "only with --store");
    let drift: Value = serde_json::from_str(&read(&file)).expect("a certificate");
    let (dino, clip) = (metric(&drift, "dino"), metric(&drift, "clip_t"));
    assert_eq!((&dino["n"], &clip["n"]), (&json!(3), &json!(3)));
    let worst = |line: &Value| line["worst"]["difference"].as_f64().expect("a number").abs();
    assert!(worst(dino) > 1e-4, "{dino}");
    assert!(worst(clip) < 1e-5, "{clip}");
    assert!(["one", "two", "three"].contains(&dino["worst"]["sample"].as_str().expect("a name")));
    // Neither pack finds a face in the third reference.
    assert_eq!(
        (&metric(&drift, "ips")["nulls"], &metric(&drift, "goa")["nulls"]),
        (&json!([]), &json!([]))
    );

    let inspect = || run(program(&["pack", "inspect"]).arg(&pack)).printed();
    let before = inspect();
    assert!(before.contains("drift     not measured"), "{before}");
    verify(&["--store"]).printed();
    let after = inspect();
    let digest =
        |text: &str| text.lines().find(|line| line.starts_with("digest")).map(str::to_owned);
    assert_eq!(digest(&before), digest(&after));
    assert!(after.contains("drift     drift.json: 3 samples against demo ("), "{after}");

    let pack_setting = pack.display().to_string();
    let server = Server::start(folder.path(), &[("STELLAR_PACK", &pack_setting)]);
    let models = server.get("/v1/models").json();
    assert_eq!(models["drift"]["pack"]["digest"], models["pack"]["digest"]);
    assert_eq!(metric(&models["drift"], "dino")["n"], 3);
    drop(server);

    // A pack exported again into the same folder is another pack.
    let manifest = read(&pack.join("pack.toml"));
    fs::write(pack.join("pack.toml"), manifest + "# exported again\n").expect("a manifest");
    let text = inspect();
    assert!(text.contains("not about this one: measure again"), "{text}");
    let server = Server::start(folder.path(), &[("STELLAR_PACK", &pack_setting)]);
    assert!(server.get("/v1/models").json().get("drift").is_none());
}

#[test]
fn a_score_of_only_one_pack_is_reported_with_its_reason_and_a_damaged_image_fails() {
    let folder = folder();
    let pack = changed_pack(folder.path(), "role = \"dino.image\"", "role = \"dino.other\"");
    let images = folder.path().join("images");
    fs::create_dir(&images).expect("a folder");
    fs::copy(golden("coffee.jpg"), images.join("cup.jpg")).expect("an image");
    fs::write(images.join("cup.txt"), "a cup of coffee\n").expect("a prompt");
    let list = json!({"image": golden("coffee.jpg"), "reference": golden("astronaut.jpg"), "prompt": "a cup"});
    let verify = |metrics: &str, more: &[&str]| {
        let mut command = program(&[
            "pack",
            "verify",
            "--against",
            "packs/demo",
            "--metrics",
            metrics,
            "--images",
        ]);
        run(command.arg(&images).args(more).arg(&pack))
    };
    let text = verify("clip_t,clip_i,dino", &[]).printed();
    assert!(
        text.contains("clip_t ") && text.contains("null with both packs: clip_i (no_reference)"),
        "{text}"
    );
    assert!(
        text.contains(
            "dino: null (unavailable) with the first pack, null (no_reference) with the \
            second, of 1 samples: cup"
        ),
        "{text}"
    );
    verify("clip_i", &[]).failed(&["nothing to compare", "clip_i is null (no_reference)"]);

    fs::write(images.join("none.png"), "no image").expect("a file");
    let ran = verify("clip_t", &["--store"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("problem: none: ") && ran.stderr.contains("is not stored"),
        "{}",
        ran.stderr
    );
    assert!(!pack.join("drift.json").exists());

    fs::write(images.join("samples.jsonl"), list.to_string()).expect("a list");
    let text = verify("dino", &[]).printed();
    assert!(
        text.contains("null (unavailable) with the first pack, a number with the second"),
        "{text}"
    );
}

#[test]
fn an_impossible_comparison_says_what_to_do() {
    let folder = folder();
    let empty = folder.path().display().to_string();
    let demo = "packs/demo";
    for (arguments, words) in [
        (&["--against", demo, "--images", &empty][..], &["has no images", "samples.jsonl"][..]),
        (&["--against", "packs/none", "--images", "packs/demo/goldens"], &["packs/none"]),
        (&["--against", demo, "--images", "packs/demo/goldens"], &["are the same pack"]),
        (&["--toolkit", &empty], &["folder of generated images"]),
    ] {
        run(program(&["pack", "verify"]).args(arguments)).failed(words);
    }
    made_up_run(folder.path());
    run(&mut program(&["pack", "verify", "--toolkit", &empty]))
        .failed(&["no CSV file of the toolkit"]);
    for (arguments, words) in [
        (&["--against", demo][..], "--images"),
        (&["--images", &empty], "--against"),
        (&["--images", &empty, "--against", demo, "--toolkit", &empty], "cannot be used with"),
        (&["--store"], "--against"),
        (&["--toolkit", &empty, "--tolerance", "clip_t"], "CODE=NUMBER"),
    ] {
        let ran = run(program(&["pack", "verify"]).args(arguments));
        assert_eq!(ran.code, Some(2), "{}", ran.stdout);
        assert!(ran.stderr.contains(words), "{}", ran.stderr);
    }
}

/// Two packs with the same checkpoints and graphs that differ only in the precision in their
/// manifests.
#[test]
fn scores_of_two_precisions_are_separate_and_not_comparable() {
    let folder = folder();
    let half = changed_pack(folder.path(), "precision = \"fp32\"", "precision = \"fp16\"")
        .display()
        .to_string();
    let score = |pack: &str, name: &str| {
        let server = Server::start(folder.path(), &[("STELLAR_PACK", pack)]);
        let form = Form::new().file("image", fs::read(golden("coffee.jpg")).expect("an image"));
        let form = form.field("metrics", "aesthetic").field("method", "mine").field("run", name);
        let response = server.score(form).json();
        (server, response)
    };
    let (server, of_single) = score("packs/demo", "single");
    drop(server);
    let (server, of_half) = score(&half, "half");
    let digests =
        [&of_single, &of_half].map(|response| response["provenance"]["pack"]["digest"].clone());
    assert_ne!(digests[0], digests[1]);

    let rows = |query: &str| {
        let board = server.get(&format!("/v1/leaderboard?{query}")).json();
        let rows = board["rows"].as_array().expect("rows").iter();
        rows.map(|row| (row["pack"]["digest"].clone(), row["metrics"]["aesthetic"]["n"].clone()))
            .collect::<Vec<_>>()
    };
    // One method, but one row for each pack with only its own sample.
    assert_eq!(rows(""), [(digests[1].clone(), json!(1))]);
    let all = rows("pack=all");
    assert_eq!(all.len(), 2, "{all:?}");
    for digest in &digests {
        assert!(all.contains(&(digest.clone(), json!(1))), "{all:?}");
    }
    let (a, b) =
        (of_half["run_id"].as_str().expect("a run"), of_single["run_id"].as_str().expect("a run"));
    let refused = server.get(&format!("/v1/runs/{a}/compare/{b}"));
    assert_eq!(refused.status, 409);
    assert!(
        refused.json()["detail"]
            .as_str()
            .expect("a text")
            .contains("different packs cannot be compared")
    );
    for (run, digest) in [(a, &digests[1]), (b, &digests[0])] {
        let report = server.get(&format!("/v1/runs/{run}/report?policy=none")).json();
        assert_eq!(&report["pack"]["digest"], digest);
    }
}
