//! Duties that one of the instances on a shared database and bucket has at a time. All are
//! idempotent: if two instances have one, its work is merely repeated.

use tokio::sync::watch;

use crate::store::{Leadership, Store, StoreError};

/// A duty, which one instance has at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    /// Writing summaries of runs whose scores changed.
    Summarising,
    /// Publishing pending samples whose message is missing.
    Announcing,
    /// Finishing runs of the loaded pack.
    Finishing,
    /// Scoring samples of the loaded pack, if there is no broker.
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

/// Which duties this instance has.
pub(super) struct Leader {
    /// The duties that it competes for, each with the name of its lock.
    names: Vec<(Duty, String)>,
    /// By `Duty as usize`.
    leads: [watch::Sender<bool>; 4],
}

impl Leader {
    /// Creates the state of an instance that shares its duties.
    pub(super) fn shared(duties: &[Duty], (installation, spool, pack): (&str, &str, &str)) -> Self {
        let name = |duty: Duty| {
            let of_pack = matches!(duty, Duty::Finishing | Duty::Scoring);
            let pack = if of_pack { pack } else { "" };
            format!("stellar-score {installation} {spool} {} {pack}", duty.name())
        };
        let names = duties.iter().map(|duty| (*duty, name(*duty))).collect();
        Self { names, leads: std::array::from_fn(|_| watch::Sender::new(false)) }
    }

    /// Creates the state of an instance that shares nothing and has every duty.
    pub(super) fn alone() -> Self {
        Self { names: Vec::new(), leads: std::array::from_fn(|_| watch::Sender::new(true)) }
    }

    /// Returns whether this instance has the duty.
    pub(super) fn has(&self, duty: Duty) -> bool {
        *self.leads[duty as usize].borrow()
    }

    pub(super) fn watch(&self, duty: Duty) -> watch::Receiver<bool> {
        self.leads[duty as usize].subscribe()
    }

    pub(super) fn is_shared(&self) -> bool {
        !self.names.is_empty()
    }

    /// Takes or renews the duties that this instance can do now (`is_fit`), and gives up the
    /// others.
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
                    tracing::info!(duty, "this instance now has a duty");
                } else {
                    tracing::warn!(duty, "this instance no longer has a duty");
                }
            }
        }
        taken.map(drop)
    }
}
