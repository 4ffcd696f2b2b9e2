//! Work on a whole database of any schema version: its state, a consistent copy of all its rows,
//! and their return into an empty database of either kind.

mod cell;
mod restoration;
mod snapshot;
mod state;

pub use cell::Cell;
pub use restoration::{Restoration, RestoreError};
pub use snapshot::{Snapshot, TableShape};
pub use state::DatabaseState;
