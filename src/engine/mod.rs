//! The engine: resident graphs behind a feature cache.
//!
//! ```text
//! feature(request) ── cache    hit, or join the computation in flight, or compute
//!                  ── prepare  by the caller: pixels or token ids of this input
//!                  ── lane     bounded queue → device turn → batch of equal shapes
//!                  ── backend  ONNX Runtime, or a fake
//! ```
//!
//! Only `session.rs` and `cuda.rs` depend on ONNX Runtime; `onnx.rs` reads constants from ONNX
//! files. The engine knows nothing about metrics.

mod backend;
mod cache;
mod config;
mod cuda;
mod device;
#[expect(clippy::module_inception, reason = "the module is named after its main type")]
mod engine;
mod error;
mod examine;
pub mod fake;
mod feature;
mod gpus;
mod graphs;
mod health;
mod lane;
mod library;
mod onnx;
pub mod pack;
mod residency;
mod session;
mod simulated;
mod status;
mod telemetry;

pub use backend::Backend;
pub use config::{Batching, EngineConfig, Parallelism, Provider, ProviderChoice};
pub use cuda::{ConvSearch, CudaConfig};
pub use engine::Engine;
pub use error::{BackendError, EngineError, StartError};
pub use examine::{Examined, examine};
pub use feature::{Feature, FeatureRequest, Origin, Timing};
pub use gpus::Gpus;
pub use health::{Health, Residency};
pub use onnx::OnnxGraph;
pub use pack::{GraphSpec, Pack, PackError, Precision, TextSpec, TokenizerKind};
pub use residency::{InUse, Moved};
#[doc(hidden)]
pub use session::onnx_environment;
pub use status::LaneStatus;
pub use telemetry::EngineTelemetry;
