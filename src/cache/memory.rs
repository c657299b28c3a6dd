//! The memory tier: a byte budget that holds at every moment.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter, sync};
use serde::{Deserialize, Serialize};

use super::tier::{TierName, TierStats};
use crate::domain::{ByPrefix, Entry, EntryMeta, Key, TagVersion};
use crate::error::{Error, Kind, Result};
use crate::metrics::{Metrics, TierLabels};

/// Options of the memory tier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MemoryOptions {
    /// Budget in bytes, bookkeeping included.
    pub bytes_max: u64,
}

impl Default for MemoryOptions {
    fn default() -> MemoryOptions {
        MemoryOptions { bytes_max: 512 * MIB }
    }
}

const MIB: u64 = 1024 * 1024;

/// An entry that would fill more than this share of a shard is not admitted: it would push out many for one.
const SHARD_SHARE: u64 = 8;

/// Bytes that an entry costs besides its value and tags: key, metadata, two reference-counted blocks, the cache's
/// own slot and its ghost. Counted by hand on x86-64 and checked against resident memory by the memory bench.
const OVERHEAD_BYTES: u64 = 288;

/// What one entry weighs against the budget.
#[derive(Clone)]
struct ByBytes;

impl Weighter<Key, Arc<Entry>> for ByBytes {
    fn weight(&self, _: &Key, entry: &Arc<Entry>) -> u64 {
        let tags = entry.meta.tags.len() * size_of::<TagVersion>();
        OVERHEAD_BYTES + (entry.value.len() + tags) as u64
    }
}

/// Counts what the budget pushes out.
#[derive(Clone)]
struct CountEvictions(Counter);

impl Lifecycle<Key, Arc<Entry>> for CountEvictions {
    type RequestState = ();
    fn on_evict(&self, (): &mut (), _: Key, _: Arc<Entry>) {
        self.0.inc();
    }
}

/// Entries in memory, evicted by quick_cache's S3-FIFO-like policy. A get takes one shared lock of one shard.
pub struct MemoryTier {
    entries: sync::Cache<Key, Arc<Entry>, ByBytes, ByPrefix, CountEvictions>,
    entry_bytes_max: u64,
    hits: Counter,
    misses: Counter,
}

impl MemoryTier {
    /// An empty tier. Fails if the budget is too small to hold anything.
    pub fn new(options: &MemoryOptions, metrics: &Metrics) -> Result<MemoryTier> {
        if options.bytes_max < MIB {
            return Err(Error::new(Kind::Config, "cache.memory.bytes_max must be at least 1 MiB")
                .with("got", options.bytes_max));
        }
        let shards = shards_for(options.bytes_max);
        let average_bytes = 1536 + OVERHEAD_BYTES;
        let shape = OptionsBuilder::new()
            .weight_capacity(options.bytes_max)
            .estimated_items_capacity(
                usize::try_from(options.bytes_max / average_bytes).unwrap_or(usize::MAX),
            )
            .shards(shards)
            .build()
            .map_err(|error| Error::new(Kind::Internal, "shape the memory tier").source(error))?;
        let labels = TierLabels { tier: TierName::Memory.as_str() };
        let evictions = metrics.tier_evictions.get_or_create(&labels).clone();
        let entries = sync::Cache::with_options(shape, ByBytes, ByPrefix, CountEvictions(evictions));
        Ok(MemoryTier {
            entry_bytes_max: entries.shard_capacity() / SHARD_SHARE,
            entries,
            hits: metrics.tier_hits.get_or_create(&labels).clone(),
            misses: metrics.tier_misses.get_or_create(&labels).clone(),
        })
    }

    /// The entry of `key`, whatever its age: the judge stands above.
    pub fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        let entry = self.entries.get(key);
        if entry.is_some() {
            self.hits.inc()
        } else {
            self.misses.inc()
        };
        entry
    }

    /// Stores an entry, pushing out others if the budget asks for it. An entry too big for the budget is refused,
    /// and what was stored under its key is gone.
    pub fn put(&self, key: Key, entry: Arc<Entry>) {
        if ByBytes.weight(&key, &entry) <= self.entry_bytes_max {
            self.entries.insert(key, entry);
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
        self.entries.remove_if(key, |held| Arc::ptr_eq(held, entry));
    }

    /// How many entries are chosen. Locks shard by shard.
    pub fn count(&self, choice: &dyn Fn(&EntryMeta) -> bool) -> u64 {
        self.entries.iter().filter(|(_, entry)| choice(&entry.meta)).count() as u64
    }

    /// Numbers of this moment.
    pub fn stats(&self) -> TierStats {
        TierStats {
            entries: self.entries.len() as u64,
            bytes: self.entries.weight(),
            bytes_max: self.entries.capacity(),
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
mod tests {
    use super::*;
    use crate::domain::{Codec, KeyHasher, UnixSeconds};

    fn entry(bytes: usize) -> Arc<Entry> {
        let meta = EntryMeta::ending(Codec::Raw, UnixSeconds(0), UnixSeconds::NEVER);
        Arc::new(Entry { meta, value: vec![0; bytes].into() })
    }

    fn key(n: u32) -> Key {
        KeyHasher::new("test").field(&n.to_le_bytes()).finish()
    }

    #[test]
    fn the_budget_holds_after_every_insert() {
        let metrics = Metrics::new();
        let tier = MemoryTier::new(&MemoryOptions { bytes_max: 2 * MIB }, &metrics).unwrap();
        for n in 0..10_000 {
            tier.put(key(n), entry(500 + n as usize % 3_000));
            assert!(tier.stats().bytes <= 2 * MIB, "after insert {n}: {:?}", tier.stats());
        }
        assert!(tier.stats().entries > 500);
        assert!(tier.get(&key(9_999)).is_some());
    }

    #[test]
    fn an_entry_that_cannot_fit_pushes_nothing_out() {
        let metrics = Metrics::new();
        let tier = MemoryTier::new(&MemoryOptions { bytes_max: 2 * MIB }, &metrics).unwrap();
        for n in 0..100 {
            tier.put(key(n), entry(1_000));
        }
        tier.put(key(200), entry(3 * 1024 * 1024));
        assert!(tier.get(&key(200)).is_none());
        assert_eq!(tier.stats().entries, 100);
    }
}
