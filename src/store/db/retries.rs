//! Repeats a transaction that others hold up.

use std::future::Future;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::error::StoreError;

/// Maximum number of attempts per transaction. A deadlock or a busy file clears in milliseconds; a
/// fifth failure in a row means that something is stuck.
const ATTEMPTS: u32 = 5;

/// Time after which a transaction is not retried: an attempt that takes this long waited for a lock
/// in vain, and so would the next.
const LONGEST_TRIED: Duration = Duration::from_secs(5);

/// Retries a transaction while others hold its locks.
pub(crate) async fn with_retries<T, F: Future<Output = Result<T, StoreError>>>(
    mut transaction: impl FnMut() -> F,
) -> Result<T, StoreError> {
    let (started, mut attempt) = (Instant::now(), 1);
    loop {
        match transaction().await {
            Err(StoreError::Contended(error))
                if attempt < ATTEMPTS && started.elapsed() < LONGEST_TRIED =>
            {
                tracing::debug!(%error, attempt, "retrying contended transaction");
                // Jitter, so that competitors do not meet again: the end of such an id is random.
                let jitter = u64::from(Uuid::now_v7().as_bytes()[15]) / 16;
                tokio::time::sleep(Duration::from_millis((5 << attempt) + jitter)).await;
                attempt += 1;
            }
            result => return result,
        }
    }
}
