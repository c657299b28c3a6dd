//! Where each key's slot is: 25 bytes an entry at most 7/8 full, so at most 58 bytes of memory each.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;

use crate::domain::UnixSeconds;

const SHARDS: usize = 64;

/// The last use of an entry that nobody has asked for since it was written or loaded.
pub(super) const UNUSED: UnixSeconds = UnixSeconds(0);

/// A place in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u32,
    pub(super) slot: u32,
}

/// One entry. The prefix stands for the key: two keys that share it share a row, of which the later holds; the slot's full
/// key tells them apart, so the loser is a miss.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) prefix: u64,
    pub(super) place: Place,
    pub(super) expires: UnixSeconds,
    pub(super) last_used: UnixSeconds,
}

/// The table, in shards of one lock each. No lock is held while anything else is waited for.
pub(super) struct Table(Box<[Mutex<HashTable<Row>>]>);

impl Table {
    pub(super) fn new() -> Table {
        Table((0..SHARDS).map(|_| Mutex::default()).collect())
    }

    /// Puts a row in place of one of the same prefix.
    pub(super) fn insert(&self, row: Row) {
        let mut shard = self.shard(row.prefix);
        match shard.find_mut(row.prefix, |other| other.prefix == row.prefix) {
            Some(old) => *old = row,
            None => _ = shard.insert_unique(row.prefix, row, |row| row.prefix),
        }
    }

    /// The row of a prefix.
    pub(super) fn get(&self, prefix: u64) -> Option<Row> {
        self.shard(prefix).find(prefix, |row| row.prefix == prefix).copied()
    }

    /// The row of a prefix, which is marked as used.
    pub(super) fn touch(&self, prefix: u64, now: UnixSeconds) -> Option<Row> {
        let mut shard = self.shard(prefix);
        let row = shard.find_mut(prefix, |row| row.prefix == prefix)?;
        row.last_used = now;
        Some(*row)
    }

    /// Removes the row of a prefix, if it still says `place`; any row if none is given.
    pub(super) fn remove(&self, prefix: u64, place: Option<Place>) {
        let mut shard = self.shard(prefix);
        let row = shard
            .find_entry(prefix, |row| row.prefix == prefix && place.is_none_or(|place| row.place == place));
        if let Ok(row) = row {
            row.remove();
        }
    }

    /// Removes all rows of a segment.
    pub(super) fn remove_segment(&self, segment: u32) {
        for shard in &self.0 {
            lock(shard).retain(|row| row.place.segment != segment);
        }
    }

    /// The rows of a segment that were asked for, the last used first.
    pub(super) fn used(&self, segment: u32) -> Vec<Row> {
        let mut rows = Vec::new();
        for shard in &self.0 {
            let used = |row: &&Row| row.place.segment == segment && row.last_used != UNUSED;
            rows.extend(lock(shard).iter().filter(used).copied());
        }
        rows.sort_unstable_by_key(|row| std::cmp::Reverse(row.last_used));
        rows
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        for shard in &self.0 {
            *lock(shard) = HashTable::new();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|shard| lock(shard).len()).sum()
    }

    fn shard(&self, prefix: u64) -> MutexGuard<'_, HashTable<Row>> {
        // The table's own hash takes the low bits and the top seven; these are between them.
        lock(&self.0[(prefix >> 48) as usize % SHARDS])
    }
}

/// A poisoned lock is taken all the same: no code of ours panics while it holds one.
fn lock(shard: &Mutex<HashTable<Row>>) -> MutexGuard<'_, HashTable<Row>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(prefix: u64, segment: u32) -> Row {
        let place = Place { segment, slot: prefix as u32 };
        Row { prefix, place, expires: UnixSeconds::NEVER, last_used: UNUSED }
    }

    #[test]
    fn a_row_is_24_bytes() {
        assert_eq!(size_of::<Row>(), 24);
    }

    #[test]
    fn a_late_removal_does_not_hit_the_newer_row() {
        let table = Table::new();
        table.insert(row(1, 1));
        let old = table.get(1).unwrap().place;
        table.insert(row(1, 2));
        table.remove(1, Some(old));
        assert_eq!(table.get(1).unwrap().place.segment, 2);
        table.remove(1, None);
        assert!(table.get(1).is_none());
    }

    #[test]
    fn the_rows_of_a_segment_go_together() {
        let table = Table::new();
        (0..100).for_each(|n| table.insert(row(n << 40 | n, (n % 2) as u32)));
        [5, 9, 8].into_iter().zip(1..).for_each(|(n, now)| _ = table.touch(n << 40 | n, UnixSeconds(now)));
        let used = table.used(1);
        assert_eq!(used.iter().map(|row| row.place.slot).collect::<Vec<_>>(), [9, 5]);
        table.remove_segment(1);
        assert_eq!(table.len(), 50);
    }
}
