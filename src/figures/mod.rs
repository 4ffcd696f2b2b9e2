//! Tables and charts, as pages show them and as files: HTML, CSV, LaTeX and SVG.
//!
//! They know what they draw and not where it is shown, so that pages and files that leave the
//! service have the same numbers in the same form.

pub(crate) mod charts;
pub(crate) mod number;
pub(crate) mod statistics;
pub(crate) mod table;
