//! Goal: whatever a power cut leaves, a store of rows reopens as it was after its last acknowledged change, or with the
//! one that was under way.
//!
//! Method: that of `crash.rs`, on random appends, segments and manifests. Every change is flushed before it is
//! acknowledged, so a cut of power may take none. Then each byte of a small store is flipped, and each write made to fail.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use likewise::error::Kind;
use likewise::storage::collections::{Listing, LogFate, Opened, Place, Row, RowSegment, RowStore};
use likewise::storage::files::Listed;
use likewise::storage::files::recording::{Arrived, Call, CrashPoint, Fault, Image, RecordingFiles};
use likewise::storage::{Files, ReadMode, StoredFile};

use super::crash::{Random, subsets};

const DIM: usize = 3;
const NAME: &str = "points";
const IMAGES: usize = 20_000;

/// The store as a reader finds it: the documents of its segments with their vectors, the dead among them, its log.
type State = Vec<String>;

fn place(files: &RecordingFiles) -> Place {
    Place { files: Arc::new(files.clone()), dir: "/c".into(), read: ReadMode::Pread }
}

fn state(opened: &Opened) -> State {
    let manifest = opened.store.manifest();
    let mut state = vec![format!("version {}", manifest.version)];
    for (segment, listing) in opened.segments.iter().zip(&manifest.segments) {
        for row in 0..segment.rows() {
            let document = String::from_utf8_lossy(segment.document(row)).into_owned();
            let dead = listing.dead.get(row / 8).is_some_and(|byte| byte >> (row % 8) & 1 == 1);
            state.push(format!("{document} {:?} dead: {dead}", &segment.vectors()[row * DIM..][..DIM]));
        }
    }
    let records = opened.replay.records.iter();
    state.extend(records.map(|record| format!("log {}", String::from_utf8_lossy(record))));
    state
}

/// A store that is changed at random, and what it must be found as after each change.
struct Workload {
    files: RecordingFiles,
    states: Vec<State>,
}

fn run(seed: u64) -> Workload {
    let files = RecordingFiles::new();
    let mut random = Random::new(seed);
    let mut store = RowStore::create(&place(&files), NAME, DIM as u32, b"{}".to_vec()).unwrap();
    let mut segments: Vec<(Arc<RowSegment>, Vec<u8>)> = Vec::new();
    let mut states = vec![vec!["version 0".to_owned()]];
    files.mark(0);
    for change in 1..=random.below(8) + 3 {
        match random.below(4) {
            0 | 1 => store
                .append(format!("{change} {}", "x".repeat(random.below(900) as usize)).as_bytes())
                .unwrap(),
            kind => {
                let documents: Vec<String> =
                    (0..random.below(5) + 1).map(|row| format!("{change}.{row}")).collect();
                let vectors: Vec<f32> =
                    (0..documents.len() * DIM).map(|n| n as f32 + change as f32).collect();
                let row =
                    |n: usize| Row { vector: &vectors[n * DIM..][..DIM], document: documents[n].as_bytes() };
                let written = store.write_segment((0..documents.len()).map(row)).unwrap();
                let fate = if kind == 2 { LogFate::Kept } else { LogFate::Replaced };
                if segments.len() > 1 {
                    segments.remove(random.below(segments.len() as u64) as usize);
                }
                let dead = if random.below(2) == 0 { Vec::new() } else { vec![1] };
                segments.push((written, dead));
                let listing = |(segment, dead): &(Arc<RowSegment>, Vec<u8>)| Listing {
                    number: segment.number(),
                    rows: segment.rows() as u32,
                    dead: dead.clone(),
                };
                store.publish(segments.iter().map(listing).collect(), change, fate).unwrap();
            }
        }
        let now = RecordingFiles::from_image(&files.live_image());
        states.push(state(&RowStore::open(&place(&now), NAME).unwrap()));
        files.mark(change);
    }
    Workload { files, states }
}

fn check(image: &Image, states: &[State], acknowledged: usize) {
    let files = RecordingFiles::from_image(image);
    let found = state(&RowStore::open(&place(&files), NAME).unwrap());
    let allowed = &states[acknowledged..states.len().min(acknowledged + 2)];
    assert!(allowed.contains(&found), "acknowledged {acknowledged}: found {found:#?}, allowed {allowed:#?}");
    // What was repaired while opening stays as it was found.
    assert_eq!(state(&RowStore::open(&place(&files), NAME).unwrap()), found);
}

#[test]
fn every_image_that_a_power_cut_leaves_reopens_as_it_was_acknowledged() {
    let mut images = HashSet::new();
    let mut seed = 0;
    while images.len() < IMAGES {
        seed += 1;
        let workload = run(seed);
        let mut acknowledged = None;
        let mut point = workload.files.first_point();
        for call in &workload.files.log() {
            point.advance(call);
            if let Call::Mark(change) = call {
                acknowledged = Some(*change as usize);
            }
            // Before its creation is acknowledged there may be no store.
            let Some(acknowledged) = acknowledged else { continue };
            for image in cut_at(&point) {
                let mut hasher = blake3::Hasher::new();
                for (path, bytes) in &image {
                    hasher.update(path.as_os_str().as_encoded_bytes()).update(&[0]).update(bytes);
                }
                hasher.update(format!("{acknowledged} of {seed}").as_bytes());
                if images.insert(hasher.finalize()) {
                    check(&image, &workload.states, acknowledged);
                }
            }
        }
    }
    println!("{} distinct crash images of {seed} workloads reopened", images.len());
}

/// What may be found if the power fails at this moment.
fn cut_at(point: &CrashPoint) -> Vec<Image> {
    let writes = point.pending().len();
    let mut images = Vec::new();
    for names in 0..=point.pending_names() {
        images.extend(subsets(writes).iter().map(|subset| point.image(subset, names)));
    }
    for (at, write) in point.pending().iter().enumerate() {
        for base in [Arrived::All, Arrived::Nothing] {
            let mut arrived = vec![base; writes];
            for cut in (0..write.bytes()).step_by(512) {
                for torn in [Arrived::Until(cut), Arrived::From(cut), Arrived::UntilAndCut(cut)] {
                    arrived[at] = torn;
                    images.push(point.image(&arrived, point.pending_names()));
                }
            }
        }
    }
    images
}

#[test]
fn every_flipped_byte_is_an_error_a_bad_row_or_a_damaged_record() {
    let workload = run(7);
    let image = workload.files.live_image();
    let whole = workload.states.last().unwrap();
    let mut reported = 0;
    for (path, bytes) in &image {
        for at in 0..bytes.len() {
            let mut image = image.clone();
            image.get_mut(path).unwrap()[at] ^= 0x10;
            match RowStore::open(&place(&RecordingFiles::from_image(&image)), NAME) {
                Err(error) => {
                    assert!(matches!(error.kind(), Kind::Corrupt | Kind::Format | Kind::Io), "{error}");
                    reported += 1;
                }
                Ok(opened) => {
                    let found = state(&opened);
                    let bad: usize = opened.segments.iter().map(|segment| segment.bad_rows().len()).sum();
                    let is_reported = bad > 0 || opened.replay.damaged > 0 || opened.replay.torn_bytes > 0;
                    assert!(is_reported || found == *whole, "{}, byte {at}", path.display());
                    reported += usize::from(is_reported);
                }
            }
        }
    }
    assert!(reported > 1000, "{reported}");
}

#[test]
fn a_write_that_fails_is_refused_and_loses_nothing() {
    for fault in [Fault::Io, Fault::Full] {
        for first in 0..40 {
            let files = RecordingFiles::new();
            let mut store = RowStore::create(&place(&files), NAME, DIM as u32, Vec::new()).unwrap();
            store.append(b"kept").unwrap();
            files.fail_at(files.calls() + first, fault, 1);
            let row = Row { vector: &[1.0, 2.0, 3.0], document: b"row" };
            let mut acknowledged = vec!["kept".to_owned()];
            let mut sealed = false;
            for n in 0..4 {
                if store.append(format!("{n}").as_bytes()).is_ok() {
                    acknowledged.push(n.to_string());
                }
                if let Ok(segment) = store.write_segment([row].into_iter()) {
                    let listing = Listing { number: segment.number(), rows: 1, dead: Vec::new() };
                    sealed |= store.publish(vec![listing], n, LogFate::Kept).is_ok();
                }
            }
            let opened =
                RowStore::open(&place(&RecordingFiles::from_image(&files.durable_image())), NAME).unwrap();
            let found: Vec<String> = opened
                .replay
                .records
                .iter()
                .map(|record| String::from_utf8_lossy(record).into_owned())
                .collect();
            for record in acknowledged {
                assert!(found.contains(&record), "{fault:?} at {first}: {record} is lost");
            }
            assert!(!sealed || opened.segments.len() == 1);
        }
    }
}

/// A drop that failed half way is finished before another collection takes the name; one that cannot be finished
/// concerns no other name.
#[test]
fn what_is_left_of_a_dropped_collection_does_not_take_the_next_one_with_it() {
    let files = RecordingFiles::new();
    let place = place(&files);
    let store = RowStore::create(&place, NAME, DIM as u32, Vec::new()).unwrap();
    store.drop_collection().unwrap();
    place.files.create(&place.dir.join(format!("{NAME}.dropped")), 0).unwrap();
    place.files.create(&place.dir.join(format!("{NAME}.0000000009.rows")), 10).unwrap();
    let mut store = RowStore::create(&place, NAME, DIM as u32, Vec::new()).unwrap();
    store.append(b"acknowledged").unwrap();
    drop(store);
    assert_eq!(place.names().unwrap(), [NAME]);
    assert_eq!(RowStore::open(&place, NAME).unwrap().replay.records, [&b"acknowledged"[..]]);
    let left = place.files.list(&place.dir).unwrap();
    assert!(
        left.iter().all(|file| !file.name.ends_with("dropped") && !file.name.ends_with("rows")),
        "{left:?}"
    );
}

/// A file that cannot be removed takes no other collection away.
#[test]
fn a_drop_that_cannot_be_finished_does_not_hide_the_other_collections() {
    let files = RecordingFiles::new();
    let place = place(&files);
    let store = RowStore::create(&place, NAME, DIM as u32, Vec::new()).unwrap();
    drop(store);
    place.files.create(&place.dir.join("gone.dropped"), 0).unwrap();
    place.files.create(&place.dir.join("gone.0000000001.rows"), 10).unwrap();
    // The directory is made and listed; whatever comes after that fails.
    files.fail_at(files.calls() + 2, Fault::Io, 1000);
    assert_eq!(place.names().unwrap(), [NAME]);
    let is_left = |name: &str| place.files.list(&place.dir).unwrap().iter().any(|file| file.name == name);
    files.fail_at(usize::MAX, Fault::Io, 0);
    assert!(is_left("gone.dropped"), "it is tried again at the next start");
    assert_eq!(place.names().unwrap(), [NAME]);
    assert!(!is_left("gone.dropped") && !is_left("gone.0000000001.rows"));
}

/// An index is written while the collection goes on; one that was being written when the process ended belongs to no collection.
#[test]
fn the_draft_of_an_index_outlives_a_sealed_log_and_not_a_restart() {
    let files = RecordingFiles::new();
    let place = place(&files);
    let mut store = RowStore::create(&place, NAME, DIM as u32, Vec::new()).unwrap();
    let draft = store.index_draft(7);
    place.files.create(draft.path(), 10).unwrap();
    let drafts = || {
        let listed = place.files.list(&place.dir).unwrap();
        listed.iter().filter(|file| place.dir.join(&file.name) == draft.path()).count()
    };
    store.append(b"acknowledged").unwrap();
    store.publish(Vec::new(), 1, LogFate::Replaced).unwrap();
    assert_eq!(drafts(), 1, "it is being written");
    drop(store);
    RowStore::open(&place, NAME).unwrap();
    assert_eq!(drafts(), 0);
}

/// Files whose directories cannot be listed.
#[derive(Debug)]
struct Unlisted(RecordingFiles);

impl Files for Unlisted {
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn StoredFile>> {
        self.0.create(path, bytes)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>> {
        self.0.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn list(&self, _dir: &Path) -> io::Result<Vec<Listed>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }
}

/// A listing only finds what can be removed, so one that fails turns nothing off.
#[test]
fn a_directory_that_cannot_be_listed_stops_no_write_no_start_and_no_drop() {
    let files = RecordingFiles::new();
    let unlisted = Place { files: Arc::new(Unlisted(files.clone())), ..place(&files) };
    let mut store = RowStore::create(&unlisted, NAME, DIM as u32, Vec::new()).unwrap();
    let row = Row { vector: &[1.0, 2.0, 3.0], document: b"row" };
    for version in 0..3 {
        store.append(b"logged").unwrap();
        let segment = store.write_segment([row].into_iter()).unwrap();
        let listing = Listing { number: segment.number(), rows: 1, dead: Vec::new() };
        store.publish(vec![listing], version, LogFate::Kept).unwrap();
        store.drop_index().unwrap();
        assert!(store.is_on());
    }
    drop(store);
    let opened = RowStore::open(&unlisted, NAME).unwrap();
    assert_eq!((opened.segments.len(), opened.replay.records.len()), (1, 3));
    drop(opened);
    // With a listing, what was outlived goes.
    RowStore::open(&place(&files), NAME).unwrap();
    let rows = |place: &Place| {
        place.files.list(&place.dir).unwrap().iter().filter(|file| file.name.ends_with(".rows")).count()
    };
    assert_eq!(rows(&place(&files)), 1);
    RowStore::open(&unlisted, NAME).unwrap().store.drop_collection().unwrap();
    assert!(place(&files).names().unwrap().is_empty());
}

/// What fails before the manifest is replaced has changed nothing.
#[test]
fn a_manifest_that_cannot_be_written_leaves_the_store_on() {
    for fault in [Fault::Io, Fault::Full] {
        let files = RecordingFiles::new();
        let mut store = RowStore::create(&place(&files), NAME, DIM as u32, Vec::new()).unwrap();
        store.append(b"before").unwrap();
        files.fail_at(files.calls() + 1, fault, 3);
        store.publish(Vec::new(), 1, LogFate::Replaced).unwrap_err();
        assert!(store.is_on());
        files.fail_at(usize::MAX, fault, 0);
        store.append(b"after").unwrap();
        let found = |store: &RowStore| store.manifest().log;
        let log = found(&store);
        let opened =
            RowStore::open(&place(&RecordingFiles::from_image(&files.durable_image())), NAME).unwrap();
        assert_eq!((found(&opened.store), opened.replay.records.len()), (log, 2));
        store.publish(Vec::new(), 1, LogFate::Replaced).unwrap();
        assert_ne!(found(&store), log);
    }
}

/// Live rows and records, without the dead.
fn living(state: &State) -> HashSet<String> {
    state.iter().filter(|line| line.ends_with("dead: false") || line.starts_with("log ")).cloned().collect()
}

#[test]
fn every_flipped_byte_is_repaired_and_costs_one_row_or_record_at_most() {
    let (aside, mut costs) = (Path::new("/aside"), [0, 0]);
    for seed in [7, 8, 9] {
        let workload = run(seed);
        let image = workload.files.live_image();
        let whole = living(workload.states.last().unwrap());
        for (path, bytes) in &image {
            for at in 0..bytes.len() {
                let mut image = image.clone();
                image.get_mut(path).unwrap()[at] ^= 0x10;
                let files = RecordingFiles::from_image(&image);
                let place = place(&files);
                place.repair(aside).unwrap();
                let bad: Vec<_> = place.check().unwrap().into_iter().filter_map(|file| file.damage).collect();
                assert!(bad.is_empty(), "{}, byte {at}: {bad:?}", path.display());
                let mut opened = RowStore::open(&place, NAME).unwrap();
                let found = living(&state(&opened));
                let lost = whole.difference(&found).count();
                assert!(lost <= 1 && found.is_subset(&whole), "{}, byte {at}: {found:#?}", path.display());
                costs[lost] += 1;
                opened.store.append(b"goes on").unwrap();
            }
        }
    }
    assert!(costs[0] > 1000 && costs[1] > 100, "{costs:?}");
}

/// A file that is missing costs what was in it; nothing is deleted by a repair.
#[test]
fn a_repair_keeps_what_it_replaces_and_survives_missing_files() {
    let workload = run(7);
    let image = workload.files.live_image();
    for missing in image.keys() {
        let mut image = image.clone();
        image.remove(missing);
        let files = RecordingFiles::from_image(&image);
        let place = place(&files);
        place.repair(Path::new("/aside")).unwrap();
        let opened = RowStore::open(&place, NAME).unwrap();
        assert!(living(&state(&opened)).is_subset(&living(workload.states.last().unwrap())));
        let is_manifest = missing.to_string_lossy().contains("manifest");
        assert!(!is_manifest || state(&opened) == *workload.states.last().unwrap());
    }
    let manifest = place(&workload.files).dir.join("points.manifest");
    let mut damaged = image.clone();
    damaged.get_mut(&manifest).unwrap()[40] ^= 1;
    let files = RecordingFiles::from_image(&damaged);
    let kept = |files: &RecordingFiles| files.live_image().get(Path::new("/aside/points.manifest")).cloned();
    place(&files).repair(Path::new("/aside")).unwrap();
    assert_eq!(kept(&files).as_ref(), damaged.get(&manifest));
    // Without a copy nothing says which rows are dead: the collection is left as it is, and can be dropped.
    damaged.remove(&place(&files).dir.join("points.manifest-copy")).unwrap();
    let files = RecordingFiles::from_image(&damaged);
    place(&files).repair(Path::new("/aside")).unwrap();
    assert_eq!(files.live_image(), damaged);
    place(&files).drop_collection(NAME).unwrap();
    assert!(files.live_image().is_empty());
}
