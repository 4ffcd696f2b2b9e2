//! Benchmarks of this machine: single graphs, the whole service, and the efficiency of the service.

mod compare;
mod efficiency;
mod graphs;
mod local;
mod placement;
mod service;

pub use compare::{Change, compare};
pub use efficiency::{EfficiencyResult, EfficiencyRound, efficiency};
pub use graphs::{BatchTiming, GraphTiming, GraphsOptions, time_graphs};
pub(crate) use local::Folder;
pub use local::LocalService;
pub use placement::{Placement, PlacementError, placement};
pub use service::{GraphLoad, LoadError, LoadOptions, LoadResult, LoadSample, Stages, load};
