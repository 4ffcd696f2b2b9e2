//! Comparisons with other programs: the reference toolkit and its packages, and statistics
//! packages.

mod batching;
mod benchmarks;
mod claims;
mod faces;
mod golden;
mod relations;
mod stats;
mod studies;
