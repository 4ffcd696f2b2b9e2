//! Comparisons of a pack's scores on this machine with a reference.
//!
//! ```text
//! parity      the pack's golden samples, against the scores of the original programs
//! drift       the user's images, against another pack
//! toolkit     the toolkit's images, against the CSV files written by the toolkit
//! relations   the scene graph, on images with known relations
//! generator   a generator pack's golden images, against those of diffusers
//! ```

mod drift;
mod generator;
mod images;
mod npy;
mod parity;
pub mod relations;
mod scored;
mod toolkit;

pub use drift::{DRIFT_FILE, DriftCertificate, MeasuredPack, MetricDrift, NullDifference, Worst};
pub use generator::{GeneratorCertificate, GeneratorGoldens, certify_generator};
pub use images::{Case, LIST, Samples, ToolkitFolder, find_toolkit, read_run, read_samples};
pub use parity::{Certificate, Golden, Goldens, MetricParity, certify};
pub use scored::{AllScored, Scored, score_all};
pub use toolkit::{
    LeftOutRow, RowDifference, ScoreFile, Tolerances, ToolkitCertificate, ToolkitParity, compare,
    read_score_files,
};
