//! API keys: every request is checked before its body is read (`docs/KEYS.md`).
//!
//! The key is looked up for each request, by its primary key, so that a revocation is effective at
//! once on every instance.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, OnceLock},
};

use axum::{
    body::{Body, HttpBody as _},
    extract::{MatchedPath, RawPathParams, Request, State, rejection::RawPathParamsRejection},
    http::{HeaderMap, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::{
    access::{Access, AccessTable},
    audit::{self, Audited},
    error::{ApiError, Code},
    forward,
    key_limits::{self, Usage},
};
use crate::{
    clock,
    config::Config,
    key::{Key, Scope, SecretHash},
    server::Held,
    service::AuditLog,
    store::{KeyRecord, Store},
    sync::lock,
};

/// Challenges of a 401 response. Browsers answer the second one with a form for the password.
const CHALLENGES: [&str; 2] =
    ["Bearer realm=\"stellar-score\"", "Basic realm=\"stellar-score\", charset=\"UTF-8\""];

/// The check of all requests.
#[derive(Debug)]
pub(crate) struct Keys {
    store: Store,
    audit: AuditLog,
    /// Whether requests need a key even if there are none: other machines reach the service.
    required: bool,
    metrics: bool,
    proxies: Vec<IpAddr>,
    /// What each key has used, from its first request on. The operator creates keys, so they are
    /// few.
    used: Mutex<HashMap<Uuid, Arc<Usage>>>,
    /// What requests have that another instance forwards.
    proof: OnceLock<String>,
}

/// The key of a request, in its extensions.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    id: Uuid,
    name: String,
    scopes: Vec<Scope>,
    usage: Arc<Usage>,
}

impl Caller {
    /// Returns the id of the key.
    pub(crate) fn id(&self) -> Uuid {
        self.id
    }

    /// Counts images of this request.
    pub(crate) fn count_images(&self, images: usize) {
        self.usage.count_images(images);
    }

    /// Counts an image that this request generates, or refuses it at the key's limit.
    pub(crate) fn generate(&self) -> Result<(), ApiError> {
        self.usage.generate()
    }

    /// Refuses bytes that the key may not store.
    pub(crate) async fn room(&self, store: &Store, bytes: u64) -> Result<(), ApiError> {
        let Some((limit, known)) = self.usage.stored() else { return Ok(()) };
        let stored = if let Some(stored) = known {
            stored
        } else {
            let stored = store.stored_bytes(self.id).await?;
            self.usage.set_stored(stored);
            stored
        };
        if stored.saturating_add(bytes) > limit {
            return Err(key_limits::no_room(limit));
        }
        Ok(())
    }

    /// Counts bytes that were stored, until the database is asked again.
    pub(crate) fn add_stored(&self, bytes: u64) {
        self.usage.add_stored(bytes);
    }
}

/// Who sent a request, in its extensions: its key, or else its address. For fairness only.
#[derive(Clone, Debug)]
pub(crate) struct Client(pub(crate) Arc<str>);

/// Returns who sent a request.
pub(crate) fn client(request: &Request) -> Arc<str> {
    request.extensions().get::<Client>().map_or_else(|| Arc::from(""), |it| Arc::clone(&it.0))
}

/// Returns the key of a request, if keys are in use.
pub(crate) fn caller(request: &Request) -> Option<Caller> {
    request.extensions().get().cloned()
}

impl Keys {
    pub(crate) fn new(config: &Config, store: Store, audit: AuditLog) -> Self {
        let server = &config.server;
        Self {
            store,
            audit,
            required: server.is_exposed() && !server.allow_anonymous,
            metrics: config.keys.metrics,
            proxies: server.proxy_addresses(),
            used: Mutex::default(),
            proof: OnceLock::new(),
        }
    }

    /// Accepts requests that another instance forwards with this proof.
    pub(crate) fn trust(&self, proof: String) {
        // Only the first call takes effect: a worker belongs to one database.
        let _ = self.proof.set(proof);
    }

    /// Returns the key of a request; `None` if the service needs none.
    async fn authenticate(&self, headers: &HeaderMap) -> Result<Option<Caller>, ApiError> {
        let sent = credentials(headers);
        if let Ok(Some(key)) = &sent {
            let stored = self.store.key(key.id()).await?;
            // Compared also if the id is unknown, so that both take the same time.
            let hash = stored.as_ref().map_or(SecretHash::NONE, |stored| stored.hash);
            let is_the_key = key.hash() == hash;
            if let Some(stored) = stored.filter(|_| is_the_key) {
                return self.valid(stored).map(Some);
            }
        }
        if !self.required && !self.store.has_keys().await? {
            return Ok(None);
        }
        Err(match sent {
            Ok(Some(_)) => unauthorized("the API key is unknown: ask the operator for a new one"),
            Ok(None) => unauthorized(
                "this service needs an API key: send it as `Authorization: Bearer KEY` or as the \
                    password of HTTP Basic (stellar-score: --key-file or STELLAR_KEY)",
            ),
            Err(problem) => unauthorized(problem),
        })
    }

    /// Refuses a key that is revoked or expired. Its holder has proved to have it, and may know.
    fn valid(&self, stored: KeyRecord) -> Result<Caller, ApiError> {
        if !stored.is_valid(clock::now()) {
            let (what, at) = match stored.revoked {
                Some(at) => ("was revoked", Some(at)),
                None => ("expired", stored.expires),
            };
            let at = at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default();
            let name = stored.name;
            return Err(unauthorized(format!(
                "the API key `{name}` {what} at {at}: ask the operator for a new one"
            )));
        }
        let mut used = lock(&self.used);
        let new = || Arc::new(Usage::new(stored.limits));
        let usage = Arc::clone(used.entry(stored.id).or_insert_with(new));
        Ok(Caller { id: stored.id, name: stored.name, scopes: stored.scopes, usage })
    }
}

/// Returns the key in the headers, `None` if there are no credentials, or why they are no key.
fn credentials(headers: &HeaderMap) -> Result<Option<Key>, &'static str> {
    const WRONG: &str = "the Authorization header has no API key: send `Bearer KEY`, or the key as \
        the password of HTTP Basic";
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err("the Authorization header was sent more than once: send it once");
    }
    let (scheme, credentials) =
        value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or(WRONG)?;
    let credentials = credentials.trim();
    let key = if scheme.eq_ignore_ascii_case("bearer") {
        Key::parse(credentials)
    } else if scheme.eq_ignore_ascii_case("basic") {
        let decoded = STANDARD.decode(credentials).ok().and_then(|it| String::from_utf8(it).ok());
        decoded.and_then(|pair| Key::parse(pair.split_once(':')?.1))
    } else {
        None
    };
    key.map(Some).ok_or(WRONG)
}

fn unauthorized(detail: impl Into<String>) -> ApiError {
    ApiError::new(Code::Unauthorized, detail)
}

/// State of the middleware.
#[derive(Clone)]
pub(crate) struct Guard {
    pub(crate) keys: Arc<Keys>,
    pub(crate) table: Arc<AccessTable>,
}

/// Refuses requests without the key that their route needs, before their body is read.
pub(crate) async fn guard(
    State(guard): State<Guard>,
    parameters: Result<RawPathParams, RawPathParamsRejection>,
    mut request: Request,
    next: Next,
) -> Response {
    let keys = &guard.keys;
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let access = guard.table.of(request.method(), route.as_deref());
    if access == Access::Open || (access == Access::Metrics && !keys.metrics) {
        return next.run(request).await;
    }
    let unread = !request.body().is_end_stream();
    let is_forwarded = keys.proof.get().is_some_and(|proof| forward::received(&mut request, proof));
    let caller = match keys.authenticate(request.headers()).await {
        Ok(caller) => caller,
        Err(error) => return refusal(error, unread),
    };
    let permit = match caller.as_ref().map_or(Ok(None), |caller| caller.usage.admit()) {
        Ok(permit) => permit,
        Err(error) => return described(refusal(error, unread), caller.as_ref()),
    };
    // The instance that forwards a request has its client's connection, and records it.
    let audited = if is_forwarded {
        None
    } else {
        Audited::begin(
            &keys.audit,
            &request,
            caller.as_ref().map(|caller| (caller.id, caller.name.clone())),
            route.as_deref(),
            parameters.as_ref().ok(),
            &keys.proxies,
        )
    };
    let scope = access.scope();
    let refused = caller.as_ref().is_some_and(|caller| !access.admits(&caller.scopes));
    let response = if let (true, Some(scope), Some(caller)) = (refused, scope, &caller) {
        let detail = format!("the API key `{}` does not have the scope `{scope}`", caller.name);
        refusal(ApiError::new(Code::ScopeMissing, detail), unread)
    } else {
        let who = match &caller {
            Some(caller) => caller.id.to_string(),
            None => audit::address(&request, &keys.proxies)
                .map_or_else(String::new, |address| address.to_string()),
        };
        request.extensions_mut().insert(Client(who.into()));
        if let Some(caller) = &caller {
            request.extensions_mut().insert(caller.clone());
        }
        next.run(request).await
    };
    if let Some(audited) = audited {
        // Samples are many, and rows of their own tell when they came.
        audited.end(response.status(), scope != Some(Scope::Score)).await;
    }
    let response = described(response, caller.as_ref());
    match permit {
        None => response,
        // Held until the last byte of the response is sent.
        Some(permit) => response.map(|body| Body::new(Held::new(body, permit))),
    }
}

/// Adds the fields about the limits of the key.
fn described(mut response: Response, caller: Option<&Caller>) -> Response {
    if let Some(caller) = caller {
        caller.usage.describe(response.headers_mut());
    }
    response
}

/// Creates the response to a request whose body, if there is one, stays unread.
fn refusal(error: ApiError, unread: bool) -> Response {
    let mut challenges = Vec::new();
    match error.code() {
        Code::Unauthorized => challenges.extend(CHALLENGES.map(HeaderValue::from_static)),
        Code::ScopeMissing => {
            let challenge = format!("{}, error=\"insufficient_scope\"", CHALLENGES[0]);
            challenges.extend(HeaderValue::from_str(&challenge));
        }
        _ => {}
    }
    let mut response = error.into_response();
    let headers = response.headers_mut();
    for challenge in challenges {
        headers.append(header::WWW_AUTHENTICATE, challenge);
    }
    if unread {
        // The body must not be read as the next request.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(value: &str) -> Result<Option<Uuid>, &'static str> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        credentials(&headers).map(|key| key.map(|key| key.id()))
    }

    #[test]
    fn a_key_is_read_from_both_schemes() {
        let key = Key::generate().unwrap();
        let basic = |user: &str| STANDARD.encode(format!("{user}:{}", key.reveal()));
        for value in [
            format!("Bearer {}", key.reveal()),
            format!("bearer  {}", key.reveal()),
            format!("Basic {}", basic("any")),
            format!("BASIC {}", basic("")),
        ] {
            assert_eq!(sent(&value), Ok(Some(key.id())), "{value}");
        }
        assert!(credentials(&HeaderMap::new()).unwrap().is_none());
    }

    #[test]
    fn other_credentials_are_refused() {
        let key = Key::generate().unwrap().reveal();
        let as_user = STANDARD.encode(format!("{key}:"));
        for value in [
            "Bearer",
            "Bearer ",
            "Bearer stellar_",
            &format!("Digest {key}"),
            &key,
            "Basic ?",
            &format!("Basic {as_user}"),
            &format!("Basic {}", STANDARD.encode(&key)),
            &format!("Bearer {key}, Bearer {key}"),
        ] {
            assert!(sent(value).is_err(), "{value}");
        }
        let mut twice = HeaderMap::new();
        for _ in 0..2 {
            twice.append(header::AUTHORIZATION, format!("Bearer {key}").parse().unwrap());
        }
        assert!(credentials(&twice).is_err());
    }
}
