//! The scrubber: it reads sealed segments at a limited rate, to find rot before a reader does.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::segment_file::{OpenSegment, Scanned};
use super::shared::Shared;
use crate::error::{Error, Result};
use crate::sync::{ignore_poison, lock};

/// Bytes that are read at once, and after which the rate is kept.
const CHUNK_BYTES: u64 = 256 << 10;
/// The pause between two rounds, and while there is nothing to read.
const ROUND_PAUSE: Duration = Duration::from_secs(600);

/// What a round of scrubbing found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Sealed segments that were read to their end.
    pub segments: u64,
    /// Entries that had verified before and do not any more. They were counted and forgotten.
    pub bad_slots: u64,
}

/// The thread that scrubs.
#[derive(Debug)]
pub(super) struct Scrubber {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Scrubber {
    /// Starts the thread, unless the options say that there is none.
    pub(super) fn start(shared: &Arc<Shared>) -> Result<Option<Scrubber>> {
        let rate = shared.options.scrub_bytes_per_second;
        if rate == 0 {
            return Ok(None);
        }
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let (thread_stop, shared) = (stop.clone(), shared.clone());
        let thread = thread::Builder::new()
            .name("storage-scrub".into())
            .spawn(move || {
                while wait(&thread_stop, ROUND_PAUSE) {
                    scrub(&shared, |bytes| {
                        let pause_us = bytes.saturating_mul(1_000_000) / rate;
                        wait(&thread_stop, Duration::from_micros(pause_us))
                    });
                }
            })
            .map_err(|error| Error::io("cannot start the scrubber", error))?;
        Ok(Some(Scrubber { stop, thread: Mutex::new(Some(thread)) }))
    }

    /// Ends the thread and waits for it: at most one chunk's read.
    pub(super) fn stop(&self) {
        *lock(&self.stop.0) = true;
        self.stop.1.notify_all();
        if let Some(thread) = lock(&self.thread).take() {
            // A panic there has ended scrubbing, and nothing else.
            let _ = thread.join();
        }
    }
}

/// Waits unless it has to stop. Returns whether to go on.
fn wait((is_stopped, changed): &(Mutex<bool>, Condvar), pause: Duration) -> bool {
    let waited = changed.wait_timeout_while(lock(is_stopped), pause, |is_stopped| !*is_stopped);
    let (guard, _) = ignore_poison(waited);
    !*guard
}

/// Verifies all sealed segments. `may_go_on` hears how many bytes were read, and may wait or end the round.
pub(super) fn scrub(shared: &Shared, mut may_go_on: impl FnMut(u64) -> bool) -> ScrubReport {
    let sealed: Vec<_> = shared.segments().values().filter(|segment| segment.is_sealed()).cloned().collect();
    let mut report = ScrubReport::default();
    for segment in sealed {
        let mut scanned = Scanned::default();
        let slot_bytes = segment.header.slot_bytes();
        let slots_per_chunk = u32::try_from(CHUNK_BYTES / slot_bytes).unwrap_or(1).max(1);
        let mut first = 0;
        while first < segment.slots_present {
            let count = slots_per_chunk.min(segment.slots_present - first);
            if let Err(error) = segment.scan_part(first, count, &mut scanned) {
                // The slots of an unreadable chunk count as bad below.
                shared.count_background(&error);
            }
            first += count;
            if !may_go_on(slot_bytes.saturating_mul(u64::from(count))) {
                return report;
            }
        }
        report.segments += 1;
        report.bad_slots += forget_bad_slots(shared, &segment, &scanned);
    }
    report
}

/// Forgets what had been good and is not any more. Returns how many slots that were.
fn forget_bad_slots(shared: &Shared, segment: &OpenSegment, scanned: &Scanned) -> u64 {
    let good = u32::try_from(scanned.entries.len()).unwrap_or(u32::MAX);
    let lost = u64::from(segment.good_slots.load(Ordering::Relaxed).saturating_sub(good));
    if lost == 0 {
        return 0;
    }
    let number = segment.header.number;
    shared.table.retain(|location| {
        location.segment != number
            || scanned.entries.binary_search_by_key(&location.slot, |entry| entry.slot).is_ok()
    });
    shared.metrics.corrupt_slots.inc_by(lost);
    tracing::warn!(segment = number, slots = lost, "slots of a sealed segment do not verify any more");
    segment.note_entries(&scanned.entries);
    if let Err(error) = segment.write_index(shared.files.as_ref(), &scanned.entries) {
        shared.count_background(&error);
    }
    lost
}
