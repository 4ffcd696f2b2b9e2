//! `stellar-score backup` and `stellar-score restore`.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use clap::Args;

use super::output::{counted, print};
use crate::{
    backup::{self, Archive, Manifest},
    blobs::bucket_note,
    config::Config,
};

const BACKUP: &str = "\
Examples:
  stellar-score backup /var/backups/stellar       # a folder: named by the time
  stellar-score backup stellar.zip
  stellar-score --config my.toml backup stellar.zip --spool /srv/stellar-2/files

The service may run meanwhile. The archive has all tables, and the images of
pending samples unless they are in a bucket (store.s3). It contains personal data
(docs/PRIVACY.md): only its owner can read it.";

const RESTORE: &str = "\
Examples:
  stellar-score restore stellar.zip --check
  stellar-score restore stellar.zip
  STELLAR_STORE__URL=postgres://…/stellar stellar-score restore stellar.zip

The database (store.url) must be empty and the spool (store.spool) without files.
A backup of SQLite can be restored into PostgreSQL, and the reverse.";

#[derive(Debug, Args)]
#[command(after_help = BACKUP)]
pub(super) struct BackupArgs {
    /// The archive to write, or a folder for it
    #[arg(value_name = "FILE|DIR")]
    to: PathBuf,
    /// Spool folder of another instance on the same database; may be repeated
    #[arg(long, value_name = "DIR")]
    spool: Vec<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = RESTORE)]
pub(super) struct RestoreArgs {
    /// The archive to restore
    #[arg(value_name = "FILE")]
    from: PathBuf,
    /// Verify the archive and change nothing
    #[arg(long)]
    check: bool,
}

pub(super) async fn create(config: &Config, args: BackupArgs) -> anyhow::Result<ExitCode> {
    let s3 = &config.store.s3;
    let bucket = if s3.is_used() { bucket_note(s3).await?.map(|note| note.id) } else { None };
    let spools = [vec![config.store.spool.clone()], args.spool].concat();
    let (path, manifest) = backup::create(&config.store.url, &spools, &args.to).await?;
    print(&format!("wrote {}: {}", path.display(), summary(&manifest, bucket.as_deref())))
}

pub(super) async fn restore(config: &Config, args: RestoreArgs) -> anyhow::Result<ExitCode> {
    let archive = Archive::open(&args.from)?;
    let summary = summary(archive.manifest(), None);
    if args.check {
        return print(&format!("{} is whole: {summary}", args.from.display()));
    }
    if config.store.s3.is_used() && archive.manifest().spool.files > 0 {
        anyhow::bail!(
            "the archive has images of pending samples, which cannot be restored into a bucket: \
                restore it with store.s3.bucket = \"\", start the service until they are scored, \
                and then set store.s3.bucket"
        );
    }
    let restored = archive.restore(&config.store.url, &config.store.spool).await?;
    let (rows, files) = (counted(restored.rows, "row"), counted(restored.files, "file"));
    print(&format!("restored {rows} and {files}: {summary}"))
}

/// Says what a backup contains, and what it lacks. `bucket` is the id of the configured bucket.
fn summary(manifest: &Manifest, bucket: Option<&str>) -> String {
    let rows = |table: &str| {
        manifest.tables.iter().find(|part| part.name == table).map_or(0, |part| part.rows)
    };
    let mut text = format!(
        "{} of {} with schema {}, made by version {}: {}, {}, {}, {} with {} ({} MiB)\n",
        manifest.database,
        manifest.created,
        manifest.schema,
        manifest.version,
        counted(rows("samples"), "sample"),
        counted(rows("scores"), "score"),
        counted(rows("runs"), "run"),
        counted(rows("pending_samples"), "pending sample"),
        counted(manifest.spool.files, "file"),
        manifest.spool.bytes.div_ceil(1 << 20),
    );
    if !manifest.spool.missing.is_empty() {
        let _ = writeln!(
            text,
            "warning: missing or damaged in the spool: {} that pending samples need; these samples \
             will fail as file_lost",
            counted(manifest.spool.missing.len() as u64, "file")
        );
    }
    for (folder, files) in &manifest.spool.elsewhere {
        if bucket == Some(folder) {
            let _ = writeln!(
                text,
                "warning: not in the backup: {} in the bucket of store.s3; pending samples whose \
                 files are gone when it is restored fail as file_lost, unless the provider keeps \
                 versions of objects and restores those of this moment",
                counted(*files, "file")
            );
            continue;
        }
        let _ = writeln!(
            text,
            "warning: not in the backup: {} in the spool {folder} of another instance; name that \
             folder with --spool",
            counted(*files, "file")
        );
    }
    text
}
