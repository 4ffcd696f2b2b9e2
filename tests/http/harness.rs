//! The whole service with fake graphs: only the arithmetic inside the models is fake.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, Request, StatusCode, header},
};
use http_body_util::BodyExt as _;
use serde_json::Value;
use stellar_score::{
    api,
    config::Config,
    engine::{
        Backend, BackendError, Engine, GraphSpec, Pack,
        fake::{FakeBackend, FakeControl},
    },
    generation::{Generator, engine_config},
    runs::{Background, Runs, Spool},
    scoring::Scoring,
    store::{Store, StoreOptions},
    telemetry::Telemetry,
    tensor::{Features, Tensor},
};
use tempfile::TempDir;
use tower::{ServiceExt as _, util::MapRequestLayer};

use crate::support::form::Form;

/// The graphs of most tests: they suffice for the first four metrics.
const GRAPHS: [&str; 3] = ["clip.image", "clip.text", "clip_l.image"];

/// A metric that runs only `clip_l.image`: one lane, one item per image.
pub(crate) const ONE_GRAPH: &str = "aesthetic";

/// Parts of a service that a test may change.
pub(crate) struct Setup {
    pub(crate) config: Config,
    pub(crate) graphs: Vec<GraphSpec>,
    pub(crate) store: StoreOptions,
}

/// A service under test.
pub(crate) struct App {
    pub(crate) router: Router,
    /// Controls and records the runs of the fake graphs.
    pub(crate) graphs: FakeControl,
    /// Holds back every run of a graph while closed.
    pub(crate) gate: Gate,
    pub(crate) store: Store,
    pub(crate) scoring: Arc<Scoring>,
    pub(crate) runs: Arc<Runs>,
    background: Option<Background>,
    config: Config,
    folder: Option<TempDir>,
}

/// A response with the checks that every test needs.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl App {
    /// The service with its default configuration.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// The service with a changed setup.
    pub(crate) async fn with(change: impl FnOnce(&mut Setup)) -> Self {
        let pack = Arc::new(demo_pack());
        let graphs = pack
            .graphs
            .iter()
            .filter(|graph| GRAPHS.contains(&graph.role.as_str()))
            .cloned()
            .collect();
        let store = StoreOptions::default();
        let mut setup =
            Setup { config: Config::load(None).expect("the defaults are valid"), graphs, store };
        change(&mut setup);
        let (control, gate) = (FakeControl::default(), Gate::default());
        let telemetry = Telemetry::new();
        let engine =
            Engine::with_backends(&setup.graphs, &setup.config.engine, &telemetry.engine, |spec| {
                let backend = FakeBackend::new(spec, control.clone());
                Box::new(Gated { backend, role: spec.role.clone(), gate: gate.clone() })
            })
            .expect("the engine starts");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Self::store_in(&folder, &setup.config, &setup.store).await;
        Self::over(folder, engine, pack, &setup.config, store, telemetry, (control, gate)).await
    }

    /// The service with the real graphs of the demo pack.
    pub(crate) async fn real() -> Self {
        Self::real_with(|_| {}).await
    }

    /// Like `real`, with a changed configuration.
    pub(crate) async fn real_with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::load(None).expect("the defaults are valid");
        change(&mut config);
        Self::real_in(tempfile::tempdir().expect("a temporary folder"), config).await
    }

    /// Stops a service with real graphs and starts it again on the same database.
    pub(crate) async fn restart(mut self) -> Self {
        let (folder, config) = (self.folder.take().expect("set until here"), self.config.clone());
        self.runs.stop();
        self.background.take().expect("set until here").ended().await;
        self.store.close().await;
        drop(self);
        Self::real_in(folder, config).await
    }

    async fn real_in(folder: TempDir, config: Config) -> Self {
        let pack = Arc::new(demo_pack());
        let telemetry = Telemetry::new();
        let engine =
            Engine::start(&pack, &config.engine, &telemetry.engine).expect("the engine starts");
        let store = Self::store_in(&folder, &config, &StoreOptions::default()).await;
        Self::over(folder, engine, pack, &config, store, telemetry, <_>::default()).await
    }

    async fn store_in(folder: &TempDir, config: &Config, options: &StoreOptions) -> Store {
        let url = Self::url_in(folder, config);
        Store::open(&url, options).await.expect("the store opens")
    }

    /// Returns the database that a test configured, or else one in its folder.
    fn url_in(folder: &TempDir, config: &Config) -> String {
        if config.store.url == Config::load(None).expect("the defaults are valid").store.url {
            format!("sqlite:{}", folder.path().join("stellar.db").display())
        } else {
            config.store.url.clone()
        }
    }

    async fn over(
        folder: TempDir,
        engine: Engine,
        pack: Arc<Pack>,
        config: &Config,
        store: Store,
        telemetry: Telemetry,
        (graphs, gate): (FakeControl, Gate),
    ) -> Self {
        let scoring =
            Scoring::new(engine, pack, config.limits.decode(), config.limits.pixel_bytes())
                .expect("the tokenizers load");
        let mut config = config.clone();
        config.store.spool = folder.path().join("files");
        config.store.url = Self::url_in(&folder, &config);
        let scoring = Arc::new(scoring);
        let spool = Spool::of(&config.store, &store).await.expect("the folder is new");
        let of_runs = telemetry.runs.clone();
        let opened = Runs::open(&config, store.clone(), spool, Arc::clone(&scoring), of_runs);
        let runs = Box::pin(opened).await.expect("the folder is new");
        let background = Some(runs.start());
        let generator = config.generator.pack().map(|pack| {
            let pack = Arc::new(Pack::open(pack).expect("the pack is whole"));
            let settings = engine_config(&config.engine, config.generator.max_batch);
            let engine = Engine::start(&pack, &settings, &telemetry.engine.beside());
            let engine = engine.expect("the engine starts");
            Generator::new(engine, pack, config.limits.decode()).expect("the pack generates")
        });
        let mut app = api::App::new(
            &config,
            Arc::clone(&scoring),
            store.clone(),
            Arc::clone(&runs),
            telemetry,
        );
        if let Some(generator) = generator {
            app = app.with_generator(Arc::new(generator), &config.generator);
        }
        // Real clients always send a Host header.
        let router =
            api::router(Arc::new(app)).layer(MapRequestLayer::new(|mut request: Request<Body>| {
                request
                    .headers_mut()
                    .entry(header::HOST)
                    .or_insert(HeaderValue::from_static("localhost"));
                request
            }));
        Self {
            router,
            graphs,
            gate,
            store,
            scoring,
            runs,
            background,
            config,
            folder: Some(folder),
        }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response =
            self.router.clone().oneshot(request).await.expect("the router is infallible");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("the body arrives").to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).expect("a valid request")).await
    }

    pub(crate) async fn score(&self, form: Form) -> Answer {
        self.send(score_request(form)).await
    }

    /// Number of samples in the method's row for a metric; 0 without a row.
    pub(crate) async fn counted(&self, method: &str, metric: &str) -> u64 {
        let board = self.get(&format!("/v1/leaderboard?method={method}")).await.ok();
        board["rows"][0]["metrics"][metric]["n"].as_u64().unwrap_or(0)
    }

    /// The value of a line of `/metrics`; 0 if it is missing.
    pub(crate) async fn number(&self, line: &str) -> f64 {
        let text = self.get("/metrics").await.body;
        let text = std::str::from_utf8(&text).expect("the format is UTF-8");
        text.lines()
            .find_map(|have| have.strip_prefix(line)?.strip_prefix(' ')?.parse().ok())
            .unwrap_or(0.0)
    }

    /// Waits until a line of `/metrics` has a value.
    pub(crate) async fn until(&self, line: &str, value: f64) {
        let started = Instant::now();
        while (self.number(line).await - value).abs() > f64::EPSILON {
            assert!(started.elapsed() < Duration::from_secs(20), "{line} never became {value}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until a line of `/metrics` reaches a value.
    pub(crate) async fn until_at_least(&self, line: &str, value: u32) {
        let started = Instant::now();
        while self.number(line).await < f64::from(value) {
            assert!(started.elapsed() < Duration::from_secs(20), "{line} never reached {value}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Listens on a free port of this machine until the test ends.
    pub(crate) async fn listen(&self) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let router = self.router.clone();
        let (limits, open) = (self.config.server.connection_limits(), Telemetry::new().admission);
        // The sender lives as long as the task, so the server never stops.
        tokio::spawn(async move {
            let (_stop, stopped) = tokio::sync::watch::channel(false);
            stellar_score::server::serve(listener, router, limits, open, stopped).await;
        });
        address
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // The engine joins its threads when it is dropped.
        self.gate.open();
    }
}

pub(crate) fn demo_pack() -> Pack {
    Pack::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("packs/demo"))
        .expect("the demo pack is whole")
}

pub(crate) fn score_request(form: Form) -> Request<Body> {
    let body = form.finish();
    Request::post("/v1/score")
        .header(header::CONTENT_TYPE, Form::content_type())
        .header(header::CONTENT_LENGTH, body.len())
        .body(Body::from(body))
        .expect("a valid request")
}

impl Answer {
    /// The document of a successful response.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// The document for any status.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// Checks that the response is a complete problem document with this status and code, and
    /// returns its detail.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) -> String {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status.as_u16(), status, "{text}");
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json", "{text}");
        let problem = self.json();
        assert_eq!(problem["code"], code, "{text}");
        assert_eq!(problem["status"], status, "{text}");
        assert_eq!(problem["type"], format!("urn:stellar-score:problem:{code}"));
        assert!(problem["title"].as_str().is_some_and(|title| !title.is_empty()), "{text}");
        let id = problem["request_id"].as_str().expect("a request id");
        assert!(!id.is_empty());
        assert_eq!(
            self.headers["x-request-id"], id,
            "the header and the body name the same request"
        );
        if matches!(status, 429 | 503) {
            let after = self.headers[header::RETRY_AFTER].to_str().expect("text");
            assert!(after.parse::<u32>().is_ok_and(|seconds| seconds > 0), "Retry-After: {after}");
        }
        problem["detail"].as_str().expect("a detail").to_owned()
    }
}

/// Checks that a detail contains all of `words`.
#[track_caller]
pub(crate) fn tells(detail: &str, words: &[&str]) {
    for word in words {
        assert!(detail.contains(word), "`{word}` is missing in: {detail}");
    }
}

/// Holds back runs of the graphs, so that tests control what happens while a request is in flight.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Default)]
struct GateState {
    closed: bool,
    /// The only graph to hold back.
    hanging: Option<String>,
    waiting: usize,
}

impl Gate {
    pub(crate) fn close(&self) {
        self.0.0.lock().expect("lock not poisoned").closed = true;
    }

    /// Holds back one graph only.
    #[allow(dead_code, reason = "two test programs include this file, and only one hangs graphs")]
    pub(crate) fn hang(&self, role: &str) {
        self.0.0.lock().expect("lock not poisoned").hanging = Some(role.to_owned());
    }

    pub(crate) fn open(&self) {
        {
            let mut state = self.0.0.lock().expect("lock not poisoned");
            (state.closed, state.hanging) = (false, None);
        }
        self.0.1.notify_all();
    }

    /// Waits until this many graphs are held at the gate with a batch.
    pub(crate) async fn reached_by(&self, count: usize) {
        let started = Instant::now();
        while self.0.0.lock().expect("lock not poisoned").waiting < count {
            assert!(started.elapsed() < Duration::from_secs(20), "no run reached the gate");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn pass(&self, role: &str) {
        let mut state = self.0.0.lock().expect("lock not poisoned");
        state.waiting += 1;
        while state.closed || state.hanging.as_deref() == Some(role) {
            state = self.0.1.wait(state).expect("lock not poisoned");
        }
        state.waiting -= 1;
    }
}

struct Gated {
    backend: FakeBackend,
    role: String,
    gate: Gate,
}

impl Backend for Gated {
    fn run(&mut self, batch: &[Vec<Tensor>]) -> Result<Vec<Features>, BackendError> {
        self.gate.pass(&self.role);
        self.backend.run(batch)
    }
}
