//! Goal: damage of a collection's log is distinguished from a write that a crash cut off, and takes nothing else with it: neither
//! whole records behind it, nor its own bytes.
//!
//! Method: logs in recorded files are damaged and reopened, and go on.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use likewise::storage::ReadMode;
use likewise::storage::collections::{LogFate, Place, RowStore};
use likewise::storage::files::recording::{Fault, Image, RecordingFiles};

const NAME: &str = "points";
const RECORD_BYTES: usize = 100;
const HEAD_BYTES: usize = 8;

fn place(files: &RecordingFiles) -> Place {
    Place { files: Arc::new(files.clone()), dir: "/c".into(), read: ReadMode::Pread }
}

fn record(n: u8) -> Vec<u8> {
    vec![n; RECORD_BYTES]
}

/// A collection with four records in its log, as the process leaves it when it is killed or has closed it.
fn image(is_closed: bool) -> Image {
    let files = RecordingFiles::new();
    let mut store = RowStore::create(&place(&files), NAME, 3, Vec::new()).unwrap();
    (1..5).for_each(|n| store.append(&record(n)).unwrap());
    if is_closed {
        drop(store);
        return files.durable_image();
    }
    files.live_image()
}

fn log() -> PathBuf {
    Path::new("/c").join(format!("{NAME}.0000000001.log"))
}

fn mark() -> PathBuf {
    log().with_extension("end")
}

fn damages(files: &RecordingFiles) -> Vec<String> {
    let checked = place(files).check().unwrap().into_iter();
    checked.filter(|file| file.damage.is_some()).map(|file| file.file.display().to_string()).collect()
}

/// The records that are found, and how many are damaged.
fn reopened(files: &RecordingFiles) -> (RowStore, Vec<u8>, u64) {
    let opened = RowStore::open(&place(files), NAME).unwrap();
    let found = opened.replay.records.iter().map(|record| record[0]).collect();
    (opened.store, found, opened.replay.damaged)
}

#[test]
fn a_damaged_last_record_is_damage_and_is_kept_aside() {
    let last = 3 * (HEAD_BYTES + RECORD_BYTES);
    for is_closed in [true, false] {
        for at in last..last + HEAD_BYTES + RECORD_BYTES {
            let mut damaged = image(is_closed);
            damaged.get_mut(&log()).unwrap()[at] ^= 0x40;
            let files = RecordingFiles::from_image(&damaged);
            assert_eq!(damages(&files), [format!("{NAME}.0000000001.log")], "byte {at}");
            let (mut store, found, count) = reopened(&files);
            assert_eq!((found, count), (vec![1, 2, 3], 1), "byte {at}");
            let kept =
                &files.live_image()[&log().with_file_name(format!("{NAME}.0000000001-{last}.damaged"))];
            assert_eq!(kept[..], damaged[&log()][last..], "byte {at}");
            // The next record takes no other's place, and no start forgets the damage.
            store.append(&record(9)).unwrap();
            drop(store);
            assert_eq!(files.live_image()[&log()][last..][..kept.len()], damaged[&log()][last..]);
            let (_, found, count) = reopened(&files);
            assert_eq!((found, count), (vec![1, 2, 3, 9], 1), "byte {at}");
            assert_eq!(damages(&files), [format!("{NAME}.0000000001.log")]);
            place(&files).repair(Path::new("/aside")).unwrap();
            assert_eq!(damages(&files), [""; 0]);
            assert_eq!(reopened(&files).1, [1, 2, 3, 9]);
        }
    }
}

#[test]
fn a_log_that_lost_its_end_is_damaged() {
    let whole = image(true);
    for cut in (0..whole[&log()].len()).step_by(7) {
        let mut damaged = whole.clone();
        damaged.get_mut(&log()).unwrap().truncate(cut);
        let files = RecordingFiles::from_image(&damaged);
        assert_eq!(damages(&files), [format!("{NAME}.0000000001.log")], "{cut} bytes");
        let (mut store, found, count) = reopened(&files);
        assert_eq!((found.len(), count), (cut / (HEAD_BYTES + RECORD_BYTES), 1));
        store.append(&record(9)).unwrap();
        drop(store);
        assert_eq!(reopened(&files).1.last(), Some(&9));
    }
}

#[test]
fn what_was_being_written_is_cut_off_and_is_no_damage() {
    let whole = image(false);
    for bytes in [1, 7, 8, 50] {
        let mut torn = whole.clone();
        torn.get_mut(&log()).unwrap().extend(vec![7; bytes]);
        let files = RecordingFiles::from_image(&torn);
        assert_eq!(damages(&files), [""; 0], "{bytes} bytes");
        let (mut store, found, count) = reopened(&files);
        assert_eq!((found, count), (vec![1, 2, 3, 4], 0));
        store.append(&record(5)).unwrap();
        drop(store);
        let (_, found, count) = reopened(&files);
        assert_eq!((found, count), (vec![1, 2, 3, 4, 5], 0));
    }
}

/// Directories of versions without marks open as ever, and have one from then on; a damaged mark harms nothing.
#[test]
fn a_log_without_a_mark_opens_and_has_one_from_then_on() {
    let whole = image(true);
    let last = 3 * (HEAD_BYTES + RECORD_BYTES);
    for is_missing in [true, false] {
        let mut image = whole.clone();
        if is_missing {
            image.remove(&mark());
        } else {
            image.get_mut(&mark()).unwrap()[20] ^= 1;
        }
        let files = RecordingFiles::from_image(&image);
        assert_eq!(damages(&files).len(), usize::from(!is_missing));
        let (store, found, count) = reopened(&files);
        assert_eq!((found, count), (vec![1, 2, 3, 4], 0));
        drop(store);
        assert_eq!(files.live_image()[&mark()], whole[&mark()]);
        // Without it a bad last record may be a write that was cut off: it is, and its bytes are kept.
        image.get_mut(&log()).unwrap()[last + 20] ^= 1;
        let files = RecordingFiles::from_image(&image);
        assert_eq!(reopened(&files).1, [1, 2, 3]);
        let kept = &files.live_image()[&log().with_file_name(format!("{NAME}.0000000001-{last}.damaged"))];
        assert_eq!(kept[..], image[&log()][last..]);
    }
}

/// A mark that is older than the log, as a loss of power may leave it, speaks of less and of nothing else.
#[test]
fn a_mark_of_before_hides_no_record() {
    let files = RecordingFiles::new();
    let mut store = RowStore::create(&place(&files), NAME, 3, Vec::new()).unwrap();
    store.append(&record(1)).unwrap();
    let older = files.live_image()[&mark()].clone();
    store.append(&record(2)).unwrap();
    let mut image = files.live_image();
    image.insert(mark(), older);
    let files = RecordingFiles::from_image(&image);
    assert_eq!(damages(&files), [""; 0]);
    let (_, found, count) = reopened(&files);
    assert_eq!((found, count), (vec![1, 2], 0));
}

fn copies(files: &RecordingFiles) -> Vec<(String, Vec<u8>)> {
    let image = files.live_image().into_iter();
    let names = image.map(|(path, bytes)| (path.file_name().unwrap().to_string_lossy().into_owned(), bytes));
    names.filter(|(name, _)| name.contains(".damaged")).collect()
}

/// A write that a full disk cut off must not keep the collection from opening: searches need no room.
#[test]
fn a_collection_opens_on_the_disk_whose_end_cut_off_its_last_write() {
    for is_marked in [true, false] {
        let files = RecordingFiles::from_image(&image(true));
        let (mut store, ..) = reopened(&files);
        files.fail_at(files.calls(), Fault::Io, 1);
        store.append(&record(5)).unwrap_err();
        drop(store);
        let mut image = files.live_image();
        assert!(image[&log()].len() > 4 * (HEAD_BYTES + RECORD_BYTES), "half of the record is there");
        if !is_marked {
            image.remove(&mark());
        }
        let files = RecordingFiles::from_image(&image);
        files.fill_disk();
        let (mut store, found, count) = reopened(&files);
        assert_eq!((found, count), (vec![1, 2, 3, 4], 0));
        assert_eq!(copies(&files), []);
        store.append(&record(6)).unwrap_err();
        drop(store);
        assert_eq!(reopened(&files).1, [1, 2, 3, 4]);
    }
}

/// A crash while torn bytes are overwritten leaves fewer of them in the log: the copy of all stays.
#[test]
fn a_copy_of_torn_bytes_is_not_replaced_and_goes_with_its_log() {
    let mut torn = image(false);
    let end = torn[&log()].len();
    torn.get_mut(&log()).unwrap().extend([7; 50]);
    let files = RecordingFiles::from_image(&torn);
    drop(reopened(&files));
    let mut crashed = files.live_image();
    let half = [vec![0; 25], vec![7; 25]].concat();
    crashed.get_mut(&log()).unwrap()[end..].copy_from_slice(&half);
    crashed.insert(Path::new("/c").join(format!("{NAME}.0000000001-9.damaged.tmp")), vec![1]);
    let files = RecordingFiles::from_image(&crashed);
    let first = (format!("{NAME}.0000000001-{end}.damaged"), vec![7; 50]);
    let second = (format!("{NAME}.0000000001-{end}-1.damaged"), half.clone());
    let (mut store, ..) = reopened(&files);
    assert_eq!(copies(&files), [second, first], "and no draft of one");
    // What was deleted is gone once the log is.
    store.publish(Vec::new(), 5, LogFate::Replaced).unwrap();
    assert_eq!(copies(&files), []);
}
