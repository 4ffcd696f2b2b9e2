//! Deletes what has expired.

use std::{sync::Arc, time::Duration};

use crate::{clock, config::Config, runs::Runs, store::Store};

/// Interval of the purge. Retentions are in days, so an hour more or less does not matter, and a
/// check costs one indexed statement.
const PURGE_EVERY: Duration = Duration::from_hours(1);

/// Retention of what expires, in days.
#[derive(Debug, Clone)]
pub(super) struct Retention {
    faces: u32,
    evidence: u32,
    thumbnails: u32,
    audit: u32,
}

impl Retention {
    pub(super) fn of(config: &Config) -> Self {
        let store = &config.store;
        Self {
            faces: config.privacy.face_retention_days,
            evidence: store.evidence_retention_days,
            thumbnails: if store.thumbnails > 0 { store.thumbnail_retention_days } else { 0 },
            audit: config.keys.audit_retention_days,
        }
    }
}

/// Deletes what has expired, now and every hour.
pub(super) async fn purge_expired(store: Store, runs: Arc<Runs>, retention: Retention) {
    let mut hours = tokio::time::interval(PURGE_EVERY);
    let before = |days: u32| (days > 0).then(|| clock::now() - time::Duration::days(days.into()));
    loop {
        hours.tick().await;
        let purged = [
            ("faces", store.purge_faces(before(retention.faces)).await),
            ("evidence", store.purge_evidence(before(retention.evidence)).await),
            ("thumbnails", store.purge_thumbnails(before(retention.thumbnails)).await),
        ];
        for (what, purged) in purged {
            match purged {
                Ok(0) => {}
                Ok(count) => {
                    tracing::info!(count, "deleted expired {what}");
                    runs.scrub().await;
                }
                Err(error) => tracing::warn!(%error, "failed to delete expired {what}, will retry"),
            }
        }
        let Some(before) = before(retention.audit) else { continue };
        match store.forget_audit(before).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "deleted expired entries of the audit log"),
            Err(error) => {
                tracing::warn!(%error, "failed to delete expired entries of the audit log, will retry");
            }
        }
    }
}
