//! Goal: `verify` finds every kind of damage and only damage, and `repair` sets it right without deleting anything.

use std::path::Path;
use std::sync::Arc;

use likewise::error::Kind;
use likewise::storage::collections::{Listing, LogFate, Place, Row, RowStore};
use likewise::storage::verify::{Finding, State, repair, verify};
use likewise::storage::{DataDirectory, OsFiles, ReadMode, Records};

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

/// Zeros in a part of a slot of 128 bytes.
fn zero(path: &Path, slot: usize, part: std::ops::Range<usize>) {
    let mut bytes = fs_err::read(path).unwrap();
    bytes[4096 + slot * 128..][part].fill(0);
    fs_err::write(path, bytes).unwrap();
}

#[test]
fn a_directory_that_was_closed_is_whole() {
    let dir = data("verify-whole");
    let report = verify(dir.path()).unwrap();
    assert!(report.is_whole(), "{report}");
    assert_eq!(report.findings.len(), 10, "{report}");
    assert!(report.to_string().ends_with("10 files checked, 0 damaged"));
}

/// A crash between the creation of the log of tokens and its first record.
#[test]
fn an_empty_first_log_of_tokens_is_a_note_and_the_next_start_replaces_it() {
    let dir = data("verify-empty-log");
    let records = dir.path().join("records");
    let log = records.join("versions.0000000001.log");
    fs_err::write(&log, []).unwrap();
    fs_err::remove_file(log.with_extension("end")).unwrap();
    let report = verify(dir.path()).unwrap();
    let found = report.findings.iter().find(|finding| dir.path().join(&finding.file) == log).unwrap();
    assert_eq!((found.state, report.damaged()), (State::Note, 0), "{report}");
    drop(Records::open(&records).unwrap());
    assert!(!log.exists());
    assert!(verify(dir.path()).unwrap().is_whole());
}

#[test]
fn each_kind_of_damage_is_found_and_repaired_and_nothing_is_deleted() {
    type Damage = (&'static str, fn(&Path), u64);
    let damages: [Damage; 16] = [
        ("format", |dir| flip(&dir.join("FORMAT"), 3), 150),
        ("manifest", |dir| flip(&dir.join("vectors/MANIFEST"), 30), 150),
        ("index", |dir| flip(&dir.join("vectors/0000000001.idx"), 60), 150),
        ("slot", |dir| flip(&dir.join("vectors/0000000002.seg"), 4096 + 3 * 128 + 70), 149),
        ("newest slot", |dir| flip(&dir.join("vectors/0000000003.seg"), 4096 + 5 * 128 + 70), 149),
        ("last slot", |dir| flip(&dir.join("vectors/0000000003.seg"), 4096 + 21 * 128), 149),
        ("its padding", |dir| flip(&dir.join("vectors/0000000003.seg"), 4096 + 21 * 128 + 127), 149),
        ("zeroed slot", |dir| zero(&dir.join("vectors/0000000003.seg"), 5, 0..128), 149),
        ("zeroed last slot", |dir| zero(&dir.join("vectors/0000000003.seg"), 21, 0..128), 149),
        ("zeroed half slot", |dir| zero(&dir.join("vectors/0000000003.seg"), 21, 64..128), 149),
        ("mark", |dir| flip(&dir.join("vectors/0000000003.end"), 40), 150),
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
    Records::open(&held.records()).unwrap();
    drop((store, held));
    let path = dir.path().join("vectors/0000000001.seg");
    let mut bytes = fs_err::read(&path).unwrap();
    let slot = 4096 + 2 * 1088;
    bytes[slot + 512..slot + 1088].fill(0);
    fs_err::write(&path, bytes).unwrap();
    let report = verify(dir.path()).unwrap();
    assert!(!report.is_whole(), "it was flushed once: {report}");
    fs_err::remove_file(path.with_extension("end")).unwrap();
    let report = verify(dir.path()).unwrap();
    assert!(report.is_whole(), "{report}");
    assert!(report.to_string().contains("1 slots that a crash has cut off"), "{report}");
}

/// A server that starts behind a crash writes on, and its marks must not cover what the crash has cut off.
#[test]
fn slots_that_a_crash_has_cut_off_are_no_damage_after_the_next_start() {
    let dir = TempDir::new("verify-torn-reopened");
    let open = |n: std::ops::Range<u64>| {
        let held = DataDirectory::open(dir.path()).unwrap();
        let (store, recovery) = Fixture::new(OsFiles, small_options(64, 1088)).open(&held.vectors()).unwrap();
        wait(store.put_many(n.map(|n| (key(n), entry(n, 1024, u32::MAX))).collect(), None)).unwrap();
        Records::open(&held.records()).unwrap();
        recovery.entries
    };
    open(0..5);
    // As if slot 1 had not reached the disk, half of slot 3 had, and none had been flushed.
    let path = dir.path().join("vectors/0000000001.seg");
    let mut bytes = fs_err::read(&path).unwrap();
    let slot = |n: usize| 4096 + n * 1088;
    bytes[slot(1)..slot(2)].fill(0);
    bytes[slot(3) + 512..slot(4)].fill(0);
    fs_err::write(&path, bytes).unwrap();
    fs_err::remove_file(path.with_extension("end")).unwrap();
    assert_eq!(open(10..12), 3);
    assert_eq!(open(12..14), 5);
    let report = verify(dir.path()).unwrap();
    assert!(report.is_whole(), "{report}");
}

/// A segment is in no manifest before it is whole on disk.
#[test]
fn a_segment_whose_creation_was_cut_off_is_no_damage_unless_it_holds_anything() {
    let name = "vectors/0000000099.seg";
    let found = |bytes: &[u8]| {
        let dir = data("verify-creation");
        fs_err::write(dir.path().join(name), bytes).unwrap();
        let report = verify(dir.path()).unwrap();
        report.findings.into_iter().find(|finding| finding.file == Path::new(name)).unwrap().state
    };
    let zeros = vec![0; 4096 + 64 * 128];
    assert_eq!(found(&[]), State::Note);
    assert_eq!(found(&zeros[..3072]), State::Note);
    assert_eq!(found(&zeros), State::Note);
    for at in [4096, zeros.len() - 1] {
        let mut used = zeros.clone();
        used[at] = 1;
        assert_eq!(found(&used), State::Damaged, "byte {at}");
    }
    let dir = data("verify-creation-listed");
    let listed = dir.path().join("vectors/0000000003.seg");
    fs_err::write(&listed, vec![0; zeros.len()]).unwrap();
    assert!(!verify(dir.path()).unwrap().is_whole(), "the manifest names it");
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

/// What each file that is missing is said to be: damage, or why it harms nothing.
#[test]
fn each_file_that_is_missing_is_reported_and_repaired() {
    let mut missing = 0;
    let whole = used("verify-each");
    for file in files(whole.path()) {
        let dir = used("verify-each-missing");
        fs_err::remove_file(dir.path().join(&file)).unwrap();
        let report = verify(dir.path()).unwrap();
        let found = report.findings.iter().filter(|finding| finding.state != State::Whole);
        let found: Vec<_> =
            found.map(|finding| (finding.file.display().to_string(), finding.state)).collect();
        let expected = match file.as_str() {
            // Taken by the check itself.
            "LOCK" => vec![],
            // Derived from the segment, or what tells damage of it from what a crash has cut off.
            "vectors/0000000001.idx"
            | "vectors/0000000002.idx"
            | "vectors/0000000001.end"
            | "vectors/0000000002.end"
            | "vectors/0000000003.end" => vec![(file.clone(), State::Note)],
            "vectors/0000000001.seg" | "vectors/0000000002.seg" | "vectors/0000000003.seg" => {
                vec![("vectors/MANIFEST".into(), State::Damaged)]
            }
            // Copies, and what tells damage from what a crash has cut off: the next start writes them.
            "collections/k.manifest-copy"
            | "collections/k.0000000003.end"
            | "records/records.header"
            | "records/versions.0000000001.log"
            | "records/versions.0000000001.end" => {
                vec![(file.clone(), State::Note)]
            }
            _ => vec![(file.clone(), State::Damaged)],
        };
        let is_there = |expected: &(String, State)| found.contains(expected);
        assert!(expected.iter().all(is_there), "{file}: {found:?}\n{report}");
        assert_eq!(
            report.is_whole(),
            expected.iter().all(|(_, state)| *state == State::Note),
            "{file}\n{report}"
        );
        let (_, after) = repair(dir.path()).unwrap();
        assert!(after.is_whole(), "{file}\n{after}");
        missing += 1;
    }
    assert!(missing >= 13, "{missing} files");
}

/// A directory that has the name of a file, or a file that has that of a directory, is moved aside.
#[test]
fn what_is_no_file_is_reported_and_moved_aside() {
    let whole = used("verify-directories");
    let names = files(whole.path()).into_iter().filter(|file| file != "LOCK");
    for (file, is_empty) in names.flat_map(|file| [(file.clone(), true), (file, false)]) {
        let dir = used("verify-directory");
        let path = dir.path().join(&file);
        fs_err::remove_file(&path).unwrap();
        fs_err::create_dir(&path).unwrap();
        if !is_empty {
            fs_err::write(path.join("inside"), "kept").unwrap();
        }
        let report = verify(dir.path()).unwrap();
        let is_reported =
            |finding: &&Finding| finding.file == Path::new(&file) && finding.state == State::Damaged;
        assert_eq!(report.findings.iter().filter(is_reported).count(), 1, "{file}\n{report}");
        let (_, after) = repair(dir.path()).unwrap();
        assert!(after.is_whole(), "{file}\n{after}");
        assert!(is_empty || kept(dir.path(), &file).join("inside").is_file(), "{file} is moved aside");
        let place = collections(dir.path());
        assert_eq!(place.names().unwrap(), ["k"], "{file}");
        RowStore::open(&place, "k").unwrap();
    }
    for folder in ["vectors", "records", "collections"] {
        let dir = used("verify-folder");
        fs_err::remove_dir_all(dir.path().join(folder)).unwrap();
        fs_err::write(dir.path().join(folder), "no directory").unwrap();
        let report = verify(dir.path()).unwrap();
        assert!(!report.is_whole(), "{folder}\n{report}");
        let (_, after) = repair(dir.path()).unwrap();
        assert!(after.is_whole(), "{folder}\n{after}");
        assert!(kept(dir.path(), folder).is_file());
    }
}

#[test]
fn repairs_in_one_second_move_damage_to_different_places() {
    let dir = used("verify-again");
    for _ in 0..3 {
        flip(&dir.path().join("FORMAT"), 3);
        repair(dir.path()).unwrap();
    }
    let names = fs_err::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let aside = names.filter(|name| name.to_string_lossy().starts_with("damaged-")).count();
    assert_eq!(aside, 3);
}

#[test]
fn a_directory_in_which_nothing_was_stored_is_whole() {
    let dir = TempDir::new("verify-new");
    drop(DataDirectory::open(dir.path()).unwrap());
    assert!(verify(dir.path()).unwrap().is_whole());
    let held = DataDirectory::open(dir.path()).unwrap();
    fs_err::create_dir(held.vectors()).unwrap();
    fs_err::create_dir(held.records()).unwrap();
    drop(held);
    let report = verify(dir.path()).unwrap();
    assert!(report.is_whole(), "{report}");
    // The same without its records, once something was stored.
    let dir = used("verify-empty-records");
    fs_err::write(dir.path().join("records/records.redb"), "").unwrap();
    assert!(!verify(dir.path()).unwrap().is_whole());
}

/// Files of a collection of which neither the manifest nor its copy is left.
#[test]
fn what_is_left_of_a_collection_without_manifest_is_reported_and_moved_aside() {
    let dir = used("verify-orphans");
    for what in ["manifest", "manifest-copy"] {
        fs_err::remove_file(dir.path().join(format!("collections/k.{what}"))).unwrap();
    }
    let report = verify(dir.path()).unwrap();
    assert_eq!(report.damaged(), 2, "{report}");
    let (_, after) = repair(dir.path()).unwrap();
    assert!(after.is_whole(), "{after}");
    assert!(kept(dir.path(), "collections/k.0000000003.log").is_file());
}

/// A data directory in which everything was used that a store can write.
fn used(name: &str) -> TempDir {
    let dir = data(name);
    let place = collections(dir.path());
    let mut store = RowStore::create(&place, "k", 2, b"{}".to_vec()).unwrap();
    let rows = [Row { vector: &[1.0, 2.0], document: b"row" }];
    let segment = store.write_segment(rows.into_iter()).unwrap();
    let listing = Listing { number: segment.number(), rows: 1, dead: Vec::new() };
    store.publish(vec![listing], 1, LogFate::Replaced).unwrap();
    store.append(b"record").unwrap();
    dir
}

fn collections(dir: &Path) -> Place {
    Place { files: Arc::new(OsFiles), dir: dir.join("collections"), read: ReadMode::Pread }
}

/// The files in a data directory, relative to it.
fn files(dir: &Path) -> Vec<String> {
    let (mut files, mut folders) = (Vec::new(), vec![dir.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path.strip_prefix(dir).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    files.sort();
    files
}

/// Where a repair has moved a file.
fn kept(dir: &Path, file: &str) -> std::path::PathBuf {
    let entries = fs_err::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut aside = entries.filter(|path| path.to_string_lossy().contains("/damaged-"));
    aside.next().expect("something was moved aside").join(file)
}
