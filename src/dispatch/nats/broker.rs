//! The connection to NATS, the stream of samples, and a consumer for each pack.

use std::{io, time::Duration};

use async_nats::{
    Client, ConnectOptions, Event,
    connection::State,
    jetstream::{
        self, Context, ErrorCode,
        consumer::{AckPolicy, PullConsumer, pull},
        context::GetStreamErrorKind,
        stream::{Info, RetentionPolicy, StorageType, Stream},
    },
};
use time::OffsetDateTime;

use crate::{
    config::{Nats, given, read_password},
    telemetry::NatsTelemetry,
};

/// Time limit of a request to `JetStream`.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest pause between two attempts to connect.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Messages that are published and not acknowledged yet.
const ACKS: usize = 4096;

/// The broker cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrokerError {
    /// A file of the configuration cannot be read.
    #[error("cannot read {key} ({path}): {source}")]
    File {
        /// Key of the configuration.
        key: &'static str,
        /// The path.
        path: String,
        /// Cause.
        source: io::Error,
    },
    /// The file with the password is of no use.
    #[error("dispatch.nats.password_file = {path}: {why}")]
    Password {
        /// The path.
        path: String,
        /// What is wrong.
        why: &'static str,
    },
    /// The servers refuse the connection, or an address is wrong.
    #[error("cannot connect to NATS (dispatch.nats.servers): {0}")]
    Connect(String),
}

/// State of the stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queue {
    /// Number of samples that are queued or in flight.
    pub(crate) samples: u64,
    /// Number of copies of the stream.
    pub(crate) replicas: usize,
}

/// A connection to the broker, which is opened again if it is lost.
#[derive(Clone, Debug)]
pub(crate) struct Broker {
    client: Client,
    context: Context,
    settings: Nats,
    /// Id of the database, which the stream belongs to.
    installation: String,
    telemetry: NatsTelemetry,
}

impl Broker {
    /// Begins to connect. The broker need not be there yet.
    pub(crate) async fn connect(
        settings: &Nats,
        installation: String,
        telemetry: NatsTelemetry,
    ) -> Result<Self, BrokerError> {
        let gauge = telemetry.connected.clone();
        let mut options = ConnectOptions::new()
            .name("stellar-score")
            .retry_on_initial_connect()
            .reconnect_delay_callback(|attempt| {
                LONGEST_PAUSE.min(Duration::from_millis(50) * attempt.min(1_000) as u32)
            })
            .event_callback(move |event| {
                let gauge = gauge.clone();
                async move {
                    match event {
                        Event::Connected => {
                            gauge.set(1);
                            tracing::info!("connected to the broker");
                        }
                        Event::Disconnected => {
                            gauge.set(0);
                            tracing::error!("the connection to the broker is lost, will retry");
                        }
                        event => tracing::debug!(%event, "broker"),
                    }
                }
            });
        let failed = |key, path: &std::path::Path| {
            let path = path.display().to_string();
            move |source| BrokerError::File { key, path, source }
        };
        if let Some(path) = given(&settings.credentials) {
            options = options
                .credentials_file(path)
                .await
                .map_err(failed("dispatch.nats.credentials", path))?;
        }
        if let Some(path) = given(&settings.password_file) {
            let password = read_password(path)
                .map_err(|why| BrokerError::Password { path: path.display().to_string(), why })?;
            options = options.user_and_password(settings.user.clone(), password);
        }
        for (key, path) in [
            ("dispatch.nats.ca", &settings.ca),
            ("dispatch.nats.certificate", &settings.certificate),
            ("dispatch.nats.key", &settings.key),
        ] {
            if let Some(path) = given(path) {
                // The client would only say so while it connects in the background.
                std::fs::File::open(path).map_err(failed(key, path))?;
            }
        }
        if let Some(path) = given(&settings.ca) {
            options = options.add_root_certificates(path.to_owned());
        }
        if let Some(path) = given(&settings.certificate) {
            options = options.add_client_certificate(path.to_owned(), settings.key.clone());
        }
        let wants_tls = settings.servers.iter().any(|server| server.starts_with("tls://"))
            || given(&settings.ca).is_some()
            || given(&settings.certificate).is_some();
        if wants_tls {
            // Also for servers that the first one names, and whatever a server says.
            options = options.require_tls(true);
        }
        let client = options
            .connect(settings.servers.clone())
            .await
            .map_err(|error| BrokerError::Connect(error.to_string()))?;
        let context = jetstream::context::ContextBuilder::new()
            .timeout(PATIENCE)
            .ack_timeout(PATIENCE)
            .max_ack_inflight(ACKS)
            .backpressure_on_inflight(true)
            .build(client.clone());
        Ok(Self { client, context, settings: settings.clone(), installation, telemetry })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    pub(crate) fn telemetry(&self) -> &NatsTelemetry {
        &self.telemetry
    }

    /// Returns whether there is a connection.
    pub(super) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    pub(super) fn ack_wait(&self) -> Duration {
        self.settings.ack_wait()
    }

    pub(super) fn subject(&self, rest: &str) -> String {
        format!("{}.{rest}", self.settings.prefix)
    }

    /// Returns the id of the database.
    pub(super) fn installation(&self) -> &str {
        &self.installation
    }

    /// Returns the state of the stream without changing anything; `None` if there is none yet.
    pub(crate) async fn queue(&self) -> Result<Option<Queue>, String> {
        let stream = self.context.get_stream(self.stream_name());
        let found = tokio::time::timeout(PATIENCE, stream).await;
        match found.map_err(|_| format!("no answer within {} s", PATIENCE.as_secs()))? {
            Ok(stream) => {
                let Info { state, config, .. } = stream.cached_info();
                Ok(Some(Queue { samples: state.messages, replicas: config.num_replicas }))
            }
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(why)
                    if why.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                {
                    Ok(None)
                }
                _ => Err(error.to_string()),
            },
        }
    }

    fn stream_name(&self) -> String {
        format!("{}_work", self.settings.prefix)
    }

    /// Creates the stream if it is missing: at the first start, or since its storage is lost.
    /// Refuses a stream of another database.
    pub(super) async fn stream(&self) -> Result<Stream, async_nats::Error> {
        let description =
            format!("Pending samples of stellar-score, database {}", self.installation);
        let config = jetstream::stream::Config {
            name: self.stream_name(),
            description: Some(description.clone()),
            subjects: vec![self.subject("work.>")],
            retention: RetentionPolicy::WorkQueue,
            storage: StorageType::File,
            num_replicas: self.settings.replicas,
            ..Default::default()
        };
        let name = config.name.clone();
        let stream = self.context.get_or_create_stream(config).await?;
        let found = stream.cached_info().config.description.clone();
        if found.as_ref() != Some(&description) {
            let found = found.unwrap_or_default();
            let why = format!(
                "the stream {name} belongs to something else ({found}): set dispatch.nats.prefix to \
                    another name for each database"
            );
            return Err(why.into());
        }
        Ok(stream)
    }

    /// Returns the consumer of a pack's workers, and creates it if it is missing.
    pub(super) async fn consumer(
        &self,
        stream: &Stream,
        pack: &str,
    ) -> Result<PullConsumer, async_nats::Error> {
        let (name, config) = (consumer_name(pack), self.consumer_config(pack));
        Ok(stream.get_or_create_consumer(&name, config).await?)
    }

    /// Like [`consumer`](Self::consumer), with the settings of this instance. Also returns when the
    /// stream was created.
    pub(super) async fn configured_consumer(
        &self,
        pack: &str,
    ) -> Result<(PullConsumer, OffsetDateTime), async_nats::Error> {
        let stream = self.stream().await?;
        let found = self.consumer(&stream, pack).await?;
        let created = stream.cached_info().created;
        let (wanted, has) = (self.consumer_config(pack), &found.cached_info().config);
        if (has.ack_wait, has.max_ack_pending) == (wanted.ack_wait, wanted.max_ack_pending) {
            return Ok((found, created));
        }
        let (ack_seconds, max_ack_pending) = (wanted.ack_wait.as_secs(), wanted.max_ack_pending);
        match stream.create_consumer(wanted).await {
            Ok(changed) => {
                tracing::info!(
                    ack_seconds,
                    max_ack_pending,
                    "changed the settings of the consumer"
                );
                Ok((changed, created))
            }
            Err(error) => {
                tracing::warn!(%error, "failed to change the settings of the consumer");
                Ok((found, created))
            }
        }
    }

    fn consumer_config(&self, pack: &str) -> pull::Config {
        pull::Config {
            durable_name: Some(consumer_name(pack)),
            description: Some("Workers of a pack".to_owned()),
            filter_subject: self.subject(&format!("work.{}.>", short(pack))),
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.ack_wait(),
            max_ack_pending: self.settings.max_ack_pending.into(),
            max_waiting: 4096,
            ..Default::default()
        }
    }

    /// Returns the same connection for another database.
    #[cfg(test)]
    pub(super) fn of_installation(&self, installation: &str) -> Self {
        Self { installation: installation.to_owned(), ..self.clone() }
    }

    /// Sends what is not sent yet.
    pub(super) async fn flush(&self) {
        let _ = tokio::time::timeout(PATIENCE, self.client.flush()).await;
    }
}

/// Returns the name of the consumer of a pack's workers.
pub(super) fn consumer_name(pack: &str) -> String {
    format!("pack-{}", short(pack))
}

/// Returns the part of a pack's digest that subjects and consumers have.
pub(super) fn short(pack: &str) -> &str {
    pack.get(..16).unwrap_or(pack)
}
