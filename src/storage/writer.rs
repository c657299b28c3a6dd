//! The one thread that writes: appends, makes durable, publishes, acknowledges, in this order.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, mpsc};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::index_file::Row as IndexRow;
use super::manifest::{Listed, Manifest};
use super::recovery::{Active, WriterState, publish_index, publish_manifest};
use super::segment::{Header, Segment};
use super::table::{Place, Row, UNUSED};
use super::vectors::{Shared, off};
use super::{Durability, index_file};
use crate::domain::{Entry, Key};
use crate::error::{Error, Kind, Result};
use crate::metrics::TierLabels;

/// Work for the writer.
pub(super) enum Job {
    Put(Put),
    Flush(oneshot::Sender<Result<()>>),
    Close,
}

/// Entries to be stored.
pub(super) struct Put {
    pub(super) entries: Vec<(Key, Arc<Entry>)>,
    pub(super) durability: Durability,
    pub(super) ack: oneshot::Sender<Result<()>>,
    pub(super) _room: OwnedSemaphorePermit,
}

/// Bytes that are written together at most. While one flush runs, the next batch gathers by itself; no timer is needed.
const BATCH_BYTES: usize = 256 * 1024;

/// Failures after which the store turns itself off.
const FAILURES_MAX: u32 = 2;

/// Of a segment that is dropped for the budget, this share of slots is carried over if it was used meanwhile.
const CARRIED_SHARE: u32 = 10;

/// An active segment with what is encoded and not yet written.
struct Open {
    active: Active,
    pending: Vec<u8>,
    /// The first slot of `pending`.
    pending_slot: u32,
    /// Written since the last flush.
    is_dirty: bool,
}

/// The writer's own state; nobody else sees it.
pub(super) struct Writer {
    shared: Arc<Shared>,
    manifest: Manifest,
    /// By size of payload.
    open: BTreeMap<u32, Open>,
    /// Appended in this batch and not yet visible.
    unpublished: Vec<Row>,
    failures: u32,
    flush_due: Option<Instant>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, state: WriterState) -> Writer {
        let open = state
            .actives
            .into_iter()
            .map(|active| (active.segment.header.payload_bytes, Open::new(active)))
            .collect();
        Writer {
            shared,
            manifest: state.manifest,
            open,
            unpublished: Vec::new(),
            failures: 0,
            flush_due: None,
        }
    }

    /// Runs until the store is closed or dropped.
    pub(super) fn run(mut self, queue: &mpsc::Receiver<Job>) {
        loop {
            let job = match self.flush_due {
                None => queue.recv().ok(),
                Some(due) => match queue.recv_timeout(due.saturating_duration_since(Instant::now())) {
                    Ok(job) => Some(job),
                    Err(mpsc::RecvTimeoutError::Timeout) => {
                        // Its failure has been counted and logged; nobody waits for this flush.
                        let _ = self.flush();
                        continue;
                    }
                    Err(mpsc::RecvTimeoutError::Disconnected) => None,
                },
            };
            match job {
                // Whoever asked may have left.
                Some(Job::Flush(ack)) => _ = ack.send(self.flush()),
                Some(Job::Put(first)) => {
                    if let Some(after) = self.commit_with_more(first, queue) {
                        match after {
                            Job::Flush(ack) => _ = ack.send(self.flush()),
                            Job::Close => return,
                            Job::Put(_) => {}
                        }
                    }
                }
                Some(Job::Close) | None => {
                    let _ = self.flush();
                    return;
                }
            }
        }
    }

    /// Stores a put and those that wait behind it. Returns the job that ended the batch, if it was another kind.
    fn commit_with_more(&mut self, first: Put, queue: &mpsc::Receiver<Job>) -> Option<Job> {
        let mut bytes = first.bytes();
        let mut puts = vec![first];
        let mut after = None;
        while bytes < BATCH_BYTES {
            match queue.try_recv() {
                Ok(Job::Put(put)) => {
                    bytes += put.bytes();
                    puts.push(put);
                }
                Ok(job @ (Job::Flush(_) | Job::Close)) => {
                    after = Some(job);
                    break;
                }
                Err(_) => break,
            }
        }
        let outcome = self.commit(&puts);
        for put in puts {
            let _ = put.ack.send(outcome.clone());
        }
        after
    }

    /// Stores a batch: all of it, or none of it is visible and nobody is told that it is stored.
    fn commit(&mut self, puts: &[Put]) -> Result<()> {
        if !self.shared.is_on.load(Ordering::Acquire) {
            return Err(off());
        }
        self.unpublished.clear();
        let outcome = self.append_all(puts);
        if let Err(error) = &outcome {
            self.fail(error);
            return outcome;
        }
        for row in self.unpublished.drain(..) {
            self.shared.table.insert(row);
        }
        Ok(())
    }

    fn append_all(&mut self, puts: &[Put]) -> Result<()> {
        for (key, entry) in puts.iter().flat_map(|put| &put.entries) {
            self.append(key, entry)?;
        }
        self.write_pending()?;
        if puts.iter().any(|put| put.durability == Durability::Sync) {
            self.sync_dirty()?;
        } else if self.flush_due.is_none() {
            let interval = Duration::from_millis(self.shared.options.flush_interval_ms);
            self.flush_due = Some(Instant::now() + interval);
        }
        Ok(())
    }

    /// Encodes an entry into the active segment of its size.
    fn append(&mut self, key: &Key, entry: &Entry) -> Result<()> {
        let payload_bytes = u32::try_from(entry.value.len()).unwrap_or(u32::MAX);
        let is_full = |open: &Open| open.active.next >= open.active.segment.header.slots;
        if self.open.get(&payload_bytes).is_none_or(is_full) {
            self.roll(payload_bytes)?;
        }
        self.append_to_open(payload_bytes, key, entry)
    }

    fn append_to_open(&mut self, payload_bytes: u32, key: &Key, entry: &Entry) -> Result<()> {
        let open = self.open.get_mut(&payload_bytes).ok_or_else(off)?;
        let header = open.active.segment.header;
        let slot = open.active.next;
        header.encode_slot(slot, key, entry, &mut open.pending);
        open.active.next += 1;
        let (prefix, expires) = (key.prefix(), entry.meta.expires);
        open.active.rows.push(IndexRow { prefix, expires });
        let place = Place { segment: header.number, slot };
        self.unpublished.push(Row { prefix, place, expires, last_used: UNUSED });
        Ok(())
    }

    fn write_pending(&mut self) -> Result<()> {
        self.open.values_mut().try_for_each(Open::write_pending)
    }

    fn sync_dirty(&mut self) -> Result<()> {
        self.flush_due = None;
        self.open.values_mut().try_for_each(Open::sync)
    }

    fn flush(&mut self) -> Result<()> {
        if !self.shared.is_on.load(Ordering::Acquire) {
            return Err(off());
        }
        let outcome = self.sync_dirty();
        if let Err(error) = &outcome {
            self.fail(error);
        }
        outcome
    }

    /// Seals the active segment of this size, if there is one, and opens a new one, within the budget.
    fn roll(&mut self, payload_bytes: u32) -> Result<()> {
        self.seal(payload_bytes)?;
        let shared = Arc::clone(&self.shared);
        let now = shared.clock.now();
        let number = self.manifest.next_number;
        let header = Header::new(number, salt(), payload_bytes, shared.options.segment_bytes, now);
        let carried = self.make_room(header.file_bytes())?;
        let segment = Segment::create(&*shared.files, &shared.dir, header, shared.options.read)
            .map_err(|error| Error::io("create a segment", error))?;
        self.manifest.next_number += 1;
        self.manifest.segments.push(Listed { number, salt: header.salt, is_sealed: false });
        publish_manifest(&shared, &self.manifest)?;
        let segment = Arc::new(segment);
        shared.segments.write().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::clone(&segment));
        self.open.insert(payload_bytes, Open::new(Active { segment, next: 0, rows: Vec::new() }));
        for (key, entry) in carried {
            // Carried entries of another size go to a segment of theirs, if there is one with room.
            let size = u32::try_from(entry.value.len()).unwrap_or(u32::MAX);
            let has_room = self
                .open
                .get(&size)
                .is_some_and(|open| open.active.next < open.active.segment.header.slots / 2);
            if has_room {
                self.append_to_open(size, &key, &entry)?;
            }
        }
        Ok(())
    }

    /// Ends a segment: flushed, with its index file, and marked in the manifest.
    fn seal(&mut self, payload_bytes: u32) -> Result<()> {
        let Some(mut open) = self.open.remove(&payload_bytes) else { return Ok(()) };
        open.write_pending()?;
        open.is_dirty = true;
        open.sync()?;
        publish_index(&self.shared, &open.active.segment, &open.active.rows)?;
        self.mark_sealed(open.active.segment.header.number);
        publish_manifest(&self.shared, &self.manifest)
    }

    fn mark_sealed(&mut self, number: u32) {
        if let Some(listed) = self.manifest.segments.iter_mut().find(|listed| listed.number == number) {
            listed.is_sealed = true;
        }
    }

    /// Drops the oldest sealed segments until `bytes` more fit into the budget, and returns the entries of them that were
    /// used and deserve a new place.
    fn make_room(&mut self, bytes: u64) -> Result<Vec<(Key, Entry)>> {
        let mut carried = Vec::new();
        while self.bytes_on_disk() + bytes > self.shared.options.bytes_max {
            let Some(place) = self.manifest.segments.iter().position(|listed| listed.is_sealed) else {
                break;
            };
            let number = self.manifest.segments.remove(place).number;
            carried.extend(self.worth_carrying(number));
            publish_manifest(&self.shared, &self.manifest)?;
            self.forget(number)?;
        }
        Ok(carried)
    }

    fn bytes_on_disk(&self) -> u64 {
        let segments = self.shared.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.values().map(|segment| segment.header.file_bytes()).sum()
    }

    /// The entries of a segment that were used since it was written, the last used first.
    fn worth_carrying(&self, number: u32) -> Vec<(Key, Entry)> {
        let segments = self.shared.segments.read().unwrap_or_else(PoisonError::into_inner);
        let Some(segment) = segments.get(&number) else { return Vec::new() };
        let now = self.shared.clock.now();
        let limit = (segment.header.slots / CARRIED_SHARE).max(1) as usize;
        let used = self.shared.table.used(number).into_iter().filter(|row| row.expires > now);
        // An entry that cannot be read is not worth carrying.
        used.filter_map(|row| segment.read(row.place.slot).ok().flatten()).take(limit).collect()
    }

    /// Removes a segment that the manifest no longer names.
    fn forget(&self, number: u32) -> Result<()> {
        let before = self.shared.table.len();
        self.shared.table.remove_segment(number);
        let evicted = before.saturating_sub(self.shared.table.len());
        self.shared.metrics.tier_evictions.get_or_create(&TierLabels { tier: "disk" }).inc_by(evicted as u64);
        let mut segments = self.shared.segments.write().unwrap_or_else(PoisonError::into_inner);
        segments.remove(&number);
        drop(segments);
        let files = &self.shared.files;
        // An index file may never have been written.
        let _ = files.remove(&index_file::path(&self.shared.dir, number));
        files
            .remove(&Segment::path(&self.shared.dir, number))
            .map_err(|error| Error::io("remove a segment", error))
    }

    /// After a failure nothing is known of what was written last: the segments that were being written take no more
    /// slots, and at the second failure, or on a full disk, the store turns itself off.
    fn fail(&mut self, error: &Error) {
        self.unpublished.clear();
        self.flush_due = None;
        self.failures += 1;
        self.shared.metrics.failed_segments.inc();
        for (_, open) in std::mem::take(&mut self.open) {
            // No index file: the next opening reads the slots and believes only those that hold.
            self.mark_sealed(open.active.segment.header.number);
        }
        if error.kind() == Kind::DiskFull || self.failures >= FAILURES_MAX {
            self.shared.is_on.store(false, Ordering::Release);
            self.shared.table.clear();
            tracing::warn!(%error, "the disk store is off; the server goes on without it");
        } else {
            tracing::warn!(%error, "a segment was given up after a failure; a new one is opened");
        }
    }
}

impl Put {
    fn bytes(&self) -> usize {
        self.entries.iter().map(|(_, entry)| entry.value.len()).sum()
    }
}

impl Open {
    fn new(active: Active) -> Open {
        Open { pending_slot: active.next, active, pending: Vec::new(), is_dirty: false }
    }

    fn write_pending(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.is_dirty = true;
        let outcome = self.active.segment.write(self.pending_slot, &self.pending);
        self.pending.clear();
        self.pending_slot = self.active.next;
        outcome
            .map_err(|error| Error::io("write slots", error).with("path", self.active.segment.path.display()))
    }

    fn sync(&mut self) -> Result<()> {
        if !self.is_dirty {
            return Ok(());
        }
        self.is_dirty = false;
        self.active.segment.sync().map_err(|error| {
            Error::io("flush a segment", error).with("path", self.active.segment.path.display())
        })
    }
}

/// Random bytes: two of the standard library's randomly keyed hashes, which are seeded by the operating system.
fn salt() -> [u8; 16] {
    use std::hash::{BuildHasher as _, RandomState};
    let half = || RandomState::new().hash_one(Instant::now()).to_le_bytes();
    let mut salt = [0; 16];
    salt[..8].copy_from_slice(&half());
    salt[8..].copy_from_slice(&half());
    salt
}
