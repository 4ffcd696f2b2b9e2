//! A request's body that is taken to its end even where the answer is known before it.
//!
//! Closing a connection on which data is still arriving resets it, and the client would see the reset
//! instead of the answer.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, BodyDataStream, Bytes},
    extract::Request,
    http::header,
};
use futures_util::{StreamExt as _, stream};

/// How long a client may go on sending what nobody reads: a body at the default limit over a gigabit line
/// takes a second.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a request's reader leaves unread.
struct Rest {
    shared: Arc<Mutex<Shared>>,
    /// The client sends its body only once it is asked to, which the first read does.
    waits_to_be_asked: bool,
}

struct Shared {
    body: BodyDataStream,
    begun: bool,
}

/// The answer to a request, before which its body was taken to its end where the answer is an error.
pub(super) async fn whole<T, E, F: Future<Output = Result<T, E>>>(
    request: Request,
    answer: impl FnOnce(Request) -> F,
) -> Result<T, E> {
    let (request, rest) = keep_rest(request);
    let answer = answer(request).await;
    if answer.is_err() {
        rest.discard().await;
    }
    answer
}

/// Gives the request to a reader and keeps hold of what it will not read.
fn keep_rest(request: Request) -> (Request, Rest) {
    let (parts, body) = request.into_parts();
    let waits_to_be_asked = parts
        .headers
        .get(header::EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let shared = Arc::new(Mutex::new(Shared { body: body.into_data_stream(), begun: false }));
    let reader = Arc::clone(&shared);
    let body = Body::from_stream(stream::poll_fn(move |context| poll(&reader, context)));
    (Request::from_parts(parts, body), Rest { shared, waits_to_be_asked })
}

impl Rest {
    /// Reads and forgets what is left, a bounded time long; a client that was never asked sends nothing.
    async fn discard(self) {
        if self.waits_to_be_asked && !lock(&self.shared).begun {
            return;
        }
        let mut rest = stream::poll_fn(|context| poll(&self.shared, context));
        let all = async { while let Some(Ok(_)) = rest.next().await {} };
        // Whoever still sends by then gets the reset.
        let _ = tokio::time::timeout(PATIENCE, all).await;
    }
}

fn poll(shared: &Mutex<Shared>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, axum::Error>>> {
    let mut shared = lock(shared);
    shared.begun = true;
    shared.body.poll_next_unpin(context)
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
