//! The store of objects: what is put is found, also after a restart; the budget holds; damage and a full disk are misses
//! and errors, never another value.

use std::path::Path;
use std::sync::Arc;

use likewise::cache::entry_codec;
use likewise::domain::{
    Codec, Entry, EntryMeta, EntryNames, InvalidationId, Key, ManualClock, NamespaceId, TagToken, UnixSeconds,
};
use likewise::error::{Kind, Result};
use likewise::metrics::unexported;
use likewise::storage::objects::{Options, Position, Record, ScanScope};
use likewise::storage::records::RECORDS_NAME;
use likewise::storage::{ObjectStore, Records};

use super::full_disk::tmpfs;
use super::{TempDir, bytes_of, key, wait};

fn open(dir: &Path, bytes_max: u64) -> Result<(ObjectStore, Arc<ManualClock>)> {
    let clock = Arc::new(ManualClock::at(UnixSeconds(1000)));
    let records = Arc::new(Records::open(dir)?);
    let store = ObjectStore::open(records, &Options { bytes_max }, Arc::clone(&clock) as _, unexported())?;
    Ok((store, clock))
}

fn namespace(n: u64) -> NamespaceId {
    NamespaceId::from_parts(InvalidationId(n), false)
}

fn object(version: u64, bytes: usize, ends: u32) -> Arc<Entry> {
    let mut value = bytes_of(version, bytes);
    value[..8].copy_from_slice(&version.to_le_bytes());
    let meta = EntryMeta {
        tags: [TagToken { tag: InvalidationId(version), token: 2 }].into(),
        content_type: "text/plain".into(),
        validator: u128::from(version) << 64,
        namespace: namespace(3),
        epoch: 4,
        ..EntryMeta::ending(Codec::Raw, UnixSeconds(1000), UnixSeconds(ends))
    };
    Arc::new(Entry { meta, value: value.into() })
}

fn record(n: u64, object: &Entry) -> (Key, Record) {
    (key(n), entry_codec::encode(&key(n), object).unwrap())
}

fn put(store: &ObjectStore, n: u64, object: Arc<Entry>) -> Result<()> {
    wait(store.put_many(vec![record(n, &object)]))
}

fn get(store: &ObjectStore, n: u64) -> Result<Option<Entry>> {
    Ok(store.get(&key(n))?.map(|record| entry_codec::decode(&record).unwrap()))
}

fn meta(store: &ObjectStore, n: u64) -> Option<EntryMeta> {
    store.head(&key(n)).unwrap().map(|head| entry_codec::decode_head(&head).unwrap())
}

fn count(store: &ObjectStore, is_wanted: impl Fn(&EntryMeta) -> bool) -> u64 {
    let (mut count, mut after) = (0, None);
    loop {
        let mut visit = |head: &[u8]| count += u64::from(is_wanted(&entry_codec::decode_head(head).unwrap()));
        after = store.visit_heads(after, &mut visit).unwrap();
        if after.is_none() {
            return count;
        }
    }
}

#[test]
fn objects_are_found_replaced_counted_and_removed_also_after_a_restart() {
    let dir = TempDir::new("objects");
    {
        let (store, _) = open(dir.path(), 1 << 30).unwrap();
        wait(store.put_many((0..10).map(|n| record(n, &object(n, 100, 9000))).collect())).unwrap();
        put(&store, 3, object(33, 5000, 9000)).unwrap();
        wait(store.remove_many(&[key(4), key(400)])).unwrap();
    }
    let (store, _) = open(dir.path(), 1 << 30).unwrap();
    assert_eq!(store.stats().entries, 9);
    assert_eq!(get(&store, 3).unwrap(), Some((*object(33, 5000, 9000)).clone()));
    assert_eq!(get(&store, 4).unwrap(), None);
    assert_eq!(count(&store, |meta| meta.tags[0].tag == InvalidationId(33)), 1);
    assert_eq!(count(&store, |meta| meta.namespace == namespace(3)), 9);
    assert_eq!(count(&store, |meta| meta.namespace == namespace(5)), 0);
    assert_eq!(meta(&store, 3), Some(object(33, 5000, 9000).meta.clone()));
    assert_eq!(meta(&store, 4), None);
}

#[test]
fn the_budget_holds_and_what_ends_soonest_goes_first() {
    let dir = TempDir::new("objects-budget");
    let (store, clock) = open(dir.path(), 100_000).unwrap();
    for n in 0..300 {
        put(&store, n, object(n, 1000, if n.is_multiple_of(2) { 2000 } else { 9000 })).unwrap();
        assert!(store.stats().bytes <= 100_000, "after {n}: {:?}", store.stats());
        assert!(get(&store, n).unwrap().is_some(), "what was just put is there");
    }
    let lasting = (0..300).filter(|n| n % 2 == 1 && store.contains(&key(*n))).count();
    let passing = (0..300).filter(|n| n % 2 == 0 && store.contains(&key(*n))).count();
    assert!(lasting > 3 * passing, "{lasting} that last, {passing} that pass");
    clock.advance(2000);
    (300..340).for_each(|n| put(&store, n, object(n, 1000, 9000)).unwrap());
    assert_eq!((0..300).filter(|n| n % 2 == 0 && store.contains(&key(*n))).count(), 0, "the ended are swept");
    assert_eq!(put(&store, 1, object(1, 20_000, 9000)).unwrap_err().kind(), Kind::TooLarge);
}

#[test]
fn a_flipped_byte_is_a_value_or_a_miss_or_a_file_that_does_not_open() {
    let dir = TempDir::new("objects-flipped");
    {
        let (store, _) = open(dir.path(), 1 << 30).unwrap();
        (0..64).for_each(|n| put(&store, n, object(n, 500, 9000)).unwrap());
    }
    let path = dir.path().join(RECORDS_NAME);
    let whole = fs_err::read(&path).unwrap();
    let header = fs_err::read(path.with_extension("header")).unwrap();
    let holds = |at: &usize| whole[*at] != 0;
    let (mut opened, mut missed) = (0, 0);
    for at in (0..whole.len()).filter(holds).step_by(97) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs_err::write(&path, &bytes).unwrap();
        fs_err::write(path.with_extension("header"), &header).unwrap();
        let Ok((store, _)) = open(dir.path(), 1 << 30) else { continue };
        opened += 1;
        for n in 0..64 {
            match get(&store, n) {
                Ok(Some(found)) => assert_eq!(found, *object(n, 500, 9000), "byte {at}"),
                Ok(None) | Err(_) => missed += 1,
            }
        }
    }
    assert!(opened > 100 && missed > 50, "{opened} opened, {missed} missed");
}

#[test]
fn a_full_disk_turns_the_store_off_and_loses_nothing() {
    let dir = TempDir::new("objects-full");
    let Some(_mounted) = tmpfs(dir.path(), "8m") else { return };
    let (store, _) = open(dir.path(), 1 << 30).unwrap();
    let mut acknowledged = 0;
    let error = loop {
        match put(&store, acknowledged, object(acknowledged, 30_000, 9000)) {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), Kind::DiskFull);
    assert!(acknowledged >= 20, "{acknowledged}");
    assert!(!store.stats().is_on);
    assert_eq!(get(&store, 0).unwrap(), None, "what the disk holds is not known");
    assert_eq!(put(&store, 0, object(0, 8, 9000)).unwrap_err().kind(), Kind::Unavailable);
    drop(store);
    let (store, _) = open(dir.path(), 1 << 30).unwrap();
    for n in 0..acknowledged {
        let found = get(&store, n).unwrap();
        assert!(found.is_some_and(|found| found == *object(n, 30_000, 9000)), "object {n}");
    }
}

fn put_named(store: &ObjectStore, n: u64, bytes: usize) {
    let names = EntryNames { namespace: "shop".into(), key: format!("key {n}"), tags: vec!["a".into()] };
    let (key, record) = record(n, &object(n, bytes, 9000));
    wait(store.put_named(key, record, &names)).unwrap();
}

/// The names of all objects, read in parts of three records.
fn scanned(store: &ObjectStore) -> Vec<String> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let part = store.scan(&ScanScope::Namespace(namespace(3)), after, 3).unwrap();
        assert!(part.objects.len() <= 3 && part.objects.is_sorted_by_key(|object| object.position));
        found.extend(part.objects.into_iter().map(|object| object.names.key));
        after = part.last;
        if after.is_none() {
            found.sort();
            return found;
        }
    }
}

/// Records in the table of names.
fn stored_names(dir: &Path) -> usize {
    Records::open(dir).unwrap().range("object_names", &[], 10_000).unwrap().len()
}

#[test]
fn names_are_scanned_once_and_leave_with_their_object() {
    let dir = TempDir::new("object-names");
    let bytes = {
        let (store, _) = open(dir.path(), 1 << 30).unwrap();
        (0..10).for_each(|n| put_named(&store, n, 100));
        put(&store, 3, object(33, 500, 9000)).unwrap();
        put(&store, 10, object(10, 100, 9000)).unwrap();
        wait(store.remove_many(&[key(4)])).unwrap();
        let names: Vec<String> = [0, 1, 2, 3, 5, 6, 7, 8, 9].map(|n| format!("key {n}")).into();
        assert_eq!(scanned(&store), names, "what is rewritten keeps its names; what has none is not scanned");
        let other = ScanScope::Namespace(namespace(4));
        assert!(store.scan(&other, None, 100).unwrap().objects.is_empty());
        let count = store.namespaces();
        assert_eq!((count.len(), count[0].entries, count[0].bytes), (1, 10, store.stats().bytes));
        store.stats().bytes
    };
    assert_eq!(stored_names(dir.path()), 9);
    let (store, _) = open(dir.path(), 1 << 30).unwrap();
    assert_eq!(
        (scanned(&store).len(), store.stats().bytes),
        (9, bytes),
        "names are counted after a restart too"
    );
}

#[test]
fn evicted_objects_leave_no_names_and_names_of_no_object_are_removed_at_the_next_start() {
    let dir = TempDir::new("object-names");
    {
        let (store, _) = open(dir.path(), 100_000).unwrap();
        (0..200).for_each(|n| put_named(&store, n, 1000));
        let entries = store.stats().entries;
        assert!((20..100).contains(&entries), "{entries}");
        assert_eq!(scanned(&store).len() as u64, entries);
    }
    let before = stored_names(dir.path());
    {
        let records = Records::open(dir.path()).unwrap();
        for (n, of) in [(1000, 3), (199, 4)] {
            let position = Position::of(namespace(of), &key(n));
            wait(records.put("object_names", position.as_bytes(), b"left")).unwrap();
        }
    }
    drop(open(dir.path(), 100_000).unwrap());
    assert_eq!(stored_names(dir.path()), before);
}
