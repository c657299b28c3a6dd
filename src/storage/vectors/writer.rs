//! The one thread that writes: it drains the queue, writes contiguous slots, flushes as promised, and only then
//! makes entries visible and acknowledges them.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::active::Active;
use super::index_file::IndexEntry;
use super::key_table::Location;
use super::options::Durability;
use super::recovery::Unsealed;
use super::segment::{Header, Slot, slot_bytes};
use super::segment_file::{OpenSegment, publish_manifest};
use super::shared::Shared;
use crate::domain::{Entry, Key, UnixSeconds};
use crate::error::{Error, Kind, Result};
use crate::storage::files::remove_if_present;

/// A group of writes is committed when it is this long.
const GROUP_BYTES: u64 = 256 << 10;
/// How often an idle writer looks for segments that have expired as a whole.
const IDLE_INTERVAL: Duration = Duration::from_secs(60);
/// The share of a segment's slots that may be carried over when it is dropped.
const CARRIED_SHARE: u32 = 10;
/// Names that are taken by files which are not ours are stepped over, this many at a time.
const TAKEN_NAMES_MAX: u64 = 1000;
/// Failures after which the store turns itself off.
const FAILURES_MAX: u32 = 2;

/// What the writer is asked for.
#[derive(Debug)]
pub(super) enum Message {
    Put(Put),
    Flush(oneshot::Sender<Result<()>>),
    Stop(Option<oneshot::Sender<()>>),
}

/// Entries to write. The permit gives their room in the queue back when they are done.
#[derive(Debug)]
pub(super) struct Put {
    pub entries: Vec<(Key, Arc<Entry>)>,
    pub bytes: u64,
    pub durability: Durability,
    pub room: OwnedSemaphorePermit,
    pub done: oneshot::Sender<Result<()>>,
}

#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    inbox: Receiver<Message>,
    /// A message that was received while a group was gathered, and does not belong to it.
    held: Option<Message>,
    /// By payload size.
    active: BTreeMap<u32, Active>,
    next_number: u64,
    failures: u32,
    dirty_since: Option<Instant>,
    buffer: Vec<u8>,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        inbox: Receiver<Message>,
        unsealed: BTreeMap<u32, Unsealed>,
        next_number: u64,
    ) -> Writer {
        // What was found may have been written by a process that died before it flushed.
        let dirty_since = if unsealed.is_empty() { None } else { Some(Instant::now()) };
        let files = Arc::clone(&shared.files);
        let active = unsealed
            .into_iter()
            .map(|(payload_bytes, found)| (payload_bytes, Active::new(&*files, found, true)))
            .collect();
        Writer {
            shared,
            inbox,
            held: None,
            active,
            next_number,
            failures: 0,
            dirty_since,
            buffer: Vec::new(),
        }
    }

    /// Serves until it gets the message to stop or all senders are dropped, and flushes at the end.
    pub(super) fn run(mut self) {
        let done = loop {
            match self.next_message() {
                Ok(Message::Put(put)) => self.commit_group(put),
                Ok(Message::Flush(done)) => {
                    let _ = done.send(self.flush());
                }
                Ok(Message::Stop(done)) => break done,
                Err(RecvTimeoutError::Disconnected) => break None,
                Err(RecvTimeoutError::Timeout) if self.dirty_since.is_none() => self.drop_expired(),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.flush_due_in().is_some_and(|wait| wait.is_zero()) {
                // Reported by metric and log; the writes were acknowledged under `async`.
                let _ = self.flush();
            }
        };
        let _ = self.flush();
        self.active.values_mut().for_each(Active::sync_mark);
        if let Some(done) = done {
            let _ = done.send(());
        }
    }

    fn next_message(&mut self) -> Result<Message, RecvTimeoutError> {
        match self.held.take() {
            Some(message) => Ok(message),
            None => self.inbox.recv_timeout(self.flush_due_in().unwrap_or(IDLE_INTERVAL)),
        }
    }

    fn flush_due_in(&self) -> Option<Duration> {
        let interval = Duration::from_millis(self.shared.options.flush_interval_ms);
        self.dirty_since.map(|since| interval.saturating_sub(since.elapsed()))
    }

    fn commit_group(&mut self, first: Put) {
        let group = self.gather(first);
        let result = self.commit(&group);
        for Put { room, done, .. } in group {
            drop(room);
            // A caller that has stopped waiting has lost nothing: the entries are in.
            let _ = done.send(result.clone());
        }
    }

    /// Everything that waits, up to a group's length; with `group_commit_ms`, also what comes in that time.
    fn gather(&mut self, first: Put) -> Vec<Put> {
        let deadline = Instant::now() + Duration::from_millis(self.shared.options.group_commit_ms);
        let mut bytes = first.bytes;
        let mut group = vec![first];
        while bytes < GROUP_BYTES && self.held.is_none() {
            let message = match self.inbox.try_recv() {
                Err(TryRecvError::Empty) => {
                    let wait = deadline.saturating_duration_since(Instant::now());
                    if wait.is_zero() {
                        break;
                    }
                    self.inbox.recv_timeout(wait).ok()
                }
                received => received.ok(),
            };
            match message {
                Some(Message::Put(put)) => {
                    bytes += put.bytes;
                    group.push(put);
                }
                Some(other) => self.held = Some(other),
                None => break,
            }
        }
        group
    }

    /// Writes, flushes if a caller was promised that, publishes. After an error nothing of the group is visible.
    fn commit(&mut self, group: &[Put]) -> Result<()> {
        self.shared.check_is_on()?;
        let mut staged = Vec::new();
        for (payload_bytes, entries) in by_payload_size(group) {
            self.write(payload_bytes, &entries, &mut staged)?;
        }
        if group.iter().any(|put| put.durability == Durability::Sync) {
            self.flush()?;
        }
        for location in staged {
            self.shared.table.insert(location);
        }
        Ok(())
    }

    /// Writes entries of one payload size, into as many segments as they need.
    fn write(
        &mut self,
        payload_bytes: u32,
        entries: &[(&Key, &Entry)],
        staged: &mut Vec<Location>,
    ) -> Result<()> {
        let newest = entries
            .iter()
            .filter_map(|(key, _)| self.shared.table.find(key.prefix()))
            .map(|l| l.segment)
            .max();
        let is_behind = self
            .active
            .get(&payload_bytes)
            .is_some_and(|active| newest.is_some_and(|newest| newest > active.segment.header.number));
        if is_behind {
            // The entry lies in a later segment of another payload size, and the later segment wins at the next start.
            self.rotate(payload_bytes)?;
        }
        let mut rest = entries;
        while !rest.is_empty() {
            if self.active.get(&payload_bytes).is_none_or(|active| active.room() == 0) {
                self.rotate(payload_bytes)?;
            }
            let written = self.write_slots(payload_bytes, rest, staged)?;
            rest = rest.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// Writes as many entries as one write and the active segment take. Returns how many.
    fn write_slots(
        &mut self,
        payload_bytes: u32,
        entries: &[(&Key, &Entry)],
        staged: &mut Vec<Location>,
    ) -> Result<usize> {
        let Some(active) = self.active.get_mut(&payload_bytes) else {
            return Err(Error::new(Kind::Internal, "cannot write slots: there is no open segment"));
        };
        let slots_max = usize::try_from(GROUP_BYTES / slot_bytes(payload_bytes)).unwrap_or(1).max(1);
        let count = entries.len().min(active.room()).min(slots_max);
        let header = &active.segment.header;
        let now = self.shared.clock.now();
        self.buffer.clear();
        for (slot, (key, entry)) in (active.next_slot..).zip(entries.iter().take(count)) {
            header.encode_slot(slot, key, entry, &mut self.buffer);
            staged.push(Location {
                prefix: key.prefix(),
                segment: header.number,
                slot,
                expires: entry.meta.expires,
                last_used: now,
            });
            active.entries.push(IndexEntry::new(key, entry.meta.expires, slot));
        }
        let offset = header.slot_offset(active.next_slot);
        let result = active.segment.file.write_all_at(&self.buffer, offset);
        active.next_slot += count as u32;
        active.is_dirty = true;
        self.dirty_since.get_or_insert_with(Instant::now);
        result.map_err(|error| self.fail(Some(payload_bytes), Error::io("cannot write slots", error)))?;
        Ok(count)
    }

    /// Makes everything written so far durable. A failed flush is not tried again: it would prove nothing.
    fn flush(&mut self) -> Result<()> {
        self.dirty_since = None;
        let dirty: Vec<u32> = self.active.iter().filter(|(_, a)| a.is_dirty).map(|(&size, _)| size).collect();
        let mut result = self.shared.check_is_on();
        for payload_bytes in dirty {
            if let Some(active) = self.active.get_mut(&payload_bytes)
                && let Err(error) = active.flush()
            {
                result = Err(self.fail(Some(payload_bytes), Error::io("cannot flush segment", error)));
            }
        }
        result
    }

    /// Seals the active segment of a payload size, creates the next one, and keeps the budget.
    fn rotate(&mut self, payload_bytes: u32) -> Result<()> {
        self.seal(payload_bytes)?;
        let now = self.shared.clock.now();
        let options = &self.shared.options;
        let (bytes_max, segment_bytes) = (options.bytes_max, options.segment_bytes);
        self.drop_until(bytes_max.saturating_sub(segment_bytes), None)?;
        let segment = self.create(payload_bytes, now)?;
        let number = segment.header.number;
        let fresh = Unsealed { segment: segment.clone(), entries: Vec::new(), next_slot: 0 };
        let active = Active::new(self.shared.files.as_ref(), fresh, false);
        self.shared.segments_mut().insert(number, segment.clone());
        if let Err(error) = self.publish_manifest() {
            self.shared.segments_mut().remove(&number);
            // It holds nothing, and the next start would only find it empty.
            let _ = self.shared.files.remove(&segment.path);
            let _ = self.shared.files.remove(&segment.mark_path());
            return Err(self.fail(None, error));
        }
        self.active.insert(payload_bytes, active);
        // Room for the next segment is made now, while there is a fresh one to carry entries into.
        self.drop_until(bytes_max.saturating_sub(segment_bytes), Some(number))
    }

    fn create(&mut self, payload_bytes: u32, now: UnixSeconds) -> Result<Arc<OpenSegment>> {
        let mut salt = [0; 16];
        if let Err(error) = getrandom::fill(&mut salt) {
            return Err(self.fail(None, Error::new(Kind::Io, "cannot draw a salt").with("cause", error)));
        }
        let taken_max = self.next_number.saturating_add(TAKEN_NAMES_MAX);
        loop {
            let number = u32::try_from(self.next_number).map_err(|_| {
                Error::new(Kind::Internal, "cannot number another segment").with("next", self.next_number)
            })?;
            self.next_number += 1;
            let Shared { files, dir, options, .. } = &*self.shared;
            let header = Header::new(number, salt, payload_bytes, options.segment_bytes, now)?;
            match OpenSegment::create(files.as_ref(), dir, header, options.read) {
                Ok(segment) => return Ok(Arc::new(segment)),
                Err(error) if is_taken(&error) && self.next_number < taken_max => {}
                Err(error) => return Err(self.fail(None, error)),
            }
        }
    }

    /// Seals the active segment of a payload size, if there is one: flushed first, then indexed.
    fn seal(&mut self, payload_bytes: u32) -> Result<()> {
        let Some(active) = self.active.get_mut(&payload_bytes) else { return Ok(()) };
        if active.is_dirty
            && let Err(error) = active.flush()
        {
            return Err(self.fail(Some(payload_bytes), Error::io("cannot flush segment", error)));
        }
        if let Some(mut active) = self.active.remove(&payload_bytes) {
            active.sync_mark();
            let Active { segment, entries, .. } = active;
            segment.seal(self.shared.clock.now());
            segment.note_entries(&entries);
            if let Err(error) = segment.write_index(self.shared.files.as_ref(), &entries) {
                // Derived: the next start scans the segment instead.
                self.shared.count_background(&error);
            }
        }
        Ok(())
    }

    /// Drops the oldest segments until at most `bytes` are on the disk, but never the segment `kept`.
    fn drop_until(&mut self, bytes: u64, kept: Option<u32>) -> Result<()> {
        while self.shared.bytes_on_disk() > bytes {
            let oldest = self.shared.segments().keys().copied().find(|&number| Some(number) != kept);
            let Some(oldest) = oldest else { break };
            self.drop_segment(oldest, kept.is_some())?;
        }
        Ok(())
    }

    fn drop_expired(&mut self) {
        let now = self.shared.clock.now().0;
        let is_expired = |segment: &&Arc<OpenSegment>| {
            segment.is_sealed() && segment.expires_max.load(std::sync::atomic::Ordering::Relaxed) <= now
        };
        let expired: Vec<u32> =
            self.shared.segments().values().filter(is_expired).map(|segment| segment.header.number).collect();
        for number in expired {
            if let Err(error) = self.drop_segment(number, false) {
                self.shared.count_background(&error);
            }
        }
    }

    /// Takes a segment out of the store: carry over, forget, publish, unlink, in this order.
    fn drop_segment(&mut self, number: u32, is_carried: bool) -> Result<()> {
        let Some(victim) = self.shared.segments().get(&number).cloned() else { return Ok(()) };
        let payload_bytes = victim.header.payload_bytes;
        if self.active.get(&payload_bytes).is_some_and(|active| active.segment.header.number == number) {
            self.seal(payload_bytes)?;
        }
        if is_carried {
            self.carry_over(&victim)?;
        }
        self.shared.segments_mut().remove(&number);
        let forgotten = self.shared.table.retain(|location| location.segment != number);
        self.shared.count_evictions(forgotten);
        self.publish_manifest().map_err(|error| self.fail(None, error))?;
        let files = &self.shared.files;
        let removed = files
            .remove(&victim.path)
            .and_then(|()| remove_if_present(files.as_ref(), &victim.index_path()))
            .and_then(|()| remove_if_present(files.as_ref(), &victim.mark_path()));
        removed.map_err(|error| {
            let error = Error::io("cannot remove segment", error).with("path", victim.path.display());
            self.fail(None, error)
        })
    }

    /// Rewrites what was used since the segment was sealed into the active one, the latest used first.
    fn carry_over(&mut self, victim: &OpenSegment) -> Result<()> {
        let Header { number, payload_bytes, slot_count, .. } = victim.header;
        let Some(room) = self.active.get(&payload_bytes).map(Active::room) else { return Ok(()) };
        let now = self.shared.clock.now();
        let sealed_at = victim.sealed_at.load(std::sync::atomic::Ordering::Relaxed);
        let mut used = self.shared.table.collect(|location| {
            location.segment == number && location.last_used.0 > sealed_at && location.expires > now
        });
        used.sort_unstable_by_key(|location| std::cmp::Reverse(location.last_used));
        used.truncate(room.min((slot_count / CARRIED_SHARE) as usize));
        let mut carried = Vec::new();
        let mut buffer = Vec::new();
        for location in &used {
            if victim.read_slot(location.slot, &mut buffer).is_ok()
                && let Slot::Good(stored) = victim.header.decode_slot(location.slot, &buffer)
            {
                carried.push((stored.key, stored.to_entry(location.last_used)));
            }
        }
        let carried: Vec<(&Key, &Entry)> = carried.iter().map(|(key, entry)| (key, entry)).collect();
        let mut staged = Vec::new();
        let mut rest = carried.as_slice();
        while !rest.is_empty() {
            let written = self.write_slots(payload_bytes, rest, &mut staged)?;
            rest = rest.get(written..).unwrap_or_default();
        }
        if !staged.is_empty() {
            // They may have been promised to survive a power cut, and their old place is about to go.
            self.flush()?;
        }
        for location in staged {
            self.shared.table.insert(location);
        }
        Ok(())
    }

    fn publish_manifest(&self) -> Result<()> {
        let segments: Vec<_> = self.shared.segments().values().cloned().collect();
        publish_manifest(self.shared.files.as_ref(), &self.shared.dir, self.next_number, segments.iter())
    }

    /// Notes a failure: the segment takes no more slots, and the second failure, or a full disk, turns the store off.
    fn fail(&mut self, payload_bytes: Option<u32>, error: Error) -> Error {
        self.failures += 1;
        self.shared.metrics.failed_segments.inc();
        if let Some(active) = payload_bytes.and_then(|size| self.active.remove(&size)) {
            // Suspect: it gets no index file, so that the next start verifies each of its slots.
            active.segment.seal(self.shared.clock.now());
            active.segment.note_entries(&active.entries);
        }
        let error = error.with("path", self.shared.dir.display());
        if error.kind() == Kind::DiskFull || self.failures >= FAILURES_MAX {
            self.shared.turn_off(&error);
        } else {
            tracing::warn!(%error, "a segment was sealed as suspect; writing goes on in a new one");
        }
        error
    }
}

/// The entries of a group by payload size; of several entries of one key only the last.
fn by_payload_size(group: &[Put]) -> BTreeMap<u32, Vec<(&Key, &Entry)>> {
    let mut last: HashMap<&Key, usize> = HashMap::new();
    let all = || group.iter().flat_map(|put| &put.entries).enumerate();
    for (at, (key, _)) in all() {
        last.insert(key, at);
    }
    let mut sorted: BTreeMap<u32, Vec<(&Key, &Entry)>> = BTreeMap::new();
    for (at, (key, entry)) in all() {
        if last.get(key) == Some(&at) {
            // Checked to fit into a segment before it was queued.
            let payload_bytes = u32::try_from(entry.value.len()).unwrap_or(u32::MAX);
            sorted.entry(payload_bytes).or_default().push((key, entry));
        }
    }
    sorted
}

fn is_taken(error: &Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::AlreadyExists)
}
