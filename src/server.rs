//! Connections: how many there are, how long one may be silent, and how they end.
//!
//! A client that connects and says nothing costs a few kilobytes for `server.head_seconds`. Above `server.connections` the connection
//! that has been silent longest is closed to make room: an idle one, or else one whose request's body is awaited. So neither idle
//! sockets nor dripping bodies ever keep anybody out.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
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
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
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
                if all.count() >= limits.connections && !all.close_silent() {
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
        service_fn(move |request: hyper::Request<Incoming>| {
            let busy = Busy::begin(&connection);
            let request = request.map(|body| {
                if body.is_end_stream() {
                    return Body::empty();
                }
                Body::new(Awaited::new(body, &connection))
            });
            let answer = router.clone().oneshot(request);
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
    let (mut stopping, mut cut) = (false, false);
    let ended = loop {
        tokio::select! {
            ended = poll_fn(|context| http.poll_without_shutdown(context)) => break ended.map_err(Some),
            () = connection.close.notified() => match *connection.state() {
                Doing::Waiting(what, _) => {
                    cut = what == Awaiting::Body;
                    break Err(None);
                }
                // What it waited for has come since it was chosen.
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
    let silent = ended.as_ref().is_err_and(|error| error.as_ref().is_none_or(hyper::Error::is_timeout));
    // Between two requests there is nobody to tell: the next request would take this for its answer.
    if silent && (cut || !parts.read_buf.is_empty() || !connection.served.load(Ordering::Relaxed)) {
        let _ = tokio::time::timeout(LAST_WORDS, stream.write_all(TIMEOUT)).await;
    }
    let _ = tokio::time::timeout(LAST_WORDS, stream.shutdown()).await;
}

/// All connections that are open, and which of them wait for their clients.
struct Connections {
    state: Mutex<State>,
    open: IntGauge,
}

#[derive(Default)]
struct State {
    count: usize,
    /// Those that wait for their clients, by what for and since when: the first is the one to close.
    waiting: BTreeMap<Place, Arc<Notify>>,
    next: u64,
}

/// What a connection waits for, and an ever growing number of when it last heard from its client.
type Place = (Awaiting, u64);

/// What a connection waits for; the first is closed first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Awaiting {
    /// The next request.
    Request,
    /// The rest of a request's body.
    Body,
}

impl Connections {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self) -> usize {
        self.state().count
    }

    /// Asks the one that has been silent longest to close; false if none waits for its client.
    fn close_silent(&self) -> bool {
        let silent = self.state().waiting.pop_first();
        silent.is_some_and(|(_, close)| {
            close.notify_one();
            true
        })
    }
}

/// What a connection does.
enum Doing {
    /// It waits for its client, in this place.
    Waiting(Awaiting, u64),
    /// Its client waits for us.
    Answering,
}

/// One open connection; counted until it is dropped.
struct Connection {
    all: Arc<Connections>,
    /// Rings when it is to make room.
    close: Arc<Notify>,
    doing: Mutex<Doing>,
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
            doing: Mutex::new(Doing::Answering),
            served: AtomicBool::new(false),
        });
        connection.awaits(Awaiting::Request);
        connection
    }

    fn state(&self) -> MutexGuard<'_, Doing> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Becomes the youngest of those that wait for the same.
    fn awaits(&self, what: Awaiting) {
        let mut all = self.all.state();
        let at = all.next;
        all.next += 1;
        all.waiting.insert((what, at), Arc::clone(&self.close));
        self.change(&mut all, Doing::Waiting(what, at));
    }

    /// Waits for its client no more.
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

/// A request that is being answered on a connection.
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

/// A request's body, as long as the service waits for it.
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
        // The next request may have come, or the connection rest again.
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
        self.ends();
    }
}
