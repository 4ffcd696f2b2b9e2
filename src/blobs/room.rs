//! The size of the files, and its limit.

use std::sync::atomic::{AtomicU64, Ordering};

use super::error::WriteError;

/// Bytes that the files take, of a limit.
pub(crate) struct Room {
    limit: u64,
    used: AtomicU64,
}

impl Room {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, used: AtomicU64::new(0) }
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Sets the size that was counted.
    pub(crate) fn count(&self, bytes: u64) {
        self.used.store(bytes, Ordering::Relaxed);
    }

    /// Takes room for a file before it is written.
    pub(crate) fn take(&self, bytes: u64) -> Result<(), WriteError> {
        let grown = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.limit);
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown) {
            Ok(_) => Ok(()),
            Err(_) => Err(WriteError::Full(self.limit >> 20)),
        }
    }

    /// Adds a file that is there already, even beyond the limit.
    pub(crate) fn add(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Subtracts the size of a removed file. A damaged file may be larger than it was when it was
    /// counted, and a count below zero would be read as a full spool.
    pub(crate) fn subtract(&self, bytes: u64) {
        let less = |used: u64| Some(used.saturating_sub(bytes));
        let _ = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}
