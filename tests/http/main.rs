//! The HTTP service from the outside: real router, store, decoding, tokenizers and batching; the graphs are
//! fakes, but for the tests in `demo`.

mod analysis;
mod demo;
mod failures;
mod forms;
mod harness;
mod identity;
mod images;
mod leaderboard;
mod load;
mod objects;
mod openapi;
mod prompts;
mod relations;
mod reports;
mod routes;
mod runs;
mod scores;
mod sharing;
#[path = "../support/mod.rs"]
mod support;
