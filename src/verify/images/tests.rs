use std::fs;

use super::*;
use crate::{
    dataset::{SampleSize, Sources, make_sample, prepare},
    vision::DecodeLimits,
};

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn failed(folder: &Path, words: &[&str]) {
    let error = format!("{:#}", read_samples(folder, None).unwrap_err());
    assert!(words.iter().all(|word| error.contains(word)), "{error}");
}

/// A synthetic run and its dataset in one folder.
fn toolkit() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let made = make_sample(folder.path(), SampleSize { identities: 1, prompts: 2 }).unwrap();
    let out = folder.path().join("stellar");
    let sources = Sources { download: made.download, prompts: made.prompts, out };
    prepare(&sources, &DecodeLimits::default(), |_, _| {}).unwrap();
    folder
}

#[test]
fn images_have_the_prompts_of_the_same_name() {
    let folder = folder(&[
        ("a.png", ""),
        ("b.JPG", ""),
        ("b.txt", "a person \n"),
        ("c.txt", ""),
        ("d.md", ""),
    ]);
    let found = read_samples(folder.path(), None).unwrap();
    let prompts: Vec<_> =
        found.cases.iter().map(|case| (case.name.as_str(), case.prompt.as_deref())).collect();
    assert_eq!(prompts, [("a", None), ("b", Some("a person"))]);
    let notes: Vec<_> = found.problems.iter().map(ToString::to_string).collect();
    assert!(
        notes.len() == 2 && notes[0].contains("d.md") && notes[1].contains("c.txt"),
        "{notes:?}"
    );
    assert!(found.is_sound());
}

#[test]
fn a_list_has_one_or_several_photos_relative_to_its_folder() {
    let list = concat!(
        r#"{"image": "out/a.png", "prompt": "p", "reference": "ada.jpg", "metadata": {"detectables": ["cup"]}}"#,
        "\n\n",
        r#"{"image": "b.png", "name": "second", "reference": ["x.jpg", "y.jpg"], "auxiliary": "z.jpg"}"#,
    );
    let folder = folder(&[(LIST, list)]);
    let at = |name: &str| folder.path().join(name);
    let found = read_samples(folder.path(), None).unwrap();
    let [first, second] = &found.cases[..] else { panic!("two samples") };
    assert_eq!((first.name.as_str(), &first.image), ("a", &at("out/a.png")));
    assert_eq!(
        (&first.references, &first.metadata.detectables[0]),
        (&vec![at("ada.jpg")], &"cup".to_owned())
    );
    assert_eq!((second.name.as_str(), &second.prompt), ("second", &None));
    assert_eq!(second.references, [at("x.jpg"), at("y.jpg")]);
    assert_eq!(second.auxiliary, [at("z.jpg")]);
}

#[test]
fn errors_name_the_invalid_line() {
    let twice = "{\"image\": \"a.png\"}\n{\"image\": \"b/a.png\"}\n";
    for (list, words) in [
        ("{\"image\": \"a.png\", \"promt\": \"p\"}", ["line 1", "promt"]),
        ("\n{\"prompt\": \"p\"}", ["line 2", "image"]),
        (twice, ["line 2", "\"a\" is the name"]),
        ("\n", [LIST, "lists no images"]),
    ] {
        failed(folder(&[(LIST, list)]).path(), &words);
    }
}

#[test]
fn errors_of_folders_without_samples_say_what_is_expected() {
    failed(folder(&[("readme.md", "")]).path(), &["has no images", LIST]);
    failed(folder(&[("a.png", ""), ("a.json", "")]).path(), &["--dataset"]);
    failed(folder(&[("a.png", ""), ("a.webp", "")]).path(), &["two images of the same name"]);
    failed(&folder(&[]).path().join("none"), &["cannot read"]);
}

#[test]
fn a_run_next_to_its_dataset_is_found_with_its_tables() {
    let folder = toolkit();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("scores/uid")).unwrap();
    for name in ["scores/uid/clip_x.csv", "scores/b.csv", "generations/no.csv"] {
        fs::write(at(name), "").unwrap();
    }
    let found = find_toolkit(folder.path(), None).unwrap();
    assert_eq!((found.run, found.dataset), (at("generations"), at("stellar")));
    assert_eq!(found.tables, [at("scores/b.csv"), at("scores/uid/clip_x.csv")]);
    let samples = read_samples(folder.path(), None).unwrap();
    assert_eq!(samples, read_samples(&at("generations"), Some(&at("stellar"))).unwrap());
    assert_eq!(samples.cases.len(), 2);
    let first = &samples.cases[0];
    assert_eq!((first.references.len(), first.auxiliary.len()), (1, 1));

    fs::rename(at("stellar"), at("generations/000-0-00")).unwrap();
    let error = find_toolkit(folder.path(), None).unwrap_err().to_string();
    assert!(error.contains("is a dataset") && error.contains("--dataset"), "{error}");
}

#[test]
fn two_runs_in_one_folder_are_refused_by_name() {
    let folder = toolkit();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("second")).unwrap();
    for file in ["000-0-00.png", "000-0-00.json"] {
        fs::copy(at("generations").join(file), at("second").join(file)).unwrap();
    }
    let error = find_toolkit(folder.path(), None).unwrap_err().to_string();
    assert!(error.contains("more than one") && error.contains("second"), "{error}");
}
