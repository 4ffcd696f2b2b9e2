//! A rolling restart of two instances behind a load balancer, under load, without a failed request.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::json;
use tempfile::TempDir;

use crate::{
    database::{self, Database, Kind},
    harness::{Server, folder, until},
    runs::put,
    support::{client, form::Form, images::png},
};

/// Interval of the load balancer's probes. Kubernetes needs seconds, nginx and Caddy as configured.
const PROBE_EVERY: Duration = Duration::from_millis(100);

/// How long an instance still answers after SIGTERM, in seconds: many probes.
const DELAY: &str = "2";

/// A load balancer as simple as that of Kubernetes: a new connection goes to an instance whose
/// last probe was positive, and stays there. It does not retry.
struct Balancer {
    address: SocketAddr,
    backends: Arc<Mutex<BTreeMap<SocketAddr, bool>>>,
    stopping: Arc<AtomicBool>,
}

impl Balancer {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let backends = Arc::new(Mutex::new(BTreeMap::new()));
        let stopping = Arc::new(AtomicBool::new(false));
        let (probed, stops) = (Arc::clone(&backends), Arc::clone(&stopping));
        thread::spawn(move || {
            while !stops.load(Ordering::Relaxed) {
                let all: Vec<SocketAddr> = lock(&probed).keys().copied().collect();
                for backend in all {
                    let answer = client::send(backend, "GET /readyz", &[], &[]);
                    let ready = answer.is_ok_and(|answer| answer.status == 200);
                    lock(&probed).entry(backend).and_modify(|now| *now = ready);
                }
                thread::sleep(PROBE_EVERY);
            }
        });
        let (of_traffic, next) = (Arc::clone(&backends), AtomicUsize::new(0));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let ready: Vec<SocketAddr> = {
                    let all = lock(&of_traffic);
                    all.iter().filter(|(_, ready)| **ready).map(|(backend, _)| *backend).collect()
                };
                // Without one, the connection is dropped: the client sees a failed request.
                if !ready.is_empty() {
                    let chosen = ready[next.fetch_add(1, Ordering::Relaxed) % ready.len()];
                    thread::spawn(move || connect(client, chosen));
                }
            }
        });
        Self { address, backends, stopping }
    }

    fn add(&self, backend: SocketAddr) {
        lock(&self.backends).insert(backend, false);
        until("an instance to be ready", || self.is_ready(backend).then_some(()));
    }

    fn remove(&self, backend: SocketAddr) {
        lock(&self.backends).remove(&backend);
    }

    fn is_ready(&self, backend: SocketAddr) -> bool {
        lock(&self.backends).get(&backend) == Some(&true)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().expect("lock not poisoned")
}

/// Copies bytes both ways until either side closes.
fn connect(client: TcpStream, backend: SocketAddr) {
    let Ok(service) = TcpStream::connect(backend) else { return };
    let (Ok(from_client), Ok(to_service)) = (client.try_clone(), service.try_clone()) else {
        return;
    };
    let up = thread::spawn(move || copy(from_client, to_service));
    copy(service, client);
    let _ = up.join();
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

fn start(folder: &TempDir, database: &Database) -> Server {
    let settings = [
        ("STELLAR_STORE__URL", &*database.url),
        ("STELLAR_SERVER__SHUTDOWN_DELAY_SECONDS", DELAY),
        ("STELLAR_STORE__MIN_FREE_MIB", "1"),
    ];
    Server::quick(folder.path(), &settings)
}

fn scored(seed: u32) -> Form {
    Form::new().file("image", png(seed)).field("metrics", "aesthetic").field("method", "direct")
}

/// Numbers of successful requests, and what went wrong.
#[derive(Default)]
struct Load {
    scored: AtomicU32,
    accepted: AtomicU32,
    read: AtomicU32,
    failures: Mutex<Vec<String>>,
    stopping: AtomicBool,
}

impl Load {
    fn count(&self, what: &AtomicU32, outcome: io::Result<client::Answer>, expected: &[u16]) {
        match outcome {
            Ok(answer) if expected.contains(&answer.status) => {
                what.fetch_add(1, Ordering::Relaxed);
            }
            Ok(answer) => {
                let body = String::from_utf8_lossy(&answer.body).into_owned();
                lock(&self.failures).push(format!("{}: {body}", answer.status));
            }
            Err(error) => lock(&self.failures).push(error.to_string()),
        }
    }

    fn client(&self, kind: u32, balancer: SocketAddr, run: &str) {
        let mut at = kind * 100_000;
        while !self.stopping.load(Ordering::Relaxed) {
            at += 1;
            match kind % 4 {
                0 | 1 => {
                    let headers = [("content-type", &*Form::content_type())];
                    let sent =
                        client::send(balancer, "POST /v1/score", &headers, &scored(at).finish());
                    self.count(&self.scored, sent, &[200]);
                }
                2 => {
                    let form = Form::new().file("image", png(at));
                    let sent = put(balancer, run, &format!("s{at}"), form);
                    self.count(&self.accepted, sent, &[200, 202]);
                }
                _ => {
                    for path in [&format!("/v1/runs/{run}"), "/v1/leaderboard"] {
                        let sent = client::send(balancer, &format!("GET {path}"), &[], &[]);
                        self.count(&self.read, sent, &[200]);
                    }
                }
            }
        }
    }
}

fn rolling_restart(database: &Database) {
    let folders = [folder(), folder()];
    let balancer = Balancer::start();
    let mut servers: Vec<Server> = Vec::new();
    for folder in &folders {
        servers.push(start(folder, database));
        balancer.add(servers[servers.len() - 1].address);
    }
    let facts = json!({"method": "of-run", "metrics": ["aesthetic"]}).to_string();
    let headers = [("content-type", "application/json")];
    let created = client::send(balancer.address, "POST /v1/runs", &headers, facts.as_bytes());
    let created = created.expect("a response").json();
    let run = created["run_id"].as_str().expect("an id");
    let load = Load::default();
    thread::scope(|scope| {
        for kind in 0..4 {
            let (load, to) = (&load, balancer.address);
            scope.spawn(move || load.client(kind, to, run));
        }
        for (at, folder) in folders.iter().enumerate() {
            // Both instances get requests before one is replaced.
            thread::sleep(Duration::from_millis(500));
            let old = servers.remove(0);
            let address = old.address;
            old.terminate();
            let (status, log) = old.ended();
            assert_eq!(status.code(), Some(0), "{log}");
            assert!(!log.contains("drain deadline exceeded"), "instance {at}: {log}");
            balancer.remove(address);
            servers.push(start(folder, database));
            balancer.add(servers[servers.len() - 1].address);
        }
        thread::sleep(Duration::from_millis(300));
        load.stopping.store(true, Ordering::Relaxed);
    });
    let failures = lock(&load.failures);
    assert!(failures.is_empty(), "{} failed: {:?}", failures.len(), &failures[..1]);
    let count = |what: &AtomicU32| u64::from(what.load(Ordering::Relaxed));
    let (scored, accepted, read) = (count(&load.scored), count(&load.accepted), count(&load.read));
    assert!(scored > 10 && accepted > 10 && read > 10, "{scored} {accepted} {read}");

    // Nothing is lost: what was acknowledged is stored once.
    let server = &servers[0];
    assert_eq!(server.counted("direct", "aesthetic"), scored);
    until("all accepted samples to be scored", || {
        (crate::runs::counts(server, run) == (accepted, 0)).then_some(())
    });
    assert_eq!(server.counted("of-run", "aesthetic"), accepted);
}

#[test]
fn a_rolling_restart_under_load_fails_no_request_and_loses_nothing() {
    let case = "a_rolling_restart_under_load_fails_no_request_and_loses_nothing";
    database::run(Kind::Postgres, case, |database| async move {
        let restarted = tokio::task::spawn_blocking(move || rolling_restart(&database));
        if let Err(failed) = restarted.await {
            std::panic::resume_unwind(failed.into_panic());
        }
    });
}
