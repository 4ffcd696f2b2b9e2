//! Which images of a dataset are generated, and their names.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization as _;

use crate::content::ContentHash;
use crate::dataset::{Dataset, Identity, Layout, Photo, TEST_IDENTITIES};

/// Longest name of a file without its ending, in bytes. File systems allow 255.
const NAME_BYTES: usize = 200;

/// The part of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// The first 200 identities of the Stellar layout.
    Test,
    /// The identities after them.
    Val,
    /// All identities.
    All,
}

/// The photos of an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Photos {
    /// An image for every photo and prompt.
    All,
    /// Only the first photo.
    First,
}

/// Where the words of a dataset's people are from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum People {
    /// Their photos, with the masks that there are.
    Photos,
    /// Their photos, whole.
    WholePhotos,
    /// Words that were learned for each photo: a folder with one folder for each, named
    /// identity-photo as `stellar_train textual-inversion` names them.
    Words(#[serde(skip)] PathBuf),
}

/// Which images of a dataset are generated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// The part of the dataset.
    pub split: Split,
    /// The kind of the prompts, such as `T`; `None` in a dataset with one kind.
    pub kind: Option<String>,
    /// The photos of each identity.
    pub photos: Photos,
}

/// An image to generate.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Number in the folder, from 0.
    pub index: usize,
    /// Name of the files, without ending: identity, photo, prompt.
    pub name: String,
    /// The prompt; `{}` stands for the person.
    pub prompt: String,
    /// Kind of the prompt.
    pub kind: Option<String>,
    /// Objects that the prompt names.
    pub detectables: Vec<String>,
    /// Attributes of the photo.
    pub attributes: BTreeMap<String, bool>,
    /// File of the photo.
    pub photo: PathBuf,
    /// File of its mask.
    pub mask: Option<PathBuf>,
    /// Folder of the words that were learned for the photo, if they stand for the person.
    pub words: Option<PathBuf>,
    /// The photo's path as written into the description, without folders of this machine.
    pub image_path: String,
}

/// Why nothing can be generated for a dataset.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The prompts have several kinds.
    #[error(
        "the dataset has prompts of the kinds {0}, whose images have the same names: choose one \
            with --kind, and a folder for each"
    )]
    Kinds(String),
    /// The dataset has other splits, or none.
    #[error("only datasets in the Stellar layout have the splits test and val: use --split all")]
    Splits,
    /// Nothing is selected.
    #[error("no prompt of the dataset is selected: {0}")]
    Nothing(String),
    /// Two images would have one name.
    #[error("two images would have the name {0}: give the photos or people other names")]
    Twice(String),
}

/// Returns the images to generate: for each identity, prompt and photo, in this order.
///
/// # Errors
/// The selection does not fit the dataset, or names collide.
pub fn plan(
    dataset: &Dataset,
    selection: &Selection,
    people: &People,
) -> Result<Vec<Job>, PlanError> {
    if selection.split != Split::All && dataset.layout != Layout::Stellar {
        return Err(PlanError::Splits);
    }
    let kinds: Vec<&str> = dataset.kinds().into_keys().filter(|kind| !kind.is_empty()).collect();
    if selection.kind.is_none() && kinds.len() > 1 {
        return Err(PlanError::Kinds(kinds.join(", ")));
    }
    let folder = dataset.root.canonicalize().unwrap_or_else(|_| dataset.root.clone());
    let folder = folder.file_name().map_or("dataset".into(), |name| name.to_string_lossy());
    let mut jobs = Vec::new();
    let mut names = HashSet::new();
    for identity in dataset.identities.iter().filter(|identity| selection.takes(identity)) {
        let prompts = dataset.prompts.iter().filter(|prompt| {
            prompt.identity == identity.name
                && (selection.kind.is_none() || prompt.kind == selection.kind)
        });
        for (nth, prompt) in prompts.enumerate() {
            let most = if selection.photos == Photos::First { 1 } else { usize::MAX };
            for photo in identity.photos.iter().take(most) {
                let subject = format!("{}-{}", identity.name, photo.name);
                let name = file_name(&format!("{subject}-{nth:02}"));
                // On some file systems, names that differ in case are one.
                if !names.insert(name.to_lowercase()) {
                    return Err(PlanError::Twice(name));
                }
                jobs.push(Job {
                    index: jobs.len(),
                    name,
                    prompt: prompt.text.clone(),
                    kind: prompt.kind.clone(),
                    detectables: prompt.detectables.clone(),
                    attributes: photo.attributes.clone(),
                    photo: dataset.file(&photo.path),
                    mask: match people {
                        People::WholePhotos => None,
                        _ => photo.mask.as_ref().map(|mask| dataset.file(mask)),
                    },
                    words: match people {
                        People::Words(words) => Some(words.join(words_folder(&subject))),
                        _ => None,
                    },
                    image_path: image_path(&folder, photo),
                });
            }
        }
    }
    if jobs.is_empty() {
        let found = match &selection.kind {
            Some(kind) if !kinds.contains(&kind.as_str()) => {
                format!("none has the kind {kind}, the kinds are {}", kinds.join(", "))
            }
            _ => "no identity of the split has both a photo and a prompt".to_owned(),
        };
        return Err(PlanError::Nothing(found));
    }
    Ok(jobs)
}

impl Selection {
    fn takes(&self, identity: &Identity) -> bool {
        let is_test = identity.name.parse::<usize>().is_ok_and(|at| at < TEST_IDENTITIES);
        match self.split {
            Split::All => true,
            Split::Test => is_test,
            Split::Val => !is_test,
        }
    }
}

/// The last two parts identify the photo; a photo in the folder itself has only one.
fn image_path(folder: &str, photo: &Photo) -> String {
    let parts: Vec<_> =
        photo.path.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    format!("{folder}/{}", parts.join("/"))
}

/// Returns a name that every file system accepts. A changed name gets a mark of the original.
fn file_name(name: &str) -> String {
    let plain: String = name.nfc().collect();
    let is_safe = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    let mut safe = String::with_capacity(plain.len());
    for character in plain.trim_start_matches('.').chars() {
        if is_safe(character) {
            safe.push(character);
        } else if !safe.ends_with('_') {
            safe.push('_');
        }
    }
    if safe == plain && safe.len() <= NAME_BYTES {
        return safe;
    }
    safe.truncate(safe.floor_char_boundary(NAME_BYTES));
    format!("{safe}-{}", &ContentHash::of(name.as_bytes()).to_hex()[..8])
}

/// Returns the name of the folder with the learned words of a photo: `identity-photo`, in which
/// characters that not every file system takes are `%XX`. The trainer has the same rule.
fn words_folder(subject: &str) -> String {
    let mut name = String::with_capacity(subject.len());
    for (at, character) in subject.char_indices() {
        let is_safe = !character.is_ascii_control()
            && !"/\\:*?\"<>|%".contains(character)
            && (at > 0 || character != '.');
        if is_safe {
            name.push(character);
        } else {
            // All of them are of one byte.
            let _ = write!(name, "%{:02X}", u32::from(character));
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Prompt;

    fn dataset(layout: Layout) -> Dataset {
        let photo = |identity: &str, name: &str| Photo {
            name: name.to_owned(),
            path: format!("{identity}/{name}.jpg").into(),
            attributes: BTreeMap::from([("Male".to_owned(), false)]),
            finegrained_attributes: BTreeMap::new(),
            mask: (name == "0").then(|| format!("{identity}/{name}_bg.png").into()),
        };
        let prompt = |identity: &str, text: &str, kind: &str| Prompt {
            identity: identity.to_owned(),
            text: text.to_owned(),
            kind: Some(kind.to_owned()),
            categories: Vec::new(),
            detectables: vec!["dog".to_owned()],
            relations: Vec::new(),
        };
        let identity = |name: &str| Identity {
            name: name.to_owned(),
            photos: vec![photo(name, "0"), photo(name, "1")],
        };
        Dataset {
            root: "/data/stellar".into(),
            layout,
            identities: vec![identity("000"), identity("200")],
            prompts: vec![
                prompt("000", "{} with a dog", "T"),
                prompt("000", "{} skiing", "T"),
                prompt("000", "a mosaic of {}", "H"),
                prompt("200", "{} in Rome", "T"),
            ],
        }
    }

    fn select(split: Split, kind: Option<&str>, photos: Photos) -> Selection {
        Selection { split, kind: kind.map(str::to_owned), photos }
    }

    fn names(selection: &Selection) -> Vec<String> {
        let jobs = plan(&dataset(Layout::Stellar), selection, &People::Photos).unwrap();
        assert!(jobs.iter().enumerate().all(|(at, job)| job.index == at));
        jobs.into_iter().map(|job| job.name).collect()
    }

    #[test]
    fn names_are_identity_photo_and_prompt() {
        assert_eq!(
            names(&select(Split::Test, Some("T"), Photos::All)),
            ["000-0-00", "000-1-00", "000-0-01", "000-1-01"]
        );
        // Prompts are counted within their kind, each of which has a folder of its own.
        assert_eq!(names(&select(Split::All, Some("H"), Photos::First)), ["000-0-00"]);
        assert_eq!(names(&select(Split::Val, Some("T"), Photos::First)), ["200-0-00"]);
    }

    #[test]
    fn a_job_has_the_facts_of_its_photo_and_prompt() {
        let dataset = dataset(Layout::Stellar);
        let selection = select(Split::Test, Some("T"), Photos::All);
        let of = |people: &People| plan(&dataset, &selection, people).unwrap();
        let jobs = of(&People::Photos);
        let Job { prompt, photo, mask, image_path, detectables, .. } = &jobs[0];
        assert_eq!((prompt.as_str(), image_path.as_str()), ("{} with a dog", "stellar/000/0.jpg"));
        assert_eq!(photo, &PathBuf::from("/data/stellar/000/0.jpg"));
        assert_eq!(mask, &Some(PathBuf::from("/data/stellar/000/0_bg.png")));
        assert_eq!((detectables.len(), jobs[1].mask.clone()), (1, None));
        assert_eq!((&of(&People::WholePhotos)[0].mask, &jobs[0].words), (&None, &None));
        let learned = &of(&People::Words("learned".into()))[1];
        assert_eq!(learned.words, Some(PathBuf::from("learned/000-1")));
    }

    #[test]
    fn selections_that_do_not_fit_are_refused() {
        let refused = |layout, selection: &Selection| {
            plan(&dataset(layout), selection, &People::Photos).unwrap_err().to_string()
        };
        let error = refused(Layout::Stellar, &select(Split::All, None, Photos::All));
        assert!(error.contains("H, T") && error.contains("--kind"), "{error}");
        let error = refused(Layout::Manifest, &select(Split::Test, Some("T"), Photos::All));
        assert!(error.contains("--split all"), "{error}");
        let error = refused(Layout::Stellar, &select(Split::All, Some("X"), Photos::All));
        assert!(error.contains("none has the kind X"), "{error}");
        let error = refused(Layout::Stellar, &select(Split::Val, Some("H"), Photos::All));
        assert!(error.contains("no identity of the split"), "{error}");
    }

    #[test]
    fn folders_of_words_are_named_as_the_trainer_names_them() {
        for (subject, name) in [
            ("000-0", "000-0"),
            ("ada lovelace-1", "ada lovelace-1"),
            ("a/b-0", "a%2Fb-0"),
            ("../x-0", "%2E.%2Fx-0"),
            ("100%-0", "100%25-0"),
            ("José-0", "José-0"),
        ] {
            assert_eq!(words_folder(subject), name);
        }
    }

    #[test]
    fn names_are_safe_and_stay_different() {
        assert_eq!(file_name("000-0-00"), "000-0-00");
        assert_eq!(file_name("José-0-00"), "José-0-00");
        let (slash, space) = (file_name("a/b-0-00"), file_name("a b-0-00"));
        assert!(slash.starts_with("a_b-0-00-") && slash != space, "{slash} {space}");
        assert!(!file_name("../x").contains('/') && !file_name(".x").starts_with('.'));
        assert!(file_name(&"é".repeat(300)).len() <= NAME_BYTES + 9);
    }
}
