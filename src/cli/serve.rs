//! `stellar-score serve`: starts the service and shuts it down gracefully.

use std::{io, net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::{Router, http::Uri};
use clap::Args;
use tokio::{
    net::TcpSocket,
    signal::unix::{Signal, SignalKind, signal},
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use super::{
    output::print,
    retention::{Retention, purge_expired},
    start::{Graphs, open_observed_store, start_generator, start_scoring_with},
};
use crate::{
    VERSION,
    api::{self, App, Readiness, Starting, Step},
    config::{Config, ConnectionLimits},
    dispatch::{Broker, Places},
    generation::Generator,
    machine,
    pack_id::Weights,
    runs::{Background, Runs, Spool},
    scoring::Scoring,
    server,
    service::AuditLog,
    store::Store,
    telemetry::{AdmissionTelemetry, Telemetry},
};

/// Exit status after a second signal.
const SECOND_SIGNAL: i32 = 130;

/// Part of the drain time reserved for closing the store: its last transaction and checkpoint.
const CLOSING: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Also stop at the end of standard input: a pipe ends when the process that opened it dies
    #[arg(long)]
    stop_with_stdin: bool,
}

/// What the process is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProcessKind {
    /// It answers clients, and scores unless workers do.
    Service,
    /// It scores what others accept.
    Worker,
}

pub(super) async fn run(
    config: Config,
    args: ServeArgs,
    kind: ProcessKind,
) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        kind == ProcessKind::Service || config.dispatch.is_nats(),
        "a worker gets samples from a broker: set dispatch.kind = \"nats\" and dispatch.nats.servers"
    );
    // From here on a signal drains, even one sent as soon as the address is known.
    let mut signals = Signals::catch(args.stop_with_stdin)?;
    let service = tokio::select! {
        service = Service::start(&config, kind) => service?,
        _ = signals.any() => {
            tracing::info!("stopped before the service had started");
            return Ok(ExitCode::SUCCESS);
        }
    };
    let address = service.address;
    let pack = service.scoring.pack();
    let note = match pack.weights {
        Weights::Official | Weights::Imported => "",
        Weights::Demo => " (demo weights: its numbers mean nothing)",
    };
    tracing::info!(%address, pack = pack.name, digest = %pack.digest, store = service.store.kind(), "listening");
    print(&format!(
        "stellar-score {VERSION} is listening on http://{address} with pack {}{note}.\n\
         Score an image in a browser: http://{address}/  Docs: http://{address}/docs/\n\
         Try:\n  curl -F image=@packs/demo/goldens/astronaut.jpg -F prompt='a person in a space \
         suit' \\\n       \
         -F reference=@packs/demo/goldens/astronaut-face.jpg -F method=mine \
         http://{address}/v1/score\n",
        pack.name,
    ))?;
    // Ctrl-C comes from a terminal, where no load balancer needs time.
    let delay = match signals.any().await {
        Cause::Terminated => config.server.shutdown_delay(),
        Cause::Interrupted => Duration::ZERO,
    };
    tokio::select! {
        () = service.stop(delay) => Ok(ExitCode::SUCCESS),
        _ = signals.any() => {
            tracing::warn!("second signal, exiting without drain");
            end_at_once()
        }
    }
}

/// Raises the limit of file descriptors as far as the system allows. Returns the number that
/// connections may use.
fn descriptors_for_connections() -> usize {
    const MOST: u64 = 1 << 20;
    match rlimit::increase_nofile_limit(MOST) {
        Ok(limit) => machine::connections_of(limit),
        Err(error) => {
            tracing::warn!(%error, "failed to raise the limit of file descriptors");
            usize::MAX
        }
    }
}

/// Ends the process as SIGKILL would; restarting after that is safe.
#[expect(
    clippy::disallowed_methods,
    reason = "a second signal asks to exit without the cleanup of a return"
)]
fn end_at_once() -> ! {
    std::process::exit(SECOND_SIGNAL)
}

/// Refuses an address that other machines reach, unless there is a key or the operator wants it.
async fn check_access(config: &Config, store: &Store) -> anyhow::Result<()> {
    let (listen, has_keys) = (config.server.listen, store.has_keys().await?);
    anyhow::ensure!(
        has_keys || config.server.allow_anonymous || !config.server.is_exposed(),
        "other machines reach the service (server.listen is {listen}, server.proxies are \
            {:?}), and there is no API key: everyone could use it. Create a key (stellar-score keys \
            create NAME --scopes read,score), or allow everyone (server.allow_anonymous = true)",
        config.server.proxies,
    );
    if has_keys && config.server.allow_anonymous {
        tracing::warn!("server.allow_anonymous has no effect: there are API keys");
    }
    Ok(())
}

/// Returns the URL under which other instances reach this worker, and accepts it as a host.
fn advertise(config: &mut Config, address: SocketAddr) -> anyhow::Result<String> {
    let given = &config.dispatch.advertise;
    let url = if given.is_empty() {
        anyhow::ensure!(
            !address.ip().is_unspecified(),
            "other instances do not know how to reach this worker, which listens on {address}: set \
                dispatch.advertise to its URL, such as http://10.0.0.7:{}",
            address.port(),
        );
        format!("http://{address}")
    } else {
        given.trim_end_matches('/').to_owned()
    };
    let host = url.parse::<Uri>().ok().and_then(|url| url.host().map(str::to_owned));
    config.server.hosts.extend(host);
    Ok(url)
}

/// Begins to connect to the broker, if there is one. It need not be there yet: accepting goes on
/// without it.
async fn connect(
    config: &Config,
    store: &Store,
    telemetry: &Telemetry,
) -> anyhow::Result<Option<Broker>> {
    if !config.dispatch.is_nats() {
        return Ok(None);
    }
    let telemetry = telemetry.runs.dispatch.of_nats()?;
    let installation = store.installation().await?;
    Ok(Some(Broker::connect(&config.dispatch.nats, installation, telemetry).await?))
}

/// Lets a worker offer its places, and an instance without models use those of workers.
fn with_places(
    app: App,
    config: &Config,
    places: Places,
    advertised: Option<String>,
    graphs: Graphs,
) -> App {
    let runs = app.runs();
    let (supervisor, stopping) = (runs.supervisor(), runs.stopping());
    match advertised {
        Some(url) => {
            app.trust(places.proof());
            places.offer(url, app.has_room(), supervisor, &stopping);
        }
        None if graphs == Graphs::Elsewhere => {
            places.clone().count_workers(supervisor, &stopping);
            return app.with_workers(config, places);
        }
        None => {}
    }
    app
}

/// Most connections that the kernel accepts before the service does.
const BACKLOG: u32 = 1024;

/// A port that is taken and still refuses connections.
struct Port {
    socket: TcpSocket,
    routes: Router,
    limits: ConnectionLimits,
    admission: AdmissionTelemetry,
    stopped: watch::Receiver<bool>,
}

impl Port {
    /// Accepts connections from now on.
    fn open(self) -> io::Result<JoinHandle<()>> {
        let Self { socket, routes, limits, admission, stopped } = self;
        let listener = socket.listen(BACKLOG)?;
        Ok(tokio::spawn(server::serve(listener, routes, limits, admission, stopped)))
    }
}

fn bind(listen: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if listen.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart must not wait for the last connections of the process before it.
    socket.set_reuseaddr(true)?;
    socket.bind(listen)?;
    Ok(socket)
}

/// A running service: HTTP server and background scoring.
pub(super) struct Service {
    pub(super) address: SocketAddr,
    scoring: Arc<Scoring>,
    generator: Option<Arc<Generator>>,
    store: Store,
    runs: Arc<Runs>,
    readiness: Arc<Readiness>,
    background: Background,
    purge: JoinHandle<()>,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
    drain: Duration,
    audit: AuditLog,
}

impl Service {
    pub(super) async fn start(config: &Config, kind: ProcessKind) -> anyhow::Result<Self> {
        let graphs = match kind {
            ProcessKind::Service if !config.dispatch.score_here => Graphs::Elsewhere,
            ProcessKind::Service | ProcessKind::Worker => Graphs::Here,
        };
        let telemetry = Telemetry::new();
        let listen = config.server.listen;
        let taken = || {
            format!(
                "cannot listen on {listen}: set server.listen or STELLAR_SERVER__LISTEN to a free \
                    address"
            )
        };
        let socket = bind(listen).with_context(taken)?;
        let address = socket.local_addr()?;
        let mut config = config.clone();
        let advertised = match kind {
            ProcessKind::Worker => Some(advertise(&mut config, address)?),
            ProcessKind::Service => None,
        };
        let config = &config;
        let (stop, stopped) = watch::channel(false);
        let mut limits = config.server.connection_limits();
        limits.connections = limits.connections.min(descriptors_for_connections());
        let starting = Starting::new(telemetry.clone(), !config.keys.metrics);
        let routes = Arc::clone(&starting).routes();
        let admission = telemetry.admission.clone();
        let port = Port { socket, routes, limits, admission, stopped };
        let opened = if config.server.answer_while_loading {
            Ok(port.open().with_context(taken)?)
        } else {
            Err(port)
        };
        tracing::info!(%address, "loading");
        let store = open_observed_store(config, &telemetry).await?;
        check_access(config, &store).await?;
        // Before the models, which take minutes: another process may use the folder.
        let spool = Spool::of(&config.store, &store).await?;
        let broker = connect(config, &store, &telemetry).await?;
        starting.begin(Step::Pack);
        let verified = Arc::clone(&starting);
        let verified = move || verified.begin(Step::Graphs);
        let pack = (&*config.pack, graphs);
        let scoring = start_scoring_with(config, pack, &telemetry, verified).await?;
        if scoring.engine().provider().is_gpu() {
            telemetry.watch_gpus();
        }
        let generator = match config.generator.pack().filter(|_| graphs == Graphs::Here) {
            None => None,
            Some(pack) => {
                let telemetry = telemetry.engine.beside();
                let generator = start_generator(config, pack, Some(&scoring), telemetry).await;
                Some(generator.context("cannot start the generator (generator.pack)")?)
            }
        };
        let of_runs = telemetry.runs.clone();
        let (store_of_runs, of_dispatch) = (store.clone(), Arc::clone(&scoring));
        let runs =
            Runs::open_with(config, store_of_runs, spool, of_dispatch, broker.clone(), of_runs)
                .await?;
        let mut app =
            App::new(config, Arc::clone(&scoring), store.clone(), Arc::clone(&runs), telemetry);
        if let Some(generator) = &generator {
            app = app.with_generator(Arc::clone(generator), &config.generator);
        }
        if let Some(broker) = broker {
            let places = Places::new(broker, scoring.pack().digest.to_string());
            app = with_places(app, config, places, advertised, graphs);
        }
        let readiness = Arc::clone(app.readiness());
        let audit = app.audit_log();
        let (of_purge, retention) = (Arc::clone(&runs), Retention::of(config));
        let expiring = store.clone();
        let purge =
            move || purge_expired(expiring.clone(), Arc::clone(&of_purge), retention.clone());
        let purge = runs.supervisor().watch("retention", runs.stopping(), purge);
        if let Some(generator) = &generator {
            watch_generator(&runs, Arc::clone(generator), config.generator.deadline());
        }
        let background = runs.start();
        starting.finish(api::router(Arc::new(app)));
        let server = opened.or_else(Port::open).with_context(taken)?;
        let drain = Duration::from_secs(config.server.drain_seconds);
        Ok(Self {
            address,
            scoring,
            generator,
            store,
            runs,
            readiness,
            background,
            purge,
            stop,
            server,
            drain,
            audit,
        })
    }

    /// Answers for `delay` while `/readyz` is false, then finishes in-flight requests and closes
    /// everything in order, all within `server.drain_seconds`.
    pub(super) async fn stop(self, delay: Duration) {
        let Self { scoring, generator, store, runs, readiness, .. } = self;
        let Self { background, purge, stop, audit, .. } = self;
        let (mut server, drain) = (self.server, self.drain);
        let end = Instant::now() + drain;
        readiness.leave();
        if !delay.is_zero() {
            tracing::info!(seconds = delay.as_secs(), "stopping, not ready for new requests");
            tokio::time::sleep(delay).await;
        }
        let seconds = (end - Instant::now()).as_secs();
        tracing::info!(seconds, "stopping, draining in-flight requests");
        stop.send_replace(true);
        // Samples being scored are finished; pending ones resume at the next start.
        runs.stop();
        let finishing = end - CLOSING.min(drain / 2);
        let drained =
            timeout_at(finishing, async { tokio::join!(&mut server, background.ended()) }).await;
        if drained.is_err() {
            tracing::warn!("drain deadline exceeded, cutting off in-flight requests");
        }
        // Dropping the connections drops the requests' futures, which removes their items from the
        // queues.
        if !server.is_finished() {
            server.abort();
            // Requests that are cut off still write to the audit log.
            let _ = (&mut server).await;
        }
        purge.abort();
        // A batch of a large model may outlast the grace period. The log and the store must not
        // wait for it.
        let engines = async {
            if let Some(generator) = generator {
                generator.engine().drain().await;
            }
            scoring.engine().drain().await;
        };
        let data = Box::pin(async {
            tokio::join!(runs.close(), audit.flush());
            store.close().await;
        });
        let closing = async { tokio::join!(engines, data) };
        if timeout_at(end, closing).await.is_err() {
            tracing::warn!("drain deadline exceeded while closing the engine and the store");
        }
        tracing::info!("stopped");
    }
}

/// Detects batches of the generator that take longer than the deadline of a request.
fn watch_generator(runs: &Runs, generator: Arc<Generator>, limit: Duration) {
    drop(runs.supervisor().watch("generator", runs.stopping(), move || {
        let generator = Arc::clone(&generator);
        async move { generator.engine().watch_hanging(limit).await }
    }));
}

/// Signals that stop the service: SIGTERM (orchestrators) and SIGINT (Ctrl-C).
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Told once, at the end of standard input.
    input: Option<oneshot::Receiver<()>>,
}

impl Signals {
    fn catch(with_stdin: bool) -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            input: with_stdin.then(end_of_stdin),
        })
    }

    async fn any(&mut self) -> Cause {
        let input = async {
            match &mut self.input {
                Some(end) => drop(end.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => Cause::Terminated,
            _ = self.interrupt.recv() => Cause::Interrupted,
            () = input => {
                self.input = None;
                Cause::Interrupted
            }
        }
    }
}

/// Reads standard input to its end. The thread is not of the runtime, which would wait for it.
fn end_of_stdin() -> oneshot::Receiver<()> {
    let (told, end) = oneshot::channel();
    std::thread::spawn(move || {
        // A stream that cannot be read has ended.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        let _ = told.send(());
    });
    end
}

/// The signal that stops the service.
enum Cause {
    Terminated,
    /// By its user, or by the end of standard input.
    Interrupted,
}
