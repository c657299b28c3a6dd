//! The store on real files: what is put is found, also after a restart; the budget holds; the directory is locked.

use std::sync::Arc;

use likewise::domain::Entry;
use likewise::error::Kind;
use likewise::storage::{DataDirectory, Durability, Options, OsFiles, ReadMode};

use super::{Fixture, TempDir, entry, key, small_options, version_of, wait};

#[test]
fn entries_are_found_and_found_again_after_a_restart() {
    for read in [ReadMode::Mmap, ReadMode::Pread] {
        let dir = TempDir::new("restart");
        let fixture = Fixture::new(OsFiles, Options { read, ..small_options(16, 1600) });
        let (store, _) = fixture.open(dir.path()).unwrap();
        let entries: Vec<_> = (0..100).map(|n| (key(n), entry(n, 1536, 5000))).collect();
        wait(store.put_many(entries, None)).unwrap();
        for round in 0..3 {
            for n in 0..100 {
                assert!(store.contains(&key(n)));
                assert_eq!(version_of(&store.get(&key(n)).unwrap().unwrap()), n, "round {round}");
            }
            assert!(store.get(&key(100)).unwrap().is_none());
        }
        drop(store);
        let (store, report) = fixture.open(dir.path()).unwrap();
        assert_eq!(
            (report.entries, report.segments, report.bad_slots, report.rebuilt_indexes),
            (100, 7, 0, 0)
        );
        assert!(!report.is_manifest_rebuilt && report.ignored_files.is_empty());
        for n in 0..100 {
            assert_eq!(version_of(&store.get(&key(n)).unwrap().unwrap()), n);
        }
    }
}

#[test]
fn an_unsealed_segment_is_filled_up_after_a_restart() {
    let dir = TempDir::new("fill");
    let fixture = Fixture::new(OsFiles, small_options(64, 128));
    for n in 0..50 {
        let (store, _) = fixture.open(dir.path()).unwrap();
        wait(store.put_many(vec![(key(n), entry(n, 64, 5000))], Some(Durability::Sync))).unwrap();
    }
    let (_store, report) = fixture.open(dir.path()).unwrap();
    assert_eq!((report.entries, report.segments), (50, 1));
}

#[test]
fn the_latest_entry_of_a_key_wins_whatever_its_length() {
    let dir = TempDir::new("lengths");
    let fixture = Fixture::new(OsFiles, small_options(64, 192));
    let (store, _) = fixture.open(dir.path()).unwrap();
    for version in 0..20 {
        let payload_bytes = if version % 2 == 0 { 64 } else { 128 };
        wait(store.put_many(vec![(key(1), entry(version, payload_bytes, 5000))], None)).unwrap();
        assert_eq!(version_of(&store.get(&key(1)).unwrap().unwrap()), version);
    }
    drop(store);
    let (store, _) = fixture.open(dir.path()).unwrap();
    assert_eq!(version_of(&store.get(&key(1)).unwrap().unwrap()), 19);
}

#[test]
fn what_was_used_since_its_segment_was_sealed_outlives_it() {
    let dir = TempDir::new("budget");
    let mut options = small_options(20, 128);
    options.bytes_max = options.segment_bytes * 5;
    let fixture = Fixture::new(OsFiles, options.clone());
    let (store, _) = fixture.open(dir.path()).unwrap();
    let put = |n: u64| wait(store.put_many(vec![(key(n), entry(n, 64, 1_000_000))], None)).unwrap();
    (0..21).for_each(put);
    for n in 21..400 {
        fixture.clock.advance(1);
        assert!(store.get(&key(3)).unwrap().is_some(), "used all the time, lost at {n}");
        put(n);
        assert!(store.stats().bytes_on_disk <= options.bytes_max, "over the budget at {n}");
        assert!(store.get(&key(n)).unwrap().is_some());
    }
    assert!(store.get(&key(4)).unwrap().is_none(), "never used, and its segment has gone");
    assert!(store.stats().segments <= 5);
    drop(store);
    let (store, report) = fixture.open(dir.path()).unwrap();
    assert!(report.ignored_files.is_empty() && report.missing_segments.is_empty());
    assert!(store.get(&key(3)).unwrap().is_some());
}

#[test]
fn an_expired_entry_is_a_miss_and_does_not_uncover_an_older_one() {
    let dir = TempDir::new("expiry");
    let fixture = Fixture::new(OsFiles, small_options(4, 128));
    let (store, _) = fixture.open(dir.path()).unwrap();
    wait(store.put_many(vec![(key(1), entry(1, 64, 9000))], None)).unwrap();
    wait(store.put_many(vec![(key(1), entry(2, 64, 2000))], None)).unwrap();
    fixture.clock.advance(999);
    assert_eq!(version_of(&store.get(&key(1)).unwrap().unwrap()), 2);
    fixture.clock.advance(1);
    assert!(!store.contains(&key(1)));
    assert!(store.get(&key(1)).unwrap().is_none());
    drop(store);
    let (store, report) = fixture.open(dir.path()).unwrap();
    assert_eq!(report.entries, 0);
    assert!(store.get(&key(1)).unwrap().is_none());
}

#[test]
fn many_writers_share_commits_and_each_finds_its_entry() {
    let dir = TempDir::new("writers");
    let fixture = Fixture::new(OsFiles, small_options(100, 128));
    let (store, _) = fixture.open(dir.path()).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let store = &store;
            scope.spawn(move || {
                for n in 0..50 {
                    let n = writer * 1000 + n;
                    let durability = if n % 2 == 0 { Durability::Sync } else { Durability::Async };
                    wait(store.put_many(vec![(key(n), entry(n, 64, 5000))], Some(durability))).unwrap();
                    assert_eq!(version_of(&store.get(&key(n)).unwrap().unwrap()), n);
                }
            });
        }
    });
    assert_eq!(store.stats().entries, 400);
    assert_eq!(store.stats().queued_bytes, 0);
}

#[test]
fn a_put_longer_than_the_queue_passes_and_a_dropped_one_tears_nothing() {
    let dir = TempDir::new("queue");
    let fixture = Fixture::new(OsFiles, Options { queue_bytes_max: 4096, ..small_options(1000, 128) });
    let (store, _) = fixture.open(dir.path()).unwrap();
    let many = |from: u64| (from..from + 500).map(|n| (key(n), entry(n, 64, 5000))).collect::<Vec<_>>();
    wait(store.put_many(many(0), None)).unwrap();
    let future = store.put_many(many(1000), None);
    let mut future = Box::pin(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let _ = future.as_mut().poll(&mut context);
    drop(future);
    wait(store.flush()).unwrap();
    assert_eq!(store.stats().entries, 1000, "it was queued, so it was written");
}

#[test]
fn entries_that_do_not_fit_are_refused_and_nothing_of_the_call_is_written() {
    let dir = TempDir::new("refused");
    let fixture = Fixture::new(OsFiles, small_options(4, 128));
    let (store, _) = fixture.open(dir.path()).unwrap();
    let good = (key(1), entry(1, 64, 5000));
    let empty = Arc::new(Entry { value: Arc::from([]), ..(*entry(2, 64, 5000)).clone() });
    let refused = |bad| wait(store.put_many(vec![good.clone(), (key(2), bad)], None)).unwrap_err().kind();
    assert_eq!(refused(empty), Kind::InvalidInput);
    assert_eq!(refused(entry(3, 4096, 5000)), Kind::TooLarge);
    let mut tagged = (*entry(4, 64, 5000)).clone();
    tagged.meta.content_type = "text/plain".into();
    assert_eq!(refused(Arc::new(tagged)), Kind::InvalidInput);
    assert_eq!(store.stats().entries, 0);
    assert!(store.stats().is_on);
}

#[test]
fn after_shutdown_puts_are_refused_and_gets_still_work() {
    let dir = TempDir::new("shutdown");
    let fixture = Fixture::new(OsFiles, small_options(4, 128));
    let (store, _) = fixture.open(dir.path()).unwrap();
    wait(store.put_many(vec![(key(1), entry(1, 64, 5000))], None)).unwrap();
    store.shutdown();
    store.shutdown();
    let refused = wait(store.put_many(vec![(key(2), entry(2, 64, 5000))], None)).unwrap_err();
    assert_eq!(refused.kind(), Kind::Unavailable);
    assert!(store.get(&key(1)).unwrap().is_some());
}

#[test]
fn a_removed_entry_is_forgotten_until_the_next_start() {
    let dir = TempDir::new("removed");
    let fixture = Fixture::new(OsFiles, small_options(4, 128));
    let (store, _) = fixture.open(dir.path()).unwrap();
    wait(store.put_many(vec![(key(1), entry(1, 64, 5000))], None)).unwrap();
    assert!(store.remove(&key(1)) && !store.remove(&key(1)));
    assert!(store.get(&key(1)).unwrap().is_none());
}

#[test]
fn a_data_directory_has_one_user_and_refuses_newer_formats() {
    let dir = TempDir::new("directory");
    let held = DataDirectory::open(dir.path()).unwrap();
    let second = DataDirectory::open(dir.path()).unwrap_err();
    assert_eq!(second.kind(), Kind::Locked);
    assert!(second.to_string().contains("LOCK"), "{second}");
    drop(held);
    DataDirectory::open(dir.path()).unwrap();
    fs_err::write(dir.path().join("FORMAT"), "likewise 2\n").unwrap();
    assert_eq!(DataDirectory::open(dir.path()).unwrap_err().kind(), Kind::Format);
    let file = dir.path().join("a-file");
    fs_err::write(&file, "").unwrap();
    assert_eq!(DataDirectory::open(&file).unwrap_err().kind(), Kind::Io);
}
