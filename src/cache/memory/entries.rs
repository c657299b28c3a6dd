//! What both kinds of eviction implement.

use std::sync::Arc;

use crate::domain::{Entry, EntryMeta, Key};

/// Entries by key under one budget, in shards.
pub(super) trait Entries: Send + Sync {
    fn get(&self, key: &Key) -> Option<Arc<Entry>>;
    /// Stores an entry that fits into a shard; others go until the budget holds, before this returns.
    fn put(&self, key: Key, entry: Arc<Entry>);
    fn remove(&self, key: &Key);
    /// Removes what is held under the key if it is this very entry.
    fn remove_same(&self, key: &Key, entry: &Arc<Entry>);
    /// Visits every entry, a shard at a time.
    fn visit(&self, visit: &mut dyn FnMut(&EntryMeta));
    /// Visits entries in steps that hold a lock for a moment only: those that were used last, about `entries_max`, or all of them where
    /// these are not known.
    fn visit_recent(&self, entries_max: usize, visit: &mut dyn FnMut(&Key, &EntryMeta));
    /// Removes the chosen entries, a shard at a time.
    fn remove_where(&self, choice: &dyn Fn(&EntryMeta) -> bool);
    fn set_budget(&self, bytes_max: u64);
    fn len(&self) -> u64;
    fn bytes(&self) -> u64;
    fn bytes_max(&self) -> u64;
    fn shard_bytes_max(&self) -> u64;
}
