//! Connections: how many there are, how long one may be silent, and how they end.
//!
//! A client that connects and says nothing costs a few kilobytes for `server.head_seconds`. Above `server.connections` the one that
//! has been silent longest is closed to make room, so that idle sockets never keep anybody out.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body};
use http_body_util::BodyExt as _;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::IntGauge;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
    task::JoinSet,
};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt as _;

/// A closed connection frees its file descriptor; until then accepting again would fail at once.
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(100);

/// The last words to a client that is cut off; they fit into the socket's buffer.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A request's head, its line and headers, in bytes. hyper takes no less.
const HEAD_BYTES: usize = 64 << 10;

const TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// What connections may cost.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// How many there are at once.
    pub connections: usize,
    /// How long one may be silent before a request's head is there.
    pub head: Duration,
    /// How long a client may read nothing of an answer.
    pub write: Duration,
}

/// Serves until `stop` is true and every request in flight is answered. Dropped before that, it cuts them off.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ConnectionLimits,
    open: IntGauge,
    mut stop: watch::Receiver<bool>,
) {
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
            Ok((stream, _)) => {
                if all.count() >= limits.connections && !all.close_oldest_idle() {
                    // All are being answered: say so where that costs no waiting.
                    let _ = stream.try_write(FULL);
                    continue;
                }
                let connection = Connection::open(&all);
                tasks.spawn(converse(stream, router.clone(), limits, connection, stop.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(AFTER_FAILED_ACCEPT).await;
            }
        }
    }
    drop(listener);
    while tasks.join_next().await.is_some() {}
}

/// One connection from its first byte to its last.
async fn converse(
    stream: TcpStream,
    router: Router,
    limits: ConnectionLimits,
    connection: Arc<Connection>,
    mut stop: watch::Receiver<bool>,
) {
    // Answers are small and whole: waiting for more of them would only delay them.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.write));
    let service = {
        let connection = Arc::clone(&connection);
        service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let busy = Busy::begin(&connection);
            let answer = router.clone().oneshot(request.map(Body::new));
            Box::pin(async move {
                // Until the last byte of the answer is written, or nobody wants it any more.
                answer.await.map(|response| {
                    response.map(|body| {
                        body.map_frame(move |frame| {
                            let _held = &busy;
                            frame
                        })
                    })
                })
            })
        })
    };
    let mut http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    let mut stopping = false;
    let ended = loop {
        tokio::select! {
            ended = poll_fn(|context| http.poll_without_shutdown(context)) => break ended.map_err(Some),
            // Unless a request has come since it was chosen.
            () = connection.close.notified() => if connection.is_idle() { break Err(None) },
            _ = stop.wait_for(|stop| *stop), if !stopping => {
                stopping = true;
                std::pin::Pin::new(&mut http).graceful_shutdown();
            }
        }
    };
    let parts = http.into_parts();
    let mut stream = parts.io.into_inner();
    let silent = ended.as_ref().is_err_and(|error| error.as_ref().is_none_or(hyper::Error::is_timeout));
    // Between two requests there is nobody to tell: the next request would take this for its answer.
    if silent && (!parts.read_buf.is_empty() || !connection.served.load(Ordering::Relaxed)) {
        let _ = tokio::time::timeout(LAST_WORDS, stream.write_all(TIMEOUT)).await;
    }
    let _ = tokio::time::timeout(LAST_WORDS, stream.shutdown()).await;
}

/// All connections that are open, and which of them are idle.
struct Connections {
    state: Mutex<State>,
    open: IntGauge,
}

#[derive(Default)]
struct State {
    count: usize,
    /// By when each became idle: an ever growing number, so that the first is the one idle longest.
    idle: BTreeMap<u64, Arc<Notify>>,
    next: u64,
}

impl Connections {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self) -> usize {
        self.state().count
    }

    /// Asks the one that has been idle longest to close; false if none is idle.
    fn close_oldest_idle(&self) -> bool {
        let oldest = self.state().idle.pop_first();
        oldest.is_some_and(|(_, close)| {
            close.notify_one();
            true
        })
    }
}

/// One open connection; counted until it is dropped.
struct Connection {
    all: Arc<Connections>,
    /// Rings when it is to make room.
    close: Arc<Notify>,
    /// Its place among the idle ones, unless a request is being answered.
    idle: Mutex<Option<u64>>,
    /// Whether a request came.
    served: AtomicBool,
}

impl Connection {
    fn open(all: &Arc<Connections>) -> Arc<Self> {
        all.state().count += 1;
        all.open.inc();
        let connection = Arc::new(Self {
            all: Arc::clone(all),
            close: Arc::new(Notify::new()),
            idle: Mutex::default(),
            served: AtomicBool::new(false),
        });
        connection.rest();
        connection
    }

    fn place(&self) -> MutexGuard<'_, Option<u64>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_idle(&self) -> bool {
        self.place().is_some()
    }

    /// Becomes the youngest of the idle ones.
    fn rest(&self) {
        let mut state = self.all.state();
        let at = state.next;
        state.next += 1;
        state.idle.insert(at, Arc::clone(&self.close));
        *self.place() = Some(at);
    }

    /// Is idle no more.
    fn rise(&self) {
        let mut state = self.all.state();
        if let Some(at) = self.place().take() {
            state.idle.remove(&at);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.rise();
        self.all.state().count -= 1;
        self.all.open.dec();
    }
}

/// A request that is being answered on a connection.
struct Busy(Arc<Connection>);

impl Busy {
    fn begin(connection: &Arc<Connection>) -> Self {
        connection.served.store(true, Ordering::Relaxed);
        connection.rise();
        Self(Arc::clone(connection))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.rest();
    }
}
