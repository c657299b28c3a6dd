//! Goal: whatever a power cut leaves, the store reopens, what was promised is there, and nothing wrong is returned.
//!
//! Method: random workloads on the recording twin; for every prefix of the recorded calls, every set of pending writes
//! that may have arrived (all subsets of up to eight; of more, every second subset of the last eight, with the ones
//! before all there or all missing), each pending write torn at every 512 bytes (so also
//! at every 4 KiB) from either end, the rest zero or the file shortened there, and every first part of the pending
//! names. Half of the workloads start from an image that another one left. Only images that differ are counted; one
//! that comes again is reopened again only if more was promised by then.
//! `LIKEWISE_CRASH_IMAGES` says how many.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread;

use likewise::storage::files::recording::{Arrived, Call, CrashPoint, Image, RecordingFiles};
use likewise::storage::verify::{State, verify};
use likewise::storage::{DataDirectory, Durability, VectorStore};

use super::{Fixture, entry, key, small_options, version_of, wait};

const DIR: &str = "/d";
const KEYS: u64 = 12;
const PAYLOAD_BYTES: usize = 960;
const CHECKERS: usize = 4;
const SUBSET_WRITES_MAX: usize = 8;
/// One of so many images is written to real files, which `verify` checks.
const VERIFIED_SHARE: u64 = 100;
const NEVER: u32 = u32::MAX;

/// Per key, the version that must be found, or a later one.
type Promise = BTreeMap<u64, u64>;

/// What was acknowledged with a mark.
enum Acknowledged {
    Put { versions: Vec<(u64, u64)>, durability: Durability },
    Flush,
}

/// A small generator: the same seed, the same workload.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `end`. xorshift64*, Vigna 2016.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % end
    }
}

fn fixture(files: &RecordingFiles) -> Fixture {
    Fixture::new(files.clone(), small_options(6, 1024))
}

struct Workload {
    files: RecordingFiles,
    ledger: Vec<Acknowledged>,
    last_version: u64,
}

/// Puts, flushes and restarts at random; everything that is acknowledged is written down with a mark.
fn run(base: &Image, first_version: u64, random: &mut Random) -> Workload {
    let files = RecordingFiles::from_image(base);
    let fixture = fixture(&files);
    let mut store = fixture.open(Path::new(DIR)).unwrap().0;
    let mut ledger = Vec::new();
    let mut version = first_version;
    let sync_share = random.below(4);
    for _ in 0..random.below(16) + 6 {
        let acknowledged = match random.below(12) {
            0 => {
                drop(store);
                store = fixture.open(Path::new(DIR)).unwrap().0;
                Acknowledged::Flush
            }
            1 => {
                wait(store.flush()).unwrap();
                Acknowledged::Flush
            }
            _ => {
                let durability =
                    if random.below(3) < sync_share { Durability::Sync } else { Durability::Async };
                put(&store, durability, &mut version, random)
            }
        };
        files.mark(ledger.len() as u64);
        ledger.push(acknowledged);
    }
    drop(store);
    Workload { files, ledger, last_version: version }
}

fn put(store: &VectorStore, durability: Durability, version: &mut u64, random: &mut Random) -> Acknowledged {
    let mut versions = BTreeMap::new();
    for _ in 0..random.below(4) + 1 {
        *version += 1;
        versions.insert(random.below(KEYS), *version);
    }
    let entries =
        versions.iter().map(|(&n, &version)| (key(n), entry(version, PAYLOAD_BYTES, NEVER))).collect();
    wait(store.put_many(entries, Some(durability))).unwrap();
    Acknowledged::Put { versions: versions.into_iter().collect(), durability }
}

/// What has been promised so far: by a process that is killed, and by a power cut.
#[derive(Clone, Default)]
struct Promises {
    kill: Promise,
    power: Promise,
}

impl Promises {
    fn note(&mut self, acknowledged: &Acknowledged) {
        match acknowledged {
            Acknowledged::Put { versions, durability } => {
                self.kill.extend(versions.iter().copied());
                if *durability == Durability::Sync {
                    self.power.extend(versions.iter().copied());
                }
            }
            Acknowledged::Flush => self.power = self.kill.clone(),
        }
    }
}

/// An image, what must be found in it, and the last version that was ever put.
struct Case {
    image: Image,
    promise: Promise,
    last_version: u64,
    is_verified: bool,
}

impl Case {
    /// Reopens the store from the image and holds it to its promise.
    fn check(&self) {
        let files = RecordingFiles::from_image(&self.image);
        let (store, _) = fixture(&files).open(Path::new(DIR)).unwrap();
        for n in 0..KEYS {
            let found = store.get(&key(n)).unwrap().map(|found| version_of(&found));
            assert!(found.is_none_or(|found| found <= self.last_version));
            if let Some(promised) = self.promise.get(&n) {
                assert!(found >= Some(*promised), "key {n}: promised {promised}, found {found:?}");
            }
        }
        if self.is_verified {
            // Two of the writes of the next process, so that its marks cover what lies before them.
            let entries = (0..2).map(|n| (key(n), entry(self.last_version, PAYLOAD_BYTES, NEVER))).collect();
            wait(store.put_many(entries, None)).unwrap();
            drop(store);
            assert_no_damage(&files.live_image());
        }
    }
}

/// What a crash has left is no damage, also not once a process has written on.
fn assert_no_damage(image: &Image) {
    let dir = tempfile::tempdir().unwrap();
    let vectors = DataDirectory::open(dir.path()).unwrap().vectors();
    fs_err::create_dir_all(&vectors).unwrap();
    for (path, bytes) in image {
        fs_err::write(vectors.join(path.file_name().unwrap()), bytes).unwrap();
    }
    let report = verify(dir.path()).unwrap();
    let mut segments = 0;
    for finding in report.findings.iter().filter(|finding| finding.file.starts_with("vectors")) {
        assert_ne!(finding.state, State::Damaged, "{report}");
        segments += usize::from(finding.file.extension().is_some_and(|suffix| suffix == "seg"));
    }
    assert!(segments > 0, "{report}");
}

/// Where a workload starts.
#[derive(Default)]
struct Base {
    image: Image,
    /// What must be found in it.
    promise: Promise,
    is_shortened: bool,
}

struct Enumeration {
    target: usize,
    images: HashSet<blake3::Hash>,
    cases: HashSet<blake3::Hash>,
    enumerated: usize,
    /// An image that the next workload may start from.
    kept: Option<Base>,
    /// Whether the present workload started from an image with a shortened file.
    is_base_shortened: bool,
    random: Random,
    /// Those who check; opening and closing a store is mostly waiting for its thread.
    checkers: SyncSender<Case>,
}

impl Enumeration {
    fn is_done(&self) -> bool {
        self.images.len() >= self.target
    }

    /// Has an image checked, unless an equal one with an equal promise was. A file that is shorter than it was flushed
    /// opens, but is damaged: segments have their length from the start.
    fn check(&mut self, image: Image, promise: &Promise, last_version: u64, is_shortened: bool) {
        self.enumerated += 1;
        let mut hasher = blake3::Hasher::new();
        for (path, bytes) in &image {
            hasher
                .update(path.as_os_str().as_encoded_bytes())
                .update(&(bytes.len() as u64).to_le_bytes())
                .update(bytes);
        }
        self.images.insert(hasher.finalize());
        for (key, version) in promise {
            hasher.update(&key.to_le_bytes()).update(&version.to_le_bytes());
        }
        if !self.cases.insert(hasher.finalize()) {
            return;
        }
        let is_shortened = is_shortened || self.is_base_shortened;
        if self.random.below(500) == 0 {
            self.kept = Some(Base { image: image.clone(), promise: promise.clone(), is_shortened });
        }
        let is_verified = !is_shortened && self.random.below(VERIFIED_SHARE) == 0;
        let case = Case { image, promise: promise.clone(), last_version, is_verified };
        self.checkers.send(case).expect("a checker ends early only if an image failed");
    }

    /// All images of one moment.
    fn check_point(&mut self, point: &CrashPoint, promises: &Promises, last_version: u64) {
        let writes = point.pending().len();
        let names = point.pending_names();
        let all = vec![Arrived::All; writes];
        self.check(point.image(&all, names), &promises.kill, last_version, false);
        let mut power = |arrived: &[Arrived], names| {
            if !self.is_done() {
                let is_shortened = arrived.iter().any(|a| matches!(a, Arrived::UntilAndCut(_)));
                self.check(point.image(arrived, names), &promises.power, last_version, is_shortened);
            }
        };
        for names in 0..=names {
            power(&all, names);
            power(&[], names);
        }
        for subset in subsets(writes) {
            power(&subset, names);
        }
        for (at, write) in point.pending().iter().enumerate() {
            for base in [Arrived::All, Arrived::Nothing] {
                let mut arrived = vec![base; writes];
                for cut in (0..write.bytes()).step_by(512) {
                    for torn in [Arrived::Until(cut), Arrived::From(cut), Arrived::UntilAndCut(cut)] {
                        arrived[at] = torn;
                        power(&arrived, names);
                    }
                }
            }
        }
    }
}

/// Which writes arrived: every subset of the last eight, the ones before all there or all missing.
pub(super) fn subsets(writes: usize) -> Vec<Vec<Arrived>> {
    let arrived = |is_there| if is_there { Arrived::All } else { Arrived::Nothing };
    let varied = writes.min(SUBSET_WRITES_MAX);
    let earlier: &[bool] = if writes > varied { &[true, false] } else { &[true] };
    let mut subsets = Vec::new();
    for &is_earlier_there in earlier {
        let step = if writes > varied { 2 } else { 1 };
        for bits in (0..1_u32 << varied).step_by(step) {
            let mut subset = vec![arrived(is_earlier_there); writes - varied];
            subset.extend((0..varied).map(|bit| arrived(bits >> bit & 1 == 1)));
            subsets.push(subset);
        }
    }
    subsets
}

fn enumerate(workload: &Workload, promised_before: Promise, enumeration: &mut Enumeration) {
    let mut promises = Promises { kill: promised_before.clone(), power: promised_before };
    let mut point = workload.files.first_point();
    for call in &workload.files.log() {
        point.advance(call);
        if let Call::Mark(at) = call {
            promises.note(&workload.ledger[*at as usize]);
        }
        enumeration.check_point(&point, &promises, workload.last_version);
        if enumeration.is_done() {
            return;
        }
    }
}

#[test]
fn every_image_that_a_power_cut_leaves_reopens_with_what_was_promised() {
    let target =
        std::env::var("LIKEWISE_CRASH_IMAGES").ok().and_then(|count| count.parse().ok()).unwrap_or(100_000);
    let (checkers, cases) = mpsc::sync_channel(64);
    // Owned by the checkers alone: when the last one has failed, the sender does not wait for it.
    let cases = Arc::new(Mutex::new(cases));
    thread::scope(|scope| {
        for _ in 0..CHECKERS {
            let cases = cases.clone();
            scope.spawn(move || {
                // The lock is given back before the check.
                let next = || cases.lock().unwrap().recv();
                while let Ok(case) = next() {
                    Case::check(&case);
                }
            });
        }
        drop(cases);
        enumerate_all(target, checkers);
    });
}

fn enumerate_all(target: usize, checkers: SyncSender<Case>) {
    let mut enumeration = Enumeration {
        target,
        images: HashSet::new(),
        cases: HashSet::new(),
        enumerated: 0,
        kept: None,
        is_base_shortened: false,
        random: Random::new(99),
        checkers,
    };
    let mut workloads = 0;
    while !enumeration.is_done() {
        let mut random = Random::new(workloads + 1);
        let kept = enumeration.kept.take().filter(|_| workloads % 2 == 1);
        let base = kept.unwrap_or_default();
        enumeration.is_base_shortened = base.is_shortened;
        // Versions only grow, so that a later workload cannot be mistaken for an earlier one.
        let workload = run(&base.image, workloads * 1000, &mut random);
        enumerate(&workload, base.promise, &mut enumeration);
        workloads += 1;
    }
    println!(
        "{} distinct crash images of {workloads} workloads reopened in {} cases ({} enumerated)",
        enumeration.images.len(),
        enumeration.cases.len(),
        enumeration.enumerated
    );
}
