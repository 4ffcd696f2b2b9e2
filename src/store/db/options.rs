//! Connection settings.

use std::time::Duration;

use crate::store::telemetry::StoreTelemetry;

/// Connection settings of a store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Maximum number of open connections: PostgreSQL's pool, or SQLite's readers in addition to
    /// its single writer.
    pub connections: u32,
    /// Most transactions that record scores at the same time; `None` chooses for the database. One
    /// is best where other instances record too: all wait for the row of the run, and the longer a
    /// writer waits, the more samples share its transaction.
    pub writers: Option<usize>,
    /// Longest wait for a free connection or a lock, after which a request fails as unavailable.
    pub timeout: Duration,
    /// Service metrics of the store.
    pub telemetry: StoreTelemetry,
}

impl Default for StoreOptions {
    /// 16 connections and 30 seconds: SQLite's writer serves thousands of samples in that time, so
    /// only a database that is really stuck fails a request.
    fn default() -> Self {
        Self {
            connections: 16,
            writers: None,
            timeout: Duration::from_secs(30),
            telemetry: StoreTelemetry::default(),
        }
    }
}
