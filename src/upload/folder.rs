//! A run's folder in the toolkit's layout: `NAME.png` and `NAME.json` for each generated image.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use crate::dataset::{Dataset, Layout, Photo, Problem, Prompt};
use crate::scoring::Metadata;
use crate::toolkit::{Generation, format_prompt, labels};

/// A generated image with its prompt, photos and metadata.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The sample's name in the run.
    pub name: String,
    /// File of the generated image.
    pub image: PathBuf,
    /// The prompt with its placeholders filled in.
    pub prompt: String,
    /// The reference image: the photo that the generator was given.
    pub reference: PathBuf,
    /// Auxiliary images: the other photos of the same person.
    pub auxiliary: Vec<PathBuf>,
    /// The sample's metadata.
    pub metadata: Metadata,
}

/// Contents of a run's folder.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Folder {
    /// Items by name.
    pub items: Vec<Item>,
    /// Fatal problems, and notes.
    pub problems: Vec<Problem>,
    /// Number of prompts of the dataset without an image.
    pub missing: usize,
}

impl Folder {
    /// Returns whether the folder has no fatal problems.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        !self.problems.iter().any(|problem| problem.fatal)
    }

    fn problem(&mut self, path: impl Into<PathBuf>, what: impl Into<String>) {
        self.problems.push(Problem { path: path.into(), what: what.into(), fatal: true });
    }

    fn note(&mut self, path: impl Into<PathBuf>, what: impl Into<String>) {
        self.problems.push(Problem { path: path.into(), what: what.into(), fatal: false });
    }
}

fn extension(path: &Path) -> Option<String> {
    path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase)
}

/// Returns whether the file name is that of an image. The content is not checked.
pub(crate) fn is_image(path: &Path) -> bool {
    matches!(extension(path).as_deref(), Some("png" | "jpg" | "jpeg" | "webp"))
}

/// Reads a run's folder and matches it with its dataset. Images are not opened.
///
/// # Errors
/// The folder itself cannot be read. Problems within it are listed in the result.
pub fn read_folder(root: &Path, dataset: &Dataset) -> std::io::Result<Folder> {
    let mut folder = Folder::default();
    let (mut images, mut texts) = (BTreeMap::new(), BTreeMap::new());
    for entry in std::fs::read_dir(root)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let extension = extension(&path);
        match extension.as_deref() {
            // Files left behind by file managers.
            _ if name.starts_with('.') || name.eq_ignore_ascii_case("thumbs.db") => {}
            _ if is_image(&path) => {
                if let Some(other) = images.insert(stem, path) {
                    let other =
                        other.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    folder.problem(
                        name,
                        format!(
                            "is a second image of the same name as {other}: keep only one of them"
                        ),
                    );
                }
            }
            Some("json") => drop(texts.insert(stem, path)),
            _ => {
                folder.note(
                    name,
                    "is neither an image (PNG, JPEG, WebP, PPM) nor a JSON file, skipped",
                );
            }
        }
    }
    let known = Known::of(dataset);
    let mut names: HashMap<String, String> = HashMap::new();
    let mut found: BTreeSet<(&str, &str)> = BTreeSet::new();
    for (stem, image) in &images {
        let file = format!("{stem}.json");
        let Some(text) = texts.remove(stem) else {
            let image = image.file_name().unwrap_or_default();
            folder.problem(image, format!("has no {file}, which describes it"));
            continue;
        };
        let about = crate::read::text(&text).map_err(|error| error.to_string());
        let about =
            about.and_then(|text| Generation::parse(&text).map_err(|error| error.to_string()));
        let about = match about {
            Ok(about) => about,
            Err(error) => {
                folder.problem(file, error);
                continue;
            }
        };
        if about.save_name != *stem {
            let what = format!(
                "its save_name is {:?}: results are matched by it, so the file must have the same \
                    name",
                about.save_name
            );
            folder.problem(file, what);
            continue;
        }
        if let Some(other) = names.insert(about.save_name.to_lowercase(), stem.clone()) {
            // On case-insensitive file systems both cannot be in one folder, so copying would lose
            // one of them.
            folder.note(&file, format!("differs from {other} only in upper and lower case"));
        }
        match known.item(about, image) {
            Ok((item, prompt)) => {
                found.extend(prompt.map(|prompt| (&*prompt.identity, &*prompt.text)));
                folder.items.push(item);
            }
            Err(problem) => folder.problem(file, problem),
        }
    }
    for stem in texts.keys() {
        folder.problem(
            format!("{stem}.json"),
            format!("has no {stem}.png (or .jpg, .webp): the image is missing"),
        );
    }
    if folder.items.is_empty() && folder.is_sound() {
        folder.problem(root, "has no images: expected NAME.png (or .jpg, .webp) with NAME.json");
    }
    let unknown = folder.items.iter().filter(|item| item.metadata.prompt_kind.is_none()).count();
    if unknown > 0
        && !dataset.prompts.is_empty()
        && dataset.prompts.iter().all(|prompt| prompt.kind.is_some())
    {
        folder.note(root, format!("{unknown} prompts are not in the dataset"));
    }
    folder.missing = known.prompts.len().saturating_sub(found.len());
    Ok(folder)
}

/// Look-up of the dataset by the contents of JSON files.
struct Known<'a> {
    dataset: &'a Dataset,
    /// Prompts by identity and text. Numbers in names differ between tools, so prompts are matched
    /// by text.
    prompts: HashMap<(&'a str, &'a str), &'a Prompt>,
}

impl<'a> Known<'a> {
    fn of(dataset: &'a Dataset) -> Self {
        let prompts =
            dataset.prompts.iter().map(|prompt| ((&*prompt.identity, &*prompt.text), prompt));
        Self { dataset, prompts: prompts.collect() }
    }

    fn item(&self, about: Generation, image: &Path) -> Result<(Item, Option<&'a Prompt>), String> {
        let (identity, photo, others) = self.photos(&about)?;
        let prompt = self.prompts.get(&(identity, &*about.prompt)).copied();
        let or = |own: Vec<String>, of: fn(&Prompt) -> &Vec<String>| match prompt {
            Some(prompt) if own.is_empty() => of(prompt).clone(),
            _ => own,
        };
        let own_kind =
            about.is_stellar_t.map(|is_typed| if is_typed { "T" } else { "H" }.to_owned());
        let attributes = labels(&about.attributes)?;
        let settings = about.settings();
        let metadata = Metadata {
            attributes: if attributes.is_empty() { photo.attributes.clone() } else { attributes },
            finegrained_attributes: photo.finegrained_attributes.clone(),
            detectables: or(about.detectables, |prompt| &prompt.detectables),
            categories: or(about.categories, |prompt| &prompt.categories),
            relations: match prompt {
                Some(prompt) if about.relations.is_empty() => prompt.relations.clone(),
                _ => about.relations,
            },
            identity: Some(identity.to_owned()),
            prompt_kind: prompt.and_then(|prompt| prompt.kind.clone()).or(own_kind),
            settings,
            ..Metadata::default()
        };
        let item = Item {
            name: about.save_name,
            image: image.to_owned(),
            prompt: format_prompt(&about.prompt)?,
            reference: self.dataset.file(&photo.path),
            auxiliary: others.map(|photo| self.dataset.file(&photo.path)).collect(),
            metadata,
        };
        Ok((item, prompt))
    }

    /// Returns the identity, the photo that the generator was given, and the identity's other
    /// photos.
    fn photos(
        &self,
        about: &Generation,
    ) -> Result<(&'a str, &'a Photo, impl Iterator<Item = &'a Photo> + use<'a>), String> {
        let (folder, file) = about.photo().ok_or("image_path is not the path of a photo")?;
        let is_it = |photo: &Photo| {
            photo.path.ends_with(Path::new(folder).join(file)) || photo.path == Path::new(file)
        };
        let identities = self.dataset.identities.iter();
        let found = match self.dataset.layout {
            Layout::Stellar => self.dataset.identity(folder).into_iter().find_map(|identity| {
                Some((identity, identity.photos.iter().find(|photo| is_it(photo))?))
            }),
            Layout::Manifest => identities.into_iter().find_map(|identity| {
                Some((identity, identity.photos.iter().find(|photo| is_it(photo))?))
            }),
        };
        let (identity, photo) = found.ok_or_else(|| {
            format!("its photo {folder}/{file} is not in {}", self.dataset.root.display())
        })?;
        let others = identity.photos.iter().filter(move |other| *other != photo);
        Ok((&identity.name, photo, others))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::dataset::{SampleSize, Sources, make_sample, prepare};
    use crate::vision::DecodeLimits;

    /// A synthetic dataset of two people with four prompts each, and its images.
    fn sample() -> (tempfile::TempDir, Dataset, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let made = make_sample(folder.path(), SampleSize { identities: 2, prompts: 4 }).unwrap();
        let out = folder.path().join("stellar");
        let sources = Sources { download: made.download, prompts: made.prompts, out };
        prepare(&sources, &DecodeLimits::default(), |_, _| {}).unwrap();
        let (dataset, _) = Dataset::open(&sources.out).unwrap();
        (folder, dataset, made.generations)
    }

    #[test]
    fn images_are_paired_by_name_and_completed_from_the_dataset() {
        let (_folder, mut dataset, run) = sample();
        dataset.prompts[0].relations = vec![["person", "riding", "horse"].map(str::to_owned)];
        let folder = read_folder(&run, &dataset).unwrap();
        assert_eq!((folder.problems.len(), folder.missing, folder.items.len()), (0, 0, 8));
        let first = &folder.items[0];
        assert_eq!(first.name, "000-0-00");
        assert_eq!(first.image, run.join("000-0-00.png"));
        assert!(first.prompt.starts_with("a person "), "{}", first.prompt);
        assert_eq!(first.reference, dataset.file(Path::new("000/0.jpg")));
        assert_eq!(first.auxiliary, [dataset.file(Path::new("000/1.jpg"))]);
        let known = &first.metadata;
        assert_eq!(
            (known.identity.as_deref(), known.prompt_kind.as_deref()),
            (Some("000"), Some("T"))
        );
        assert_eq!(
            (known.attributes.len(), known.detectables.len(), known.categories.len()),
            (8, 2, 1)
        );
        assert_eq!(known.relations.len(), 1);
        let last = &folder.items[7];
        assert_eq!((&*last.name, last.metadata.prompt_kind.as_deref()), ("001-1-03", Some("H")));
        assert_eq!(last.reference, dataset.file(Path::new("001/1.jpg")));
    }

    #[test]
    fn generations_may_be_jpeg_or_webp_and_upper_case() {
        let (_folder, dataset, run) = sample();
        let before = read_folder(&run, &dataset).unwrap();
        for (item, ending) in before.items.iter().zip(["JPG", "jpeg", "webp", "PNG"]) {
            fs::rename(&item.image, item.image.with_extension(ending)).unwrap();
        }
        fs::write(run.join("Thumbs.db"), "").unwrap();
        fs::write(run.join(".DS_Store"), "").unwrap();
        let after = read_folder(&run, &dataset).unwrap();
        assert_eq!(after.problems, []);
        let names =
            |folder: &Folder| folder.items.iter().map(|item| item.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&after), names(&before));
        fs::copy(run.join("000-0-00.JPG"), run.join("000-0-00.png")).unwrap();
        let twice = read_folder(&run, &dataset).unwrap();
        assert!(
            !twice.is_sound() && twice.problems[0].to_string().contains("second image"),
            "{:?}",
            twice.problems
        );
    }

    #[test]
    fn an_extra_file_does_not_shift_the_pairing() {
        let (_folder, dataset, run) = sample();
        let before = read_folder(&run, &dataset).unwrap();
        fs::write(run.join("000-0-00a.png"), "").unwrap();
        let after = read_folder(&run, &dataset).unwrap();
        assert_eq!(after.items, before.items);
        assert_eq!(after.problems.len(), 1);
        assert!(after.problems[0].to_string().contains("000-0-00a.png: has no 000-0-00a.json"));
    }

    #[test]
    fn every_problem_is_listed_with_its_file() {
        type Damage = fn(&Path);
        fn edit(path: PathBuf, from: &str, to: &str) {
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.contains(from), "{text}");
            fs::write(path, text.replace(from, to)).unwrap();
        }
        let cases: [(Damage, &str, &str); 7] = [
            (
                |at| fs::remove_file(at.join("000-0-00.json")).unwrap(),
                "000-0-00.png",
                "has no 000-0-00.json",
            ),
            (
                |at| fs::remove_file(at.join("000-0-00.png")).unwrap(),
                "000-0-00.json",
                "the image is missing",
            ),
            (
                |at| fs::write(at.join("000-0-00.json"), "{").unwrap(),
                "000-0-00.json",
                "not the expected JSON",
            ),
            (
                |at| edit(at.join("000-0-00.json"), "stellar/000/0.jpg", "stellar/000/7.jpg"),
                "000-0-00.json",
                "its photo 000/7.jpg is not in",
            ),
            (
                |at| edit(at.join("000-0-00.json"), "stellar/000/0.jpg", "stellar/900/0.jpg"),
                "000-0-00.json",
                "its photo 900/0.jpg is not in",
            ),
            (
                |at| {
                    edit(
                        at.join("000-0-00.json"),
                        "\"save_name\":\"000-0-00\"",
                        "\"save_name\":\"001-0-00\"",
                    );
                },
                "000-0-00.json",
                "save_name is \"001-0-00\"",
            ),
            (|at| edit(at.join("000-0-00.json"), "{} ", "{who} "), "000-0-00.json", "brace"),
        ];
        for (damage, file, words) in cases {
            let (_folder, dataset, run) = sample();
            damage(&run);
            let folder = read_folder(&run, &dataset).unwrap();
            assert!(!folder.is_sound(), "{words}");
            let found: Vec<String> = folder.problems.iter().map(ToString::to_string).collect();
            assert!(
                found.iter().any(|line| line.contains(file) && line.contains(words)),
                "{words}: {found:?}"
            );
            assert_eq!(folder.items.len(), 7);
            assert_eq!(folder.missing, 1);
        }
    }

    #[test]
    fn a_folder_without_images_is_not_a_run() {
        let (folder, dataset, _) = sample();
        let empty = folder.path().join("empty");
        fs::create_dir(&empty).unwrap();
        fs::write(empty.join("readme.txt"), "").unwrap();
        let read = read_folder(&empty, &dataset).unwrap();
        assert!(!read.is_sound());
        assert!(read_folder(&folder.path().join("nowhere"), &dataset).is_err());
    }
}
