//! The contents of a dataset's folder, and the problems found in it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// File name of the manifest.
pub const MANIFEST: &str = "dataset.jsonl";

/// Photos and prompts of a folder.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// Path of the folder.
    pub root: PathBuf,
    /// Layout of the folder.
    pub layout: Layout,
    /// Sorted by name; each has at least one photo or prompt.
    pub identities: Vec<Identity>,
    /// In the order of the identities, and within each in file order.
    pub prompts: Vec<Prompt>,
}

/// Layout of a dataset's folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `NNN/0.jpg`, `NNN/0_attributes.json`, `NNN/prompts_t.json`, as in Stellar.
    Stellar,
    /// One JSON object per line in `dataset.jsonl`.
    Manifest,
}

/// A person with photos and prompts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Identity {
    /// Name, such as `000` in the Stellar layout.
    pub name: String,
    /// Photos, ordered by their names.
    pub photos: Vec<Photo>,
}

/// A photo of an identity.
#[derive(Debug, Clone, PartialEq)]
pub struct Photo {
    /// Name, unique among the identity's photos.
    pub name: String,
    /// Path of the file, relative to the dataset's folder.
    pub path: PathBuf,
    /// Presence of each attribute, by CelebA's name.
    pub attributes: BTreeMap<String, bool>,
    /// Levels of fine-grained attributes, 0 to 5 in CelebA-Dialog.
    pub finegrained_attributes: BTreeMap<String, i16>,
    /// Path of the mask, if there is one.
    pub mask: Option<PathBuf>,
}

/// A prompt for one identity.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// Name of the identity that the prompt is for.
    pub identity: String,
    /// Text as written: `{}` stands for the person.
    pub text: String,
    /// Kind: `T` or `H` in Stellar, any word elsewhere.
    pub kind: Option<String>,
    /// Categories, for slices of the leaderboard.
    pub categories: Vec<String>,
    /// Objects that the prompt names.
    pub detectables: Vec<String>,
    /// Relations that the prompt names, as subject, predicate, object.
    pub relations: Vec<[String; 3]>,
}

/// A deviation from the layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file or folder, relative to the dataset's folder.
    pub path: PathBuf,
    /// Description of the problem and the remedy.
    pub what: String,
    /// True if the dataset cannot be used as it is; false for a note.
    pub fatal: bool,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.fatal { "problem" } else { "note" };
        write!(f, "{kind}: {}: {}", self.path.display(), self.what)
    }
}

/// Problems and notes of a folder, in reading order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// All problems and notes.
    pub list: Vec<Problem>,
}

impl Findings {
    /// Returns the number of problems, without notes.
    #[must_use]
    pub fn fatal(&self) -> usize {
        self.list.iter().filter(|problem| problem.fatal).count()
    }

    pub(super) fn problem(&mut self, path: impl Into<PathBuf>, what: impl Into<String>) {
        self.list.push(Problem { path: path.into(), what: what.into(), fatal: true });
    }

    pub(super) fn note(&mut self, path: impl Into<PathBuf>, what: impl Into<String>) {
        self.list.push(Problem { path: path.into(), what: what.into(), fatal: false });
    }
}

/// Reason why a folder cannot be opened as a dataset.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder or a file in it cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// Path of the file or folder.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The folder has none of the files of a dataset.
    #[error(
        "{0} is not a dataset: it has neither folders 000, 001, … as in Stellar, nor a file \
            {MANIFEST}; docs/DATASETS.md \
         describes both"
    )]
    NoDataset(PathBuf),
}

impl Dataset {
    /// Returns the identity of this name.
    #[must_use]
    pub fn identity(&self, name: &str) -> Option<&Identity> {
        let at =
            self.identities.binary_search_by(|identity| identity.name.as_str().cmp(name)).ok()?;
        Some(&self.identities[at])
    }

    /// Returns the full path of a photo or mask.
    #[must_use]
    pub fn file(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }

    /// Returns the number of photos.
    #[must_use]
    pub fn photos(&self) -> usize {
        self.identities.iter().map(|identity| identity.photos.len()).sum()
    }

    /// Returns the number of prompts of each kind.
    #[must_use]
    pub fn kinds(&self) -> BTreeMap<&str, usize> {
        let mut kinds = BTreeMap::new();
        for prompt in &self.prompts {
            *kinds.entry(prompt.kind.as_deref().unwrap_or("")).or_default() += 1;
        }
        kinds
    }

    /// Notes duplicate prompts. Generated images find their prompt by identity and text, so the
    /// second of two equal prompts is never found.
    pub(super) fn look_for_twins(&self, findings: &mut Findings) {
        let mut counts: HashMap<(&str, &str), usize> = HashMap::new();
        for prompt in &self.prompts {
            *counts.entry((&prompt.identity, &prompt.text)).or_default() += 1;
        }
        for prompt in &self.prompts {
            let count = counts.insert((&prompt.identity, &prompt.text), 1).unwrap_or(1);
            if count > 1 {
                let what =
                    format!("the prompt {:?} occurs {count} times and counts once", prompt.text);
                findings.note(self.prompt_file(prompt), what);
            }
        }
    }

    fn prompt_file(&self, prompt: &Prompt) -> PathBuf {
        match self.layout {
            Layout::Stellar => PathBuf::from(&prompt.identity),
            Layout::Manifest => PathBuf::from(MANIFEST),
        }
    }
}

/// Reads a file below the dataset's folder as text.
pub(super) fn read_text(path: &Path) -> Result<String, OpenError> {
    crate::read::text(path).map_err(|source| OpenError::Io { path: path.to_owned(), source })
}
