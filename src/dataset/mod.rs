//! Datasets on disk: whose photos there are, what they show, and which prompts are generated for whom.
//!
//! ```text
//! prepare   a CelebA-Dialog download and the Stellar prompts → a folder in the Stellar layout
//! open      a folder in the Stellar layout, or with a manifest dataset.jsonl → [`Dataset`] and what is wrong with it
//! check     … and every image decoded
//! ```
//!
//! `docs/DATASETS.md` describes both layouts for people.

mod check;
mod manifest;
mod prepare;
mod sample;
mod stellar;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

pub use check::decode_images;
pub use manifest::MANIFEST;
pub use prepare::{PrepareError, Prepared, Sources, prepare};
pub use sample::{SampleFolders, SampleSize, make_sample};
pub use stellar::TEST_IDENTITIES;

/// Photos and prompts of a folder.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// The folder.
    pub root: PathBuf,
    /// How the folder is laid out.
    pub layout: Layout,
    /// By name, each with at least one photo or prompt.
    pub identities: Vec<Identity>,
    /// In the order of identities, and of the file within.
    pub prompts: Vec<Prompt>,
}

/// How a folder is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `NNN/0.jpg`, `NNN/0_attributes.json`, `NNN/prompts_t.json`, as in Stellar.
    Stellar,
    /// One JSON object a line in `dataset.jsonl`.
    Manifest,
}

/// Somebody whom photos show.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Identity {
    /// `000` in the Stellar layout.
    pub name: String,
    /// In the order of their names.
    pub photos: Vec<Photo>,
}

/// A photo of an identity.
#[derive(Debug, Clone, PartialEq)]
pub struct Photo {
    /// Its name among the identity's photos.
    pub name: String,
    /// Its file, below the folder.
    pub path: PathBuf,
    /// What it shows, by CelebA's name.
    pub attributes: BTreeMap<String, bool>,
    /// The file of its mask, where it has one.
    pub mask: Option<PathBuf>,
}

/// A prompt for one identity.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// Whom it is for.
    pub identity: String,
    /// As written: `{}` stands for the person.
    pub text: String,
    /// `T` or `H` in Stellar, any word elsewhere.
    pub kind: Option<String>,
    /// What it is about, for slices of the leaderboard.
    pub categories: Vec<String>,
    /// The objects that it names.
    pub detectables: Vec<String>,
    /// The relations that it names, as subject, predicate, object.
    pub relations: Vec<[String; 3]>,
}

/// Something that is not as the layout asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file or folder, below the dataset's folder.
    pub path: PathBuf,
    /// What is wrong, and what to do.
    pub what: String,
    /// Whether the dataset cannot be used as it is; otherwise it is worth knowing.
    pub fatal: bool,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.fatal { "problem" } else { "note" };
        write!(f, "{kind}: {}: {}", self.path.display(), self.what)
    }
}

/// What was found wrong with a folder, in the order in which it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// All of it.
    pub list: Vec<Problem>,
}

impl Findings {
    /// How many of them are problems.
    #[must_use]
    pub fn fatal(&self) -> usize {
        self.list.iter().filter(|problem| problem.fatal).count()
    }

    fn problem(&mut self, path: impl Into<PathBuf>, what: impl Into<String>) {
        self.list.push(Problem { path: path.into(), what: what.into(), fatal: true });
    }

    fn note(&mut self, path: impl Into<PathBuf>, what: impl Into<String>) {
        self.list.push(Problem { path: path.into(), what: what.into(), fatal: false });
    }
}

/// Why a folder cannot be looked at as a dataset.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder or a file in it cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Nothing there looks like a dataset.
    #[error(
        "{0} is no dataset: it has neither folders 000, 001, … as Stellar has, nor a file {MANIFEST}; docs/DATASETS.md \
         describes both"
    )]
    NoDataset(PathBuf),
}

impl Dataset {
    /// Reads a folder of either layout, images excepted, and everything that is wrong with it.
    ///
    /// # Errors
    /// The folder cannot be read, or nothing in it is of a dataset.
    pub fn open(root: &Path) -> Result<(Self, Findings), OpenError> {
        let mut findings = Findings::default();
        let dataset = if root.join(MANIFEST).is_file() {
            manifest::read(root, &mut findings)?
        } else {
            stellar::read(root, &mut findings)?
        };
        if dataset.identities.is_empty() && findings.fatal() == 0 {
            return Err(OpenError::NoDataset(root.to_owned()));
        }
        dataset.look_for_twins(&mut findings);
        Ok((dataset, findings))
    }

    /// An identity by its name.
    #[must_use]
    pub fn identity(&self, name: &str) -> Option<&Identity> {
        let at = self.identities.binary_search_by(|identity| identity.name.as_str().cmp(name)).ok()?;
        Some(&self.identities[at])
    }

    /// The whole path of a photo or mask.
    #[must_use]
    pub fn file(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }

    /// How many photos there are.
    #[must_use]
    pub fn photos(&self) -> usize {
        self.identities.iter().map(|identity| identity.photos.len()).sum()
    }

    /// How many prompts of each kind there are.
    #[must_use]
    pub fn kinds(&self) -> BTreeMap<&str, usize> {
        let mut kinds = BTreeMap::new();
        for prompt in &self.prompts {
            *kinds.entry(prompt.kind.as_deref().unwrap_or("")).or_default() += 1;
        }
        kinds
    }

    /// Generated images find their prompt by identity and text: the second of two equal ones is never found.
    fn look_for_twins(&self, findings: &mut Findings) {
        let mut counts: HashMap<(&str, &str), usize> = HashMap::new();
        for prompt in &self.prompts {
            *counts.entry((&prompt.identity, &prompt.text)).or_default() += 1;
        }
        for prompt in &self.prompts {
            let count = counts.insert((&prompt.identity, &prompt.text), 1).unwrap_or(1);
            if count > 1 {
                let what = format!("the prompt {:?} stands there {count} times and counts once", prompt.text);
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
fn read_text(path: &Path) -> Result<String, OpenError> {
    crate::read::text(path).map_err(|source| OpenError::Io { path: path.to_owned(), source })
}
