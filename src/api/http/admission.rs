//! Admission: limits the number of requests being scored and the bytes of uploads in memory.
//!
//! A request takes a permit once its body has arrived, so slow clients hold none. Memory is counted
//! as bytes arrive (`bodies.rs`), so an announced length costs nothing.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{error::ApiError, fair::Turns};
use crate::{
    config::{Limits, Rewards},
    telemetry::Bound,
    trace::span,
};

/// Most requests that wait for upload memory. Each holds a connection, and these are bounded too.
const MOST_WAITING: usize = 65_536;

/// Limits on concurrent requests and on the memory of their bodies.
#[derive(Debug)]
pub(crate) struct Admission {
    requests: Arc<Semaphore>,
    memory: Arc<Semaphore>,
    places: usize,
    upload_kib: usize,
    /// Memory of requests that wait for it, apart, so that they keep no other upload out.
    queued: Arc<Semaphore>,
    queued_kib: u32,
    /// One turn to wait for that memory.
    turns: Turns,
}

/// A request's permit, released on drop.
#[derive(Debug)]
pub(crate) struct Permit {
    _request: OwnedSemaphorePermit,
}

/// The memory of one request's body, released on drop.
#[derive(Debug)]
pub(crate) struct UploadMemory {
    all: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
    bytes: usize,
    /// Memory that is held elsewhere for this body.
    prepaid_kib: u32,
}

/// Converts bytes to KiB, in which upload memory is counted since a semaphore counts in `u32`.
fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

fn no_place() -> ApiError {
    ApiError::overloaded("the limit of concurrent requests is reached; retry after a moment")
        .at(Bound::Requests)
}

pub(crate) fn no_memory() -> ApiError {
    ApiError::overloaded("the memory reserved for uploads is in use; retry after a moment")
        .at(Bound::UploadMemory)
}

impl Admission {
    pub(crate) fn new(limits: &Limits, rewards: &Rewards) -> Self {
        let queued_kib = kib(rewards.memory_bytes());
        let upload_kib = kib(limits.upload_memory_bytes()) as usize;
        Self {
            requests: Arc::new(Semaphore::new(limits.requests)),
            memory: Arc::new(Semaphore::new(upload_kib)),
            places: limits.requests,
            upload_kib,
            queued: Arc::new(Semaphore::new(queued_kib as usize)),
            queued_kib,
            turns: Turns::new(1, MOST_WAITING),
        }
    }

    /// Returns the memory that uploads hold, in bytes, rounded up to KiB.
    pub(crate) fn upload_bytes(&self) -> u64 {
        (self.upload_kib - self.memory.available_permits()) as u64 * 1024
    }

    /// Returns the memory that bodies of queuing routes hold, in bytes, rounded up to KiB.
    pub(crate) fn queued_bytes(&self) -> u64 {
        (self.queued_kib as usize - self.queued.available_permits()) as u64 * 1024
    }

    /// Returns the number of requests that hold a permit.
    pub(crate) fn requests(&self) -> usize {
        self.places - self.requests.available_permits()
    }

    /// Refuses a request before its body is read if no permit is free.
    pub(crate) fn room(&self) -> Result<(), ApiError> {
        let _span = span!("admission", at = "head").entered();
        if self.requests.available_permits() == 0 { Err(no_place()) } else { Ok(()) }
    }

    /// Takes a permit, or fails at once if none is free.
    pub(crate) fn enter(&self) -> Result<Permit, ApiError> {
        let _span = span!("admission", at = "body").entered();
        match Arc::clone(&self.requests).try_acquire_owned() {
            Ok(request) => Ok(Permit { _request: request }),
            Err(_) => Err(no_place()),
        }
    }

    /// Starts to count a body's memory; fails if the announced bytes are not free now. None of them
    /// is taken yet.
    pub(crate) fn upload(&self, announced: usize) -> Result<UploadMemory, ApiError> {
        if kib(announced) as usize > self.memory.available_permits() {
            return Err(no_memory());
        }
        Ok(UploadMemory { all: Arc::clone(&self.memory), held: None, bytes: 0, prepaid_kib: 0 })
    }

    /// Waits until the announced bytes of a body are free, and takes them. Of several clients that
    /// wait, each gets its turn. The permit may be held longer than the body.
    pub(crate) async fn upload_when_free(
        &self,
        client: &str,
        announced: usize,
    ) -> Result<(UploadMemory, OwnedSemaphorePermit), ApiError> {
        let turn = self.turns.take(client).await;
        let _turn = turn.map_err(|_| no_memory().at(Bound::Rewards))?;
        // A body that needs more than all of it is alone.
        let kib = kib(announced).min(self.queued_kib);
        let permit = Arc::clone(&self.queued).acquire_many_owned(kib).await;
        let permit = permit.expect("the semaphore is never closed");
        let all = Arc::clone(&self.queued);
        Ok((UploadMemory { all, held: None, bytes: 0, prepaid_kib: kib }, permit))
    }
}

impl UploadMemory {
    /// Counts bytes that arrived; returns false if there is no memory for them.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let before = kib(self.bytes).max(self.prepaid_kib);
        self.bytes += bytes;
        let more = kib(self.bytes).max(self.prepaid_kib) - before;
        if more == 0 {
            return true;
        }
        let Ok(more) = Arc::clone(&self.all).try_acquire_many_owned(more) else { return false };
        match &mut self.held {
            Some(held) => held.merge(more),
            held => *held = Some(more),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn admission(requests: usize, memory_mib: usize) -> Admission {
        let Config { mut limits, rewards, .. } = Config::load(None).unwrap();
        (limits.requests, limits.upload_memory_mib, limits.request_mib) = (requests, memory_mib, 1);
        Admission::new(&limits, &rewards)
    }

    #[test]
    fn a_request_over_the_limit_is_refused_until_a_permit_is_free() {
        let admission = admission(1, 10);
        let first = admission.enter().unwrap();
        assert!(admission.room().is_err() && admission.enter().is_err());
        drop(first);
        assert!(admission.room().is_ok() && admission.enter().is_ok());
    }

    #[test]
    fn upload_memory_counts_arrived_bytes_and_is_released() {
        let admission = admission(100, 2);
        let mut first = admission.upload(1 << 20).unwrap();
        assert!(admission.upload(2 << 20).is_ok(), "an announced length takes no memory");
        for _ in 0..1024 {
            assert!(first.grow(1 << 10));
        }
        assert!(admission.upload(2 << 20).is_err() && admission.upload(1 << 20).is_ok());
        let mut second = admission.upload(0).unwrap();
        assert!(second.grow(1 << 20) && !second.grow(1));
        drop((first, second));
        assert!(admission.upload(2 << 20).is_ok());
    }
}
