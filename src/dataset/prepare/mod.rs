//! Preparation of the Stellar layout from a CelebA-Dialog download and the Stellar prompts.
//!
//! All text files are read and checked before any file is written. Then the images are copied out
//! of the archives byte by byte. A file gets its final name only when it is complete, and an
//! existing file with the right bytes is not written again, so the work can be interrupted at any
//! time and resumed. The download is only read.

mod annotations;
mod archive;
mod error;
mod files;
mod json;
mod training;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use self::annotations::{Labels, Prompts};
use self::archive::Archive;
pub use self::error::PrepareError;
use self::files::{IDENTITIES, IMAGES, MASKS, SPLITS, check_image, parse, put, read};
pub use self::training::{TrainingData, TrainingSources, prepare_training};
use super::stellar::TEST_IDENTITIES;
use crate::vision::DecodeLimits;

/// Folders of the inputs and of the result.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The CelebA-Dialog download: `image.zip`, `mask/`, `identity/`, `classification_label/`.
    pub download: PathBuf,
    /// The folder with `celebahq_ids.txt`, `stellar_t.json`, `stellar_h.json` and `objects.txt`.
    pub prompts: PathBuf,
    /// The folder that the dataset is written to.
    pub out: PathBuf,
}

/// Result of a preparation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prepared {
    /// Number of identities in the test split.
    pub test: usize,
    /// Number of identities in the validation split.
    pub val: usize,
    /// Number of photos in both splits.
    pub photos: usize,
    /// Number of files that had to be written; the others existed already.
    pub written: usize,
    /// Unusual findings that do not prevent the preparation.
    pub notes: Vec<String>,
    /// Files of the download that are no longer needed.
    pub used: Vec<PathBuf>,
}

const ATTRIBUTES: &str = "classification_label/CelebAMask-HQ-attribute-anno.txt";
const FINEGRAINED: &str = "classification_label/combined_annotation_hq.txt";

/// Labels of a photo.
struct Photo {
    image: u32,
    attributes: Labels,
    finegrained: Labels,
}

/// A folder to be written.
struct Folder {
    name: String,
    split: String,
    /// The person's number in CelebA.
    person: i64,
    photos: Vec<Photo>,
    prompts: Vec<(&'static str, Prompts)>,
}

/// Content of `N_attributes.json`, with keys in the reference's order.
#[derive(Serialize)]
struct PhotoFacts<'a> {
    attributes: json::Object<'a>,
    finegrained_attributes: json::Object<'a>,
    identity: i64,
    original_filename: String,
}

/// Prepares the dataset. `progress` is called with the number of completed photos and the total.
///
/// # Errors
/// If a file is missing, invalid or cannot be written. Files that were already written stay, and
/// the next attempt resumes from there.
pub fn prepare(
    sources: &Sources,
    limits: &DecodeLimits,
    mut progress: impl FnMut(usize, usize),
) -> Result<Prepared, PrepareError> {
    let mut notes = Vec::new();
    let folders = plan(sources, &mut notes)?;
    let objects = read(&sources.prompts.join("objects.txt"))?;
    let mut images = Archive::open(&sources.download.join(IMAGES), "jpg")?;
    let mut masks = Archive::open(&sources.download.join(MASKS), "png")?;
    let numbers = || folders.iter().flat_map(|folder| &folder.photos).map(|photo| photo.image);
    let missing = |archive: &Archive, name: &str| -> Vec<String> {
        let missing = numbers().filter(|image| !archive.has(*image));
        missing.map(|image| format!("{name} has no image {image}")).collect()
    };
    let gaps = [missing(&images, IMAGES), missing(&masks, MASKS)].concat();
    if !gaps.is_empty() {
        return Err(PrepareError::Mismatch(gaps));
    }

    let total = numbers().count();
    let mut done = Prepared { photos: total, notes, ..Prepared::default() };
    let mut count = 0;
    progress(count, total);
    for folder in &folders {
        *(if folder.split == "test" { &mut done.test } else { &mut done.val }) += 1;
        let at = sources.out.join(&folder.name);
        std::fs::create_dir_all(&at).map_err(|source| PrepareError::io(&at, source))?;
        for (index, photo) in folder.photos.iter().enumerate() {
            let image = images.read(photo.image)?;
            let mask = masks.read(photo.image)?;
            for (bytes, archive) in [(&image, IMAGES), (&mask, MASKS)] {
                check_image(bytes, photo.image, &sources.download.join(archive), limits)?;
            }
            let facts = PhotoFacts {
                attributes: json::Object(&photo.attributes),
                finegrained_attributes: json::Object(&photo.finegrained),
                identity: folder.person,
                original_filename: format!("{}.jpg", photo.image),
            };
            for (name, bytes) in [
                (format!("{index}.jpg"), image),
                (format!("{index}_bg.png"), mask),
                (format!("{index}_attributes.json"), json::to_text(&facts)),
            ] {
                done.written += usize::from(put(&at.join(name), &bytes)?);
            }
            count += 1;
            progress(count, total);
        }
        for (name, prompts) in &folder.prompts {
            done.written += usize::from(put(&at.join(name), &json::to_text(prompts))?);
        }
    }
    done.written += usize::from(put(&sources.out.join("objects.txt"), &objects)?);
    done.used = [IMAGES, MASKS, IDENTITIES, ATTRIBUTES, FINEGRAINED]
        .map(|name| sources.download.join(name))
        .into();
    Ok(done)
}

/// Reads all text files and returns the folders to be written, in order.
fn plan(sources: &Sources, notes: &mut Vec<String>) -> Result<Vec<Folder>, PrepareError> {
    let download = |name: &str| sources.download.join(name);
    let prompts = |name: &str| sources.prompts.join(name);
    let splits = parse(&prompts(SPLITS), annotations::splits)?;
    let mut attributes = parse(&download(ATTRIBUTES), annotations::attributes)?;
    let mut finegrained = parse(&download(FINEGRAINED), annotations::finegrained)?;
    let identities = parse(&download(IDENTITIES), annotations::identities)?;
    let mut written_by = [
        ("prompts_t.json", parse(&prompts("stellar_t.json"), annotations::prompts)?),
        ("prompts_h.json", parse(&prompts("stellar_h.json"), annotations::prompts)?),
    ];

    let mut problems = Vec::new();
    let mut people: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
    for (image, person) in identities.into_iter().filter(|(image, _)| splits.contains_key(image)) {
        people.entry(person).or_default().push(image);
    }
    let known = people.values().map(Vec::len).sum::<usize>();
    if known < splits.len() {
        let known: Vec<u32> = people.values().flatten().copied().collect();
        let unknown = splits.keys().filter(|image| !known.contains(image));
        problems
            .extend(unknown.map(|image| format!("{IDENTITIES} has no person for image {image}")));
    }
    let mut ordered: Vec<(String, i64, Vec<u32>)> = Vec::new();
    for (person, images) in people {
        let split = splits[&images[0]].clone();
        if images.iter().any(|image| splits[image] != split) {
            problems.push(format!("photos of person {person} are in both splits"));
        }
        ordered.push((split, person, images));
    }
    ordered.sort();

    let mut folders = Vec::new();
    for (at, (split, person, images)) in ordered.into_iter().enumerate() {
        let name = format!("{at:03}");
        let mut photos = Vec::new();
        for image in images {
            let of = attributes.remove(&image).unwrap_or_else(|| {
                problems.push(format!("{ATTRIBUTES} has no line for image {image}"));
                Vec::new()
            });
            // The published file omits image 5380.
            let fine = finegrained.remove(&image).unwrap_or_else(|| {
                notes.push(format!(
                    "{FINEGRAINED} has no line for image {image}: these attributes are left empty"
                ));
                Vec::new()
            });
            photos.push(Photo { image, attributes: of, finegrained: fine });
        }
        let mut prompts = Vec::new();
        for (file, all) in &mut written_by {
            let by_people = *file == "prompts_h.json";
            if by_people && at >= TEST_IDENTITIES {
                continue;
            }
            match all.remove(&name) {
                Some(found) => prompts.push((*file, found)),
                None if by_people && split != "test" => {}
                None => {
                    let source = if by_people { "stellar_h.json" } else { "stellar_t.json" };
                    problems.push(format!("{source} has no prompts for identity {name}"));
                }
            }
        }
        folders.push(Folder { name, split, person, photos, prompts });
    }
    for (file, left) in &written_by {
        if !left.is_empty() {
            notes.push(format!(
                "{} identities with {file} have no photos in celebahq_ids.txt",
                left.len()
            ));
        }
    }
    if problems.is_empty() { Ok(folders) } else { Err(PrepareError::Mismatch(problems)) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::dataset::{Dataset, Findings, SampleSize, make_sample};

    /// A synthetic download of five people with four prompts each.
    fn sample() -> (tempfile::TempDir, Sources) {
        let folder = tempfile::tempdir().unwrap();
        let made = make_sample(folder.path(), SampleSize { identities: 5, prompts: 4 }).unwrap();
        let out = folder.path().join("stellar");
        (folder, Sources { download: made.download, prompts: made.prompts, out })
    }

    fn run(sources: &Sources) -> Result<Prepared, PrepareError> {
        prepare(sources, &DecodeLimits::default(), |_, _| {})
    }

    fn failed(sources: &Sources) -> String {
        run(sources).unwrap_err().to_string()
    }

    /// Replaces text in a file of the download or the prompts.
    fn edit(path: &Path, change: impl FnOnce(String) -> String) {
        let text = fs::read_to_string(path).unwrap();
        fs::write(path, change(text)).unwrap();
    }

    #[test]
    fn a_download_becomes_a_dataset_without_findings() {
        let (_folder, sources) = sample();
        let done = run(&sources).unwrap();
        assert_eq!((done.test, done.val, done.photos), (5, 0, 10));
        assert_eq!(done.written, 5 * (2 * 3 + 2) + 1);
        assert_eq!(done.notes, [""; 0]);
        let (dataset, findings) = Dataset::open(&sources.out).unwrap();
        assert_eq!(findings, Findings::default());
        assert_eq!((dataset.identities.len(), dataset.prompts.len()), (5, 20));
    }

    #[test]
    fn identities_are_ordered_by_split_and_number_and_photos_by_the_identity_file() {
        let (_folder, sources) = sample();
        edit(&sources.prompts.join("celebahq_ids.txt"), |text| text.replacen("test", "val", 2));
        run(&sources).unwrap();
        let numbers: Vec<i64> = (0..5)
            .map(|at| {
                let facts =
                    fs::read(sources.out.join(format!("{at:03}/0_attributes.json"))).unwrap();
                serde_json::from_slice::<serde_json::Value>(&facts).unwrap()["identity"]
                    .as_i64()
                    .unwrap()
            })
            .collect();
        // Person 5 has moved after the others, to the validation split.
        assert_eq!(numbers, [16, 27, 38, 49, 5]);
        let mut images = Archive::open(&sources.download.join(IMAGES), "jpg").unwrap();
        let order = fs::read_to_string(sources.download.join(IDENTITIES)).unwrap();
        let first = image_of(order.lines().nth(2).unwrap());
        assert_eq!(fs::read(sources.out.join("000/0.jpg")).unwrap(), images.read(first).unwrap());
    }

    fn image_of(line: &str) -> u32 {
        annotations::image_number(line.split(' ').next().unwrap()).unwrap()
    }

    #[test]
    fn an_interrupted_preparation_resumes_and_complete_files_are_not_written_again() {
        let (_folder, sources) = sample();
        run(&sources).unwrap();
        assert_eq!(run(&sources).unwrap().written, 0);
        let whole = fs::read(sources.out.join("001/1.jpg")).unwrap();
        fs::write(sources.out.join("001/1.jpg"), &whole[..40]).unwrap();
        fs::remove_file(sources.out.join("002/prompts_h.json")).unwrap();
        assert_eq!(run(&sources).unwrap().written, 2);
        assert_eq!(fs::read(sources.out.join("001/1.jpg")).unwrap(), whole);
    }

    #[test]
    fn an_image_without_finegrained_attributes_is_noted_and_has_none() {
        let (_folder, sources) = sample();
        edit(&sources.download.join(FINEGRAINED), |text| {
            text.lines().take(10).fold(String::new(), |all, line| all + line + "\n")
        });
        let notes = run(&sources).unwrap().notes;
        assert!(notes.len() == 1 && notes[0].contains("has no line for image"), "{notes:?}");
        let facts = fs::read_to_string(sources.out.join("004/1_attributes.json")).unwrap();
        assert!(facts.contains("\"finegrained_attributes\": {}"), "{facts}");
    }

    #[test]
    fn files_that_do_not_match_are_rejected_before_anything_is_written() {
        type Damage = fn(&Sources);
        let cases: [(Damage, &str); 6] = [
            (
                |at| edit(&at.prompts.join("celebahq_ids.txt"), |text| text + "399.jpg,test\n"),
                "has no person for image 399",
            ),
            (
                |at| {
                    edit(&at.prompts.join("celebahq_ids.txt"), |text| {
                        text.replacen("test", "val", 1)
                    });
                },
                "in both splits",
            ),
            (
                |at| {
                    edit(&at.download.join(ATTRIBUTES), |text| {
                        text.lines().take(11).fold(String::new(), |all, line| all + line + "\n")
                    });
                },
                "has no line for image",
            ),
            (
                |at| {
                    edit(&at.prompts.join("stellar_t.json"), |text| {
                        text.replace("\"004\"", "\"104\"")
                    });
                },
                "no prompts for identity 004",
            ),
            (
                |at| {
                    edit(&at.prompts.join("stellar_h.json"), |text| {
                        text.replace("\"004\"", "\"104\"")
                    });
                },
                "no prompts for identity 004",
            ),
            (
                |at| fs::copy(at.download.join(MASKS), at.download.join(IMAGES)).map(drop).unwrap(),
                "image.zip has no image",
            ),
        ];
        for (damage, words) in cases {
            let (_folder, sources) = sample();
            damage(&sources);
            let problem = failed(&sources);
            assert!(problem.contains(words), "{words}: {problem}");
            assert!(!sources.out.exists());
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        for name in [IMAGES, MASKS, IDENTITIES, ATTRIBUTES, FINEGRAINED] {
            let (_folder, sources) = sample();
            fs::remove_file(sources.download.join(name)).unwrap();
            assert!(failed(&sources).contains(name), "{name}");
        }
        for name in ["celebahq_ids.txt", "stellar_t.json", "stellar_h.json", "objects.txt"] {
            let (_folder, sources) = sample();
            fs::remove_file(sources.prompts.join(name)).unwrap();
            assert!(failed(&sources).contains(name), "{name}");
        }
    }
}
