//! Goal: damaged files give a value or a miss, never another value and never a panic. Method: every byte of every file
//! flipped, every file cut at every 512 bytes, files swapped, stale and foreign; also under a store that is open.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use likewise::storage::files::recording::{Image, RecordingFiles};
use likewise::storage::{OsFiles, ReadMode, Recovery};

use super::{Fixture, TempDir, entry, key, small_options, version_of, wait};

const DIR: &str = "/d";
const SLOTS: u64 = 64;

fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

/// A store of 64-slot segments, the first `sealed` of them full and sealed, with one entry more.
fn image(sealed: u64) -> Image {
    let files = RecordingFiles::new();
    let fixture = Fixture::new(files.clone(), small_options(SLOTS, 128));
    let (store, _) = fixture.open(Path::new(DIR)).unwrap();
    let entries = (0..=SLOTS * sealed).map(|n| (key(n), entry(n, 64, 5000))).collect();
    wait(store.put_many(entries, None)).unwrap();
    drop(store);
    files.live_image()
}

/// Opens the image and reads every key. Returns how many were found, and what opening found.
fn read(image: &Image, keys: u64) -> (u64, Recovery) {
    let fixture = Fixture::new(RecordingFiles::from_image(image), small_options(SLOTS, 128));
    let (store, recovery) = fixture.open(Path::new(DIR)).unwrap();
    let mut found = 0;
    for n in 0..keys {
        if let Some(entry) = store.get(&key(n)).unwrap() {
            assert_eq!(version_of(&entry), n);
            found += 1;
        }
    }
    (found, recovery)
}

#[test]
fn every_flipped_byte_is_a_value_or_a_miss() {
    let good = image(1);
    let without_index: Image = good
        .iter()
        .filter(|(path, _)| path.extension().is_none_or(|e| e != "idx"))
        .map(|(p, b)| (p.clone(), b.clone()))
        .collect();
    for good in [&good, &without_index] {
        assert_eq!(read(good, SLOTS + 1).0, SLOTS + 1);
        for (path, bytes) in good.iter().filter(|(path, _)| !path.ends_with("0000000002.seg")) {
            // A flip in the index file or the manifest costs nothing, in a slot that slot, in a header its segment.
            let is_segment = path.extension().is_some_and(|extension| extension == "seg");
            for at in 0..bytes.len() {
                let mut damaged = good.clone();
                damaged.get_mut(path).unwrap()[at] ^= 1 << (at % 8);
                let (found, _) = read(&damaged, SLOTS + 1);
                let least = match (is_segment, at < 4096) {
                    (false, _) => SLOTS + 1,
                    (true, true) => 1,
                    (true, false) => SLOTS,
                };
                assert!(found >= least, "{} byte {at}: {found} found", path.display());
            }
        }
    }
}

#[test]
fn every_cut_is_a_value_or_a_miss() {
    let good = image(1);
    for (path, bytes) in &good {
        for length in (0..bytes.len()).step_by(512) {
            let mut damaged = good.clone();
            damaged.get_mut(path).unwrap().truncate(length);
            let (found, _) = read(&damaged, SLOTS + 1);
            if path.ends_with("0000000001.seg") && length >= 4096 {
                assert!(found > (length as u64 - 4096) / 128, "what the cut left is found");
            }
        }
    }
}

#[test]
fn swapped_segments_are_refused() {
    let mut swapped = image(2);
    let first = swapped[&path("0000000001.seg")].clone();
    let second = swapped.insert(path("0000000002.seg"), first).unwrap();
    swapped.insert(path("0000000001.seg"), second);
    let (found, recovery) = read(&swapped, 2 * SLOTS + 1);
    assert_eq!(found, 1, "only the third segment is whole");
    assert_eq!(recovery.ignored_files.len(), 2);
    assert_eq!(recovery.missing_segments, [1, 2]);
}

#[test]
fn a_segment_of_another_store_under_our_name_is_refused() {
    let (mut ours, other) = (image(2), image(1));
    ours.insert(path("0000000001.seg"), other[&path("0000000001.seg")].clone());
    let (found, recovery) = read(&ours, 2 * SLOTS + 1);
    assert_eq!(found, SLOTS + 1);
    assert!(recovery.ignored_files[0].1.contains("manifest"), "{:?}", recovery.ignored_files);
}

#[test]
fn a_stale_index_file_is_not_believed() {
    let (mut ours, other) = (image(1), image(2));
    ours.insert(path("0000000001.idx"), other[&path("0000000001.idx")].clone());
    let (found, recovery) = read(&ours, SLOTS + 1);
    assert_eq!((found, recovery.rebuilt_indexes), (SLOTS + 1, 1));
}

#[test]
fn a_missing_manifest_is_rebuilt_from_the_segments() {
    let mut ours = image(2);
    ours.remove(&path("MANIFEST")).unwrap();
    let (found, recovery) = read(&ours, 2 * SLOTS + 1);
    assert!(found == 2 * SLOTS + 1 && recovery.is_manifest_rebuilt);
}

#[test]
fn foreign_files_are_reported_and_left_alone() {
    let mut ours = image(1);
    for name in ["notes.txt", "1.seg", "0000000003.seg", "4294967295.seg"] {
        ours.insert(path(name), b"not ours".to_vec());
    }
    let files = RecordingFiles::from_image(&ours);
    let fixture = Fixture::new(files.clone(), small_options(SLOTS, 128));
    let (store, recovery) = fixture.open(Path::new(DIR)).unwrap();
    assert_eq!(recovery.ignored_files.len(), 4);
    let entries = (1000..1200).map(|n| (key(n), entry(n, 64, 5000))).collect();
    wait(store.put_many(entries, None)).unwrap();
    assert!(store.get(&key(1199)).unwrap().is_some(), "the taken number was stepped over");
    drop(store);
    for name in ["notes.txt", "1.seg", "0000000003.seg", "4294967295.seg"] {
        assert_eq!(files.live_image()[&path(name)], b"not ours");
    }
}

/// Rot in a file that the store has open: one byte of slots 5 and 6 changes.
fn with_rot(name: &str, read: ReadMode, check: impl Fn(&Fixture, &likewise::storage::VectorStore)) {
    let dir = TempDir::new(name);
    let options = likewise::storage::Options { read, ..small_options(SLOTS, 128) };
    let fixture = Fixture::new(OsFiles, options);
    let (store, _) = fixture.open(dir.path()).unwrap();
    wait(store.put_many((0..=SLOTS).map(|n| (key(n), entry(n, 64, 5000))).collect(), None)).unwrap();
    let file = fs_err::OpenOptions::new().write(true).open(dir.path().join("0000000001.seg")).unwrap();
    for slot in [5, 6] {
        file.file().write_all_at(b"?", 4096 + slot * 128 + 100).unwrap();
    }
    check(&fixture, &store);
    assert_eq!(fixture.metrics.corrupt_slots.get(), 2);
    assert_eq!(store.stats().entries, SLOTS - 1);
    let kept = (0..=SLOTS).filter(|&n| store.get(&key(n)).unwrap().is_some()).count() as u64;
    assert_eq!(kept, SLOTS - 1);
}

#[test]
fn a_reader_meets_rot_as_a_miss_and_it_is_counted_once() {
    for read in [ReadMode::Mmap, ReadMode::Pread] {
        with_rot("rot-read", read, |_, store| {
            for _ in 0..2 {
                assert!(store.get(&key(5)).unwrap().is_none() && store.get(&key(6)).unwrap().is_none());
            }
        });
    }
}

#[test]
fn the_scrubber_finds_rot_before_a_reader_does() {
    with_rot("rot-scrub", ReadMode::Mmap, |_, store| {
        assert_eq!(store.scrub().bad_slots, 2);
        assert_eq!(store.scrub().bad_slots, 0, "it was counted before");
        assert!(!store.contains(&key(5)));
    });
}
