//! Finds files of the installation beside the program, never in the working directory.
//!
//! The working directory may be shared, and files in it must not decide which library or pack is
//! loaded.

use std::path::{Path, PathBuf};

/// Returns the folders that may contain the installation's files, nearest first.
///
/// For a program in `DIR` these are `DIR`, `DIR/../share/stellar-score` and
/// `DIR/../lib/stellar-score` (an installation under a prefix), and the checkout in which cargo
/// built it (`CHECKOUT/target/release`).
#[must_use]
pub fn folders() -> Vec<PathBuf> {
    let mut found = std::env::current_exe()
        .and_then(std::fs::canonicalize)
        .map(|program| beside(&program))
        .unwrap_or_default();
    // Tests and debug builds may have their target folder outside the checkout.
    if cfg!(debug_assertions) {
        found.push(PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    }
    found
}

fn beside(program: &Path) -> Vec<PathBuf> {
    let Some(folder) = program.parent() else { return Vec::new() };
    let mut found = vec![folder.to_owned()];
    if let Some(prefix) = folder.parent() {
        found.extend(["share", "lib"].map(|kind| prefix.join(kind).join("stellar-score")));
    }
    let checkout = folder
        .ancestors()
        .find(|ancestor| ancestor.file_name().is_some_and(|name| name == "target"))
        .and_then(Path::parent)
        .filter(|checkout| checkout.join("Cargo.toml").is_file());
    found.extend(checkout.map(Path::to_owned));
    found
}

/// Returns the first existing path `relative` within [`folders`].
#[must_use]
pub fn find(relative: &Path) -> Option<PathBuf> {
    folders().into_iter().map(|folder| folder.join(relative)).find(|path| path.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installed_program_searches_only_its_prefix() {
        let found = beside(Path::new("/opt/stellar/bin/stellar-score"));
        let wanted = [
            "/opt/stellar/bin",
            "/opt/stellar/share/stellar-score",
            "/opt/stellar/lib/stellar-score",
        ];
        assert_eq!(found, wanted.map(PathBuf::from));
    }

    #[test]
    fn a_program_in_a_target_folder_searches_its_checkout() {
        let checkout = tempfile::tempdir().unwrap();
        std::fs::write(checkout.path().join("Cargo.toml"), "").unwrap();
        let found = beside(&checkout.path().join("target/debug/deps/stellar_score-0123"));
        assert_eq!(found.last().unwrap(), checkout.path());
    }

    #[test]
    fn a_target_folder_without_a_cargo_manifest_is_not_a_checkout() {
        let folder = tempfile::tempdir().unwrap();
        let found = beside(&folder.path().join("target/stellar-score"));
        assert!(!found.contains(&folder.path().to_owned()), "{found:?}");
    }

    #[test]
    fn the_demo_pack_is_found_from_any_working_directory() {
        assert!(find(Path::new("packs/demo/pack.toml")).is_some());
        assert_eq!(find(Path::new("packs/no-such-pack")), None);
    }
}
