//! Lookups by name and outcome, for statistics: of a bounded number of names, and of all others together.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::domain::{LookupOutcome, NamespaceId, TenantId};

/// Names that one table counts at most.
const SLOTS: usize = 256;
/// Slots that a name is looked for in: more names of that many neighbours are counted as others.
const PROBES_MAX: usize = 16;

/// Lookups by outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutcomeCounts {
    /// Fresh values were found.
    pub hits: u64,
    /// Stale values were found and served.
    pub stale: u64,
    /// No value was found.
    pub misses: u64,
    /// The request joined work for another one.
    pub coalesced: u64,
    /// The cache was bypassed.
    pub bypassed: u64,
}

/// Counts lookups of one name.
#[derive(Debug, Default)]
pub struct OutcomeCounters([AtomicU64; 5]);

impl OutcomeCounters {
    /// Counts lookups. No lookup costs no write to memory that threads share.
    pub fn add(&self, outcome: LookupOutcome, count: u64) {
        if count == 0 {
            return;
        }
        self.0[outcome as usize].fetch_add(count, Ordering::Relaxed);
    }

    fn read(&self) -> OutcomeCounts {
        let count = |outcome| self.0[outcome as usize].load(Ordering::Relaxed);
        OutcomeCounts {
            hits: count(LookupOutcome::Hit),
            stale: count(LookupOutcome::Stale),
            misses: count(LookupOutcome::Miss),
            coalesced: count(LookupOutcome::Coalesced),
            bypassed: count(LookupOutcome::Bypass),
        }
    }
}

/// What a table counts by: a name, and its hash. Names of one hash are counted as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CounterId {
    hash: u64,
    is_of_other_tenant: bool,
}

impl CounterId {
    /// Of a namespace of a tenant.
    pub fn of_namespace(id: NamespaceId) -> CounterId {
        CounterId { hash: id.invalidation_id().0, is_of_other_tenant: id.is_of_other_tenant() }
    }

    /// Of a model that a tenant names.
    pub fn of_model(tenant: &TenantId, name: &str) -> CounterId {
        let mut hasher = DefaultHasher::new();
        (tenant.as_str(), name).hash(&mut hasher);
        CounterId { hash: hasher.finish(), is_of_other_tenant: false }
    }
}

#[derive(Debug)]
struct CounterSlot {
    id: CounterId,
    name: Arc<str>,
    counters: OutcomeCounters,
}

/// Lookups by name. Counting takes no lock, and allocates only for a name that has no slot yet.
#[derive(Debug)]
pub struct LookupCounters {
    slots: Box<[OnceLock<CounterSlot>]>,
    others: OutcomeCounters,
}

impl Default for LookupCounters {
    fn default() -> LookupCounters {
        LookupCounters {
            slots: (0..SLOTS).map(|_| OnceLock::new()).collect(),
            others: OutcomeCounters::default(),
        }
    }
}

impl LookupCounters {
    /// The counters of a name.
    pub fn of(&self, id: CounterId, name: &str) -> &OutcomeCounters {
        let first = (id.hash % SLOTS as u64) as usize;
        for place in first..first + PROBES_MAX {
            let slot = &self.slots[place % SLOTS];
            let slot = slot.get_or_init(|| CounterSlot {
                id,
                name: name.into(),
                counters: OutcomeCounters::default(),
            });
            if slot.id == id {
                return &slot.counters;
            }
        }
        &self.others
    }

    /// The counts of every name that has a slot, in no order.
    pub fn named(&self) -> impl Iterator<Item = (CounterId, &Arc<str>, OutcomeCounts)> {
        self.slots.iter().filter_map(OnceLock::get).map(|slot| (slot.id, &slot.name, slot.counters.read()))
    }

    /// The counts of all other names.
    pub fn others(&self) -> OutcomeCounts {
        self.others.read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lookup_is_counted_once_and_the_number_of_names_is_bounded() {
        let (counters, tenant) = (LookupCounters::default(), TenantId::default());
        for n in 0..3 * SLOTS {
            let name = format!("model-{n}");
            counters.of(CounterId::of_model(&tenant, &name), &name).add(LookupOutcome::Hit, 2);
            counters.of(CounterId::of_model(&tenant, &name), &name).add(LookupOutcome::Miss, 1);
        }
        let named: Vec<_> = counters.named().collect();
        assert!((SLOTS / 2..=SLOTS).contains(&named.len()), "{}", named.len());
        assert!(named.iter().all(|(_, _, counts)| (counts.hits, counts.misses) == (2, 1)));
        let others = counters.others();
        assert_eq!(named.len() as u64 + others.misses, 3 * SLOTS as u64);
        assert_eq!(others.hits, 2 * others.misses);
    }

    #[test]
    fn a_name_of_two_tenants_is_counted_apart() {
        let counters = LookupCounters::default();
        for tenant in [TenantId::default(), TenantId::named("acme").unwrap()] {
            let namespace = CounterId::of_namespace(NamespaceId::of(&tenant, "shop"));
            for id in [namespace, CounterId::of_model(&tenant, "shop")] {
                counters.of(id, "shop").add(LookupOutcome::Stale, 1);
            }
        }
        assert_eq!(counters.named().map(|(.., counts)| counts.stale).collect::<Vec<_>>(), [1, 1, 1, 1]);
    }
}
