//! Verifies the digests of a pack's files, in parallel, since packs may have many gigabytes.

use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use sha2::{Digest, Sha256};

use super::error::PackError;
use super::sha::Sha;
use super::spec::FileSpec;

/// Bytes per read: enough that hashing dominates over system calls.
const CHUNK: usize = 1 << 20;

/// Compares every file of the pack with this name with its digest. The error is the first entry
/// that fails.
pub(super) fn verify(pack: &str, mut files: Vec<(String, FileSpec)>) -> Result<(), PackError> {
    // A file that several graphs share is read once.
    let mut seen = std::collections::HashSet::new();
    files.retain(|(_, file)| seen.insert((file.path.clone(), file.sha256)));

    let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(files.len());
    let next = AtomicUsize::new(0);
    let work = || {
        let mut found = Vec::new();
        while let Some((_, file)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            found.push((file.path.clone(), digest(&file.path)));
        }
        found
    };
    let mut found = std::collections::HashMap::new();
    thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        found.extend(work());
        for helper in helpers {
            // Files of a helper that panicked have no digest yet and are hashed below.
            found.extend(helper.join().unwrap_or_default());
        }
    });
    for (entry, file) in files {
        let result = found.remove(&file.path).unwrap_or_else(|| digest(&file.path));
        let sha = result.map_err(|source| PackError::File {
            pack: pack.to_owned(),
            entry: entry.clone(),
            path: file.path.clone(),
            source,
        })?;
        if sha != file.sha256 {
            return Err(PackError::Mismatch {
                pack: pack.to_owned(),
                entry,
                path: file.path,
                expected: file.sha256.to_string(),
                found: sha.to_string(),
            });
        }
    }
    Ok(())
}

pub(super) fn digest(path: &Path) -> io::Result<Sha> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(Sha(hasher.finalize().into())),
            Ok(read) => hasher.update(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
