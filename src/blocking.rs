//! Runs blocking work outside the async runtime's threads.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use stellar_stats::cancel::cancellable;

/// A guard that sets the flag when the awaiting future is dropped.
struct Waiter(Arc<AtomicBool>);

impl Drop for Waiter {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `work` on a blocking thread and returns its result. A panic of `work` is propagated.
///
/// If the future is dropped, `work` continues, unless it checks
/// [`cancelled`](stellar_stats::cancel::cancelled).
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let waiter = Waiter(Arc::default());
    let flag = Arc::clone(&waiter.0);
    let done = tokio::task::spawn_blocking(move || cancellable(flag, work));
    let result = done.await;
    drop(waiter);
    match result {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stellar_stats::cancel::cancelled;

    #[tokio::test]
    async fn results_and_panics_are_passed_on() {
        assert_eq!(blocking(|| 2 + 2).await, 4);
        let panicked = tokio::spawn(blocking(|| panic!("on purpose"))).await;
        assert!(panicked.is_err_and(|error| error.is_panic()));
    }

    #[tokio::test]
    async fn work_can_end_early_after_its_future_is_dropped() {
        let (begun, ended) =
            (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
        let (begins, ends) = (Arc::clone(&begun), Arc::clone(&ended));
        let waiting = tokio::spawn(blocking(move || {
            assert!(!cancelled());
            begins.notify_one();
            while !cancelled() {
                std::thread::yield_now();
            }
            ends.notify_one();
        }));
        begun.notified().await;
        waiting.abort();
        ended.notified().await;
        assert!(!cancelled(), "the test thread has no flag");
    }
}
