//! Files of folders that came from elsewhere: nothing in them is read without end or waited for.

use std::{
    fs::File,
    io::{Error, ErrorKind, Read as _, Result},
    path::Path,
};

use crate::blocking::blocking;

/// More than any image or document of a dataset or run has.
const MOST_BYTES: u64 = 256 << 20;

/// The bytes of a file.
///
/// # Errors
/// A file that cannot be read, has more than 256 MiB, or is none: a pipe or device may never end.
pub(crate) fn bytes(path: &Path) -> Result<Vec<u8>> {
    up_to(path, MOST_BYTES)
}

/// [`bytes`] on a thread of its own.
///
/// # Errors
/// Those of [`bytes`].
pub(crate) async fn bytes_in_background(path: &Path) -> Result<Vec<u8>> {
    let path = path.to_owned();
    blocking(move || bytes(&path)).await
}

/// The text of a file.
///
/// # Errors
/// Those of [`bytes`], and text that is not UTF-8.
pub(crate) fn text(path: &Path) -> Result<String> {
    String::from_utf8(bytes(path)?).map_err(|_| Error::new(ErrorKind::InvalidData, "it is not UTF-8"))
}

fn up_to(path: &Path, most: u64) -> Result<Vec<u8>> {
    // Checked before opening: opening a pipe blocks until it has a writer.
    let about = path.metadata()?;
    if !about.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut bytes = Vec::with_capacity(about.len().min(most) as usize);
    File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        let problem = format!("it has more than {} MiB, which no file of a dataset or run has", most >> 20);
        return Err(Error::new(ErrorKind::FileTooLarge, problem));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(up_to(&path, 5).unwrap(), b"12345");
        assert_eq!(up_to(&path, 4).unwrap_err().kind(), ErrorKind::FileTooLarge);
        assert_eq!(text(&path).unwrap(), "12345");
        std::fs::write(&path, [0xff]).unwrap();
        assert_eq!(text(&path).unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(bytes(folder.path()).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(bytes(&folder.path().join("none")).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_never_ends_is_not_waited_for() {
        assert_eq!(bytes(Path::new("/dev/zero")).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
