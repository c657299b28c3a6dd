//! The metrics of the tiers.

use crate::domain::TierName;
use crate::metrics::{ByLabel, Counter, Gauge, ModuleMetrics, Registry};

/// The metrics of all tiers.
#[derive(Debug)]
pub struct CacheMetrics {
    hits: ByLabel<TierName, Counter>,
    misses: ByLabel<TierName, Counter>,
    evictions: ByLabel<TierName, Counter>,
    errors: ByLabel<TierName, Counter>,
    entries: ByLabel<TierName, Gauge>,
    bytes: ByLabel<TierName, Gauge>,
    is_enabled: ByLabel<TierName, Gauge>,
}

/// The metrics of one tier.
#[derive(Debug, Clone)]
pub struct TierMetrics {
    /// Lookups that the tier answered.
    pub hits: Counter,
    /// Lookups that the tier could not answer.
    pub misses: Counter,
    /// Entries removed for the budget.
    pub evictions: Counter,
    /// Failures that were answered as misses.
    pub errors: Counter,
    /// Entries in the tier.
    pub entries: Gauge,
    /// Bytes held against the budget.
    pub bytes: Gauge,
    /// 1 while the tier is enabled, 0 once a failure has disabled it.
    pub is_enabled: Gauge,
}

impl ModuleMetrics for CacheMetrics {
    fn register(registry: &mut Registry) -> CacheMetrics {
        CacheMetrics {
            hits: registry.by_label("tier_hits", "Lookups that a tier answered", "tier"),
            misses: registry.by_label("tier_misses", "Lookups that a tier could not answer", "tier"),
            evictions: registry.by_label("tier_evictions", "Entries removed for the budget", "tier"),
            errors: registry.by_label("tier_errors", "Failures answered as misses", "tier"),
            entries: registry.by_label("tier_entries", "Entries in a tier", "tier"),
            bytes: registry.by_label("tier_size_bytes", "Bytes held against the budget", "tier"),
            is_enabled: registry.by_label("tier_is_enabled", "1 while a tier is enabled", "tier"),
        }
    }
}

impl CacheMetrics {
    /// The metrics of one tier.
    pub fn tier(&self, name: TierName) -> TierMetrics {
        TierMetrics {
            hits: self.hits.with(name),
            misses: self.misses.with(name),
            evictions: self.evictions.with(name),
            errors: self.errors.with(name),
            entries: self.entries.with(name),
            bytes: self.bytes.with(name),
            is_enabled: self.is_enabled.with(name),
        }
    }
}
