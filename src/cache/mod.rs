//! The tiers together: a value is looked for in memory first, then in the tiers below, and found once.
//!
//! What lives here: the memory tier, the disk tier, the one judge of freshness that stands above all tiers, and
//! single-flight. What must never: a model, HTTP, or a second opinion on whether an entry may be served.
//! The one idea: tiers are dumb stores of [`Entry`]s by [`Key`]; every entry that leaves this room has passed
//! [`Freshness::judge`], whichever tier held it.

mod disk;
mod freshness;
mod memory;
mod single_flight;
mod tier;

use std::sync::Arc;

pub use disk::DiskTier;
pub use freshness::{Freshness, Lifetime, Verdict};
pub use memory::{MemoryOptions, MemoryTier};
pub use single_flight::{Flight, Landing, SingleFlight};
pub use tier::{Tier, TierName, TierStats};

use crate::domain::{Entry, Key};

/// An entry with the tier that held it.
#[derive(Debug, Clone)]
pub struct Found {
    /// The entry.
    pub entry: Arc<Entry>,
    /// Where it was found.
    pub tier: TierName,
}

/// All tiers behind one door. Shared by `Arc`.
pub struct Cache {
    memory: Arc<MemoryTier>,
    below: Vec<Arc<dyn Tier>>,
    freshness: Freshness,
}

impl Cache {
    /// A cache of `memory` above the tiers `below`, which are asked in order.
    pub fn new(memory: Arc<MemoryTier>, below: Vec<Arc<dyn Tier>>, freshness: Freshness) -> Cache {
        Cache { memory, below, freshness }
    }

    /// The judge of this cache, which also makes the lifetimes of new entries.
    pub fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    /// Looks in memory only. Never blocks; costs one hash probe and one reference count.
    pub fn peek(&self, key: &Key) -> Option<Found> {
        let entry = self.memory.get(key)?;
        match self.freshness.judge(&entry.meta) {
            Verdict::Fresh => Some(Found { entry, tier: TierName::Memory }),
            Verdict::Expired => {
                self.memory.remove(key);
                None
            }
        }
    }

    /// Looks in the tiers below memory, in order, and promotes what it finds. The results stand in the order of
    /// `keys`. A tier that fails is counted by itself and answers with misses.
    pub async fn fetch(&self, keys: &[Key]) -> Vec<Option<Found>> {
        let mut found: Vec<Option<Found>> = vec![None; keys.len()];
        for tier in &self.below {
            let open: Vec<usize> = (0..keys.len()).filter(|&i| found[i].is_none()).collect();
            if open.is_empty() {
                break;
            }
            let wanted: Vec<Key> = open.iter().map(|&i| keys[i]).collect();
            let entries = tier.get_many(wanted).await;
            for (&i, entry) in open.iter().zip(entries) {
                let Some(entry) = entry else { continue };
                if self.freshness.judge(&entry.meta) == Verdict::Fresh {
                    self.memory.put(keys[i], Arc::clone(&entry));
                    found[i] = Some(Found { entry, tier: tier.name() });
                }
            }
        }
        found
    }

    /// Stores entries in every tier and returns when each has acknowledged or given up. A tier that cannot store
    /// is counted by itself; the entries are then served from the others.
    pub async fn put_many(&self, entries: Vec<(Key, Arc<Entry>)>) {
        for (key, entry) in &entries {
            self.memory.put(*key, Arc::clone(entry));
        }
        for tier in &self.below {
            tier.put_many(entries.clone()).await;
        }
    }

    /// Numbers of every tier, memory first.
    pub fn stats(&self) -> Vec<(TierName, TierStats)> {
        let memory = (TierName::Memory, self.memory.stats());
        std::iter::once(memory).chain(self.below.iter().map(|tier| (tier.name(), tier.stats()))).collect()
    }

    /// Makes everything that was stored survive a loss of power.
    pub async fn flush(&self) {
        for tier in &self.below {
            tier.flush().await;
        }
    }
}
