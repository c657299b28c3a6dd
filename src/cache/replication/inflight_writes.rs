//! Writes of this node whose events it has not read back: they decide whether an event of another node is the later one, and when a copy
//! may be dropped.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Mutex;

use tokio::sync::Notify;

use crate::domain::{ByPrefix, Key};
use crate::sync::lock;

/// Written keys that are remembered at most. Of others the copy is dropped, and comes back from Redis.
const KEYS_MAX: usize = 65_536;

/// An event of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cache) struct EventPlace {
    pub(in crate::cache) shard: u8,
    pub(in crate::cache) number: u64,
}

/// What is known of a key that this node writes, or whose copy it drops.
#[derive(Debug, Default)]
struct KeyWrites {
    /// Writes that have not ended.
    open: usize,
    /// Whether the copy is being dropped. Writes begin afterwards.
    drops: usize,
    /// The number of the last event of this node.
    own: u64,
    /// The number of the last event of this node that its follower has read.
    own_read: u64,
    /// The number of the last event of another node.
    foreign: u64,
    /// The first event that was read while a write was open, until the copy of this node is as new as that event.
    undecided: Option<EventPlace>,
    /// Whether events were skipped while a write was open, until the copy of this node is dropped: what that write stores may be older.
    has_skipped: bool,
}

impl KeyWrites {
    /// Whether nothing of this node is under way, so that each further event is the latest.
    fn is_settled(&self) -> bool {
        let is_under_way = self.open > 0 || self.drops > 0 || self.own > self.own_read;
        !is_under_way && self.undecided.is_none() && !self.has_skipped
    }

    /// Whether there is an event that is later than what this node has stored.
    fn is_outdated(&self) -> bool {
        self.foreign > self.own || self.own_read > self.own || self.has_skipped
    }
}

#[derive(Debug, Default)]
struct WrittenKeys {
    writes: HashMap<Key, KeyWrites, ByPrefix>,
    /// Keys whose write was given up after an event that it was to decide about.
    outdated: HashSet<Key, ByPrefix>,
    /// The undecided events of all keys. After a restart they have to be read again: the copy on disk may be from before them.
    undecided: BTreeSet<EventPlace>,
}

impl WrittenKeys {
    /// The copy of a key is as new as its events, unless it is to be dropped.
    fn decide(&mut self, key: &Key) {
        let Some(known) = self.writes.get_mut(key) else { return };
        let is_decided = known.open == 0 && known.drops == 0 && !self.outdated.contains(key);
        if is_decided && let Some(place) = known.undecided.take() {
            self.undecided.remove(&place);
        }
        if known.is_settled() {
            self.writes.remove(key);
        }
    }
}

/// The keys that this node writes now, or whose events its follower has not read. Shared by `Arc`.
#[derive(Debug, Default)]
pub(in crate::cache) struct InflightWrites {
    keys: Mutex<WrittenKeys>,
    /// Notified when a copy was dropped.
    dropped: Notify,
    /// Notified when a copy is to be dropped.
    given_up: Notify,
}

/// A write that has begun.
#[derive(Debug)]
pub(in crate::cache) struct InflightWrite<'a> {
    writes: &'a InflightWrites,
    key: Key,
}

/// The right to drop the copy of a key: no write of it begins before this is dropped.
#[derive(Debug)]
pub(in crate::cache) struct CopyDrop<'a> {
    writes: &'a InflightWrites,
    pub(super) key: Key,
}

impl InflightWrites {
    /// A write of a key begins, once its copy is not being dropped.
    pub(in crate::cache) async fn begin(&self, key: Key) -> InflightWrite<'_> {
        loop {
            let dropped = self.dropped.notified();
            {
                let mut keys = lock(&self.keys);
                let known = keys.writes.entry(key).or_default();
                if known.drops == 0 {
                    known.open += 1;
                    return InflightWrite { writes: self, key };
                }
            }
            dropped.await;
        }
    }

    /// The follower has read an event of another node. Returns the right to drop the local copy if it is older. While a write is open,
    /// that write decides.
    pub(in crate::cache) fn note_foreign(&self, key: &Key, event: EventPlace) -> Option<CopyDrop<'_>> {
        let keys = &mut *lock(&self.keys);
        let known = keys.writes.entry(*key).or_default();
        known.foreign = known.foreign.max(event.number);
        if known.own >= known.foreign {
            return None;
        }
        if known.open == 0 {
            return Some(self.begin_drop(key, known));
        }
        keys.undecided.insert(*known.undecided.get_or_insert(event));
        None
    }

    /// The first event of a shard that was read while a write of its key was open, and about which that write has not decided: the copy
    /// on disk may be from before it.
    pub(in crate::cache) fn first_undecided(&self, shard: u8) -> Option<u64> {
        let of_shard = EventPlace { shard, number: 0 }..=EventPlace { shard, number: u64::MAX };
        lock(&self.keys).undecided.range(of_shard).next().map(|event| event.number)
    }

    /// Whether another node may have changed the key while a write of it is open: the follower has read such an event, or has skipped some.
    pub(in crate::cache) fn has_foreign(&self, key: &Key) -> bool {
        lock(&self.keys).writes.get(key).is_some_and(|known| known.foreign > 0 || known.has_skipped)
    }

    /// Whether a write of the key is open.
    pub(in crate::cache) fn is_open(&self, key: &Key) -> bool {
        lock(&self.keys).writes.get(key).is_some_and(|known| known.open > 0)
    }

    /// The follower has read an event of this node. Returns the right to drop the local copy if its write was given up without a reply: what
    /// it has written is in Redis alone.
    pub(in crate::cache) fn note_own(&self, key: &Key, event: EventPlace) -> Option<CopyDrop<'_>> {
        let keys = &mut *lock(&self.keys);
        let mut known = match keys.writes.entry(*key) {
            Entry::Vacant(known) => return Some(self.begin_drop(key, known.insert(KeyWrites::default()))),
            Entry::Occupied(known) => known,
        };
        known.get_mut().own_read = event.number;
        if known.get().open > 0 {
            // Also where its number is known already: the copy on disk is written before, and perhaps dropped after that.
            keys.undecided.insert(*known.get_mut().undecided.get_or_insert(event));
        }
        if known.get().is_settled() {
            known.remove();
        }
        None
    }

    /// Returns once the copies of keys are to be dropped whose writes were given up, with the rights to do it.
    ///
    /// Cancel safety: takes nothing before it returns.
    pub(in crate::cache) async fn given_up(&self) -> Vec<CopyDrop<'_>> {
        loop {
            let given_up = self.given_up.notified();
            let drops = self.take_outdated();
            if !drops.is_empty() {
                return drops;
            }
            given_up.await;
        }
    }

    fn take_outdated(&self) -> Vec<CopyDrop<'_>> {
        let keys = &mut *lock(&self.keys);
        let mut drops = Vec::new();
        for key in keys.outdated.drain() {
            let known = keys.writes.entry(key).or_default();
            // A write that is open decides, or is given up too.
            if known.open == 0 {
                drops.push(self.begin_drop(&key, known));
            }
        }
        drops
    }

    /// The copies could not be dropped.
    pub(in crate::cache) fn drop_later(&self, drops: Vec<CopyDrop<'_>>) {
        lock(&self.keys).outdated.extend(drops.iter().map(|one| one.key));
        drop(drops);
    }

    /// Whether copies are to be dropped, or are being dropped, whose writes were given up.
    pub(in crate::cache) fn has_outdated(&self) -> bool {
        !lock(&self.keys).outdated.is_empty()
    }

    fn begin_drop(&self, key: &Key, known: &mut KeyWrites) -> CopyDrop<'_> {
        known.drops += 1;
        CopyDrop { writes: self, key: *key }
    }

    /// Events are skipped, and the copies of all keys are going to be hidden. Forgets what is not being written; what is being written is
    /// dropped once it is stored. Returns the events that are undecided until the copies are hidden.
    pub(in crate::cache) fn skip(&self) -> BTreeSet<EventPlace> {
        let keys = &mut *lock(&self.keys);
        keys.writes.retain(|_, known| {
            // The log may have gone back: its next events may have numbers that were known.
            (known.own, known.own_read, known.foreign) = (0, 0, 0);
            known.has_skipped |= known.open > 0;
            !known.is_settled()
        });
        keys.undecided.clone()
    }

    /// The copies that were on disk when events were undecided are hidden.
    pub(in crate::cache) fn decide_hidden(&self, undecided: &BTreeSet<EventPlace>) {
        let keys = &mut *lock(&self.keys);
        keys.undecided.retain(|event| !undecided.contains(event));
        keys.writes.retain(|_, known| {
            known.undecided = known.undecided.filter(|event| !undecided.contains(event));
            !known.is_settled()
        });
    }
}

impl InflightWrite<'_> {
    /// The event of the write has this number. Returns whether no other node has written the key since: otherwise the local copy is to
    /// be dropped.
    pub(in crate::cache) fn end(&self, number: u64) -> bool {
        let mut keys = lock(&self.writes.keys);
        let is_full = keys.writes.len() > KEYS_MAX;
        let Some(known) = keys.writes.get_mut(&self.key) else { return false };
        if known.has_skipped {
            return false;
        }
        known.own = known.own.max(number);
        let is_last = known.foreign < number;
        if is_full && known.open == 1 {
            // As if its event were read: what it has stored is dropped.
            known.own_read = known.own;
            return false;
        }
        is_last
    }
}

impl Drop for InflightWrite<'_> {
    fn drop(&mut self) {
        let keys = &mut *lock(&self.writes.keys);
        let Some(known) = keys.writes.get_mut(&self.key) else { return };
        known.open -= 1;
        if known.open == 0 && known.is_outdated() {
            keys.outdated.insert(self.key);
            self.writes.given_up.notify_one();
        }
        keys.decide(&self.key);
    }
}

impl Drop for CopyDrop<'_> {
    fn drop(&mut self) {
        let keys = &mut *lock(&self.writes.keys);
        if let Some(known) = keys.writes.get_mut(&self.key) {
            known.drops -= 1;
            if !keys.outdated.contains(&self.key) {
                known.has_skipped = false;
            }
            keys.decide(&self.key);
        }
        self.writes.dropped.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const KEY: Key = Key([1; 32]);

    fn begin(writes: &InflightWrites) -> InflightWrite<'_> {
        writes.begin(KEY).now_or_never().expect("no copy is being dropped")
    }

    fn event(number: u64) -> EventPlace {
        EventPlace { shard: 1, number }
    }

    fn is_empty(writes: &InflightWrites) -> bool {
        let keys = lock(&writes.keys);
        keys.writes.is_empty() && keys.outdated.is_empty() && keys.undecided.is_empty()
    }

    fn outdated(writes: &InflightWrites) -> Vec<Key> {
        writes.take_outdated().iter().map(|one| one.key).collect()
    }

    #[test]
    fn the_later_event_decides_whose_copy_stays() {
        let writes = InflightWrites::default();
        assert!(writes.note_foreign(&KEY, event(1)).is_some(), "no own write");
        let write = begin(&writes);
        assert!(writes.note_foreign(&KEY, event(4)).is_none(), "the open write decides");
        assert!(write.end(5), "the other one came before");
        drop(write);
        assert!(writes.note_foreign(&KEY, event(4)).is_none(), "read late, and still older");
        assert!(writes.note_own(&KEY, event(5)).is_none());
        assert!(writes.note_foreign(&KEY, event(6)).is_some());
        let write = begin(&writes);
        assert!(writes.note_foreign(&KEY, event(8)).is_none());
        assert!(!write.end(7), "the other one came after");
        drop(write);
        assert_eq!(outdated(&writes), [KEY]);
        assert!(writes.note_own(&KEY, event(7)).is_none());
        assert!(is_empty(&writes));
    }

    #[test]
    fn a_write_whose_event_is_read_before_its_reply_leaves_nothing_behind() {
        let writes = InflightWrites::default();
        let write = begin(&writes);
        assert!(writes.note_own(&KEY, event(3)).is_none() && writes.is_open(&KEY));
        assert!(write.end(3));
        drop(write);
        assert!(is_empty(&writes));
    }

    /// Its reply is lost: what it has written is in Redis, and the copy here is older, whenever the event is read.
    #[test]
    fn a_write_that_is_given_up_outdates_the_copy() {
        let writes = InflightWrites::default();
        drop(begin(&writes));
        assert!(writes.note_own(&KEY, event(3)).is_some(), "read afterwards");
        let write = begin(&writes);
        assert!(writes.note_own(&KEY, event(5)).is_none());
        drop(write);
        assert!(writes.has_outdated());
        assert_eq!(outdated(&writes), [KEY], "read before");
        let write = begin(&writes);
        assert!(writes.note_foreign(&KEY, event(8)).is_none());
        drop(write);
        assert_eq!(outdated(&writes), [KEY], "another node's event");
        assert!(is_empty(&writes));
    }

    #[test]
    fn a_write_begins_after_the_copy_is_dropped() {
        let writes = InflightWrites::default();
        let dropping = writes.note_foreign(&KEY, event(3)).unwrap();
        let mut second = std::pin::pin!(writes.begin(KEY));
        assert!(second.as_mut().now_or_never().is_none());
        drop(dropping);
        let write = second.now_or_never().expect("the copy is dropped");
        assert!(write.end(4));
    }

    #[test]
    fn a_write_that_fails_leaves_nothing_behind() {
        let writes = InflightWrites::default();
        drop(begin(&writes));
        assert!(is_empty(&writes));
        let write = begin(&writes);
        assert!(write.end(1));
        drop(write);
        assert!(writes.skip().is_empty() && is_empty(&writes));
    }

    #[test]
    fn numbers_from_before_a_log_that_went_back_outdate_nothing() {
        let writes = InflightWrites::default();
        let earlier = begin(&writes);
        assert!(earlier.end(1000));
        let write = begin(&writes);
        drop(earlier);
        let skipped = writes.skip();
        assert!(writes.note_foreign(&KEY, event(11)).is_none() && writes.note_own(&KEY, event(12)).is_none());
        writes.decide_hidden(&skipped);
        assert_eq!(writes.first_undecided(1), Some(11));
        drop(write);
        assert_eq!(outdated(&writes), [KEY]);
        assert!(writes.note_foreign(&KEY, event(13)).is_some());
        assert!(is_empty(&writes));
    }

    /// What was skipped may have been an event of the key that is later than the write.
    #[test]
    fn a_write_during_which_events_were_skipped_is_dropped() {
        for ends in [true, false] {
            let writes = InflightWrites::default();
            let write = begin(&writes);
            assert!(writes.note_foreign(&KEY, event(1)).is_none());
            let skipped = writes.skip();
            assert_eq!(writes.first_undecided(1), Some(1), "the copies are not hidden yet");
            writes.decide_hidden(&skipped);
            assert_eq!(writes.first_undecided(1), None);
            assert!(writes.has_foreign(&KEY), "one may be among those that were skipped");
            assert!(!ends || !write.end(2));
            // A write that begins later and fails leaves the copy as it is.
            let later = begin(&writes);
            drop(write);
            assert!(outdated(&writes).is_empty());
            drop(later);
            assert_eq!(outdated(&writes), [KEY]);
            assert!(is_empty(&writes));
        }
    }

    /// A crash in between leaves a copy on disk from before the event.
    #[test]
    fn an_event_is_undecided_until_the_copy_on_disk_is_as_new() {
        let writes = InflightWrites::default();
        let write = begin(&writes);
        assert!(writes.note_own(&KEY, event(3)).is_none());
        assert!(writes.note_foreign(&KEY, event(4)).is_none());
        assert_eq!((writes.first_undecided(0), writes.first_undecided(1)), (None, Some(3)));
        assert!(!write.end(3));
        drop(write);
        assert_eq!(writes.first_undecided(1), Some(3), "the copy is not dropped yet");
        let drops = writes.take_outdated();
        assert_eq!(writes.first_undecided(1), Some(3));
        writes.drop_later(drops);
        assert_eq!(writes.first_undecided(1), Some(3), "it could not be dropped");
        assert_eq!(outdated(&writes), [KEY]);
        assert!(writes.first_undecided(1).is_none() && is_empty(&writes));
        let write = begin(&writes);
        assert!(writes.note_own(&KEY, event(5)).is_none() && write.end(5));
        assert_eq!(writes.first_undecided(1), Some(5));
        drop(write);
        assert!(writes.first_undecided(1).is_none() && is_empty(&writes));
    }
}
