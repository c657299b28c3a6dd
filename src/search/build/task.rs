//! What is written to a process that builds.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Bytes that are written to the pipe at a time.
pub(super) const PIECE_BYTES: usize = 256 << 10;
/// The longest head of a task.
pub(super) const HEAD_BYTES_MAX: u32 = 64 << 10;

/// What is to be built, as it is written to the process: its length (4 bytes), itself as JSON, then the rows that it is
/// trained on, and all rows, as little-endian f32.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::search) struct BuildTask {
    pub(in crate::search) factory: String,
    #[serde(with = "crate::search::settings::metric_name")]
    pub(in crate::search) metric: likewise_index::Metric,
    pub(in crate::search) dim: usize,
    pub(in crate::search) rows: usize,
    pub(in crate::search) training_rows: usize,
    pub(in crate::search) ef_construction: usize,
    pub(in crate::search) threads: usize,
    pub(in crate::search) file: PathBuf,
}
