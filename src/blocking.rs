//! Work that would keep other tasks waiting.

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

thread_local! {
    /// Whether anybody still waits for the work of this thread.
    static ABANDONED: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// Says so when the future that waits is dropped.
struct Waiter(Arc<AtomicBool>);

impl Drop for Waiter {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The result of work on a thread of its own, which goes on when nobody waits for it any more, unless it asks [`abandoned`]. Its
/// panic is this task's.
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

/// Whether nobody waits for the work of this thread any more, so that a long loop may end with whatever it has: nobody will see it.
pub(crate) fn abandoned() -> bool {
    ABANDONED.with_borrow(|flag| flag.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed)))
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert!(!abandoned());
            begins.notify_one();
            while !abandoned() {
                std::thread::yield_now();
            }
            ends.notify_one();
        }));
        begun.notified().await;
        waiting.abort();
        told.notified().await;
        assert!(!abandoned(), "other threads are waited for");
    }
}
