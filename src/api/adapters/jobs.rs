//! Batches that are scored after their request was answered, until they are pulled.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::http::ApiError;
use crate::sync::lock;

/// How long a result can be pulled, from the request on.
pub(super) const RETENTION: Duration = Duration::from_mins(10);

/// Most batches that are kept, scored or not.
const MOST: usize = 4_096;

/// A reward of each item, or why there is none.
pub(super) type Column = Vec<Result<f64, String>>;

/// The array of a batch.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct CosmosInput {
    /// Images, height, width, 3.
    pub(super) shape: [usize; 4],
    /// `torch.uint8`.
    pub(super) dtype: &'static str,
    /// Least value of all pixels, with three decimals.
    #[schema(example = "0.000")]
    pub(super) min: String,
    /// Greatest value of all pixels, with three decimals.
    #[schema(example = "254.000")]
    pub(super) max: String,
}

/// The results of a batch.
#[derive(Debug)]
pub(super) struct Scored {
    pub(super) columns: BTreeMap<String, Column>,
    pub(super) input: CosmosInput,
    pub(super) seconds: f64,
}

/// Batches of this instance, by id.
#[derive(Debug, Default, Clone)]
pub(super) struct Jobs(Arc<Mutex<HashMap<Uuid, Job>>>);

#[derive(Debug)]
struct Job {
    /// The key of the client, if keys are in use: other keys do not see the job.
    owner: Option<Uuid>,
    until: Instant,
    outcome: Option<Outcome>,
}

/// The result of a batch, or why it failed.
pub(super) type Outcome = Result<Arc<Scored>, String>;

/// The state of a batch.
pub(super) enum State {
    Unknown,
    Pending,
    Ready(Outcome),
}

/// A place for the result of a batch. If it is dropped without one, the batch has failed.
pub(super) struct Place {
    jobs: Jobs,
    pub(super) id: Uuid,
    filled: bool,
}

impl Jobs {
    /// Begins a batch.
    pub(super) fn begin(&self, owner: Option<Uuid>) -> Result<Place, ApiError> {
        let now = Instant::now();
        let mut all = self.lock();
        all.retain(|_, job| job.until > now);
        if all.len() >= MOST {
            return Err(ApiError::unavailable(format!(
                "{MOST} batches wait to be scored or pulled: pull results, or retry after a moment"
            )));
        }
        let id = Uuid::now_v7();
        all.insert(id, Job { owner, until: now + RETENTION, outcome: None });
        Ok(Place { jobs: self.clone(), id, filled: false })
    }

    /// Returns the state of a batch of this client.
    pub(super) fn state(&self, id: Uuid, owner: Option<Uuid>) -> State {
        let now = Instant::now();
        let mut all = self.lock();
        if all.get(&id).is_some_and(|job| job.until <= now) {
            all.remove(&id);
        }
        match all.get(&id).filter(|job| job.owner == owner) {
            None => State::Unknown,
            Some(Job { outcome: None, .. }) => State::Pending,
            Some(Job { outcome: Some(outcome), .. }) => State::Ready(outcome.clone()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Job>> {
        lock(&self.0)
    }
}

impl Place {
    /// Stores the result.
    pub(super) fn fill(mut self, outcome: Outcome) {
        self.set(outcome);
    }

    fn set(&mut self, outcome: Outcome) {
        self.filled = true;
        if let Some(job) = self.jobs.lock().get_mut(&self.id) {
            job.outcome = Some(outcome);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.filled {
            self.set(Err("scoring ended early; the log has the cause".to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_seen_by_its_owner_until_it_expires() {
        let jobs = Jobs::default();
        let owner = Some(Uuid::now_v7());
        let place = jobs.begin(owner).unwrap();
        let id = place.id;
        assert!(matches!(jobs.state(id, owner), State::Pending));
        place.fill(Err("why".to_owned()));
        for _ in 0..2 {
            assert!(matches!(jobs.state(id, owner), State::Ready(Err(_))));
        }
        assert!(matches!(jobs.state(id, None), State::Unknown));
        jobs.lock().get_mut(&id).unwrap().until = Instant::now();
        assert!(matches!(jobs.state(id, owner), State::Unknown));
    }

    #[test]
    fn a_dropped_place_is_a_failure_and_expired_batches_make_room() {
        let jobs = Jobs::default();
        let first = jobs.begin(None).unwrap();
        let id = first.id;
        drop(first);
        assert!(matches!(jobs.state(id, None), State::Ready(Err(_))));
        let places: Vec<_> = (1..MOST).map(|_| jobs.begin(None).unwrap()).collect();
        assert!(jobs.begin(None).is_err());
        jobs.lock().get_mut(&places[0].id).unwrap().until = Instant::now();
        assert!(jobs.begin(None).is_ok());
    }
}
