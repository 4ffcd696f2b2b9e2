//! Steps that requests, commands and background tasks share: before a sample is scored, the linear
//! probes of its dataset; afterwards, the row that is stored with
//! what is kept beside it; after a deletion, eviction.

mod audit;
mod evidence;
mod forget;
mod keeping;
mod probes;
mod record;

pub use audit::AuditLog;
pub use evidence::{Evidence, Match};
pub use forget::forget;
pub use keeping::Keeping;
pub use probes::{ProbesError, probes};
pub use record::new_sample;
