//! The metrics of queries.

use crate::domain::LookupOutcome;
use crate::metrics::{ByLabel, Counter, Histogram, ModuleMetrics, Registry};

/// The metrics of queries.
#[derive(Debug)]
pub struct QueryMetrics {
    /// Queries whose results were cached.
    pub hits: Counter,
    /// Queries searched for the request.
    pub misses: Counter,
    /// Queries searched for another request.
    pub coalesced: Counter,
    /// The share of the exact results that the index found, of the sampled searches.
    pub(super) recall: Histogram,
}

impl ModuleMetrics for QueryMetrics {
    fn register(registry: &mut Registry) -> QueryMetrics {
        let outcomes: ByLabel<LookupOutcome, Counter> = registry.by_label("searches", "Queries", "outcome");
        QueryMetrics {
            hits: outcomes.with(LookupOutcome::Hit),
            misses: outcomes.with(LookupOutcome::Miss),
            coalesced: outcomes.with(LookupOutcome::Coalesced),
            recall: registry.histogram(
                "recall_at_k",
                "Share of the exact results that the index found",
                [0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999],
            ),
        }
    }
}
