//! A service in this process, for commands that need no server.

use std::{net::Ipv4Addr, path::Path, time::Duration};

use super::{
    progress,
    serve::{ProcessKind, Service},
};
use crate::{client::Client, config::Config};

/// A request to the service of this process that fails for this long will not succeed later.
const PATIENCE: Duration = Duration::from_secs(10);

/// Retry time on backpressure. Pending samples must be scored first, which takes long with large
/// models.
const PATIENCE_WHEN_FULL: Duration = Duration::from_mins(10);

/// Runs a service whose database and files are in a folder, for as long as `work` takes. Only this
/// process knows its address.
///
/// The code path is that with a server, so the numbers are the same.
pub(super) async fn with_service<T>(
    mut config: Config,
    folder: &Path,
    work: impl AsyncFnOnce(&Client) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    config.store.url = format!("sqlite:{}", folder.join("stellar.db").display());
    config.store.spool = folder.join("files");
    config.alone();
    config.server.listen = (Ipv4Addr::LOCALHOST, 0).into();
    let service = Service::start(&config, ProcessKind::Service).await?;
    let client = Client::new(&format!("http://{}", service.address), PATIENCE)?
        .patient_when_full(PATIENCE_WHEN_FULL)
        .telling(progress::note_waiting);
    let done = work(&client).await;
    service.stop(Duration::ZERO).await;
    done
}
