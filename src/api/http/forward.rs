//! Forwards requests that need models to workers, if this process has none.
//!
//! A worker with room is found through the broker. The request then goes to it over a connection of
//! its own: body and response are streamed, and if the client leaves, the connection is closed and
//! the worker drops the request. The worker checks keys and limits as if it had come from the
//! client.

use std::{collections::BTreeSet, time::Duration};

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use futures_util::StreamExt as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{drain, error::ApiError};
use crate::{
    config::Config,
    dispatch::{NoPlace, Places},
    supervisor::AbortOnDrop,
};

/// Time limit of a connection to a worker.
const CONNECT: Duration = Duration::from_secs(2);

/// Workers that a request tries to reach.
const WORKERS: usize = 3;

/// How long a response may take beyond the deadline, which the worker enforces.
const GRACE: Duration = Duration::from_secs(10);

/// Routes that need models, with their methods.
const ROUTES: [(Method, &str); 12] = [
    (Method::POST, "/v1/score"),
    (Method::POST, "/v1/rewards"),
    (Method::POST, "/v1/generate"),
    (Method::POST, "/v1/datasets/{dataset}/photos"),
    (Method::GET, "/v1/runs/{id}/attributes"),
    (Method::POST, "/rl/pickle/{name}"),
    (Method::POST, "/rl/pickle/{name}/"),
    (Method::POST, "/rl/unirl/score"),
    (Method::GET, "/rl/unirl/health"),
    (Method::POST, "/rl/flow-factory/{name}/compute"),
    (Method::POST, "/score"),
    (Method::POST, "/score/example"),
];

/// Routes whose results stay in the process that computes them.
const STATEFUL: &str = "/rl/cosmos/";

/// Headers of one connection, and those by which browsers say which page they show: this process
/// has checked them.
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
    deadline: Duration,
}

impl Forward {
    /// Forwards to workers that have these places.
    pub(crate) fn new(config: &Config, places: Places) -> Self {
        let deadlines = [
            config.server.deadline(),
            config.rewards.wait() + config.rewards.deadline(),
            config.generator.deadline(),
        ];
        Self { places, deadline: deadlines.into_iter().max().unwrap_or_default() }
    }

    async fn send(&self, request: Request) -> Result<Response, ApiError> {
        let mut tried = BTreeSet::new();
        let (worker, stream) = loop {
            let url = self.places.find(&tried).await.map_err(|why| self.refuse(why))?;
            match tokio::time::timeout(CONNECT, TcpStream::connect(authority(&url))).await {
                Ok(Ok(stream)) => break (url, stream),
                // It has just died, or cannot be reached from here.
                _ if tried.len() + 1 < WORKERS => {
                    tracing::warn!(worker = url, "cannot connect to a worker, trying another one");
                    tried.insert(url);
                }
                _ => return Err(self.refuse(NoPlace::NoWorker)),
            }
        };
        let failed = |problem: String| {
            self.places.count("failed");
            tracing::warn!(worker, problem, "a worker failed to answer");
            ApiError::unavailable("the worker failed while it had the request: send it again")
        };
        let _ = stream.set_nodelay(true);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(error.to_string()))?;
        // Aborted with the response: if the client leaves, the worker notices.
        let connection = AbortOnDrop(tokio::spawn(async move {
            let _ = connection.await;
        }));
        let sent = sender.send_request(prepared(request, &worker)?);
        let response = tokio::time::timeout(self.deadline + GRACE, sent).await;
        let response = response
            .map_err(|_| failed("no response".to_owned()))?
            .map_err(|error| failed(error.to_string()))?;
        self.places.count("answered");
        let (mut parts, body) = response.into_parts();
        drop_headers(&mut parts.headers);
        let chunks = Body::new(body).into_data_stream().map(move |chunk| {
            let _open = &connection;
            chunk
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
                    "no worker with the loaded pack answers: start one (stellar-score worker)",
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
    if path.starts_with(STATEFUL) {
        let problem = "this route keeps results in one process, and this one has no models: send \
            its requests to an instance with dispatch.score_here = true";
        return ApiError::unavailable(problem).into_response();
    }
    if !ROUTES.iter().any(|(method, route)| *method == request.method() && *route == path) {
        return next.run(request).await;
    }
    let forwarded = drain::whole(request, |request| forward.send(request)).await;
    forwarded.unwrap_or_else(ApiError::into_response)
}

/// Returns the part of a worker's URL that a connection needs.
fn authority(url: &str) -> &str {
    url.trim_start_matches("http://").trim_end_matches('/')
}

/// Addresses a request to a worker.
fn prepared(mut request: Request, worker: &str) -> Result<Request, ApiError> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let invalid = |error: &dyn std::fmt::Display| ApiError::internal(error);
    *request.uri_mut() = path.parse::<Uri>().map_err(|error| invalid(&error))?;
    let headers = request.headers_mut();
    drop_headers(headers);
    let host = HeaderValue::from_str(authority(worker)).map_err(|error| invalid(&error))?;
    headers.insert(header::HOST, host);
    Ok(request)
}

fn drop_headers(headers: &mut HeaderMap) {
    for name in &DROPPED {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forwarded_request_has_the_worker_as_host_and_nothing_of_the_first_connection() {
        let request = Request::builder()
            .method(Method::POST)
            .uri("http://api.example/v1/score?evidence=true")
            .header("host", "api.example")
            .header("connection", "close")
            .header("transfer-encoding", "chunked")
            .header("origin", "http://api.example")
            .header("sec-fetch-site", "same-origin")
            .header("authorization", "Bearer key")
            .header("x-request-id", "one")
            .body(Body::empty())
            .unwrap();
        let sent = prepared(request, "http://10.0.0.7:8080").unwrap();
        assert_eq!(sent.uri(), "/v1/score?evidence=true");
        let headers: Vec<_> = sent.headers().iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(headers, ["authorization", "x-request-id", "host"]);
        assert_eq!(sent.headers()["host"], "10.0.0.7:8080");
    }

    #[test]
    fn every_forwarded_route_is_one_of_the_service() {
        let document = crate::api::openapi();
        for (method, route) in &ROUTES {
            if !route.starts_with("/v1/") {
                continue;
            }
            let item = document.paths.paths.get(*route).expect("the route is documented");
            let operation = if method == Method::GET { &item.get } else { &item.post };
            assert!(operation.is_some(), "{method} {route}");
        }
    }
}
