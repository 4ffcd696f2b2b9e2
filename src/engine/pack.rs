//! Model packs: folders of graphs and tokenizers described by a manifest, `pack.toml`.
//!
//! A pack is opened once, at start. [`Pack::open`] reads the manifest and checks its consistency
//! and the SHA-256 of every file. The signatures of the graphs are checked when they are loaded.

use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::pack_id::{PackId, Weights};

mod error;
mod generator;
mod labels;
mod sha;
mod spec;
#[cfg(test)]
mod tests;
mod verify;

pub use error::PackError;
use error::SCHEMA;
pub use generator::{GeneratorSpec, roles as generator_roles};
pub use labels::{Labels, SceneForm};
pub use sha::Sha;
use spec::entry;
pub use spec::{
    Dim, FileSpec, GoldensSpec, GraphKind, GraphSpec, Precision, SourceSpec, TensorSpec, TextSpec,
    TokenizerKind, TokenizerSpec,
};

/// A verified model pack.
#[derive(Debug, Clone)]
pub struct Pack {
    /// Folder of the pack.
    pub dir: PathBuf,
    /// The pack's name.
    pub name: String,
    /// Whether the weights are trained (`official`) or random (`demo`).
    pub weights: Weights,
    /// The exporter and its version.
    pub exporter: String,
    /// SHA-256 of the manifest. It identifies the whole pack, since the manifest has all other
    /// hashes.
    pub digest: Sha,
    /// The tokenizers of the text graphs.
    pub tokenizers: Vec<TokenizerSpec>,
    /// The graphs; roles are unique.
    pub graphs: Vec<GraphSpec>,
    /// Golden samples: inputs with the scores or images of the original code.
    pub goldens: Option<GoldensSpec>,
    /// How the graphs generate images; only in a generator pack.
    pub generator: Option<GeneratorSpec>,
}

/// The manifest as it is in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    // Checked beforehand, so that another schema is reported as such and not as an unknown field.
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
    generator: Option<GeneratorSpec>,
}

impl Pack {
    /// Opens the pack in `dir`: reads its manifest and verifies all of its files.
    ///
    /// Reads every file once, which takes seconds for a pack of several gigabytes.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, PackError> {
        let dir = dir.as_ref();
        let (path, text) = read_manifest(dir)?;
        let mut pack = Self::parse(dir, &path, &text)?;
        pack.check()?;
        pack.join_paths();
        verify::verify(&pack.name, pack.files())?;
        for graph in &pack.graphs {
            pack.read_labels(&graph.role)?;
        }
        Ok(pack)
    }

    /// Returns the digest of the pack in `dir` without checking its files.
    pub fn digest_in(dir: impl AsRef<Path>) -> Result<Sha, PackError> {
        read_manifest(dir.as_ref()).map(|(_, text)| Sha::of(text.as_bytes()))
    }

    /// Returns whether the pack in `dir` generates images, without checking its files.
    pub fn generates_in(dir: impl AsRef<Path>) -> Result<bool, PackError> {
        let dir = dir.as_ref();
        let (path, text) = read_manifest(dir)?;
        Self::parse(dir, &path, &text).map(|pack| pack.generator.is_some())
    }

    fn parse(dir: &Path, path: &Path, text: &str) -> Result<Self, PackError> {
        let syntax = |error: toml::de::Error| PackError::Syntax {
            path: path.to_owned(),
            problem: error.to_string(),
        };
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
            generator: manifest.generator,
        })
    }

    /// Returns the size of all graph files in bytes, most of it weights.
    ///
    /// A file that several graphs share counts once.
    #[must_use]
    pub fn weight_bytes(&self) -> u64 {
        let files = self.graphs.iter().flat_map(|graph| &graph.files);
        let distinct: HashMap<Sha, &FileSpec> = files.map(|file| (file.sha256, file)).collect();
        // A missing file has already failed the start.
        distinct.values().map(|file| file.path.metadata().map_or(0, |of| of.len())).sum()
    }

    /// Returns the graph with this role.
    #[must_use]
    pub fn graph(&self, role: &str) -> Option<&GraphSpec> {
        self.graphs.iter().find(|graph| graph.role == role)
    }

    /// Returns the tokenizer with this name.
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
                let problem =
                    format!("the path `{}` leaves the pack's folder", file.path.display());
                return inconsistent(entry, problem);
            }
        }
        let mut names = HashSet::new();
        for tokenizer in &self.tokenizers {
            if !names.insert(tokenizer.name.as_str()) {
                return inconsistent(
                    entry("tokenizer", &tokenizer.name),
                    "the name appears twice".into(),
                );
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
        if let Some(generator) = &self.generator
            && let Err((entry, problem)) = generator.check(&self.graphs)
        {
            return inconsistent(entry, problem);
        }
        Ok(())
    }

    /// Checks that a grounding graph takes the embeddings of the text graph of its family.
    fn check_queries(&self, graph: &GraphSpec) -> Result<(), String> {
        let family = graph.role.strip_suffix(".image");
        let (GraphKind::Grounding, Some(family)) = (graph.kind, family) else { return Ok(()) };
        let Some(text) = self.graph(&format!("{family}.text")) else { return Ok(()) };
        let embedding = text.outputs.iter().find(|output| output.name == "embedding");
        let queries = graph.inputs.get(1);
        match (embedding, queries) {
            (Some(embedding), Some(queries)) if queries.shape[1..] == embedding.shape[..] => Ok(()),
            (Some(embedding), Some(queries)) => {
                Err(format!("it takes {queries}, but graph `{}` returns {embedding}", text.role))
            }
            _ => Err(format!("graph `{}` has no output `embedding`", text.role)),
        }
    }

    /// Reads the class names of a graph; `None` if its entry has no labels.
    ///
    /// # Errors
    /// The file cannot be read, is not a labels document, or does not fit the graph's outputs.
    pub fn read_labels(&self, role: &str) -> Result<Option<Labels>, PackError> {
        let Some((graph, spec)) =
            self.graph(role).and_then(|graph| Some((graph, graph.labels.as_ref()?)))
        else {
            return Ok(None);
        };
        let text = std::fs::read_to_string(&spec.path).map_err(|source| PackError::File {
            pack: self.name.clone(),
            entry: graph.entry(),
            path: spec.path.clone(),
            source,
        })?;
        let labels =
            Labels::parse(&text).and_then(|found| labels::check(graph, &found).map(|()| found));
        labels.map(Some).map_err(|problem| PackError::Inconsistent {
            pack: self.name.clone(),
            entry: graph.entry(),
            problem: format!("{}: {problem}", spec.path.display()),
        })
    }

    /// Returns every file of the manifest with its entry.
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
        if let Some(generator) = &self.generator {
            files.extend(generator.files().map(|file| ("generator".into(), file.clone())));
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
        let generator = self.generator.iter_mut().flat_map(GeneratorSpec::files_mut);
        let generator = generator.map(|file| &mut file.path);
        for path in files.chain(tokenizers).chain(goldens).chain(generator) {
            *path = self.dir.join(&*path);
        }
    }

    /// Returns the pack's identity, as reported with scores.
    #[must_use]
    pub fn id(&self) -> PackId {
        PackId { name: self.name.clone(), digest: self.digest.to_string(), weights: self.weights }
    }

    /// Reads the kind and the vocabulary of the tokenizer `name`.
    pub fn read_tokenizer(&self, name: &str) -> Result<(TokenizerKind, String), PackError> {
        let unknown =
            || self.invalid_tokenizer(name, "the manifest has no such tokenizer".to_owned());
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

    /// Reads a file of the `[generator]` table.
    pub fn read_generator_file(&self, file: &FileSpec) -> Result<String, PackError> {
        std::fs::read_to_string(&file.path).map_err(|source| PackError::File {
            pack: self.name.clone(),
            entry: "generator".into(),
            path: file.path.clone(),
            source,
        })
    }

    /// Returns the error for a file of the `[generator]` table with unusable content.
    #[must_use]
    pub fn invalid_generator(&self, file: &FileSpec, problem: &str) -> PackError {
        PackError::Inconsistent {
            pack: self.name.clone(),
            entry: "generator".into(),
            problem: format!("{}: {problem}", file.path.display()),
        }
    }

    /// Returns the error for a vocabulary with unusable content.
    #[must_use]
    pub fn invalid_tokenizer(&self, name: &str, problem: String) -> PackError {
        PackError::Inconsistent {
            pack: self.name.clone(),
            entry: format!("tokenizer `{name}`"),
            problem,
        }
    }
}

/// Returns the manifest's path and text.
fn read_manifest(dir: &Path) -> Result<(PathBuf, String), PackError> {
    let path = dir.join("pack.toml");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok((path, text)),
        Err(source) => Err(PackError::Unreadable { path, source }),
    }
}

/// Returns whether a path of a manifest is relative and has no `..`.
fn stays_inside(path: &Path) -> bool {
    let mut parts = path.components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}
