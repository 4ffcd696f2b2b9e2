//! Analyses: work of seconds over whole runs, kept apart from scoring.
//!
//! They have threads of their own, of low priority, and database connections of their own. Few compute at once, a bounded number waits,
//! and what nobody waits for any more is given up; only what is kept for the next who asks is finished.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use tokio::{
    runtime::{Builder, Handle},
    sync::Semaphore,
    task::JoinHandle,
};

use super::{ApiError, Code, request_id};
use crate::config::Analysis as Settings;

/// Questions to summaries that are there: each takes milliseconds, and none waits behind the long ones.
const LIGHT: [&str; 5] = [
    "/v1/leaderboard",
    "/v1/analysis/slices",
    "/v1/analysis/trade-off",
    "/v1/samples/{id}",
    "/v1/preferences/next",
];

/// What is kept for whoever asks next, so that it is finished also if its first reader leaves.
const KEPT: [&str; 2] = ["/v1/runs/{id}/report", "/v1/runs/{id}/attributes"];

/// Light ones at once.
const LIGHT_AT_ONCE: usize = 4;

/// How much less of a busy processor an analysis gets than scoring: about a tenth (`nice`).
const NICENESS: i32 = 10;

/// The threads and places of analyses.
pub(super) struct Analyses {
    handle: Handle,
    heavy: Arc<Semaphore>,
    light: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    deadline: Duration,
    /// Its end tells the threads to end.
    _alive: mpsc::Sender<()>,
}

/// Database connections that analyses use at once.
pub(super) fn connections(settings: &Settings) -> u32 {
    (at_once(settings) + LIGHT_AT_ONCE) as u32
}

fn at_once(settings: &Settings) -> usize {
    match settings.concurrency {
        0 => std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(4)),
        set => set,
    }
}

impl Analyses {
    pub(super) fn start(settings: &Settings, deadline: Duration) -> Arc<Self> {
        let at_once = at_once(settings);
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(at_once + LIGHT_AT_ONCE)
            .thread_name("analysis")
            .on_thread_start(give_way)
            .enable_all()
            .build()
            .expect("threads can be started");
        let handle = runtime.handle().clone();
        let (alive, ends) = mpsc::channel::<()>();
        // A runtime must not be dropped by one of its tasks, nor by another runtime's.
        std::thread::Builder::new()
            .name("analyses".to_owned())
            .spawn(move || {
                let _ = ends.recv();
                runtime.shutdown_background();
            })
            .expect("threads can be started");
        Arc::new(Self {
            handle,
            heavy: Arc::new(Semaphore::new(at_once)),
            light: Arc::new(Semaphore::new(LIGHT_AT_ONCE)),
            waiting: Arc::new(Semaphore::new(settings.queue)),
            deadline,
            _alive: alive,
        })
    }

    async fn answer(&self, request: Request, next: Next) -> Result<Response, ApiError> {
        let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
        let is_one_of = |routes: &[&str]| route.as_deref().is_some_and(|route| routes.contains(&route));
        let places = if is_one_of(&LIGHT) && !reads_scores(&request) { &self.light } else { &self.heavy };
        let keep = is_one_of(&KEPT);
        let Ok(_waiting) = Arc::clone(&self.waiting).try_acquire_owned() else {
            return Err(ApiError::overloaded(
                "as many analyses as the service takes at once are computed or wait; retry after a moment",
            ));
        };
        let Ok(place) = Arc::clone(places).acquire_owned().await else {
            return Err(ApiError::unavailable("the service is stopping"));
        };
        let mut work = Abandon {
            task: self.handle.spawn(request_id::carried(async move {
                let _place = place;
                next.run(request).await
            })),
            keep,
        };
        match (&mut work.task).await {
            Ok(response) => Ok(response),
            Err(panic) if panic.is_panic() => Err(ApiError::internal(&panic)),
            Err(_) => Err(ApiError::unavailable("the service is stopping")),
        }
    }
}

/// Whether a question to summaries goes back to the scores: rows over what they share.
fn reads_scores(request: &Request) -> bool {
    type Pairs = Vec<(String, String)>;
    axum::extract::Query::<Pairs>::try_from_uri(request.uri())
        .is_ok_and(|pairs| pairs.iter().any(|(name, value)| name == "on" && value.trim() == "common"))
}

/// Lets the processor go where somebody waits for scores.
fn give_way() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS) {
        tracing::debug!(%error, "analyses have the priority of everything else");
    }
}

/// A task that ends with whoever waits for it, unless what it computes is kept.
struct Abandon {
    task: JoinHandle<Response>,
    keep: bool,
}

impl Drop for Abandon {
    fn drop(&mut self) {
        if !self.keep {
            self.task.abort();
        }
    }
}

/// Admits an analysis, and computes it apart from everything else.
pub(super) async fn admit(State(analyses): State<Arc<Analyses>>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(analyses.deadline, analyses.answer(request, next)).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => error.into_response(),
        Err(_) => ApiError::new(
            Code::DeadlineExceeded,
            format!(
                "not ready after {} s: ask for less (fewer metrics, without slices), or retry when there is less to do",
                analyses.deadline.as_secs()
            ),
        )
        .into_response(),
    }
}
