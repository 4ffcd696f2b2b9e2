//! Reads a request's body to its end even if the response is known earlier.
//!
//! Closing a connection while data is still arriving resets it, and the client would see the reset
//! instead of the response.

use std::{
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, BodyDataStream, Bytes},
    extract::Request,
    http::header,
};
use futures_util::{StreamExt as _, stream};

use crate::sync::lock;

/// Time limit for draining unread data of a client. A body at the default size limit takes a second
/// on a gigabit line.
const PATIENCE: Duration = Duration::from_secs(5);

/// The part of a body that the request's reader leaves unread.
struct Rest {
    shared: Arc<Mutex<Shared>>,
    /// True if the client sends its body only after `100 Continue`, which the first read triggers.
    waits_to_be_asked: bool,
}

struct Shared {
    body: BodyDataStream,
    begun: bool,
}

/// Runs a handler; if it fails, drains the request's body before returning the error.
pub(crate) async fn whole<T, E, F: Future<Output = Result<T, E>>>(
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

/// Splits off a handle on the part of the body that the request's reader leaves unread.
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
    /// Reads and discards the rest for a bounded time. A client that still waits for `100 Continue`
    /// sends nothing, so nothing is read from it.
    async fn discard(self) {
        if self.waits_to_be_asked && !lock(&self.shared).begun {
            return;
        }
        let mut rest = stream::poll_fn(|context| poll(&self.shared, context));
        let all = async { while let Some(Ok(_)) = rest.next().await {} };
        // A client that is still sending after that gets the reset.
        let _ = tokio::time::timeout(PATIENCE, all).await;
    }
}

fn poll(
    shared: &Mutex<Shared>,
    context: &mut Context<'_>,
) -> Poll<Option<Result<Bytes, axum::Error>>> {
    let mut shared = lock(shared);
    shared.begun = true;
    shared.body.poll_next_unpin(context)
}
