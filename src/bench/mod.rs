//! How fast this machine is: each graph by itself, and the whole service.

mod graphs;
mod placement;
mod service;

pub use graphs::{BatchTiming, GraphTiming, GraphsOptions, time_graphs};
pub use placement::{Placement, PlacementError, placement};
pub use service::{GraphLoad, LoadError, LoadOptions, LoadResult, LoadSample, load};
