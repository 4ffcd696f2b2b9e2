//! Errors of features and of the engine's start.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use super::pack::PackError;

/// An error from computing a feature. Cheap to clone, since many callers may share one computation.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// The pack has no such graph.
    #[error(
        "the model pack has no graph `{role}`: export a pack that has it, or request other metrics"
    )]
    UnknownGraph {
        /// The requested role.
        role: String,
    },
    /// The graph's queue is full.
    #[error(
        "the queue of graph `{graph}` is full ({waiting} items): retry later, or raise \
            `engine.queue`"
    )]
    Overloaded {
        /// Roles of the lane, joined by `+`.
        graph: Arc<str>,
        /// Items in its queue.
        waiting: usize,
    },
    /// The graph has a hanging batch.
    #[error(
        "graph `{graph}` has been running one batch for {seconds} s: retry later; if the batch \
            does not end, restart the service"
    )]
    Hangs {
        /// Roles of the lane, joined by `+`.
        graph: Arc<str>,
        /// Age of the batch, in seconds.
        seconds: u64,
    },
    /// The graph's session broke and could not be opened anew so far.
    #[error(
        "graph `{graph}` broke and its session is being opened anew: retry later; if it does not \
            recover, the log has the cause"
    )]
    Rebuilding {
        /// Roles of the lane, joined by `+`.
        graph: Arc<str>,
    },
    /// The engine is draining.
    #[error("the engine is shutting down and accepts no new work: use another instance")]
    Stopping,
    /// The engine is offloaded, or on the way.
    #[error("the models are offloaded: retry later, or load them with POST /v1/engine/reload")]
    Offloaded,
    /// Batches did not end, so that the sessions could not be closed.
    #[error(
        "graphs are still running a batch: {graphs}; send the request again, or restart the service \
            if a batch hangs"
    )]
    NotDrained {
        /// Names of the lanes, separated by commas.
        graphs: String,
    },
    /// Sessions could not be opened again.
    #[error("graphs could not be loaded again: {graphs}; the log has the cause, attempts go on")]
    NotReloaded {
        /// Names of the lanes, separated by commas.
        graphs: String,
    },
    /// The tensors do not fit the graph's signature.
    #[error("the input does not fit graph `{graph}`: expected {expected}, found {found}")]
    Input {
        /// Roles of the lane, joined by `+`.
        graph: Arc<str>,
        /// The tensors that the manifest declares.
        expected: String,
        /// The tensors of the item.
        found: String,
    },
    /// The graph failed on this item, including the retry alone.
    #[error("graph `{graph}` failed: {cause}")]
    Failed {
        /// Roles of the lane, joined by `+`.
        graph: Arc<str>,
        /// The backend's error.
        cause: BackendError,
    },
    /// The graph returned a NaN or an infinity, which is never used as a score.
    #[error(
        "graph `{graph}` returned a value that is not finite in output `{output}`: if the pack is \
            fp16, export it in fp32"
    )]
    NotFinite {
        /// Roles of the lane, joined by `+`.
        graph: Arc<str>,
        /// The output with the value.
        output: String,
    },
    /// The caller's preparation of the input failed. The error is the caller's and can be downcast.
    #[error(transparent)]
    Prepare(Arc<dyn Error + Send + Sync>),
    /// What was found in an input could not be stored, where it must be.
    #[error("the faces in the image could not be stored, will retry: {0}")]
    NotStored(Arc<dyn Error + Send + Sync>),
    /// The caller's preparation panicked, which is a bug in the caller.
    #[error(
        "preparing the input of graph `{graph}` panicked: {message}; see the log for the location"
    )]
    Panicked {
        /// Roles of the lane, joined by `+`.
        graph: Arc<str>,
        /// The panic's message.
        message: String,
    },
}

impl EngineError {
    /// Returns the roles of the lane if the graph is at fault.
    #[must_use]
    pub fn graph(&self) -> Option<&str> {
        match self {
            Self::Failed { graph, .. }
            | Self::NotFinite { graph, .. }
            | Self::Hangs { graph, .. }
            | Self::Rebuilding { graph } => Some(graph),
            _ => None,
        }
    }
}

/// An error from running a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The runtime returned an error.
    #[error("{0}")]
    Run(String),
    /// The outputs differ from the manifest.
    #[error(
        "expected {expected}, found {found}: the graph does not match its manifest, export the \
            pack again"
    )]
    Output {
        /// The outputs that the manifest declares.
        expected: String,
        /// The outputs of the run.
        found: String,
    },
    /// The backend panicked. The lane caught the panic and continues.
    #[error("the backend panicked: {0}")]
    Panicked(String),
}

/// An error from starting the engine. Every message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The pack could not be read or verified.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// A setting is out of range.
    #[error("engine.{key} {problem}")]
    Config {
        /// Key in the `[engine]` section.
        key: &'static str,
        /// The problem and the allowed range.
        problem: String,
    },
    /// No ONNX Runtime library was found in any of the searched places.
    #[error(
        "no ONNX Runtime library found (searched {looked}): run `make setup`, or set \
            `engine.library` or ORT_DYLIB_PATH to the file"
    )]
    NoLibrary {
        /// The searched places.
        looked: String,
    },
    /// The library exists but cannot be used.
    #[error(
        "cannot use the ONNX Runtime library {}: {problem}; run `make setup` to install a \
            compatible one",
        path.display()
    )]
    Library {
        /// File of the library.
        path: PathBuf,
        /// The loader's error.
        problem: String,
    },
    /// The configured execution provider is not available or does not work.
    #[error(
        "cannot use the configured execution provider `{provider}`: {problem}; install an ONNX \
            Runtime build with it and its libraries, or set engine.provider = \"cpu\""
    )]
    Provider {
        /// Name of the provider in the configuration.
        provider: &'static str,
        /// The runtime's error.
        problem: String,
    },
    /// A graph failed to load.
    #[error(
        "graph `{graph}` ({}) failed to load: {problem}; export the pack again, or remove the \
            graph from pack.toml",
        file.display()
    )]
    Load {
        /// Role of the graph.
        graph: String,
        /// File of the graph.
        file: PathBuf,
        /// The runtime's error.
        problem: String,
    },
    /// A graph's inputs or outputs differ from the manifest.
    #[error(
        "graph `{graph}` ({}): the manifest declares {expected}, the file has {found}; export the \
            pack again",
        file.display()
    )]
    Signature {
        /// Role of the graph.
        graph: String,
        /// File of the graph.
        file: PathBuf,
        /// The tensors in pack.toml.
        expected: String,
        /// The tensors in the file.
        found: String,
    },
    /// A graph failed its warm-up.
    #[error(
        "graph `{graph}` ({}) failed its warm-up with a batch of {batch}: {problem}; if memory is \
            short, lower engine.max_batch, otherwise export the pack again",
        file.display()
    )]
    Warmup {
        /// Role of the graph.
        graph: String,
        /// File of the graph.
        file: PathBuf,
        /// Number of items in the batch.
        batch: usize,
        /// The problem.
        problem: String,
    },
    /// A thread could not be started.
    #[error("cannot start a thread for graph `{graph}`: {problem}")]
    Thread {
        /// Role of the graph.
        graph: String,
        /// The operating system's error.
        problem: String,
    },
}
