//! Turns for a bounded number of workers: first come, first served for each client, and clients in
//! rotation, so that one client with thousands of waiting requests does not starve another.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::oneshot;

use crate::sync::lock;

/// The turns.
#[derive(Debug, Clone)]
pub(crate) struct Turns(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    all: usize,
    free: usize,
    /// Most that may wait.
    most: usize,
    waiting: usize,
    next: u64,
    clients: HashMap<String, VecDeque<(u64, oneshot::Sender<Turn>)>>,
    /// Clients with somebody waiting, the next one first.
    rotation: VecDeque<String>,
}

/// A turn, given back on drop.
#[derive(Debug)]
pub(crate) struct Turn(Turns);

/// Too many wait already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

impl Turns {
    /// Creates turns of which `free` are taken at once; at most `most` wait.
    pub(crate) fn new(free: usize, most: usize) -> Self {
        let (waiting, next) = (0, 0);
        let (clients, rotation) = (HashMap::new(), VecDeque::new());
        Self(Arc::new(Mutex::new(State {
            all: free,
            free,
            most,
            waiting,
            next,
            clients,
            rotation,
        })))
    }

    /// Waits for a turn. Dropping the future leaves the queue.
    pub(crate) async fn take(&self, client: &str) -> Result<Turn, Full> {
        let (receiver, id) = {
            let mut state = self.lock();
            if state.free > 0 && state.waiting == 0 {
                state.free -= 1;
                return Ok(Turn(self.clone()));
            }
            if state.waiting >= state.most {
                return Err(Full);
            }
            let (sender, receiver) = oneshot::channel();
            let id = state.next;
            state.next += 1;
            state.waiting += 1;
            let queue = state.clients.entry(client.to_owned()).or_default();
            queue.push_back((id, sender));
            if queue.len() == 1 {
                state.rotation.push_back(client.to_owned());
            }
            (receiver, id)
        };
        let _leaves = Leaves { turns: self, client, id };
        Ok(receiver.await.expect("a sender stays until it has sent"))
    }

    /// Returns how many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().waiting
    }

    /// Returns how many have their turn.
    pub(crate) fn taken(&self) -> usize {
        let state = self.lock();
        state.all - state.free
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    fn give_back(&self) {
        let next = {
            let mut state = self.lock();
            let next = state.next_waiting();
            if next.is_none() {
                state.free += 1;
            }
            next
        };
        // Outside the lock: if its receiver is gone, the turn is dropped, which locks again.
        if let Some(sender) = next {
            drop(sender.send(Turn(self.clone())));
        }
    }
}

impl State {
    /// Removes the first of the client whose turn it is.
    fn next_waiting(&mut self) -> Option<oneshot::Sender<Turn>> {
        let client = self.rotation.pop_front()?;
        let queue = self.clients.get_mut(&client).expect("a client in the rotation has a queue");
        let (_, sender) = queue.pop_front().expect("a client in the rotation has somebody waiting");
        if queue.is_empty() {
            self.clients.remove(&client);
        } else {
            self.rotation.push_back(client);
        }
        self.waiting -= 1;
        Some(sender)
    }

    fn remove(&mut self, client: &str, id: u64) {
        let Some(queue) = self.clients.get_mut(client) else { return };
        let Some(at) = queue.iter().position(|(each, _)| *each == id) else { return };
        queue.remove(at);
        self.waiting -= 1;
        if queue.is_empty() {
            self.clients.remove(client);
            self.rotation.retain(|each| each != client);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

/// Leaves the queue if the future is dropped before its turn.
struct Leaves<'a> {
    turns: &'a Turns,
    client: &'a str,
    id: u64,
}

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.turns.lock().remove(self.client, self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::Pin, task::Poll, time::Duration};

    use super::*;

    /// Starts to wait, and returns a task that notes its name when it has its turn.
    async fn queue(turns: &Turns, client: &'static str, log: &Arc<Mutex<Vec<&'static str>>>) {
        let (turns, log) = (turns.clone(), Arc::clone(log));
        let waiting = turns.waiting();
        let queued = turns.clone();
        tokio::spawn(async move {
            let turn = turns.take(client).await.unwrap();
            log.lock().unwrap().push(client);
            drop(turn);
        });
        while queued.waiting() == waiting {
            tokio::task::yield_now().await;
        }
    }

    async fn is_pending(of: &mut (impl Future + Unpin)) -> bool {
        poll_fn(|context| Poll::Ready(Pin::new(&mut *of).poll(context).is_pending())).await
    }

    #[tokio::test]
    async fn clients_take_turns_however_many_of_one_wait() {
        let (turns, log) = (Turns::new(1, 100), Arc::default());
        let first = turns.take("a").await.unwrap();
        for client in ["a", "a", "a", "b", "c", "b"] {
            queue(&turns, client, &log).await;
        }
        drop(first);
        while log.lock().unwrap().len() < 6 {
            tokio::task::yield_now().await;
        }
        assert_eq!(*log.lock().unwrap(), ["a", "b", "c", "a", "b", "a"]);
    }

    #[tokio::test]
    async fn whoever_leaves_gives_up_the_place_and_the_turn() {
        let turns = Turns::new(1, 2);
        let first = turns.take("a").await.unwrap();
        let brief = Duration::from_millis(5);
        assert!(tokio::time::timeout(brief, turns.take("b")).await.is_err());
        assert_eq!(turns.waiting(), 0);
        let (mut b, mut c) = (Box::pin(turns.take("b")), Box::pin(turns.take("c")));
        assert!(is_pending(&mut b).await && is_pending(&mut c).await);
        assert_eq!(turns.take("d").await.unwrap_err(), Full);
        drop(first);
        // `b` has been given the turn, and leaves before it notices.
        drop(b);
        drop(tokio::time::timeout(Duration::from_secs(5), c).await.unwrap().unwrap());
        drop(turns.take("d").await.unwrap());
        assert_eq!((turns.taken(), turns.waiting()), (0, 0));
    }
}
