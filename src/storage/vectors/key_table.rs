//! The table in memory: from a key's prefix to the slot that holds its entry.
//!
//! A bucket takes 24 bytes and one of control, and a table is between 7/16 and 7/8 full, so an entry costs 29 to 58
//! bytes. Two keys with one prefix would share a bucket: the later one wins it, and the reader, who compares the whole
//! key, finds a miss for the other.

use std::sync::Mutex;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::domain::UnixSeconds;
use crate::sync::lock;

/// Shards bound what one insertion may have to move when its shard grows.
const SHARDS: usize = 64;

/// Where an entry lies, and what must be known of it without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Location {
    /// [`crate::domain::Key::prefix`] of the key.
    pub prefix: u64,
    pub segment: u32,
    pub slot: u32,
    pub expires: UnixSeconds,
    pub last_used: UnixSeconds,
}

impl Location {
    fn is_at(&self, segment: u32, slot: u32) -> bool {
        self.segment == segment && self.slot == slot
    }
}

/// The table. All operations are short; none does I/O.
#[derive(Debug)]
pub(crate) struct Table {
    shards: Box<[Mutex<HashTable<Location>>]>,
}

impl Table {
    pub(super) fn new() -> Table {
        Table { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    /// Where the key lies.
    pub(super) fn find(&self, prefix: u64) -> Option<Location> {
        lock(self.shard(prefix)).find(prefix, |found| found.prefix == prefix).copied()
    }

    /// Where the key lies, noting that it was used at `now`. The location returned still holds the use before.
    pub(super) fn find_used(&self, prefix: u64, now: UnixSeconds) -> Option<Location> {
        let mut shard = lock(self.shard(prefix));
        let found = shard.find_mut(prefix, |found| found.prefix == prefix)?;
        let before = *found;
        found.last_used = now;
        Some(before)
    }

    /// Puts the key at a location, instead of where it was.
    pub(super) fn insert(&self, location: Location) {
        insert(&mut lock(self.shard(location.prefix)), location);
    }

    /// Puts many keys at their locations, later ones instead of earlier ones, and then keeps those that `is_kept`
    /// accepts. Cost: goes shard by shard, so that each is in the processor's cache while it is filled.
    pub(super) fn fill(&self, batch: Batch, is_kept: impl Fn(&Location) -> bool) {
        for (shard, locations) in self.shards.iter().zip(batch.shards) {
            let mut shard = lock(shard);
            shard.reserve(locations.len(), |found| found.prefix);
            locations.into_iter().for_each(|location| insert(&mut shard, location));
            shard.retain(|location| is_kept(location));
            let entries = shard.len();
            shard.shrink_to(entries, |found| found.prefix);
        }
    }

    /// Forgets the key. Returns whether it was there.
    pub(super) fn remove(&self, prefix: u64) -> bool {
        self.remove_where(prefix, |_| true)
    }

    /// Forgets the key if it still lies where it did.
    pub(super) fn remove_at(&self, prefix: u64, segment: u32, slot: u32) -> bool {
        self.remove_where(prefix, |found| found.is_at(segment, slot))
    }

    fn remove_where(&self, prefix: u64, is_meant: impl Fn(&Location) -> bool) -> bool {
        let mut shard = lock(self.shard(prefix));
        shard
            .find_entry(prefix, |found| found.prefix == prefix && is_meant(found))
            .map(|occupied| occupied.remove())
            .is_ok()
    }

    /// Keeps the locations that `is_kept` accepts. Returns how many went. Cost: one pass over the table.
    pub(super) fn retain(&self, is_kept: impl Fn(&Location) -> bool) -> u64 {
        let mut removed = 0;
        for shard in &self.shards {
            let mut shard = lock(shard);
            let before = shard.len();
            shard.retain(|location| is_kept(location));
            removed += before.saturating_sub(shard.len()) as u64;
        }
        removed
    }

    /// All locations that `is_wanted` accepts. Cost: one pass over the table.
    pub(super) fn collect(&self, is_wanted: impl Fn(&Location) -> bool) -> Vec<Location> {
        let mut wanted = Vec::new();
        for shard in &self.shards {
            wanted.extend(lock(shard).iter().filter(|location| is_wanted(location)));
        }
        wanted
    }

    pub(super) fn entries(&self) -> u64 {
        self.shards.iter().map(|shard| lock(shard).len() as u64).sum()
    }

    fn shard(&self, prefix: u64) -> &Mutex<HashTable<Location>> {
        &self.shards[shard_of(prefix)]
    }
}

/// Locations that are about to fill a table, sorted by its shards.
#[derive(Debug)]
pub(super) struct Batch {
    shards: Vec<Vec<Location>>,
}

impl Batch {
    pub(super) fn new() -> Batch {
        Batch { shards: vec![Vec::new(); SHARDS] }
    }

    pub(super) fn push(&mut self, location: Location) {
        self.shards[shard_of(location.prefix)].push(location);
    }
}

/// The prefix is a good hash as it is. hashbrown uses its lowest and its topmost bits, the shards some between.
fn shard_of(prefix: u64) -> usize {
    usize::try_from((prefix >> 40) % SHARDS as u64).unwrap_or_default()
}

fn insert(shard: &mut HashTable<Location>, location: Location) {
    let prefix = location.prefix;
    match shard.entry(prefix, |found| found.prefix == prefix, |found| found.prefix) {
        Entry::Occupied(mut occupied) => *occupied.get_mut() = location,
        Entry::Vacant(vacant) => {
            vacant.insert(location);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(prefix: u64, segment: u32, slot: u32) -> Location {
        Location { prefix, segment, slot, expires: UnixSeconds(9), last_used: UnixSeconds(0) }
    }

    #[test]
    fn a_location_takes_24_bytes() {
        assert_eq!(size_of::<Location>(), 24);
    }

    #[test]
    fn the_latest_location_of_a_key_counts() {
        let table = Table::new();
        table.insert(location(1, 1, 1));
        table.insert(location(1, 2, 7));
        assert_eq!(table.find(1).unwrap().segment, 2);
        assert_eq!(table.entries(), 1);
        assert!(!table.remove_at(1, 1, 1), "it lies elsewhere by now");
        assert!(table.remove_at(1, 2, 7));
        assert!(table.find(1).is_none());
    }

    #[test]
    fn a_use_is_noted_and_the_one_before_is_returned() {
        let table = Table::new();
        table.insert(location(1, 1, 1));
        assert_eq!(table.find_used(1, UnixSeconds(5)).unwrap().last_used, UnixSeconds(0));
        assert_eq!(table.find_used(1, UnixSeconds(6)).unwrap().last_used, UnixSeconds(5));
    }

    #[test]
    fn a_filled_table_holds_the_latest_locations_that_are_kept() {
        let (table, mut batch) = (Table::new(), Batch::new());
        batch.push(location(1, 1, 1));
        batch.push(location(2, 1, 2));
        batch.push(location(1, 2, 3));
        table.fill(batch, |location| location.slot != 2);
        assert_eq!(table.collect(|_| true), [location(1, 2, 3)]);
    }

    #[test]
    fn retain_tells_how_many_went() {
        let table = Table::new();
        for n in 0..100 {
            table.insert(location(n << 40, (n % 2) as u32, 0));
        }
        assert_eq!(table.retain(|location| location.segment == 1), 50);
        assert_eq!(table.collect(|_| true).len(), 50);
    }
}
