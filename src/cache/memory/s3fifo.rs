//! quick_cache's policy, which is S3-FIFO-like (Yang and others, "FIFO queues are all you need for cache eviction",
//! 2023): entries that are asked for once pass through quickly.

use std::sync::Arc;

use crate::metrics::Counter;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter, sync};

use super::entries::Entries;
use super::weight;
use crate::domain::{ByPrefix, Entry, EntryMeta, Key};
use crate::error::{Error, Kind, Result};

/// What most entries weigh: a vector of 384 numbers or a product. The table is laid out for as many of them as the
/// budget holds.
const AVERAGE_BYTES: u64 = 2048;

#[derive(Clone)]
struct ByBytes;

impl Weighter<Key, Arc<Entry>> for ByBytes {
    fn weight(&self, _: &Key, entry: &Arc<Entry>) -> u64 {
        weight::of(entry)
    }
}

/// Counts what the budget pushes out, and keeps it until the shard's lock is released.
#[derive(Clone)]
struct CountEvictions(Counter);

impl Lifecycle<Key, Arc<Entry>> for CountEvictions {
    type RequestState = Vec<Arc<Entry>>;
    fn on_evict(&self, gone: &mut Vec<Arc<Entry>>, _: Key, entry: Arc<Entry>) {
        self.0.inc();
        gone.push(entry);
    }
}

pub(super) struct S3Fifo(sync::Cache<Key, Arc<Entry>, ByBytes, ByPrefix, CountEvictions>);

impl S3Fifo {
    pub(super) fn new(bytes_max: u64, shards: usize, evictions: Counter) -> Result<S3Fifo> {
        let shape = OptionsBuilder::new()
            .weight_capacity(bytes_max)
            .estimated_items_capacity(usize::try_from(bytes_max / AVERAGE_BYTES).unwrap_or(usize::MAX))
            .shards(shards)
            .build()
            .map_err(|error| Error::new(Kind::Internal, "shape the memory tier").source(error))?;
        Ok(S3Fifo(sync::Cache::with_options(shape, ByBytes, ByPrefix, CountEvictions(evictions))))
    }
}

impl Entries for S3Fifo {
    fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.0.get(key)
    }

    fn put(&self, key: Key, entry: Arc<Entry>) {
        self.0.insert(key, entry);
    }

    fn remove(&self, key: &Key) {
        self.0.remove(key);
    }

    fn remove_same(&self, key: &Key, entry: &Arc<Entry>) {
        self.0.remove_if(key, |held| Arc::ptr_eq(held, entry));
    }

    fn visit(&self, visit: &mut dyn FnMut(&EntryMeta)) {
        self.0.iter().for_each(|(_, entry)| visit(&entry.meta));
    }

    fn visit_recent(&self, _: usize, visit: &mut dyn FnMut(&Key, &EntryMeta)) {
        // The lock of a shard is taken again for each entry.
        self.0.iter().for_each(|(key, entry)| visit(&key, &entry.meta));
    }

    fn remove_where(&self, choice: &dyn Fn(&EntryMeta) -> bool) {
        self.0.retain(|_, entry| !choice(&entry.meta));
    }

    fn set_budget(&self, bytes_max: u64) {
        self.0.set_capacity(bytes_max);
    }

    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn bytes(&self) -> u64 {
        self.0.weight()
    }

    fn bytes_max(&self) -> u64 {
        self.0.capacity()
    }

    fn shard_bytes_max(&self) -> u64 {
        self.0.shard_capacity()
    }
}
