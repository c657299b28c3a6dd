//! Goal: `verify` finds every kind of damage and only damage, and `repair` sets it right without deleting anything.

use std::path::Path;

use likewise::error::Kind;
use likewise::storage::verify::{repair, verify};
use likewise::storage::{DataDirectory, OsFiles, Records};

use super::{Fixture, TempDir, entry, key, small_options, wait};

/// A data directory with two sealed segments, one that is not, and a record.
fn data(name: &str) -> TempDir {
    let dir = TempDir::new(name);
    let held = DataDirectory::open(dir.path()).unwrap();
    let (store, _) = Fixture::new(OsFiles, small_options(64, 128)).open(&held.vectors()).unwrap();
    wait(store.put_many((0..150).map(|n| (key(n), entry(n, 64, u32::MAX))).collect(), None)).unwrap();
    let records = Records::open(&held.records()).unwrap();
    wait(records.put("jobs", b"a", b"b")).unwrap();
    dir
}

fn cut(path: &Path, bytes: u64) {
    fs_err::OpenOptions::new().write(true).open(path).unwrap().set_len(bytes).unwrap();
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs_err::read(path).unwrap();
    bytes[at] ^= 1;
    fs_err::write(path, bytes).unwrap();
}

#[test]
fn a_directory_that_was_closed_is_whole() {
    let dir = data("verify-whole");
    let report = verify(dir.path()).unwrap();
    assert!(report.is_whole(), "{report}");
    assert_eq!(report.findings.len(), 8, "{report}");
    assert!(report.to_string().ends_with("8 files checked, 0 damaged"));
}

#[test]
fn each_kind_of_damage_is_found_and_repaired_and_nothing_is_deleted() {
    type Damage = (&'static str, fn(&Path), u64);
    let damages: [Damage; 12] = [
        ("format", |dir| flip(&dir.join("FORMAT"), 3), 150),
        ("manifest", |dir| flip(&dir.join("vectors/MANIFEST"), 30), 150),
        ("index", |dir| flip(&dir.join("vectors/0000000001.idx"), 60), 150),
        ("slot", |dir| flip(&dir.join("vectors/0000000002.seg"), 4096 + 3 * 128 + 70), 149),
        ("newest slot", |dir| flip(&dir.join("vectors/0000000003.seg"), 4096 + 5 * 128 + 70), 149),
        ("last slot", |dir| flip(&dir.join("vectors/0000000003.seg"), 4096 + 21 * 128), 149),
        ("its padding", |dir| flip(&dir.join("vectors/0000000003.seg"), 4096 + 21 * 128 + 127), 149),
        ("cut", |dir| cut(&dir.join("vectors/0000000003.seg"), 4096 + 20 * 128 + 64), 148),
        ("cut behind", |dir| cut(&dir.join("vectors/0000000003.seg"), 4096 + 30 * 128), 150),
        ("header", |dir| flip(&dir.join("vectors/0000000002.seg"), 9), 86),
        ("missing", |dir| fs_err::remove_file(dir.join("vectors/0000000001.seg")).unwrap(), 86),
        ("records", |dir| fs_err::write(dir.join("records/records.redb"), [7; 9000]).unwrap(), 150),
    ];
    for (name, damage, kept) in damages {
        let dir = data(&format!("verify-{name}"));
        damage(dir.path());
        let report = verify(dir.path()).unwrap();
        assert!(!report.is_whole(), "{name}\n{report}");
        let (before, after) = repair(dir.path()).unwrap();
        assert_eq!(before, report);
        assert!(after.is_whole(), "{name}\n{after}");
        let aside = fs_err::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(aside.into_iter().any(|file| file.to_string_lossy().starts_with("damaged-")), "{name}");
        let held = DataDirectory::open(dir.path()).unwrap();
        let (_store, recovery) = Fixture::new(OsFiles, small_options(64, 128)).open(&held.vectors()).unwrap();
        assert_eq!(recovery.entries, kept, "{name}");
        Records::open(&held.records()).unwrap();
    }
}

#[test]
fn every_flipped_bit_of_a_slot_in_the_newest_segment_is_found() {
    let dir = data("verify-bits");
    let path = dir.path().join("vectors/0000000003.seg");
    let whole = fs_err::read(&path).unwrap();
    for at in (0..128).map(|at| 4096 + 7 * 128 + at) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs_err::write(&path, &bytes).unwrap();
        let report = verify(dir.path()).unwrap();
        assert_eq!(report.damaged(), 1, "byte {at}\n{report}");
    }
}

#[test]
fn every_flipped_bit_of_the_format_is_found_or_refused() {
    let dir = data("verify-format-bits");
    let path = dir.path().join("FORMAT");
    let whole = fs_err::read(&path).unwrap();
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs_err::write(&path, &bytes).unwrap();
        match verify(dir.path()) {
            Ok(report) => assert!(!report.is_whole(), "bit {bit}\n{report}"),
            // It reads as a number that is higher, which a later program may have written.
            Err(error) => assert_eq!(error.kind(), Kind::Format, "bit {bit}"),
        }
    }
}

#[test]
fn a_torn_tail_is_no_damage() {
    let dir = TempDir::new("verify-torn-large");
    let held = DataDirectory::open(dir.path()).unwrap();
    let (store, _) = Fixture::new(OsFiles, small_options(64, 1088)).open(&held.vectors()).unwrap();
    wait(store.put_many((0..3).map(|n| (key(n), entry(n, 1024, u32::MAX))).collect(), None)).unwrap();
    drop((store, held));
    let path = dir.path().join("vectors/0000000001.seg");
    let mut bytes = fs_err::read(&path).unwrap();
    let slot = 4096 + 2 * 1088;
    bytes[slot + 512..slot + 1088].fill(0);
    fs_err::write(&path, bytes).unwrap();
    let report = verify(dir.path()).unwrap();
    assert!(report.is_whole(), "{report}");
    assert!(report.to_string().contains("1 slots that a crash has cut off"), "{report}");
}

#[test]
fn the_process_that_holds_a_directory_is_named() {
    let dir = data("verify-holder");
    let _held = DataDirectory::open(dir.path()).unwrap();
    for refused in [verify(dir.path()).unwrap_err(), DataDirectory::open(dir.path()).unwrap_err()] {
        assert_eq!(refused.kind(), Kind::Locked);
        assert!(refused.to_string().contains(&format!("process: {}", std::process::id())), "{refused}");
    }
}

#[test]
fn a_directory_in_use_a_newer_and_a_missing_one_are_refused() {
    let dir = data("verify-refused");
    let held = DataDirectory::open(dir.path()).unwrap();
    assert_eq!(verify(dir.path()).unwrap_err().kind(), Kind::Locked);
    drop(held);
    fs_err::write(dir.path().join("FORMAT"), "likewise 9\n").unwrap();
    assert_eq!(repair(dir.path()).unwrap_err().kind(), Kind::Format);
    assert_eq!(verify(&dir.path().join("nowhere")).unwrap_err().kind(), Kind::NotFound);
}
