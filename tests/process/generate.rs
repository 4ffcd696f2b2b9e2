//! Generating images with the demo generator pack: one image, the images of a dataset, and the
//! comparison with diffusers' images.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use safetensors::{Dtype, tensor::TensorView};
use serde_json::Value;

use crate::{
    harness::{Ran, copy, folder, program, read, run, until},
    verify::made_up_run,
};

fn generator_pack() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packs/demo-generator")
}

fn golden(name: &str) -> String {
    generator_pack().join("goldens").join(name).display().to_string()
}

/// The arguments of `generate` with the demo generator pack.
fn generate<'a>(pack: &'a str, out: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    [&["generate", "--pack", pack, "--out", out], rest].concat()
}

/// Generates the images of kind T of the made-up dataset.
fn images(at: &Path, out: &str, rest: &[&str]) -> Ran {
    let (dataset, out) = (at.join("stellar").display().to_string(), at.join(out));
    let pack = generator_pack().display().to_string();
    let out = out.display().to_string();
    let selected = ["--dataset", &dataset, "--split", "test"];
    run(&mut program(&generate(&pack, &out, &[&selected, rest].concat())))
}

fn is_json(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|ending| ending == "json")
}

/// Visible files of a folder by name; descriptions without their time.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if is_json(&name) && !name.starts_with('.') {
            let mut about: Value = serde_json::from_str(&read(&path)).expect("JSON");
            let time = about["generation_datetime"].take();
            assert!(time.as_str().is_some_and(|time| time.len() == 15), "{time}");
            found.insert(name, about.to_string().into_bytes());
        } else if !name.starts_with('.') {
            found.insert(name, fs::read(path).expect("a file"));
        }
    }
    found
}

#[test]
fn one_image_has_the_same_bytes_every_time_and_another_photo_another_image() {
    let folder = folder();
    let pack = generator_pack().display().to_string();
    let make = |out: &str, photo: &str, rest: &[&str]| {
        let out = folder.path().join(out);
        let (path, photo) = (out.display().to_string(), golden(photo));
        let given =
            ["--prompt", "{} as a clown skiing", "--photo", &photo, "--steps", "3", "--size", "64"];
        let printed =
            run(&mut program(&generate(&pack, &path, &[&given, rest].concat()))).printed();
        assert_eq!(printed, format!("wrote {path}\n"));
        fs::read(out).expect("the image")
    };
    let mask = golden("mask-colours.png");
    let first = make("a.png", "astronaut-face.jpg", &["--mask", &mask]);
    assert!(first.starts_with(b"\x89PNG"));
    let text = String::from_utf8_lossy(&first);
    assert!(text.contains("\"generated\":true") && text.contains("\"seed\":42"));
    assert_eq!(make("b.png", "astronaut-face.jpg", &["--mask", &mask]), first);
    assert_ne!(make("c.png", "astronaut-face.jpg", &[]), first);
    assert_ne!(make("d.png", "chelsea.webp", &["--mask", &mask]), first);
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 4);
}

#[test]
fn wrong_requests_are_refused_before_or_with_what_to_do() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (pack, out, photo) =
        (generator_pack().display().to_string(), at("x.png"), golden("astronaut-face.jpg"));
    let refused = |pack: &str, rest: &[&str], words: &[&str]| {
        run(&mut program(&generate(pack, &out, rest))).failed(words);
        assert!(!folder.path().join("x.png").exists());
    };
    refused(&pack, &["--prompt", "{} skiing"], &["photo is missing"]);
    refused(&pack, &["--prompt", "a dog", "--size", "65"], &["multiple of 32"]);
    refused(&pack, &["--prompt", "a dog", "--steps", "0"], &["1 to 1000"]);
    refused(&pack, &["--prompt", "{} x", "--photo", &at("none.jpg")], &["none.jpg"]);
    let manifest = generator_pack().join("pack.toml").display().to_string();
    refused(&pack, &["--prompt", "{} x", "--photo", &manifest], &["the photo cannot be used"]);
    let scoring = Path::new(env!("CARGO_MANIFEST_DIR")).join("packs/demo").display().to_string();
    refused(&scoring, &["--prompt", "a dog"], &["no [generator] table"]);
    // Before the pack is opened, whose graphs may take minutes to load.
    let none = at("no-pack");
    refused(&none, &["--prompt", "{} x", "--photo", &manifest], &["the photo cannot be used"]);
    let masked = ["--prompt", "{} x", "--photo", &photo, "--mask", &manifest];
    refused(&none, &masked, &["the mask cannot be used"]);
    for (place, words) in [
        ("", "is a folder"),
        ("x.jpg", "does not end in .png"),
        ("missing/x.png", "create it first"),
    ] {
        run(&mut program(&generate(&none, &at(place), &["--prompt", "a dog"]))).failed(&[words]);
    }
    let both = ["--prompt", "a dog", "--dataset", "x"];
    let code = run(&mut program(&generate(&pack, &out, &both))).code;
    assert_eq!(code, Some(2), "an image or a dataset");
    for of_datasets in [["--kind", "T"], ["--limit", "1"], ["--method", "mine"]] {
        let lonely = [&["--prompt", "a dog", "--photo", &photo][..], &of_datasets].concat();
        assert_eq!(run(&mut program(&generate(&pack, &out, &lonely))).code, Some(2));
    }
    let other = ["--dataset", "x", "--photo", &photo];
    assert_eq!(run(&mut program(&generate(&pack, &out, &other))).code, Some(2));
}

#[test]
fn a_killed_command_goes_on_and_ends_with_the_bytes_of_an_uninterrupted_one() {
    let folder = folder();
    let at = folder.path();
    made_up_run(at);
    let settings = ["--kind", "T", "--steps", "20", "--size", "64"];
    let printed = images(at, "whole", &[&settings[..], &["--concurrency", "1"]].concat()).printed();
    assert!(printed.contains("8 images") && printed.contains("8 generated, 0 were there"));
    let whole = files(&at.join("whole"));
    assert_eq!(whole.len(), 16);

    let (dataset, out) = (at.join("stellar").display().to_string(), at.join("killed"));
    let (pack, path) = (generator_pack().display().to_string(), out.display().to_string());
    let given = [&["--dataset", &*dataset, "--split", "test"], &settings[..]].concat();
    let mut command = program(&generate(&pack, &path, &given));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    until("the first image", || {
        let is_there = |name: &str| out.join(name).exists();
        whole.keys().any(|name| is_there(name)).then_some(())
    });
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    let left = files(&out).keys().filter(|name| is_json(name)).count();
    assert!(left < 8, "it was killed in time");

    let printed = images(at, "killed", &settings).printed();
    assert!(printed.contains(&format!("{left} were there")), "{printed}");
    assert!(files(&out) == whole, "the bytes differ");
    let printed = images(at, "killed", &settings).printed();
    assert!(printed.contains("0 generated, 8 were there"), "{printed}");

    let other = ["--kind", "T", "--steps", "21", "--size", "64"];
    images(at, "killed", &other).failed(&["settings.steps is 20 there and 21 here"]);
    images(at, "other", &other[2..]).failed(&["H, T"]);
    assert!(!at.join("other").exists());
}

#[test]
fn wrong_options_and_bad_photos_do_not_spoil_a_folder_and_other_photos_are_refused() {
    let folder = folder();
    let at = folder.path();
    made_up_run(at);
    let settings = ["--kind", "T", "--photos", "first", "--size", "64", "--steps"];
    let make = |steps: &'static str| images(at, "out", &[&settings[..], &[steps]].concat());
    make("0").failed(&["1 to 1000"]);
    assert!(!at.join("out").exists());
    fs::write(at.join("file"), "").expect("a file");
    images(at, "file", &[&settings[..], &["1"]].concat()).failed(&["is not a folder"]);

    let photo = |identity: &str| at.join("stellar").join(identity).join("0.jpg");
    let bytes = fs::read(photo("001")).expect("a photo");
    fs::write(photo("001"), "no image").expect("a damaged photo");
    let ran = make("1");
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("image 001-0-00: the photo cannot be used"), "{}", ran.stderr);
    assert!(ran.stderr.contains("repeat the command"), "{}", ran.stderr);
    let there = files(&at.join("out"));
    assert!(there.contains_key("000-0-00.json") && !there.contains_key("001-0-00.json"));
    fs::write(photo("001"), bytes).expect("the photo");
    let printed = make("1").printed();
    assert!(printed.contains(&format!("{} were there", there.len() / 2)), "{printed}");
    assert!(files(&at.join("out")).contains_key("001-0-00.json"));

    let mut other = fs::read(photo("000")).expect("a photo");
    other.push(0);
    fs::write(photo("000"), other).expect("another photo");
    make("1").failed(&["another photo, mask or words", "000/0.jpg"]);
}

#[test]
fn evaluate_takes_a_generated_folder_as_it_is() {
    let folder = folder();
    let at = folder.path();
    made_up_run(at);
    let settings = ["--kind", "H", "--photos", "first", "--steps", "1", "--size", "64"];
    let named = ["--method", "ours", "--seed-by-name"];
    images(at, "generated", &[&settings[..], &named].concat()).printed();
    let about: Value =
        serde_json::from_str(&read(&at.join("generated/000-0-01.json"))).expect("JSON");
    assert_eq!((&about["model_name"], &about["is_stellar_t"]), (&"ours".into(), &false.into()));
    let path = |name: &str| at.join(name).display().to_string();
    let (dataset, generations, out) = (path("stellar"), path("generated"), path("results"));
    let report = run(&mut program(&[
        "evaluate",
        "--method",
        "ours",
        "--dataset",
        &dataset,
        "--images",
        &generations,
        "--out",
        &out,
        "--metrics",
        "clip_t",
    ]))
    .printed();
    assert!(report.contains("clip_t") || report.contains("CLIP-T"), "{report}");
}

#[test]
fn the_demo_generator_pack_equals_diffusers() {
    let pack = generator_pack().display().to_string();
    let printed = run(&mut program(&["pack", "inspect", &pack])).printed();
    assert!(printed.contains("generator stellarnet-like: 5 words"), "{printed}");
    let json = run(&mut program(&["pack", "verify", &pack, "--json"])).printed();
    let certificate: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(certificate["passed"], true, "{json}");
    assert!(certificate["mean_batch"].as_f64().expect("a number") > 1.5, "{json}");
    for image in certificate["images"].as_array().expect("a list") {
        assert_eq!(image["batch_independent"], true, "{image}");
        assert!(image["bytes"].as_f64().expect("a number") >= 0.999, "{image}");
        assert!(image["seed_bytes"].as_f64().expect("a number") >= 0.999, "{image}");
    }
}

#[test]
fn another_golden_image_fails_the_verification() {
    let folder = folder();
    let pack = folder.path().join("pack");
    copy(&generator_pack(), &pack);
    let golden = |name: &str| pack.join("goldens").join(name);
    fs::copy(golden("one-step.latents.npy"), golden("masked.latents.npy")).expect("a copy");
    let ran = run(&mut program(&["pack", "verify", &pack.display().to_string()]));
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let masked = ran.stdout.lines().find(|line| line.starts_with("masked ")).expect("its row");
    assert!(masked.contains("FAILED"), "{masked}");
    assert_eq!(ran.stdout.matches("FAILED").count(), 2, "{}", ran.stdout);
    let against = pack.display().to_string();
    let arguments = ["pack", "verify", &against, "--toolkit", &against];
    run(&mut program(&arguments)).failed(&["golden images only"]);
}

/// A folder with words that were learned for one photo.
fn learned(folder: &Path, count: usize, value: f32) {
    fs::create_dir_all(folder).expect("a folder");
    for (name, width) in [("learned_embeds.safetensors", 32), ("learned_embeds_2.safetensors", 40)]
    {
        let values = (0..count * width).map(|at| value * (1.0 + (at % 5) as f32));
        let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
        let tensor = TensorView::new(Dtype::F32, vec![count, width], &bytes).expect("a tensor");
        let file = safetensors::serialize([("<person>", tensor)], None).expect("a file");
        fs::write(folder.join(name), file).expect("written");
    }
}

#[test]
fn learned_words_stand_for_a_person_in_one_image_and_in_a_dataset() {
    let folder = folder();
    let at = folder.path();
    made_up_run(at);
    let pack = generator_pack().display().to_string();
    let words = |name: &str| at.join("learned").join(name).display().to_string();
    for (name, value) in [("000-0", 0.1), ("001-0", -0.2)] {
        learned(&at.join("learned").join(name), 3, value);
    }
    let make = |out: &str, words: &str| {
        let path = at.join(out).display().to_string();
        let given = ["--prompt", "{} skiing", "--words", words, "--steps", "2", "--size", "64"];
        run(&mut program(&generate(&pack, &path, &given))).printed();
        fs::read(at.join(out)).expect("the image")
    };
    let first = make("a.png", &words("000-0"));
    assert_eq!(make("b.png", &words("000-0")), first);
    assert_ne!(make("c.png", &words("001-0")), first);
    fs::remove_dir_all(words("001-0")).expect("it is there");

    let learned_words = at.join("learned").display().to_string();
    let settings = ["--kind", "T", "--photos", "first", "--size", "64", "--steps", "1"];
    let given = [&settings[..], &["--words", &learned_words]].concat();
    let ran = images(at, "out", &given);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("image 001-0-00: cannot read"), "{}", ran.stderr);
    learned(&at.join("learned/001-0"), 3, -0.2);
    images(at, "out", &given).printed();
    let there = files(&at.join("out"));
    let about: Value = serde_json::from_slice(&there["000-0-00.json"]).expect("JSON");
    assert_eq!(about["model_name"], "textual-inversion");
    let auxiliary = &about["aux_metadata"];
    assert_eq!((&auxiliary["people"], &auxiliary["flags"]), (&"words".into(), &Value::Null));
    assert_eq!(auxiliary["excludes_evaluation"], false);

    // Other words of the same photo are another image.
    learned(&at.join("learned/000-0"), 3, 0.3);
    images(at, "out", &given).failed(&["another photo, mask or words", "learned/000-0"]);
    images(at, "out", &settings).failed(&["people is \"words\" there and \"photos\" here"]);
}

#[test]
fn the_whole_photos_of_a_dataset_are_used_on_request() {
    let folder = folder();
    let at = folder.path();
    made_up_run(at);
    let settings = ["--kind", "T", "--photos", "first", "--limit", "1", "--size", "64", "--steps"];
    let settings = [&settings[..], &["1"]].concat();
    images(at, "masked", &settings).printed();
    images(at, "whole", &[&settings[..], &["--no-masks"]].concat()).printed();
    let (masked, whole) = (files(&at.join("masked")), files(&at.join("whole")));
    assert_ne!(masked["000-0-00.png"], whole["000-0-00.png"]);
    let flags = |of: &BTreeMap<String, Vec<u8>>| {
        let about: Value = serde_json::from_slice(&of["000-0-00.json"]).expect("JSON");
        about["aux_metadata"]["flags"].clone()
    };
    assert_eq!(flags(&masked), Value::Null);
    assert_eq!(flags(&whole), serde_json::json!(["unmasked"]));
    images(at, "masked", &[&settings[..], &["--no-masks"]].concat())
        .failed(&["people is \"photos\" there and \"whole_photos\" here"]);
}
