//! Restarts background tasks that panic, and reports them.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use prometheus::IntCounterVec;
use tokio::{sync::watch, task::JoinHandle};

use crate::sync::lock;

/// Pause after the first panic; it doubles with each further one, up to `LONGEST_PAUSE`.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// Uptime after which a task counts as healthy again.
const WELL_AFTER: Duration = Duration::from_secs(30);

/// Waits until the service stops.
pub(crate) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, so there is nothing left to wait for.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Supervises the background tasks of a process.
#[derive(Debug)]
pub struct Supervisor {
    restarts: IntCounterVec,
    troubled: Mutex<BTreeMap<&'static str, Trouble>>,
    first_pause: Duration,
}

/// What happened to a task that is not known to be well.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    /// It panicked and waits for its restart.
    Down,
    /// It was restarted at this time.
    Restarted(Instant),
    /// It returned although the service is not stopping.
    Ended,
}

impl Supervisor {
    /// Creates a supervisor that counts restarts in this counter, by task.
    #[must_use]
    pub fn new(restarts: IntCounterVec) -> Arc<Self> {
        Arc::new(Self { restarts, troubled: Mutex::default(), first_pause: FIRST_PAUSE })
    }

    fn troubled(&self) -> MutexGuard<'_, BTreeMap<&'static str, Trouble>> {
        lock(&self.troubled)
    }

    /// Returns the tasks that do not run, or panicked recently, for the readiness check.
    #[must_use]
    pub fn failing(&self) -> Vec<&'static str> {
        let mut troubled = self.troubled();
        troubled.retain(|_, trouble| match trouble {
            Trouble::Restarted(at) => at.elapsed() < WELL_AFTER,
            Trouble::Down | Trouble::Ended => true,
        });
        troubled.keys().copied().collect()
    }

    /// Runs a task until it returns, and restarts it if it panics. A stop of the service ends the
    /// pause before a restart. Dropping the handle does not stop the task; aborting the handle
    /// aborts it.
    pub fn watch<F: Future<Output = ()> + Send + 'static>(
        self: &Arc<Self>,
        task: &'static str,
        mut stopping: watch::Receiver<bool>,
        work: impl Fn() -> F + Send + 'static,
    ) -> JoinHandle<()> {
        let this = Arc::clone(self);
        // A rate needs the series before the first restart.
        this.restarts.with_label_values(&[task]);
        tokio::spawn(async move {
            let mut pause = this.first_pause;
            loop {
                let started = Instant::now();
                let mut attempt = AbortOnDrop(tokio::spawn(work()));
                let Err(panic) = (&mut attempt.0).await else {
                    if !*stopping.borrow() {
                        tracing::error!(task, "background task ended");
                        this.troubled().insert(task, Trouble::Ended);
                    }
                    return;
                };
                this.restarts.with_label_values(&[task]).inc();
                this.troubled().insert(task, Trouble::Down);
                if started.elapsed() > WELL_AFTER {
                    pause = this.first_pause;
                }
                tracing::error!(task, %panic, seconds = pause.as_secs(), "background task \
                    panicked, will restart");
                if tokio::time::timeout(pause, stopped(&mut stopping)).await.is_ok() {
                    return;
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
                this.troubled().insert(task, Trouble::Restarted(Instant::now()));
            }
        })
    }
}

pub(crate) struct AbortOnDrop(pub(crate) JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use prometheus::Opts;

    use super::*;

    fn supervisor(first_pause: Duration) -> Arc<Supervisor> {
        let restarts =
            IntCounterVec::new(Opts::new("restarts_total", "Restarts."), &["task"]).unwrap();
        Arc::new(Supervisor { restarts, troubled: Mutex::default(), first_pause })
    }

    #[tokio::test]
    async fn a_task_that_panics_is_restarted_counted_and_reported() {
        let (supervisor, runs) =
            (supervisor(Duration::from_millis(1)), Arc::new(AtomicUsize::new(0)));
        let (stop, stopping) = watch::channel(false);
        let counted = Arc::clone(&runs);
        let task = supervisor.watch("summaries", stopping, move || {
            let runs = Arc::clone(&counted);
            async move {
                assert!(runs.fetch_add(1, Ordering::SeqCst) >= 2, "on purpose");
            }
        });
        assert!(supervisor.failing().is_empty());
        task.await.unwrap();
        assert_eq!(runs.load(Ordering::SeqCst), 3);
        assert_eq!(supervisor.restarts.with_label_values(&["summaries"]).get(), 2);
        assert_eq!(supervisor.failing(), ["summaries"]);
        drop(stop);
    }

    #[tokio::test]
    async fn a_task_that_ends_by_itself_is_reported() {
        let supervisor = supervisor(FIRST_PAUSE);
        let (stop, stopping) = watch::channel(false);
        supervisor.watch("summaries", stopping.clone(), || async {}).await.unwrap();
        assert_eq!(supervisor.failing(), ["summaries"]);
        stop.send_replace(true);
        supervisor.watch("gauges", stopping, || async {}).await.unwrap();
        assert_eq!(supervisor.failing(), ["summaries"], "the end of `gauges` was asked for");
    }

    #[tokio::test]
    async fn a_task_that_waits_for_its_restart_is_reported() {
        let supervisor = supervisor(Duration::from_hours(1));
        let (_stop, stopping) = watch::channel(false);
        let task = supervisor.watch("summaries", stopping, || async { panic!("on purpose") });
        while supervisor.failing().is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(matches!(supervisor.troubled()["summaries"], Trouble::Down));
        task.abort();
    }

    #[tokio::test]
    async fn a_stop_ends_the_pause() {
        let supervisor = supervisor(Duration::from_hours(1));
        let (stop, stopping) = watch::channel(false);
        let task = supervisor.watch("summaries", stopping, || async { panic!("on purpose") });
        tokio::task::yield_now().await;
        stop.send_replace(true);
        task.await.unwrap();
    }
}
