//! Model packs: a folder of graphs and tokenizers, and the `pack.toml` that says everything about them.
//!
//! A pack is opened once, at start. [`Pack::open`] reads the manifest, checks that it is consistent and
//! that every file has the SHA-256 it names; what the graphs' signatures really are is checked when they
//! are loaded.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::pack_id::{PackId, Weights};

mod labels;
mod spec;
#[cfg(test)]
mod tests;
mod verify;

pub use labels::{Labels, SceneForm};
pub use spec::{
    Dim, FileSpec, GoldensSpec, GraphKind, GraphSpec, Precision, SourceSpec, TensorSpec, TextSpec,
    TokenizerKind, TokenizerSpec,
};

/// The manifest's schema this version reads.
const SCHEMA: u32 = 1;

/// Why a pack could not be opened; every text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The folder has no readable manifest.
    #[error(
        "cannot read the model pack's manifest {}: {source}; name a folder that holds a pack.toml, for example packs/demo",
        path.display()
    )]
    Unreadable {
        /// The manifest's path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The manifest is not the TOML that is expected.
    #[error("{} is not a valid pack manifest: {problem}export the pack again with this version's exporter", path.display())]
    Syntax {
        /// The manifest's path.
        path: PathBuf,
        /// The parser's message, with the place.
        problem: String,
    },
    /// The manifest is of another schema.
    #[error(
        "{} has schema {found}, this version reads schema {SCHEMA}: export the pack again with this version's exporter",
        path.display()
    )]
    Schema {
        /// The manifest's path.
        path: PathBuf,
        /// What it says.
        found: i64,
    },
    /// An entry contradicts itself or another one.
    #[error("pack `{pack}`: {entry}: {problem}; export the pack again")]
    Inconsistent {
        /// The pack's name.
        pack: String,
        /// The entry, for example ``graph `clip.image` ``.
        entry: String,
        /// What is wrong, with what was expected.
        problem: String,
    },
    /// A file that the manifest names is not there or cannot be read.
    #[error(
        "pack `{pack}`: {entry}: cannot read {}: {source}; copy the whole pack folder again, or export it again",
        path.display()
    )]
    File {
        /// The pack's name.
        pack: String,
        /// The entry.
        entry: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file's content is not what the manifest says.
    #[error(
        "pack `{pack}`: {entry}: {} is damaged or was replaced: expected sha256 {expected}, found {found}; copy the pack again, or export it again",
        path.display()
    )]
    Mismatch {
        /// The pack's name.
        pack: String,
        /// The entry.
        entry: String,
        /// The file.
        path: PathBuf,
        /// What the manifest names.
        expected: String,
        /// What the file has.
        found: String,
    },
}

/// A verified model pack.
#[derive(Debug, Clone)]
pub struct Pack {
    /// The folder.
    pub dir: PathBuf,
    /// The pack's name.
    pub name: String,
    /// Whether its numbers mean anything.
    pub weights: Weights,
    /// The program that wrote it, with its version.
    pub exporter: String,
    /// SHA-256 of the manifest's bytes; as those hold all other hashes, it names the whole pack.
    pub digest: Sha,
    /// The tokenizers that text graphs name.
    pub tokenizers: Vec<TokenizerSpec>,
    /// The graphs; each has a different role.
    pub graphs: Vec<GraphSpec>,
    /// Inputs with the scores that the original programs give for them.
    pub goldens: Option<GoldensSpec>,
}

/// A SHA-256 digest; 64 hexadecimal digits in the manifest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Sha([u8; 32]);

impl Sha {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The raw digest.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl TryFrom<String> for Sha {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("a sha256 is 64 hexadecimal digits, found `{text}`");
        if text.len() != 64 || !text.is_ascii() {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

impl From<Sha> for String {
    fn from(sha: Sha) -> Self {
        sha.to_string()
    }
}

impl fmt::Display for Sha {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha({self})")
    }
}

/// The manifest as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    // Read on its own beforehand, so that another schema is named as such and not as an unknown field.
    #[serde(rename = "schema")]
    _schema: u32,
    name: String,
    weights: Weights,
    exporter: String,
    #[serde(default)]
    tokenizer: Vec<TokenizerSpec>,
    #[serde(default)]
    graph: Vec<GraphSpec>,
    goldens: Option<GoldensSpec>,
}

impl Pack {
    /// Opens the pack in `dir`: reads its manifest and verifies every file that it names.
    ///
    /// Takes as long as reading all files once; a pack of several gigabytes needs seconds.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, PackError> {
        let dir = dir.as_ref();
        let (path, text) = read_manifest(dir)?;
        let mut pack = Self::parse(dir, &path, &text)?;
        pack.check()?;
        pack.join_paths();
        verify::verify(&pack)?;
        for graph in &pack.graphs {
            pack.read_labels(&graph.role)?;
        }
        Ok(pack)
    }

    /// The digest of the pack in `dir`, whose files are not looked at.
    pub fn digest_in(dir: impl AsRef<Path>) -> Result<Sha, PackError> {
        read_manifest(dir.as_ref()).map(|(_, text)| Sha::of(text.as_bytes()))
    }

    fn parse(dir: &Path, path: &Path, text: &str) -> Result<Self, PackError> {
        let syntax =
            |error: toml::de::Error| PackError::Syntax { path: path.to_owned(), problem: error.to_string() };
        let table: toml::Table = toml::from_str(text).map_err(syntax)?;
        match table.get("schema").and_then(toml::Value::as_integer) {
            Some(found) if found != i64::from(SCHEMA) => {
                return Err(PackError::Schema { path: path.to_owned(), found });
            }
            _ => {}
        }
        let manifest: Manifest = toml::from_str(text).map_err(syntax)?;
        Ok(Self {
            dir: dir.to_owned(),
            name: manifest.name,
            weights: manifest.weights,
            exporter: manifest.exporter,
            digest: Sha::of(text.as_bytes()),
            tokenizers: manifest.tokenizer,
            graphs: manifest.graph,
            goldens: manifest.goldens,
        })
    }

    /// Bytes of all graphs' files, which are weights for the most part; a file that several graphs name counts once.
    #[must_use]
    pub fn weight_bytes(&self) -> u64 {
        let files = self.graphs.iter().flat_map(|graph| &graph.files);
        let distinct: HashMap<Sha, &FileSpec> = files.map(|file| (file.sha256, file)).collect();
        // A file that is gone is an error of the start.
        distinct.values().map(|file| file.path.metadata().map_or(0, |of| of.len())).sum()
    }

    /// The graph with this role.
    #[must_use]
    pub fn graph(&self, role: &str) -> Option<&GraphSpec> {
        self.graphs.iter().find(|graph| graph.role == role)
    }

    /// The tokenizer with this name.
    #[must_use]
    pub fn tokenizer(&self, name: &str) -> Option<&TokenizerSpec> {
        self.tokenizers.iter().find(|tokenizer| tokenizer.name == name)
    }

    fn check(&self) -> Result<(), PackError> {
        let inconsistent = |entry: String, problem: String| {
            Err(PackError::Inconsistent { pack: self.name.clone(), entry, problem })
        };
        for (entry, file) in self.files() {
            if !stays_inside(&file.path) {
                let problem = format!("the path `{}` leaves the pack's folder", file.path.display());
                return inconsistent(entry, problem);
            }
        }
        let mut names = HashSet::new();
        for tokenizer in &self.tokenizers {
            if !names.insert(tokenizer.name.as_str()) {
                return inconsistent(entry("tokenizer", &tokenizer.name), "the name appears twice".into());
            }
        }
        let mut roles = HashSet::new();
        for graph in &self.graphs {
            if !roles.insert(graph.role.as_str()) {
                return inconsistent(graph.entry(), "the role appears twice".into());
            }
            if let Err(problem) = graph.check(&names) {
                return inconsistent(graph.entry(), problem);
            }
        }
        for graph in &self.graphs {
            if let Err(problem) = self.check_queries(graph) {
                return inconsistent(graph.entry(), problem);
            }
        }
        Ok(())
    }

    /// A grounding graph takes what the text graph of its family gives.
    fn check_queries(&self, graph: &GraphSpec) -> Result<(), String> {
        let family = graph.role.strip_suffix(".image");
        let (GraphKind::Grounding, Some(family)) = (graph.kind, family) else { return Ok(()) };
        let Some(text) = self.graph(&format!("{family}.text")) else { return Ok(()) };
        let embedding = text.outputs.iter().find(|output| output.name == "embedding");
        let queries = graph.inputs.get(1);
        match (embedding, queries) {
            (Some(embedding), Some(queries)) if queries.shape[1..] == embedding.shape[..] => Ok(()),
            (Some(embedding), Some(queries)) => {
                Err(format!("it takes {queries}, but graph `{}` gives {embedding}", text.role))
            }
            _ => Err(format!("graph `{}` gives no `embedding`", text.role)),
        }
    }

    /// Reads the names of a graph's classes; `None` where its entry has none.
    ///
    /// # Errors
    /// A file that cannot be read, is no labels document, or does not fit the graph's outputs.
    pub fn read_labels(&self, role: &str) -> Result<Option<Labels>, PackError> {
        let Some((graph, spec)) = self.graph(role).and_then(|graph| Some((graph, graph.labels.as_ref()?)))
        else {
            return Ok(None);
        };
        let text = std::fs::read_to_string(&spec.path).map_err(|source| PackError::File {
            pack: self.name.clone(),
            entry: graph.entry(),
            path: spec.path.clone(),
            source,
        })?;
        let labels = Labels::parse(&text).and_then(|found| labels::check(graph, &found).map(|()| found));
        labels.map(Some).map_err(|problem| PackError::Inconsistent {
            pack: self.name.clone(),
            entry: graph.entry(),
            problem: format!("{}: {problem}", spec.path.display()),
        })
    }

    /// Every file that the manifest names, with the entry that names it.
    fn files(&self) -> Vec<(String, FileSpec)> {
        let mut files = Vec::new();
        for tokenizer in &self.tokenizers {
            let file = FileSpec { path: tokenizer.file.clone(), sha256: tokenizer.sha256 };
            files.push((entry("tokenizer", &tokenizer.name), file));
        }
        for graph in &self.graphs {
            files.extend(graph.files.iter().map(|file| (graph.entry(), file.clone())));
            files.extend(graph.labels.iter().map(|file| (graph.entry(), file.clone())));
        }
        if let Some(goldens) = &self.goldens {
            let file = FileSpec { path: goldens.file.clone(), sha256: goldens.sha256 };
            files.push(("goldens".into(), file));
        }
        files
    }

    fn join_paths(&mut self) {
        let files = self.graphs.iter_mut().flat_map(|graph| {
            let labels = graph.labels.iter_mut().map(|labels| &mut labels.path);
            graph.files.iter_mut().map(|file| &mut file.path).chain(labels)
        });
        let tokenizers = self.tokenizers.iter_mut().map(|tokenizer| &mut tokenizer.file);
        let goldens = self.goldens.iter_mut().map(|goldens| &mut goldens.file);
        for path in files.chain(tokenizers).chain(goldens) {
            *path = self.dir.join(&*path);
        }
    }

    /// What names it beside a number.
    #[must_use]
    pub fn id(&self) -> PackId {
        PackId { name: self.name.clone(), digest: self.digest.to_string(), weights: self.weights }
    }

    /// Reads the vocabulary of the tokenizer called `name`.
    pub fn read_tokenizer(&self, name: &str) -> Result<(TokenizerKind, String), PackError> {
        let unknown = || self.invalid_tokenizer(name, "the manifest has no such tokenizer".to_owned());
        let spec = self.tokenizers.iter().find(|spec| spec.name == name).ok_or_else(unknown)?;
        match std::fs::read_to_string(&spec.file) {
            Ok(text) => Ok((spec.kind, text)),
            Err(source) => Err(PackError::File {
                pack: self.name.clone(),
                entry: format!("tokenizer `{name}`"),
                path: spec.file.clone(),
                source,
            }),
        }
    }

    /// The error for a vocabulary whose content cannot be used.
    #[must_use]
    pub fn invalid_tokenizer(&self, name: &str, problem: String) -> PackError {
        PackError::Inconsistent { pack: self.name.clone(), entry: format!("tokenizer `{name}`"), problem }
    }
}

/// The manifest's path and text.
fn read_manifest(dir: &Path) -> Result<(PathBuf, String), PackError> {
    let path = dir.join("pack.toml");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok((path, text)),
        Err(source) => Err(PackError::Unreadable { path, source }),
    }
}

fn entry(kind: &str, name: &str) -> String {
    format!("{kind} `{name}`")
}

/// Whether a manifest's path is relative and never climbs.
fn stays_inside(path: &Path) -> bool {
    let mut parts = path.components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}
