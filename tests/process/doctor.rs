//! `stellar-score doctor` on broken set-ups: each is named with what to do.

use std::{fs, net::TcpListener, path::Path, process::Command};

use serde_json::Value;

use crate::{
    disk::Disk,
    harness::{Server, copied_pack, folder, program, run},
};

fn doctor(folder: &Path) -> Command {
    let mut command = program(&["doctor", "--json"]);
    command.env("STELLAR_SERVER__LISTEN", "127.0.0.1:0");
    command.env("STELLAR_STORE__URL", format!("sqlite:{}", folder.join("stellar.db").display()));
    command.env("STELLAR_STORE__SPOOL", folder.join("files"));
    command.env("STELLAR_STORE__SPOOL_MIB", "128");
    command
}

/// The status of each check, and the text of the one called `name`.
#[track_caller]
fn report(command: &mut Command, name: &str) -> (Option<i32>, String, String) {
    let ran = run(command);
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    let report: Value = serde_json::from_str(&ran.stdout)
        .unwrap_or_else(|error| panic!("{error}: {} {}", ran.stdout, ran.stderr));
    assert_eq!(report["healthy"].as_bool().unwrap(), ran.code == Some(0));
    let checks = report["checks"].as_array().unwrap();
    let others = checks.iter().filter(|check| check["name"] != name);
    let wrong: Vec<_> = others.filter(|check| check["status"] == "error").collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    let check = checks.iter().find(|check| check["name"] == name);
    let check = check.unwrap_or_else(|| panic!("no {name} in {report:#}"));
    let text = format!("{} {}", check["found"], check["help"]);
    (ran.code, check["status"].as_str().unwrap().to_owned(), text)
}

#[track_caller]
fn finds_error(command: &mut Command, name: &str, words: &[&str]) {
    let (code, status, text) = report(command, name);
    assert_eq!((code, &*status), (Some(1), "error"), "{text}");
    for word in words {
        assert!(text.contains(word), "`{word}` in: {text}");
    }
}

#[test]
fn a_sound_installation_is_healthy_before_and_while_it_serves() {
    let folder = folder();
    let (code, status, text) = report(&mut doctor(folder.path()), "database");
    assert_eq!((code, &*status), (Some(0), "ok"), "{text}");
    assert!(text.contains("is created at start"), "{text}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was changed");

    let server = Server::start(folder.path(), &[]);
    let address = server.address.to_string();
    let beside = || {
        let mut command = doctor(folder.path());
        command.env("STELLAR_SERVER__LISTEN", &address);
        command
    };
    let (_, status, text) = report(&mut beside(), "address");
    assert!(status == "ok" && text.contains("service responds"), "{text}");
    let (_, status, text) = report(&mut beside(), "spool");
    assert!(status == "ok" && text.contains("in use by a running service"), "{text}");
    // The same folder for another address.
    let (_, status, text) = report(&mut doctor(folder.path()), "spool");
    assert!(status == "warning" && text.contains("a start is refused"), "{text}");
    let (_, status, text) = report(&mut beside(), "pack");
    assert!(status == "warning" && text.contains("mean nothing"), "{text}");
    let mut human = program(&["doctor"]);
    for (name, value) in doctor(folder.path()).get_envs() {
        if let Some(value) = value {
            human.env(name, value);
        }
    }
    let text = run(human.env("STELLAR_LIMITS__REFERENCES", "7")).printed();
    for part in [
        "0 errors",
        "ok       runtime",
        "WARNING  pack",
        "limits.references = 7   (STELLAR_LIMITS__REFERENCES)",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn a_missing_library_and_an_unreadable_pack_are_found() {
    let folder = folder();
    let missing = "/nowhere/libonnxruntime.so";
    finds_error(
        doctor(folder.path()).env("STELLAR_ENGINE__LIBRARY", missing),
        "runtime",
        &[missing, "make setup"],
    );
    let pack = copied_pack(folder.path());
    fs::remove_file(pack.join("graphs/clip.image.onnx")).unwrap();
    finds_error(
        doctor(folder.path()).env("STELLAR_PACK", &pack),
        "pack",
        &["clip.image.onnx", "copy the whole pack"],
    );
}

#[test]
fn wrong_databases_are_found_without_showing_the_password() {
    let folder = folder();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("postgres://me:secret@127.0.0.1:{port}/db");
    let ran = run(doctor(folder.path()).env("STELLAR_STORE__URL", &url));
    assert!(!ran.stdout.contains("secret") && !ran.stderr.contains("secret"), "{}", ran.stdout);
    assert!(ran.stdout.contains("me:***@"), "{}", ran.stdout);
    finds_error(
        doctor(folder.path()).env("STELLAR_STORE__URL", &url),
        "database",
        &["unavailable"],
    );
    finds_error(
        doctor(folder.path()).env("STELLAR_STORE__URL", "mysql://me:secret@host/db"),
        "database",
        &["neither sqlite nor postgres"],
    );
    fs::write(folder.path().join("stellar.db"), "no database at all".repeat(100)).unwrap();
    finds_error(&mut doctor(folder.path()), "database", &["not a database"]);
}

#[test]
fn unusable_spools_are_found() {
    let (one, other) = (folder(), folder());
    let file = one.path().join("file");
    fs::write(&file, "a file").unwrap();
    finds_error(
        doctor(one.path()).env("STELLAR_STORE__SPOOL", file.join("spool")),
        "spool",
        &["is not a folder", "store.spool"],
    );
    drop(Server::start(one.path(), &[]));
    drop(Server::start(other.path(), &[]));
    finds_error(
        doctor(one.path()).env("STELLAR_STORE__SPOOL", other.path().join("files")),
        "spool",
        &["belongs to the database", "correct store.url or store.spool"],
    );
}

#[test]
fn a_port_in_use_and_a_wrong_key_are_found() {
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    finds_error(
        doctor(folder.path()).env("STELLAR_SERVER__LISTEN", &address),
        "address",
        &[&address, "another program", "server.listen"],
    );
    finds_error(
        doctor(folder.path()).env("STELLAR_LIMITS__REQUESTS", "0"),
        "configuration",
        &["limits.requests", "at least 1"],
    );
}

#[test]
fn a_start_that_would_be_refused_for_want_of_a_key_is_found() {
    let folder = folder();
    let open = || {
        let mut command = doctor(folder.path());
        command.env("STELLAR_SERVER__LISTEN", "0.0.0.0:0");
        command
    };
    let words = ["server.listen is 0.0.0.0:0", "keys create", "server.allow_anonymous = true"];
    finds_error(&mut open(), "keys", &words);
    let (_, status, text) = report(open().env("STELLAR_SERVER__ALLOW_ANONYMOUS", "true"), "keys");
    assert!(status == "warning" && text.contains("everyone"), "{text}");
    let mut create = program(&["keys", "create", "ci", "--scopes", "read"]);
    let file = folder.path().join("stellar.db");
    create.env("STELLAR_STORE__URL", format!("sqlite:{}", file.display()));
    run(&mut create).printed();
    let (_, status, text) = report(&mut open(), "keys");
    assert!(status == "ok" && text.contains("1 stored"), "{text}");
}

#[test]
fn a_disk_that_is_nearly_full_is_found() {
    let (folder, Some(disk)) = (folder(), Disk::of("24m")) else {
        // Written directly, since the test harness captures `eprintln!`.
        let notice = b"SKIPPED doctor: only root may mount a small file system\n";
        std::io::Write::write_all(&mut std::io::stderr(), notice).unwrap();
        return;
    };
    finds_error(
        doctor(folder.path()).env("STELLAR_STORE__SPOOL", disk.path().join("files")),
        "spool disk",
        &["MiB free", "store.min_free_mib"],
    );
}
