//! Whether this instance should get requests, check by check.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use time::OffsetDateTime;

use crate::{
    api::http::{ApiError, Check},
    blocking::blocking,
    clock,
    config::Store as StoreConfig,
    engine::{Health, Residency},
    machine,
    runs::Runs,
    scoring::Scoring,
    store::Store,
    sync::lock,
};

/// Time limit of a check of the disks: a network file system may not answer at all.
const DISK_TIMEOUT: Duration = Duration::from_secs(1);

const MIB: u64 = 1 << 20;

/// Remembers since when each check has its state.
#[derive(Debug, Default)]
pub(crate) struct Board(Mutex<BTreeMap<&'static str, (bool, OffsetDateTime)>>);

impl Board {
    /// Returns the check with this name; it is ok without a reason.
    pub(crate) fn check(&self, name: &'static str, reason: Option<String>) -> Check {
        let (ok, now) = (reason.is_none(), clock::now());
        let mut states = lock(&self.0);
        let state = states.entry(name).or_insert((ok, now));
        if state.0 != ok {
            *state = (ok, now);
        }
        Check { name: name.to_owned(), ok, reason, since: state.1 }
    }
}

/// Returns the checks, or the problem document if one of them fails.
pub(crate) fn verdict(checks: Vec<Check>) -> Result<Vec<Check>, ApiError> {
    let mut reasons: Vec<_> = checks.iter().filter_map(|check| check.reason.as_deref()).collect();
    // While the service starts, several checks wait for the same.
    reasons.dedup();
    if reasons.is_empty() {
        return Ok(checks);
    }
    Err(ApiError::unavailable(reasons.join("; ")).with_checks(checks))
}

/// The readiness of a service that has started.
#[derive(Debug)]
pub struct Readiness {
    board: Board,
    leaving: AtomicBool,
    disks: Vec<(&'static str, PathBuf)>,
    min_free_bytes: u64,
    /// Held while the disks are read.
    reading: Arc<tokio::sync::Mutex<()>>,
}

impl Readiness {
    pub(super) fn new(store: &StoreConfig) -> Self {
        let database = store.database_folder().map(|folder| ("the database", folder));
        let spool = ("the spool", store.spool.clone());
        Self {
            board: Board::default(),
            leaving: AtomicBool::new(false),
            disks: database.into_iter().chain([spool]).collect(),
            min_free_bytes: store.min_free_mib.saturating_mul(MIB),
            reading: Arc::default(),
        }
    }

    /// Makes `/readyz` false while the service still answers, so that load balancers send further
    /// requests elsewhere, and closes every connection after its next response.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Runs all checks.
    pub(super) async fn checks(&self, scoring: &Scoring, store: &Store, runs: &Runs) -> Vec<Check> {
        let health = scoring.engine().health().borrow().clone();
        let stops = self.is_leaving() || health.stopping;
        let (pinged, disk, spool) = tokio::join!(store.ping(), self.disk(), runs.spool().problem());
        let pinged = pinged.err().map(|error| {
            tracing::error!(%error, "store unavailable");
            "the store cannot be reached; the log has the cause".to_owned()
        });
        let mut checks = vec![
            self.board.check("start", None),
            self.board.check("graphs", of_graphs(&health)),
            self.board.check("engine", of_engine(health.residency)),
            self.board.check("store", pinged),
            self.board.check("disk", disk),
            self.board.check("tasks", of_tasks(&runs.supervisor().failing())),
            self.board.check("stop", stops.then(|| "the service is stopping".to_owned())),
        ];
        if runs.spool().is_shared() {
            checks.push(self.board.check("spool", spool));
        }
        checks
    }

    async fn disk(&self) -> Option<String> {
        if self.min_free_bytes == 0 {
            return None;
        }
        let silent = || format!("the disk did not answer within {} s", DISK_TIMEOUT.as_secs());
        // A disk that does not answer keeps one thread, however many probes come.
        let turn = tokio::time::timeout(DISK_TIMEOUT, Arc::clone(&self.reading).lock_owned());
        let Ok(turn) = turn.await else { return Some(silent()) };
        let disks = self.disks.clone();
        let read = blocking(move || {
            let free = |folder: &Path| machine::disk_bytes(folder).map(|(free, _)| free);
            let free = disks.into_iter().map(|(of, folder)| (of, free(&folder))).collect();
            drop(turn);
            free
        });
        let Ok(free) = tokio::time::timeout(DISK_TIMEOUT, read).await else {
            return Some(silent());
        };
        let problems = free_space(free, self.min_free_bytes);
        (!problems.is_empty()).then(|| problems.join("; "))
    }
}

fn free_space(free: Vec<(&'static str, std::io::Result<u64>)>, least: u64) -> Vec<String> {
    let problem = |(of, free): (&str, std::io::Result<u64>)| match free {
        Ok(bytes) if bytes >= least => None,
        Ok(bytes) => Some(format!(
            "the disk of {of} has {} MiB free, less than the {} MiB of store.min_free_mib: free \
                space or enlarge it",
            bytes / MIB,
            least / MIB
        )),
        Err(error) => Some(format!("the free space of {of} cannot be read: {error}")),
    };
    free.into_iter().filter_map(problem).collect()
}

/// An offloaded engine is intended, so it is a check apart from broken graphs.
fn of_engine(residency: Residency) -> Option<String> {
    let state = match residency {
        Residency::Resident | Residency::Elsewhere => return None,
        Residency::Offloading => "being offloaded",
        Residency::Offloaded => "offloaded",
        Residency::Loading => "being loaded again",
    };
    Some(format!("the models are {state}: POST /v1/engine/reload loads them"))
}

fn of_graphs(health: &Health) -> Option<String> {
    let names = |all: Vec<&str>| all.join(", ");
    let rebuilding: Vec<_> = health.rebuilding.iter().map(AsRef::as_ref).collect();
    let failing = health.failing.difference(&health.rebuilding).map(AsRef::as_ref);
    let failing: Vec<_> = failing.collect();
    let mut reasons = Vec::new();
    if !rebuilding.is_empty() {
        reasons.push(format!(
            "broken graphs are being rebuilt: {}; the log has the cause",
            names(rebuilding)
        ));
    }
    if !failing.is_empty() {
        reasons.push(format!(
            "graphs fail repeatedly or hang: {}; the log has the cause",
            names(failing)
        ));
    }
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

fn of_tasks(failing: &[&str]) -> Option<String> {
    (!failing.is_empty()).then(|| {
        format!(
            "background tasks panicked a moment ago or ended: {}; the log has the cause",
            failing.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, io, sync::Arc};

    use super::*;

    #[test]
    fn a_check_keeps_the_time_of_its_last_change() {
        let board = Board::default();
        let first = board.check("disk", None);
        assert!(first.ok && board.check("disk", None).since == first.since);
        let full = board.check("disk", Some("full".to_owned()));
        assert!(!full.ok && full.since > first.since, "{full:?}");
        let fuller = board.check("disk", Some("fuller".to_owned()));
        assert_eq!((fuller.since, fuller.reason.as_deref()), (full.since, Some("fuller")));
        assert!(board.check("store", None).since > full.since, "each check has its own time");
    }

    #[test]
    fn graphs_that_are_being_rebuilt_are_named_apart_from_failing_ones() {
        let set = |names: &[&str]| names.iter().map(|&name| Arc::from(name)).collect();
        let failing: BTreeSet<Arc<str>> = set(&["clip.image", "dino.image"]);
        let health = Health { failing, rebuilding: set(&["dino.image"]), ..Health::default() };
        let reason = of_graphs(&health).unwrap();
        assert_eq!(reason.matches("dino.image").count(), 1, "{reason}");
        assert!(reason.contains("being rebuilt: dino.image;"), "{reason}");
        assert!(reason.contains("or hang: clip.image;"), "{reason}");
        assert_eq!(of_graphs(&Health::default()), None);
    }

    #[test]
    fn a_disk_that_is_nearly_full_or_unreadable_is_named() {
        let gone = io::Error::from(io::ErrorKind::NotFound);
        let free = vec![("the database", Ok(5 * MIB)), ("the spool", Err(gone))];
        let problems = free_space(free, 6 * MIB);
        assert!(problems[0].contains("the database has 5 MiB free, less than the 6 MiB"));
        assert!(problems[1].contains("the spool cannot be read"), "{problems:?}");
        assert!(free_space(vec![("the spool", Ok(6 * MIB))], 6 * MIB).is_empty());
    }
}
