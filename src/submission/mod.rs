//! Submissions: the scores of a run as a bundle that anyone can check.
//!
//! ```text
//! facts.rs      what a bundle says about its run and its samples
//! archive.rs    the ZIP file: written deterministically, read within bounds, every hash checked
//! check.rs      differences within a bundle, and with a folder of images or a dataset
//! labels.rs     differences in the texts of a bundle
//! rescore.rs    which samples are scored again, and the differences of their scores
//! ```
//!
//! A *difference* is a sentence that names what does not agree. A bundle with one is refused.

mod archive;
mod check;
mod facts;
mod labels;
mod rescore;

pub use archive::{Bounds, Bundle, BundleError, FORMAT};
pub use check::{WHOLE_RUN, dataset, folder, within};
pub use facts::{BundleFacts, BundleSample, BundleScore, BundleTotals, Declarations, totals};
pub use labels::shown;
pub use rescore::{cases, compare, part};
