//! Writes the audit log: entries that arrive at the same time share a transaction.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::Mutex as AsyncMutex;

use crate::store::{AuditEntry, Store};
use crate::sync::lock;

/// Pause before entries are written that nobody waits for: so many share a transaction that a
/// thousand samples a second cost ten.
const PAUSE: Duration = Duration::from_millis(100);

/// Most entries that wait for the database. Further ones go to the log of the service.
const MOST: usize = 10_000;

/// Attempts to write entries before they go to the log of the service.
const ATTEMPTS: u32 = 5;

/// The audit log of a service, cheap to clone.
#[derive(Clone, Debug)]
pub struct AuditLog {
    store: Store,
    waiting: Arc<Mutex<Vec<AuditEntry>>>,
    writing: Arc<AsyncMutex<()>>,
}

impl AuditLog {
    /// Creates the audit log of a database.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, waiting: Arc::default(), writing: Arc::default() }
    }

    /// Records an entry soon; a crash within a tenth of a second loses it.
    pub fn note(&self, entry: AuditEntry) {
        // Requests are also dropped when the process ends, outside of the runtime.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return lost(&entry) };
        if self.queue(entry) == 1 {
            let log = self.clone();
            runtime.spawn(async move {
                tokio::time::sleep(PAUSE).await;
                log.flush().await;
            });
        }
    }

    /// Records an entry, and waits until it is durable.
    pub async fn record(&self, entry: AuditEntry) {
        self.queue(entry);
        // In a task of its own: the client may leave, and the entries of others are in its hands.
        let log = self.clone();
        let _ = tokio::spawn(async move { log.flush().await }).await;
    }

    /// Writes all entries that wait.
    pub async fn flush(&self) {
        let _alone = self.writing.lock().await;
        let entries = std::mem::take(&mut *self.waiting());
        if entries.is_empty() {
            return;
        }
        for attempt in 1.. {
            match self.store.record_audit(&entries).await {
                Ok(()) => return,
                Err(error) if attempt == ATTEMPTS => {
                    tracing::error!(%error, "failed to write the audit log");
                    entries.iter().for_each(lost);
                    return;
                }
                Err(_) => tokio::time::sleep(PAUSE * 2_u32.pow(attempt)).await,
            }
        }
    }

    /// Queues an entry, and returns the number of those that wait.
    fn queue(&self, entry: AuditEntry) -> usize {
        let mut waiting = self.waiting();
        if waiting.len() >= MOST {
            lost(&entry);
        } else {
            waiting.push(entry);
        }
        waiting.len()
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<AuditEntry>> {
        lock(&self.waiting)
    }
}

/// Writes an entry to the log of the service instead of the database.
fn lost(entry: &AuditEntry) {
    let (key, name) = entry.key.as_ref().map(|(id, name)| (id, name.as_str())).unzip();
    tracing::error!(
        time = %entry.time,
        key = key.map(tracing::field::display),
        name,
        method = entry.method,
        route = entry.route,
        resource = entry.resource,
        address = entry.address.map(tracing::field::display),
        request_id = entry.request_id,
        status = entry.status,
        "audit entry not stored"
    );
}
