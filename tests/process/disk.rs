//! A full disk: database, spool and log are on a small file system of their own.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    deaths::{block, kept},
    harness::{Server, folder, until},
    runs::{counts, new_run, put},
    support::{form::Form, images::png},
};

/// A file system in memory, unmounted on drop.
pub(crate) struct Disk(TempDir);

impl Disk {
    /// Mounts the file system; None without the permission to mount.
    pub(crate) fn of(size: &str) -> Option<Self> {
        let disk = Self(folder());
        let options = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(disk.0.path())
            .output();
        mounted.is_ok_and(|ran| ran.status.success()).then_some(disk)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Fills the remaining space with one file and returns its path.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("ballast");
        let mut ballast = File::create(&path).expect("a file");
        let mut piece = vec![0; 1 << 20];
        while !piece.is_empty() {
            if ballast.write_all(&piece).is_err() {
                piece.truncate(piece.len() / 2);
            }
        }
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, since a service left behind by a failed test may have open files.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Writes the bytes to a pipe if it has a reader; returns whether it had one.
fn feed(pipe: &Path, bytes: &[u8]) -> bool {
    let open = fs::OpenOptions::new()
        .write(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
        .open(pipe);
    open.is_ok_and(|mut open| open.write_all(bytes).is_ok())
}

fn scored(seed: u32) -> Form {
    Form::new().file("image", png(seed)).field("metrics", "aesthetic").field("method", "direct")
}

#[test]
fn a_full_disk_refuses_new_samples_keeps_accepted_ones_and_recovers() {
    let Some(disk) = Disk::of("24m") else {
        // Written directly, since the test harness captures `eprintln!`.
        std::io::stderr()
            .write_all(b"SKIPPED disk: only root may mount a small file system\n")
            .expect("a stream");
        return;
    };
    let at = disk.path();
    let server = Server::start(at, &[]);
    let run = new_run(&server);
    // Accepted while there is space, and scored when there is none.
    let image = png(1);
    block(&kept(at, &image));
    let form = Form::new().file("image", &image);
    assert_eq!(put(server.address, &run, "accepted", form).expect("a response").status, 202);
    let ballast = disk.fill();

    let refused =
        put(server.address, &run, "new", Form::new().file("image", png(2))).expect("a response");
    assert_eq!(refused.status, 507, "{}", refused.json());
    assert_eq!(refused.json()["code"], "storage_full");
    // The write-ahead log reuses its space, so some scores still fit.
    let mut stored = 0;
    let refused = until("a refused score", || {
        let response = server.score(scored(100 + stored));
        match response.status {
            200 => {
                stored += 1;
                None
            }
            503 => Some(response.json()),
            status => panic!("{status}: {}", response.json()),
        }
    });
    assert_eq!(refused["code"], "unavailable");
    assert!(
        refused["detail"].as_str().is_some_and(|detail| detail.contains("nothing was saved")),
        "{refused}"
    );
    feed(&kept(at, &image), &image);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(server.get("/livez").status, 200);
    assert_eq!(counts(&server, &run).1, 0, "the sample must not fail because of the disk");

    fs::remove_file(ballast).expect("it is there");
    assert_eq!(server.score(scored(50)).status, 200);
    until("the accepted sample to be scored", || {
        feed(&kept(at, &image), &image);
        (counts(&server, &run) == (1, 0)).then_some(())
    });
    assert_eq!(
        server.counted("direct", "aesthetic"),
        u64::from(stored) + 1,
        "acknowledged samples are stored once"
    );
    let again =
        put(server.address, &run, "new", Form::new().file("image", png(2))).expect("a response");
    assert_eq!(again.status, 202, "{}", again.json());
    until("both to be scored", || (counts(&server, &run) == (2, 0)).then_some(()));
}
