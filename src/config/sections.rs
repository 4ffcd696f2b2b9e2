//! The sections of the configuration.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use super::{
    adapters::{Adapter, Protocol},
    s3::S3,
};
use crate::{machine, vision::DecodeLimits};

/// Limits of connections.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Maximum number of open connections.
    pub connections: usize,
    /// How long a connection may be silent before the head of a request has arrived.
    pub head: Duration,
    /// How long a client may stop reading a response.
    pub write: Duration,
}

/// The `[server]` section: address, hosts, connections and time limits.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// Whether other machines may use the service without a key while there are none.
    pub allow_anonymous: bool,
    /// Addresses of reverse proxies, through which other machines reach the service. Their
    /// `X-Forwarded-For` names the client in the audit log.
    pub proxies: Vec<IpAddr>,
    /// Deadline of a request, in seconds. After it the response is 504.
    pub deadline_seconds: u64,
    /// Grace period after SIGTERM, in seconds. In-flight requests are answered or cut off within
    /// it.
    pub drain_seconds: u64,
    /// How long the service still answers after SIGTERM while `/readyz` is false, in seconds. It is
    /// part of `drain_seconds`.
    pub shutdown_delay_seconds: u64,
    /// Whether the port is open while models load. Requests other than probes then get 503.
    pub answer_while_loading: bool,
    /// Names and addresses under which clients reach the service, in addition to localhost,
    /// loopback addresses and `listen`. `*` accepts every host.
    pub hosts: Vec<String>,
    /// Most open connections. Above it, the connection that has been silent longest is closed: an
    /// idle one first, then one whose request body is awaited.
    pub connections: usize,
    /// How long a connection may be silent before the head of a request is complete, in seconds.
    pub head_seconds: u64,
    /// How long the service waits in total for missing bytes of a request body, in seconds.
    pub body_seconds: u64,
    /// Minimum rate of a request body: this many bytes received add one second to `body_seconds`.
    pub body_bytes_per_second: u32,
    /// How long a client may read nothing of its response, in seconds.
    pub write_seconds: u64,
}

impl Server {
    /// Returns whether other machines reach the service, by themselves or through a proxy.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        !self.listen.ip().is_loopback() || !self.proxies.is_empty()
    }

    /// Returns the addresses of reverse proxies, in the form in which those of peers are compared.
    #[must_use]
    pub fn proxy_addresses(&self) -> Vec<IpAddr> {
        self.proxies.iter().map(IpAddr::to_canonical).collect()
    }

    /// Returns the deadline of a request.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        Duration::from_secs(self.deadline_seconds)
    }

    /// Returns how long the service still answers after SIGTERM.
    #[must_use]
    pub fn shutdown_delay(&self) -> Duration {
        Duration::from_secs(self.shutdown_delay_seconds)
    }

    /// Returns the limits of connections.
    #[must_use]
    pub fn connection_limits(&self) -> ConnectionLimits {
        ConnectionLimits {
            connections: self.connections,
            head: Duration::from_secs(self.head_seconds),
            write: Duration::from_secs(self.write_seconds),
        }
    }
}

/// The `[keys]` section: what needs an API key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// Whether `/metrics` needs a key with the scope `read` once there are keys.
    pub metrics: bool,
    /// Retention of the audit log, in days; 0 keeps it.
    pub audit_retention_days: u32,
}

/// The `[limits]` section: bounds on requests, images and memory.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Most requests being read or scored. Further ones get 429 before their body is read.
    pub requests: usize,
    /// Memory for uploads over all requests, in MiB.
    pub upload_memory_mib: usize,
    /// Largest request body, in MiB.
    pub request_mib: usize,
    /// Largest image file, in MiB.
    pub image_mib: usize,
    /// Largest decoded image, in millions of pixels.
    pub image_megapixels: usize,
    /// Smallest width and height of an image, in pixels.
    pub image_min_side: u32,
    /// Most reference images in one request.
    pub references: usize,
    /// Most auxiliary images in one request.
    pub auxiliary: usize,
    /// Longest prompt, in bytes.
    pub prompt_bytes: usize,
    /// Memory that the service may use, in MiB. 0 sets no limit.
    pub memory_mib: u64,
    /// Memory for decoded pixels over all requests and runs, in MiB. 0 chooses an eighth of the
    /// memory.
    pub pixel_memory_mib: u64,
    /// Most objects to look for in one image.
    pub detectables: usize,
    /// Largest metadata document, in bytes.
    pub metadata_bytes: usize,
}

const MIB: usize = 1 << 20;

/// The default pixel budget has room for this many largest images, since images that await the face
/// search hold a part of it.
const LARGEST_IMAGES: u64 = 2;

impl Limits {
    /// Returns the size limit of a request body, in bytes.
    #[must_use]
    pub fn request_bytes(&self) -> usize {
        self.request_mib * MIB
    }

    /// Returns the size limit of an image file, in bytes.
    #[must_use]
    pub fn image_bytes(&self) -> usize {
        self.image_mib * MIB
    }

    /// Returns the memory limit of uploads, in bytes.
    #[must_use]
    pub fn upload_memory_bytes(&self) -> usize {
        self.upload_memory_mib * MIB
    }

    /// Returns the memory limit of the service, in bytes, if there is one.
    #[must_use]
    pub fn memory_bytes(&self) -> Option<u64> {
        (self.memory_mib > 0).then(|| self.memory_mib.saturating_mul(MIB as u64))
    }

    /// Returns the memory limit of decoded pixels, in bytes.
    ///
    /// If none is set, it is an eighth of the memory, and enough for two of the largest images.
    #[must_use]
    pub fn pixel_bytes(&self) -> u64 {
        let largest = LARGEST_IMAGES * self.decode().max_memory;
        match self.pixel_memory_mib {
            0 => {
                let memory =
                    [machine::memory_bytes(), self.memory_bytes()].into_iter().flatten().min();
                (memory.unwrap_or_default() / 8).max(largest)
            }
            mib => mib.saturating_mul(MIB as u64),
        }
    }

    /// Returns the limits for decoding an image.
    #[must_use]
    pub fn decode(&self) -> DecodeLimits {
        DecodeLimits {
            max_bytes: self.image_bytes(),
            max_pixels: self.image_megapixels as u64 * 1_000_000,
            ..DecodeLimits::default()
        }
    }
}

/// The `[privacy]` section: storage and disclosure of data that identifies people.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Privacy {
    /// Retention of faces found in images, in days. 0 stores none and disables enrolment.
    pub face_retention_days: u32,
    /// Whether `evidence=true` also returns face embeddings.
    pub return_embeddings: bool,
}

/// The `[store]` section: database and spool.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// Database: `sqlite:PATH` or `postgres://USER:PASSWORD@HOST/DATABASE`.
    pub url: String,
    /// File with the password of PostgreSQL, which is inserted into the URL.
    pub password_file: Option<PathBuf>,
    /// Most open connections of this process to PostgreSQL, or readers of `SQLite`.
    pub connections: u32,
    /// The spool: folder for the images of accepted samples, or for notes if they are in a bucket.
    pub spool: PathBuf,
    /// Bucket for these images.
    pub s3: S3,
    /// Size limit of the spool, in MiB.
    pub spool_mib: u64,
    /// Retention of unreferenced files in the trash, in days.
    pub trash_retention_days: u32,
    /// Retention of the evidence behind scores, in days. 0 stores none.
    pub evidence_retention_days: u32,
    /// Longer side of the thumbnails of images, in pixels. 0 stores none.
    pub thumbnails: u32,
    /// Retention of thumbnails, in days after they were last needed.
    pub thumbnail_retention_days: u32,
    /// Least free space of the disks of the spool and of an SQLite database, in MiB. 0 checks
    /// nothing.
    pub min_free_mib: u64,
}

impl Store {
    /// Returns the retention of files in the trash.
    #[must_use]
    pub fn trash(&self) -> Duration {
        Duration::from_hours(24 * u64::from(self.trash_retention_days))
    }

    /// Returns the folder of an SQLite database; `None` for PostgreSQL and for one in memory.
    #[must_use]
    pub fn database_folder(&self) -> Option<PathBuf> {
        let path = self.url.strip_prefix("sqlite:")?.split('?').next()?;
        let path = path.strip_prefix("//").unwrap_or(path);
        let folder = Path::new(path).parent().filter(|_| !path.starts_with(":memory:"))?;
        Some(if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_owned() })
    }

    /// Returns the size limit of the spool, in bytes.
    #[must_use]
    pub fn spool_bytes(&self) -> u64 {
        self.spool_mib.saturating_mul(MIB as u64)
    }
}

impl std::fmt::Debug for Store {
    /// Shows only the scheme of the URL, which may contain a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("url", &self.url.split(':').next())
            .field("password_file", &self.password_file)
            .field("connections", &self.connections)
            .field("spool", &self.spool)
            .field("s3", &self.s3)
            .field("spool_mib", &self.spool_mib)
            .field("trash_retention_days", &self.trash_retention_days)
            .field("evidence_retention_days", &self.evidence_retention_days)
            .field("thumbnails", &self.thumbnails)
            .field("thumbnail_retention_days", &self.thumbnail_retention_days)
            .field("min_free_mib", &self.min_free_mib)
            .finish()
    }
}

/// The `[runs]` section: background scoring of runs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runs {
    /// Concurrency of background scoring, in samples. 0 chooses, see [`Self::samples_at_once`].
    pub concurrency: usize,
    /// The same while scoring requests wait. 0 pauses background scoring meanwhile.
    pub concurrency_under_load: usize,
    /// Most attempts to score a sample before it fails.
    pub attempts: u32,
    /// Most pending samples of a run.
    pub pending_samples: u64,
    /// Most samples in an imported file.
    pub import_samples: usize,
    /// Most clients that watch the progress of runs.
    pub watchers: usize,
}

impl Runs {
    /// Returns the concurrency of background scoring, given the largest batch of graphs on a GPU,
    /// if any.
    ///
    /// The default is 8 on a CPU, which fills its batches. On a GPU it is four of the largest
    /// batches, at least 64, so that images are decoded while the GPU runs.
    #[must_use]
    pub fn samples_at_once(&self, gpu_batch: Option<usize>) -> usize {
        match (self.concurrency, gpu_batch) {
            (0, None) => 8,
            (0, Some(batch)) => (4 * batch).max(64),
            (given, _) => given,
        }
    }
}

/// The `[rewards]` section: `POST /v1/rewards`, whose requests queue.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rewards {
    /// Longest time that a request waits for capacity, in seconds. After it the response is 503.
    pub wait_seconds: u64,
    /// Deadline of a request, in seconds, from its first item on. After it the response is 504.
    pub deadline_seconds: u64,
    /// Concurrency, in items. 0 chooses as `runs.concurrency` does.
    pub concurrency: usize,
    /// Most items of a request.
    pub items: usize,
    /// Most items that wait over all requests. A request that would exceed it gets 503.
    pub queue: usize,
    /// Memory for the bodies of these requests, in MiB. Each counts twice its size.
    pub memory_mib: usize,
    /// Longest time that a request of an adapter for pickles waits for capacity, in seconds.
    pub pickle_wait_seconds: u64,
    /// The same for `UniRL`.
    pub unirl_wait_seconds: u64,
    /// The same for Flow-Factory.
    pub flow_factory_wait_seconds: u64,
    /// Adapters for the reward clients of trainers.
    #[serde(default)]
    pub adapter: Vec<Adapter>,
}

impl Rewards {
    /// Returns the longest time that a request waits for capacity.
    #[must_use]
    pub fn wait(&self) -> Duration {
        Duration::from_secs(self.wait_seconds)
    }

    /// Returns the longest time that a request of an adapter waits for capacity.
    #[must_use]
    pub fn wait_of(&self, protocol: Protocol) -> Duration {
        Duration::from_secs(match protocol {
            Protocol::Pickle => self.pickle_wait_seconds,
            Protocol::Unirl => self.unirl_wait_seconds,
            Protocol::FlowFactory => self.flow_factory_wait_seconds,
            // Its results are computed after the response.
            Protocol::Cosmos => self.wait_seconds,
        })
    }

    /// Returns the deadline of a request.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        Duration::from_secs(self.deadline_seconds)
    }

    /// Returns the memory limit of bodies, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.memory_mib * MIB
    }
}

/// Returns the path unless it is empty, which stands for none.
pub(crate) fn given(path: &Path) -> Option<&Path> {
    (!path.as_os_str().is_empty()).then_some(path)
}

/// The `[generator]` section: images that are generated on request.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generator {
    /// Folder of the generator pack. Empty: no images are generated.
    pub pack: PathBuf,
    /// Images that are generated concurrently. Further requests get 429.
    pub concurrency: usize,
    /// Deadline of a request, in seconds. After it the response is 504.
    pub deadline_seconds: u64,
    /// Rows of each batch: two are one step of an image.
    pub max_batch: usize,
    /// Most steps of an image that is requested over HTTP.
    pub most_steps: usize,
    /// Largest width and height in pixels, if the pack allows them, of an image that is requested
    /// over HTTP.
    pub largest_side: usize,
}

impl Generator {
    /// Returns the deadline of a request.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        Duration::from_secs(self.deadline_seconds)
    }

    /// Returns the folder of the pack; `None` if no images are generated.
    #[must_use]
    pub fn pack(&self) -> Option<&Path> {
        given(&self.pack)
    }
}

/// The `[analysis]` section: reports, comparisons and other long analyses.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Analysis {
    /// Concurrency of analyses. 0 chooses one for every four cores.
    pub concurrency: usize,
    /// Most analyses that are running or queued. Further ones get 429.
    pub queue: usize,
    /// Questions to annotators in addition to overall, object, relation and identity.
    pub questions: Vec<String>,
}

/// The `[log]` section: logging to standard error.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Format of log lines.
    pub format: LogFormat,
    /// A `tracing` filter, such as `info,stellar_score=debug`.
    pub filter: String,
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object per line, for machines.
    Json,
}

/// The `[traces]` section: export of traces to a collector.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traces {
    /// Base URL of a collector that accepts OTLP over HTTP. Empty: no traces.
    pub endpoint: String,
    /// Share of traces to export, if the caller has not decided.
    pub sample_ratio: f64,
    /// Name of the service in traces.
    pub service_name: String,
    /// Most finished spans that wait for the collector. Further ones are dropped.
    pub queue: usize,
    /// Longest time that a finished span waits for others before they are sent, in seconds.
    pub delay_seconds: u64,
}

impl Traces {
    /// Returns the URL to which traces are sent; `None` if they are off.
    #[must_use]
    pub fn url(&self) -> Option<String> {
        let base = self.endpoint.trim_end_matches('/');
        (!base.is_empty()).then(|| format!("{base}/v1/traces"))
    }
}
