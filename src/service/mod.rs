//! Steps that requests, commands and background tasks share: before a sample is scored, the linear
//! probes of its dataset; afterwards, the row that is stored; after a deletion, eviction.

mod audit;
mod forget;
mod probes;
mod record;

pub use audit::AuditLog;
pub use forget::forget;
pub use probes::{ProbesError, probes};
pub use record::new_sample;
