//! Rows that are looked up by their number.

use std::sync::Arc;

/// A table of f32, `rows x width`. Clones share it.
#[derive(Clone)]
pub(in crate::embed) struct FloatTable {
    values: Arc<Vec<f32>>,
    width: usize,
}

impl FloatTable {
    /// A table of the rows that lie one behind the other in `values`.
    pub(in crate::embed) fn new(values: Vec<f32>, width: usize) -> FloatTable {
        FloatTable { values: Arc::new(values), width }
    }

    /// Number of rows.
    pub(in crate::embed) fn rows(&self) -> usize {
        self.values.len() / self.width
    }

    /// Numbers in a row.
    pub(in crate::embed) fn width(&self) -> usize {
        self.width
    }

    /// A row.
    ///
    /// # Panics
    /// If there is no such row.
    pub(in crate::embed) fn row(&self, number: usize) -> &[f32] {
        &self.values[number * self.width..][..self.width]
    }

    /// All rows, one behind the other.
    pub(in crate::embed) fn values(&self) -> &[f32] {
        &self.values
    }
}
