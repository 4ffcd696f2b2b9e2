//! Lets the faces of several images share a batch of the embedding.
//!
//! On a CPU, the embedding of one face takes a fifth more time than a face's share of a batch of
//! four. While searches occupy all cores, an embedding would only take time from them, so it waits
//! for the faces of the next images.

use std::sync::Arc;

use tokio::sync::watch;

/// Number of images whose faces are embedded together: more gain little and wait longer.
const TOGETHER: u64 = 4;

/// Searches of one engine.
#[derive(Debug)]
pub(super) struct Gathering {
    cores: usize,
    progress: watch::Sender<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    /// Number of searches that run or wait for a core.
    pending: usize,
    /// Number of searches that have ended.
    ended: u64,
}

/// A search that is pending. Ends on drop.
#[derive(Debug)]
pub(super) struct Search(Arc<Gathering>);

impl Gathering {
    pub(super) fn new(cores: usize) -> Arc<Self> {
        Arc::new(Self { cores, progress: watch::Sender::default() })
    }

    /// Begins a search, before it waits for a core.
    pub(super) fn begin(self: &Arc<Self>) -> Search {
        self.progress.send_modify(|progress| progress.pending += 1);
        Search(Arc::clone(self))
    }

    /// Waits until a core has no search, or until the current group of [`TOGETHER`] searches has
    /// ended. The faces of one group go on together.
    pub(super) async fn gathered(&self) {
        let mut progress = self.progress.subscribe();
        let full = (progress.borrow().ended.saturating_sub(1) / TOGETHER + 1) * TOGETHER;
        let go = |progress: &Progress| progress.pending < self.cores || progress.ended >= full;
        // Fails only if the sender is gone, which `self` holds.
        let _ = progress.wait_for(go).await;
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        self.0.progress.send_modify(|progress| {
            progress.pending -= 1;
            progress.ended += 1;
        });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn faces_wait_only_while_searches_occupy_all_cores() {
        let gathering = Gathering::new(2);
        let [a, b, c] = std::array::from_fn(|_| gathering.begin());
        drop(a);
        let mut first = Box::pin(gathering.gathered());
        assert!((&mut first).now_or_never().is_none(), "two searches occupy two cores");
        drop(b);
        assert!(first.now_or_never().is_some(), "a core is free");
        assert!(gathering.gathered().now_or_never().is_some());
        drop(c);
    }

    #[test]
    fn the_faces_of_four_images_go_on_together_however_many_searches_are_pending() {
        let gathering = Gathering::new(1);
        let mut searches: Vec<_> = (0..20).map(|_| gathering.begin()).collect();
        for _ in 0..2 {
            let mut waiting = Vec::new();
            for _ in 0..3 {
                drop(searches.pop());
                waiting.push(Box::pin(gathering.gathered()));
                assert!(waiting.iter_mut().all(|faces| faces.now_or_never().is_none()));
            }
            drop(searches.pop());
            waiting.push(Box::pin(gathering.gathered()));
            assert!(waiting.into_iter().all(|faces| faces.now_or_never().is_some()));
        }
    }
}
