//! A device: limits the number of concurrent batches and schedules the turns of lanes.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use prometheus::IntGauge;

use crate::sync::lock;

/// A device with a limited number of slots.
///
/// The next free slot goes to the waiting lane with the oldest work, so that a busy graph cannot
/// starve the others.
pub(crate) struct Device {
    state: Mutex<State>,
    changed: Condvar,
    busy: IntGauge,
}

struct State {
    free: usize,
    /// Tickets of the slots in use.
    given: Vec<u64>,
    // At most one per lane, about ten: a linear scan for the oldest beats a heap with removal.
    waiting: Vec<Turn>,
    tickets: u64,
}

/// Position in line: by age of the work, then by order of arrival.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    oldest: Instant,
    ticket: u64,
}

/// The right to run one batch; released when dropped.
pub(crate) struct Slot {
    device: Arc<Device>,
    ticket: u64,
}

impl Device {
    pub(crate) fn new(slots: usize, busy: IntGauge) -> Arc<Self> {
        let state =
            State { free: slots.max(1), given: Vec::new(), waiting: Vec::new(), tickets: 0 };
        Arc::new(Self { state: Mutex::new(state), changed: Condvar::new(), busy })
    }

    /// Blocks until a slot is free for work that was queued at `oldest`.
    pub(crate) fn acquire(self: &Arc<Self>, oldest: Instant) -> Slot {
        let ticket = self.wait_for_turn(self.lock(), oldest);
        Slot { device: Arc::clone(self), ticket }
    }

    fn wait_for_turn(&self, mut state: MutexGuard<'_, State>, oldest: Instant) -> u64 {
        state.tickets += 1;
        let turn = Turn { oldest, ticket: state.tickets };
        state.waiting.push(turn);
        while state.free == 0 || state.waiting.iter().min() != Some(&turn) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting.retain(|other| *other != turn);
        state.free -= 1;
        state.given.push(turn.ticket);
        let more = state.free > 0 && !state.waiting.is_empty();
        drop(state);
        if more {
            // The next in line may have checked before this one left the list.
            self.changed.notify_all();
        }
        self.busy.inc();
        turn.ticket
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Releases a slot, unless it was taken back. Returns the lock, which is still held.
    fn release(&self, ticket: u64) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        if let Some(at) = state.given.iter().position(|given| *given == ticket) {
            state.given.swap_remove(at);
            state.free += 1;
            self.busy.dec();
            self.changed.notify_all();
        }
        state
    }

    /// Takes the slot back from a hanging batch, so that others can run.
    pub(crate) fn take_back(&self, ticket: u64) {
        drop(self.release(ticket));
    }

    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }
}

impl Slot {
    /// Returns the slot's ticket, which identifies it on the device.
    pub(crate) fn ticket(&self) -> u64 {
        self.ticket
    }

    /// Passes the slot on to the lane with the oldest work, and waits for this lane's next turn.
    ///
    /// The lane's own next work, queued at `oldest`, takes part, so the slot may stay here. Release
    /// and queueing happen under one lock: otherwise a lane with younger work could take the slot
    /// in between.
    pub(crate) fn pass(&mut self, oldest: Instant) {
        let state = self.device.release(self.ticket);
        self.ticket = self.device.wait_for_turn(state, oldest);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        drop(self.device.release(self.ticket));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    fn device(slots: usize) -> Arc<Device> {
        Device::new(slots, IntGauge::new("busy", "busy").unwrap())
    }

    fn until_waiting(device: &Device, count: usize) {
        while device.waiting() != count {
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn the_oldest_work_goes_first_in_any_order_of_arrival() {
        let device = device(1);
        let held = device.acquire(Instant::now());
        let start = Instant::now();
        let (sender, order) = mpsc::channel();
        let lanes: Vec<_> = [30_u64, 10, 20]
            .into_iter()
            .enumerate()
            .map(|(asked, age)| {
                let (device, sender) = (Arc::clone(&device), sender.clone());
                let lane = thread::spawn({
                    let device = Arc::clone(&device);
                    move || {
                        let slot = device.acquire(start + Duration::from_millis(age));
                        sender.send(age).unwrap();
                        drop(slot);
                    }
                });
                until_waiting(&device, asked + 1);
                lane
            })
            .collect();
        drop(held);
        for lane in lanes {
            lane.join().unwrap();
        }
        assert_eq!(order.try_iter().collect::<Vec<_>>(), [10, 20, 30]);
    }

    #[test]
    fn a_passed_slot_goes_to_the_oldest_work_even_if_it_is_the_lanes_own() {
        let device = device(1);
        let start = Instant::now();
        let mut slot = device.acquire(start);
        let (sender, order) = mpsc::channel();
        let other = thread::spawn({
            let (device, sender) = (Arc::clone(&device), sender.clone());
            move || {
                let _slot = device.acquire(start + Duration::from_millis(20));
                sender.send("the other").unwrap();
            }
        });
        until_waiting(&device, 1);
        slot.pass(start + Duration::from_millis(10));
        sender.send("own, older").unwrap();
        slot.pass(start + Duration::from_millis(30));
        sender.send("own, younger").unwrap();
        drop(slot);
        other.join().unwrap();
        assert_eq!(
            order.try_iter().collect::<Vec<_>>(),
            ["own, older", "the other", "own, younger"]
        );
        assert_eq!(device.busy.get(), 0);
    }

    #[test]
    fn a_slot_that_was_taken_back_is_free_once() {
        let device = device(1);
        let mut stuck = device.acquire(Instant::now());
        device.take_back(stuck.ticket());
        let other = device.acquire(Instant::now());
        assert_eq!(device.lock().free, 0);
        let (sender, receiver) = mpsc::channel();
        let back = thread::spawn(move || {
            stuck.pass(Instant::now());
            sender.send(()).unwrap();
            drop(stuck);
        });
        until_waiting(&device, 1);
        assert!(receiver.try_recv().is_err(), "its slot was taken back");
        drop(other);
        back.join().unwrap();
        assert_eq!((device.lock().free, device.busy.get()), (1, 0));
    }

    #[test]
    fn all_slots_are_used_and_never_more() {
        let device = device(2);
        let most = device.busy.clone();
        let lanes: Vec<_> = (0..6)
            .map(|_| {
                let (device, busy) = (Arc::clone(&device), most.clone());
                thread::spawn(move || {
                    (0..20)
                        .map(|_| {
                            let slot = device.acquire(Instant::now());
                            thread::sleep(Duration::from_micros(300));
                            let now = busy.get();
                            drop(slot);
                            now
                        })
                        .max()
                        .unwrap()
                })
            })
            .collect();
        let seen: Vec<_> = lanes.into_iter().map(|lane| lane.join().unwrap()).collect();
        assert_eq!(seen.iter().max(), Some(&2));
        assert_eq!(device.busy.get(), 0);
    }
}
