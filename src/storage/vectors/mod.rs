//! The store of vectors: entries of fixed size in segments, found through a table in memory.

mod active;
pub mod index_file;
mod key_table;
pub mod manifest;
pub(crate) mod options;
pub(crate) mod recovery;
mod scrub;
pub mod segment;
pub(crate) mod segment_file;
mod shared;
mod writer;

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, RwLock, mpsc};
use std::thread::{self, JoinHandle};

use tokio::sync::{Semaphore, oneshot};

use crate::storage::files::Files;
use crate::storage::metrics::StorageMetrics;
pub use options::{Durability, Options};
pub use recovery::Recovery;
pub use scrub::ScrubReport;

use self::recovery::{Recovered, recover};
use self::scrub::{Scrubber, scrub};
use self::segment::{HEADER_BYTES, SEGMENT_BYTES_MAX, Slot, slot_bytes};
use self::shared::Shared;
use self::writer::{Message, Put, Writer};
use crate::domain::{Clock, Entry, Key};
use crate::error::{Error, Kind, Result};
use crate::sync::lock;

/// Vectors on disk. Reading is done by the caller's thread, all writing by one thread that the store owns.
///
/// Dropping it flushes and waits for that thread; [`VectorStore::shutdown`] does the same and tells the result.
#[derive(Debug)]
pub struct VectorStore {
    shared: Arc<Shared>,
    queue: Sender<Message>,
    room: Arc<Semaphore>,
    writer: Mutex<Option<JoinHandle<()>>>,
    scrubber: Option<Scrubber>,
}

/// The store in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Entries that can be found, expired ones that were not removed yet included.
    pub entries: u64,
    /// Segments.
    pub segments: u64,
    /// Length of all segments and index files, as the budget counts it.
    pub bytes_on_disk: u64,
    /// Bytes of slots that wait for the writer.
    pub queued_bytes: u64,
    /// Whether the store takes part; it turns itself off when the disk is full or fails twice.
    pub is_on: bool,
}

impl VectorStore {
    /// Opens the store in `dir`, which is created if it is missing. The caller holds the data directory's lock.
    ///
    /// Errors: `Config` for options out of range, `Io` if the directory cannot be used, `Format` if something in it
    /// was written by a newer version. Damage is no error: it is in the report, and what it hit is missing.
    ///
    /// Cost: reads the index files, and every slot of the segments that have none.
    pub fn open(
        files: Arc<dyn Files>,
        dir: &Path,
        options: &Options,
        clock: Arc<dyn Clock>,
        metrics: Arc<StorageMetrics>,
    ) -> Result<(VectorStore, Recovery)> {
        options.validate()?;
        files.create_dir(dir).map_err(|error| {
            Error::io("cannot create the directory of the disk tier", error).with("path", dir.display())
        })?;
        let recovered = recover(files.as_ref(), dir, options, clock.now())?;
        let Recovered { table, segments, unsealed, next_number, report } = recovered;
        metrics.corrupt_slots.inc_by(report.bad_slots);
        let shared = Arc::new(Shared {
            files,
            dir: dir.to_path_buf(),
            options: options.clone(),
            clock,
            metrics,
            table,
            segments: RwLock::new(segments),
            is_on: AtomicBool::new(true),
        });
        let (queue, inbox) = mpsc::channel();
        let writer = Writer::new(shared.clone(), inbox, unsealed, next_number);
        let started = thread::Builder::new()
            .name("storage-writer".into())
            .spawn(move || writer.run())
            .map_err(|error| Error::io("cannot start the writer of the disk tier", error))?;
        let scrubber = Scrubber::start(&shared)?;
        let room = usize::try_from(options.queue_bytes_max).unwrap_or(Semaphore::MAX_PERMITS);
        let store = VectorStore {
            shared,
            queue,
            room: Arc::new(Semaphore::new(room)),
            writer: Mutex::new(Some(started)),
            scrubber,
        };
        Ok((store, report))
    }

    /// Whether an entry of the key is likely there. Looks into memory only; [`VectorStore::get`] decides.
    pub fn contains(&self, key: &Key) -> bool {
        let now = self.shared.clock.now();
        self.shared.is_on() && self.shared.table.find(key.prefix()).is_some_and(|found| found.expires > now)
    }

    /// The entry of the key. Blocks: a page that is not in memory is read from the disk.
    ///
    /// The slot is copied and verified first: checksum, salt, place, the whole key, expiry. One that does not hold is
    /// a miss, is counted, and is forgotten. `meta.last_used` tells the use before this one.
    ///
    /// Errors: `Io` if the disk refuses to read; the entry is then forgotten.
    ///
    /// Cost: two copies of the vector and one checksum.
    pub fn get(&self, key: &Key) -> Result<Option<Entry>> {
        if !self.shared.is_on() {
            return Ok(None);
        }
        let Shared { table, clock, metrics, .. } = &*self.shared;
        let now = clock.now();
        let Some(found) = table.find_used(key.prefix(), now) else { return Ok(None) };
        let forget = || table.remove_at(found.prefix, found.segment, found.slot);
        if found.expires <= now {
            forget();
            return Ok(None);
        }
        let Some(segment) = self.shared.segments().get(&found.segment).cloned() else { return Ok(None) };
        let mut buffer = Vec::new();
        if let Err(error) = segment.read_slot(found.slot, &mut buffer) {
            forget();
            return Err(error);
        }
        match segment.header.decode_slot(found.slot, &buffer) {
            Slot::Good(stored) if stored.key == *key && stored.expires > now => {
                Ok(Some(stored.to_entry(found.last_used)))
            }
            // Another key with the same prefix, whose entry stays.
            Slot::Good(_) => Ok(None),
            Slot::Empty | Slot::Bad => {
                if forget() {
                    metrics.corrupt_slots.inc();
                    tracing::warn!(segment = found.segment, slot = found.slot, "a slot does not verify");
                }
                Ok(None)
            }
        }
    }

    /// Writes entries. Returns when they are as durable as `durability` (or the store's own) promises; only then can
    /// they be read. An entry replaces the one of its key; to renew an entry, put it again with its new expiry.
    ///
    /// Vectors carry no tags and no content type, and expire at `meta.expires`: soft expiry and stale-until are not
    /// kept. All entries of one key have one length, since the model is part of the key: a change of length costs a new
    /// segment, and after it an expired or removed entry of the old length may be found again by the next start.
    ///
    /// Waits while more than `queue_bytes_max` bytes are queued.
    ///
    /// Errors: `InvalidInput` and `TooLarge` for an entry that cannot be stored; then none is. `Io` if a write or a
    /// flush failed: the entries of this call are not visible, and may or may not be found after the next start.
    /// `DiskFull` if that is why the store turned itself off, `Unavailable` once it is off.
    ///
    /// Cancel safety: dropping the future before it has room in the queue writes nothing; after that, everything.
    pub async fn put_many(
        &self,
        entries: Vec<(Key, Arc<Entry>)>,
        durability: Option<Durability>,
    ) -> Result<()> {
        self.shared.check_is_on()?;
        let mut bytes = 0_u64;
        for (_, entry) in &entries {
            bytes = bytes.saturating_add(self.checked_slot_bytes(entry)?);
        }
        if entries.is_empty() {
            return Ok(());
        }
        // One request longer than the queue may pass when the queue is empty.
        let permits = u32::try_from(bytes.min(self.shared.options.queue_bytes_max)).unwrap_or(u32::MAX);
        let room = self.room.clone().acquire_many_owned(permits).await.map_err(|_| stopped())?;
        let durability = durability.unwrap_or(self.shared.options.durability);
        let (done, outcome) = oneshot::channel();
        let put = Put { entries, bytes, durability, room, done };
        self.queue.send(Message::Put(put)).map_err(|_| stopped())?;
        outcome.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Makes everything acknowledged so far durable: one fsync per segment that was written since the last.
    pub async fn flush(&self) -> Result<()> {
        let (done, outcome) = oneshot::channel();
        self.queue.send(Message::Flush(done)).map_err(|_| stopped())?;
        outcome.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Forgets the entry of the key, in memory only: after the next start it may be there again. Returns whether it
    /// was there.
    pub fn remove(&self, key: &Key) -> bool {
        self.shared.table.remove(key.prefix())
    }

    /// Verifies every sealed segment now, at full speed. Blocks.
    pub fn scrub(&self) -> ScrubReport {
        scrub(&self.shared, |_| true)
    }

    /// The store in numbers. Cost: counts the table's shards.
    pub fn stats(&self) -> Stats {
        let free = self.room.available_permits() as u64;
        Stats {
            entries: self.shared.table.entries(),
            segments: self.shared.segments().len() as u64,
            bytes_on_disk: self.shared.bytes_on_disk(),
            queued_bytes: self.shared.options.queue_bytes_max.saturating_sub(free),
            is_on: self.shared.is_on(),
        }
    }

    /// Writes what is queued, flushes, and ends the store's threads. Blocks. Later writes are refused; a second call
    /// does nothing.
    pub fn shutdown(&self) {
        if let Some(scrubber) = &self.scrubber {
            scrubber.stop();
        }
        let _ = self.queue.send(Message::Stop(None));
        if let Some(writer) = lock(&self.writer).take()
            && writer.join().is_err()
        {
            tracing::error!("the writer of the disk tier had panicked");
        }
    }

    /// Ends the store as [`VectorStore::shutdown`] does, without blocking the runtime while the writer works.
    ///
    /// Cancel safety: the store ends also if the future is dropped.
    pub async fn close(&self) {
        let (done, ended) = oneshot::channel();
        if self.queue.send(Message::Stop(Some(done))).is_ok() {
            // An error means that the writer had ended before.
            let _ = ended.await;
        }
        self.shutdown();
    }

    /// Whether the store takes part. It turns itself off when the disk is full or has failed twice, until it is
    /// opened again; then every `get` is a miss.
    pub fn is_on(&self) -> bool {
        self.shared.is_on()
    }

    fn checked_slot_bytes(&self, entry: &Entry) -> Result<u64> {
        if !entry.meta.tags.is_empty() || !entry.meta.content_type.is_empty() {
            return Err(Error::invalid("entry", "a vector carries neither tags nor a content type"));
        }
        let segment_bytes = self.shared.options.segment_bytes.min(SEGMENT_BYTES_MAX);
        let room = segment_bytes.saturating_sub(HEADER_BYTES as u64);
        match u32::try_from(entry.value.len()) {
            Ok(0) => Err(Error::invalid("value", "a vector needs at least one byte")),
            Ok(payload_bytes) if slot_bytes(payload_bytes) <= room => Ok(slot_bytes(payload_bytes)),
            Ok(_) | Err(_) => Err(Error::new(Kind::TooLarge, "fit a vector into a segment")
                .with("payload_bytes", entry.value.len())
                .with("segment_bytes", segment_bytes)),
        }
    }
}

impl Drop for VectorStore {
    fn drop(&mut self) {
        self.shutdown();
    }
}

fn stopped() -> Error {
    Error::new(Kind::Unavailable, "the disk tier has stopped")
}
