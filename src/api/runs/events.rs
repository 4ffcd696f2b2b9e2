//! `GET /v1/runs/{id}/events`: progress of a run as server-sent events.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::State,
    http::{HeaderName, header},
    response::{
        IntoResponse,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream::{self, Stream};

use crate::api::http::{ApiError, Id};
use crate::api::runs::{Blocked, ProgressEvent, find};
use crate::api::state::Shared;
use crate::{
    runs::Progress,
    store::{RunRecord, RunState},
    telemetry::Bound,
};

/// Interval of comments that keep proxies from closing a quiet stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Streams the progress of a run as server-sent events.
///
/// Each event has the run's counts. An event `progress` is sent at once and whenever the counts
/// change; the last event is `finished`. The stream also ends when the service stops. After a
/// reconnect it starts with the run's current state.
#[utoipa::path(
    get, path = "/v1/runs/{id}/events", operation_id = "watch_run", tag = "runs",
    params(("id" = uuid::Uuid, Path, description = "Id of the run (`run_id`)")),
    responses(
        (status = 200, description = "Events `progress` and `finished`; `data` is a \
            ProgressEvent", body = ProgressEvent, content_type = "text/event-stream"),
        (status = 429, description = "Too many clients are watching runs; retry after \
            `Retry-After` seconds, or poll the run"),
    )
)]
pub(crate) async fn watch(
    State(app): Shared,
    id: Id<RunRecord>,
) -> Result<impl IntoResponse, ApiError> {
    let run = find(&app, id).await?;
    let progress = app.runs.watchers().watch(&run).ok_or_else(|| {
        ApiError::overloaded(
            "too many clients are watching runs (limit reached); poll GET /v1/runs/{id}, which has \
                the same counts",
        )
        .at(Bound::Watchers)
    })?;
    let held = Blocked::of(&run, &app.scoring.pack().id());
    let events = Sse::new(events(progress, held, app.runs.stopping()))
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    // Otherwise proxies would buffer events.
    let headers =
        [(header::CACHE_CONTROL, "no-store"), (HeaderName::from_static("x-accel-buffering"), "no")];
    Ok((headers, events))
}

fn events(
    progress: Progress,
    held: Option<Blocked>,
    stopping: tokio::sync::watch::Receiver<bool>,
) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold((progress, held, stopping), |(mut progress, held, mut stopping)| async move {
        let stopped = async { drop(stopping.wait_for(|stop| *stop).await) };
        let next = tokio::select! {
            next = progress.next() => next?,
            () = stopped => return None,
        };
        let name = if next.state == RunState::Finished { "finished" } else { "progress" };
        let event = Event::default().event(name).json_data(ProgressEvent::new(next, held.as_ref()));
        Some((Ok(event.expect("plain data always serialises")), (progress, held, stopping)))
    })
}
