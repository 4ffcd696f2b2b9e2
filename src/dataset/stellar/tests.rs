use super::*;

/// Two identities with two photos and two prompts of each kind.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for identity in ["000", "001"] {
        let put = |file: &str, text: &str| {
            let path = folder.path().join(identity);
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join(file), text).unwrap();
        };
        for photo in ["0", "1"] {
            put(&format!("{photo}.jpg"), "");
            put(&format!("{photo}_bg.png"), "");
            let number: u32 = identity.parse().unwrap();
            let attributes = ATTRIBUTES.map(|name| format!("{name:?}: 1")).join(",");
            let facts = format!(r#"{{"attributes": {{{attributes}}}, "identity": {number}}}"#);
            put(&format!("{photo}_attributes.json"), &facts);
        }
        put(
            "prompts_t.json",
            r#"{"prompts": ["{} skiing", "{} at sea"], "detectables": [["skis"], []], "categories": [["sports"], []]}"#,
        );
        put("prompts_h.json", r#"{"prompts": ["{} in a dream", "{} asleep"]}"#);
    }
    folder
}

fn found(folder: &tempfile::TempDir) -> Vec<String> {
    let (_, findings) = Dataset::open(folder.path()).unwrap();
    findings.list.iter().map(ToString::to_string).collect()
}

#[test]
fn a_valid_folder_is_read_without_findings() {
    let folder = folder();
    let (dataset, findings) = Dataset::open(folder.path()).unwrap();
    assert_eq!(findings, Findings::default());
    assert_eq!((dataset.identities.len(), dataset.photos(), dataset.prompts.len()), (2, 4, 8));
    assert_eq!(dataset.kinds(), BTreeMap::from([("T", 4), ("H", 4)]));
    let photo = &dataset.identity("001").unwrap().photos[1];
    assert_eq!(photo.path, Path::new("001/1.jpg"));
    assert!(photo.attributes["Young"]);
    assert_eq!(dataset.prompts[0].detectables, ["skis"]);
    assert_eq!(dataset.prompts[2].kind.as_deref(), Some("H"));
}

#[test]
fn problems_are_reported_with_their_path() {
    type Damage = fn(&Path);
    let cases: [(Damage, &str, &str); 10] = [
        (
            |at| std::fs::remove_file(at.join("000/0_attributes.json")).unwrap(),
            "000/0_attributes.json",
            "missing",
        ),
        (
            |at| std::fs::write(at.join("000/0_attributes.json"), "{").unwrap(),
            "000/0_attributes.json",
            "JSON",
        ),
        (
            |at| {
                std::fs::write(
                    at.join("001/1_attributes.json"),
                    r#"{"attributes": {"Male": 0}, "identity": 1}"#,
                )
                .unwrap();
            },
            "001/1_attributes.json",
            "Male is 0",
        ),
        (
            |at| {
                std::fs::copy(at.join("000/0_attributes.json"), at.join("001/0_attributes.json"))
                    .map(drop)
                    .unwrap();
            },
            "001/1_attributes.json",
            "a folder is for one person",
        ),
        (
            |at| std::fs::remove_file(at.join("000/prompts_t.json")).unwrap(),
            "000/prompts_t.json",
            "missing",
        ),
        (
            |at| std::fs::remove_file(at.join("000/prompts_h.json")).unwrap(),
            "000/prompts_h.json",
            "missing",
        ),
        (
            |at| {
                std::fs::write(
                    at.join("000/prompts_t.json"),
                    r#"{"prompts": ["a"], "detectables": [], "categories": [[]]}"#,
                )
                .unwrap();
            },
            "000/prompts_t.json",
            "1 prompts and 0 detectables",
        ),
        (
            |at| {
                std::fs::write(at.join("000/prompts_h.json"), r#"{"prompts": ["{style} of {}"]}"#)
                    .unwrap();
            },
            "000/prompts_h.json",
            "prompt 0 has a brace",
        ),
        (|at| std::fs::write(at.join("002"), "").unwrap(), "002", "is a file"),
        (|at| std::fs::create_dir(at.join("002")).unwrap(), "002", "no photo"),
    ];
    for (damage, path, words) in cases {
        let folder = folder();
        damage(folder.path());
        let found = found(&folder);
        let named = found
            .iter()
            .any(|line| line.starts_with(&format!("problem: {path}: ")) && line.contains(words));
        assert!(named, "{path} {words}: {found:#?}");
    }
}

#[test]
fn the_toolkits_mock_dataset_is_read_and_its_problems_are_reported() {
    let folder = folder();
    for identity in ["000", "001"] {
        let at = folder.path().join(identity);
        for (file, _) in PROMPTS {
            std::fs::remove_file(at.join(file)).unwrap();
        }
        let prompts =
            r#"{"prompts": ["{} skiing", "{} at sea"], "detectables": [["skis"], ["sea"]]}"#;
        std::fs::write(at.join("prompt.json"), prompts).unwrap();
    }
    let other = folder.path().join("001/1_attributes.json");
    let facts =
        std::fs::read_to_string(&other).unwrap().replace("\"identity\": 1", "\"identity\": 3");
    std::fs::write(&other, facts).unwrap();
    let (dataset, _) = Dataset::open(folder.path()).unwrap();
    assert_eq!((dataset.prompts.len(), dataset.prompts[1].kind.as_deref()), (4, None));
    assert_eq!(dataset.prompts[0].detectables, ["skis"]);
    let found = found(&folder);
    assert_eq!(
        found.iter().filter(|line| line.contains("is read instead of")).count(),
        2,
        "{found:#?}"
    );
    let problems: Vec<_> = found.iter().filter(|line| line.starts_with("problem: ")).collect();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(
        problems[0].contains("001/1_attributes.json") && problems[0].contains("one person"),
        "{problems:#?}"
    );
}

#[test]
fn two_folders_of_one_person_are_a_problem() {
    let folder = folder();
    for photo in ["0", "1"] {
        let file = format!("{photo}_attributes.json");
        std::fs::copy(folder.path().join("000").join(&file), folder.path().join("001").join(&file))
            .unwrap();
    }
    let found = found(&folder);
    assert_eq!(found, ["problem: 001: is the same person as 000: both have identity 0"]);
}

#[test]
fn missing_files_that_scoring_does_not_need_are_notes() {
    let folder = folder();
    std::fs::remove_file(folder.path().join("000/0_bg.png")).unwrap();
    std::fs::write(folder.path().join("000/notes.txt"), "").unwrap();
    std::fs::rename(folder.path().join("001"), folder.path().join("007")).unwrap();
    std::fs::write(folder.path().join("000/prompts_h.json"), r#"{"prompts": ["{} skiing"]}"#)
        .unwrap();
    let (_, findings) = Dataset::open(folder.path()).unwrap();
    assert_eq!(findings.fatal(), 0, "{findings:?}");
    let found = found(&folder).join("\n");
    for words in ["000/0_bg.png", "notes.txt", "follows 000", "\"{} skiing\" occurs 2 times"] {
        assert!(found.contains(words), "{words}: {found}");
    }
}

#[test]
fn a_folder_of_other_files_is_not_a_dataset() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("readme.txt"), "").unwrap();
    assert!(matches!(Dataset::open(folder.path()), Err(OpenError::NoDataset(_))));
    let missing = Dataset::open(&folder.path().join("nowhere")).unwrap_err().to_string();
    assert!(missing.contains("nowhere"), "{missing}");
}
