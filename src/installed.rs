//! Where the files that belong to the program are: beside it, never in the folder that it happens to be started from.
//!
//! The working directory may be anybody's: a shared folder that holds a library or a pack must not decide what the program
//! loads.

use std::path::{Path, PathBuf};

/// The folders that the program's own files may lie in, nearest first.
///
/// For a program in `DIR`: `DIR`, `DIR/../share/stellar-score` and `DIR/../lib/stellar-score` (an installation under a prefix),
/// and the checkout that cargo built it in (`CHECKOUT/target/release`).
#[must_use]
pub fn folders() -> Vec<PathBuf> {
    let mut found = std::env::current_exe()
        .and_then(std::fs::canonicalize)
        .map(|program| beside(&program))
        .unwrap_or_default();
    // Tests and unoptimised builds may have their target folder outside the checkout.
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

/// The first of these relative places that exists in a folder of the program's.
#[must_use]
pub fn find(relative: &Path) -> Option<PathBuf> {
    folders().into_iter().map(|folder| folder.join(relative)).find(|path| path.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installed_program_looks_under_its_own_prefix_only() {
        let found = beside(Path::new("/opt/stellar/bin/stellar-score"));
        let wanted =
            ["/opt/stellar/bin", "/opt/stellar/share/stellar-score", "/opt/stellar/lib/stellar-score"];
        assert_eq!(found, wanted.map(PathBuf::from));
    }

    #[test]
    fn a_built_program_looks_in_its_checkout() {
        let checkout = tempfile::tempdir().unwrap();
        std::fs::write(checkout.path().join("Cargo.toml"), "").unwrap();
        let found = beside(&checkout.path().join("target/debug/deps/stellar_score-0123"));
        assert_eq!(found.last().unwrap(), checkout.path());
    }

    #[test]
    fn a_folder_called_target_is_no_checkout_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let found = beside(&folder.path().join("target/stellar-score"));
        assert!(!found.contains(&folder.path().to_owned()), "{found:?}");
    }

    #[test]
    fn the_demo_pack_is_found_wherever_the_program_was_started() {
        assert!(find(Path::new("packs/demo/pack.toml")).is_some());
        assert_eq!(find(Path::new("packs/no-such-pack")), None);
    }
}
