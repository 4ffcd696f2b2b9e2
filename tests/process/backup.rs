//! Backups of a service that accepts and scores samples meanwhile.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use crate::{
    harness::{Server, folder, program, run},
    runs::{SAMPLES, new_run, scores, submit},
};

/// A command with the database and spool of [`Server::start`] in `folder`.
fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = program(arguments);
    command.env("STELLAR_STORE__URL", format!("sqlite:{}", folder.join("stellar.db").display()));
    command.env("STELLAR_STORE__SPOOL", folder.join("files"));
    command
}

fn backup(folder: &Path, to: &Path) -> String {
    let printed = run(&mut command(folder, &["backup", to.to_str().unwrap()])).printed();
    assert!(printed.starts_with("wrote ") && !printed.contains("warning"), "{printed}");
    printed
}

/// Restores into a fresh folder and starts a service on it.
fn restored(archive: &Path, into: &Path) -> Server {
    let archive = archive.to_str().unwrap();
    run(&mut command(into, &["restore", archive, "--check"])).printed();
    assert!(!into.join("stellar.db").exists(), "a check changes nothing");
    let printed = run(&mut command(into, &["restore", archive])).printed();
    assert!(printed.starts_with("restored "), "{printed}");
    Server::start(into, &[])
}

#[test]
fn backups_taken_under_load_restore_to_equal_scores() {
    let origin = folder();
    let server = Server::start(origin.path(), &[]);
    let id = new_run(&server);
    let archives: Vec<PathBuf> = (0..4).map(|at| origin.path().join(format!("{at}.zip"))).collect();
    let pending: Vec<String> = std::thread::scope(|scope| {
        let submission = scope.spawn(|| submit(&Mutex::new(server.address), &id));
        let printed = archives.iter().map(|archive| backup(origin.path(), archive)).collect();
        submission.join().unwrap();
        printed
    });
    // The first one that has samples which wait, and the last one.
    let busy = pending.iter().position(|printed| !printed.contains(" 0 pending")).unwrap_or(0);
    let expected = scores(&server, &id);
    assert_eq!(expected.len(), SAMPLES as usize);
    drop(server);

    for archive in [&archives[busy], &archives[3]] {
        let copy = folder();
        let server = restored(archive, copy.path());
        // What the backup has is scored as the original was; the rest is sent again.
        submit(&Mutex::new(server.address), &id);
        assert_eq!(scores(&server, &id), expected, "{}", archive.display());
        assert_eq!(server.counted("mine", "aesthetic"), u64::from(SAMPLES));
    }
}

#[test]
fn a_backup_names_what_is_wrong_and_leaves_no_file() {
    let folder = folder();
    let missing = folder.path().join("none.zip");
    run(&mut command(folder.path(), &["backup", missing.to_str().unwrap()]))
        .failed(&["there is no file"]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let _server = Server::start(folder.path(), &[]);
    backup(folder.path(), &missing);
    let again = run(&mut command(folder.path(), &["backup", missing.to_str().unwrap()]));
    again.failed(&["none.zip exists"]);
    run(&mut command(folder.path(), &["restore", missing.to_str().unwrap()]))
        .failed(&["has files, or a service uses it"]);
}
