//! Cooperative cancellation of long loops.

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

thread_local! {
    /// The flag of the work on this thread.
    static CANCELLED: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// Runs `work`, whose long loops end early once `flag` is set. Their result is then meaningless.
pub fn cancellable<T>(flag: Arc<AtomicBool>, work: impl FnOnce() -> T) -> T {
    CANCELLED.set(Some(flag));
    let result = work();
    CANCELLED.set(None);
    result
}

/// Whether the work on this thread was cancelled.
#[must_use]
pub fn cancelled() -> bool {
    CANCELLED.with_borrow(|flag| flag.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_sees_its_own_flag_only() {
        let flag = Arc::new(AtomicBool::new(false));
        let seen = cancellable(Arc::clone(&flag), || {
            let before = cancelled();
            flag.store(true, Ordering::Relaxed);
            (before, cancelled())
        });
        assert_eq!(seen, (false, true));
        assert!(!cancelled());
    }
}
