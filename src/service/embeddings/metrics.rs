//! The metrics of requested texts.

use crate::domain::LookupOutcome;
use crate::labels::label_enum;
use crate::metrics::{ByLabel, Counter, ModuleMetrics, Registry};

label_enum! {
    /// Why a vector or a score that a model has made was not stored. The words are those of answers.
    pub enum UnstoredReason {
        /// The request sends `no-store`.
        NoStore = "no_store",
        /// Its namespace was invalidated since it was requested.
        Invalidated = "invalidated",
        /// No tier took it.
        Disk = "disk",
    }
}

/// The metrics of requested texts.
#[derive(Debug)]
pub struct TextMetrics {
    /// Texts found in a tier.
    pub hits: Counter,
    /// Texts embedded for the request.
    pub misses: Counter,
    /// Texts embedded for another request.
    pub coalesced: Counter,
    /// Embedded texts that were not stored.
    pub not_stored: ByLabel<UnstoredReason, Counter>,
}

impl ModuleMetrics for TextMetrics {
    fn register(registry: &mut Registry) -> TextMetrics {
        let outcomes: ByLabel<LookupOutcome, Counter> =
            registry.by_label("texts", "Requested texts", "outcome");
        TextMetrics {
            hits: outcomes.with(LookupOutcome::Hit),
            misses: outcomes.with(LookupOutcome::Miss),
            coalesced: outcomes.with(LookupOutcome::Coalesced),
            not_stored: registry.by_label(
                "texts_not_stored",
                "Texts that were embedded, or documents scored, and not stored",
                "reason",
            ),
        }
    }
}
