//! Which objects there are, when they end and how long they are: enough to keep a budget without reading the disk.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;

use super::namespace_counts::NamespaceCounts;
use crate::domain::{Key, NamespaceId, UnixSeconds};

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
    /// What its record takes of the budget.
    pub(super) bytes: u32,
    pub(super) namespace: NamespaceId,
}

/// An object that has left the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Removed {
    pub(super) key: Key,
    pub(super) namespace: NamespaceId,
    pub(super) has_names: bool,
}

/// A row as the table holds it.
#[derive(Debug, Clone, Copy)]
struct StoredRow {
    key: Key,
    created: UnixSeconds,
    end: UnixSeconds,
    bytes: u32,
    /// Its namespace in [`NamespaceCounts`].
    namespace: u32,
    /// What its names take of the budget.
    names_bytes: u16,
}

impl StoredRow {
    fn bytes_taken(&self) -> u64 {
        u64::from(self.bytes) + u64::from(self.names_bytes)
    }

    /// Its end, as it counts for making room.
    fn end_seen_at(&self, now: UnixSeconds) -> UnixSeconds {
        if self.created.is_ahead_of(now) { UnixSeconds(0) } else { self.end }
    }
}

/// Rows by key, about 60 bytes each. A hand goes round over all rows, so that each is met again and again.
#[derive(Debug, Default)]
pub(super) struct Index {
    rows: Vec<StoredRow>,
    /// Places in `rows`.
    places: HashTable<u32>,
    hand: usize,
    bytes: u64,
    namespaces: NamespaceCounts,
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

    /// The namespaces of all rows.
    pub(super) fn namespaces(&self) -> &NamespaceCounts {
        &self.namespaces
    }

    /// Puts a row in the place of the one with its key, whose names stay.
    pub(super) fn put(&mut self, row: Row) {
        let Row { key, created, end, bytes, namespace } = row;
        let namespace = self.namespaces.enter(namespace);
        let mut row = StoredRow { key, created, end, bytes, namespace, names_bytes: 0 };
        let rows = &mut self.rows;
        let next = u32::try_from(rows.len()).expect("2^32 rows do not fit into memory: this is a bug");
        let is_same = |&place: &u32| rows[place as usize].key == key;
        let replaced = match self.places.entry(key.prefix(), is_same, |&at| rows[at as usize].key.prefix()) {
            Slot::Occupied(place) => {
                let place = &mut self.rows[*place.get() as usize];
                row.names_bytes = place.names_bytes;
                Some(std::mem::replace(place, row))
            }
            Slot::Vacant(slot) => {
                slot.insert(next);
                self.rows.push(row);
                None
            }
        };
        self.enter_bytes(&row);
        if let Some(old) = replaced {
            self.leave(&old);
        }
    }

    /// Enters what the names of an object take. Returns whether there is such an object in the namespace.
    pub(super) fn put_names(&mut self, key: &Key, namespace: NamespaceId, bytes: u16) -> bool {
        let rows = &self.rows;
        let Some(&place) = self.places.find(key.prefix(), |&place| rows[place as usize].key == *key) else {
            return false;
        };
        let before = self.rows[place as usize];
        if self.namespaces.id(before.namespace) != namespace {
            return false;
        }
        let after = StoredRow { names_bytes: bytes, ..before };
        self.rows[place as usize] = after;
        self.bytes = self.bytes + after.bytes_taken() - before.bytes_taken();
        self.namespaces.resize(after.namespace, before.bytes_taken(), after.bytes_taken());
        true
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Removed> {
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
        Some(Removed { key: row.key, namespace: self.leave(&row), has_names: row.names_bytes > 0 })
    }

    fn enter_bytes(&mut self, row: &StoredRow) {
        self.bytes += row.bytes_taken();
        self.namespaces.resize(row.namespace, 0, row.bytes_taken());
    }

    fn leave(&mut self, row: &StoredRow) -> NamespaceId {
        self.bytes -= row.bytes_taken();
        self.namespaces.leave(row.namespace, row.bytes_taken())
    }

    /// Removes those of the next `count` rows under the hand that have ended and are not `spared`.
    pub(super) fn take_ended(&mut self, count: usize, now: UnixSeconds, spared: &[Key]) -> Vec<Removed> {
        let has_ended = |row: &StoredRow| row.end_seen_at(now) <= now && !spared.contains(&row.key);
        let ended: Vec<Key> = self.pass(count).filter(has_ended).map(|row| row.key).collect();
        ended.iter().filter_map(|key| self.remove(key)).collect()
    }

    /// Removes a row that is not `spared`, to make room: of some under the hand, the one that ends first. None if all
    /// are spared.
    pub(super) fn take_one(&mut self, now: UnixSeconds, spared: &[Key]) -> Option<Removed> {
        for _ in 0..=self.rows.len() / SAMPLE {
            let others = self.pass(SAMPLE).filter(|row| !spared.contains(&row.key));
            if let Some(first) = others.min_by_key(|row| row.end_seen_at(now)) {
                return self.remove(&first.key);
            }
        }
        None
    }

    /// The next rows under the hand, which moves past them.
    fn pass(&mut self, count: usize) -> impl Iterator<Item = StoredRow> + use<> {
        let count = count.min(self.rows.len());
        let from = if self.hand < self.rows.len() { self.hand } else { 0 };
        let passed: Vec<StoredRow> = self.rows.iter().cycle().skip(from).take(count).copied().collect();
        self.hand = from + count;
        passed.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::InvalidationId;
    use std::collections::BTreeMap;

    fn row(n: u8, end: u32, bytes: u32) -> Row {
        let mut key = [0; 32];
        key[31] = n;
        // Two keys in three share their prefix.
        key[0] = n % 3;
        Row {
            key: Key(key),
            created: UnixSeconds(0),
            end: UnixSeconds(end),
            bytes,
            namespace: namespace(n % 4),
        }
    }

    fn namespace(n: u8) -> NamespaceId {
        NamespaceId::from_parts(InvalidationId(n.into()), false)
    }

    proptest::proptest! {
        #[test]
        fn it_agrees_with_a_map(steps in proptest::collection::vec((0..5_u8, 0..20_u8, 0..50_u32), 0..200)) {
            let mut index = Index::default();
            let mut map: BTreeMap<Key, Row> = BTreeMap::new();
            let mut names: BTreeMap<Key, u64> = BTreeMap::new();
            for (step, n, number) in steps {
                match step {
                    0 | 1 => {
                        index.put(row(n, number, number));
                        map.insert(row(n, 0, 0).key, row(n, number, number));
                    }
                    2 => {
                        let removed = index.remove(&row(n, 0, 0).key).map(|removed| (removed.key, removed.namespace));
                        names.remove(&row(n, 0, 0).key);
                        assert_eq!(removed, map.remove(&row(n, 0, 0).key).map(|row| (row.key, row.namespace)));
                    }
                    3 => {
                        let key = row(n, 0, 0).key;
                        assert!(!index.put_names(&key, namespace(9), 7), "not of another namespace");
                        if index.put_names(&key, namespace(n % 4), number as u16) {
                            names.insert(key, u64::from(number));
                        }
                    }
                    _ => for Removed { key, .. } in index.take_ended(5, UnixSeconds(number), &[]) {
                        names.remove(&key);
                        assert!(map.remove(&key).unwrap().end <= UnixSeconds(number));
                    },
                }
                assert_eq!(index.len(), map.len());
                let bytes = |row: &Row| u64::from(row.bytes) + names.get(&row.key).copied().unwrap_or(0);
                assert_eq!(index.bytes(), map.values().map(bytes).sum::<u64>());
                let mut counted: Vec<_> = index.namespaces().all().map(|c| (c.id, c.entries, c.bytes)).collect();
                counted.sort();
                let expected = (0..4).map(namespace).filter_map(|id| {
                    let rows: Vec<&Row> = map.values().filter(|row| row.namespace == id).collect();
                    (!rows.is_empty()).then(|| (id, rows.len() as u64, rows.into_iter().map(bytes).sum::<u64>()))
                });
                assert_eq!(counted, expected.collect::<Vec<_>>());
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
        let taken: Vec<Key> =
            (0..3).filter_map(|_| index.take_one(now, &[])).map(|taken| taken.key).collect();
        assert!(taken.contains(&ahead.key), "one of each sample goes, and the samples meet every row");
        index.put(ahead);
        let swept: Vec<Key> =
            (0..5).flat_map(|_| index.take_ended(10, now, &[])).map(|taken| taken.key).collect();
        assert_eq!(swept, [ahead.key]);
    }

    #[test]
    fn the_hand_meets_every_row() {
        let mut index = Index::default();
        (0..100).for_each(|n| index.put(row(n, u32::from(n), 1)));
        let taken: usize = (0..20).map(|_| index.take_ended(10, UnixSeconds(50), &[]).len()).sum();
        assert_eq!((taken, index.len()), (51, 49));
        let last = row(99, 0, 0).key;
        let all: Vec<Removed> = std::iter::from_fn(|| index.take_one(UnixSeconds(0), &[last])).collect();
        assert!(all.len() == 48 && index.contains(&last), "all but the spared one go");
    }
}
