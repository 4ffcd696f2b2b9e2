//! Summaries of runs.
//!
//! - `running.rs`: running summaries, updated with each score; `moments.rs` explains their columns
//! - `slices.rs`: slice summaries, replaced as a whole once they are stale (`staleness.rs`);
//!   `slice.rs` has their types
//! - `kinds.rs`: one metric over all labels of a kind of slice
//! - `leaderboard.rs`: standings of runs, read from both; `standings.rs` has their types and cache

pub(crate) mod kinds;
pub(crate) mod leaderboard;
pub(crate) mod moments;
pub(crate) mod running;
pub(crate) mod slice;
pub(crate) mod slices;
pub(crate) mod staleness;
pub(crate) mod standings;
