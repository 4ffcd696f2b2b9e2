//! Waiting for the server to score all samples and to finish the run.

use std::time::Duration;

use uuid::Uuid;

use super::Failure;
use crate::client::{Client, ClientError, Run, RunState};

/// Polling interval: short relative to the time of scoring, but a negligible load.
const POLL: Duration = Duration::from_millis(400);

/// Waits until no sample is pending, and returns the failed ones. Calls `progress` with the run's
/// state.
///
/// # Errors
/// See [`ClientError`].
pub async fn wait_until_scored(
    client: &Client,
    run: Uuid,
    mut progress: impl FnMut(&Run),
) -> Result<Vec<Failure>, ClientError> {
    loop {
        let now = client.run(run).await?;
        progress(&now);
        let counts = now.counts;
        if counts.pending == 0 {
            if counts.failed == 0 {
                return Ok(Vec::new());
            }
            let failed = client.accepted_samples(run, Some("failed")).await?;
            let failures = failed.into_iter().map(|sample| {
                let why = sample.error.map_or_else(
                    || "the server did not send a reason".to_owned(),
                    |error| format!("{}: {}", error.code, error.detail),
                );
                Failure { name: sample.name, why }
            });
            return Ok(failures.collect());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Finishes a run and waits until it is finished.
///
/// # Errors
/// See [`ClientError`].
pub async fn finish(client: &Client, run: Uuid) -> Result<Run, ClientError> {
    client.finish(run).await?;
    loop {
        let found = client.run(run).await?;
        if found.state == RunState::Finished {
            return Ok(found);
        }
        tokio::time::sleep(POLL).await;
    }
}
