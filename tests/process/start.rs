//! The probes while the service starts.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Stdio},
};

use serde_json::Value;

use crate::{
    deaths::block,
    harness::{copied_pack, folder, read, serve, signal, until},
    support::{
        client::{self, Answer},
        form::Form,
        images::png,
    },
};

/// A service that is observed while it starts.
struct Slow {
    child: Child,
    address: SocketAddr,
}

impl Slow {
    fn start(folder: &Path, pack: &Path, answers: &str) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").and_then(|probe| probe.local_addr());
        let address = address.expect("a free port");
        let mut command = serve(folder);
        command.env("STELLAR_SERVER__LISTEN", address.to_string()).env("STELLAR_PACK", pack);
        command.env("STELLAR_STORE__MIN_FREE_MIB", "1");
        command.env("STELLAR_SERVER__ANSWER_WHILE_LOADING", answers);
        let log = fs::File::create(folder.join("log.txt")).expect("a log file");
        let child = command.stdout(Stdio::null()).stderr(log).spawn().expect("the program starts");
        Self { child, address }
    }

    fn get(&self, path: &str) -> Option<Answer> {
        client::send(self.address, &format!("GET {path}"), &[], &[]).ok()
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// States of the checks by name, with the reasons of the failing ones.
fn checks(body: &Value) -> Vec<(&str, Option<&str>)> {
    let checks = body["checks"].as_array().expect("a list").iter();
    checks
        .map(|check| (check["name"].as_str().expect("a name"), check["reason"].as_str()))
        .collect()
}

#[test]
fn the_service_is_alive_and_not_ready_while_it_loads() {
    let folder = folder();
    let pack = copied_pack(folder.path());
    let file = pack.join("graphs/dino.image.onnx");
    let bytes = fs::read(&file).expect("it is there");
    fs::remove_file(&file).expect("it is there");
    // A pipe without a writer: the verification of the pack waits.
    block(&file);
    let slow = Slow::start(folder.path(), &pack, "true");
    let not_ready = until("the verification of the pack", || {
        let answer = slow.get("/readyz")?;
        assert_eq!(answer.status, 503);
        let body = answer.json();
        (checks(&body)[0] == ("migrations", None)).then_some(body)
    });
    assert_eq!(not_ready["code"], "unavailable");
    assert_eq!(not_ready["status"], 503);
    assert_eq!(
        checks(&not_ready),
        [("migrations", None), ("pack", Some("loading")), ("graphs", Some("loading"))]
    );
    assert_eq!(slow.get("/livez").expect("a response").json()["status"], "ok");
    assert_eq!(slow.get("/startupz").expect("a response").status, 503);
    assert_eq!(slow.get("/metrics").expect("a response").status, 200);
    let form = Form::new().file("image", png(1)).finish();
    let headers = [("content-type", &*Form::content_type())];
    let refused =
        client::send(slow.address, "POST /v1/score", &headers, &form).expect("a response");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")));
    assert!(refused.json()["detail"].as_str().is_some_and(|detail| detail.contains("starting")));

    signal("TERM", &slow.child);
    let mut slow = slow;
    let status = until("the process to end", || slow.child.try_wait().expect("a child"));
    assert_eq!(status.code(), Some(0), "{}", read(&folder.path().join("log.txt")));

    fs::remove_file(&file).expect("it is there");
    fs::write(&file, bytes).expect("it is written");
    let started = Slow::start(folder.path(), &pack, "false");
    // Refused connections until then, and no 503.
    let ready = until("an open port", || started.get("/readyz"));
    assert_eq!(ready.status, 200, "{}", ready.json());
    let ready = ready.json();
    assert_eq!(ready["status"], "ok");
    let names = checks(&ready);
    assert_eq!(
        names.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        ["start", "graphs", "engine", "store", "disk", "tasks", "stop"]
    );
    assert!(names.iter().all(|(_, reason)| reason.is_none()), "{ready}");
    assert_eq!(started.get("/startupz").expect("a response").status, 200);
}
