//! Traces as a collector receives them, and what they and the log must never contain.

mod collector;

use std::{
    collections::{BTreeSet, HashMap},
    net::TcpListener,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;

use self::collector::{Collector, Span};
use crate::{
    harness::{Server, folder, read, run, serve, until},
    runs::{counts, new_run},
    support::{
        client::{self, Answer},
        form::Form,
        images::png,
    },
};

/// Settings with which spans are sent at once to this collector.
fn settings<'a>(endpoint: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let ours = [
        ("STELLAR_TRACES__ENDPOINT", endpoint),
        ("STELLAR_TRACES__SERVICE_NAME", "scores"),
        ("STELLAR_TRACES__DELAY_SECONDS", "1"),
        ("STELLAR_LOG__FORMAT", "json"),
    ];
    ours.into_iter().chain(more.iter().copied()).collect()
}

/// The trace with this number, as callers name it.
fn trace(number: u32) -> String {
    format!("4bf92f3577b34da6a3ce929d{number:08x}")
}

/// The span of every caller.
const CALLER: &str = "00f067aa0ba902b7";

fn send(server: &Server, request: &str, number: u32, more: &[(&str, &str)], form: Form) -> Answer {
    let parent = format!("00-{}-{CALLER}-01", trace(number));
    let kind = Form::content_type();
    let headers = [&[("content-type", &*kind), ("traceparent", &*parent)], more].concat();
    client::send(server.address, request, &headers, &form.finish()).expect("a response")
}

/// A trace as a tree.
struct Tree(HashMap<String, Span>);

impl Tree {
    /// Checks that there is one root, and that every span begins within its parent.
    #[track_caller]
    fn new(spans: Vec<Span>, root: &str, parent: &str) -> Self {
        let spans: HashMap<_, _> = spans.into_iter().map(|span| (span.id.clone(), span)).collect();
        for span in spans.values() {
            let [start, end] = span.times;
            assert!(start <= end, "{span:?}");
            if span.name == root {
                assert_eq!(span.parent, parent, "{span:?}");
                continue;
            }
            let around = spans.get(&span.parent).unwrap_or_else(|| panic!("an orphan: {span:?}"));
            assert!(around.times[0] <= start, "{span:?} begins before {around:?}");
            // A span ends when a thread leaves it for the last time. Other threads send their
            // result first, so the caller's span may end a moment earlier.
            assert!(start <= around.times[1], "{span:?} begins after {around:?}");
        }
        Self(spans)
    }

    /// Returns the names of a span's ancestors, innermost first. Features that need others
    /// contain them, which counts as one step.
    fn path(&self, span: &Span) -> Vec<&str> {
        let parents = std::iter::successors(self.0.get(&span.parent), |of| self.0.get(&of.parent));
        let others = parents.skip_while(|of| of.name == span.name).map(|of| &*of.name);
        let mut names: Vec<_> = others.collect();
        names.dedup();
        names
    }

    /// Checks that spans of this name exist, and that all have these ancestors.
    #[track_caller]
    fn has(&self, name: &str, path: &[&str]) {
        let mut found = self.0.values().filter(|span| span.name == name).peekable();
        assert!(found.peek().is_some(), "no span {name}: {:?}", self.names());
        for span in found {
            assert_eq!(self.path(span), path, "{span:?}");
        }
    }

    fn names(&self) -> BTreeSet<&str> {
        self.0.values().map(|span| &*span.name).collect()
    }

    #[track_caller]
    fn one(&self, name: &str) -> &Span {
        let found: Vec<_> = self.0.values().filter(|span| span.name == name).collect();
        assert_eq!(found.len(), 1, "{name}: {:?}", self.names());
        found[0]
    }
}

/// The log's lines with this message.
fn logged(log: &str, message: &str) -> Vec<Value> {
    let lines = log.lines().map(|line| serde_json::from_str(line).expect("a JSON line"));
    lines.filter(|line: &Value| line["message"] == message).collect()
}

/// Words that may not be in the log or in a trace, with where they were sent.
const SECRETS: [&str; 8] = [
    "prompt-c0ffee",
    "identity-c0ffee",
    "object-c0ffee",
    "file-c0ffee",
    "sample-c0ffee",
    "key-c0ffee",
    "query-c0ffee",
    "password-c0ffee",
];

/// Sets names of the client's everywhere.
fn secret_form(seed: u32) -> Form {
    let head = "Content-Disposition: form-data; name=\"image\"; filename=\"file-c0ffee.png\"\r\n\
                Content-Type: image/png";
    Form::new()
        .part(head, &png(seed))
        .file("reference", png(seed + 1))
        .field("prompt", "prompt-c0ffee rides a horse")
        .field("metadata", r#"{"identity": "identity-c0ffee", "detectables": ["object-c0ffee"]}"#)
}

#[track_caller]
fn holds_no_secret(text: &str, of: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{of} has {secret}");
    }
}

#[test]
fn every_request_is_one_trace_and_neither_traces_nor_the_log_have_what_clients_sent() {
    let (folder, collector) = (folder(), Collector::start());
    let endpoint = collector.endpoint();
    let filter = [("STELLAR_LOG__FILTER", "info,stellar_score=trace")];
    let server = Server::start(folder.path(), &settings(&endpoint, &filter));
    let key = [("authorization", "Bearer key-c0ffee"), ("tracestate", "vendor=key-c0ffee")];

    let form = secret_form(1).field("method", "other").field("name", "sample-c0ffee");
    let response = send(&server, "POST /v1/score", 1, &key, form);
    assert_eq!(response.status, 200, "{}", response.json());
    let request = response.header("x-request-id").expect("an id").to_owned();
    let root = "POST /v1/score";
    let spans = Tree::new(collector.trace(&trace(1), root), root, CALLER);
    for name in ["admission", "read", "score", "store"] {
        spans.has(name, &[root]);
    }
    spans.has("feature", &["score", root]);
    spans.has("transaction", &["store", root]);
    spans.has("decode", &["feature", "score", root]);
    spans.has("queue", &["feature", "score", root]);
    let models = spans.0.values().filter(|span| span.name == "model");
    let paths: BTreeSet<_> = models.map(|span| spans.path(span)).collect();
    assert!(paths.contains(&vec!["batch", "feature", "score", root]), "{paths:?}");
    let attributes = &spans.one(root).attributes;
    assert_eq!(attributes["http.route"], "/v1/score");
    assert_eq!(attributes["http.response.status_code"], "200");
    assert_eq!(attributes["stellar.request_id"], request);
    let stored = logged(&read(&folder.path().join("log.txt")), "sample scored and stored");
    assert_eq!(stored[0]["trace_id"], Value::from(trace(1)), "{stored:?}");
    assert_eq!(stored[0]["request_id"], Value::from(request), "{stored:?}");

    // A sample that is scored after its request continues the trace of the request.
    let run = new_run(&server);
    let put = format!("PUT /v1/runs/{run}/samples/sample-c0ffee");
    assert_eq!(send(&server, &put, 2, &key, secret_form(10)).status, 202);
    until("the sample to be scored", || (counts(&server, &run).0 == 1).then_some(()));
    let spans = collector.trace(&trace(2), "score sample");
    let root = "PUT /v1/runs/{id}/samples/{name}";
    let (request, later): (Vec<_>, Vec<_>) = {
        let all = Tree(spans.iter().map(|span| (span.id.clone(), span.clone())).collect());
        let is_later =
            |span: &Span| span.name == "score sample" || all.path(span).contains(&"score sample");
        spans.into_iter().partition(|span| !is_later(span))
    };
    let request = Tree::new(request, root, CALLER);
    for name in ["admission", "read", "spool", "store"] {
        request.has(name, &[root]);
    }
    let later = Tree::new(later, "score sample", &request.one(root).id);
    for name in ["read", "score", "store"] {
        later.has(name, &["score sample"]);
    }
    later.has("decode", &["feature", "score", "score sample"]);
    assert_eq!(later.one("score sample").attributes["stellar.outcome"], "recorded");

    // Errors do not repeat what was sent either.
    let refused = [
        "PUT /v1/runs/sample-c0ffee/samples/sample-c0ffee",
        "GET /v1/leaderboard?method=query-c0ffee&nonsense=query-c0ffee",
        "GET /sample-c0ffee?key=query-c0ffee",
    ];
    for request in refused {
        assert!(send(&server, request, 3, &key, Form::new()).status >= 400, "{request}");
    }
    let broken = Form::new().field("image", "prompt-c0ffee").field("prompt-c0ffee", "x");
    assert!(send(&server, "POST /v1/score", 4, &key, broken).status >= 400);
    collector.trace(&trace(4), "POST /v1/score");

    server.terminate();
    let (status, log) = server.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    holds_no_secret(&log, "the log");
    holds_no_secret(&collector.text(), "a trace");
    // An embedding or an image would make a long line.
    assert!(log.lines().all(|line| line.len() < 2000), "{log}");
}

#[test]
fn the_password_of_a_database_is_not_logged() {
    let folder = folder();
    let mut command = serve(folder.path());
    command.env("STELLAR_STORE__URL", "postgres://me:password-c0ffee@127.0.0.1:1/scores");
    command.env("STELLAR_LOG__FILTER", "trace");
    let ran = run(&mut command);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    holds_no_secret(&ran.stderr, "the log");
}

#[test]
fn a_batch_is_linked_to_its_items_and_a_shared_computation_to_its_owner() {
    let (folder, collector) = (folder(), Collector::start());
    let endpoint = collector.endpoint();
    // Incomplete batches wait, so that requests at the same time share them.
    let delay = [("STELLAR_ENGINE__MAX_DELAY_MS", "300")];
    let server = Server::start(folder.path(), &settings(&endpoint, &delay));
    let sent: Vec<u32> = (20..26).collect();
    std::thread::scope(|scope| {
        for &number in &sent {
            let server = &server;
            scope.spawn(move || {
                // The last two send the same image.
                let form = Form::new().file("image", png(number.min(24)));
                let form = form.field("metrics", "aesthetic");
                assert_eq!(send(server, "POST /v1/score", number, &[], form).status, 200);
            });
        }
    });
    for number in &sent {
        let spans = Tree(
            collector
                .trace(&trace(*number), "POST /v1/score")
                .into_iter()
                .map(|span| (span.id.clone(), span))
                .collect(),
        );
        let feature = spans.one("feature");
        if feature.attributes["origin"] == "computed" {
            assert!(spans.names().is_superset(&["queue", "model"].into()), "{:?}", spans.names());
        }
    }
    let batches = collector.named("batch");
    let features: HashMap<_, _> = collector
        .named("feature")
        .into_iter()
        .map(|span| ((span.trace.clone(), span.id.clone()), span))
        .collect();
    let linked: Vec<_> = batches.iter().flat_map(|batch| &batch.links).collect();
    for batch in &batches {
        assert_eq!(batch.attributes["items"], batch.links.len().to_string(), "{batch:?}");
        assert!(batch.links.iter().any(|(_, span)| *span == batch.parent), "{batch:?}");
    }
    assert!(batches.iter().any(|batch| batch.links.len() > 1), "no batch of several: {batches:?}");
    let computed: Vec<_> =
        features.iter().filter(|(_, span)| span.attributes["origin"] == "computed").collect();
    for (id, _) in &computed {
        assert_eq!(linked.iter().filter(|link| *link == id).count(), 1, "one batch per item");
    }
    assert_eq!(linked.len(), computed.len(), "every item is a feature");
    // The items other than a batch's first have its time in their own trace, linked to it.
    let apart = collector.named("model").into_iter().filter(|model| !model.links.is_empty());
    let ids: BTreeSet<_> =
        batches.iter().map(|span| (span.trace.clone(), span.id.clone())).collect();
    let apart: Vec<_> = apart.collect();
    assert_eq!(apart.len(), linked.len() - batches.len());
    assert!(apart.iter().all(|model| ids.contains(&model.links[0])), "{apart:?}");
    // The image that was sent twice was computed once, unless the second request came too late.
    for (_, span) in features.iter().filter(|(_, span)| span.attributes["origin"] == "shared") {
        assert_eq!(features[&span.links[0]].attributes["origin"], "computed");
    }
}

/// Value of a series of `stellar_trace_spans_total`.
fn spans_by(server: &Server, outcome: &str) -> f64 {
    server.gauge(&format!("stellar_trace_spans_total{{outcome=\"{outcome}\"}}"))
}

#[track_caller]
fn scores_promptly_and_stops(at: &Path, endpoint: &str, lost: &str) {
    let more = [("STELLAR_TRACES__QUEUE", "5")];
    let server = Server::start(at, &settings(endpoint, &more));
    for seed in 0..2 {
        let form = Form::new().file("image", png(seed)).field("metrics", "aesthetic");
        assert_eq!(server.score(form).status, 200);
    }
    until("spans to be lost", || (spans_by(&server, lost) > 0.0).then_some(()));
    assert!(spans_by(&server, "exported") < 1.0);
    let started = Instant::now();
    server.terminate();
    let (status, log) = server.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(started.elapsed() < Duration::from_secs(8), "it waited for the collector: {log}");
}

#[test]
fn a_collector_that_is_down_or_silent_costs_spans_and_nothing_else() {
    let folder = folder();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("an address");
    scores_promptly_and_stops(folder.path(), &format!("http://{address}"), "dropped");
    drop(silent);
    scores_promptly_and_stops(folder.path(), &format!("http://{address}"), "failed");
}
