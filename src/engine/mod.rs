//! The engine: resident graphs behind one cache, asked for features.
//!
//! ```text
//! feature(role, input) ── cache    kept? under way? else computed once for all who ask
//!                      ── prepare  the caller's: pixels or token ids of this input
//!                      ── lane     bounded queue → a turn on the device → a batch of equal shapes
//!                      ── backend  ONNX Runtime, or a fake
//! ```
//!
//! Nothing outside `session.rs` and `cuda.rs` knows ONNX Runtime (`onnx.rs` reads constants from files of its format); nothing in here knows what a metric is.

mod backend;
mod cache;
mod cards;
mod config;
mod cuda;
mod device;
#[expect(clippy::module_inception, reason = "the type this module is about is called so everywhere")]
mod engine;
mod error;
pub mod fake;
mod health;
mod lane;
mod library;
mod onnx;
pub mod pack;
mod session;
mod telemetry;

pub use backend::Backend;
pub use cards::Cards;
pub use config::{EngineConfig, Parallelism, Provider, ProviderChoice};
pub use cuda::{ConvSearch, CudaConfig};
pub use engine::{Engine, Feature, LaneStatus, Origin, Timing};
pub use error::{BackendError, EngineError, StartError};
pub use health::Health;
pub use onnx::OnnxGraph;
pub use pack::{GraphSpec, Pack, PackError, Precision, TextSpec, TokenizerKind};
#[doc(hidden)]
pub use session::onnx_environment;
pub use telemetry::EngineTelemetry;
