//! `stellar-score serve`: from configuration to a listening service, and back out in order.

use std::{future::IntoFuture as _, net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use time::OffsetDateTime;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};

use super::{open_store, print, start_scoring};
use crate::{
    api::{self, App, SERVICE_VERSION},
    config::Config,
    pack_id::Weights,
    runs::{Background, Runs},
    scoring::Scoring,
    store::Store,
    telemetry::Telemetry,
};

pub(super) async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let service = Service::start(&config).await?;
    // From here on a signal drains, also one that comes as soon as the address is known.
    let mut signals = Signals::catch()?;
    let address = service.address;
    let pack = service.scoring.pack();
    let note = match pack.weights {
        Weights::Official => "",
        Weights::Demo => " (random weights: its numbers mean nothing)",
    };
    tracing::info!(%address, pack = pack.name, digest = %pack.digest, store = service.store.kind(), "listening");
    print(&format!(
        "stellar-score {SERVICE_VERSION} serves http://{address} with pack {}{note}.\n\
         Docs: http://{address}/docs/  Leaderboard: http://{address}/v1/leaderboard\n\
         Try:\n  curl -F image=@packs/demo/goldens/astronaut.jpg -F prompt='a person in a space suit' \\\n       \
         -F reference=@packs/demo/goldens/astronaut-face.jpg -F method=mine http://{address}/v1/score\n",
        pack.name,
    ))?;
    signals.any().await;
    service.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// A service that listens and scores in the background.
pub(super) struct Service {
    pub(super) address: SocketAddr,
    scoring: Arc<Scoring>,
    store: Store,
    runs: Arc<Runs>,
    background: Background,
    purge: JoinHandle<()>,
    stop: watch::Sender<bool>,
    server: JoinHandle<std::io::Result<()>>,
    drain: Duration,
}

impl Service {
    pub(super) async fn start(config: &Config) -> anyhow::Result<Self> {
        let telemetry = Telemetry::new();
        let store = open_store(config).await?;
        let scoring = start_scoring(config, &config.pack, &telemetry).await?;
        let runs = Runs::open(config, store.clone(), Arc::clone(&scoring), telemetry.runs.clone()).await?;
        let app = App::new(config, Arc::clone(&scoring), store.clone(), Arc::clone(&runs), telemetry);
        let listen = config.server.listen;
        let listener = TcpListener::bind(listen).await.with_context(|| {
            format!(
                "cannot listen on {listen}: set server.listen or STELLAR_SERVER__LISTEN to a free address"
            )
        })?;
        let address = listener.local_addr()?;
        let purge = tokio::spawn(purge_faces(store.clone(), config.privacy.face_days));
        let background = runs.start();
        let (stop, mut stopped) = watch::channel(false);
        let server = axum::serve(listener, api::router(Arc::new(app)))
            .with_graceful_shutdown(async move {
                let _ = stopped.wait_for(|stop| *stop).await;
            })
            .into_future();
        let server = tokio::spawn(server);
        let drain = Duration::from_secs(config.server.drain_seconds);
        Ok(Self { address, scoring, store, runs, background, purge, stop, server, drain })
    }

    /// Finishes the requests in flight and closes everything in order.
    pub(super) async fn stop(self) {
        let Self { scoring, store, runs, background, purge, stop, server, drain, .. } = self;
        tracing::info!(seconds = drain.as_secs(), "stopping: requests in flight are finished");
        stop.send_replace(true);
        // What waits to be scored goes on at the next start; what is being scored is finished.
        runs.stop();
        let drained = tokio::time::timeout(drain, async { tokio::join!(server, background.ended()) }).await;
        if drained.is_err() {
            tracing::warn!("requests were still in flight after server.drain_seconds and are cut off");
        }
        purge.abort();
        scoring.engine().drain().await;
        store.close().await;
        tracing::info!("stopped");
    }
}

/// Faces live for days: an hour more or less is no matter, and the look costs one indexed statement.
const PURGE_EVERY: Duration = Duration::from_hours(1);

/// Deletes faces whose time is over, now and every hour.
async fn purge_faces(store: Store, face_days: u32) {
    let mut hours = tokio::time::interval(PURGE_EVERY);
    loop {
        hours.tick().await;
        let before =
            (face_days > 0).then(|| OffsetDateTime::now_utc() - time::Duration::days(face_days.into()));
        match store.purge_faces(before).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "faces deleted whose time was over"),
            Err(error) => {
                tracing::warn!(%error, "faces whose time is over could not be deleted; tried again later");
            }
        }
    }
}

/// The signals that ask to stop: SIGTERM (orchestrators) and SIGINT (Ctrl-C).
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn catch() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
