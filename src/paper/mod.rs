//! Tables and figures of the results of a paper, from a service: LaTeX, CSV and SVG, with a file
//! that says how each number was made (`docs/PAPER.md`).
//!
//! All numbers are those of the API. Nothing is computed here but the places of methods among those
//! that are kept.

mod board;
mod correlations;
mod document;
mod first_places;
mod gallery;
mod matrix;
mod options;
mod part;
mod people;
mod reading;
mod references;
mod source;
mod text;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use uuid::Uuid;

use self::{document::Facts, reading::Paper};
use crate::client::Client;
use crate::clock;
use crate::metrics::Metric;
use crate::pack_id::PackId;

pub(crate) use options::{Options, check_kinds};

/// What was written.
#[derive(Debug)]
pub(crate) struct Written {
    /// Paths below the folder, sorted.
    pub(crate) files: Vec<PathBuf>,
    /// Parts that were left out, each with its reason.
    pub(crate) missing: Vec<String>,
}

/// Writes all parts into a folder.
///
/// # Errors
/// The service does not respond, or a file cannot be written.
pub(crate) async fn write(
    client: &Client,
    options: &Options,
    out: &Path,
) -> anyhow::Result<Written> {
    let mut paper = Paper::new(client, options);
    let boards = paper.boards().await?;
    let all = boards.last().context("there is always a table over all prompts")?;
    anyhow::ensure!(
        !all.of.rows.is_empty(),
        "no method matches: `stellar-score submit` sends one, and --methods, --dataset-name, --split \
         and --pack select"
    );
    paper.unknown_methods(all);
    let datasets = paper.datasets().await?;
    paper.statistics(&datasets).await?;
    paper.tables(&boards);
    paper.first_places(&boards).await?;
    paper.matrices(all).await?;
    paper.correlations(all).await?;
    paper.people(all).await?;
    paper.gallery(all, &datasets).await?;
    let pack: Option<PackId> = all.of.rows.first().map(|row| row.pack.clone());
    let methods = all
        .of
        .rows
        .iter()
        .map(|row| (row.method.clone(), row.runs.iter().map(Uuid::to_string).collect()));
    let of_dataset = datasets.iter().find(|of| Some(&of.name) == options.dataset.as_ref());
    let facts = Facts {
        options,
        server: &options.server,
        pack: pack.as_ref(),
        date: clock::now().date().to_string(),
        methods: methods.collect(),
        revision: of_dataset.map(|of| of.revision),
    };
    let metrics = all.metrics();
    // Without a name, published rows of every dataset are there.
    let is_stellar = options.dataset.is_some() && all.has_published();
    save(paper, &facts, &metrics, is_stellar, out)
}

/// Writes all files of the parts.
fn save(
    paper: Paper<'_>,
    facts: &Facts<'_>,
    metrics: &[&Metric],
    is_stellar: bool,
    out: &Path,
) -> anyhow::Result<Written> {
    let Paper { parts, missing, .. } = paper;
    let mut files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    let main = document::tex(facts, &parts);
    files.insert("paper.tex".into(), main.into_bytes());
    let readme = document::readme(facts, &parts, &missing);
    files.insert("README.md".into(), readme.into_bytes());
    let references = references::references(metrics, is_stellar);
    files.insert("references.bib".into(), references.into_bytes());
    let of_parts = parts.into_iter().flat_map(|part| part.files);
    files.extend(of_parts.map(|file| (PathBuf::from(file.path), file.bytes)));
    // Images of an earlier call may not be shown any more.
    let images = out.join(gallery::FOLDER);
    match std::fs::remove_dir_all(&images) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot delete {}", images.display()));
        }
        _ => {}
    }
    for (path, bytes) in &files {
        let path = out.join(path);
        let context = || format!("cannot write {}", path.display());
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(context)?;
        }
        std::fs::write(&path, bytes).with_context(context)?;
    }
    let missing = missing.iter().map(|of| format!("{}: {}", of.what, of.why)).collect();
    Ok(Written { files: files.into_keys().collect(), missing })
}
