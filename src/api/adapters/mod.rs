//! Routes for the reward clients of trainers, over the same scoring as `POST /v1/rewards`.
//!
//! A route exists only if `[[rewards.adapter]]` configures it. Requests queue as rewards do. An
//! error has the form that the client understands (`problems.rs`).

mod batch;
pub(super) mod cosmos;
pub(super) mod flow_factory;
mod jobs;
mod npy;
pub(super) mod pickle;
pub(super) mod problems;
mod registry;
pub(super) mod unirl;

pub(crate) use registry::Adapters;
