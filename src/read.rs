//! Reads files of untrusted folders, with a size limit and without blocking on pipes or devices.

use std::{
    fs::File,
    io::{Error, ErrorKind, Read as _, Result},
    path::Path,
};

use crate::blocking::blocking;

/// Size limit, above that of any image or document of a dataset or run.
const MOST_BYTES: u64 = 256 << 20;

/// Reads a file.
///
/// # Errors
/// The file cannot be read, has more than 256 MiB, or is not a regular file. Reading a pipe or
/// device may never end.
pub(crate) fn bytes(path: &Path) -> Result<Vec<u8>> {
    up_to(path, MOST_BYTES)
}

/// Like [`bytes`], on a blocking thread.
///
/// # Errors
/// Same as [`bytes`].
pub(crate) async fn bytes_in_background(path: &Path) -> Result<Vec<u8>> {
    let path = path.to_owned();
    blocking(move || bytes(&path)).await
}

/// Reads a text file.
///
/// # Errors
/// Same as [`bytes`], or the file is not UTF-8.
pub(crate) fn text(path: &Path) -> Result<String> {
    String::from_utf8(bytes(path)?)
        .map_err(|_| Error::new(ErrorKind::InvalidData, "it is not UTF-8 text"))
}

fn up_to(path: &Path, most: u64) -> Result<Vec<u8>> {
    // Checked before opening, since opening a pipe blocks until it has a writer.
    let about = path.metadata()?;
    if !about.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut bytes = Vec::with_capacity(about.len().min(most) as usize);
    File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        let problem = format!(
            "it has more than {} MiB, the limit for files of datasets and runs",
            most >> 20
        );
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
    fn devices_are_refused() {
        assert_eq!(bytes(Path::new("/dev/zero")).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
