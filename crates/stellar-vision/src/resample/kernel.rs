//! The interface of the kernels.

/// Spare bytes after a buffered row, so that kernels may read and write whole registers at its end.
pub(super) const ROW_SLACK: usize = 64;

/// The horizontal pass: from source rows to rows of the window's width.
pub(super) trait Columns {
    /// Returns the number of bytes from the start of a source row that must be readable. Bytes
    /// beyond the row's pixels may have any value.
    fn reach(&self) -> usize;

    /// Resizes four source rows into the first four rows of `target`, which are `stride` bytes
    /// apart. Up to [`ROW_SLACK`] bytes after each row are overwritten.
    fn rows(&self, sources: [&[u8]; 4], target: &mut [u8], stride: usize);
}

/// The vertical pass: from rows of the window's width to one output row.
pub(super) trait Rows {
    /// Computes output row `index` of the window. `source` begins with the first row of its span.
    /// Rows are `stride` bytes apart, including [`ROW_SLACK`] bytes after the pixels.
    fn row(&self, index: usize, source: &[u8], stride: usize, out: &mut [u8]);
}
