//! An object store with the S3 protocol, for tests: the crate `s3s-fs` over a folder, on a loopback
//! port and threads of its own, with faults on demand.
//!
//! Over HTTP, faults are switched by `POST /_fault/NAME` (no bucket can have that name), with the
//! names of [`Fault::from_name`]. `none` ends them, `?times=N` is for the next N requests.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use s3s::{
    auth::SimpleAuth,
    service::{S3Service, S3ServiceBuilder},
};
use tokio::runtime::Runtime;

/// The only key that the server knows.
pub const ACCESS_KEY: &str = "stellar-test";

/// Its secret.
pub const SECRET_KEY: &str = "a-secret-of-tests";

/// The only bucket.
pub const BUCKET: &str = "images";

/// What happens to a request instead of its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 503, as an object store under load answers.
    Busy,
    /// No response at all.
    Stall,
    /// The connection is closed before the response.
    Cut,
    /// The connection is closed within the body of the response.
    Torn,
}

impl Fault {
    /// Returns the fault with this name: `busy`, `stall`, `cut` or `torn`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "busy" => Some(Self::Busy),
            "stall" => Some(Self::Stall),
            "cut" => Some(Self::Cut),
            "torn" => Some(Self::Torn),
            _ => None,
        }
    }
}

/// What the paths of requests that switch faults begin with.
const SWITCH: &str = "/_fault/";

/// Requests that go wrong from now on.
#[derive(Default)]
struct Faults {
    next: Option<(Fault, u64)>,
}

/// A running server, until it is dropped.
pub struct Server {
    address: SocketAddr,
    root: PathBuf,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

struct Shared {
    service: S3Service,
    faults: Mutex<Faults>,
    requests: AtomicU64,
}

type Body = BoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

impl Server {
    /// Starts a server over a folder, in which it creates [`BUCKET`], on a free loopback port.
    #[must_use]
    pub fn start(root: &Path) -> Self {
        Self::bind(root, (Ipv4Addr::LOCALHOST, 0).into()).expect("a folder and a free port")
    }

    /// The same at an address.
    ///
    /// # Errors
    ///
    /// If the folder cannot be written or the address cannot be used.
    pub fn bind(root: &Path, address: SocketAddr) -> io::Result<Self> {
        fs::create_dir_all(root.join(BUCKET))?;
        let files = s3s_fs::FileSystem::new(root)
            .map_err(|error| io::Error::other(format!("{error:?}")))?;
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (faults, requests) = (Mutex::default(), AtomicU64::new(0));
        let shared = Arc::new(Shared { service: builder.build(), faults, requests });
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build()?;
        runtime.spawn(serve(listener, Arc::clone(&shared)));
        Ok(Self { address, root: root.to_owned(), shared, runtime: Some(runtime) })
    }

    /// Returns the base URL.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the folder of the bucket's objects.
    #[must_use]
    pub fn objects(&self) -> PathBuf {
        self.root.join(BUCKET)
    }

    /// Lets this many of the next requests fail.
    pub fn fail(&self, fault: Fault, times: u64) {
        self.shared.fail(fault, times);
    }

    /// Returns the number of requests so far, with those that failed.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn fail(&self, fault: Fault, times: u64) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.next = (times > 0).then_some((fault, times));
    }

    /// Obeys a request that switches faults: the rest of its path, and its query.
    fn switch(&self, name: &str, query: Option<&str>) -> Response<Body> {
        let times =
            query.map_or(Some(u64::MAX), |query| query.strip_prefix("times=")?.parse().ok());
        let (status, text) = match (name, Fault::from_name(name), times) {
            ("none", ..) => {
                self.fail(Fault::Busy, 0);
                (StatusCode::OK, "no request fails from now on\n")
            }
            (_, Some(fault), Some(times)) => {
                self.fail(fault, times);
                (StatusCode::OK, "requests fail from now on\n")
            }
            (_, None, _) => (StatusCode::NOT_FOUND, "a fault is busy, stall, cut, torn or none\n"),
            (_, _, None) => (StatusCode::BAD_REQUEST, "the query must be times=NUMBER\n"),
        };
        let mut response = Response::new(whole(Bytes::from_static(text.as_bytes())));
        *response.status_mut() = status;
        response
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
    while let Ok((socket, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let answer = service_fn(|request| answer(&shared, request));
            // A fault ends the connection.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), answer).await;
        });
    }
}

async fn answer(shared: &Shared, request: Request<Incoming>) -> Result<Response<Body>, Failed> {
    if let Some(name) = request.uri().path().strip_prefix(SWITCH) {
        return Ok(shared.switch(name, request.uri().query()));
    }
    shared.requests.fetch_add(1, Ordering::Relaxed);
    let fault = {
        let mut faults = shared.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = faults.next.map(|(fault, _)| fault);
        faults.next = faults.next.and_then(|(fault, left)| (left > 1).then(|| (fault, left - 1)));
        fault
    };
    match fault {
        None | Some(Fault::Torn) => {}
        Some(Fault::Busy) => {
            let mut response = Response::new(whole(Bytes::from_static(b"SlowDown")));
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            return Ok(response);
        }
        Some(Fault::Stall) => {
            tokio::time::sleep(Duration::from_hours(1)).await;
            return Err(Failed);
        }
        Some(Fault::Cut) => return Err(Failed),
    }
    let response = shared.service.call(request.map(s3s::Body::from)).await.map_err(|_| Failed)?;
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(|_| Failed)?.to_bytes();
    let body = if fault == Some(Fault::Torn) { torn(&body) } else { whole(body) };
    Ok(Response::from_parts(head, body))
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

/// The first half, and then an error. The head has the length of the whole.
fn torn(bytes: &Bytes) -> Body {
    let half = bytes.slice(..bytes.len() / 2);
    let frames = [Ok(Frame::data(half)), Err(Box::from(Failed))];
    let mut frames = frames.into_iter();
    let next = move || frames.next();
    BodyExt::boxed(Frames(next))
}

struct Frames<F>(F);

impl<F> hyper::body::Body for Frames<F>
where
    F: FnMut() -> Option<Result<Frame<Bytes>, Box<dyn std::error::Error + Send + Sync>>> + Unpin,
{
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready((self.0)())
    }
}

#[derive(Debug)]
struct Failed;

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a fault of the test")
    }
}

impl std::error::Error for Failed {}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{SocketAddr, TcpStream},
    };

    use super::Server;

    /// Returns the status of a request without a body.
    fn status(address: SocketAddr, request: &str) -> u16 {
        let mut connection = TcpStream::connect(address).expect("it listens");
        write!(connection, "{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .expect("a request");
        let mut response = String::new();
        connection.read_to_string(&mut response).expect("a response");
        response.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
    }

    #[test]
    fn faults_are_switched_over_http() {
        let folder = std::env::temp_dir().join(format!("stellar-s3-server-{}", std::process::id()));
        let server = Server::start(&folder);
        let ask = |request| status(server.address, request);
        // Unsigned requests are refused with 403.
        assert_eq!(ask("GET /images/a"), 403);
        assert_eq!(ask("POST /_fault/busy"), 200);
        assert_eq!([ask("GET /images/a"), ask("GET /images/a")], [503, 503]);
        assert_eq!(ask("POST /_fault/none"), 200);
        assert_eq!(ask("GET /images/a"), 403);
        assert_eq!(ask("POST /_fault/busy?times=1"), 200);
        assert_eq!([ask("GET /images/a"), ask("GET /images/a")], [503, 403]);
        assert_eq!(ask("POST /_fault/slow"), 404);
        assert_eq!(ask("POST /_fault/busy?often"), 400);
        assert_eq!(server.requests(), 6);
        drop(server);
        std::fs::remove_dir_all(folder).expect("it is there");
    }
}
