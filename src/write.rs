//! Files that appear complete or not at all, also if the machine stops.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

/// Writes a file beside its place, then moves it there.
///
/// The temporary file has the fixed, hidden name `.NAME.partial`, so that the next attempt
/// overwrites what an interrupted one left behind, and commands that read the folder ignore it.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let partial = path.with_file_name(format!(".{name}.partial"));
    let mut written = File::create(&partial)?;
    written.write_all(bytes)?;
    written.sync_all()?;
    drop(written);
    fs::rename(&partial, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_replaces_another_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        fs::write(folder.path().join(".a.png.partial"), "left by another").unwrap();
        file(&path, b"one").unwrap();
        file(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(file(&folder.path().join("none/a.png"), b"x").is_err());
    }
}
