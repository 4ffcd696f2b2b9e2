//! The migrations of both databases, embedded in the program.
//!
//! `sqlx::migrate!` does the same at the cost of compiling both drivers twice, once for the macro.

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// Lists the files of `migrations/<database>/`, without `.sql`.
macro_rules! embedded {
    ($files:ident = $($name:literal)*) => {
        /// The migrations of a database.
        macro_rules! $files {
            ($database:literal) => {
                [$(($name, include_str!(concat!("../../../migrations/", $database, "/", $name, ".sql")))),*]
            };
        }
    };
}

embedded! {
    files =
    "0001_samples_and_scores"
    "0002_datasets_and_faces"
    "0003_deletion"
    "0004_runs"
    "0005_prompts"
    "0006_slices"
    "0007_preferences"
    "0008_clusters"
    "0009_revisions"
    "0010_spools_and_deletions"
    "0011_imported_weights_and_identity"
    "0012_sample_sets"
    "0013_own_questions"
    "0014_images_of_a_run"
    "0015_keys"
    "0016_views"
    "0017_evidence_and_thumbnails"
    "0018_votes"
    "0019_studies"
    "0020_benchmarks"
    "0021_cards"
    "0022_submissions"
    "0023_studies_by_run"
    "0024_quarantine"
    "0025_deaths"
}

/// The migrations of SQLite.
pub(super) fn sqlite() -> Migrator {
    migrator(&files!("sqlite"))
}

/// The migrations of PostgreSQL.
pub(super) fn postgres() -> Migrator {
    migrator(&files!("postgres"))
}

/// Returns the version of the newest migration.
pub(super) fn newest(migrator: &Migrator) -> i64 {
    migrator.iter().map(|migration| migration.version).max().unwrap_or_default()
}

fn migrator(files: &[(&str, &'static str)]) -> Migrator {
    let migration = |(name, sql): &(&str, &'static str)| {
        let (version, description) = name.split_once('_').expect("a name is VERSION_DESCRIPTION");
        let version = version.parse().expect("a version is a number");
        let description = description.replace('_', " ").into();
        Migration::new(version, description, MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(files.iter().map(migration).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_file_of_both_folders_is_listed() {
        for (database, migrator) in [("sqlite", sqlite()), ("postgres", postgres())] {
            let folder = format!("{}/migrations/{database}", env!("CARGO_MANIFEST_DIR"));
            let files: BTreeSet<_> = std::fs::read_dir(folder)
                .unwrap()
                .map(|file| file.unwrap().file_name().into_string().unwrap())
                .collect();
            let listed: BTreeSet<_> = migrator
                .iter()
                .map(|m| format!("{:04}_{}.sql", m.version, m.description.replace(' ', "_")))
                .collect();
            assert_eq!(files, listed, "{database}");
        }
    }
}
