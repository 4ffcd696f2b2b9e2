//! Errors in the form that each client understands.
//!
//! Some clients repeat a request for as long as its status allows, so a permanent error has neither
//! status 500 nor `Retry-After`, and a transient one is always 503 with it.

use axum::{
    body::{Body, to_bytes},
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::Response as HttpResponse,
};
use utoipa::openapi::{
    Content, ContentBuilder, KnownFormat, ObjectBuilder, OpenApi, Ref, RefOr, Response, Schema,
    SchemaFormat, Type,
};

use super::{cosmos::CosmosMessage, flow_factory::FlowFactoryResponse, pickle};
use crate::{api::http::Problem, config::Protocol};

/// Limit of a problem document, in bytes.
const MOST_BYTES: usize = 64 << 10;

/// Where the routes of all adapters begin.
const ROOT: &str = "/rl/";

/// Returns the protocol of a path.
fn protocol(path: &str) -> Option<Protocol> {
    let (name, _) = path.strip_prefix(ROOT)?.split_once('/')?;
    Protocol::ALL.into_iter().find(|protocol| protocol.name() == name)
}

/// Returns the status that a client is told.
fn status(protocol: Protocol, of: StatusCode, is_compute: bool) -> StatusCode {
    match of {
        // Retried for ever by `flow_grpo` if it is a 500, and a zero of some clients if a 429.
        StatusCode::TOO_MANY_REQUESTS | StatusCode::INTERNAL_SERVER_ERROR => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        // The client repeats every other status at once, and shows no text. It asks for `health`
        // first, so a missing key or adapter has been told by then.
        StatusCode::BAD_REQUEST
        | StatusCode::UNPROCESSABLE_ENTITY
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNSUPPORTED_MEDIA_TYPE
            if protocol == Protocol::FlowFactory && is_compute =>
        {
            StatusCode::OK
        }
        of => of,
    }
}

/// Turns problem documents of the adapters' routes into the errors of their protocols.
pub(crate) async fn render(request: Request, next: Next) -> HttpResponse {
    let path = request.uri().path();
    let protocol = protocol(path);
    let is_compute = path.ends_with("/compute");
    let response = next.run(request).await;
    let is_problem = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/problem+json"));
    let Some(protocol) = protocol.filter(|_| is_problem) else { return response };
    let (mut parts, body) = response.into_parts();
    let body = to_bytes(body, MOST_BYTES).await.unwrap_or_default();
    let detail = serde_json::from_slice::<Problem>(&body).map(|problem| problem.detail);
    let detail = detail.unwrap_or_else(|_| "the request failed".to_owned());
    let (kind, body) = told(protocol, detail);
    let headers = &mut parts.headers;
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.remove(header::CONTENT_LENGTH);
    parts.status = status(protocol, parts.status, is_compute);
    if parts.status != StatusCode::SERVICE_UNAVAILABLE {
        headers.remove(header::RETRY_AFTER);
    }
    HttpResponse::from_parts(parts, body)
}

/// Returns the media type and the body of an error.
fn told(protocol: Protocol, detail: String) -> (&'static str, Body) {
    let json = |value: serde_json::Result<Vec<u8>>| {
        ("application/json", Body::from(value.expect("texts serialise")))
    };
    match protocol {
        Protocol::Pickle => (pickle::KIND, Body::from(stellar_pickle::error(&detail))),
        Protocol::Unirl => json(serde_json::to_vec(&serde_json::json!({ "detail": detail }))),
        Protocol::FlowFactory => json(serde_json::to_vec(&FlowFactoryResponse {
            rewards: Vec::new(),
            error: Some(detail),
        })),
        Protocol::Cosmos => json(serde_json::to_vec(&CosmosMessage { message: detail })),
    }
}

/// Describes these errors in the API document.
pub(crate) fn describe(mut document: OpenApi) -> OpenApi {
    for (path, item) in &mut document.paths.paths {
        let Some(protocol) = protocol(path) else { continue };
        let is_compute = path.ends_with("/compute");
        for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
            if let Some(RefOr::T(body)) = &mut operation.request_body
                && let Some(content) = body.content.get_mut(pickle::KIND)
            {
                set_binary(content);
            }
            let known = std::mem::take(&mut operation.responses.responses);
            for (code, response) in known {
                let response = binary(response);
                let of = code.parse().ok().and_then(|code| StatusCode::from_u16(code).ok());
                let of = of.filter(|of| of.is_client_error() || of.is_server_error());
                let told = of.map(|of| status(protocol, of, is_compute));
                match told {
                    None => drop(operation.responses.responses.insert(code, response)),
                    Some(told) if told.is_success() => {}
                    Some(told) => {
                        let all = &mut operation.responses.responses;
                        all.entry(told.as_str().to_owned())
                            .or_insert_with(|| described(protocol, response));
                    }
                }
            }
        }
    }
    document
}

/// Describes bytes as bytes: without this, they would be a list of numbers.
fn set_binary(content: &mut RefOr<Content>) {
    if let RefOr::T(content) = content {
        content.schema = Some(bytes());
    }
}

fn binary(response: RefOr<Response>) -> RefOr<Response> {
    let RefOr::T(mut response) = response else { return response };
    if let Some(content) = response.content.get_mut(pickle::KIND) {
        set_binary(content);
    }
    response.into()
}

fn bytes() -> RefOr<Schema> {
    let format = SchemaFormat::KnownFormat(KnownFormat::Binary);
    ObjectBuilder::new().schema_type(Type::String).format(Some(format)).into()
}

/// Gives a response the body of this protocol's errors.
fn described(protocol: Protocol, response: RefOr<Response>) -> RefOr<Response> {
    let RefOr::T(mut response) = response else { return response };
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let detail = ObjectBuilder::new().property("detail", text()).required("detail");
    let (kind, schema): (_, RefOr<Schema>) = match protocol {
        Protocol::Pickle => (pickle::KIND, bytes()),
        Protocol::Unirl => ("application/json", detail.into()),
        Protocol::FlowFactory => {
            ("application/json", Ref::from_schema_name("FlowFactoryResponse").into())
        }
        Protocol::Cosmos => ("application/json", Ref::from_schema_name("CosmosMessage").into()),
    };
    response.content.clear();
    let content = ContentBuilder::new().schema(Some(schema)).build();
    response.content.insert(kind.to_owned(), content.into());
    response.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permanent_error_is_never_one_that_clients_repeat() {
        let of = |protocol, code: u16| {
            status(protocol, StatusCode::from_u16(code).unwrap(), true).as_u16()
        };
        for each in Protocol::ALL {
            assert_eq!((of(each, 429), of(each, 500), of(each, 503)), (503, 503, 503));
            assert_eq!((of(each, 401), of(each, 404), of(each, 504)), (401, 404, 504));
        }
        assert_eq!((of(Protocol::Pickle, 400), of(Protocol::FlowFactory, 400)), (400, 200));
        assert_eq!(protocol("/rl/flow-factory/a/compute"), Some(Protocol::FlowFactory));
        for other in ["/rl/pickle", "/rl/other/a", "/v1/rewards", "/rl/"] {
            assert_eq!(protocol(other), None, "{other}");
        }
    }
}
