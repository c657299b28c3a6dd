//! The vector store: entries of fixed size by key, found by one probe in memory and one read of a slot.
//!
//! Readers are any threads. One thread writes: it appends what waits, makes it as durable as was asked, and only then
//! lets readers see it, so a place in the table never outruns the bytes that it points to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, mpsc};
use std::thread::JoinHandle;

use tokio::sync::{Semaphore, oneshot};

use super::recovery::{self, Recovery};
use super::segment::Segment;
use super::table::Table;
use super::writer::{Job, Put, Writer};
use super::{Durability, Files, Options, SEGMENT_BYTES_MAX};
use crate::domain::{Clock, Entry, Key};
use crate::error::{Error, Kind, Result};
use crate::metrics::Metrics;

/// Numbers of the store at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Entries that can be found.
    pub entries: u64,
    /// Bytes of all segment files.
    pub bytes_on_disk: u64,
    /// The budget.
    pub bytes_max: u64,
    /// Segment files.
    pub segments: u64,
    /// Whether the store takes part; it turns itself off when the disk fails it twice, or is full.
    pub is_on: bool,
}

/// What readers and the writer share.
pub(super) struct Shared {
    pub(super) files: Arc<dyn Files>,
    pub(super) dir: PathBuf,
    pub(super) options: Options,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) table: Table,
    pub(super) segments: RwLock<BTreeMap<u32, Arc<Segment>>>,
    pub(super) is_on: AtomicBool,
}

/// Room in the queue is counted in units of so many bytes.
const ROOM_UNIT_BYTES: u64 = 64;

/// An open store. Shared by `Arc`; [`VectorStore::close`] ends it.
pub struct VectorStore {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
    /// Room for bytes that wait to be written.
    room: Arc<Semaphore>,
    room_units: u32,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl VectorStore {
    /// Opens the store of a directory, or makes one. The caller holds the lock of the data directory.
    ///
    /// Cost: sealed segments are known by their index files, 12 bytes a slot; the newest is read whole.
    ///
    /// # Errors
    /// `Config` about the options, `Format` if a newer version wrote the store, `Io` from the operating system.
    /// Damage is no error: it is counted in the report, and what it hit is a miss.
    pub fn open(
        files: Arc<dyn Files>,
        dir: &Path,
        options: &Options,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<(VectorStore, Recovery)> {
        check(options)?;
        let shared = Arc::new(Shared {
            files,
            dir: dir.to_owned(),
            options: options.clone(),
            clock,
            metrics,
            table: Table::new(),
            segments: RwLock::default(),
            is_on: AtomicBool::new(true),
        });
        let (state, report) = recovery::recover(&shared)?;
        let (jobs, queue) = mpsc::channel();
        let writer = Writer::new(Arc::clone(&shared), state);
        let writer = std::thread::Builder::new()
            .name("disk-writer".into())
            .spawn(move || writer.run(&queue))
            .map_err(|error| Error::io("start the disk writer", error))?;
        let room_units = u32::try_from(options.queue_bytes_max / ROOM_UNIT_BYTES).unwrap_or(u32::MAX).max(1);
        let store = VectorStore {
            shared,
            jobs,
            room: Arc::new(Semaphore::new(room_units as usize)),
            room_units,
            writer: Mutex::new(Some(writer)),
        };
        Ok((store, report))
    }

    /// Whether an entry of this key may be here, by memory alone.
    pub fn contains(&self, key: &Key) -> bool {
        self.shared.table.get(key.prefix()).is_some_and(|row| row.expires > self.shared.clock.now())
    }

    /// The entry of a key. Blocks for a page fault or a read at most.
    ///
    /// A slot that does not hold is a miss, counted in `disk_bad_slots` and not asked again.
    ///
    /// # Errors
    /// `Io` if the operating system cannot read.
    pub fn get(&self, key: &Key) -> Result<Option<Entry>> {
        let shared = &self.shared;
        let now = shared.clock.now();
        let Some(row) = shared.table.touch(key.prefix(), now) else { return Ok(None) };
        if row.expires <= now {
            shared.table.remove(key.prefix(), Some(row.place));
            return Ok(None);
        }
        let Some(segment) = shared.segment(row.place.segment) else { return Ok(None) };
        let read = segment
            .read(row.place.slot)
            .map_err(|error| Error::io("read a slot", error).with("path", segment.path.display()))?;
        let Some((full_key, entry)) = read else {
            shared.metrics.bad_slots.inc();
            shared.table.remove(key.prefix(), Some(row.place));
            return Ok(None);
        };
        Ok((full_key == *key).then_some(entry))
    }

    /// Stores entries and returns once they are as durable as `durability`, or the options, ask. Entries of one call may
    /// become visible one by one. Waits for room in the queue.
    ///
    /// Cost: one write for all that wait; with `sync` one flush for all that wait.
    ///
    /// Cancel safety: dropped before the queue took the entries, nothing is stored; later, all are.
    ///
    /// # Errors
    /// `Io` or `DiskFull` if they could not be stored, `Unavailable` once the store is off or closed. Entries of a failed
    /// call are not visible.
    pub async fn put_many(
        &self,
        entries: Vec<(Key, Arc<Entry>)>,
        durability: Option<Durability>,
    ) -> Result<()> {
        let bytes: u64 = entries.iter().map(|(_, entry)| entry.value.len() as u64 + ROOM_UNIT_BYTES).sum();
        // A call larger than the whole queue waits until the queue is empty.
        let units = u32::try_from(bytes.div_ceil(ROOM_UNIT_BYTES)).unwrap_or(u32::MAX).min(self.room_units);
        let room = Arc::clone(&self.room).acquire_many_owned(units).await.map_err(|_| off())?;
        let (ack, done) = oneshot::channel();
        let durability = durability.unwrap_or(self.shared.options.durability);
        self.jobs.send(Job::Put(Put { entries, durability, ack, _room: room })).map_err(|_| off())?;
        done.await.map_err(|_| off())?
    }

    /// Forgets an entry until the next restart. Nothing is written: an entry that must stay forgotten is one that the
    /// judge above refuses.
    pub fn remove(&self, key: &Key) {
        self.shared.table.remove(key.prefix(), None);
    }

    /// Makes everything stored so far survive a loss of power.
    ///
    /// # Errors
    /// As for [`VectorStore::put_many`].
    pub async fn flush(&self) -> Result<()> {
        let (ack, done) = oneshot::channel();
        self.jobs.send(Job::Flush(ack)).map_err(|_| off())?;
        done.await.map_err(|_| off())?
    }

    /// Flushes and ends the writer. Later calls of [`VectorStore::put_many`] fail; gets go on.
    pub async fn close(&self) {
        // A writer that is gone has nothing left to flush.
        let _ = self.flush().await;
        let _ = self.jobs.send(Job::Close);
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            // The thread has only its queue to leave; a panic of it has been printed.
            let _ = writer.join();
        }
    }

    /// Numbers of this moment.
    pub fn stats(&self) -> Stats {
        let segments = self.shared.segments.read().unwrap_or_else(PoisonError::into_inner);
        Stats {
            bytes_on_disk: segments.values().map(|segment| segment.header.file_bytes()).sum(),
            segments: segments.len() as u64,
            entries: self.shared.table.len() as u64,
            bytes_max: self.shared.options.bytes_max,
            is_on: self.is_on(),
        }
    }

    /// Whether the store takes part.
    pub fn is_on(&self) -> bool {
        self.shared.is_on.load(Ordering::Acquire)
    }
}

impl Shared {
    fn segment(&self, number: u32) -> Option<Arc<Segment>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }
}

pub(super) fn off() -> Error {
    Error::new(Kind::Unavailable, "the disk store is off or closed")
}

fn check(options: &Options) -> Result<()> {
    const SEGMENT_BYTES_MIN: u64 = 16 * 1024;
    let refuse = |message: String| Err(Error::new(Kind::Config, message));
    let segment = options.segment_bytes;
    if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment) {
        return refuse(format!(
            "cache.disk.segment_bytes must be {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX}, got {segment}"
        ));
    }
    if options.bytes_max < 2 * segment {
        return refuse(format!(
            "cache.disk.bytes_max must be at least two segments of {segment} bytes, got {}",
            options.bytes_max
        ));
    }
    if options.flush_interval_ms == 0 {
        return refuse("cache.disk.flush_interval_ms must be at least 1, got 0".into());
    }
    Ok(())
}
