//! The files of a job that stand for its person: a photo with its mask, or learned words.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;

use super::error::ImageError;
use super::plan::Job;
use crate::content::ContentHash;
use crate::generation::{Generator, Person, Subject, WORD_FILES, Words};

/// The content of a job's files.
pub(super) struct Inputs {
    files: Vec<Bytes>,
    are_words: bool,
}

/// Returns the files of a job.
fn paths(job: &Job) -> Vec<PathBuf> {
    match &job.words {
        Some(folder) => WORD_FILES.map(|file| folder.join(file)).to_vec(),
        None => std::iter::once(&job.photo).chain(&job.mask).cloned().collect(),
    }
}

/// Reads the files of a job.
///
/// # Errors
/// The first file that cannot be read.
pub(super) fn read(job: &Job) -> Result<Inputs, (PathBuf, io::Error)> {
    let read = |path: PathBuf| match crate::read::bytes(&path) {
        Ok(bytes) => Ok(Bytes::from(bytes)),
        Err(error) => Err((path, error)),
    };
    let files = paths(job).into_iter().map(read).collect::<Result<_, _>>()?;
    Ok(Inputs { files, are_words: job.words.is_some() })
}

/// Returns a person of the kind of a job, without its files: enough to check a request.
pub(super) fn empty_person(job: &Job) -> Person {
    match job.words {
        Some(_) => Person::Words(Words::default()),
        None => Person::Photo(Subject { photo: Bytes::new(), mask: None }),
    }
}

impl Inputs {
    /// Returns the digest of the files, in hexadecimal digits.
    pub(super) fn digest(&self) -> String {
        let hashes: Vec<_> = self.files.iter().map(|file| ContentHash::of(file)).collect();
        ContentHash::of_parts(hashes.iter().map(|hash| hash.as_bytes().as_slice())).to_hex()
    }

    /// Returns the person.
    ///
    /// # Errors
    /// The words do not fit the generator's pack.
    pub(super) fn person(self, generator: &Generator) -> Result<Person, ImageError> {
        let mut files = self.files.into_iter();
        let (first, second) = (files.next().unwrap_or_default(), files.next());
        if self.are_words {
            let second = second.unwrap_or_default();
            return Ok(Person::Words(generator.read_words([&first, &second])?));
        }
        Ok(Person::Photo(Subject { photo: first, mask: second }))
    }
}
