//! API keys: who may call which route, limits, revocation, and the audit log.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{Method, Request, header},
};
use serde_json::{Value, json};
use stellar_score::{
    api,
    key::{Key, KeyLimits, Scope},
    store::{AuditEntry, AuditQuery, KeyRecord},
};
use time::OffsetDateTime;
use tower::ServiceExt as _;

use crate::{
    adapters::told,
    harness::{Answer, App, ONE_GRAPH, score_request, tells},
    runs::{form, post, put},
    support::{
        client::{Exchange, send},
        form::Form,
        images::png,
    },
};

/// Longer than any refusal takes, and shorter than the time for a body.
const AT_ONCE: Duration = Duration::from_secs(5);

impl App {
    /// Creates a key and returns its text.
    pub(crate) async fn key(&self, name: &str, scopes: &[Scope], limits: KeyLimits) -> String {
        let (key, record) = new_key(name, scopes, limits);
        assert!(self.store.create_key(&record).await.unwrap());
        key
    }

    /// Sends a request with this key.
    pub(crate) async fn with_key(&self, key: &str, mut request: Request<Body>) -> Answer {
        let value = format!("Bearer {key}").parse().unwrap();
        request.headers_mut().insert(header::AUTHORIZATION, value);
        tokio::time::timeout(AT_ONCE, self.send(request)).await.expect("a response at once")
    }

    /// Waits until the audit log has this many entries.
    async fn audited(&self, count: usize) -> Vec<AuditEntry> {
        let query = AuditQuery { limit: 100, ..AuditQuery::default() };
        for _ in 0..1_000 {
            let entries = self.store.audit(&query).await.unwrap();
            if entries.len() >= count {
                return entries;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the audit log never had {count} entries");
    }
}

pub(crate) fn new_key(name: &str, scopes: &[Scope], limits: KeyLimits) -> (String, KeyRecord) {
    let key = Key::generate().unwrap();
    let record = KeyRecord {
        id: key.id(),
        name: name.to_owned(),
        hash: key.hash(),
        scopes: scopes.to_vec(),
        limits,
        created: OffsetDateTime::now_utc(),
        expires: None,
        revoked: None,
    };
    (key.reveal(), record)
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

/// What an operation of the API document needs.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Needs {
    Nothing,
    /// Nothing, unless it is configured.
    Optional(Scope),
    Key(Scope),
}

/// Every documented operation with what it needs, by route and method.
fn operations() -> BTreeMap<(String, String), Needs> {
    let document = serde_json::to_value(api::openapi()).unwrap();
    for scheme in ["bearer", "basic"] {
        let described = &document["components"]["securitySchemes"][scheme];
        assert_eq!(described["scheme"], scheme, "{described}");
    }
    let mut found = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = format!("{method} {path}");
            let security = operation["security"].as_array();
            let security = security.unwrap_or_else(|| panic!("{name} declares no scope"));
            let scope = |of: &Value| -> Scope {
                let (bearer, basic) =
                    (&of[of.as_array().unwrap().len() - 2], of.as_array().unwrap());
                assert_eq!(bearer["bearer"], basic.last().unwrap()["basic"], "{name}");
                assert_eq!(bearer["bearer"].as_array().map(Vec::len), Some(1), "{name}");
                bearer["bearer"][0].as_str().unwrap().parse().unwrap()
            };
            let needs = match security.len() {
                0 => Needs::Nothing,
                2 => Needs::Key(scope(&operation["security"])),
                3 if security[0] == json!({}) => Needs::Optional(scope(&operation["security"])),
                _ => panic!("{name}: {security:?}"),
            };
            found.insert((path.clone(), method.to_uppercase()), needs);
        }
    }
    assert!(found.len() > 30, "{found:?}");
    found
}

/// A route with values for its parameters.
fn filled(path: &str) -> String {
    let segments = path.split('/').map(|segment| match segment {
        "{id}" | "{a}" | "{b}" => "01a2080b-059b-72b5-877a-51b1e250e5a5",
        "{hash}" => "0000000000000000000000000000000000000000000000000000000000000000",
        other => other.trim_matches(['{', '}']),
    });
    segments.collect::<Vec<_>>().join("/")
}

/// A body that never ends, and notes if anybody reads it.
fn endless(read: &Arc<AtomicBool>) -> Body {
    let read = Arc::clone(read);
    Body::from_stream(futures_util::stream::poll_fn(move |_| {
        read.store(true, Ordering::Relaxed);
        Poll::<Option<Result<Bytes, Infallible>>>::Pending
    }))
}

#[tokio::test]
async fn every_operation_refuses_every_wrong_key_before_its_body_is_read() {
    let app = App::start().await;
    let mut keys = BTreeMap::new();
    for scope in Scope::ALL {
        keys.insert(scope, app.key(scope.name(), &[scope], KeyLimits::default()).await);
    }
    let all_but = |scope: Scope| Scope::ALL.into_iter().filter(move |other| *other != scope);
    for ((path, method), needs) in operations() {
        let name = format!("{method} {path}");
        let request = |body: Body| {
            let request = Request::builder().method(&*method).uri(filled(&path));
            request.header(header::CONTENT_TYPE, "application/json").body(body).unwrap()
        };
        let (Needs::Key(scope) | Needs::Optional(scope)) = needs else {
            assert_ne!(app.send(request(Body::empty())).await.status, 401, "{name}");
            continue;
        };
        if let Needs::Optional(_) = needs {
            assert_eq!(app.send(request(Body::empty())).await.status, 200, "{name}");
            continue;
        }
        let read = Arc::new(AtomicBool::new(false));
        let refused = tokio::time::timeout(AT_ONCE, app.send(request(endless(&read)))).await;
        let refused = refused.unwrap_or_else(|_| panic!("{name} waits for its body"));
        // Adapters tell errors in the forms of their clients.
        let detail = |answer: &Answer, status: u16, code: &str| {
            if path.starts_with("/rl/") {
                assert_eq!(answer.status, status, "{name}");
                told(&path, answer)
            } else {
                answer.problem(status, code)
            }
        };
        tells(&detail(&refused, 401, "unauthorized"), &["API key", "Bearer"]);
        let challenges: Vec<_> = refused.headers.get_all(header::WWW_AUTHENTICATE).iter().collect();
        assert_eq!(challenges.len(), 2, "{name}: {challenges:?}");
        for other in all_but(scope) {
            let refused = app.with_key(&keys[&other], request(endless(&read))).await;
            let detail = detail(&refused, 403, "scope_missing");
            tells(&detail, &[scope.name(), other.name()]);
            assert_eq!(refused.headers[header::CONNECTION], "close", "{name}");
        }
        assert!(!read.load(Ordering::Relaxed), "{name} reads the body of a refused request");
        let admitted = app.with_key(&keys[&scope], request(Body::empty())).await;
        assert!(!matches!(admitted.status.as_u16(), 401 | 403), "{name}: {admitted:?}");
    }
}

#[test]
fn the_permission_table_in_the_documentation_is_complete() {
    let mut expected = BTreeSet::new();
    for ((path, method), needs) in operations() {
        let mark = |scope: Scope| match needs {
            Needs::Nothing => "yes",
            Needs::Optional(_) => "yes¹",
            Needs::Key(needed) if needed == scope => "yes",
            Needs::Key(_) => "–",
        };
        let open = match needs {
            Needs::Nothing => "yes",
            Needs::Optional(_) => "yes¹",
            Needs::Key(_) => "–",
        };
        let marks = Scope::ALL.map(mark).join(" | ");
        expected.insert(format!("| `{method} {path}` | {open} | {marks} |"));
    }
    let page = include_str!("../../docs/KEYS.md");
    let rows = page.lines().filter(|line| line.starts_with("| `") && line.contains(" /"));
    let rows: BTreeSet<_> = rows.map(str::to_owned).collect();
    let all: Vec<_> = expected.iter().map(String::as_str).collect();
    assert!(rows == expected, "docs/KEYS.md must have these rows:\n{}", all.join("\n"));
}

#[tokio::test]
async fn routes_outside_the_document_need_a_key_too() {
    let app = App::start().await;
    let key = app.key("reader", &[Scope::Read], KeyLimits::default()).await;
    for path in ["/", "/docs", "/docs/", "/openapi.json", "/nowhere", "/v1/nowhere", "/v1/score"] {
        app.get(path).await.problem(401, "unauthorized");
        let status = app.with_key(&key, get(path)).await.status.as_u16();
        assert!(!matches!(status, 401 | 403), "{path}: {status}");
    }
    let old = |method: Method| {
        Request::builder().method(method).uri("/v1/pictures/00").body(Body::empty()).unwrap()
    };
    app.send(old(Method::DELETE)).await.problem(401, "unauthorized");
    app.with_key(&key, old(Method::DELETE)).await.problem(403, "scope_missing");
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(app.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn keys_are_needed_from_the_first_one_until_all_are_removed_and_revoked_at_once() {
    let app = App::start().await;
    app.get("/v1/runs").await.ok();
    // A key that another service needs is ignored while this one needs none.
    app.with_key(&new_key("x", &[], KeyLimits::default()).0, get("/v1/runs")).await.ok();
    let key = app.key("ci", &[Scope::Read], KeyLimits::default()).await;
    app.get("/v1/runs").await.problem(401, "unauthorized");
    app.with_key(&key, get("/v1/runs")).await.ok();
    let other = new_key("y", &[Scope::Read], KeyLimits::default()).0;
    tells(&app.with_key(&other, get("/v1/runs")).await.problem(401, "unauthorized"), &["unknown"]);
    // The right id with another secret.
    let forged = format!("{}{}", &key[..41], &other[41..]);
    tells(&app.with_key(&forged, get("/v1/runs")).await.problem(401, "unauthorized"), &["unknown"]);

    app.store.revoke_key("ci", OffsetDateTime::now_utc()).await.unwrap().unwrap();
    let detail = app.with_key(&key, get("/v1/runs")).await.problem(401, "unauthorized");
    tells(&detail, &["`ci`", "was revoked"]);
    app.get("/v1/runs").await.problem(401, "unauthorized");

    let (expired, record) = new_key("old", &[Scope::Read], KeyLimits::default());
    let yesterday = OffsetDateTime::now_utc() - time::Duration::days(1);
    app.store.create_key(&KeyRecord { expires: Some(yesterday), ..record }).await.unwrap();
    let detail = app.with_key(&expired, get("/v1/runs")).await.problem(401, "unauthorized");
    tells(&detail, &["`old`", "expired"]);

    app.store.remove_keys().await.unwrap();
    app.get("/v1/runs").await.ok();
}

#[tokio::test]
async fn without_keys_other_machines_are_refused_unless_they_are_allowed() {
    let open = |allow: bool| {
        App::with(move |setup| {
            setup.config.server.listen = "0.0.0.0:8080".parse().unwrap();
            setup.config.server.allow_anonymous = allow;
        })
    };
    open(false).await.get("/v1/runs").await.problem(401, "unauthorized");
    let app = open(true).await;
    app.get("/v1/runs").await.ok();
    app.key("ci", &[Scope::Read], KeyLimits::default()).await;
    app.get("/v1/runs").await.problem(401, "unauthorized");
}

#[tokio::test]
async fn service_metrics_need_a_key_if_configured() {
    let app = App::with(|setup| setup.config.keys.metrics = true).await;
    assert_eq!(app.get("/metrics").await.status, 200, "there are no keys");
    let reader = app.key("reader", &[Scope::Read], KeyLimits::default()).await;
    let scorer = app.key("scorer", &[Scope::Score], KeyLimits::default()).await;
    app.get("/metrics").await.problem(401, "unauthorized");
    app.with_key(&scorer, get("/metrics")).await.problem(403, "scope_missing");
    assert_eq!(app.with_key(&reader, get("/metrics")).await.status, 200);
    assert_eq!(app.get("/livez").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_socket_the_refusal_comes_before_the_body_and_is_seen() {
    let app = App::start().await;
    let key = app.key("reader", &[Scope::Read], KeyLimits::default()).await;
    let address = app.listen().await;
    let both = [None, Some(key)];
    tokio::task::spawn_blocking(move || -> io::Result<()> {
        for key in both {
            let bearer = key.as_ref().map(|key| format!("Bearer {key}"));
            let expected = if key.is_some() { 403 } else { 401 };
            let mut headers = vec![("transfer-encoding", "chunked")];
            headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
            let mut exchange = Exchange::begin(address, "POST /v1/score", &headers, 0)?;
            exchange.send(b"4\r\nmore\r\n")?;
            // The last chunk is never sent.
            let started = std::time::Instant::now();
            assert_eq!(exchange.receive()?.status, expected);
            assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
            // A client that sends all of a large body first must not get a reset instead.
            let body = vec![b'x'; 16 << 20];
            let response = send(address, "POST /v1/score", &headers[1..], &body)?;
            assert_eq!(response.status, expected);
        }
        Ok(())
    })
    .await
    .unwrap()
    .unwrap();
}

fn fields(answer: &Answer) -> (String, String) {
    let text = |name: &str| answer.headers[name].to_str().unwrap().to_owned();
    (text("ratelimit-policy"), text("ratelimit"))
}

#[tokio::test]
async fn a_key_has_limits_of_its_own_and_is_told_about_them() {
    let app = App::start().await;
    let limits = KeyLimits { requests_per_minute: Some(2), ..KeyLimits::default() };
    let key = app.key("slow", &[Scope::Read], limits).await;
    let other = app.key("fast", &[Scope::Read], KeyLimits::default()).await;
    let first = app.with_key(&key, get("/v1/runs")).await;
    first.ok();
    let (policy, state) = fields(&first);
    assert_eq!(policy, "\"requests\";q=2;w=60");
    assert_eq!(state, "\"requests\";r=1;t=30");
    app.with_key(&key, get("/v1/runs")).await.ok();
    let refused = app.with_key(&key, get("/v1/runs")).await;
    tells(&refused.problem(429, "key_limit"), &["2 requests per minute"]);
    let (_, state) = fields(&refused);
    let after = refused.headers[header::RETRY_AFTER].to_str().unwrap();
    assert_eq!(state, format!("\"requests\";r=0;t={after}"));
    let unlimited = app.with_key(&other, get("/v1/runs")).await;
    unlimited.ok();
    assert!(!unlimited.headers.contains_key("ratelimit"));
}

#[tokio::test]
async fn images_are_counted_with_those_that_are_sent_beside_them() {
    let app = App::start().await;
    let limits = KeyLimits { images_per_minute: Some(2), ..KeyLimits::default() };
    let key = app.key("scorer", &[Scope::Score], limits).await;
    let three = Form::new()
        .file("image", png(1))
        .file("reference", png(2))
        .file("reference", png(3))
        .field("metrics", ONE_GRAPH);
    let first = app.with_key(&key, score_request(three)).await;
    first.ok();
    assert!(fields(&first).1.starts_with("\"images\";r=0;t="), "{first:?}");
    let one = Form::new().file("image", png(1)).field("metrics", ONE_GRAPH);
    let refused = app.with_key(&key, score_request(one)).await;
    tells(&refused.problem(429, "key_limit"), &["2 images per minute"]);
}

#[tokio::test]
async fn concurrent_requests_of_a_key_are_limited() {
    let app = App::start().await;
    let limits = KeyLimits { concurrent_requests: Some(1), ..KeyLimits::default() };
    let key = app.key("scorer", &[Scope::Score, Scope::Read], limits).await;
    app.gate.close();
    let one = Form::new().file("image", png(1)).field("metrics", ONE_GRAPH);
    let waits = app.with_key(&key, score_request(one));
    let meanwhile = async {
        app.gate.reached_by(1).await;
        let refused = app.with_key(&key, get("/v1/runs")).await;
        tells(&refused.problem(429, "key_limit"), &["1 concurrent requests"]);
        app.gate.open();
    };
    let (answer, ()) = tokio::join!(waits, meanwhile);
    answer.ok();
    let listed = app.with_key(&key, get("/v1/runs")).await;
    listed.ok();
    assert_eq!(listed.headers[header::CONTENT_LENGTH], listed.body.len().to_string());
}

#[tokio::test]
async fn stored_bytes_of_a_key_are_limited_until_they_are_released() {
    let app = App::start().await;
    let run = app.run_of("A").await;
    let length = form(1).finish().len() as u64;
    let limits = KeyLimits { stored_bytes: Some(length + 10), ..KeyLimits::default() };
    let key = app.key("scorer", &[Scope::Score], limits).await;
    let reader = app.key("reader", &[Scope::Read], KeyLimits::default()).await;
    app.gate.close();
    assert_eq!(app.with_key(&key, put(&run, "1", form(1))).await.status, 202);
    let refused = app.with_key(&key, put(&run, "2", form(2))).await;
    tells(&refused.problem(429, "key_limit"), &["bytes in the spool"]);
    assert!(fields(&refused).1.starts_with("\"stored\";r="), "{refused:?}");
    app.gate.open();
    for _ in 0..1_000 {
        let now = app.with_key(&reader, get(&format!("/v1/runs/{run}"))).await.ok();
        if now["counts"]["scored"] == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The sum is a second old at most.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(app.with_key(&key, put(&run, "2", form(2))).await.status, 202);
}

#[tokio::test]
async fn writes_and_deletions_are_audited_without_prompts_and_names_of_people() {
    let app = App::start().await;
    let all = app.key("operator", &Scope::ALL, KeyLimits::default()).await;
    let reader = app.key("reader", &[Scope::Read], KeyLimits::default()).await;
    let form = Form::new()
        .file("image", png(1))
        .field("prompt", "a zebra in Zürich")
        .field("metrics", ONE_GRAPH)
        .field("method", "mine");
    let scored = app.with_key(&all, score_request(form)).await.ok();
    let run = scored["run_id"].as_str().unwrap();
    let delete = |path: String| {
        let request = Request::delete(path).header("x-request-id", "request-7");
        request.body(Body::empty()).unwrap()
    };
    app.with_key(&all, get("/v1/runs")).await.ok();
    app.with_key(&reader, delete(format!("/v1/runs/{run}"))).await.problem(403, "scope_missing");
    app.with_key(&all, delete(format!("/v1/runs/{run}"))).await.ok();
    app.with_key(&all, delete("/v1/annotators/ada".into())).await.problem(404, "not_found");
    app.send(delete(format!("/v1/runs/{run}"))).await.problem(401, "unauthorized");

    let entries = app.audited(4).await;
    let short: Vec<_> = entries
        .iter()
        .map(|entry| {
            let key = entry.key.as_ref().map(|(_, name)| name.as_str());
            (key.unwrap(), &*entry.method, &*entry.route, entry.status)
        })
        .collect();
    assert_eq!(
        short,
        [
            ("operator", "DELETE", "/v1/annotators/{annotator}", 404),
            ("operator", "DELETE", "/v1/runs/{id}", 200),
            ("reader", "DELETE", "/v1/runs/{id}", 403),
            ("operator", "POST", "/v1/score", 200),
        ]
    );
    assert_eq!((&*entries[1].resource, &*entries[1].request_id), (run, "request-7"));
    assert!(entries[0].resource.starts_with("blake3:"), "{:?}", entries[0]);
    let page = app.with_key(&all, get("/v1/audit?key=operator&limit=2")).await.ok();
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    let next = page["next"].as_str().unwrap();
    let rest = app.with_key(&all, get(&format!("/v1/audit?key=operator&after={next}"))).await.ok();
    assert_eq!(rest["items"].as_array().unwrap().len(), 1);
    assert_eq!(rest["items"][0]["route"], "/v1/score");
    let since = app.with_key(&all, get("/v1/audit?since=2999-01-01T00:00:00Z")).await.ok();
    assert_eq!(since["items"], json!([]));
    let text = format!("{entries:?}");
    for secret in ["zebra", "ada\"", &all[41..]] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

#[tokio::test]
async fn without_keys_the_audit_log_has_no_name_and_a_client_that_leaves_is_recorded() {
    let app = App::start().await;
    app.send(post("/v1/methods", &json!({"name": "A"}))).await;
    let entry = app.audited(1).await.remove(0);
    assert_eq!((entry.key, &*entry.route, entry.address), (None, "/v1/methods", None));
    app.gate.close();
    let one = Form::new().file("image", png(1)).field("metrics", ONE_GRAPH);
    let mut request = score_request(one);
    request.headers_mut().insert(header::HOST, "localhost".parse().unwrap());
    tokio::select! {
        _ = app.router.clone().oneshot(request) => panic!("it waits at the gate"),
        () = app.gate.reached_by(1) => {}
    }
    let entry = app.audited(2).await.remove(0);
    assert_eq!((&*entry.route, entry.status), ("/v1/score", 499));
}
