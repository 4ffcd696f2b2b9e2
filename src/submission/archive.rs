//! The file of a bundle: a ZIP archive of three parts.
//!
//! ```text
//! manifest.json     format, size and BLAKE3 hash of the other parts, and the hash over all
//! submission.json   BundleFacts
//! samples.jsonl     one BundleSample a line, sorted by name
//! ```
//!
//! The same run gives the same bytes. Nothing is extracted to a disk: names of parts are compared
//! with these three, so no name of an archive is ever a path.

use std::collections::BTreeMap;
use std::io::{Cursor, Read as _, Write as _};

use serde::{Deserialize, Serialize};
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter, write::SimpleFileOptions};

use super::facts::{BundleFacts, BundleSample};
use crate::content::ContentHash;

/// Version of the layout.
pub const FORMAT: u32 = 1;

const MANIFEST: &str = "manifest.json";
const FACTS: &str = "submission.json";
const SAMPLES: &str = "samples.jsonl";

/// Most bytes of the manifest and of the facts.
const SMALL: u64 = 1 << 20;

/// Most bytes of a line of the samples.
const LINE: usize = 256 << 10;

/// Bounds of reading a bundle.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Most bytes of the file.
    pub file: u64,
    /// Most bytes of the samples, uncompressed.
    pub samples_bytes: u64,
    /// Most samples.
    pub samples: usize,
    /// Most scores, hashes and labels of all samples together, which decide how much memory they
    /// take: about 90 bytes each.
    pub entries: usize,
}

impl Bounds {
    /// Bounds of a command.
    pub const COMMAND: Self =
        Self { file: 256 << 20, samples_bytes: 512 << 20, samples: 200_000, entries: 20_000_000 };

    /// Bounds of an upload. Its samples are in memory for as long as they are checked.
    pub const UPLOAD: Self =
        Self { file: 32 << 20, samples_bytes: 64 << 20, samples: 30_000, entries: 2_000_000 };
}

/// A bundle whose hashes are right.
#[derive(Debug, Clone, PartialEq)]
pub struct Bundle {
    /// Hash over all parts, which identifies the bundle.
    pub digest: String,
    /// Facts of the run.
    pub facts: BundleFacts,
    /// The samples, sorted by name.
    pub samples: Vec<BundleSample>,
}

/// Reason why a bundle cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Not an archive, or not one of this layout.
    #[error("it is not a submission bundle: {0}")]
    Foreign(String),
    /// Larger than the bounds.
    #[error("{0}")]
    TooLarge(String),
    /// A part does not have the hash that the manifest names.
    #[error("{0}")]
    Changed(String),
    /// A part cannot be parsed.
    #[error("{part} is not as expected: {problem}")]
    Malformed {
        /// The part, with its line.
        part: String,
        /// The problem.
        problem: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: u32,
    /// Hash over the names and hashes of the parts.
    digest: String,
    parts: BTreeMap<String, Part>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    bytes: u64,
    blake3: String,
}

impl Manifest {
    fn of(parts: &[(&str, &[u8])]) -> Self {
        let part = |bytes: &[u8]| Part {
            bytes: bytes.len() as u64,
            blake3: ContentHash::of(bytes).to_hex(),
        };
        let parts: BTreeMap<String, Part> =
            parts.iter().map(|(name, bytes)| ((*name).to_owned(), part(bytes))).collect();
        Self { format: FORMAT, digest: digest(&parts), parts }
    }
}

fn digest(parts: &BTreeMap<String, Part>) -> String {
    let format = FORMAT.to_le_bytes();
    let of_parts = parts.iter().flat_map(|(name, part)| [name.as_bytes(), part.blake3.as_bytes()]);
    ContentHash::of_parts([format.as_slice()].into_iter().chain(of_parts)).to_hex()
}

impl Bundle {
    /// Writes a bundle, and returns its bytes and its digest. Samples are sorted by name.
    ///
    /// # Errors
    /// The archive cannot be written.
    pub fn write(
        facts: &BundleFacts,
        samples: &[BundleSample],
    ) -> Result<(Vec<u8>, String), zip::result::ZipError> {
        let json =
            |value: serde_json::Result<Vec<u8>>| value.expect("plain data always serialises");
        let text = [json(serde_json::to_vec_pretty(facts)), b"\n".to_vec()].concat();
        let mut sorted: Vec<&BundleSample> = samples.iter().collect();
        sorted.sort_by(|a, b| a.name.cmp(&b.name));
        let mut lines = Vec::new();
        for sample in sorted {
            lines.extend(json(serde_json::to_vec(sample)));
            lines.push(b'\n');
        }
        let manifest = Manifest::of(&[(FACTS, &text), (SAMPLES, &lines)]);
        let head = [json(serde_json::to_vec_pretty(&manifest)), b"\n".to_vec()].concat();
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .last_modified_time(DateTime::default())
            .unix_permissions(0o644);
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in [(MANIFEST, &head), (FACTS, &text), (SAMPLES, &lines)] {
            zip.start_file(name, options)?;
            zip.write_all(bytes)?;
        }
        Ok((zip.finish()?.into_inner(), manifest.digest))
    }

    /// Reads a bundle and checks every hash of the manifest.
    ///
    /// # Errors
    /// Not a bundle, larger than the bounds, changed, or malformed.
    pub fn read(file: &[u8], bounds: Bounds) -> Result<Self, BundleError> {
        if file.len() as u64 > bounds.file {
            let most = bounds.file;
            return Err(BundleError::TooLarge(format!("the file has more than {most} bytes")));
        }
        let foreign = |error: zip::result::ZipError| BundleError::Foreign(error.to_string());
        let mut zip = ZipArchive::new(Cursor::new(file)).map_err(foreign)?;
        let names = zip.file_names().take(4).collect::<Result<Vec<_>, _>>().map_err(foreign)?;
        let is_part = |name: &&str| names.iter().any(|each| each == name);
        if names.len() != 3 || ![MANIFEST, FACTS, SAMPLES].iter().all(is_part) {
            let problem = format!("its parts must be {MANIFEST}, {FACTS} and {SAMPLES}, once each");
            return Err(BundleError::Foreign(problem));
        }
        let mut part = |name: &str, most: u64| {
            let read = zip.by_name(name).map_err(foreign)?;
            let mut bytes = Vec::new();
            // The size in the archive is not trusted: at most one byte too many is unpacked.
            let unpacked = read.take(most + 1).read_to_end(&mut bytes);
            if bytes.len() as u64 > most {
                let problem = format!("{name} has more than {most} bytes");
                return Err(BundleError::TooLarge(problem));
            }
            match unpacked {
                Ok(_) => Ok(bytes),
                Err(error) => Err(BundleError::Changed(format!("{name} is damaged: {error}"))),
            }
        };
        let manifest: Manifest = parse(MANIFEST, &part(MANIFEST, SMALL)?)?;
        if manifest.format != FORMAT {
            let problem = format!("it has the format {}, not {FORMAT}", manifest.format);
            return Err(BundleError::Foreign(problem));
        }
        let facts = part(FACTS, SMALL)?;
        let samples = part(SAMPLES, bounds.samples_bytes)?;
        let actual = Manifest::of(&[(FACTS, &facts), (SAMPLES, &samples)]);
        if !manifest.parts.keys().eq(actual.parts.keys()) {
            let problem = format!("{MANIFEST} must list {FACTS} and {SAMPLES}");
            return Err(BundleError::Foreign(problem));
        }
        for (name, part) in &actual.parts {
            let named = &manifest.parts[name];
            if (named.bytes, &named.blake3) != (part.bytes, &part.blake3) {
                return Err(BundleError::Changed(format!(
                    "{name} was changed: its hash is {}, and {MANIFEST} has {}",
                    part.blake3, named.blake3
                )));
            }
        }
        if manifest.digest != actual.digest {
            return Err(BundleError::Changed(format!(
                "{MANIFEST} was changed: the hash over all parts is {}, and it has {}",
                actual.digest, manifest.digest
            )));
        }
        let facts = parse(FACTS, &facts)?;
        let (mut read, mut entries) = (Vec::new(), 0);
        for (at, line) in samples.split(|byte| *byte == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            if read.len() == bounds.samples {
                let most = bounds.samples;
                return Err(BundleError::TooLarge(format!("{SAMPLES} has more than {most} lines")));
            }
            let named = format!("line {} of {SAMPLES}", at + 1);
            if line.len() > LINE {
                let problem = format!("{named} has more than {LINE} bytes");
                return Err(BundleError::TooLarge(problem));
            }
            let sample: BundleSample = parse(&named, line)?;
            entries += sample.entries();
            if entries > bounds.entries {
                let most = bounds.entries;
                let problem = format!("{SAMPLES} has more than {most} scores, hashes and labels");
                return Err(BundleError::TooLarge(problem));
            }
            read.push(sample);
        }
        Ok(Self { digest: actual.digest, facts, samples: read })
    }
}

fn parse<T: serde::de::DeserializeOwned>(part: &str, bytes: &[u8]) -> Result<T, BundleError> {
    serde_json::from_slice(bytes).map_err(|error| BundleError::Malformed {
        part: part.to_owned(),
        problem: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack_id::{PackId, Weights};

    fn facts() -> BundleFacts {
        let digest = "0".repeat(64);
        BundleFacts {
            method: "m".to_owned(),
            run: "r".to_owned(),
            dataset: None,
            split: None,
            pack: PackId { name: "p".to_owned(), digest, weights: Weights::Official },
            program: "0".to_owned(),
            service_versions: <_>::default(),
            metric_versions: <_>::default(),
            declarations: <_>::default(),
            image_settings: <_>::default(),
            samples: 0,
            metrics: <_>::default(),
        }
    }

    fn archive(parts: &[(&str, &[u8])]) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in parts {
            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    fn problem(file: &[u8], bounds: Bounds) -> String {
        Bundle::read(file, bounds).unwrap_err().to_string()
    }

    #[test]
    fn a_bundle_reads_back_and_every_byte_of_it_counts() {
        let (bytes, digest) = Bundle::write(&facts(), &[]).unwrap();
        let read = Bundle::read(&bytes, Bounds::UPLOAD).unwrap();
        assert_eq!((read.digest, read.facts, read.samples), (digest, facts(), vec![]));
        for at in (0..bytes.len()).step_by(7) {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            // Some bytes, such as times, say nothing; no change gives other facts.
            if let Ok(read) = Bundle::read(&changed, Bounds::UPLOAD) {
                assert_eq!(read.facts, facts(), "byte {at}");
            }
        }
        for length in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            assert!(Bundle::read(&bytes[..length], Bounds::UPLOAD).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn foreign_names_and_paths_are_refused() {
        for names in [
            &["manifest.json", "submission.json"][..],
            &["manifest.json", "submission.json", "../samples.jsonl"],
            &["manifest.json", "submission.json", "/samples.jsonl"],
            &["manifest.json", "submission.json", "samples.jsonl", "more.txt"],
        ] {
            let parts: Vec<(&str, &[u8])> = names.iter().map(|name| (*name, &b"{}"[..])).collect();
            let problem = problem(&archive(&parts), Bounds::UPLOAD);
            assert!(problem.contains("not a submission bundle"), "{names:?}: {problem}");
        }
    }

    #[test]
    fn long_lines_and_many_entries_are_refused() {
        let sample = |references| BundleSample {
            name: "1".to_owned(),
            content: String::new(),
            image: String::new(),
            prompt: None,
            references: vec![String::new(); references],
            auxiliary: vec![],
            metadata: <_>::default(),
            scores: <_>::default(),
        };
        let of = |references| Bundle::write(&facts(), &[sample(references)]).unwrap().0;
        let few = Bounds { entries: 5, ..Bounds::UPLOAD };
        assert!(Bundle::read(&of(5), few).is_ok());
        assert!(problem(&of(6), few).contains("more than 5 scores, hashes and labels"));
        assert!(problem(&of(LINE / 3), Bounds::UPLOAD).contains("line 1 of samples.jsonl has"));
    }

    #[test]
    fn what_unpacks_to_more_than_the_bounds_is_refused() {
        // A few kilobytes that unpack to megabytes.
        let zeros = vec![b'0'; 3 << 20];
        let bounds = Bounds { samples_bytes: 1 << 20, ..Bounds::UPLOAD };
        let (of_run, samples): (&[u8], &[u8]) = (b"{}", b"");
        let manifest = serde_json::to_vec(&Manifest::of(&[(FACTS, of_run), (SAMPLES, samples)]));
        let manifest = manifest.unwrap();
        for parts in [
            [(MANIFEST, &zeros[..]), (FACTS, of_run), (SAMPLES, samples)],
            [(MANIFEST, &manifest[..]), (FACTS, &zeros), (SAMPLES, samples)],
            [(MANIFEST, &manifest[..]), (FACTS, of_run), (SAMPLES, &zeros)],
        ] {
            let problem = problem(&archive(&parts), bounds);
            assert!(problem.contains("has more than 1048576 bytes"), "{problem}");
        }
        let (bytes, _) = Bundle::write(&facts(), &[]).unwrap();
        let small = Bounds { file: 10, ..bounds };
        assert!(problem(&bytes, small).contains("more than 10 bytes"));
    }
}
