//! If this process has no models, forwards the requests that need them to workers.
//!
//! A worker with room is found through the broker. The request then goes to it over a connection of
//! its own: body and response are streamed, and if the client leaves, the connection is closed and
//! the worker drops the request. The worker checks keys and limits as if the request had come from
//! the client.

use std::{collections::BTreeSet, io, net::IpAddr, time::Duration};

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Uri, Version, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use futures_util::{StreamExt as _, stream};
use http_body_util::BodyExt as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::oneshot};

use super::{
    audit::address,
    drain,
    error::ApiError,
    model_routes::{self, Work},
    request_id,
};
use crate::{
    config::{Config, Rewards},
    dispatch::{NoPlace, Places},
    server::Peer,
    supervisor::AbortOnDrop,
};

/// Time limit of a connection to a worker.
const CONNECT: Duration = Duration::from_secs(2);

/// Maximum number of workers that are tried for a request.
const WORKERS: usize = 3;

/// How long a response may take beyond the deadline, which the worker enforces.
const GRACE: Duration = Duration::from_secs(10);

/// How long a worker may be silent within a response.
const SILENCE: Duration = Duration::from_secs(30);

/// Routes whose results stay in the process that computes them.
const STATEFUL: &str = "/rl/cosmos/";

/// Tells the worker the client's address.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// Proves to the worker that the request comes from an instance on the same database. The link
/// between them is plain HTTP, which also carries the keys of clients.
const PROOF: HeaderName = HeaderName::from_static("x-stellar-forwarded");

/// Hop-by-hop headers, and those in which browsers name the page that sent the request, which this
/// process has already checked.
const DROPPED: [HeaderName; 11] = [
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
    header::HOST,
    header::ORIGIN,
    header::REFERER,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("sec-fetch-site"),
];

/// Forwards requests to workers.
#[derive(Clone, Debug)]
pub(crate) struct Forward {
    places: Places,
    proof: String,
    proxies: Vec<IpAddr>,
    request: Duration,
    rewards: Rewards,
    image: Duration,
}

impl Forward {
    /// Forwards to workers that `places` finds.
    pub(crate) fn new(config: &Config, places: Places) -> Self {
        Self {
            proof: places.proof(),
            places,
            proxies: config.server.proxy_addresses(),
            request: config.server.deadline(),
            rewards: config.rewards.clone(),
            image: config.generator.deadline(),
        }
    }

    fn limit(&self, work: Work) -> Duration {
        let wait = work.wait(&self.rewards).unwrap_or_default();
        let deadline = match work {
            Work::Samples => self.request,
            Work::Rewards(_) => self.rewards.deadline(),
            Work::Image => self.image,
        };
        GRACE + wait + deadline
    }

    async fn send(&self, request: Request, work: Work) -> Result<Response, ApiError> {
        let mut tried = BTreeSet::new();
        let (worker, stream) = loop {
            let url = self.places.find(&tried).await.map_err(|why| self.refuse(why))?;
            match tokio::time::timeout(CONNECT, TcpStream::connect(authority(&url))).await {
                Ok(Ok(stream)) => break (url, stream),
                // The worker has just died, or cannot be reached from here.
                _ if tried.len() + 1 < WORKERS => {
                    tracing::warn!(worker = url, "cannot connect to a worker, trying another one");
                    tried.insert(url);
                }
                _ => return Err(self.refuse(NoPlace::Unreachable)),
            }
        };
        let failed = |problem: String| {
            self.places.count("failed");
            tracing::warn!(worker, problem, "a worker failed to answer");
            ApiError::unavailable("the worker failed while handling the request: send it again")
        };
        let _ = stream.set_nodelay(true);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(error.to_string()))?;
        // Aborted with the response: if the client leaves, the worker notices.
        let connection = AbortOnDrop(tokio::spawn(async move {
            let _ = connection.await;
        }));
        let client = address(&request, &self.proxies);
        let (request, sent) = noticing_end(prepared(request, &worker, client, &self.proof)?);
        let mut response = std::pin::pin!(sender.send_request(request));
        let limit = self.limit(work);
        let late = async {
            // Sending the body may take as long as well (`bodies.rs`), but a worker that stops
            // reading must not block it forever.
            let _ = tokio::time::timeout(limit, sent).await;
            tokio::time::sleep(limit).await;
        };
        let response = tokio::select! {
            response = &mut response => response.map_err(|error| failed(error.to_string()))?,
            () = late => return Err(failed(format!("no response within {} s", limit.as_secs()))),
        };
        self.places.count("answered");
        let (mut parts, body) = response.into_parts();
        drop_headers(&mut parts.headers);
        let chunks = stream::try_unfold((body, connection), async |(mut body, connection)| {
            let frame = tokio::time::timeout(SILENCE, body.frame()).await;
            match frame.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))? {
                None => Ok(None),
                Some(frame) => {
                    let data = frame.map_err(io::Error::other)?.into_data().unwrap_or_default();
                    Ok::<_, io::Error>(Some((data, (body, connection))))
                }
            }
        });
        Ok(Response::from_parts(parts, Body::from_stream(chunks)))
    }

    fn refuse(&self, why: NoPlace) -> ApiError {
        match why {
            NoPlace::Busy => {
                self.places.count("busy");
                ApiError::overloaded("all workers are busy; retry after a moment")
            }
            NoPlace::NoWorker => {
                self.places.count("no_worker");
                ApiError::unavailable(
                    "no worker with this instance's pack answers: start one (stellar-score worker)",
                )
            }
            NoPlace::Unreachable => {
                self.places.count("no_worker");
                ApiError::unavailable(
                    "workers answer, but this instance cannot connect to them: check their \
                        dispatch.advertise and the network",
                )
            }
            NoPlace::NoBroker => {
                self.places.count("no_worker");
                ApiError::unavailable(
                    "the broker, which knows the workers, cannot be reached; retry later",
                )
            }
        }
    }
}

/// Forwards the request if its route needs models.
pub(crate) async fn guard(
    State(forward): State<Option<Forward>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(forward) = forward else { return next.run(request).await };
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    // Also requests that pull results, and pings.
    if path.starts_with(STATEFUL) {
        let problem = "this route keeps results in one process, and this one has no models: send \
            its requests to an instance with dispatch.score_here = true";
        return ApiError::unavailable(problem).into_response();
    }
    let Some(work) = model_routes::work(&request) else { return next.run(request).await };
    let forwarded = drain::whole(request, |request| forward.send(request, work)).await;
    forwarded.unwrap_or_else(ApiError::into_response)
}

/// If an instance with this proof forwarded the request, takes the client's address from it and
/// returns true. That instance has recorded the request in the audit log.
pub(super) fn received(request: &mut Request, proof: &str) -> bool {
    if request.headers().get(PROOF).is_none_or(|given| given.as_bytes() != proof.as_bytes()) {
        return false;
    }
    let address =
        request.headers().get(FORWARDED_FOR).and_then(|it| it.to_str().ok()?.parse().ok());
    if let Some(address) = address {
        request.extensions_mut().insert(Peer(address));
        request.headers_mut().remove(FORWARDED_FOR);
    }
    true
}

/// Returns the part of a worker's URL that a connection needs.
fn authority(url: &str) -> &str {
    url.trim_start_matches("http://").trim_end_matches('/')
}

/// Addresses a request to a worker.
fn prepared(
    mut request: Request,
    worker: &str,
    client: Option<IpAddr>,
    proof: &str,
) -> Result<Request, ApiError> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let invalid = |error: &dyn std::fmt::Display| ApiError::internal(error);
    *request.uri_mut() = path.parse::<Uri>().map_err(|error| invalid(&error))?;
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    drop_headers(headers);
    let text = |text: &str| HeaderValue::from_str(text).map_err(|error| invalid(&error));
    headers.insert(header::HOST, text(authority(worker))?);
    // The worker's log and its problems then have the same id.
    headers.insert(&request_id::HEADER, text(&request_id::current())?);
    headers.insert(PROOF, text(proof)?);
    headers.remove(FORWARDED_FOR);
    if let Some(client) = client {
        headers.insert(FORWARDED_FOR, text(&client.to_string())?);
    }
    Ok(request)
}

/// Drops the headers of one connection, also those that it names.
fn drop_headers(headers: &mut HeaderMap) {
    let named: Vec<_> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect();
    for name in named.iter().chain(&DROPPED) {
        headers.remove(name);
    }
}

/// Returns the request, and what is told when its body is sent or dropped.
fn noticing_end(request: Request) -> (Request, oneshot::Receiver<()>) {
    let (sending, sent) = oneshot::channel::<()>();
    let request = request.map(|body| {
        Body::from_stream(body.into_data_stream().map(move |chunk| {
            let _until_dropped = &sending;
            chunk
        }))
    });
    (request, sent)
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::*;

    #[test]
    fn a_forwarded_request_has_the_worker_as_host_and_nothing_of_the_first_connection() {
        let request = Request::builder()
            .method(Method::POST)
            .uri("http://api.example/v1/score?evidence=true")
            .header("host", "api.example")
            .header("connection", "close, x-hop")
            .header("x-hop", "1")
            .header("x-forwarded-for", "6.6.6.6")
            .header("x-stellar-forwarded", "forged")
            .header("transfer-encoding", "chunked")
            .header("origin", "http://api.example")
            .header("sec-fetch-site", "same-origin")
            .header("authorization", "Bearer key")
            .header("x-request-id", "one")
            .body(Body::empty())
            .unwrap();
        let client = Some([10, 0, 0, 1].into());
        let sent = prepared(request, "http://10.0.0.7:8080", client, "proof").unwrap();
        assert_eq!(sent.uri(), "/v1/score?evidence=true");
        let headers: BTreeSet<_> = sent.headers().iter().map(|(name, _)| name.as_str()).collect();
        let expected =
            ["authorization", "host", "x-forwarded-for", "x-request-id", "x-stellar-forwarded"];
        assert_eq!(headers, expected.into());
        assert_eq!(sent.headers()["x-forwarded-for"], "10.0.0.1");
        assert_eq!(sent.headers()["host"], "10.0.0.7:8080");

        let mut forged = sent;
        forged.extensions_mut().insert(Peer([10, 0, 0, 2].into()));
        assert!(!received(&mut forged, "another proof"));
        assert_eq!(forged.extensions().get::<Peer>().unwrap().0, IpAddr::from([10, 0, 0, 2]));
        assert!(received(&mut forged, "proof"));
        assert_eq!(forged.extensions().get::<Peer>().unwrap().0, IpAddr::from([10, 0, 0, 1]));
    }
}
