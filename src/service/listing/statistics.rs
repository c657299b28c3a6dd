//! Lookups and entries by namespace, from counters: no tier is visited.

use std::collections::HashMap;
use std::sync::Arc;

use super::Listing;
use crate::cache::{CounterId, OutcomeCounts};
use crate::domain::{NamespaceId, Principal};

/// The lookups and the entries of a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamespaceStatistics {
    /// Its name. `None` for all others together.
    pub name: Option<Arc<str>>,
    /// Its lookups since the start.
    pub lookups: OutcomeCounts,
    /// Its entries on disk, ended and invalidated ones included.
    pub entries: u64,
    /// What they take of the budget.
    pub bytes: u64,
}

impl Listing {
    /// The lookups and entries in each namespace of the tenant, sorted by name, then those of all others together. The number of
    /// names is bounded: others are those that have found no place, and those without a lookup since the start. The lookups of
    /// others are those of all tenants.
    pub fn statistics(&self, principal: &Principal) -> Vec<NamespaceStatistics> {
        let tenant = NamespaceId::tenant_id_bits(&principal.tenant);
        let own = self.tiers.namespaces_below().into_iter().filter(|count| count.id.tenant() == tenant);
        let mut stored: HashMap<NamespaceId, (u64, u64)> =
            own.map(|count| (count.id, (count.entries, count.bytes))).collect();
        let lookups = self.namespaces.lookups();
        let mut named = Vec::new();
        for (id, name, lookups) in lookups.named() {
            let namespace = NamespaceId::of(&principal.tenant, name);
            if CounterId::of_namespace(namespace) == id {
                let (entries, bytes) = stored.remove(&namespace).unwrap_or_default();
                named.push(NamespaceStatistics { name: Some(Arc::clone(name)), lookups, entries, bytes });
            }
        }
        named.sort_by(|a, b| a.name.cmp(&b.name));
        let (entries, bytes) = stored.values().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
        named.push(NamespaceStatistics { name: None, lookups: lookups.others(), entries, bytes });
        named
    }
}
