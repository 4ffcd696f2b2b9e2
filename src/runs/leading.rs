//! Background work of the leader: taking duties, and announcing samples again.

use std::{sync::Arc, time::Duration};

use super::{
    Runs,
    leader::Duty,
    pause::{stopped, wait},
};
use crate::{engine::Residency, store::Leadership};

/// Interval of taking and confirming duties. The session of a silent instance ends some seconds
/// later.
const EVERY: Duration = Duration::from_secs(2);

impl Runs {
    /// Takes and confirms the duties of this instance.
    pub(super) async fn lead(self: Arc<Self>) {
        let mut stopping = self.stopping();
        let mut leadership = Leadership::default();
        if !self.leader.is_shared() {
            self.report_duties();
            stopped(&mut stopping).await;
            return;
        }
        loop {
            if let Err(error) =
                self.leader.take(&mut leadership, &self.store, |duty| self.is_fit(duty)).await
            {
                tracing::warn!(%error, "failed to find out who leads, will retry");
            }
            self.report_duties();
            if self.leader.has(Duty::Scoring) {
                self.work.notify_one();
            }
            if wait(&mut stopping, EVERY).await {
                break;
            }
        }
        leadership.end().await;
    }

    /// Returns whether this instance can do its part of a duty now.
    fn is_fit(&self, duty: Duty) -> bool {
        let engine = self.scoring.engine();
        match duty {
            Duty::Summarising => true,
            Duty::Announcing => self.dispatch.is_connected(),
            Duty::Finishing => engine.residency() == Residency::Resident,
            Duty::Scoring => engine.health().borrow().is_ready() && !self.files.is_troubled(),
        }
    }

    fn report_duties(&self) {
        for duty in Duty::ALL {
            self.telemetry.dispatch.leads(duty.name(), self.leader.has(duty));
        }
    }

    /// Announces pending samples whose announcement is lost, if this instance leads that.
    pub(super) async fn reconcile(self: Arc<Self>) {
        let mut stopping = self.stopping();
        while !wait(&mut stopping, EVERY).await {
            if !self.leader.has(Duty::Announcing) {
                continue;
            }
            if let Err(error) = self.dispatch.reconcile().await {
                tracing::warn!(%error, "failed to read the pending samples, will retry");
            }
        }
    }
}
