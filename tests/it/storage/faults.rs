//! Goal: an I/O error at any call costs at most what was not acknowledged. Method: one workload, run once for every
//! call that it makes, with that call failing: once, twice, or for good, with `EIO` or a full disk.

use std::collections::BTreeMap;
use std::path::Path;

use likewise::error::Kind;
use likewise::storage::files::recording::{Fault, RecordingFiles};
use likewise::storage::{Durability, VectorStore};

use super::{Fixture, entry, key, small_options, version_of, wait};

const DIR: &str = "/d";
const PUTS: u64 = 30;

fn fixture(files: &RecordingFiles) -> Fixture {
    Fixture::new(files.clone(), small_options(4, 128))
}

/// Puts one entry after the other. Returns those that were acknowledged, with what they were promised.
fn run(store: &VectorStore) -> BTreeMap<u64, Durability> {
    let mut acknowledged = BTreeMap::new();
    for n in 0..PUTS {
        let durability = if n % 2 == 0 { Durability::Sync } else { Durability::Async };
        let was_on = store.stats().is_on;
        match wait(store.put_many(vec![(key(n), entry(n, 64, 5000))], Some(durability))) {
            Ok(()) => {
                acknowledged.insert(n, durability);
            }
            Err(error) => {
                assert!(matches!(error.kind(), Kind::Io | Kind::DiskFull | Kind::Unavailable), "{error:?}");
                assert!(was_on || error.kind() == Kind::Unavailable);
                assert!(
                    store.get(&key(n)).is_ok_and(|found| found.is_none()),
                    "not acknowledged, not visible"
                );
            }
        }
    }
    acknowledged
}

/// Every entry that is found is right. Returns which are found.
fn found(store: &VectorStore) -> Vec<u64> {
    let right = |&n: &u64| store.get(&key(n)).ok().flatten().is_some_and(|found| version_of(&found) == n);
    (0..PUTS).filter(right).collect()
}

fn with_fault(call: usize, fault: Fault, count: usize) {
    let files = RecordingFiles::new();
    files.fail_at(call, fault, count);
    let fixture = fixture(&files);
    let Ok((store, _)) = fixture.open(Path::new(DIR)) else { return };
    let acknowledged = run(&store);
    // From here on the disk works again, so that what is missing was lost.
    files.fail_at(usize::MAX, fault, 0);
    let is_on = store.stats().is_on;
    if fault == Fault::Io && count == 1 {
        assert!(is_on, "one failure does not turn the store off");
        assert!(acknowledged.len() as u64 >= PUTS - 1);
    }
    if is_on {
        let found = found(&store);
        assert!(acknowledged.keys().all(|n| found.contains(n)), "call {call}: {acknowledged:?} {found:?}");
    } else {
        assert!(fixture.metrics.failed_segments.get() > 0);
        assert!(found(&store).is_empty(), "a store that is off answers with misses");
    }
    drop(store);
    for (image, is_power_cut) in [(files.live_image(), false), (files.durable_image(), true)] {
        let other = RecordingFiles::from_image(&image);
        let reopened = self::fixture(&other).open(Path::new(DIR)).unwrap().0;
        let found = found(&reopened);
        for (n, durability) in &acknowledged {
            let is_promised = !is_power_cut || *durability == Durability::Sync;
            assert!(
                !is_promised || found.contains(n),
                "call {call}, {fault:?}, {count}: {n} {durability:?} lost"
            );
        }
    }
}

#[test]
fn a_failing_call_costs_nothing_that_was_acknowledged() {
    let files = RecordingFiles::new();
    let (store, _) = fixture(&files).open(Path::new(DIR)).unwrap();
    assert_eq!(run(&store).len() as u64, PUTS);
    let calls = files.calls();
    for call in 0..calls {
        for fault in [Fault::Io, Fault::Full] {
            for count in [1, 2, usize::MAX] {
                with_fault(call, fault, count);
            }
        }
    }
}

#[test]
fn a_read_error_while_opening_hides_a_segment_and_harms_nothing() {
    let files = RecordingFiles::new();
    let (store, _) = fixture(&files).open(Path::new(DIR)).unwrap();
    run(&store);
    drop(store);
    let image = files.live_image();
    let whole = RecordingFiles::from_image(&image);
    drop(fixture(&whole).open(Path::new(DIR)).unwrap());
    for call in 0..whole.calls() {
        let failing = RecordingFiles::from_image(&image);
        failing.fail_at(call, Fault::Io, 1);
        if let Ok((store, _)) = fixture(&failing).open(Path::new(DIR)) {
            found(&store);
        }
        let again = RecordingFiles::from_image(&failing.live_image());
        let (store, _) = fixture(&again).open(Path::new(DIR)).unwrap();
        assert_eq!(found(&store).len() as u64, PUTS, "call {call}");
    }
}

#[test]
fn a_failed_flush_is_not_tried_again_and_its_segment_takes_no_more_slots() {
    let files = RecordingFiles::new();
    let fixture = fixture(&files);
    let (store, _) = fixture.open(Path::new(DIR)).unwrap();
    let put = |n| wait(store.put_many(vec![(key(n), entry(n, 64, 5000))], Some(Durability::Sync)));
    put(0).unwrap();
    files.fail_at(files.calls() + 1, Fault::Io, 1);
    assert_eq!(put(1).unwrap_err().kind(), Kind::Io);
    assert!(store.get(&key(1)).unwrap().is_none());
    assert!(store.get(&key(0)).unwrap().is_some());
    put(2).unwrap();
    assert_eq!(store.stats().segments, 2);
    assert_eq!(fixture.metrics.failed_segments.get(), 1);
    files.fail_at(files.calls() + 1, Fault::Io, 1);
    put(3).unwrap_err();
    assert!(!store.stats().is_on);
    assert_eq!(put(4).unwrap_err().kind(), Kind::Unavailable);
    assert!(store.get(&key(0)).unwrap().is_none());
}
