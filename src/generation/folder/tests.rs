use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::dataset::{Dataset, Identity, Layout, Photo, Prompt};
use crate::generation::Settings;
use crate::generation::fake::{Fakes, fakes};
use crate::upload::read_folder;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packs/demo-generator/goldens")
}

/// Two people with two prompts each, whose photos are golden images.
fn dataset() -> Dataset {
    let photo = |name: &str, file: &str, mask: Option<&str>| Photo {
        name: name.to_owned(),
        path: file.into(),
        attributes: BTreeMap::from([("Male".to_owned(), false), ("Young".to_owned(), true)]),
        finegrained_attributes: BTreeMap::new(),
        mask: mask.map(Into::into),
    };
    let person = |name: &str, photos| Identity { name: name.to_owned(), photos };
    let prompt = |identity: &str, text: &str| Prompt {
        identity: identity.to_owned(),
        text: text.to_owned(),
        kind: Some("T".to_owned()),
        categories: vec!["sports".to_owned()],
        detectables: vec!["skis".to_owned()],
        relations: Vec::new(),
    };
    let first = vec![
        photo("0", "astronaut-face.jpg", Some("mask-colours.png")),
        photo("1", "rocket.jpg", None),
    ];
    Dataset {
        root: goldens(),
        layout: Layout::Manifest,
        identities: vec![
            person("000", first),
            person("001", vec![photo("0", "chelsea.webp", None)]),
        ],
        prompts: vec![
            prompt("000", "{} skiing"),
            prompt("000", "{} as a clown"),
            prompt("001", "{} asleep"),
        ],
    }
}

fn settings(fakes: &Fakes) -> FolderSettings {
    FolderSettings {
        pack: fakes.generator.pack().id(),
        method: "stellarnet-like".to_owned(),
        selection: Selection { split: Split::All, kind: None, photos: Photos::All },
        people: People::Photos,
        settings: Settings { seed: 42, steps: 2, guidance: 5.0, width: 64, height: 64 },
        seed_by_name: false,
        negative_prompt: None,
    }
}

fn jobs(dataset: &Dataset) -> Vec<Job> {
    let selection = Selection { split: Split::All, kind: None, photos: Photos::All };
    plan(dataset, &selection, &People::Photos).unwrap()
}

fn open(
    folder: &Path,
    settings: FolderSettings,
    dataset: &Dataset,
) -> Result<FolderState, FolderError> {
    let jobs = jobs(dataset);
    FolderState::open(folder, settings, &jobs, &jobs)
}

async fn fill(fakes: &Fakes, folder: &Path, settings: FolderSettings) -> Written {
    let state = open(folder, settings, &dataset()).unwrap();
    write(&fakes.generator, &state, &jobs(&dataset()), 3, |_| ()).await
}

/// Generates the images of a dataset one after the other.
async fn fill_with(fakes: &Fakes, folder: &Path, dataset: &Dataset) -> Written {
    let state = open(folder, settings(fakes), dataset).unwrap();
    write(&fakes.generator, &state, &jobs(dataset), 1, |_| ()).await
}

/// A dataset whose photos are copies that a test may change.
fn copied() -> (TempDir, Dataset) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("people");
    fs::create_dir(&root).unwrap();
    for name in ["astronaut-face.jpg", "mask-colours.png", "rocket.jpg", "chelsea.webp"] {
        fs::copy(goldens().join(name), root.join(name)).unwrap();
    }
    (folder, Dataset { root, ..dataset() })
}

fn generated(generated: usize, kept: usize, flagged: usize) -> Written {
    Written { generated, kept, flagged, ..Written::default() }
}

/// All visible files with their bytes.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let named = files.map(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, fs::read(path).unwrap())
    });
    named.filter(|(name, _)| !name.starts_with('.')).collect()
}

#[tokio::test]
async fn a_folder_has_the_papers_names_and_keys_and_submit_takes_it() {
    let (fakes, folder) = (fakes(), tempfile::tempdir().unwrap());
    let settings = settings(&fakes);
    let written = fill(&fakes, folder.path(), settings).await;
    assert_eq!(written, generated(5, 0, 3));
    let files = contents(folder.path());
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "000-0-00.json",
            "000-0-00.png",
            "000-0-01.json",
            "000-0-01.png",
            "000-1-00.json",
            "000-1-00.png",
            "000-1-01.json",
            "000-1-01.png",
            "001-0-00.json",
            "001-0-00.png"
        ]
    );
    let text = String::from_utf8(files["000-0-00.json"].clone()).unwrap();
    let about: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
    let mut keys: Vec<(usize, &String)> =
        about.keys().map(|key| (text.find(&format!("\n  \"{key}\"")).unwrap(), key)).collect();
    keys.sort();
    let keys: Vec<&str> = keys.into_iter().map(|(_, key)| key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "index",
            "generation_datetime",
            "prompt",
            "attributes",
            "detectables",
            "image_path",
            "save_name",
            "model_name",
            "steps",
            "guidance_scale",
            "model_seed",
            "is_stellar_t",
            "aux_metadata"
        ]
    );
    assert_eq!(about["attributes"], serde_json::json!({"Male": -1, "Young": 1}));
    assert_eq!(about["guidance_scale"].to_string(), "5");
    assert_eq!((&about["model_seed"], &about["steps"]), (&42.into(), &2.into()));
    assert_eq!(about["generation_datetime"].as_str().unwrap().len(), "20231208_192827".len());
    let auxiliary = &about["aux_metadata"];
    assert_eq!(auxiliary["pack"]["digest"], fakes.generator.pack().digest.to_string());
    assert_eq!(
        (&auxiliary["revision"], &auxiliary["num_inject_embeddings"]),
        (&Value::Null, &5.into())
    );
    assert!(auxiliary.get("flags").is_none());
    let unmasked: Value = serde_json::from_slice(&files["000-1-00.json"]).unwrap();
    assert_eq!(unmasked["aux_metadata"]["flags"], serde_json::json!(["unmasked"]));

    // The toolkit takes every *.png and *.json, also hidden ones.
    let all = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let taken = all.filter(|path| path.extension().is_some_and(|of| of == "png" || of == "json"));
    assert_eq!(taken.count(), 10);

    let read = read_folder(folder.path(), &dataset()).unwrap();
    assert!(read.is_sound() && read.problems.is_empty(), "{:?}", read.problems);
    assert_eq!((read.items.len(), read.missing), (5, 0));
    assert_eq!(read.items[0].reference, goldens().join("astronaut-face.jpg"));
    assert_eq!(read.items[0].metadata.settings.seed, Some(42));
}

#[tokio::test]
async fn an_interrupted_folder_goes_on_and_ends_with_the_same_bytes() {
    let (fakes, folder) = (fakes(), tempfile::tempdir().unwrap());
    let settings = settings(&fakes);
    fill(&fakes, folder.path(), settings.clone()).await;
    let whole = contents(folder.path());
    // One image is missing, one has no description yet, one was being written.
    fs::remove_file(folder.path().join("000-0-00.png")).unwrap();
    fs::remove_file(folder.path().join("000-1-01.json")).unwrap();
    fs::write(folder.path().join(".000-0-00.png.partial"), "half").unwrap();
    let before = items(&fakes);
    assert_eq!(fill(&fakes, folder.path(), settings.clone()).await, generated(2, 3, 1));
    assert_eq!(items(&fakes) - before, 2 * 2 * 2);
    assert_eq!(contents(folder.path()), whole);
    assert!(!folder.path().join(".000-0-00.png.partial").exists());
    assert_eq!(fill(&fakes, folder.path(), settings).await.kept, 5);
}

fn items(fakes: &Fakes) -> usize {
    fakes.denoiser.sizes().into_iter().sum()
}

#[tokio::test]
async fn a_folder_of_other_settings_is_refused_with_the_difference() {
    let (fakes, folder) = (fakes(), tempfile::tempdir().unwrap());
    let first = settings(&fakes);
    fill(&fakes, folder.path(), first.clone()).await;
    let mut others = vec![
        FolderSettings { method: "other".into(), ..first.clone() },
        FolderSettings { seed_by_name: true, ..first.clone() },
        FolderSettings { negative_prompt: Some("blur".into()), ..first.clone() },
    ];
    others.push(FolderSettings {
        settings: Settings { steps: 3, ..first.settings },
        ..first.clone()
    });
    let named = [
        "method is \"stellarnet-like\" there and \"other\" here",
        "seed_by_name is false there and true here",
        "negative_prompt is null there and \"blur\" here",
        "settings.steps is 2 there and 3 here",
    ];
    for (other, difference) in others.into_iter().zip(named) {
        let error = open(folder.path(), other, &dataset()).unwrap_err().to_string();
        assert!(error.contains(difference) && error.contains("another folder"), "{error}");
    }
    fs::write(folder.path().join(STATE), "{}").unwrap();
    let error = open(folder.path(), first, &dataset()).unwrap_err().to_string();
    assert!(error.contains(STATE) && error.contains("not valid"), "{error}");
}

#[tokio::test]
async fn a_folder_in_use_or_of_others_is_refused() {
    let (fakes, folder) = (fakes(), tempfile::tempdir().unwrap());
    let state = open(folder.path(), settings(&fakes), &dataset()).unwrap();
    let error = open(folder.path(), settings(&fakes), &dataset()).unwrap_err().to_string();
    assert!(error.contains("another command is writing"), "{error}");
    drop(state);
    open(folder.path(), settings(&fakes), &dataset()).unwrap();
    let foreign = tempfile::tempdir().unwrap();
    fs::write(foreign.path().join("000-0-00.png"), "an image").unwrap();
    let error = open(foreign.path(), settings(&fakes), &dataset()).unwrap_err().to_string();
    assert!(error.contains("did not write"), "{error}");
    assert!(!foreign.path().join(STATE).exists());
}

#[tokio::test]
async fn settings_of_a_folder_without_images_are_replaced() {
    let (fakes, folder) = (fakes(), tempfile::tempdir().unwrap());
    let other = FolderSettings { method: "other".into(), ..settings(&fakes) };
    open(folder.path(), other, &dataset()).unwrap();
    assert_eq!(fill(&fakes, folder.path(), settings(&fakes)).await, generated(5, 0, 3));
    assert_eq!(fill(&fakes, folder.path(), settings(&fakes)).await, generated(0, 5, 0));
}

#[tokio::test]
async fn images_of_another_dataset_are_not_kept() {
    let (fakes, folder) = (fakes(), tempfile::tempdir().unwrap());
    let (_files, dataset) = copied();
    fill_with(&fakes, folder.path(), &dataset).await;
    let whole = contents(folder.path());
    let refused = |dataset: &Dataset, words: [&str; 2]| {
        let error = open(folder.path(), settings(&fakes), dataset).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(*word)), "{error}");
        assert!(error.contains("use another folder"), "{error}");
    };
    let mut changed = dataset.clone();
    changed.prompts[2].text = "{} awake".into();
    refused(&changed, ["001-0-00.json", "another prompt, photo or seed"]);
    let mut disjoint = dataset.clone();
    for identity in &mut disjoint.identities {
        identity.name.insert(0, '1');
    }
    for prompt in &mut disjoint.prompts {
        prompt.identity.insert(0, '1');
    }
    refused(&disjoint, ["000-0-00.json", "no image of this dataset"]);
    // Photo and mask keep their names and get other bytes.
    for (file, named) in [("rocket.jpg", "rocket.jpg"), ("mask-colours.png", "astronaut-face.jpg")]
    {
        let path = dataset.root.join(file);
        let before = fs::read(&path).unwrap();
        fs::copy(goldens().join("chelsea.webp"), &path).unwrap();
        refused(&dataset, [named, "another photo, mask or words"]);
        fs::write(&path, before).unwrap();
    }
    assert_eq!(fill_with(&fakes, folder.path(), &dataset).await, generated(0, 5, 0));
    assert_eq!(contents(folder.path()), whole);
}

#[tokio::test]
async fn a_part_goes_on_with_the_whole_and_photos_without_images_may_change() {
    let (fakes, folder) = (fakes(), tempfile::tempdir().unwrap());
    let (_files, dataset) = copied();
    let jobs = jobs(&dataset);
    let part = &jobs[..2];
    let state = FolderState::open(folder.path(), settings(&fakes), &jobs, part).unwrap();
    let written = write(&fakes.generator, &state, part, 1, |_| ()).await;
    assert_eq!(written, generated(2, 0, 1));
    drop(state);
    fs::copy(goldens().join("rocket.jpg"), dataset.root.join("chelsea.webp")).unwrap();
    assert_eq!(fill_with(&fakes, folder.path(), &dataset).await, generated(3, 2, 2));
    // The part again: the photos of all images are compared, and remembered.
    let state = FolderState::open(folder.path(), settings(&fakes), &jobs, part).unwrap();
    drop(state);
    fs::copy(goldens().join("chelsea.webp"), dataset.root.join("chelsea.webp")).unwrap();
    let error =
        FolderState::open(folder.path(), settings(&fakes), &jobs, part).unwrap_err().to_string();
    assert!(error.contains("another photo, mask or words"), "{error}");
}

fn is_json(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|ending| ending == "json")
}

#[tokio::test]
async fn seeds_by_name_differ_and_are_reproducible() {
    let (fakes, folder) = (fakes(), tempfile::tempdir().unwrap());
    let by_name = FolderSettings { seed_by_name: true, ..settings(&fakes) };
    fill(&fakes, folder.path(), by_name.clone()).await;
    let seeds = |folder: &Path| -> Vec<u64> {
        let files = contents(folder).into_iter().filter(|(name, _)| is_json(name));
        let about = files.map(|(_, text)| serde_json::from_slice::<Value>(&text).unwrap());
        about.map(|about| about["model_seed"].as_u64().unwrap()).collect()
    };
    let mut found = seeds(folder.path());
    assert!(found.iter().all(|seed| u32::try_from(*seed).is_ok()), "all of their bits count");
    let again = tempfile::tempdir().unwrap();
    fill(&fakes, again.path(), by_name).await;
    assert_eq!(seeds(again.path()), found);
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len(), 5);
}

#[tokio::test]
async fn progress_counts_kept_images_steps_and_failures() {
    let (fakes, folder) = (fakes(), tempfile::tempdir().unwrap());
    let state = open(folder.path(), settings(&fakes), &dataset()).unwrap();
    let mut jobs = jobs(&dataset());
    write(&fakes.generator, &state, &jobs[..2], 1, |_| ()).await;
    jobs[4].photo = goldens().join("none.jpg");
    let counts: [AtomicUsize; 4] = Default::default();
    let told = |progress| match progress {
        Progress::Kept(kept) => counts[0].store(kept, Ordering::Relaxed),
        Progress::Step => drop(counts[1].fetch_add(1, Ordering::Relaxed)),
        Progress::Image => drop(counts[2].fetch_add(1, Ordering::Relaxed)),
        Progress::Failed => drop(counts[3].fetch_add(1, Ordering::Relaxed)),
    };
    write(&fakes.generator, &state, &jobs, 2, told).await;
    assert_eq!(counts.map(AtomicUsize::into_inner), [2, 4, 2, 1]);
}

#[tokio::test]
async fn images_that_fail_are_named_and_tried_again_once_the_others_are_there() {
    let (fakes, folder) = (fakes(), tempfile::tempdir().unwrap());
    let (_files, dataset) = copied();
    let (photo, missing) = (dataset.root.join("rocket.jpg"), dataset.root.join("chelsea.webp"));
    fs::write(&photo, "no image").unwrap();
    fs::remove_file(&missing).unwrap();
    for kept in [0, 2] {
        let written = fill_with(&fakes, folder.path(), &dataset).await;
        assert_eq!((written.generated, written.kept, written.failed), (2 - kept, kept, 3));
        assert_eq!((written.failures.len(), &written.stopped), (3, &None));
        let named = |name: &str, problem: &str| {
            let of = written.failures.iter().find(|failure| failure.contains(name)).unwrap();
            assert!(of.contains(problem), "{of}");
        };
        named("image 000-1-00: ", "the photo cannot be used");
        named("image 000-1-01: ", "the photo cannot be used");
        named("image 001-0-00: ", "chelsea.webp");
        assert_eq!(contents(folder.path()).len(), 4);
    }
    fs::copy(goldens().join("rocket.jpg"), photo).unwrap();
    fs::copy(goldens().join("chelsea.webp"), missing).unwrap();
    assert_eq!(fill_with(&fakes, folder.path(), &dataset).await, generated(3, 2, 3));
}

/// Many images of the first photo and prompt.
fn many() -> Vec<Job> {
    let first = jobs(&dataset()).swap_remove(0);
    (0..30).map(|index| Job { index, name: format!("image-{index}"), ..first.clone() }).collect()
}

#[tokio::test]
async fn a_stopped_engine_is_not_tried_for_every_image_and_bad_photos_are() {
    let (fakes, folder) = (fakes(), tempfile::tempdir().unwrap());
    let mut jobs = many();
    let state = FolderState::open(folder.path(), settings(&fakes), &jobs, &jobs).unwrap();
    fakes.generator.engine().drain().await;
    let written = write(&fakes.generator, &state, &jobs, 4, |_| ()).await;
    assert_eq!((written.generated, written.failed, written.failures.len()), (0, 20, 20));
    assert!(written.stopped.unwrap().contains("20 images in a row"));
    for job in &mut jobs {
        job.photo = goldens().join("none.jpg");
    }
    let written = write(&fakes.generator, &state, &jobs, 4, |_| ()).await;
    assert_eq!((written.failed, written.failures.len(), written.stopped), (30, 20, None));
}

#[tokio::test]
async fn nothing_further_is_generated_for_a_folder_that_cannot_be_written() {
    let (fakes, folder) = (fakes(), tempfile::tempdir().unwrap());
    let state = open(folder.path(), settings(&fakes), &dataset()).unwrap();
    fs::remove_dir_all(folder.path()).unwrap();
    let written = write(&fakes.generator, &state, &jobs(&dataset()), 1, |_| ()).await;
    assert_eq!((written.generated, written.failed), (0, 1));
    assert!(written.failures[0].contains("cannot write"), "{:?}", written.failures);
    assert!(written.stopped.unwrap().contains("cannot be written"));
}

#[tokio::test]
async fn a_photo_that_is_replaced_meanwhile_is_not_used() {
    let (fakes, folder) = (fakes(), tempfile::tempdir().unwrap());
    let (_files, dataset) = copied();
    let state = open(folder.path(), settings(&fakes), &dataset).unwrap();
    fs::copy(goldens().join("rocket.jpg"), dataset.root.join("chelsea.webp")).unwrap();
    let written = write(&fakes.generator, &state, &jobs(&dataset), 1, |_| ()).await;
    assert_eq!((written.generated, written.failed), (4, 1));
    assert!(written.failures[0].contains("has changed since the command began"));
}

#[tokio::test]
async fn wrong_settings_are_found_before_the_folder_is_touched() {
    let fakes = fakes();
    let mut wrong = settings(&fakes);
    check(&fakes.generator, &wrong, &jobs(&dataset())).unwrap();
    wrong.settings.steps = 0;
    let error = check(&fakes.generator, &wrong, &jobs(&dataset())).unwrap_err().to_string();
    assert!(error.contains("image 000-0-00: steps is 0: it must be 1 to"), "{error}");
}
