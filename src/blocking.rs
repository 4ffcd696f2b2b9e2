//! Work that would keep other tasks waiting.

/// The result of work on a thread of its own, which goes on when nobody waits for it any more. Its panic is this task's.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
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
}
