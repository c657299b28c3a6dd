//! The stores on real files and on the recording, failing twin.

mod corpus;
mod corruption;
mod crash;
mod faults;
mod full_disk;
mod log_marks;
mod model;
mod objects;
mod records;
mod rows;
mod store;
mod verify;

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use likewise::domain::{Codec, Entry, EntryMeta, Key, KeyHasher, ManualClock, UnixSeconds};
use likewise::metrics::unexported;
use likewise::storage::{Files, Options, Recovery, StorageMetrics, VectorStore};

/// Everything that a store is opened with.
pub(super) struct Fixture {
    pub(super) files: Arc<dyn Files>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) metrics: Arc<StorageMetrics>,
    pub(super) options: Options,
}

impl Fixture {
    pub(super) fn new(files: impl Files, options: Options) -> Fixture {
        Fixture {
            files: Arc::new(files),
            clock: Arc::new(ManualClock::at(UnixSeconds(1000))),
            metrics: unexported(),
            options,
        }
    }

    pub(super) fn open(&self, dir: &Path) -> likewise::error::Result<(VectorStore, Recovery)> {
        VectorStore::open(self.files.clone(), dir, &self.options, self.clock.clone(), self.metrics.clone())
    }
}

/// Small segments, so that a few entries fill several; no timers.
pub(super) fn small_options(slots: u64, slot_bytes: u64) -> Options {
    let segment_bytes = 4096 + slots * slot_bytes;
    Options {
        segment_bytes,
        bytes_max: segment_bytes * 1000,
        flush_interval_ms: 3_600_000,
        scrub_bytes_per_second: 0,
        ..Options::default()
    }
}

pub(super) fn key(n: u64) -> Key {
    KeyHasher::new("test").field(&n.to_le_bytes()).finish()
}

/// An entry whose value tells which one it is.
pub(super) fn entry(version: u64, payload_bytes: usize, expires: u32) -> Arc<Entry> {
    let mut value = bytes_of(version, payload_bytes);
    value[..8].copy_from_slice(&version.to_le_bytes());
    let meta = EntryMeta {
        last_used: UnixSeconds(0),
        cost_us: 11,
        tokens: 12,
        is_truncated: version % 2 == 1,
        epoch: version,
        ..EntryMeta::ending(Codec::F32, UnixSeconds(7), UnixSeconds(expires))
    };
    Arc::new(Entry { meta, value: value.into() })
}

/// Bytes that no other version has, cheap to make: splitmix64, Steele and others 2014.
pub(super) fn bytes_of(version: u64, count: usize) -> Vec<u8> {
    let word = |n: u64| {
        let mut word = version.wrapping_mul(1 << 20).wrapping_add(n).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (word ^ (word >> 31)).to_le_bytes()
    };
    (0_u64..).flat_map(word).take(count).collect()
}

/// The version that an entry's value tells, if all of it is as it was made.
pub(super) fn version_of(found: &Entry) -> u64 {
    let version = found.meta.epoch;
    let made = entry(version, found.value.len(), found.meta.expires.0);
    assert_eq!(found.value, made.value, "a value is as it was put, or absent");
    assert_eq!(found.meta.tokens, 12);
    version
}

/// Runs a future on this thread: the store's own threads do the work.
pub(super) fn wait<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// A directory on the real disk that goes when the test ends.
pub(super) struct TempDir(std::path::PathBuf);

impl TempDir {
    pub(super) fn new(name: &str) -> TempDir {
        let dir = std::env::temp_dir().join(format!("likewise-{name}-{}", std::process::id()));
        let _ = fs_err::remove_dir_all(&dir);
        fs_err::create_dir_all(&dir).unwrap();
        TempDir(dir)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs_err::remove_dir_all(&self.0);
    }
}
