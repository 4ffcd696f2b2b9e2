//! HTTP and HTTPS for the S3 client, over hyper and rustls with ring.
//!
//! `object_store` would use reqwest, whose TLS either brings aws-lc-rs, or makes every client of
//! this program, with TLS or without, depend on a provider that the process installs before.

use std::{io, sync::Arc, time::Duration};

use async_trait::async_trait;
use http_body_util::{BodyExt as _, Limited};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector as Tcp},
    rt::TokioExecutor,
};
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
        HttpResponse, HttpService,
    },
};
use rustls::{ClientConfig, crypto::ring};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Connections that are not used are closed after this time, before servers close them.
const IDLE: Duration = Duration::from_secs(15);

/// Most bytes of a response. No image is larger (`limits.image_mib`), and a page of a listing has
/// less than a megabyte.
const LARGEST: usize = 1 << 30;

/// Makes the client of an object store.
#[derive(Debug)]
pub(super) struct Connector {
    /// How long one request may take, with its response.
    pub(super) request: Duration,
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let failed = |error: io::Error| object_store::Error::Generic {
            store: "S3",
            source: format!(
                "no certificates of authorities are found ({error}): install the package \
                    ca-certificates, or set SSL_CERT_FILE"
            )
            .into(),
        };
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has the default versions of TLS")
            .with_native_roots()
            .map_err(failed)?
            .with_no_client_auth();
        let mut tcp = Tcp::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        let connector = connector.enable_http1().wrap_connector(tcp);
        let mut client = Client::builder(TokioExecutor::new());
        client.pool_idle_timeout(IDLE).pool_timer(hyper_util::rt::TokioTimer::new());
        Ok(HttpClient::new(Service { client: client.build(connector), request: self.request }))
    }
}

#[derive(Debug)]
struct Service {
    client: Client<HttpsConnector<Tcp>, HttpRequestBody>,
    request: Duration,
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answered = async {
            let response = self.client.request(request).await.map_err(|error| {
                let kind = if error.is_connect() {
                    // Nothing was sent, so every request may be repeated.
                    HttpErrorKind::Connect
                } else {
                    HttpErrorKind::Interrupted
                };
                HttpError::new(kind, error)
            })?;
            let (head, body) = response.into_parts();
            // Whole, so that a connection that is cut within it is a request to repeat.
            let body = Limited::new(body, LARGEST).collect().await.map_err(|error| {
                HttpError::new(HttpErrorKind::Interrupted, io::Error::other(error))
            })?;
            Ok(HttpResponse::from_parts(head, body.to_bytes().into()))
        };
        let silent = || {
            let problem = format!("no complete response within {} s", self.request.as_secs());
            HttpError::new(HttpErrorKind::Timeout, io::Error::new(io::ErrorKind::TimedOut, problem))
        };
        tokio::time::timeout(self.request, answered).await.unwrap_or_else(|_| Err(silent()))
    }
}
