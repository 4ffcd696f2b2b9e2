//! The running service under load, kills and signals.

use std::{
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::{
    harness::{Server, folder, until},
    support::{
        client::{self, Exchange},
        form::Form,
        images::png,
    },
};

fn form(seed: u32) -> Form {
    Form::new().file("image", png(seed)).field("metrics", "aesthetic").field("method", "mine")
}

/// Occupies a slot of the service: it has sent `100 Continue` and waits for the body.
fn hold(server: &Server, length: usize) -> Exchange {
    let headers = [("content-type", &*Form::content_type()), ("expect", "100-continue")];
    let mut exchange = Exchange::begin(server.address, "POST /v1/score", &headers, length).unwrap();
    assert_eq!(exchange.receive().unwrap().status, 100);
    exchange
}

#[test]
fn sigterm_refuses_new_connections_drains_in_flight_work_and_exits_with_0() {
    let folder = folder();
    let server = Server::quick(folder.path(), &[]);
    let body = form(1).finish();
    let mut held = hold(&server, body.len());
    server.terminate();
    until("new connections to be refused", || TcpStream::connect(server.address).err());
    held.send(&body).unwrap();
    let response = held.receive().unwrap();
    assert_eq!(response.status, 200, "{}", response.json());
    let (status, log) = server.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("stopped"), "{log}");

    let server = Server::quick(folder.path(), &[]);
    assert_eq!(server.counted("mine", "aesthetic"), 1, "the acknowledged sample is stored");
}

#[test]
fn with_a_shutdown_delay_sigterm_makes_the_service_not_ready_while_it_still_answers() {
    let folder = folder();
    let settings =
        [("STELLAR_SERVER__SHUTDOWN_DELAY_SECONDS", "3"), ("STELLAR_SERVER__DRAIN_SECONDS", "20")];
    let server = Server::quick(folder.path(), &settings);
    server.terminate();
    let body = until("the service to leave", || {
        let answer = server.get("/readyz");
        (answer.status == 503).then(|| answer.json())
    });
    let stop = body["checks"].as_array().unwrap().iter().find(|check| check["name"] == "stop");
    assert_eq!(stop.unwrap()["ok"], false, "{body}");
    assert!(stop.unwrap()["reason"].as_str().unwrap().contains("stopping"), "{body}");
    assert!(stop.unwrap()["since"].as_str().is_some(), "{body}");
    let scored = server.score(form(1));
    assert_eq!(scored.status, 200, "{}", scored.json());
    assert_eq!(scored.header("connection"), Some("close"), "{:?}", scored.headers);
    assert_eq!(server.get("/livez").status, 200);
    let (status, log) = server.ended();
    assert_eq!(status.code(), Some(0), "{log}");

    let server = Server::quick(folder.path(), &settings);
    let started = Instant::now();
    server.interrupt();
    assert_eq!(server.ended().0.code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(3), "Ctrl-C waits for no load balancer");
}

#[test]
fn an_idle_service_stops_at_once_despite_silent_connections() {
    let folder = folder();
    let server = Server::quick(folder.path(), &[]);
    let silent = TcpStream::connect(server.address).unwrap();
    // The service accepts connections in order, so it has accepted the silent one by now.
    assert_eq!(server.get("/livez").status, 200);
    let started = Instant::now();
    server.terminate();
    let (status, log) = server.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(started.elapsed() < Duration::from_secs(10), "it waited for a silent client");
    drop(silent);
}

#[test]
fn an_endless_request_delays_the_stop_by_the_drain_time_only() {
    let folder = folder();
    let server = Server::quick(folder.path(), &[("STELLAR_SERVER__DRAIN_SECONDS", "1")]);
    let _held = hold(&server, 1000);
    server.terminate();
    let (status, log) = server.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("drain deadline exceeded"), "{log}");
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    let folder = folder();
    let server = Server::quick(folder.path(), &[("STELLAR_SERVER__DRAIN_SECONDS", "600")]);
    let _held = hold(&server, 1000);
    server.terminate();
    until("new connections to be refused", || TcpStream::connect(server.address).err());
    server.terminate();
    let (status, log) = server.ended();
    assert_eq!(status.code(), Some(130), "{log}");
    assert!(log.contains("second signal"), "{log}");
}

#[test]
fn acknowledged_samples_survive_a_kill() {
    let folder = folder();
    let server = Server::quick(folder.path(), &[]);
    let response = server.score(form(1));
    assert_eq!(response.status, 200);
    let response = response.json();
    server.kill();

    let server = Server::quick(folder.path(), &[]);
    let stored =
        server.get(&format!("/v1/samples/{}", response["sample"].as_str().unwrap())).json();
    assert_eq!(stored["scores"][0]["value"], response["scores"]["aesthetic"]["value"]);
    assert_eq!(server.counted("mine", "aesthetic"), 1);
    let again = server.score(form(1)).json();
    assert_eq!(again["outcome"], "repeated");
}

#[test]
fn a_thousand_requests_over_the_limit_are_refused_promptly_in_flat_memory() {
    let folder = folder();
    let settings = [
        ("STELLAR_LIMITS__UPLOAD_MEMORY_MIB", "1"),
        ("STELLAR_LIMITS__REQUEST_MIB", "1"),
        ("STELLAR_SERVER__BODY_SECONDS", "100"),
    ];
    let server = Server::start(folder.path(), &settings);
    // Parsers ignore everything before the first boundary.
    let whole = [vec![b'.'; 900 << 10], b"\r\n".to_vec(), form(1).finish()].concat();
    let mut held = hold(&server, whole.len());
    let (first, last) = whole.split_at(whole.len() - 10);
    held.send(first).unwrap();
    let body = form(2).file("reference", vec![7; 256 << 10]).finish();
    let headers = [("content-type", &*Form::content_type())];
    // 1,000 requests of 256 KiB from 50 clients, while one request holds the memory.
    let refuse = |_| {
        let response = client::send(server.address, "POST /v1/score", &headers, &body)?;
        Ok((response.status, response.header("retry-after").map(str::to_owned)))
    };
    until("the first body to be held", || {
        (server.gauge("stellar_upload_bytes") >= first.len() as f64).then_some(())
    });
    let storm = || {
        std::thread::scope(|scope| {
            let client = || (0..20).map(refuse).collect::<std::io::Result<Vec<_>>>();
            let clients: Vec<_> = (0..50).map(|_| scope.spawn(client)).collect();
            for client in clients {
                for response in client.join().unwrap().expect("every client gets a response") {
                    assert_eq!(response, (429, Some("1".to_owned())));
                }
            }
        });
    };
    // The allocator keeps the memory of 50 concurrent connections; the amount depends on how many
    // overlap. Leaked bodies would grow with every storm.
    storm();
    let grows = || {
        let settled = server.resident_bytes();
        storm();
        server.resident_bytes().saturating_sub(settled) >> 20
    };
    let grown: Vec<_> = (0..3).map(|_| grows()).collect();
    assert!(
        grown.iter().any(|mib| *mib < 64),
        "1,000 refused requests, 250 MiB of bodies, left {grown:?} MiB behind"
    );
    held.send(last).unwrap();
    assert_eq!(held.receive().unwrap().status, 200, "the request in flight was not disturbed");
    assert_eq!(server.counted("mine", "aesthetic"), 1, "refused requests store nothing");
}

#[test]
fn the_service_is_ready_when_it_prints_its_address() {
    let folder = folder();
    let server = Server::start(folder.path(), &[("STELLAR_LOG__FORMAT", "json")]);
    assert_eq!(server.get("/readyz").status, 200);
    let metrics = server.get("/v1/metrics").json();
    for metric in ["clip_t", "clip_i", "clip_n", "aesthetic"] {
        let entry =
            metrics["metrics"].as_array().unwrap().iter().find(|entry| entry["code"] == metric);
        assert_eq!(entry.unwrap()["available"], true, "{metric}");
    }
    let numbers = String::from_utf8(server.get("/metrics").body).unwrap();
    assert!(numbers.contains("stellar_build_info"), "{numbers}");
    server.terminate();
    let (status, log) = server.ended();
    assert_eq!(status.code(), Some(0));
    for line in log.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "not JSON: {line}");
    }
}
