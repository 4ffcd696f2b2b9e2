//! Steps that requests, commands and background tasks share. Before a sample is scored: the linear
//! probes of its dataset. Afterwards: the row to store, with what is kept beside it. After a
//! deletion: eviction. The audit log is here too.

mod audit;
mod evidence;
mod forget;
mod keeping;
mod probes;
mod record;

pub use audit::AuditLog;
pub use evidence::{Evidence, Match};
pub use forget::{forget, forget_all};
pub use keeping::Keeping;
pub use probes::{ProbesError, probes};
pub use record::new_sample;
