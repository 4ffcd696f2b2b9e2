//! Scores personalised text-to-image generators with the same numbers as the reference
//! implementations.
//!
//! Life of a request, with the module of each step:
//!
//! ```text
//! POST /v1/score ── api       limits, multipart → Sample                     (HTTP ends here)
//!                ── scoring   which features do the metrics need? request each once, concurrently
//!                ── engine    cache by content → single flight → lane queue → batch → session
//!                ── metrics   features → scores: pure functions
//!                ── service   sample + scores → the row
//!                ── store     sample + scores + provenance in one transaction
//!                ◄─ JSON response
//! ```
//!
//! `docs/ARCHITECTURE.md` has the map of all modules, and `docs/GLOSSARY.md` defines the terms.

#![forbid(unsafe_code)]

pub mod analysis;
pub mod api;
pub mod backup;
pub mod bench;
pub mod blobs;
mod blocking;
mod cache;
pub mod card;
pub mod cli;
pub mod client;
mod clock;
pub mod config;
pub mod content;
pub mod dataset;
mod dispatch;
pub mod doctor;
pub mod engine;
mod figures;
pub mod generation;
pub mod installed;
pub mod key;
pub mod label;
pub mod machine;
pub mod memory;
pub mod metrics;
pub mod pack_id;
mod paper;
mod read;
pub mod rewards;
pub mod runs;
pub mod scoring;
pub mod server;
pub mod service;
pub mod spreadsheet;
pub mod store;
pub mod submission;
pub mod supervisor;
mod sync;
pub mod telemetry;
pub mod tensor;
pub mod toolkit;
mod trace;
pub mod upload;
pub mod verify;
mod write;

/// Version of the service, in responses and stored rows.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

pub use stellar_stats as stats;
pub use stellar_text as text;

/// Images: from files to the pixels of a graph, and the faces in them.
pub mod vision {
    pub use stellar_faces as faces;
    pub use stellar_vision::*;
}
