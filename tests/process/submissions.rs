//! Bundles of scores: made from a run on a server, and verified without it.

use std::{
    fs,
    io::{Cursor, Read as _, Write as _},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use stellar_score::{
    card::CollectedSettings,
    content::ContentHash,
    scoring::content,
    submission::{Bounds, Bundle, BundleSample, totals},
    toolkit::format_prompt,
};
use zip::{ZipArchive, ZipWriter, write::SimpleFileOptions};

use crate::{
    harness::{Ran, Server, folder, program, read, run},
    support::client,
    verify::made_up_run,
};

/// Metrics of small graphs.
const QUICK: &str = "clip_t,aesthetic,dino";

struct Case {
    at: PathBuf,
}

impl Case {
    fn path(&self, name: &str) -> String {
        self.at.join(name).display().to_string()
    }

    /// Verifies a bundle against the images and the dataset, all of it.
    fn verify(&self, bundle: &str) -> Ran {
        let (bundle, images, dataset) =
            (self.path(bundle), self.path("generations"), self.path("stellar"));
        let arguments = [
            "submission",
            "verify",
            &bundle,
            "--images",
            &images,
            "--dataset",
            &dataset,
            "--share",
            "1",
        ];
        run(&mut program(&arguments))
    }

    /// Verifies a bundle alone.
    fn verify_alone(&self, bundle: &str) -> Ran {
        run(&mut program(&["submission", "verify", &self.path(bundle)]))
    }

    /// Writes a copy of the bundle with a change, and with all hashes and tables right again.
    fn forged(&self, name: &str, change: impl FnOnce(&mut Vec<BundleSample>)) {
        self.rewritten(name, |bundle| {
            change(&mut bundle.samples);
            let settings = bundle.samples.iter().map(|sample| &sample.metadata.settings);
            bundle.facts.image_settings = CollectedSettings::of(settings);
            bundle.facts.metrics = totals(&bundle.samples);
            bundle.facts.samples = bundle.samples.len() as u64;
        });
    }

    /// Writes a copy of the bundle with a change and a manifest of the changed parts.
    fn rewritten(&self, name: &str, change: impl FnOnce(&mut Bundle)) {
        let file = fs::read(self.path("mine.zip")).expect("a bundle");
        let mut bundle = Bundle::read(&file, Bounds::COMMAND).expect("it is right");
        change(&mut bundle);
        let (bytes, _) = Bundle::write(&bundle.facts, &bundle.samples).expect("an archive");
        fs::write(self.path(name), bytes).expect("a file");
    }
}

/// Checks that a bundle was refused, and that the reasons contain these words.
#[track_caller]
fn refused(ran: &Ran, words: &[&str]) {
    assert_eq!(ran.code, Some(1), "{} {}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("REFUSED"), "{} {}", ran.stdout, ran.stderr);
    for word in words {
        assert!(ran.stdout.contains(word), "`{word}` is missing in: {}", ran.stdout);
    }
}

/// Writes a copy of an archive with a text replaced in one part, and the old manifest.
fn edited(from: &str, to: &str, part: &str, old: &str, new: &str) {
    let mut archive =
        ZipArchive::new(Cursor::new(fs::read(from).expect("a file"))).expect("an archive");
    let mut written = ZipWriter::new(Cursor::new(Vec::new()));
    for at in 0..archive.len() {
        let mut entry = archive.by_index(at).expect("an entry");
        let name = entry.name().expect("a name").into_owned();
        let mut text = String::new();
        entry.read_to_string(&mut text).expect("text");
        if name == part {
            assert!(text.contains(old), "{text}");
            text = text.replacen(old, new, 1);
        }
        written.start_file(name, SimpleFileOptions::default()).expect("an entry");
        written.write_all(text.as_bytes()).expect("its bytes");
    }
    fs::write(to, written.finish().expect("an archive").into_inner()).expect("a file");
}

/// Returns the prompt of a generated image.
fn prompt_of(case: &Case, name: &str) -> String {
    let about = read(&case.at.join(format!("generations/{name}.json")));
    let about: Value = serde_json::from_str(&about).expect("JSON");
    format_prompt(about["prompt"].as_str().expect("a prompt")).expect("it names a person")
}

fn pack(case: &Case, server: &Server, out: &str) -> Ran {
    let address = format!("http://{}", server.address);
    let (images, out) = (case.path("generations"), case.path(out));
    let arguments = ["submission", "pack", "--run", "mine", "--images", &images, "--out", &out];
    run(program(&arguments).args(["--server", &address]))
}

fn submitted(at: &Path) -> (Case, Server) {
    made_up_run(at);
    let case = Case { at: at.to_owned() };
    let server = Server::start(at, &[]);
    let card = json!({"name": "mine", "card": {
        "code_url": "https://example.org/mine", "per_image": {"seconds": 3.5, "gpu": "A100"},
        "training": {"evaluation_photos_excluded": true}}});
    let headers = [("content-type", "application/json")];
    let made =
        client::send(server.address, "POST /v1/methods", &headers, card.to_string().as_bytes());
    assert_eq!(made.expect("a response").status, 201);
    let address = format!("http://{}", server.address);
    let (dataset, images) = (case.path("stellar"), case.path("generations"));
    let arguments = ["submit", "--method", "mine", "--dataset", &dataset, "--images", &images];
    run(program(&arguments).args(["--metrics", QUICK, "--server", &address])).printed();
    (case, server)
}

/// Sends, verifies and withdraws bundles on a server.
fn on_the_board(case: &Case, server: &Server) {
    let address = format!("http://{}", server.address);
    let send = |bundle: &str| {
        let bundle = case.path(bundle);
        run(&mut program(&["submission", "send", &bundle, "--server", &address]))
    };
    send("means.zip").failed(&["clip_t: the mean is"]);
    let id = |printed: &str| {
        let id = printed.strip_prefix("submission ").and_then(|rest| rest.split(':').next());
        id.expect("an id").to_owned()
    };
    let sent = send("mine.zip").printed();
    assert!(sent.contains(": received\nmine/default\n"), "{sent}");
    assert!(send("mine.zip").printed().contains("received, as before"));
    let (mine, forged) = (id(&sent), id(&send("score.zip").printed()));
    let delete = |path: &str| {
        let done = client::send(server.address, &format!("DELETE {path}"), &[], b"");
        assert_eq!(done.expect("a response").status, 200);
    };
    let runs: Value = server.get("/v1/runs").json();
    delete(&format!("/v1/runs/{}", runs["runs"][0]["run_id"].as_str().expect("a run")));

    let (images, dataset) = (case.path("generations"), case.path("stellar"));
    let verify = |id: &str| {
        let arguments = ["submission", "verify", "--submission", id, "--server", &address];
        let mut command = program(&arguments);
        command.args(["--images", &images, "--dataset", &dataset, "--share", "1"]);
        run(command.args(["--seed", "18446744073709551615", "--note", "looked at all"]))
    };
    let state = |id: &str| {
        let read: Value = server.get(&format!("/v1/submissions/{id}")).json();
        (read["state"].as_str().expect("a state").to_owned(), read["verification"].clone())
    };
    refused(&verify(&forged), &["clip_t is"]);
    assert_eq!(state(&forged), ("received".to_owned(), Value::Null));
    let verified = verify(&mine).printed();
    assert!(verified.contains(&format!("reported: submission {mine} is verified")), "{verified}");
    let (of, report) = state(&mine);
    assert_eq!((of.as_str(), &report["samples"]), ("verified", &json!(8)));
    assert_eq!((&report["seed"], &report["note"]), (&json!(u64::MAX), &json!("looked at all")));
    let rows = || -> Value {
        let board: Value = server.get("/v1/leaderboard").json();
        board["rows"].clone()
    };
    assert_eq!(rows()[0]["method"], "mine");
    assert_eq!(rows()[0]["metrics"]["clip_t"]["n"], 8);

    let withdraw = || {
        let arguments = ["submission", "withdraw", &mine, "--note", "wrong", "--server", &address];
        run(&mut program(&arguments))
    };
    assert!(withdraw().printed().contains("withdrawn"));
    assert_eq!(rows(), json!([]));
    withdraw().failed(&["submission_conflict", "is withdrawn"]);
}

#[test]
fn a_bundle_is_verified_and_every_change_is_named() {
    let folder = folder();
    let (case, server) = submitted(folder.path());

    // The settings come from the images' own files.
    let method: Value = server.get("/v1/methods/mine").json();
    let settings = &method["runs"][0]["image_settings"]["settings"];
    assert_eq!(settings["model"]["values"], json!([{"value": "made-up", "samples": 8}]));
    assert_eq!(settings["steps"]["mixed"], json!(false));

    let printed = pack(&case, &server, "mine.zip").printed();
    assert!(printed.contains("8 samples"), "{printed}");
    pack(&case, &server, "again.zip").printed();
    let read = |name: &str| fs::read(case.path(name)).expect("a bundle");
    assert_eq!(read("mine.zip"), read("again.zip"), "the same run gives the same bytes");
    let bundle = Bundle::read(&read("mine.zip"), Bounds::COMMAND).expect("it is right");
    let card = bundle.facts.declarations.card.expect("a card");
    assert_eq!(card.training.evaluation_photos_excluded, Some(true));

    let alone = case.verify_alone("mine.zip").printed();
    assert!(alone.contains("nothing was scored again") && alone.contains("verified"), "{alone}");
    let whole = case.verify("mine.zip").printed();
    assert!(whole.contains("8 of 8 samples scored again in 3 metrics"), "{whole}");
    let seeded = ["submission", "verify", &case.path("mine.zip"), "--images"].map(str::to_owned);
    let seeded: Vec<&str> = seeded.iter().map(String::as_str).collect();
    let (images, dataset) = (case.path("generations"), case.path("stellar"));
    let mut some = program(&seeded);
    some.args([&images, "--dataset", &dataset, "--seed", "7"]);
    let some = run(&mut some).printed();
    assert!(some.contains("1 of 8 samples scored again in 3 metrics (seed 7)"), "{some}");

    // A changed part, with the manifest as it was.
    for (part, old, new) in [
        ("samples.jsonl", "\"value\":", "\"value\": "),
        ("samples.jsonl", "\"model\":\"made-up\"", "\"model\":\"better\""),
        ("submission.json", "\"run\": \"default\"", "\"run\": \"another\""),
        ("submission.json", "3.5", "0.5"),
    ] {
        edited(&case.path("mine.zip"), &case.path("changed.zip"), part, old, new);
        let message = case.verify_alone("changed.zip").failed(&["was changed"]);
        assert!(message.contains(part), "{message}");
    }

    // A score with a right manifest: the means tell, and if they are right too, the images.
    let better = |samples: &mut Vec<BundleSample>| {
        let score = samples[3].scores.get_mut("clip_t").expect("a score");
        score.value = score.value.map(|value| value + 0.01);
    };
    case.rewritten("means.zip", |bundle| better(&mut bundle.samples));
    refused(&case.verify_alone("means.zip"), &["clip_t: the mean is"]);
    case.forged("score.zip", better);
    case.verify_alone("score.zip").printed();
    let name = bundle.samples[3].name.clone();
    refused(&case.verify("score.zip"), &[&name, "clip_t is"]);

    // A null that was a number.
    case.forged("null.zip", |samples| {
        let score = samples[0].scores.get_mut("dino").expect("a score");
        (score.value, score.reason) = (None, Some("no_reference".to_owned()));
    });
    refused(&case.verify("null.zip"), &["dino is null (no_reference)"]);

    case.forged("setting.zip", |samples| samples[1].metadata.settings.steps = Some(20));
    refused(&case.verify("setting.zip"), &["the settings differ"]);
    case.rewritten("settings.zip", |bundle| bundle.samples[1].metadata.settings.steps = Some(20));
    refused(&case.verify_alone("settings.zip"), &["image_settings"]);

    case.forged("hash.zip", |samples| samples[2].image = "0".repeat(64));
    refused(&case.verify("hash.zip"), &["has another hash"]);
    case.forged("photo.zip", |samples| samples[2].references = vec!["0".repeat(64)]);
    refused(&case.verify("photo.zip"), &["the reference images have other hashes"]);
    case.forged("label.zip", |samples| samples[2].metadata.detectables.push("dog".to_owned()));
    refused(&case.verify("label.zip"), &["its inputs together", "labels of prompt or person"]);
    // Labels with the right hash of all inputs: only the dataset can tell.
    case.forged("easier.zip", |samples| {
        let sample = &mut samples[0];
        sample.metadata.detectables = vec!["person".to_owned()];
        let hash = |hex: &String| ContentHash::from_hex(hex).expect("a hash");
        let [references, auxiliary] = [&sample.references, &sample.auxiliary]
            .map(|of| of.iter().map(hash).collect::<Vec<_>>());
        let prompt = prompt_of(&case, &sample.name);
        let image = hash(&sample.image);
        let all = content(image, Some(&prompt), &references, &auxiliary, &sample.metadata);
        sample.content = all.to_hex();
    });
    let ran = case.verify("easier.zip");
    refused(&ran, &["labels of prompt or person", "its objects differ from the prompt's"]);
    assert!(!ran.stdout.contains("its inputs together"), "{}", ran.stdout);

    // A score that is left out raises the mean of the others.
    case.forged("missing.zip", |samples| drop(samples[0].scores.remove("dino")));
    refused(&case.verify_alone("missing.zip"), &["dino: 1 of 8 samples have neither"]);
    case.forged("large.zip", |samples| {
        samples[0].scores.get_mut("clip_t").expect("a score").value = Some(1e6);
    });
    refused(&case.verify_alone("large.zip"), &["1000000 is not a possible clip_t"]);
    case.forged("repeated.zip", |samples| {
        let copy = BundleSample { name: "zz".to_owned(), ..samples[0].clone() };
        samples.push(copy);
    });
    refused(&case.verify("repeated.zip"), &["some prompts", "have 2 samples, others 1"]);

    case.forged("fewer.zip", |samples| drop(samples.remove(5)));
    refused(&case.verify("fewer.zip"), &["prompts", "have no sample", "leaves out"]);

    // An image that is not the one that was scored.
    let image = folder.path().join(format!("generations/{name}.png"));
    let scored = fs::read(&image).expect("an image");
    fs::write(&image, [&scored[..], &[0]].concat()).expect("a file");
    refused(&case.verify("mine.zip"), &["has another hash", "nothing was scored again"]);
    pack(&case, &server, "other.zip").failed(&["is not the image that was scored"]);
    fs::write(&image, scored).expect("a file");

    on_the_board(&case, &server);
}
