//! From scores of samples to a run's table: the penalty for metric exploitation, means and their intervals.
//!
//! Pure functions of numbers. A picture that merely repeats the reference photo scores high in identity, so a sample
//! whose picture follows the prompt hardly better than its photo does is *penalised*: it passes only if
//! `clip_t > clip_n + 2·std(clip_n)`, the deviation taken over the run (ddof 1).

mod render;
mod report;

pub use render::{Caption, csv, latex, markdown};
pub use report::{AttributeOutcomes, Policy, Report, ReportError, ReportRow, RunScores, report};
