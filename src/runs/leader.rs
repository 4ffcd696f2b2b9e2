//! What one instance at a time does, among those that share a database and a bucket. All of it is
//! idempotent: if two instances both lead, work is merely repeated.

use tokio::sync::watch;

use crate::store::{Leadership, Store, StoreError};

/// Work of the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    /// Writing summaries of finished runs.
    Summarising,
    /// Publishing pending samples whose message is missing.
    Announcing,
    /// Finishing runs of the loaded pack.
    Finishing,
    /// Scoring samples of the loaded pack, if no broker does it.
    Scoring,
}

impl Duty {
    pub(super) const ALL: [Self; 4] =
        [Self::Summarising, Self::Announcing, Self::Finishing, Self::Scoring];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Summarising => "summarising",
            Self::Announcing => "announcing",
            Self::Finishing => "finishing",
            Self::Scoring => "scoring",
        }
    }
}

/// The duties that this instance leads.
pub(super) struct Leader {
    /// The shared duties in which it takes part, each with the name of its lock.
    names: Vec<(Duty, String)>,
    leads: [watch::Sender<bool>; 4],
}

impl Leader {
    /// Returns the duties of an instance that shares them with others.
    pub(super) fn shared(duties: &[Duty], (installation, spool, pack): (&str, &str, &str)) -> Self {
        let name = |duty: Duty| {
            let of_pack = matches!(duty, Duty::Finishing | Duty::Scoring);
            let pack = if of_pack { pack } else { "" };
            format!("stellar-score {installation} {spool} {} {pack}", duty.name())
        };
        let names = duties.iter().map(|duty| (*duty, name(*duty))).collect();
        Self { names, leads: std::array::from_fn(|_| watch::Sender::new(false)) }
    }

    /// Returns the duties of an instance that shares nothing.
    pub(super) fn alone() -> Self {
        Self { names: Vec::new(), leads: std::array::from_fn(|_| watch::Sender::new(true)) }
    }

    /// Returns whether this instance leads the duty.
    pub(super) fn has(&self, duty: Duty) -> bool {
        *self.leads[duty as usize].borrow()
    }

    pub(super) fn watch(&self, duty: Duty) -> watch::Receiver<bool> {
        self.leads[duty as usize].subscribe()
    }

    pub(super) fn is_shared(&self) -> bool {
        !self.names.is_empty()
    }

    /// Takes and confirms the duties for which this instance is fit, and leaves the others.
    pub(super) async fn take(
        &self,
        leadership: &mut Leadership,
        store: &Store,
        is_fit: impl Fn(Duty) -> bool,
    ) -> Result<(), StoreError> {
        let names = self.names.iter().filter(|(duty, _)| is_fit(*duty));
        let names: Vec<_> = names.map(|(_, name)| name.clone()).collect();
        let taken = leadership.take(store, &names).await;
        let held = taken.as_ref().map(|held| (*held).clone()).unwrap_or_default();
        for (duty, name) in &self.names {
            let has = held.contains(name);
            let changed = |leads: &mut bool| std::mem::replace(leads, has) != has;
            if self.leads[*duty as usize].send_if_modified(changed) {
                let duty = duty.name();
                if has {
                    tracing::info!(duty, "this instance leads");
                } else {
                    tracing::warn!(duty, "this instance no longer leads");
                }
            }
        }
        taken.map(drop)
    }
}
