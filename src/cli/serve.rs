//! `stellar-score serve`: from configuration to a listening service, and back out in order.

use std::{net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use time::OffsetDateTime;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout_at},
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

/// The exit status after a second signal.
const AT_ONCE: i32 = 130;

/// How long closing the store may take, of the time to stop: its last transaction and checkpoint.
const CLOSING: Duration = Duration::from_secs(2);

pub(super) async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let service = Service::start(&config).await?;
    // From here on a signal drains, also one that comes as soon as the address is known.
    let mut signals = Signals::catch()?;
    let address = service.address;
    let pack = service.scoring.pack();
    let note = match pack.weights {
        Weights::Official | Weights::Imported => "",
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
    tokio::select! {
        () = service.stop() => Ok(ExitCode::SUCCESS),
        () = signals.any() => {
            tracing::warn!("a second signal: stopped at once");
            end_at_once()
        }
    }
}

/// File descriptors that connections leave to the database, the spool, the pack and the log.
const OTHER_DESCRIPTORS: u64 = 256;

/// Raises the limit of file descriptors as far as the system lets us, and says how many of them connections may take.
fn descriptors_for_connections() -> usize {
    const MOST: u64 = 1 << 20;
    match rlimit::increase_nofile_limit(MOST) {
        Ok(limit) => {
            usize::try_from(limit.saturating_sub(OTHER_DESCRIPTORS).max(limit / 2)).unwrap_or(usize::MAX)
        }
        Err(error) => {
            tracing::warn!(%error, "the limit of file descriptors cannot be read");
            usize::MAX
        }
    }
}

/// Ends the process as SIGKILL would, from which it is safe to start again.
#[expect(
    clippy::disallowed_methods,
    reason = "whoever signals twice does not want to wait for what a return waits for"
)]
fn end_at_once() -> ! {
    std::process::exit(AT_ONCE)
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
    server: JoinHandle<()>,
    drain: Duration,
}

impl Service {
    pub(super) async fn start(config: &Config) -> anyhow::Result<Self> {
        let telemetry = Telemetry::new();
        let store = open_store(config).await?;
        let scoring = start_scoring(config, &config.pack, &telemetry).await?;
        if scoring.engine().provider().is_gpu() {
            telemetry.watch_cards();
        }
        let runs = Runs::open(config, store.clone(), Arc::clone(&scoring), telemetry.runs.clone()).await?;
        let connections = telemetry.connections.clone();
        let app = App::new(config, Arc::clone(&scoring), store.clone(), Arc::clone(&runs), telemetry);
        let listen = config.server.listen;
        let listener = TcpListener::bind(listen).await.with_context(|| {
            format!(
                "cannot listen on {listen}: set server.listen or STELLAR_SERVER__LISTEN to a free address"
            )
        })?;
        let address = listener.local_addr()?;
        let (faces, face_retention_days) = (store.clone(), config.privacy.face_retention_days);
        let of_purge = Arc::clone(&runs);
        let purge = move || purge_faces(faces.clone(), Arc::clone(&of_purge), face_retention_days);
        let purge = runs.supervisor().watch("faces", runs.stopping(), purge);
        let background = runs.start();
        let (stop, stopped) = watch::channel(false);
        let mut limits = config.server.connection_limits();
        limits.connections = limits.connections.min(descriptors_for_connections());
        let router = api::router(Arc::new(app));
        let server = tokio::spawn(crate::server::serve(listener, router, limits, connections, stopped));
        let drain = Duration::from_secs(config.server.drain_seconds);
        Ok(Self { address, scoring, store, runs, background, purge, stop, server, drain })
    }

    /// Finishes requests in flight and closes everything in order, within `server.drain_seconds`.
    pub(super) async fn stop(self) {
        let Self { scoring, store, runs, background, purge, stop, mut server, drain, .. } = self;
        tracing::info!(seconds = drain.as_secs(), "stopping: requests in flight are finished");
        let end = Instant::now() + drain;
        stop.send_replace(true);
        // What waits to be scored goes on at the next start; what is being scored is finished.
        runs.stop();
        let finishing = end - CLOSING.min(drain / 2);
        let drained = timeout_at(finishing, async { tokio::join!(&mut server, background.ended()) }).await;
        if drained.is_err() {
            tracing::warn!("requests were still in flight after server.drain_seconds and are cut off");
        }
        // Their futures are dropped with their connections, which takes their items out of the queues.
        server.abort();
        purge.abort();
        let closing = async {
            scoring.engine().drain().await;
            store.close().await;
        };
        if timeout_at(end, closing).await.is_err() {
            tracing::warn!("the models or the store were still busy after server.drain_seconds");
        }
        tracing::info!("stopped");
    }
}

/// Faces live for days: an hour more or less is no matter, and the look costs one indexed statement.
const PURGE_EVERY: Duration = Duration::from_hours(1);

/// Deletes faces whose time is over, now and every hour.
async fn purge_faces(store: Store, runs: Arc<Runs>, face_retention_days: u32) {
    let mut hours = tokio::time::interval(PURGE_EVERY);
    loop {
        hours.tick().await;
        let before = (face_retention_days > 0)
            .then(|| OffsetDateTime::now_utc() - time::Duration::days(face_retention_days.into()));
        match store.purge_faces(before).await {
            Ok(0) => {}
            Ok(count) => {
                tracing::info!(count, "faces deleted whose time was over");
                runs.scrub().await;
            }
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
