//! Background work of leaders: taking roles, and announcing samples again.

use std::{sync::Arc, time::Duration};

use super::{
    Runs,
    leader::Role,
    pause::{stopped, wait},
};
use crate::{engine::Residency, store::Leadership};

/// Interval of taking and confirming roles. The session of a silent instance ends some seconds
/// later.
const EVERY: Duration = Duration::from_secs(2);

impl Runs {
    /// Takes and confirms the roles of this instance.
    pub(super) async fn lead(self: Arc<Self>) {
        let mut stopping = self.stopping();
        let mut leadership = Leadership::default();
        if !self.leader.is_shared() {
            self.report_roles();
            stopped(&mut stopping).await;
            return;
        }
        loop {
            if let Err(error) =
                self.leader.take(&mut leadership, &self.store, |role| self.is_fit(role)).await
            {
                tracing::warn!(%error, "failed to find out who leads, will retry");
            }
            self.report_roles();
            if self.leader.has(Role::Scoring) {
                self.work.notify_one();
            }
            if wait(&mut stopping, EVERY).await {
                break;
            }
        }
        leadership.end().await;
    }

    /// Returns whether this instance can do its part of a role now.
    fn is_fit(&self, role: Role) -> bool {
        let engine = self.scoring.engine();
        match role {
            Role::Housekeeping => true,
            Role::Announcing => self.dispatch.is_connected(),
            Role::Finishing => engine.residency() == Residency::Resident,
            Role::Scoring => engine.health().borrow().is_ready() && !self.files.is_troubled(),
        }
    }

    fn report_roles(&self) {
        for role in Role::ALL {
            self.telemetry.dispatch.leads(role.name(), self.leader.has(role));
        }
    }

    /// Announces pending samples whose announcement is lost, if this instance leads that.
    pub(super) async fn reconcile(self: Arc<Self>) {
        let mut stopping = self.stopping();
        while !wait(&mut stopping, EVERY).await {
            if !self.leader.has(Role::Announcing) {
                continue;
            }
            if let Err(error) = self.dispatch.reconcile().await {
                tracing::warn!(%error, "failed to read the pending samples, will retry");
            }
        }
    }
}
