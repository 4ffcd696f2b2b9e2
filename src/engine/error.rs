//! Why a feature could not be had, and why an engine did not start.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use super::pack::PackError;

/// Why one feature could not be computed; cheap to clone, because many callers may share one computation.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// The pack has no such graph.
    #[error("the model pack has no graph `{role}`: export one that has it, or ask for other metrics")]
    UnknownGraph {
        /// The role that was asked for.
        role: String,
    },
    /// The graph's queue is full.
    #[error("graph `{graph}` already has {waiting} items waiting: try again later, or raise `engine.queue`")]
    Overloaded {
        /// The roles of the lane.
        graph: Arc<str>,
        /// Items in its queue.
        waiting: usize,
    },
    /// The graph has been running one batch for too long.
    #[error(
        "graph `{graph}` has been running one batch for {seconds} s: try again later; if it does not end, restart the service"
    )]
    Hangs {
        /// The roles of the lane.
        graph: Arc<str>,
        /// For how long.
        seconds: u64,
    },
    /// The engine is draining before it stops.
    #[error("the engine is stopping and takes no new work: ask another instance")]
    Stopping,
    /// The tensors do not fit the graph's signature.
    #[error("graph `{graph}` cannot take this input: expected {expected}, found {found}")]
    Input {
        /// The roles of the lane.
        graph: Arc<str>,
        /// What the manifest declares.
        expected: String,
        /// What was given.
        found: String,
    },
    /// The graph failed on this item, also when it was run alone.
    #[error("graph `{graph}` failed: {cause}")]
    Failed {
        /// The roles of the lane.
        graph: Arc<str>,
        /// What the backend said.
        cause: BackendError,
    },
    /// The graph gave a NaN or an infinity: never a score.
    #[error(
        "graph `{graph}` gave a value that is not finite in output `{output}`: if the pack is fp16, export it in fp32"
    )]
    NotFinite {
        /// The roles of the lane.
        graph: Arc<str>,
        /// The output that holds the value.
        output: String,
    },
    /// The caller's own preparation of the input failed; the error is the caller's, to be downcast.
    #[error(transparent)]
    Prepare(Arc<dyn Error + Send + Sync>),
    /// The caller's preparation panicked, which is a bug of the caller.
    #[error("preparing the input of graph `{graph}` panicked: {message}; the log has the place")]
    Panicked {
        /// The roles of the lane.
        graph: Arc<str>,
        /// The panic's message.
        message: String,
    },
}

impl EngineError {
    /// The roles of the lane that could not do its work, where one is to blame.
    #[must_use]
    pub fn graph(&self) -> Option<&str> {
        match self {
            Self::Failed { graph, .. } | Self::NotFinite { graph, .. } | Self::Hangs { graph, .. } => {
                Some(graph)
            }
            _ => None,
        }
    }
}

/// Why a backend could not run a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The runtime refused or failed.
    #[error("{0}")]
    Run(String),
    /// The outputs are not what the manifest declares.
    #[error(
        "expected {expected}, found {found}: the graph does not keep its manifest, export the pack again"
    )]
    Output {
        /// What the manifest declares.
        expected: String,
        /// What came out.
        found: String,
    },
    /// The backend panicked; the lane caught it and goes on.
    #[error("the backend panicked: {0}")]
    Panicked(String),
}

/// Why an engine did not start; every text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The pack could not be read or verified.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// A setting is out of its range.
    #[error("engine.{key} {problem}")]
    Config {
        /// The key in the `[engine]` section.
        key: &'static str,
        /// What is wrong and what is allowed.
        problem: String,
    },
    /// No ONNX Runtime library was found where it is looked for.
    #[error(
        "no ONNX Runtime library found (looked at {looked}): run `make setup`, or name the file with `engine.library` or ORT_DYLIB_PATH"
    )]
    NoLibrary {
        /// The places that were searched.
        looked: String,
    },
    /// The library exists but cannot be used.
    #[error(
        "cannot use the ONNX Runtime library {}: {problem}; run `make setup` for one that fits",
        path.display()
    )]
    Library {
        /// The library's file.
        path: PathBuf,
        /// What the loader said.
        problem: String,
    },
    /// The asked-for execution provider is not there or does not work.
    #[error(
        "execution provider `{provider}` was asked for and cannot be used: {problem}; install the ONNX Runtime build that has it and its libraries, or set engine.provider = \"cpu\""
    )]
    Provider {
        /// The provider, as the configuration names it.
        provider: &'static str,
        /// What the runtime said.
        problem: String,
    },
    /// A graph does not load.
    #[error(
        "graph `{graph}` ({}) does not load: {problem}; export the pack again, or take its entry out of pack.toml",
        file.display()
    )]
    Load {
        /// The graph's role.
        graph: String,
        /// Its file.
        file: PathBuf,
        /// What the runtime said.
        problem: String,
    },
    /// A graph's inputs or outputs are not those of the manifest.
    #[error(
        "graph `{graph}` ({}): the manifest declares {expected}, the file has {found}; export the pack again",
        file.display()
    )]
    Signature {
        /// The graph's role.
        graph: String,
        /// Its file.
        file: PathBuf,
        /// What pack.toml says.
        expected: String,
        /// What the graph says.
        found: String,
    },
    /// A graph fails on a batch of zeros.
    #[error(
        "graph `{graph}` ({}) fails its warm-up with a batch of {batch}: {problem}; lower engine.max_batch if memory is short, else export the pack again",
        file.display()
    )]
    Warmup {
        /// The graph's role.
        graph: String,
        /// Its file.
        file: PathBuf,
        /// Items in the batch.
        batch: usize,
        /// What went wrong.
        problem: String,
    },
    /// A thread could not be started.
    #[error("cannot start a thread for graph `{graph}`: {problem}")]
    Thread {
        /// The graph's role.
        graph: String,
        /// What the system said.
        problem: String,
    },
}
