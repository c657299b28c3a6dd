//! The metrics of the stores.

use crate::error::Kind;
use crate::metrics::{ByLabel, Counter, ModuleMetrics, Registry};

/// The metrics of the stores.
#[derive(Debug)]
pub struct StorageMetrics {
    /// Slots and records whose checksum, salt or position did not hold.
    pub corrupt_slots: Counter,
    /// Segments that were sealed because a write or a flush failed.
    pub failed_segments: Counter,
    /// Failures of background work, by kind.
    pub background_errors: ByLabel<Kind, Counter>,
    /// Entries removed for the budget.
    pub evictions: Counter,
}

impl ModuleMetrics for StorageMetrics {
    fn register(registry: &mut Registry) -> StorageMetrics {
        StorageMetrics {
            corrupt_slots: registry.counter("disk_corrupt_slots", "Slots that failed verification"),
            failed_segments: registry.counter("disk_failed_segments", "Segments sealed by a failure"),
            background_errors: registry.by_label("background_errors", "Background failures", "kind"),
            evictions: Counter::default(),
        }
    }
}

impl StorageMetrics {
    /// Counts evictions in `evictions`, which the tier above exports with its own.
    #[must_use]
    pub fn with_evictions(self, evictions: Counter) -> StorageMetrics {
        StorageMetrics { evictions, ..self }
    }
}
