//! Analyses: work of seconds over whole runs, isolated from scoring.
//!
//! Analyses have their own low-priority threads and their own database connections. A few compute
//! at once and a bounded number is queued. An analysis is cancelled when its request is gone,
//! unless its response is cached for later requests.

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

use super::{
    error::{ApiError, Code},
    request_id,
};
use crate::{config::Analysis as Settings, telemetry::Bound};

/// Routes that read stored summaries: each takes milliseconds and never queues behind long ones.
const LIGHT: [&str; 8] = [
    "/v1/leaderboard",
    "/leaderboard",
    "/v1/analysis/slices",
    "/v1/analysis/trade-off",
    "/v1/samples/{id}",
    "/v1/preferences/next",
    "/samples/{id}",
    "/vote",
];

/// Routes with cached responses, beside leaderboards over common samples: they are computed to the
/// end even if their first client leaves.
const KEPT: [&str; 6] = [
    "/v1/datasets/{dataset}/consistency",
    "/v1/runs/{id}/report",
    "/v1/runs/{id}/attributes",
    "/v1/runs/{id}/distributions",
    "/datasets/{dataset}",
    "/runs/{id}",
];

/// Maximum number of concurrent light analyses.
const LIGHT_AT_ONCE: usize = 4;

/// `nice` value of analysis threads: on a busy CPU they get about a tenth of the time of scoring.
const NICENESS: i32 = 10;

/// Threads and limits of analyses.
pub(crate) struct Analyses {
    handle: Handle,
    heavy: Arc<Semaphore>,
    light: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    deadline: Duration,
    /// Dropping the sender ends the threads.
    _alive: mpsc::Sender<()>,
}

/// Returns the number of database connections that analyses use at once.
pub(crate) fn connections(settings: &Settings) -> u32 {
    (at_once(settings) + LIGHT_AT_ONCE) as u32
}

fn at_once(settings: &Settings) -> usize {
    match settings.concurrency {
        0 => std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(4)),
        set => set,
    }
}

impl Analyses {
    pub(crate) fn start(settings: &Settings, deadline: Duration) -> Arc<Self> {
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
        // A runtime must not be dropped by one of its own tasks, nor by another runtime's.
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
        let is_one_of =
            |routes: &[&str]| route.as_deref().is_some_and(|route| routes.contains(&route));
        let on_common = reads_scores(&request);
        let places = if is_one_of(&LIGHT) && !on_common { &self.light } else { &self.heavy };
        let keep = is_one_of(&KEPT) || (is_one_of(&LIGHT) && on_common);
        let Ok(_waiting) = Arc::clone(&self.waiting).try_acquire_owned() else {
            return Err(ApiError::overloaded(
                "the limit of concurrent and queued analyses is reached; retry after a moment",
            )
            .at(Bound::Analyses));
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

/// Returns true if a query on summaries reads the scores instead: rows over common samples.
fn reads_scores(request: &Request) -> bool {
    type Pairs = Vec<(String, String)>;
    axum::extract::Query::<Pairs>::try_from_uri(request.uri()).is_ok_and(|pairs| {
        pairs.iter().any(|(name, value)| name == "on" && value.trim() == "common")
    })
}

/// Lowers the thread's priority so that scoring gets the CPU first.
fn give_way() {
    #[cfg(target_os = "linux")]
    if let Err(error) =
        rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS)
    {
        tracing::debug!(%error, "failed to lower the priority of an analysis thread");
    }
}

/// A task that is aborted when its request is dropped, unless its response is cached.
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

/// Admits an analysis and computes it on the analysis threads.
pub(crate) async fn admit(
    State(analyses): State<Arc<Analyses>>,
    request: Request,
    next: Next,
) -> Response {
    match tokio::time::timeout(analyses.deadline, analyses.answer(request, next)).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => error.into_response(),
        Err(_) => ApiError::new(
            Code::DeadlineExceeded,
            format!(
                "not ready after {} s: request less (fewer metrics, no slices), or retry when the \
                    service is less busy",
                analyses.deadline.as_secs()
            ),
        )
        .into_response(),
    }
}
