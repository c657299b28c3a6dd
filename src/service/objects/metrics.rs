//! The metrics of requested objects.

use crate::domain::LookupOutcome;
use crate::metrics::{ByLabel, Counter, ModuleMetrics, Registry};

/// The metrics of requested objects.
#[derive(Debug)]
pub struct ObjectMetrics {
    /// Objects found fresh.
    pub hits: Counter,
    /// Objects found stale, and served.
    pub stale: Counter,
    /// Objects not found.
    pub misses: Counter,
    /// Objects stored by another client while the request waited.
    pub coalesced: Counter,
}

impl ModuleMetrics for ObjectMetrics {
    fn register(registry: &mut Registry) -> ObjectMetrics {
        let outcomes: ByLabel<LookupOutcome, Counter> =
            registry.by_label("objects", "Requested objects", "outcome");
        ObjectMetrics {
            hits: outcomes.with(LookupOutcome::Hit),
            stale: outcomes.with(LookupOutcome::Stale),
            misses: outcomes.with(LookupOutcome::Miss),
            coalesced: outcomes.with(LookupOutcome::Coalesced),
        }
    }
}
