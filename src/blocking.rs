//! Work that would keep other tasks waiting.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use stellar_stats::cancel::cancellable;

/// Says so when the future that waits is dropped.
struct Waiter(Arc<AtomicBool>);

impl Drop for Waiter {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The result of work on a thread of its own, which goes on when nobody waits for it any more, unless it asks [`cancelled`](stellar_stats::cancel::cancelled). Its
/// panic is this task's.
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
    async fn the_result_comes_back_and_so_does_a_panic() {
        assert_eq!(blocking(|| 2 + 2).await, 4);
        let panicked = tokio::spawn(blocking(|| panic!("on purpose"))).await;
        assert!(panicked.is_err_and(|error| error.is_panic()));
    }

    #[tokio::test]
    async fn long_work_ends_soon_after_nobody_waits_for_it() {
        let (begun, told) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
        let (begins, ends) = (Arc::clone(&begun), Arc::clone(&told));
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
        told.notified().await;
        assert!(!cancelled(), "other threads are waited for");
    }
}
