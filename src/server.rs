//! Connection limits, timeouts and graceful shutdown of the HTTP server.
//!
//! A silent client costs a few kilobytes for `server.head_seconds`. At `server.connections`, the
//! connection that has been silent longest is closed to make room: an idle one first, otherwise
//! one with a request body still to come. Neither idle sockets nor slow bodies can lock out other
//! clients.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
};
use http_body::{Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::IntGauge;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
    task::JoinSet,
};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt as _;

use crate::config::ConnectionLimits;
use crate::sync::lock;
use crate::telemetry::{AdmissionTelemetry, Bound};

/// Pause after a failed accept. Accepting again fails at once until a connection is closed, which
/// frees its file descriptor.
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(100);

/// Time limit for the last bytes to a client that is cut off; they fit into the socket's buffer.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Longest time for which the rest of a refused body is read. A client that reads its response
/// stops sending, or closes the connection, long before.
const LINGER: Duration = Duration::from_secs(5);

/// Limit of a request's head (its request line and headers), in bytes.
/// hyper requires at least 8 KiB.
const HEAD_BYTES: usize = 64 << 10;

const TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    retry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// The address of the other end of a request's connection, in the request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// The body of a response that holds something until its last byte is sent, or the client is gone.
/// It keeps the length of the body, which `map_frame` of `http-body-util` loses.
pub(crate) struct Held<T> {
    body: Body,
    _held: T,
}

impl<T> Held<T> {
    pub(crate) fn new(body: Body, held: T) -> Self {
        Self { body, _held: held }
    }
}

impl<T: Unpin> HttpBody for Held<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Serves until `stop` is true and all in-flight requests have finished. Dropping the future cuts
/// them off.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ConnectionLimits,
    telemetry: AdmissionTelemetry,
    mut stop: watch::Receiver<bool>,
) {
    telemetry.connections_limit.set(limits.connections as i64);
    let open = telemetry.connections.clone();
    let all = Arc::new(Connections { state: Mutex::default(), open });
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                if all.count() >= limits.connections && !all.close_silent() {
                    // Every connection is serving a request: refuse without waiting.
                    telemetry.refused(Bound::Connections);
                    let _ = stream.try_write(FULL);
                    continue;
                }
                let connection = Connection::open(&all);
                let peer = Peer(peer.ip());
                tasks.spawn(converse(
                    (stream, peer),
                    router.clone(),
                    limits,
                    connection,
                    stop.clone(),
                ));
            }
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(AFTER_FAILED_ACCEPT).await;
            }
        }
    }
    drop(listener);
    while tasks.join_next().await.is_some() {}
}

/// Serves one connection from its first byte to its last.
async fn converse(
    (stream, peer): (TcpStream, Peer),
    router: Router,
    limits: ConnectionLimits,
    connection: Arc<Connection>,
    mut stop: watch::Receiver<bool>,
) {
    // Responses are small and complete: waiting for more data would only delay them.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.write));
    let service = {
        let connection = Arc::clone(&connection);
        service_fn(move |request: hyper::Request<Incoming>| {
            let busy = Busy::begin(&connection);
            let mut request = request.map(|body| {
                if body.is_end_stream() {
                    return Body::empty();
                }
                Body::new(Awaited::new(body, &connection))
            });
            request.extensions_mut().insert(peer);
            let response = router.clone().oneshot(request);
            Box::pin(async move {
                // Busy until the last byte of the response is written or the client is gone.
                response.await.map(|response| response.map(|body| Held::new(body, busy)))
            })
        })
    };
    let mut http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    let (mut stopping, mut cut) = (false, false);
    let ended = loop {
        tokio::select! {
            ended = poll_fn(|context| http.poll_without_shutdown(context)) => break ended.map_err(Some),
            () = connection.close.notified() => match *connection.state() {
                Doing::Waiting(what, _) => {
                    cut = what == Awaiting::Body;
                    break Err(None);
                }
                // The awaited data arrived after this connection was chosen.
                Doing::Answering => {}
            },
            _ = stop.wait_for(|stop| *stop), if !stopping => {
                stopping = true;
                Pin::new(&mut http).graceful_shutdown();
            }
        }
    };
    let parts = http.into_parts();
    let mut stream = parts.io.into_inner();
    let silent =
        ended.as_ref().is_err_and(|error| error.as_ref().is_none_or(hyper::Error::is_timeout));
    // Between two requests nothing is sent: a client would take it for its next response.
    if silent && (cut || !parts.read_buf.is_empty() || !connection.served.load(Ordering::Relaxed)) {
        let _ = tokio::time::timeout(LAST_WORDS, stream.write_all(TIMEOUT)).await;
    }
    let _ = tokio::time::timeout(LAST_WORDS, stream.shutdown()).await;
    if ended.is_ok() && connection.unread.load(Ordering::Relaxed) {
        linger(&mut stream, &connection).await;
    }
}

/// Reads and drops what a client still sends after a response that refuses its body. Closing the
/// connection at once would reset it, and the client might not see the response.
async fn linger(stream: &mut (impl AsyncRead + Unpin), connection: &Connection) {
    let mut dropped = vec![0; 16 << 10];
    let rest = async { while matches!(stream.read(&mut dropped).await, Ok(1..)) {} };
    tokio::select! {
        _ = tokio::time::timeout(LINGER, rest) => {}
        // Its place is needed.
        () = connection.close.notified() => {}
    }
}

/// All open connections, and those that are waiting for their clients.
struct Connections {
    state: Mutex<State>,
    open: IntGauge,
}

#[derive(Default)]
struct State {
    count: usize,
    /// Connections that are waiting for their clients, in the order in which to close them.
    waiting: BTreeMap<Place, Arc<Notify>>,
    next: u64,
}

/// The awaited part of a request, and a growing number for when the client was last heard from.
type Place = (Awaiting, u64);

/// The awaited part of a request; connections with the first variant are closed first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Awaiting {
    /// The next request.
    Request,
    /// The rest of a request's body.
    Body,
}

impl Connections {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn count(&self) -> usize {
        self.state().count
    }

    /// Asks the connection that has been silent longest to close; returns false if none is waiting
    /// for its client.
    fn close_silent(&self) -> bool {
        let silent = self.state().waiting.pop_first();
        silent.is_some_and(|(_, close)| {
            close.notify_one();
            true
        })
    }
}

/// State of a connection.
enum Doing {
    /// Waiting for the client, at this [`Place`].
    Waiting(Awaiting, u64),
    /// Serving a request: the client is waiting for us.
    Answering,
}

/// One open connection; counted until it is dropped.
struct Connection {
    all: Arc<Connections>,
    /// Notified when this connection must close to make room.
    close: Arc<Notify>,
    doing: Mutex<Doing>,
    /// True once a request has arrived.
    served: AtomicBool,
    /// True if a body was not read to its end, after which no further request is read.
    unread: AtomicBool,
}

impl Connection {
    fn open(all: &Arc<Connections>) -> Arc<Self> {
        all.state().count += 1;
        all.open.inc();
        let connection = Arc::new(Self {
            all: Arc::clone(all),
            close: Arc::new(Notify::new()),
            doing: Mutex::new(Doing::Answering),
            served: AtomicBool::new(false),
            unread: AtomicBool::new(false),
        });
        connection.awaits(Awaiting::Request);
        connection
    }

    fn state(&self) -> MutexGuard<'_, Doing> {
        lock(&self.doing)
    }

    /// Starts waiting for this part; connections that already await the same part are closed first.
    fn awaits(&self, what: Awaiting) {
        let mut all = self.all.state();
        let at = all.next;
        all.next += 1;
        all.waiting.insert((what, at), Arc::clone(&self.close));
        self.change(&mut all, Doing::Waiting(what, at));
    }

    /// Stops waiting for the client.
    fn answers(&self) {
        self.change(&mut self.all.state(), Doing::Answering);
    }

    fn change(&self, all: &mut State, to: Doing) {
        if let Doing::Waiting(what, at) = std::mem::replace(&mut *self.state(), to) {
            all.waiting.remove(&(what, at));
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.answers();
        self.all.state().count -= 1;
        self.all.open.dec();
    }
}

/// A request being served on a connection.
struct Busy(Arc<Connection>);

impl Busy {
    fn begin(connection: &Arc<Connection>) -> Self {
        connection.served.store(true, Ordering::Relaxed);
        connection.answers();
        Self(Arc::clone(connection))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.awaits(Awaiting::Request);
    }
}

/// A request's body; the connection counts as waiting while more of it is awaited.
struct Awaited {
    body: Incoming,
    connection: Arc<Connection>,
}

impl Awaited {
    fn new(body: Incoming, connection: &Arc<Connection>) -> Self {
        connection.awaits(Awaiting::Body);
        Self { body, connection: Arc::clone(connection) }
    }

    fn ends(&self) {
        // The next request may have arrived, or the connection may be idle again.
        if matches!(*self.connection.state(), Doing::Waiting(Awaiting::Body, _)) {
            self.connection.answers();
        }
    }
}

impl HttpBody for Awaited {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(_)) if !self.body.is_end_stream() => self.connection.awaits(Awaiting::Body),
            _ => self.ends(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        if !self.body.is_end_stream() {
            self.connection.unread.store(true, Ordering::Relaxed);
        }
        self.ends();
    }
}
