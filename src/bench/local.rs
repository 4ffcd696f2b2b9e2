//! The whole service in this process, for measurements. Its database and files are in a temporary
//! folder.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::api::{self, App};
use crate::config::Config;
use crate::engine::{Engine, Pack};
use crate::runs::{Runs, Spool};
use crate::scoring::Scoring;
use crate::store::{Store, StoreOptions};
use crate::telemetry::Telemetry;

/// A listening service, which stops when it is dropped.
#[derive(Debug)]
pub struct LocalService {
    address: SocketAddr,
    server: JoinHandle<()>,
    _folder: Folder,
}

impl LocalService {
    /// Serves an engine over `pack` on a free port, with a new SQLite database. The engine's
    /// service metrics are in `telemetry`.
    ///
    /// # Errors
    /// The folder or the database cannot be created, or the pack lacks graphs needed for scoring.
    pub async fn start(
        config: &Config,
        pack: Pack,
        engine: Engine,
        telemetry: Telemetry,
    ) -> anyhow::Result<Self> {
        let folder = Folder::make()?;
        let mut config = config.clone();
        config.store.spool = folder.0.join("files");
        config.alone();
        // Whatever the address of the configured service: this one needs no key.
        config.server.listen = (Ipv4Addr::LOCALHOST, 0).into();
        let scoring = Arc::new(Scoring::new(
            engine,
            Arc::new(pack),
            config.limits.decode(),
            config.limits.pixel_bytes(),
        )?);
        let url = format!("sqlite:{}", folder.0.join("bench.db").display());
        let store = Store::open(&url, &StoreOptions::default()).await?;
        let spool = Spool::of(&config.store, &store).await?;
        let of_runs = telemetry.runs.clone();
        let runs = Runs::open(&config, store.clone(), spool, Arc::clone(&scoring), of_runs).await?;
        let router = api::router(Arc::new(App::new(&config, scoring, store, runs, telemetry)));
        let listener =
            TcpListener::bind("127.0.0.1:0").await.context("cannot listen on a local port")?;
        let address = listener.local_addr()?;
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the measured service failed");
            }
        });
        Ok(Self { address, server, _folder: folder })
    }

    /// Returns the address that the service listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for LocalService {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A new temporary folder, removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn make() -> std::io::Result<Self> {
        let folder =
            std::env::temp_dir().join(format!("stellar-score-{}", Uuid::now_v7().simple()));
        std::fs::create_dir(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Leftover files only take up disk space.
        drop(std::fs::remove_dir_all(&self.0));
    }
}
