//! The memory tier: a byte budget that holds at every moment.

mod budget;
mod entries;
mod lru;
mod machine;
mod s3fifo;
mod use_counts;
mod weight;

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use serde::{Deserialize, Serialize};

pub use budget::Budget;
pub use machine::Machine;

use self::budget::MIB;
use self::entries::Entries;
use self::lru::Lru;
use self::s3fifo::S3Fifo;
use self::use_counts::UseCounts;
use super::hot_keys::{HotKey, HottestKeys};
use super::metrics::CacheMetrics;
use super::tier::TierStats;
use crate::domain::{Codec, Entry, EntryMeta, Key, NamespaceId, TierName};
use crate::error::{Error, Kind, Result};
use crate::metrics::Counter;

/// Which entries go when the budget asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Eviction {
    /// Those that were asked for once and not again: S3-FIFO-like, which scans do not disturb.
    #[default]
    S3Fifo,
    /// Those that were asked for the longest time ago, strictly within each shard.
    Lru,
}

/// Options of the memory tier.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MemoryOptions {
    /// How much memory entries may take, bookkeeping included.
    pub budget: Budget,
    /// Which entries go first.
    pub eviction: Eviction,
}

/// An entry that would fill more than this share of a shard is not admitted: it would push out many for one.
const SHARD_SHARE: u64 = 8;

/// Entries in memory. A get takes one lock of one shard.
pub struct MemoryTier {
    entries: Box<dyn Entries>,
    budget: Budget,
    hits: Counter,
    misses: Counter,
    /// Once they are counted.
    uses: OnceLock<UseCounts>,
}

impl MemoryTier {
    /// An empty tier.
    ///
    /// # Errors
    /// `Config` if the budget is too small to hold anything.
    pub fn new(options: &MemoryOptions, metrics: &CacheMetrics) -> Result<MemoryTier> {
        let bytes_max = options.budget.bytes(&Machine::read());
        if bytes_max < MIB {
            return Err(
                Error::new(Kind::Config, "cache.memory.budget must be at least 1 MiB").with("got", bytes_max)
            );
        }
        let metrics = metrics.tier(TierName::Memory);
        let shards = shards_for(bytes_max);
        let entries: Box<dyn Entries> = match options.eviction {
            Eviction::S3Fifo => Box::new(S3Fifo::new(bytes_max, shards, metrics.evictions)?),
            Eviction::Lru => Box::new(Lru::new(bytes_max, shards, metrics.evictions)),
        };
        let (budget, uses) = (options.budget.clone(), OnceLock::new());
        Ok(MemoryTier { entries, budget, hits: metrics.hits, misses: metrics.misses, uses })
    }

    /// The namespace of the entry of `key`. It is not counted as a lookup.
    pub fn namespace_of(&self, key: &Key) -> Option<NamespaceId> {
        self.entries.get(key).map(|entry| entry.meta.namespace)
    }

    /// The entry of `key`, whatever its age: the judge stands above.
    pub fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        let entry = self.entries.get(key);
        match &entry {
            Some(_) => {
                self.hits.inc();
                if let Some(uses) = self.uses.get() {
                    uses.note(key);
                }
            }
            None => _ = self.misses.inc(),
        }
        entry
    }

    /// Counts from now on how often each entry is used, for [`MemoryTier::hottest`].
    pub fn count_uses(&self) {
        self.uses.get_or_init(|| UseCounts::new(self.entries.bytes_max(), Instant::now()));
    }

    /// The keys of the chosen entries that were used most, at most `keys_max`, the most used first. Of equal ones the order is that of
    /// their keys. Entries of fewer uses than `uses_min` are left out.
    ///
    /// Cost: visits all entries, about 50 ns each, and holds a lock for a few of them at a time; memory of 86 bytes times `keys_max`.
    pub fn hottest(
        &self,
        keys_max: usize,
        uses_min: u8,
        choice: &mut dyn FnMut(&HotKey) -> bool,
    ) -> Vec<HotKey> {
        let uses = self.uses.get();
        let mut hottest = HottestKeys::new(keys_max);
        self.entries.visit_recent(keys_max, &mut |key, meta| {
            let hot = HotKey { key: *key, namespace: meta.namespace, is_embedding: meta.codec == Codec::F32 };
            let uses = uses.map_or(0, |uses| uses.of(key));
            if uses >= uses_min && choice(&hot) {
                hottest.add(hot, uses);
            }
        });
        if let Some(uses) = uses {
            uses.halve(Instant::now());
        }
        hottest.into_ranked()
    }

    /// Stores an entry, pushing out others if the budget asks for it. An entry too big for the budget is refused,
    /// and what was stored under its key is gone.
    pub fn put(&self, key: Key, entry: Arc<Entry>) {
        if weight::of(&entry) <= self.entries.shard_bytes_max() / SHARD_SHARE {
            self.entries.put(key, entry);
        } else {
            self.entries.remove(&key);
        }
    }

    /// Forgets an entry.
    pub fn remove(&self, key: &Key) {
        self.entries.remove(key);
    }

    /// Forgets `entry` unless another one has taken its place.
    pub fn remove_same(&self, key: &Key, entry: &Arc<Entry>) {
        self.entries.remove_same(key, entry);
    }

    /// How many entries are chosen. Locks shard by shard.
    pub fn count(&self, choice: &dyn Fn(&EntryMeta) -> bool) -> u64 {
        let mut count = 0;
        self.entries.visit(&mut |meta| count += u64::from(choice(meta)));
        count
    }

    /// Forgets the chosen entries. Locks shard by shard.
    pub fn remove_where(&self, choice: &dyn Fn(&EntryMeta) -> bool) {
        self.entries.remove_where(choice);
    }

    /// Whether the budget is to be moved with the pressure on the machine's memory.
    pub fn follows_pressure(&self) -> bool {
        self.budget == Budget::Auto
    }

    /// Moves the budget one step with the pressure on the machine's memory. To be called again and again.
    pub fn follow_pressure(&self, machine: &Machine) {
        let before = self.entries.bytes_max();
        let after = budget::follow(before, machine);
        if after != before {
            tracing::debug!(
                before,
                after,
                available = machine.available,
                "moved the budget of the memory tier"
            );
            self.entries.set_budget(after);
        }
    }

    /// Numbers of this moment.
    pub fn stats(&self) -> TierStats {
        TierStats {
            entries: self.entries.len(),
            bytes: self.entries.bytes(),
            bytes_max: self.entries.bytes_max(),
            is_on: true,
        }
    }
}

/// As many shards as the cores can use, but none smaller than 16 MiB, so that large entries still fit in one.
fn shards_for(bytes_max: u64) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let by_size = usize::try_from(bytes_max / (16 * MIB)).unwrap_or(usize::MAX);
    (cores * 8).min(by_size).max(1)
}

#[cfg(test)]
mod tests;
