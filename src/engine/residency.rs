//! Whether the graphs of an engine are loaded: offload frees their memory, reload loads them again.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use prometheus::IntGauge;
use tokio::sync::Notify;

use super::error::EngineError;
use super::health::{HealthBoard, Residency};
use super::lane::Lane;
use crate::blocking::blocking;
use crate::machine::resident_bytes;
use crate::sync::lock;
use crate::vision::give_back_free_memory;

#[cfg(test)]
mod tests;

/// How long an offload waits for work that has begun, and then as long for running batches.
const DRAIN: Duration = Duration::from_mins(1);

/// How long a reload waits for all sessions. Graphs of some gigabytes take a minute from a disk.
const LOAD: Duration = Duration::from_mins(30);

/// What an offload or a reload did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moved {
    /// False if there was nothing to do.
    pub changed: bool,
    /// Time until the work in flight was finished.
    pub drained: Duration,
    /// Time to close or open the sessions.
    pub moved: Duration,
    /// Resident memory of the process before, in bytes; `None` if unknown.
    pub before: Option<u64>,
    /// Resident memory of the process after, in bytes; `None` if unknown.
    pub after: Option<u64>,
}

/// The state of an engine's graphs, and the work that needs them.
pub(super) struct Residence {
    state: Mutex<State>,
    idle: Notify,
    health: HealthBoard,
    offloaded: IntGauge,
    /// Held while the state changes, so that offloads and reloads come one after the other.
    order: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    residency: Residency,
    uses: usize,
}

/// Work that needs the loaded graphs from its beginning to its end. An offload waits for it.
#[must_use = "dropping it ends the use"]
pub struct InUse(Arc<Residence>);

impl Residence {
    pub(super) fn new(health: HealthBoard, offloaded: IntGauge) -> Arc<Self> {
        let (state, idle, order) = (Mutex::default(), Notify::new(), tokio::sync::Mutex::default());
        Arc::new(Self { state, idle, health, offloaded, order })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(super) fn now(&self) -> Residency {
        self.lock().residency
    }

    /// The graphs are not of this process, for good.
    pub(super) fn leave(&self) {
        self.lock().residency = Residency::Elsewhere;
        self.health.moved(Residency::Elsewhere);
    }

    /// Begins work that needs the graphs, or refuses it.
    pub(super) fn enter(self: &Arc<Self>) -> Result<InUse, EngineError> {
        let mut state = self.lock();
        if state.residency != Residency::Resident {
            return Err(EngineError::Offloaded);
        }
        state.uses += 1;
        Ok(InUse(Arc::clone(self)))
    }

    fn becomes(&self, residency: Residency) {
        self.lock().residency = residency;
        self.health.moved(residency);
        self.offloaded.set(i64::from(residency != Residency::Resident));
        tracing::info!(?residency, "engine");
    }

    /// Waits until no work is in use, but not for longer than `DRAIN`, nor if the engine stops.
    async fn until_idle(&self) {
        let mut health = self.health.watch();
        let idle = async {
            loop {
                let notified = self.idle.notified();
                if self.lock().uses == 0 {
                    return;
                }
                notified.await;
            }
        };
        tokio::select! {
            () = idle => {}
            () = tokio::time::sleep(DRAIN) => {}
            _ = health.wait_for(|health| health.stopping) => {}
        }
    }

    /// Closes the sessions of all lanes after the work that has begun. Does nothing if they are
    /// closed.
    pub(super) async fn offload(&self, lanes: Vec<Arc<Lane>>) -> Result<Moved, EngineError> {
        let _order = self.order.lock().await;
        let (started, before) = (Instant::now(), resident_bytes());
        if matches!(self.now(), Residency::Offloaded | Residency::Elsewhere) {
            return Ok(Moved::nothing(before));
        }
        self.becomes(Residency::Offloading);
        self.until_idle().await;
        let drained = started.elapsed();
        let running = blocking(move || {
            for lane in &lanes {
                lane.park();
            }
            let until = Instant::now() + DRAIN;
            let left = names(lanes.iter().filter(|lane| !lane.until_parked(until)));
            give_back_free_memory();
            left
        });
        let graphs = running.await;
        self.unless_stopping()?;
        if !graphs.is_empty() {
            return Err(EngineError::NotDrained { graphs });
        }
        self.becomes(Residency::Offloaded);
        let moved = started.elapsed().saturating_sub(drained);
        Ok(Moved { changed: true, drained, moved, before, after: resident_bytes() })
    }

    /// Opens the sessions of all lanes. Does nothing if they are open.
    pub(super) async fn reload(&self, lanes: Vec<Arc<Lane>>) -> Result<Moved, EngineError> {
        let _order = self.order.lock().await;
        let (started, before) = (Instant::now(), resident_bytes());
        if matches!(self.now(), Residency::Resident | Residency::Elsewhere) {
            return Ok(Moved::nothing(before));
        }
        self.becomes(Residency::Loading);
        let opened = blocking(move || {
            let until = Instant::now() + LOAD;
            // One after the other, as at the start: warm-ups share the device.
            let failed = names(lanes.iter().filter(|lane| {
                lane.unpark();
                lane.until_open(until).is_err()
            }));
            // Loading leaves as much behind as the weights, and each time in other places.
            give_back_free_memory();
            failed
        });
        let graphs = opened.await;
        self.unless_stopping()?;
        // Also if a graph failed: its lane goes on trying, and readiness names it.
        self.becomes(Residency::Resident);
        if !graphs.is_empty() {
            return Err(EngineError::NotReloaded { graphs });
        }
        let moved = started.elapsed();
        let (drained, after) = (Duration::ZERO, resident_bytes());
        Ok(Moved { changed: true, drained, moved, before, after })
    }

    fn unless_stopping(&self) -> Result<(), EngineError> {
        let stopping = self.health.watch().borrow().stopping;
        if stopping { Err(EngineError::Stopping) } else { Ok(()) }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.uses -= 1;
        if state.uses == 0 {
            self.0.idle.notify_waiters();
        }
    }
}

impl Moved {
    /// Returns what two moves did, one after the other.
    #[must_use]
    pub fn then(self, next: Self) -> Self {
        Self {
            changed: self.changed || next.changed,
            drained: self.drained + next.drained,
            moved: self.moved + next.moved,
            before: self.before,
            after: next.after,
        }
    }

    fn nothing(resident: Option<u64>) -> Self {
        let (drained, moved) = (Duration::ZERO, Duration::ZERO);
        Self { changed: false, drained, moved, before: resident, after: resident }
    }
}

fn names<'a>(lanes: impl Iterator<Item = &'a Arc<Lane>>) -> String {
    lanes.map(|lane| &**lane.name()).collect::<Vec<_>>().join(", ")
}
