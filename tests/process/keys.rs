//! API keys with the real program: creation, use by its own client, revocation, and the addresses
//! that it listens on.

use std::{os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use crate::{
    harness::{Server, folder, program, read, run, serve},
    support::client::{self, Answer},
};

/// The command on the database in `folder`.
fn keys(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = program(&["keys"]);
    command.args(arguments);
    command.env("STELLAR_STORE__URL", format!("sqlite:{}", folder.join("stellar.db").display()));
    command
}

impl Server {
    fn get_with(&self, path: &str, authorization: &str) -> Answer {
        let headers = [("authorization", authorization)];
        client::send(self.address, &format!("GET {path}"), &headers, &[]).expect("a response")
    }
}

#[test]
fn a_key_is_effective_in_running_services_at_once_and_so_is_its_revocation() {
    let folder = folder();
    let server = Server::quick(folder.path(), &[]);
    assert_eq!(server.get("/v1/runs").status, 200);
    let file = folder.path().join("ci.key");
    let path = file.to_str().unwrap();
    let told = run(&mut keys(
        folder.path(),
        &["create", "ci", "--scopes", "read", "--expires-days", "1", "--out", path],
    ))
    .printed();
    assert!(told.contains("valid") && told.contains("first key"), "{told}");
    let key = read(&file);
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!told.contains(key.trim()), "the key is only in its file");
    assert_eq!(server.get("/v1/runs").status, 401);
    assert_eq!(server.get_with("/v1/runs", &format!("Bearer {}", key.trim())).status, 200);

    // The program's own client.
    let url = format!("http://{}", server.address);
    let report = |change: &dyn Fn(&mut Command)| {
        let mut command = program(&["report", "nobody", "--server", &url, "--patience", "1"]);
        change(&mut command);
        run(&mut command)
    };
    report(&|_| {}).failed(&["401 unauthorized", "STELLAR_KEY"]);
    report(&|command| {
        command.env("STELLAR_KEY", &key);
    })
    .failed(&["run nobody not found"]);
    report(&|command| {
        command.env("STELLAR_KEY_FILE", path);
    })
    .failed(&["run nobody not found"]);
    report(&|command| {
        command.args(["--key-file", path]);
    })
    .failed(&["run nobody not found"]);
    report(&|command| {
        command.env("STELLAR_KEY", "secret");
    })
    .failed(&["is not an API key"]);
    report(&|command| {
        command.args(["--key-file", "nowhere.key"]);
    })
    .failed(&["nowhere.key"]);
    let with_password = url.replace("http://", &format!("http://any:{}@", key.trim()));
    run(&mut program(&["report", "nobody", "--server", &with_password, "--patience", "1"]))
        .failed(&["run nobody not found"]);
    let gone = with_password.replace(&server.address.port().to_string(), "1");
    let arguments = ["report", "nobody", "--server", &gone, "--patience", "0"];
    let told = run(&mut program(&arguments)).failed(&["127.0.0.1:1/ does not respond"]);
    assert!(!told.contains(key.trim()), "an error shows the key");

    let again = ["create", "ci", "--scopes", "read"];
    run(&mut keys(folder.path(), &again)).failed(&["a key named ci already"]);
    let listed = run(&mut keys(folder.path(), &["list", "--json"])).printed();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[0]["name"], "ci");
    assert!(!listed.to_string().contains(&key.trim()[41..]), "{listed}");
    run(&mut keys(folder.path(), &["revoke", "ci"])).printed();
    assert_eq!(server.get_with("/v1/runs", &format!("Bearer {}", key.trim())).status, 401);
    run(&mut keys(folder.path(), &["revoke", "ci"])).failed(&["no key ci"]);

    let piped = run(&mut keys(folder.path(), &["create", "ops", "--scopes", "read,admin"]));
    assert!(piped.stderr.contains("ops"), "{}", piped.stderr);
    let ops = format!("Bearer {}", piped.printed().trim());
    let headers = [("authorization", &*ops)];
    let delete = "DELETE /v1/annotators/ada";
    assert_eq!(client::send(server.address, delete, &headers, &[]).unwrap().status, 404);
    let audit = run(&mut keys(folder.path(), &["audit"])).printed();
    assert!(audit.contains("ops  127.0.0.1  DELETE /v1/annotators/{annotator}"), "{audit}");
    assert!(audit.contains("  404  ") && !audit.contains("ada "), "{audit}");
    let json =
        run(&mut keys(folder.path(), &["audit", "--json", "--since", "2026-01-01"])).printed();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["key"], "ops");
    server.terminate();
    let (_, log) = server.ended();
    assert!(!log.contains(&key.trim()[41..]) && !log.contains(&ops[48..]), "{log}");
}

#[test]
fn without_a_key_only_this_machine_is_served_and_both_ways_out_are_named() {
    let folder = folder();
    let listen = |command: &mut Command| {
        command.env("STELLAR_SERVER__LISTEN", "0.0.0.0:0");
    };
    let mut command = serve(folder.path());
    listen(&mut command);
    run(&mut command).failed(&[
        "server.listen is 0.0.0.0:0",
        "stellar-score keys create",
        "server.allow_anonymous = true",
    ]);
    let open =
        [("STELLAR_SERVER__LISTEN", "0.0.0.0:0"), ("STELLAR_SERVER__ALLOW_ANONYMOUS", "true")];
    let server = Server::quick(folder.path(), &open);
    let local = (std::net::Ipv4Addr::LOCALHOST, server.address.port()).into();
    assert_eq!(client::send(local, "GET /v1/runs", &[], &[]).unwrap().status, 200);
    drop(server);
    run(&mut keys(folder.path(), &["create", "ci", "--scopes", "read"])).printed();
    let server = Server::quick(folder.path(), &open[..1]);
    let local = (std::net::Ipv4Addr::LOCALHOST, server.address.port()).into();
    let status = client::send(local, "GET /v1/runs", &[], &[]).unwrap().status;
    assert_eq!(status, 401);
    // Without any key it stays closed, since other machines reach it.
    run(&mut keys(folder.path(), &["remove-all", "--yes"])).printed();
    assert_eq!(client::send(local, "GET /v1/runs", &[], &[]).unwrap().status, 401);
}
