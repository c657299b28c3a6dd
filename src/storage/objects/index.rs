//! Which objects there are, when they end and how long they are: enough to keep a budget without reading the disk.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;

use crate::domain::{Key, UnixSeconds};

/// Rows looked at to choose one that must go: the one that ends first among them goes.
const SAMPLE: usize = 16;

/// What is known of an object without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) key: Key,
    /// When it was stored. One from a clock that was ahead is served to no client, whatever its end.
    pub(super) created: UnixSeconds,
    /// From here on no client is served it.
    pub(super) end: UnixSeconds,
    /// What it takes of the budget.
    pub(super) bytes: u32,
}

impl Row {
    /// Its end, as it counts for making room.
    fn end_seen_at(&self, now: UnixSeconds) -> UnixSeconds {
        if self.created.is_ahead_of(now) { UnixSeconds(0) } else { self.end }
    }
}

/// Rows by key, about 52 bytes each. A hand goes round over all rows, so that each is met again and again.
#[derive(Debug, Default)]
pub(super) struct Index {
    rows: Vec<Row>,
    /// Places in `rows`.
    places: HashTable<u32>,
    hand: usize,
    bytes: u64,
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        self.places.find(key.prefix(), |&place| self.rows[place as usize].key == *key).is_some()
    }

    /// Puts a row in the place of the one with its key.
    pub(super) fn put(&mut self, row: Row) {
        let rows = &mut self.rows;
        let next = u32::try_from(rows.len()).expect("2^32 rows do not fit into memory: this is a bug");
        let is_same = |&place: &u32| rows[place as usize].key == row.key;
        let replaced =
            match self.places.entry(row.key.prefix(), is_same, |&at| rows[at as usize].key.prefix()) {
                Slot::Occupied(place) => Some(std::mem::replace(&mut self.rows[*place.get() as usize], row)),
                Slot::Vacant(slot) => {
                    slot.insert(next);
                    self.rows.push(row);
                    None
                }
            };
        self.bytes = self.bytes + u64::from(row.bytes) - replaced.map_or(0, |old| u64::from(old.bytes));
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Row> {
        let rows = &self.rows;
        let found = self.places.find_entry(key.prefix(), |&place| rows[place as usize].key == *key).ok()?;
        let place = found.remove().0;
        let row = self.rows.swap_remove(place as usize);
        let moved_from = u32::try_from(self.rows.len()).ok()?;
        if let Some(moved) = self.rows.get(place as usize)
            && let Some(at) = self.places.find_mut(moved.key.prefix(), |&at| at == moved_from)
        {
            *at = place;
        }
        self.bytes -= u64::from(row.bytes);
        Some(row)
    }

    /// Removes those of the next `count` rows under the hand that have ended and are not `spared`.
    pub(super) fn take_ended(&mut self, count: usize, now: UnixSeconds, spared: &[Key]) -> Vec<Key> {
        let has_ended = |row: &Row| row.end_seen_at(now) <= now && !spared.contains(&row.key);
        let ended: Vec<Key> = self.pass(count).filter(has_ended).map(|row| row.key).collect();
        ended.iter().for_each(|key| _ = self.remove(key));
        ended
    }

    /// Removes a row that is not `spared`, to make room: of some under the hand, the one that ends first. None if all
    /// are spared.
    pub(super) fn take_one(&mut self, now: UnixSeconds, spared: &[Key]) -> Option<Key> {
        for _ in 0..=self.rows.len() / SAMPLE {
            let others = self.pass(SAMPLE).filter(|row| !spared.contains(&row.key));
            if let Some(first) = others.min_by_key(|row| row.end_seen_at(now)) {
                return self.remove(&first.key).map(|row| row.key);
            }
        }
        None
    }

    /// The next rows under the hand, which moves past them.
    fn pass(&mut self, count: usize) -> impl Iterator<Item = Row> + use<> {
        let count = count.min(self.rows.len());
        let from = if self.hand < self.rows.len() { self.hand } else { 0 };
        let passed: Vec<Row> = self.rows.iter().cycle().skip(from).take(count).copied().collect();
        self.hand = from + count;
        passed.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn row(n: u8, end: u32, bytes: u32) -> Row {
        let mut key = [0; 32];
        key[31] = n;
        // Two keys in three share their prefix.
        key[0] = n % 3;
        Row { key: Key(key), created: UnixSeconds(0), end: UnixSeconds(end), bytes }
    }

    proptest::proptest! {
        #[test]
        fn it_agrees_with_a_map(steps in proptest::collection::vec((0..4_u8, 0..20_u8, 0..50_u32), 0..200)) {
            let mut index = Index::default();
            let mut map = BTreeMap::new();
            for (step, n, number) in steps {
                match step {
                    0 | 1 => {
                        index.put(row(n, number, number));
                        map.insert(row(n, 0, 0).key, row(n, number, number));
                    }
                    2 => assert_eq!(index.remove(&row(n, 0, 0).key), map.remove(&row(n, 0, 0).key)),
                    _ => for key in index.take_ended(5, UnixSeconds(number), &[]) {
                        assert!(map.remove(&key).unwrap().end <= UnixSeconds(number));
                    },
                }
                assert_eq!(index.len(), map.len());
                assert_eq!(index.bytes(), map.values().map(|row| u64::from(row.bytes)).sum::<u64>());
                assert!((0..20).all(|n| index.contains(&row(n, 0, 0).key) == map.contains_key(&row(n, 0, 0).key)));
            }
        }
    }

    #[test]
    fn rows_from_a_clock_that_was_ahead_make_room_first() {
        let mut index = Index::default();
        (0..40).for_each(|n| index.put(row(n, 2_000, 1)));
        let ahead = Row { created: UnixSeconds(500_000), end: UnixSeconds(900_000), ..row(40, 0, 1) };
        index.put(ahead);
        let now = UnixSeconds(1_000);
        let taken: Vec<Key> = (0..3).filter_map(|_| index.take_one(now, &[])).collect();
        assert!(taken.contains(&ahead.key), "one of each sample goes, and the samples meet every row");
        index.put(ahead);
        let swept: Vec<Key> = (0..5).flat_map(|_| index.take_ended(10, now, &[])).collect();
        assert_eq!(swept, [ahead.key]);
    }

    #[test]
    fn the_hand_meets_every_row() {
        let mut index = Index::default();
        (0..100).for_each(|n| index.put(row(n, u32::from(n), 1)));
        let taken: usize = (0..20).map(|_| index.take_ended(10, UnixSeconds(50), &[]).len()).sum();
        assert_eq!((taken, index.len()), (51, 49));
        let last = row(99, 0, 0).key;
        let all: Vec<Key> = std::iter::from_fn(|| index.take_one(UnixSeconds(0), &[last])).collect();
        assert!(all.len() == 48 && index.contains(&last), "all but the spared one go");
    }
}
