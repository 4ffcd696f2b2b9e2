//! Training data for generators: everyone in the download except the people of the evaluation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Serialize;

use super::annotations;
use super::archive::Archive;
use super::error::PrepareError;
use super::files::{IDENTITIES, IMAGES, MASKS, SPLITS, check_image, parse, put};
use crate::engine::pack::Sha;
use crate::vision::DecodeLimits;

/// Name of the file that lists the content. It is written last, so a folder that has it is
/// complete.
const LIST: &str = "training.json";

/// Name of the file with the checksums, in the format of `sha256sum`.
const CHECKSUMS: &str = "SHA256SUMS";

/// Folders of the inputs and of the result.
#[derive(Debug, Clone)]
pub struct TrainingSources {
    /// The CelebA-Dialog download: `image.zip`, `mask/` and `identity/`.
    pub download: PathBuf,
    /// The folder with `celebahq_ids.txt`, which names the photos of the evaluation.
    pub prompts: PathBuf,
    /// The folder that the training data are written to.
    pub out: PathBuf,
}

/// Training data that were prepared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainingData {
    /// Number of photos, each with a mask.
    pub photos: usize,
    /// Number of people.
    pub identities: usize,
    /// Number of people of the evaluation. All of their photos were left out.
    pub excluded: usize,
    /// Number of photos that were left out because the download has no mask of them.
    pub without_mask: usize,
    /// Number of files that had to be written; the others existed already.
    pub written: usize,
    /// SHA-256 of `SHA256SUMS`: equal for equal training data.
    pub digest: String,
}

/// Content of `training.json`.
#[derive(Serialize)]
struct List<'a> {
    schema: u32,
    kind: &'static str,
    images: usize,
    identities: usize,
    excluded_identities: usize,
    /// The people of the evaluation. A trainer refuses a folder in which one of them is found.
    excluded: &'a BTreeSet<i64>,
    digest: &'a str,
    files: &'a [Entry],
}

/// A photo with its mask and its person's number in CelebA.
#[derive(Serialize)]
struct Entry {
    image: String,
    mask: String,
    identity: i64,
}

/// Copies all photos and masks of people who are not in the evaluation.
///
/// A person is left out with all photos, also with those that the evaluation does not use. The work
/// can be interrupted and resumed. `progress` is called with the number of completed photos and the
/// total.
///
/// # Errors
/// If a file is missing, invalid or cannot be written, if the folder has images of an earlier
/// preparation with other people, or if no one is left.
pub fn prepare_training(
    sources: &TrainingSources,
    limits: &DecodeLimits,
    mut progress: impl FnMut(usize, usize),
) -> Result<TrainingData, PrepareError> {
    let download = |name: &str| sources.download.join(name);
    let evaluated = parse(&sources.prompts.join(SPLITS), annotations::splits)?;
    let people: BTreeMap<u32, i64> =
        parse(&download(IDENTITIES), annotations::identities)?.into_iter().collect();
    let unknown = evaluated.keys().filter(|image| !people.contains_key(image));
    let unknown: Vec<_> =
        unknown.map(|image| format!("{IDENTITIES} has no person for image {image}")).collect();
    if !unknown.is_empty() {
        // Without the person, other photos of them could not be left out.
        return Err(PrepareError::Mismatch(unknown));
    }
    let excluded: BTreeSet<i64> = evaluated.keys().map(|image| people[image]).collect();
    let (images, masks) = (download(IMAGES), download(MASKS));
    let mut photos = Archive::open(&images, "jpg")?;
    let mut outlines = Archive::open(&masks, "png")?;
    let others = people.iter().filter(|(_, person)| !excluded.contains(person));
    let others = others.map(|(image, person)| (*image, *person));
    let (kept, bare): (Vec<_>, Vec<_>) = others.partition(|(image, _)| outlines.has(*image));
    let gaps = kept.iter().filter(|(image, _)| !photos.has(*image));
    let gaps: Vec<_> = gaps.map(|(image, _)| format!("{IMAGES} has no image {image}")).collect();
    if !gaps.is_empty() {
        return Err(PrepareError::Mismatch(gaps));
    }
    if kept.is_empty() {
        let problem =
            "everyone in the download belongs to the evaluation: no one is left to train on";
        return Err(PrepareError::Mismatch(vec![problem.to_owned()]));
    }
    refuse_others(sources, &kept.iter().map(|(image, _)| *image).collect())?;

    for folder in ["images", "masks"] {
        let at = sources.out.join(folder);
        std::fs::create_dir_all(&at).map_err(|source| PrepareError::io(&at, source))?;
    }
    let (mut written, mut files, mut sums) = (0, Vec::new(), BTreeMap::new());
    progress(0, kept.len());
    for (at, &(number, identity)) in kept.iter().enumerate() {
        let entry = Entry {
            image: format!("images/{number}.jpg"),
            mask: format!("masks/{number}.png"),
            identity,
        };
        let parts = [(&entry.image, &mut photos, &images), (&entry.mask, &mut outlines, &masks)];
        for (name, archive, path) in parts {
            let bytes = archive.read(number)?;
            check_image(&bytes, number, path, limits)?;
            written += usize::from(put(&sources.out.join(name), &bytes)?);
            sums.insert(name.clone(), Sha::of(&bytes));
        }
        files.push(entry);
        progress(at + 1, kept.len());
    }
    let lines = sums.iter().fold(String::new(), |mut text, (name, sum)| {
        let _ = writeln!(text, "{sum}  {name}");
        text
    });
    let digest = Sha::of(lines.as_bytes()).to_string();
    written += usize::from(put(&sources.out.join(CHECKSUMS), lines.as_bytes())?);
    let identities = files.iter().map(|file| file.identity).collect::<BTreeSet<_>>().len();
    let list = List {
        schema: 1,
        kind: "training",
        images: files.len(),
        identities,
        excluded_identities: excluded.len(),
        excluded: &excluded,
        digest: &digest,
        files: &files,
    };
    let text = serde_json::to_vec_pretty(&list).expect("plain data always serialises");
    written += usize::from(put(&sources.out.join(LIST), &text)?);
    Ok(TrainingData {
        photos: files.len(),
        identities,
        excluded: excluded.len(),
        without_mask: bare.len(),
        written,
        digest,
    })
}

/// Refuses a folder with images that are not to be in it: a trainer that lists the folder could
/// find people of the evaluation there.
fn refuse_others(sources: &TrainingSources, kept: &BTreeSet<u32>) -> Result<(), PrepareError> {
    for folder in ["images", "masks"] {
        let at = sources.out.join(folder);
        let Ok(entries) = std::fs::read_dir(&at) else { continue };
        for entry in entries {
            let name = entry.map_err(|source| PrepareError::io(&at, source))?.file_name();
            let name = name.to_string_lossy();
            let known = annotations::image_number(&name).is_some_and(|image| kept.contains(&image));
            if !known && !name.ends_with(".partial") {
                let problem = "it is not part of these training data: choose an empty folder";
                return Err(PrepareError::File {
                    path: at.join(&*name),
                    problem: problem.to_owned(),
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::dataset::{SampleSize, make_sample};

    /// A synthetic download of five people with two photos each. The evaluation has two photos of
    /// one person and one photo of another.
    fn sample() -> (tempfile::TempDir, TrainingSources) {
        let folder = tempfile::tempdir().unwrap();
        let made = make_sample(folder.path(), SampleSize { identities: 5, prompts: 2 }).unwrap();
        let ids = made.prompts.join(SPLITS);
        let text = fs::read_to_string(&ids).unwrap();
        fs::write(&ids, text.lines().take(4).collect::<Vec<_>>().join("\n")).unwrap();
        let out = folder.path().join("training");
        (folder, TrainingSources { download: made.download, prompts: made.prompts, out })
    }

    fn run(sources: &TrainingSources) -> Result<TrainingData, PrepareError> {
        prepare_training(sources, &DecodeLimits::default(), |_, _| {})
    }

    fn list(out: &Path) -> serde_json::Value {
        serde_json::from_slice(&fs::read(out.join(LIST)).unwrap()).unwrap()
    }

    #[test]
    fn everyone_but_the_people_of_the_evaluation_is_copied() {
        let (_folder, sources) = sample();
        let done = run(&sources).unwrap();
        assert_eq!((done.photos, done.identities, done.excluded), (6, 3, 2));
        assert_eq!((done.without_mask, done.written), (0, 14));
        let list = list(&sources.out);
        assert_eq!(list["excluded"], serde_json::json!([5, 16]));
        let files = list["files"].as_array().unwrap();
        assert_eq!(files.len(), 6);
        for file in files {
            assert!(![5, 16].contains(&file["identity"].as_i64().unwrap()), "{file}");
            let path = |key: &str| sources.out.join(file[key].as_str().unwrap());
            assert!(path("image").is_file() && path("mask").is_file(), "{file}");
        }
        assert_eq!(list["digest"], done.digest);
    }

    #[test]
    fn an_interrupted_preparation_resumes_with_the_same_digest() {
        let (_folder, sources) = sample();
        let first = run(&sources).unwrap();
        let file = sources.out.join(list(&sources.out)["files"][0]["mask"].as_str().unwrap());
        fs::write(&file, b"half").unwrap();
        fs::remove_file(sources.out.join(LIST)).unwrap();
        let second = run(&sources).unwrap();
        assert_eq!((second.written, &second.digest), (2, &first.digest));
        assert_eq!(run(&sources).unwrap().written, 0);
    }

    #[test]
    fn a_folder_with_other_images_is_refused() {
        let (_folder, sources) = sample();
        fs::create_dir_all(sources.out.join("images")).unwrap();
        fs::write(sources.out.join("images/399.jpg"), b"someone").unwrap();
        let problem = run(&sources).unwrap_err().to_string();
        assert!(problem.contains("399.jpg") && problem.contains("empty folder"), "{problem}");
    }

    #[test]
    fn photos_of_the_evaluation_without_a_person_are_refused() {
        let (_folder, sources) = sample();
        let ids = sources.prompts.join(SPLITS);
        fs::write(&ids, fs::read_to_string(&ids).unwrap() + "\n399.jpg,test\n").unwrap();
        let problem = run(&sources).unwrap_err().to_string();
        assert!(problem.contains("no person for image 399"), "{problem}");
        assert!(!sources.out.exists());
    }

    #[test]
    fn a_download_of_the_evaluation_alone_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let made = make_sample(folder.path(), SampleSize { identities: 2, prompts: 2 }).unwrap();
        let out = folder.path().join("training");
        let sources = TrainingSources { download: made.download, prompts: made.prompts, out };
        assert!(run(&sources).unwrap_err().to_string().contains("no one is left"));
    }
}
