//! The simple layout: photos anywhere below a folder, and a manifest with one JSON object per line.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::contents::{
    Dataset, Findings, Identity, Layout, MANIFEST, OpenError, Photo, Prompt, read_text,
};
use super::masks::mask_beside;
use crate::toolkit::format_prompt;

/// A manifest line that enrols a photo.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PhotoLine {
    identity: String,
    photo: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    mask: Option<String>,
    #[serde(default)]
    attributes: BTreeMap<String, bool>,
    #[serde(default)]
    finegrained_attributes: BTreeMap<String, i16>,
}

/// A manifest line that adds a prompt.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PromptLine {
    prompt: String,
    #[serde(default)]
    identity: Option<String>,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    categories: Vec<String>,
    #[serde(default)]
    detectables: Vec<String>,
    #[serde(default)]
    relations: Vec<[String; 3]>,
}

pub(super) fn read(root: &Path, findings: &mut Findings) -> Result<Dataset, OpenError> {
    let text = read_text(&root.join(MANIFEST))?;
    let mut identities: BTreeMap<String, Identity> = BTreeMap::new();
    let mut lines = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let mut wrong =
            |problem: String| findings.problem(MANIFEST, format!("line {}: {problem}", at + 1));
        let value: serde_json::Value = match serde_json::from_str(line) {
            Ok(value) => value,
            Err(error) => {
                wrong(format!("is not JSON: {error}"));
                continue;
            }
        };
        match (value.get("photo").is_some(), value.get("prompt").is_some()) {
            (true, false) => match photo(value, root) {
                Ok((name, photo)) => {
                    let identity = identities.entry(name.clone()).or_default();
                    identity.name = name;
                    if identity.photos.iter().any(|other| other.name == photo.name) {
                        wrong(format!(
                            "{} already has a photo named {:?}: give one of them another `name`",
                            identity.name, photo.name
                        ));
                    } else {
                        identity.photos.push(photo);
                    }
                }
                Err(problem) => wrong(problem),
            },
            (false, true) => match serde_json::from_value::<PromptLine>(value) {
                Ok(prompt) => match format_prompt(&prompt.prompt) {
                    Ok(_) => lines.push((at + 1, prompt)),
                    Err(problem) => wrong(format!("the prompt {problem}")),
                },
                Err(error) => wrong(error.to_string()),
            },
            _ => wrong(
                "has neither `photo` nor `prompt`, or both: use exactly one per line".to_owned(),
            ),
        }
    }
    shared_masks(&identities, findings);
    for identity in identities.values_mut() {
        identity.photos.sort_by(|a, b| a.name.cmp(&b.name));
    }
    let prompts = prompts(&lines, &identities, findings);
    note_unlabelled(&identities, findings);
    let identities = identities.into_values().collect();
    Ok(Dataset { root: root.to_owned(), layout: Layout::Manifest, identities, prompts })
}

fn photo(line: serde_json::Value, root: &Path) -> Result<(String, Photo), String> {
    let line: PhotoLine = serde_json::from_value(line).map_err(|error| error.to_string())?;
    if line.identity.trim().is_empty() {
        return Err("`identity` is empty".to_owned());
    }
    let path = file(root, "photo", &line.photo)?;
    let mask = match &line.mask {
        Some(mask) => Some(file(root, "mask", mask)?),
        None => Some(mask_beside(&path)).filter(|mask| root.join(mask).is_file()),
    };
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let name = line.name.filter(|name| !name.trim().is_empty()).unwrap_or(stem);
    let photo = Photo {
        name,
        path,
        attributes: line.attributes,
        finegrained_attributes: line.finegrained_attributes,
        mask,
    };
    Ok((line.identity, photo))
}

/// Returns the path of a file below the folder, as written in a key of the manifest.
fn file(root: &Path, key: &str, written: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(written);
    if !path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(format!(
            "`{key}` is {written:?}: it must be a path below the folder of {MANIFEST}"
        ));
    }
    if !root.join(&path).is_file() {
        return Err(format!("there is no file {written}"));
    }
    Ok(path)
}

/// Assigns the prompts to identities. A prompt without an identity applies to all of them.
fn prompts(
    lines: &[(usize, PromptLine)],
    identities: &BTreeMap<String, Identity>,
    findings: &mut Findings,
) -> Vec<Prompt> {
    let mut by_identity: BTreeMap<&str, Vec<Prompt>> = BTreeMap::new();
    for (line, prompt) in lines {
        let targets: Vec<&str> = match &prompt.identity {
            Some(name) => {
                let Some((name, _)) = identities.get_key_value(name) else {
                    let problem =
                        format!("line {line}: the manifest has no photo of identity {name:?}");
                    findings.problem(MANIFEST, problem);
                    continue;
                };
                vec![name]
            }
            None => identities.keys().map(String::as_str).collect(),
        };
        for identity in targets {
            by_identity.entry(identity).or_default().push(Prompt {
                identity: identity.to_owned(),
                text: prompt.prompt.clone(),
                kind: prompt.kind.clone(),
                categories: prompt.categories.clone(),
                detectables: prompt.detectables.clone(),
                relations: prompt.relations.clone(),
            });
        }
    }
    let without: Vec<&str> = identities
        .keys()
        .map(String::as_str)
        .filter(|name| !by_identity.contains_key(name))
        .collect();
    if !without.is_empty() {
        findings.note(MANIFEST, format!("there are no prompts for {}", without.join(", ")));
    }
    by_identity.into_values().flatten().collect()
}

/// Finds photos that have the same mask only because it is beside both of them.
fn shared_masks(identities: &BTreeMap<String, Identity>, findings: &mut Findings) {
    let mut photos: BTreeMap<&Path, &Path> = BTreeMap::new();
    for photo in identities.values().flat_map(|identity| &identity.photos) {
        let beside = photo.mask.as_deref().filter(|mask| *mask == mask_beside(&photo.path));
        let Some(mask) = beside else { continue };
        let first = *photos.entry(mask).or_insert(&photo.path);
        if first != photo.path {
            let (first, second, mask) = (first.display(), photo.path.display(), mask.display());
            findings.problem(
                MANIFEST,
                format!(
                    "{first} and {second} have the same mask {mask}: rename one of them, or name \
                        their masks"
                ),
            );
        }
    }
}

fn note_unlabelled(identities: &BTreeMap<String, Identity>, findings: &mut Findings) {
    let unlabelled: BTreeSet<&str> = identities
        .values()
        .filter(|identity| identity.photos.iter().any(|photo| photo.attributes.is_empty()))
        .map(|identity| identity.name.as_str())
        .collect();
    if !unlabelled.is_empty() {
        let names: Vec<&str> = unlabelled.into_iter().collect();
        let what =
            format!("photos without attributes, which `aps` cannot use: {}", names.join(", "));
        findings.note(MANIFEST, what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(manifest: &str) -> (Dataset, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("photos")).unwrap();
        for photo in ["photos/ada.jpg", "photos/ada-2.jpg", "bob.png"] {
            std::fs::write(folder.path().join(photo), "").unwrap();
        }
        std::fs::write(folder.path().join(MANIFEST), manifest).unwrap();
        let (dataset, findings) = Dataset::open(folder.path()).unwrap();
        (dataset, findings.list.iter().map(ToString::to_string).collect())
    }

    const PHOTOS: &str = r#"
{"identity": "ada", "photo": "photos/ada.jpg", "attributes": {"Young": true}}
{"identity": "ada", "photo": "photos/ada-2.jpg", "attributes": {"Young": true}, "name": "second"}
{"identity": "bob", "photo": "bob.png", "attributes": {"Young": false}}
"#;

    #[test]
    fn photos_and_prompts_are_read_and_a_prompt_without_identity_applies_to_all() {
        let (dataset, found) = read(&format!(
            "{PHOTOS}{}\n{}\n",
            r#"{"prompt": "{} on a horse", "detectables": ["horse"], "relations": [["person", "riding", "horse"]]}"#,
            r#"{"identity": "bob", "prompt": "{} asleep", "kind": "H", "categories": ["home"]}"#,
        ));
        assert_eq!(found, [""; 0]);
        let names: Vec<&str> =
            dataset.identities.iter().map(|identity| identity.name.as_str()).collect();
        assert_eq!(names, ["ada", "bob"]);
        let photos: Vec<&str> =
            dataset.identities[0].photos.iter().map(|photo| photo.name.as_str()).collect();
        assert_eq!(photos, ["ada", "second"]);
        let prompts: Vec<(&str, &str)> =
            dataset.prompts.iter().map(|prompt| (&*prompt.identity, &*prompt.text)).collect();
        assert_eq!(
            prompts,
            [("ada", "{} on a horse"), ("bob", "{} on a horse"), ("bob", "{} asleep")]
        );
        assert_eq!(
            dataset.prompts[0].relations,
            [["person", "riding", "horse"].map(str::to_owned)]
        );
        assert_eq!(dataset.prompts[2].kind.as_deref(), Some("H"));
    }

    #[test]
    fn problems_are_reported_with_their_line() {
        for (line, words) in [
            ("{", "is not JSON"),
            ("{}", "neither `photo` nor `prompt`"),
            (r#"{"identity": "ada", "photo": "a.jpg", "prompt": "x"}"#, "or both"),
            (r#"{"identity": "eve", "photo": "../eve.jpg"}"#, "below the folder"),
            (r#"{"identity": "eve", "photo": "/etc/eve.jpg"}"#, "below the folder"),
            (r#"{"identity": "eve", "photo": "eve.jpg"}"#, "there is no file eve.jpg"),
            (r#"{"identity": "bob", "photo": "bob.png", "mask": "../m.png"}"#, "`mask` is"),
            (
                r#"{"identity": "bob", "photo": "bob.png", "mask": "m.png"}"#,
                "there is no file m.png",
            ),
            (r#"{"identity": "", "photo": "bob.png"}"#, "`identity` is empty"),
            (r#"{"identity": "bob", "photo": "bob.png"}"#, "already has a photo named \"bob\""),
            (
                r#"{"identity": "bob", "photo": "bob.png", "attribute": {}}"#,
                "unknown field `attribute`",
            ),
            (r#"{"identity": "eve", "prompt": "{} here"}"#, "no photo of identity \"eve\""),
            (r#"{"prompt": "{style}"}"#, "the prompt has a brace"),
            (r#"{"prompt": "{}", "relations": [["a", "b"]]}"#, "invalid length 2"),
        ] {
            let (_, found) = read(&format!("{PHOTOS}{{\"prompt\": \"{{}} here\"}}\n{line}\n"));
            let named = found.iter().any(|found| {
                found.starts_with("problem: dataset.jsonl: line 6: ") && found.contains(words)
            });
            assert!(named, "{line}: {found:?}");
        }
    }

    #[test]
    fn photos_with_the_same_mask_beside_them_are_a_problem() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["ada.jpg", "ada.png", "ada_bg.png"] {
            std::fs::write(folder.path().join(file), "").unwrap();
        }
        let lines = r#"{"identity": "ada", "photo": "ada.jpg"}
{"identity": "eve", "photo": "ada.png"}"#;
        std::fs::write(folder.path().join(MANIFEST), lines).unwrap();
        let (_, findings) = Dataset::open(folder.path()).unwrap();
        assert_eq!(findings.fatal(), 1, "{:?}", findings.list);
        let problem = findings.list[0].to_string();
        assert!(problem.contains("ada.jpg and ada.png have the same mask"), "{problem}");
    }

    #[test]
    fn identities_without_prompts_or_labels_are_noted() {
        let (_, found) = read(r#"{"identity": "bob", "photo": "bob.png"}"#);
        assert!(found.iter().any(|line| line.contains("no prompts for bob")), "{found:?}");
        assert!(
            found.iter().any(|line| line.contains("without attributes") && line.contains("bob")),
            "{found:?}"
        );
    }
}
