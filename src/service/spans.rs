//! The spans of use cases. Each use case opens one, within the span of its request, and adds how its lookup ended. Spans name
//! models, namespaces and collections, never texts or keys. They are off unless `LIKEWISE_LOG` asks for `debug`.

use tracing::{Level, Span};

use crate::domain::LookupOutcome;

/// Adds the outcome to the span of the use case, which has a field `outcome`.
pub(super) fn record_outcome(outcome: LookupOutcome) {
    if tracing::level_enabled!(Level::DEBUG) {
        Span::current().record("outcome", outcome.as_str());
    }
}

/// Adds how many of several lookups ended in which way to the span, which has the fields `hits`, `misses` and `coalesced`.
pub(super) fn record_counts(hits: usize, misses: usize, coalesced: usize) {
    if tracing::level_enabled!(Level::DEBUG) {
        Span::current().record("hits", hits).record("misses", misses).record("coalesced", coalesced);
    }
}
