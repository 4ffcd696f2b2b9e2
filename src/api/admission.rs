//! Admission: how many requests, and how many bytes of uploads, are in the process at once.

use std::sync::Arc;

use axum::http::HeaderMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::ApiError;
use crate::config::Limits;

/// The places and the upload memory that requests take before their bodies are read.
#[derive(Debug)]
pub(super) struct Admission {
    requests: Arc<Semaphore>,
    memory: Arc<Semaphore>,
    request_bytes: usize,
}

/// A request's place and memory, given back when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    _request: OwnedSemaphorePermit,
    _memory: OwnedSemaphorePermit,
}

/// Upload memory is counted in KiB, since a semaphore counts in `u32`.
fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

impl Admission {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            requests: Arc::new(Semaphore::new(limits.requests)),
            memory: Arc::new(Semaphore::new(kib(limits.upload_memory_bytes()) as usize)),
            request_bytes: limits.request_bytes(),
        }
    }

    /// Takes a place, or says at once that there is none. A body of unknown length counts as the largest.
    pub(super) fn enter(&self, headers: &HeaderMap) -> Result<Permit, ApiError> {
        let length = headers.get("content-length").and_then(|value| value.to_str().ok()?.parse().ok());
        self.take(length.unwrap_or(self.request_bytes))
    }

    /// The same for a request that has no body.
    pub(super) fn enter_without_body(&self) -> Result<Permit, ApiError> {
        self.take(0)
    }

    fn take(&self, bytes: usize) -> Result<Permit, ApiError> {
        let bytes = bytes.min(self.request_bytes);
        let full = |what| move |_| ApiError::overloaded(format!("{what}; retry after a moment"));
        let request = Arc::clone(&self.requests)
            .try_acquire_owned()
            .map_err(full("as many requests as the service takes at once are being scored"))?;
        let memory = Arc::clone(&self.memory)
            .try_acquire_many_owned(kib(bytes))
            .map_err(full("the uploads being scored fill the memory set aside for them"))?;
        Ok(Permit { _request: request, _memory: memory })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn admission(requests: usize, memory_mib: usize) -> Admission {
        let mut limits = Config::load(None).unwrap().limits;
        (limits.requests, limits.upload_memory_mib, limits.request_mib) = (requests, memory_mib, 1);
        Admission::new(&limits)
    }

    fn of_length(bytes: usize) -> HeaderMap {
        HeaderMap::from_iter([("content-length".parse().unwrap(), bytes.into())])
    }

    #[test]
    fn one_request_too_many_is_refused_until_a_place_is_free() {
        let admission = admission(1, 10);
        let first = admission.enter(&of_length(10)).unwrap();
        assert!(admission.enter(&of_length(10)).is_err());
        drop(first);
        assert!(admission.enter(&of_length(10)).is_ok());
    }

    #[test]
    fn upload_memory_is_bounded_whatever_the_number_of_requests() {
        let admission = admission(100, 2);
        let _first = admission.enter(&of_length(1 << 20)).unwrap();
        let _unknown_length = admission.enter(&HeaderMap::new()).unwrap();
        assert!(admission.enter(&of_length(10)).is_err());
    }
}
