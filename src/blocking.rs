//! Runs blocking work outside the async runtime's threads.

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

thread_local! {
    /// The flag that is set when the future awaiting this thread's work is dropped.
    static ABANDONED: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// A guard that sets the flag when the awaiting future is dropped.
struct Waiter(Arc<AtomicBool>);

impl Drop for Waiter {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `work` on a blocking thread and returns its result. A panic of `work` is propagated.
///
/// If the future is dropped, `work` continues, unless it checks [`abandoned`].
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let waiter = Waiter(Arc::default());
    let flag = Arc::clone(&waiter.0);
    let done = tokio::task::spawn_blocking(move || {
        ABANDONED.set(Some(flag));
        let result = work();
        ABANDONED.set(None);
        result
    });
    let result = done.await;
    drop(waiter);
    match result {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// Returns whether the future awaiting this thread's work was dropped.
///
/// A long loop can then end early with any result, since it will be discarded.
pub(crate) fn abandoned() -> bool {
    ABANDONED.with_borrow(|flag| flag.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn results_and_panics_are_passed_on() {
        assert_eq!(blocking(|| 2 + 2).await, 4);
        let panicked = tokio::spawn(blocking(|| panic!("on purpose"))).await;
        assert!(panicked.is_err_and(|error| error.is_panic()));
    }

    #[tokio::test]
    async fn work_can_end_early_after_its_future_is_dropped() {
        let (begun, ended) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
        let (begins, ends) = (Arc::clone(&begun), Arc::clone(&ended));
        let waiting = tokio::spawn(blocking(move || {
            assert!(!abandoned());
            begins.notify_one();
            while !abandoned() {
                std::thread::yield_now();
            }
            ends.notify_one();
        }));
        begun.notified().await;
        waiting.abort();
        ended.notified().await;
        assert!(!abandoned(), "the test thread has no flag");
    }
}
