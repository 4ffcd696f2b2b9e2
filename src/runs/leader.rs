//! What one instance at a time does, among those that share a database and a bucket. All of it is
//! idempotent, so two instances that both believe to lead only do work twice.

use tokio::sync::watch;

use crate::store::{Leadership, Store, StoreError};

/// What one instance at a time does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Summaries.
    Housekeeping,
    /// Announcing samples that were announced in vain.
    Announcing,
    /// Finishing runs of the loaded pack.
    Finishing,
    /// Scoring samples of the loaded pack, if no broker does it.
    Scoring,
}

impl Role {
    pub(super) const ALL: [Self; 4] =
        [Self::Housekeeping, Self::Announcing, Self::Finishing, Self::Scoring];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Housekeeping => "housekeeping",
            Self::Announcing => "announcing",
            Self::Finishing => "finishing",
            Self::Scoring => "scoring",
        }
    }
}

/// The roles that this instance leads.
pub(super) struct Leader {
    /// The shared roles in which it takes part, each with the name of its lock.
    names: Vec<(Role, String)>,
    leads: [watch::Sender<bool>; 4],
}

impl Leader {
    /// Returns the roles of an instance that shares them with others.
    pub(super) fn shared(roles: &[Role], (installation, spool, pack): (&str, &str, &str)) -> Self {
        let name = |role: Role| {
            let of_pack = matches!(role, Role::Finishing | Role::Scoring);
            let pack = if of_pack { pack } else { "" };
            format!("stellar-score {installation} {spool} {} {pack}", role.name())
        };
        let names = roles.iter().map(|role| (*role, name(*role))).collect();
        Self { names, leads: std::array::from_fn(|_| watch::Sender::new(false)) }
    }

    /// Returns the roles of an instance that shares nothing.
    pub(super) fn alone() -> Self {
        Self { names: Vec::new(), leads: std::array::from_fn(|_| watch::Sender::new(true)) }
    }

    /// Returns whether this instance leads the role.
    pub(super) fn has(&self, role: Role) -> bool {
        *self.leads[role as usize].borrow()
    }

    pub(super) fn watch(&self, role: Role) -> watch::Receiver<bool> {
        self.leads[role as usize].subscribe()
    }

    pub(super) fn is_shared(&self) -> bool {
        !self.names.is_empty()
    }

    /// Takes and confirms the roles for which this instance is fit, and leaves the others.
    pub(super) async fn take(
        &self,
        leadership: &mut Leadership,
        store: &Store,
        is_fit: impl Fn(Role) -> bool,
    ) -> Result<(), StoreError> {
        let names = self.names.iter().filter(|(role, _)| is_fit(*role));
        let names: Vec<_> = names.map(|(_, name)| name.clone()).collect();
        let taken = leadership.take(store, &names).await;
        let held = taken.as_ref().map(|held| (*held).clone()).unwrap_or_default();
        for (role, name) in &self.names {
            let has = held.contains(name);
            let changed = |leads: &mut bool| std::mem::replace(leads, has) != has;
            if self.leads[*role as usize].send_if_modified(changed) {
                let role = role.name();
                if has {
                    tracing::info!(role, "this instance leads");
                } else {
                    tracing::warn!(role, "this instance no longer leads");
                }
            }
        }
        taken.map(drop)
    }
}
