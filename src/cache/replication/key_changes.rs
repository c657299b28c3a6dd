//! Keys that were changed: guards against keeping a copy that was read before a change.

use crate::domain::Key;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Keys share counters; a change of one costs a reader of another the copy that it has just read.
const COUNTERS: usize = 1024;

/// Counts the changes of keys, by other nodes and by this one. Shared by `Arc`.
///
/// A reader takes the count of a key before it reads a tier below memory, keeps what it has read in memory, and then compares
/// the count. Who changes the key counts first and then removes or replaces the copy in memory. Either the reader sees the new count and removes
/// its copy, or the copy was there when the follower removed it.
#[derive(Debug)]
pub(in crate::cache) struct KeyChanges(Box<[AtomicU64]>);

impl KeyChanges {
    pub(in crate::cache) fn new() -> KeyChanges {
        KeyChanges((0..COUNTERS).map(|_| AtomicU64::new(0)).collect())
    }

    /// The changes of a key so far.
    pub(in crate::cache) fn count(&self, key: &Key) -> u64 {
        self.counter(key).load(Ordering::SeqCst)
    }

    /// A key was changed.
    pub(in crate::cache) fn add(&self, key: &Key) {
        self.counter(key).fetch_add(1, Ordering::SeqCst);
    }

    /// Other nodes may have changed every key.
    pub(in crate::cache) fn add_all(&self) {
        self.0.iter().for_each(|counter| _ = counter.fetch_add(1, Ordering::SeqCst));
    }

    fn counter(&self, key: &Key) -> &AtomicU64 {
        &self.0[key.prefix() as usize % COUNTERS]
    }
}
