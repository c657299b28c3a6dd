//! The metrics of collections.

use super::build::FailureCause;
use crate::metrics::{ByLabel, Counter, ModuleMetrics, Registry};

/// The metrics of collections.
#[derive(Debug)]
pub struct SearchMetrics {
    /// Rows whose checksum did not hold.
    pub(super) corrupt_rows: Counter,
    /// Steps of compaction that failed.
    pub(super) compaction_errors: Counter,
    /// Indexes built.
    pub(super) index_builds: Counter,
    /// Indexes that could not be built, or opened from their snapshot.
    pub(super) index_errors: Counter,
    /// Indexes that could not be built, by cause.
    pub(super) index_failures: ByLabel<FailureCause, Counter>,
}

impl ModuleMetrics for SearchMetrics {
    fn register(registry: &mut Registry) -> SearchMetrics {
        SearchMetrics {
            corrupt_rows: registry.counter("collection_corrupt_rows", "Rows that failed verification"),
            compaction_errors: registry
                .counter("collection_compaction_errors", "Steps of compaction that failed"),
            index_builds: registry.counter("collection_index_builds", "Indexes built"),
            index_errors: registry.counter("collection_index_errors", "Indexes not built, or not opened"),
            index_failures: registry.by_label(
                "collection_index_failures",
                "Indexes not built, by cause",
                "cause",
            ),
        }
    }
}
