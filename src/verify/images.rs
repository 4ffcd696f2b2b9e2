//! Reading samples from a folder, to compare packs on the user's images.
//!
//! The form of a folder is detected from its contents:
//!
//! ```text
//! samples.jsonl     one JSON object per line: image, prompt, reference, auxiliary, metadata
//! NAME.png .json    a run in the toolkit's layout; its photos are in a dataset's folder
//! two folders       such a run and its dataset side by side, as in the toolkit's own tests
//! NAME.png .txt     images, each with its prompt, if any
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::Deserialize;

use crate::{
    dataset::{Dataset, Problem},
    read,
    scoring::{EncodedImage, Metadata, Sample},
    upload::{self, Item, is_image},
};

/// File name of a list of samples.
pub const LIST: &str = "samples.jsonl";

/// Depth of the toolkit's CSV files in a folder: `save_dir/UID/NAME.csv`.
const DEPTH: usize = 3;

/// A sample whose images are files on disk.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Case {
    /// Name, for messages.
    pub name: String,
    /// The generated image.
    pub image: PathBuf,
    /// The prompt that the image was generated from.
    pub prompt: Option<String>,
    /// Reference images: images of the person that the generator was given.
    pub references: Vec<PathBuf>,
    /// Auxiliary images: further images of the same person.
    pub auxiliary: Vec<PathBuf>,
    /// The sample's metadata.
    pub metadata: Metadata,
}

/// Samples read from a folder.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Samples {
    /// The samples, in the order of the list or by name.
    pub cases: Vec<Case>,
    /// Problems and notes about the folder.
    pub problems: Vec<Problem>,
}

/// A folder with images, their dataset and the toolkit's scores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolkitFolder {
    /// The generated images with their JSON files.
    pub run: PathBuf,
    /// The dataset.
    pub dataset: PathBuf,
    /// All CSV files, including those of other programs.
    pub tables: Vec<PathBuf>,
}

/// A line of a list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    image: PathBuf,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    prompt: Option<String>,
    #[serde(default)]
    reference: Paths,
    #[serde(default)]
    auxiliary: Paths,
    #[serde(default)]
    metadata: Metadata,
}

/// One path, or a list of them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Paths {
    One(PathBuf),
    Several(Vec<PathBuf>),
}

impl Default for Paths {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl Paths {
    fn below(self, folder: &Path) -> Vec<PathBuf> {
        let paths = match self {
            Self::One(path) => vec![path],
            Self::Several(paths) => paths,
        };
        paths.into_iter().map(|path| folder.join(path)).collect()
    }
}

impl From<Item> for Case {
    fn from(item: Item) -> Self {
        Self {
            name: item.name,
            image: item.image,
            prompt: Some(item.prompt),
            references: vec![item.reference],
            auxiliary: item.auxiliary,
            metadata: item.metadata,
        }
    }
}

impl Case {
    /// Reads the sample's images.
    ///
    /// # Errors
    /// An image that cannot be read.
    pub fn read(
        &self,
        read: impl Fn(&Path) -> anyhow::Result<EncodedImage>,
    ) -> anyhow::Result<Sample> {
        let several = |paths: &[PathBuf]| {
            paths.iter().map(|path| read(path)).collect::<anyhow::Result<Vec<_>>>()
        };
        Ok(Sample {
            image: read(&self.image)?,
            prompt: self.prompt.clone(),
            references: several(&self.references)?,
            auxiliary: several(&self.auxiliary)?,
            metadata: self.metadata.clone(),
            dataset: None,
        })
    }
}

impl Samples {
    /// Returns whether the folder has no fatal problems.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        !self.problems.iter().any(|problem| problem.fatal)
    }

    fn note(&mut self, path: impl Into<PathBuf>, what: impl Into<String>) {
        self.problems.push(Problem { path: path.into(), what: what.into(), fatal: false });
    }
}

/// Reads the samples of a folder. With a dataset, the folder is a run over it. Images are not
/// opened.
///
/// # Errors
/// A folder without images, a run without its dataset, or an invalid line of a list.
pub fn read_samples(folder: &Path, dataset: Option<&Path>) -> anyhow::Result<Samples> {
    if let Some(dataset) = dataset {
        return read_run(folder, dataset);
    }
    let list = folder.join(LIST);
    if list.is_file() {
        return read_list(&list);
    }
    if is_run(folder)? {
        anyhow::bail!(
            "{} is a run of the toolkit, NAME.png with NAME.json: set the folder of its dataset \
                with --dataset, so \
             that its photos are found",
            folder.display()
        );
    }
    if folders(folder)?.iter().any(|inside| is_dataset(inside)) {
        let found = find_toolkit(folder, None)?;
        return read_run(&found.run, &found.dataset);
    }
    read_images(folder)
}

/// Reads a run in the toolkit's layout.
///
/// # Errors
/// A folder that cannot be read. Problems within it are listed in the result.
pub fn read_run(run: &Path, dataset: &Path) -> anyhow::Result<Samples> {
    let (dataset, _) = Dataset::open(dataset)?;
    let found = upload::read_folder(run, &dataset)
        .with_context(|| format!("cannot read {}", run.display()))?;
    Ok(Samples {
        cases: found.items.into_iter().map(Case::from).collect(),
        problems: found.problems,
    })
}

/// Finds images, dataset and CSV files in a folder or its subfolders.
///
/// # Errors
/// A part that is missing or ambiguous.
pub fn find_toolkit(folder: &Path, dataset: Option<&Path>) -> anyhow::Result<ToolkitFolder> {
    let mut places = folders(folder)?;
    places.insert(0, folder.to_owned());
    let mut runs = Vec::new();
    for place in &places {
        if is_run(place)? {
            runs.push(place.clone());
        }
    }
    let run = the_only(folder, runs, "folder of generated images (NAME.png with NAME.json)", "")?;
    let dataset = if let Some(dataset) = dataset {
        dataset.to_owned()
    } else {
        let datasets = places.into_iter().filter(|place| is_dataset(place)).collect();
        the_only(
            folder,
            datasets,
            "dataset (folders 000, 001, …, or dataset.jsonl)",
            "; or use --dataset",
        )?
    };
    let mut tables = Vec::new();
    find_tables(folder, DEPTH, &[&run, &dataset], &mut tables)?;
    Ok(ToolkitFolder { run, dataset, tables })
}

fn the_only(
    folder: &Path,
    mut found: Vec<PathBuf>,
    what: &str,
    or: &str,
) -> anyhow::Result<PathBuf> {
    let folder = folder.display();
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => anyhow::bail!(
            "neither {folder} nor a folder in it is a {what}: set the folder that contains the \
                images, their dataset and \
             the toolkit's CSV files{or}"
        ),
        _ => {
            let found: Vec<_> = found.iter().map(|path| path.display().to_string()).collect();
            anyhow::bail!(
                "{folder} has more than one {what}: {}; keep only one of them{or}",
                found.join(", ")
            )
        }
    }
}

/// Collects the CSV files in a folder and its subfolders, down to `depth` levels.
fn find_tables(
    folder: &Path,
    depth: usize,
    but: &[&Path],
    found: &mut Vec<PathBuf>,
) -> anyhow::Result<()> {
    found.extend(files(folder)?.into_iter().filter(|path| has_extension(path, "csv")));
    if depth > 1 {
        for inside in folders(folder)?.iter().filter(|inside| !but.contains(&inside.as_path())) {
            find_tables(inside, depth - 1, but, found)?;
        }
    }
    Ok(())
}

/// Returns whether the folder has an image with a JSON file of the same name.
fn is_run(folder: &Path) -> anyhow::Result<bool> {
    let files = files(folder)?;
    let images: BTreeSet<_> =
        files.iter().filter(|path| is_image(path)).filter_map(|path| path.file_stem()).collect();
    let mut texts = files.iter().filter(|path| has_extension(path, "json"));
    Ok(texts.any(|path| path.file_stem().is_some_and(|stem| images.contains(stem))))
}

fn is_dataset(folder: &Path) -> bool {
    Dataset::open(folder).is_ok()
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension()
        .and_then(OsStr::to_str)
        .is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    Ok(inside(folder)?.into_iter().filter(|path| path.is_file()).collect())
}

fn folders(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    Ok(inside(folder)?.into_iter().filter(|path| path.is_dir()).collect())
}

/// Lists a folder by name, without hidden files, which belong to the system.
fn inside(folder: &Path) -> anyhow::Result<BTreeSet<PathBuf>> {
    let context = || format!("cannot read {}", folder.display());
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).with_context(context)? {
        let entry = entry.with_context(context)?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            found.insert(entry.path());
        }
    }
    Ok(found)
}

fn read_list(path: &Path) -> anyhow::Result<Samples> {
    let text = read::text(path).with_context(|| format!("cannot read {}", path.display()))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut cases: Vec<Case> = Vec::new();
    let mut names = BTreeSet::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let place = || format!("{}, line {}", path.display(), at + 1);
        let line: Line = serde_json::from_str(line).with_context(|| {
            let form =
                r#"{"image": "a.png", "prompt": "a person on a horse", "reference": "photos/ada.jpg"}"#;
            format!("{}: not of the form {form}", place())
        })?;
        let stem = || line.image.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let name = line.name.clone().unwrap_or_else(stem);
        anyhow::ensure!(
            names.insert(name.clone()),
            "{}: {name:?} is the name of an earlier sample: set a unique `name` for each",
            place()
        );
        cases.push(Case {
            name,
            image: folder.join(line.image),
            prompt: line.prompt,
            references: line.reference.below(folder),
            auxiliary: line.auxiliary.below(folder),
            metadata: line.metadata,
        });
    }
    anyhow::ensure!(!cases.is_empty(), "{} lists no images", path.display());
    Ok(Samples { cases, problems: Vec::new() })
}

/// Reads images, each with its prompt, if any.
fn read_images(folder: &Path) -> anyhow::Result<Samples> {
    let mut samples = Samples::default();
    let mut prompts = BTreeMap::new();
    let mut images: BTreeMap<String, PathBuf> = BTreeMap::new();
    for path in files(folder)? {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if has_extension(&path, "txt") {
            prompts.insert(stem, path);
        } else if !is_image(&path) {
            samples.note(
                path,
                "is neither an image (PNG, JPEG, WebP, PPM) nor a prompt (.txt), skipped",
            );
        } else if let Some(other) = images.insert(stem, path.clone()) {
            let (path, other) = (path.display(), other.display());
            anyhow::bail!("{path} and {other} are two images of the same name: rename one of them");
        }
    }
    anyhow::ensure!(
        !images.is_empty(),
        "{} has no images: expected images (PNG, JPEG, WebP, PPM), optionally with their prompts in \
            NAME.txt, or a \
         list {LIST} that includes the reference images",
        folder.display()
    );
    for (name, image) in images {
        let prompt = match prompts.remove(&name) {
            Some(path) => {
                let text =
                    read::text(&path).with_context(|| format!("cannot read {}", path.display()))?;
                Some(text.trim_end().to_owned())
            }
            None => None,
        };
        samples.cases.push(Case { name, image, prompt, ..Case::default() });
    }
    for path in prompts.into_values() {
        samples.note(path, "is a prompt without an image, skipped");
    }
    Ok(samples)
}

#[cfg(test)]
mod tests;
