//! Writes of this node whose events it has not read back: they decide whether an event of another node is the later one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Mutex;

use crate::domain::{ByPrefix, Key};
use crate::sync::lock;

/// Written keys that are remembered at most. Of others the copy is dropped, and comes back from Redis.
const KEYS_MAX: usize = 65_536;

/// What is known of a key that this node writes.
#[derive(Debug, Default)]
struct KeyWrites {
    /// Writes that have not ended.
    open: usize,
    /// The number of the last event of this node.
    own: u64,
    /// The number of the last event of this node that its follower has read.
    own_read: u64,
    /// The number of the last event of another node.
    foreign: u64,
}

impl KeyWrites {
    /// Whether nothing of this node is under way, so that each further event is the latest.
    fn is_settled(&self) -> bool {
        self.open == 0 && self.own <= self.own_read
    }
}

/// The keys that this node writes now, or whose events its follower has not read. Shared by `Arc`.
#[derive(Debug, Default)]
pub(in crate::cache) struct InflightWrites(Mutex<HashMap<Key, KeyWrites, ByPrefix>>);

/// A write that has begun.
#[derive(Debug)]
pub(in crate::cache) struct InflightWrite<'a> {
    writes: &'a InflightWrites,
    key: Key,
}

impl InflightWrites {
    /// A write of a key begins.
    pub(in crate::cache) fn begin(&self, key: Key) -> InflightWrite<'_> {
        lock(&self.0).entry(key).or_default().open += 1;
        InflightWrite { writes: self, key }
    }

    /// The follower has read an event of another node. Returns whether the local copy of the key is to be dropped: it is older. While a
    /// write is open, that write decides.
    pub(in crate::cache) fn note_foreign(&self, key: &Key, number: u64) -> bool {
        let mut writes = lock(&self.0);
        let Some(known) = writes.get_mut(key) else { return true };
        known.foreign = known.foreign.max(number);
        known.open == 0 && known.own < number
    }

    /// Whether the follower has read an event of another node while a write of the key is open.
    pub(in crate::cache) fn has_foreign(&self, key: &Key) -> bool {
        lock(&self.0).get(key).is_some_and(|known| known.foreign > 0)
    }

    /// Whether a write of the key is open.
    pub(in crate::cache) fn is_open(&self, key: &Key) -> bool {
        lock(&self.0).get(key).is_some_and(|known| known.open > 0)
    }

    /// The follower has read an event of this node. Returns whether the local copy of the key is to be dropped: its write was given up
    /// without a reply, and what it has written is in Redis alone.
    pub(in crate::cache) fn note_own(&self, key: &Key, number: u64) -> bool {
        let mut writes = lock(&self.0);
        let Entry::Occupied(mut known) = writes.entry(*key) else { return true };
        known.get_mut().own_read = number;
        if known.get().is_settled() {
            known.remove();
        }
        false
    }

    /// Forgets what is not being written: the log has lost events.
    pub(in crate::cache) fn forget(&self) {
        lock(&self.0).retain(|_, known| known.open > 0);
    }
}

impl InflightWrite<'_> {
    /// The event of the write has this number. Returns whether no other node has written the key since: otherwise the local copy is to
    /// be dropped.
    pub(in crate::cache) fn end(self, number: u64) -> bool {
        let mut writes = lock(&self.writes.0);
        let is_full = writes.len() > KEYS_MAX;
        let Some(known) = writes.get_mut(&self.key) else { return false };
        known.own = known.own.max(number);
        let is_last = known.foreign < number;
        if is_full && known.open == 1 {
            writes.remove(&self.key);
            return false;
        }
        is_last
    }
}

impl Drop for InflightWrite<'_> {
    fn drop(&mut self) {
        if let Entry::Occupied(mut known) = lock(&self.writes.0).entry(self.key) {
            known.get_mut().open -= 1;
            if known.get().is_settled() {
                known.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key([1; 32]);

    #[test]
    fn the_later_event_decides_whose_copy_stays() {
        let writes = InflightWrites::default();
        assert!(writes.note_foreign(&KEY, 1), "no own write");
        let write = writes.begin(KEY);
        assert!(!writes.note_foreign(&KEY, 4), "the open write decides");
        assert!(write.end(5), "the other one came before");
        assert!(!writes.note_foreign(&KEY, 4), "read late, and still older");
        assert!(!writes.note_own(&KEY, 5));
        assert!(writes.note_foreign(&KEY, 6));
        let write = writes.begin(KEY);
        assert!(!writes.note_foreign(&KEY, 8));
        assert!(!write.end(7), "the other one came after");
        assert!(!writes.note_own(&KEY, 7));
        assert!(lock(&writes.0).is_empty());
    }

    #[test]
    fn a_write_whose_event_is_read_before_its_reply_leaves_nothing_behind() {
        let writes = InflightWrites::default();
        let write = writes.begin(KEY);
        assert!(!writes.note_own(&KEY, 3) && writes.is_open(&KEY));
        assert!(write.end(3));
        assert!(lock(&writes.0).is_empty());
    }

    #[test]
    fn the_event_of_a_write_that_was_given_up_outdates_the_copy() {
        let writes = InflightWrites::default();
        drop(writes.begin(KEY));
        assert!(writes.note_own(&KEY, 3));
    }

    #[test]
    fn a_write_that_fails_leaves_nothing_behind() {
        let writes = InflightWrites::default();
        drop(writes.begin(KEY));
        assert!(lock(&writes.0).is_empty());
        let write = writes.begin(KEY);
        writes.forget();
        assert!(write.end(1));
        writes.forget();
        assert!(lock(&writes.0).is_empty());
    }
}
