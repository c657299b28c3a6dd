//! The metrics of requested texts.

use crate::domain::LookupOutcome;
use crate::metrics::{ByLabel, Counter, ModuleMetrics, Registry};

/// The metrics of requested texts.
#[derive(Debug)]
pub struct TextMetrics {
    /// Texts found in a tier.
    pub hits: Counter,
    /// Texts embedded for the request.
    pub misses: Counter,
    /// Texts embedded for another request.
    pub coalesced: Counter,
}

impl ModuleMetrics for TextMetrics {
    fn register(registry: &mut Registry) -> TextMetrics {
        let outcomes: ByLabel<LookupOutcome, Counter> =
            registry.by_label("texts", "Requested texts", "outcome");
        TextMetrics {
            hits: outcomes.with(LookupOutcome::Hit),
            misses: outcomes.with(LookupOutcome::Miss),
            coalesced: outcomes.with(LookupOutcome::Coalesced),
        }
    }
}
