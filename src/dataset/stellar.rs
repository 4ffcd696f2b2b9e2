//! The Stellar layout: one folder per identity.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::contents::{Dataset, Findings, Identity, Layout, OpenError, Photo, Prompt};
use crate::metrics::ATTRIBUTES;
use crate::toolkit::{format_prompt, labels};

/// Number of identities in the test split. They come first, and only they have prompts written by
/// people.
pub const TEST_IDENTITIES: usize = 200;

/// Content of `N_attributes.json`.
#[derive(Deserialize)]
struct PhotoFacts {
    attributes: BTreeMap<String, i64>,
    /// CelebA-Dialog's levels; some photos have none.
    #[serde(default)]
    finegrained_attributes: BTreeMap<String, i64>,
    /// The person's number in CelebA, the same for all photos of a folder.
    identity: Option<i64>,
}

/// Prompt files, each with the kind of its prompts.
const PROMPTS: [(&str, &str); 2] = [("prompts_t.json", "T"), ("prompts_h.json", "H")];

/// Content of a prompt file.
#[derive(Deserialize)]
struct PromptFile {
    prompts: Vec<String>,
    #[serde(default)]
    detectables: Option<Vec<Vec<String>>>,
    #[serde(default)]
    categories: Option<Vec<Vec<String>>>,
    #[serde(default)]
    relations: Option<Vec<Vec<[String; 3]>>>,
}

pub(super) fn read(root: &Path, findings: &mut Findings) -> Result<Dataset, OpenError> {
    let mut folders = BTreeSet::new();
    for (name, is_folder) in entries(root)? {
        match (is_identity(&name), is_folder) {
            (true, true) => {
                folders.insert(name);
            }
            (_, true) => {
                findings.note(&name, "is not an identity folder (000, 001, …) and is ignored");
            }
            (true, false) => {
                findings.problem(&name, "is a file, but an identity folder was expected");
            }
            (false, false) => {}
        }
    }
    let mut identities = Vec::new();
    let mut prompts = Vec::new();
    let mut numbers: HashMap<i64, String> = HashMap::new();
    let mut before: Option<&String> = None;
    for name in &folders {
        let number = |name: &str| name.parse::<u64>().ok();
        let follows = |before: &String| number(before).map(|number| number + 1) == number(name);
        if let Some(before) = before.filter(|before| !follows(before)) {
            findings.note(name, format!("follows {before}: some identities are missing"));
        }
        before = Some(name);
        let (identity, number) = read_identity(root, name, findings)?;
        if let Some(number) = number
            && let Some(other) = numbers.insert(number, name.clone())
        {
            findings.problem(
                name,
                format!("is the same person as {other}: both have identity {number}"),
            );
        }
        prompts.extend(read_prompts(root, name, findings)?);
        identities.push(identity);
    }
    Ok(Dataset { root: root.to_owned(), layout: Layout::Stellar, identities, prompts })
}

fn is_identity(name: &str) -> bool {
    name.len() >= 3 && name.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns the names in a folder, each with whether it is a folder. Hidden files are skipped: they
/// belong to the system, not to the dataset.
fn entries(folder: &Path) -> Result<BTreeMap<String, bool>, OpenError> {
    let failed = |source| OpenError::Io { path: folder.to_owned(), source };
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            found.insert(name, entry.path().is_dir());
        }
    }
    Ok(found)
}

/// Reads the photos of one identity, and the person's number.
fn read_identity(
    root: &Path,
    name: &str,
    findings: &mut Findings,
) -> Result<(Identity, Option<i64>), OpenError> {
    let mut files = entries(&root.join(name))?;
    let mut photos = BTreeMap::new();
    for file in files.keys() {
        if let Some(number) = file.strip_suffix(".jpg").and_then(|stem| stem.parse::<u32>().ok()) {
            photos.insert(number, file.clone());
        }
    }
    let mut identity = Identity { name: name.to_owned(), photos: Vec::new() };
    let mut person = None;
    for (number, file) in photos {
        files.remove(&file);
        let facts_file = format!("{number}_attributes.json");
        let path = PathBuf::from(name).join(&facts_file);
        let (mut attributes, mut finegrained_attributes) = (BTreeMap::new(), BTreeMap::new());
        if files.remove(&facts_file).is_some() {
            if let Some(facts) = read_json::<PhotoFacts>(root, &path, findings)? {
                attributes = photo_attributes(&facts, &path, findings);
                finegrained_attributes = levels(&facts.finegrained_attributes, &path, findings);
                match (person, facts.identity) {
                    (Some(before), Some(now)) if before != now => findings.problem(
                        &path,
                        format!(
                            "has identity {now}, but the previous photo has {before}: a folder is \
                                for one person"
                        ),
                    ),
                    (_, now) => person = now.or(person),
                }
            }
        } else {
            findings.problem(&path, format!("is missing: it has the attributes of {file}"));
        }
        let mask = format!("{number}_bg.png");
        let mask = if files.remove(&mask).is_some() {
            Some(PathBuf::from(name).join(mask))
        } else {
            findings.note(
                PathBuf::from(name).join(mask),
                "is missing: some methods need the mask, but scoring does not",
            );
            None
        };
        identity.photos.push(Photo {
            name: number.to_string(),
            path: PathBuf::from(name).join(&file),
            attributes,
            finegrained_attributes,
            mask,
        });
    }
    if identity.photos.is_empty() {
        findings.problem(name, "has no photo: expected 0.jpg, 1.jpg, …");
    }
    let mut prompts = PROMPTS.map(|(file, _)| file).to_vec();
    if has_plain_prompts(|file| files.contains_key(file)) {
        // Reported where it is read.
        prompts.push(PLAIN_PROMPTS);
    }
    for extra in files.keys().filter(|file| !prompts.contains(&file.as_str())) {
        findings
            .note(PathBuf::from(name).join(extra), "is not a file of the layout and is ignored");
    }
    Ok((identity, person))
}

fn photo_attributes(
    facts: &PhotoFacts,
    path: &Path,
    findings: &mut Findings,
) -> BTreeMap<String, bool> {
    let attributes = labels(&facts.attributes).unwrap_or_else(|problem| {
        findings.problem(path, problem);
        BTreeMap::new()
    });
    let missing: Vec<&str> =
        ATTRIBUTES.into_iter().filter(|name| !facts.attributes.contains_key(*name)).collect();
    if !missing.is_empty() {
        findings.note(
            path,
            format!("does not label {}: these attributes are not scored", missing.join(", ")),
        );
    }
    attributes
}

fn levels(
    given: &BTreeMap<String, i64>,
    path: &Path,
    findings: &mut Findings,
) -> BTreeMap<String, i16> {
    let mut levels = BTreeMap::new();
    for (name, level) in given {
        match i16::try_from(*level) {
            Ok(level) => drop(levels.insert(name.clone(), level)),
            Err(_) => findings.problem(
                path,
                format!("finegrained_attributes has {name} {level}: expected a level such as 3"),
            ),
        }
    }
    levels
}

/// Prompt file without a kind, as in the reference toolkit's mock dataset.
const PLAIN_PROMPTS: &str = "prompt.json";

/// Returns whether a folder has this file instead of prompts of the two kinds.
fn has_plain_prompts(has: impl Fn(&str) -> bool) -> bool {
    has(PLAIN_PROMPTS) && PROMPTS.iter().all(|(file, _)| !has(file))
}

fn read_prompts(
    root: &Path,
    name: &str,
    findings: &mut Findings,
) -> Result<Vec<Prompt>, OpenError> {
    let folder = root.join(name);
    if has_plain_prompts(|file| folder.join(file).is_file()) {
        let path = PathBuf::from(name).join(PLAIN_PROMPTS);
        findings.note(
            &path,
            "is read instead of prompts_t.json and prompts_h.json: its prompts have no kind",
        );
        let content = read_json::<PromptFile>(root, &path, findings)?;
        return Ok(content
            .map(|content| content.into_prompts(name, None, &path, findings))
            .unwrap_or_default());
    }
    let mut prompts = Vec::new();
    for (file, kind) in PROMPTS {
        let path = PathBuf::from(name).join(file);
        if !root.join(&path).is_file() {
            let is_test = name.parse::<usize>().is_ok_and(|number| number < TEST_IDENTITIES);
            if kind == "T" || is_test {
                findings.problem(&path, "is missing: it has the prompts for this identity");
            }
            continue;
        }
        let Some(content) = read_json::<PromptFile>(root, &path, findings)? else { continue };
        prompts.extend(content.into_prompts(name, Some(kind), &path, findings));
    }
    Ok(prompts)
}

impl PromptFile {
    fn into_prompts(
        self,
        identity: &str,
        kind: Option<&str>,
        path: &Path,
        findings: &mut Findings,
    ) -> Vec<Prompt> {
        let count = self.prompts.len();
        if count == 0 {
            findings.problem(path, "has no prompts");
        }
        let lengths = [
            ("detectables", self.detectables.as_ref().map(Vec::len), kind == Some("T")),
            ("categories", self.categories.as_ref().map(Vec::len), kind == Some("T")),
            ("relations", self.relations.as_ref().map(Vec::len), false),
        ];
        for (key, length, expected) in lengths {
            match length {
                Some(length) if length != count => findings.problem(
                    path,
                    format!(
                        "has {count} prompts and {length} {key}: each prompt needs its own list"
                    ),
                ),
                None if expected => findings.problem(path, format!("has no `{key}`")),
                _ => {}
            }
        }
        let nth = |list: &Option<Vec<Vec<String>>>, at: usize| {
            list.as_ref().and_then(|list| list.get(at)).cloned().unwrap_or_default()
        };
        let relations = self.relations.unwrap_or_default();
        let mut prompts = Vec::with_capacity(count);
        for (at, text) in self.prompts.into_iter().enumerate() {
            if let Err(problem) = format_prompt(&text) {
                findings.problem(path, format!("prompt {at} {problem}"));
            }
            prompts.push(Prompt {
                identity: identity.to_owned(),
                text,
                kind: kind.map(str::to_owned),
                categories: nth(&self.categories, at),
                detectables: nth(&self.detectables, at),
                relations: relations.get(at).cloned().unwrap_or_default(),
            });
        }
        prompts
    }
}

fn read_json<T: DeserializeOwned>(
    root: &Path,
    path: &Path,
    findings: &mut Findings,
) -> Result<Option<T>, OpenError> {
    let whole = root.join(path);
    let bytes =
        crate::read::bytes(&whole).map_err(|source| OpenError::Io { path: whole, source })?;
    match serde_json::from_slice(&bytes) {
        Ok(value) => Ok(Some(value)),
        Err(error) => {
            findings.problem(path, format!("is not the expected JSON: {error}"));
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests;
