//! The HTTP service from the outside: real router, store, decoding, tokenizers and batching. The
//! graphs are fakes, unless a test uses the demo pack.

mod adapters;
mod analysis;
mod benchmarks;
mod claims;
mod demo;
mod events;
mod failures;
mod forms;
mod generate;
mod harness;
mod identity;
mod images;
mod keys;
mod leaderboard;
mod load;
mod methods;
mod objects;
mod offload;
mod openapi;
mod pages;
mod prompts;
mod relations;
mod reports;
mod rewards;
mod routes;
mod run_lists;
mod runs;
mod scores;
mod sharing;
mod snapshot;
mod stored;
mod studies;
mod submissions;
#[path = "../support/mod.rs"]
mod support;
