//! Finds the ONNX Runtime library.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::error::StartError;

/// The variable that `ort` and other programs also read.
pub(super) const VARIABLE: &str = "ORT_DYLIB_PATH";

/// The folder into which `make setup` unpacks the library.
const FOLDER: &str = ".runtime";

/// Search depth. Wheels in a virtual environment are about seven folders deep.
pub(super) const DEPTH: usize = 9;

/// A file next to libraries that were built with CUDA.
const CUDA: &str = "libonnxruntime_providers_cuda.so";

/// Finds the library: the configured path, then the variable's path, then the newest library beside
/// the program or in the `.runtime/` of its checkout.
///
/// Of several libraries, one with CUDA is preferred if `for_gpu` is set, and one without if it is
/// not. The working directory is never searched, since anybody may have put files there.
pub(super) fn find(
    configured: Option<&Path>,
    variable: Option<OsString>,
    installed: &[PathBuf],
    for_gpu: bool,
) -> Result<PathBuf, StartError> {
    let given = configured.map(Path::to_owned).or_else(|| {
        let set = variable.filter(|value| !value.is_empty())?;
        Some(PathBuf::from(set))
    });
    if let Some(path) = given {
        return if path.is_file() {
            // Made absolute: the loader would search for a relative path beside the executable
            // first.
            path.canonicalize()
                .map_err(|error| StartError::Library { path, problem: error.to_string() })
        } else {
            Err(StartError::Library { path, problem: "file not found".into() })
        };
    }
    let mut found = Vec::new();
    for folder in installed {
        files_below(folder, 0, &mut found);
        files_below(&folder.join(FOLDER), DEPTH, &mut found);
    }
    found.retain(|path| is_library(path));
    let fits = |path: &Path| path.with_file_name(CUDA).exists() == for_gpu;
    found.into_iter().max_by_key(|path| (fits(path), version(path), path.clone())).ok_or_else(
        || StartError::NoLibrary {
            looked: installed
                .iter()
                .fold(format!("engine.library, {VARIABLE}"), |looked, folder| {
                    format!("{looked}, {}", folder.join(FOLDER).display())
                }),
        },
    )
}

/// Collects the files of a folder and of `depth` levels of folders below it. Unreadable folders are
/// skipped.
pub(super) fn files_below(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(path);
        } else if depth > 0 {
            files_below(&path, depth - 1, found);
        }
    }
}

fn is_library(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
    match std::env::consts::OS {
        // The provider libraries beside it are called libonnxruntime_providers_*.
        "macos" => {
            name.starts_with("libonnxruntime.")
                && path.extension().is_some_and(|end| end == "dylib")
        }
        "windows" => name == "onnxruntime.dll",
        _ => name == "libonnxruntime.so" || name.starts_with("libonnxruntime.so."),
    }
}

/// Returns the numbers in a file name, so that 1.9 is older than 1.32.
fn version(path: &Path) -> Vec<u64> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.split('.').filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"").unwrap();
    }

    #[test]
    fn the_configured_path_takes_precedence_over_the_variable_and_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let (configured, variable) = (dir.path().join("a.so"), dir.path().join("b.so"));
        touch(&configured);
        touch(&variable);
        touch(&dir.path().join(".runtime/libonnxruntime.so.1.32.0"));
        let variable = Some(OsString::from(&variable));
        let found =
            find(Some(&configured), variable.clone(), &[dir.path().to_owned()], false).unwrap();
        assert_eq!(found.file_name().unwrap(), "a.so");
        assert_eq!(find(None, variable, &[], false).unwrap().file_name().unwrap(), "b.so");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_newest_library_is_chosen_and_provider_libraries_are_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let capi = dir.path().join(".runtime/lib/python3.12/site-packages/onnxruntime/capi");
        touch(&capi.join("libonnxruntime_providers_shared.so"));
        touch(&capi.join("libonnxruntime.so.1.9.0"));
        touch(&capi.join("libonnxruntime.so.1.32.0"));
        let found = find(None, Some(OsString::new()), &[dir.path().to_owned()], false).unwrap();
        assert_eq!(found, capi.join("libonnxruntime.so.1.32.0"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_library_beside_the_program_is_found() {
        let dir = tempfile::tempdir().unwrap();
        touch(&dir.path().join("libonnxruntime.so.1.32.0"));
        touch(&dir.path().join("elsewhere/libonnxruntime.so.1.40.0"));
        let found = find(None, None, &[dir.path().to_owned()], false).unwrap();
        assert_eq!(found, dir.path().join("libonnxruntime.so.1.32.0"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_gpu_gets_the_cuda_library_even_if_another_is_newer() {
        let dir = tempfile::tempdir().unwrap();
        let (cpu, gpu) = (
            dir.path().join(".runtime/onnxruntime-1.32.0"),
            dir.path().join(".runtime/onnxruntime-gpu-1.31.1"),
        );
        touch(&cpu.join("libonnxruntime.so.1.32.0"));
        let find = |for_gpu| find(None, None, &[dir.path().to_owned()], for_gpu).unwrap();
        assert!(find(true).starts_with(&cpu), "it is the only one");
        touch(&gpu.join("libonnxruntime.so.1.31.1"));
        touch(&gpu.join(CUDA));
        assert!(find(true).starts_with(&gpu) && find(false).starts_with(&cpu));
    }

    #[test]
    fn errors_for_missing_libraries_say_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let missing =
            find(Some(Path::new("/nowhere/lib.so")), None, &[dir.path().to_owned()], false)
                .unwrap_err()
                .to_string();
        assert!(missing.contains("/nowhere/lib.so") && missing.contains("make setup"), "{missing}");
        let none = find(None, None, &[dir.path().to_owned()], false).unwrap_err().to_string();
        for part in [".runtime", "engine.library", VARIABLE, "make setup"] {
            assert!(none.contains(part), "{none}");
        }
    }
}
