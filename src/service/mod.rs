//! Steps of scoring that requests, commands and background tasks share: before a sample is scored,
//! the linear probes of its dataset; afterwards, the row that is stored.

mod probes;
mod record;

pub use probes::{ProbesError, probes};
pub use record::new_sample;
