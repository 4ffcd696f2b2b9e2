//! The limits of a key, in this process, and the fields that tell a client about them:
//! `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers-11.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;
use crate::key::KeyLimits;
use crate::sync::lock;

/// The window of requests and images, in seconds.
const MINUTE: u32 = 60;

/// The window of generated images, in seconds.
const HOUR: u32 = 3600;

/// How long a sum of stored bytes is used before the database is asked again.
const STORED_FOR: Duration = Duration::from_secs(1);

/// Pause requested at the limit of stored bytes: space is freed as samples are scored.
const STORED_RETRY: u32 = 10;

/// What a key has used in this process.
#[derive(Debug)]
pub(super) struct Usage {
    limits: KeyLimits,
    requests: Mutex<Bucket>,
    images: Mutex<Bucket>,
    generated: Mutex<Bucket>,
    concurrent: Arc<Semaphore>,
    stored: Mutex<Option<(Instant, u64)>>,
}

impl Usage {
    pub(super) fn new(limits: KeyLimits) -> Self {
        let bucket = |limit: Option<u32>, window| {
            Mutex::new(Bucket::full(limit.unwrap_or_default(), window))
        };
        Self {
            limits,
            requests: bucket(limits.requests_per_minute, MINUTE),
            images: bucket(limits.images_per_minute, MINUTE),
            generated: bucket(limits.generated_per_hour, HOUR),
            concurrent: Arc::new(Semaphore::new(
                limits.concurrent_requests.unwrap_or_default() as usize
            )),
            stored: Mutex::default(),
        }
    }

    /// Admits a request, or says which limit is reached. Returns the permit to hold until the
    /// response is sent, if concurrent requests are limited.
    pub(super) fn admit(&self) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
        let now = Instant::now();
        // Images are counted when the form is read; until then one more is assumed.
        if let Some(limit) = self.limits.images_per_minute
            && let Some(wait) = lock(&self.images).wait(limit, now)
        {
            let what = format!("this API key may send {limit} images per minute");
            return Err(ApiError::key_limit(what, wait));
        }
        let permit = match self.limits.concurrent_requests {
            None => None,
            Some(limit) => {
                let permit = Arc::clone(&self.concurrent).try_acquire_owned();
                Some(permit.map_err(|_| {
                    let what = format!("this API key may send {limit} concurrent requests");
                    ApiError::key_limit(what, 1)
                })?)
            }
        };
        if let Some(limit) = self.limits.requests_per_minute {
            let mut requests = lock(&self.requests);
            if let Some(wait) = requests.wait(limit, now) {
                let what = format!("this API key may send {limit} requests per minute");
                return Err(ApiError::key_limit(what, wait));
            }
            requests.left -= 1.0;
        }
        Ok(permit)
    }

    /// Counts an image that is about to be generated, or says that the limit is reached.
    pub(super) fn generate(&self) -> Result<(), ApiError> {
        let Some(limit) = self.limits.generated_per_hour else { return Ok(()) };
        let mut generated = lock(&self.generated);
        if let Some(wait) = generated.wait(limit, Instant::now()) {
            let what = format!("this API key may generate {limit} images per hour");
            return Err(ApiError::key_limit(what, wait));
        }
        generated.left -= 1.0;
        Ok(())
    }

    /// Counts images that arrived. They may exceed the limit: the next request then waits longer.
    pub(super) fn count_images(&self, images: usize) {
        if let Some(limit) = self.limits.images_per_minute {
            let mut bucket = lock(&self.images);
            bucket.refill(limit, Instant::now());
            bucket.left -= images as f64;
        }
    }

    /// Returns the limit of stored bytes, and the bytes that were stored less than a second ago.
    pub(super) fn stored(&self) -> Option<(u64, Option<u64>)> {
        let limit = self.limits.stored_bytes?;
        let stored = *lock(&self.stored);
        Some((limit, stored.filter(|(at, _)| at.elapsed() < STORED_FOR).map(|(_, bytes)| bytes)))
    }

    pub(super) fn set_stored(&self, bytes: u64) {
        *lock(&self.stored) = Some((Instant::now(), bytes));
    }

    pub(super) fn add_stored(&self, bytes: u64) {
        if let Some((_, stored)) = &mut *lock(&self.stored) {
            *stored += bytes;
        }
    }

    /// Adds the fields about all limits that the key has.
    pub(super) fn describe(&self, headers: &mut HeaderMap) {
        let (now, limits) = (Instant::now(), &self.limits);
        let (mut policy, mut state) = (String::new(), String::new());
        let rates = [
            ("requests", "", limits.requests_per_minute, &self.requests),
            ("images", ";qu=\"images\"", limits.images_per_minute, &self.images),
            ("generated", ";qu=\"images\"", limits.generated_per_hour, &self.generated),
        ];
        for (name, unit, limit, bucket) in rates {
            let Some(limit) = limit else { continue };
            let mut bucket = lock(bucket);
            let wait = bucket.wait(limit, now);
            let reset = wait.unwrap_or_else(|| bucket.full_in(limit));
            let left = bucket.left.max(0.0) as u64;
            let window = bucket.window;
            let _ = write!(policy, ", \"{name}\";q={limit}{unit};w={window}");
            let _ = write!(state, ", \"{name}\";r={left};t={reset}");
        }
        if let Some(limit) = limits.concurrent_requests {
            let free = self.concurrent.available_permits();
            let _ = write!(policy, ", \"concurrent\";q={limit};qu=\"concurrent-requests\"");
            let _ = write!(state, ", \"concurrent\";r={free}");
        }
        if let Some(limit) = limits.stored_bytes {
            let _ = write!(policy, ", \"stored\";q={limit};qu=\"content-bytes\"");
            if let Some((_, stored)) = *lock(&self.stored) {
                let _ = write!(state, ", \"stored\";r={}", limit.saturating_sub(stored));
            }
        }
        for (name, value) in [("ratelimit-policy", policy), ("ratelimit", state)] {
            if let Some(value) = value.strip_prefix(", ") {
                let value = HeaderValue::from_str(value).expect("numbers and constant words");
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }
}

/// The error at the limit of stored bytes.
pub(super) fn no_room(limit: u64) -> ApiError {
    let what = format!(
        "this API key may store {limit} bytes in the spool: space is freed as its samples are \
            scored and its runs finish"
    );
    ApiError::key_limit(what, STORED_RETRY)
}

/// A token bucket: it holds a window's worth and refills steadily.
#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
    /// Seconds.
    window: u32,
}

impl Bucket {
    fn full(limit: u32, window: u32) -> Self {
        Self { left: limit.into(), at: Instant::now(), window }
    }

    fn refill(&mut self, limit: u32, now: Instant) {
        let share = now.saturating_duration_since(self.at).as_secs_f64() / f64::from(self.window);
        let earned = share * f64::from(limit);
        self.left = (self.left + earned).min(limit.into());
        self.at = self.at.max(now);
    }

    /// Returns the seconds until one is left, rounded up, or `None` if one is left now.
    fn wait(&mut self, limit: u32, now: Instant) -> Option<u32> {
        self.refill(limit, now);
        let missing = 1.0 - self.left;
        (missing > 0.0).then(|| self.seconds(missing, limit))
    }

    fn full_in(&self, limit: u32) -> u32 {
        self.seconds(f64::from(limit) - self.left, limit)
    }

    /// Returns the time in which so many are earned.
    fn seconds(&self, missing: f64, limit: u32) -> u32 {
        (missing * f64::from(self.window) / f64::from(limit.max(1))).ceil() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_a_minute_and_refills_steadily() {
        let start = Instant::now();
        let mut bucket = Bucket { left: 60.0, at: start, window: MINUTE };
        bucket.left -= 60.0;
        assert_eq!(bucket.wait(60, start), Some(1));
        assert_eq!(bucket.wait(60, start + Duration::from_secs(1)), None);
        bucket.left -= 31.0;
        assert_eq!(bucket.wait(60, start + Duration::from_secs(1)), Some(31));
        assert_eq!(bucket.wait(60, start + Duration::from_secs(1000)), None);
        assert!((bucket.left - 60.0).abs() < 1e-9, "no more than a minute is saved");
        // A clock that was read earlier earns nothing.
        assert_eq!(bucket.wait(60, start), None);
    }

    #[test]
    fn the_fields_tell_every_limit() {
        let usage = Usage::new(KeyLimits {
            requests_per_minute: Some(2),
            images_per_minute: Some(600),
            concurrent_requests: Some(3),
            stored_bytes: Some(1_000),
            generated_per_hour: Some(7),
        });
        let permit = usage.admit().unwrap();
        usage.count_images(10);
        usage.set_stored(400);
        usage.add_stored(100);
        let mut headers = HeaderMap::new();
        usage.describe(&mut headers);
        assert_eq!(
            headers["ratelimit-policy"],
            "\"requests\";q=2;w=60, \"images\";q=600;qu=\"images\";w=60, \
             \"generated\";q=7;qu=\"images\";w=3600, \
             \"concurrent\";q=3;qu=\"concurrent-requests\", \
             \"stored\";q=1000;qu=\"content-bytes\""
        );
        assert_eq!(
            headers["ratelimit"],
            "\"requests\";r=1;t=30, \"images\";r=590;t=1, \"generated\";r=7;t=0, \
             \"concurrent\";r=2, \"stored\";r=500"
        );
        drop(permit);
        assert!(usage.admit().is_ok() && usage.admit().is_err(), "two requests a minute");
        let mut none = HeaderMap::new();
        Usage::new(KeyLimits::default()).describe(&mut none);
        assert!(none.is_empty());
    }

    #[test]
    fn images_beyond_the_limit_are_owed() {
        let limits = KeyLimits { images_per_minute: Some(60), ..KeyLimits::default() };
        let usage = Usage::new(limits);
        usage.count_images(90);
        let error = usage.admit().unwrap_err();
        assert!(error.detail().contains("60 images per minute"), "{error:?}");
        let wait = lock(&usage.images).wait(60, Instant::now()).unwrap();
        assert!((30..=31).contains(&wait), "{wait}");
    }

    #[test]
    fn generated_images_are_counted_by_the_hour() {
        let limits = KeyLimits { generated_per_hour: Some(2), ..KeyLimits::default() };
        let usage = Usage::new(limits);
        assert!(usage.generate().is_ok() && usage.generate().is_ok());
        let error = usage.generate().unwrap_err();
        assert!(error.detail().contains("2 images per hour"), "{error:?}");
        let wait = lock(&usage.generated).wait(2, Instant::now()).unwrap();
        assert!((1799..=1800).contains(&wait), "{wait}");
        assert!(usage.admit().is_ok(), "other requests are not limited by it");
        assert!(Usage::new(KeyLimits::default()).generate().is_ok());
    }

    #[test]
    fn a_permit_is_free_again_when_its_response_is_sent() {
        let limits = KeyLimits { concurrent_requests: Some(1), ..KeyLimits::default() };
        let usage = Usage::new(limits);
        let first = usage.admit().unwrap();
        assert!(usage.admit().is_err());
        drop(first);
        assert!(usage.admit().is_ok());
    }
}
