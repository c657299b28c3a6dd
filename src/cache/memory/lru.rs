//! Strict LRU in shards, each with its share of the budget.

use std::sync::Arc;

use crate::metrics::Counter;
use lru::LruCache;

use super::entries::Entries;
use super::weight;
use crate::domain::{ByPrefix, Entry, EntryMeta, Key};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard, ignore_poison};

/// The entries of a shard and what they weigh together.
struct Shard {
    entries: LruCache<Key, Arc<Entry>, ByPrefix>,
    bytes: u64,
}

pub(super) struct Lru {
    shards: Box<[Mutex<Shard>]>,
    shard_bytes_max: AtomicU64,
    evictions: Counter,
}

impl Lru {
    pub(super) fn new(bytes_max: u64, shards: usize, evictions: Counter) -> Lru {
        let shard = || Mutex::new(Shard { entries: LruCache::unbounded_with_hasher(ByPrefix), bytes: 0 });
        let shards: Box<[_]> = (0..shards).map(|_| shard()).collect();
        let shard_bytes_max = AtomicU64::new(bytes_max / shards.len() as u64);
        Lru { shards, shard_bytes_max, evictions }
    }

    /// By the last byte: a table within a shard goes by the first ones.
    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        ignore_poison(self.shards[usize::from(key.0[31]) % self.shards.len()].lock())
    }

    /// What has to go from a shard for its budget to hold. The caller drops it when the lock is released.
    fn evict(&self, shard: &mut Shard) -> Vec<Arc<Entry>> {
        let mut gone = Vec::new();
        while shard.bytes > self.shard_bytes_max()
            && let Some((_, entry)) = shard.entries.pop_lru()
        {
            shard.bytes -= weight::of(&entry);
            gone.push(entry);
        }
        self.evictions.inc_by(gone.len() as u64);
        gone
    }
}

impl Entries for Lru {
    fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.shard(key).entries.get(key).cloned()
    }

    fn put(&self, key: Key, entry: Arc<Entry>) {
        let mut shard = self.shard(&key);
        shard.bytes += weight::of(&entry);
        let replaced = shard.entries.put(key, entry);
        shard.bytes -= replaced.as_deref().map_or(0, weight::of);
        let gone = self.evict(&mut shard);
        drop(shard);
        drop((replaced, gone));
    }

    fn remove(&self, key: &Key) {
        let mut shard = self.shard(key);
        let gone = shard.entries.pop(key);
        shard.bytes -= gone.as_deref().map_or(0, weight::of);
        drop(shard);
        drop(gone);
    }

    fn remove_same(&self, key: &Key, entry: &Arc<Entry>) {
        let mut shard = self.shard(key);
        if shard.entries.peek(key).is_some_and(|held| Arc::ptr_eq(held, entry)) {
            // The caller holds the entry too, so nothing is freed under the lock.
            shard.entries.pop(key);
            shard.bytes -= weight::of(entry);
        }
    }

    fn visit(&self, visit: &mut dyn FnMut(&EntryMeta)) {
        for shard in &self.shards {
            ignore_poison(shard.lock()).entries.iter().for_each(|(_, entry)| visit(&entry.meta));
        }
    }

    fn visit_recent(&self, entries_max: usize, visit: &mut dyn FnMut(&Key, &EntryMeta)) {
        let of_shard = entries_max.div_ceil(self.shards.len());
        for shard in &self.shards {
            let shard = ignore_poison(shard.lock());
            shard.entries.iter().take(of_shard).for_each(|(key, entry)| visit(key, &entry.meta));
        }
    }

    fn remove_where(&self, choice: &dyn Fn(&EntryMeta) -> bool) {
        for shard in &self.shards {
            let mut shard = ignore_poison(shard.lock());
            let chosen = shard.entries.iter().filter(|(_, entry)| choice(&entry.meta));
            let keys: Vec<Key> = chosen.map(|(key, _)| *key).collect();
            let gone: Vec<Arc<Entry>> = keys.iter().filter_map(|key| shard.entries.pop(key)).collect();
            shard.bytes -= gone.iter().map(|entry| weight::of(entry)).sum::<u64>();
            drop(shard);
            drop(gone);
        }
    }

    fn set_budget(&self, bytes_max: u64) {
        self.shard_bytes_max.store(bytes_max / self.shards.len() as u64, Ordering::Relaxed);
        for shard in &self.shards {
            let mut shard = ignore_poison(shard.lock());
            let gone = self.evict(&mut shard);
            drop(shard);
            drop(gone);
        }
    }

    fn len(&self) -> u64 {
        self.shards.iter().map(|shard| ignore_poison(shard.lock()).entries.len() as u64).sum()
    }

    fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| ignore_poison(shard.lock()).bytes).sum()
    }

    fn bytes_max(&self) -> u64 {
        self.shard_bytes_max() * self.shards.len() as u64
    }

    fn shard_bytes_max(&self) -> u64 {
        self.shard_bytes_max.load(Ordering::Relaxed)
    }
}
