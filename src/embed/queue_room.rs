//! Room in the queue of a model, for which texts wait in the order of their arrival.
//!
//! A queue that refuses what it cannot take at once fails a large job at its end, after most of it was paid for. So texts wait
//! before the queue, unless what waits already takes longer than they may wait. Interactive texts have room of their own, for which
//! no bulk text can make them wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::priority::Priority;
use super::throughput::Throughput;
use crate::error::{Error, Kind, Result};

/// One part of so many of the queue is for interactive texts.
const INTERACTIVE_PART: usize = 8;
/// OpenAI's clients ignore a longer `retry-after`.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// The room of a queue.
#[derive(Debug)]
pub struct QueueRoom {
    interactive: Lane,
    bulk: Lane,
}

/// The room for texts of one priority.
#[derive(Debug)]
struct Lane {
    room: Arc<Semaphore>,
    texts_max: usize,
    throughput: Throughput,
    /// Texts that wait for room.
    waiting: AtomicUsize,
}

/// The place of a text in a queue. Dropping it makes room for another one.
#[derive(Debug)]
pub struct QueuePlace {
    _permit: OwnedSemaphorePermit,
}

impl QueueRoom {
    /// Room for `texts_max` texts, of which `concurrent_passes` batches are embedded at a time.
    pub(super) fn new(texts_max: usize, concurrent_passes: usize) -> QueueRoom {
        let interactive = (texts_max / INTERACTIVE_PART).max(1);
        QueueRoom {
            interactive: Lane::new(interactive, concurrent_passes),
            bulk: Lane::new(texts_max.saturating_sub(interactive).max(1), concurrent_passes),
        }
    }

    /// Texts that can be taken at a time.
    pub fn texts_max(&self, priority: Priority) -> usize {
        self.lane(priority).texts_max
    }

    /// Whether the texts that wait are embedded `within` a time, as far as the measured rate says.
    ///
    /// # Errors
    /// `Overloaded`, with the time after which they are.
    pub fn check(&self, priority: Priority, within: Duration) -> Result<()> {
        let lanes = match priority {
            Priority::Interactive => &[&self.interactive][..],
            // Interactive ones go first.
            Priority::Bulk => &[&self.interactive, &self.bulk],
        };
        // Its own texts are not counted: whatever they take, another server would take no less.
        let before: usize = lanes.iter().map(|lane| lane.texts()).sum();
        let times = lanes.iter().map(|lane| lane.throughput.time_of(lane.texts()));
        let takes = times.fold(Duration::ZERO, Duration::saturating_add);
        if takes <= within {
            return Ok(());
        }
        let message = format!(
            "the model is busy: {before} texts wait, which takes longer than the {} s of a request",
            within.as_secs()
        );
        Err(Error::new(Kind::Overloaded, message).retry_after((takes - within).min(RETRY_AFTER_MAX)))
    }

    /// Waits for room for `texts`, at most [`QueueRoom::texts_max`].
    ///
    /// Cancel safety: dropping the future gives up the place in the order.
    pub async fn take(&self, texts: usize, priority: Priority) -> Vec<QueuePlace> {
        let lane = self.lane(priority);
        let waiting = WaitingTexts::new(&lane.waiting, texts);
        let count = u32::try_from(texts.min(lane.texts_max)).unwrap_or(u32::MAX);
        let taken = Arc::clone(&lane.room).acquire_many_owned(count).await;
        drop(waiting);
        let mut permit = taken.expect("the room is never closed: this is a bug");
        (0..count).filter_map(|_| permit.split(1)).map(|permit| QueuePlace { _permit: permit }).collect()
    }

    /// Records a pass over texts of a priority.
    pub(super) fn observe(&self, priority: Priority, texts: usize, took: Duration) {
        self.lane(priority).throughput.observe(texts, took);
    }

    /// The error of a caller whose texts exceed the queue.
    pub(super) fn queue_full(&self, waiting: usize, max: usize) -> Error {
        // Most of a full queue is bulk.
        self.bulk.throughput.queue_full(waiting, max)
    }

    fn lane(&self, priority: Priority) -> &Lane {
        match priority {
            Priority::Interactive => &self.interactive,
            Priority::Bulk => &self.bulk,
        }
    }
}

impl Lane {
    fn new(texts_max: usize, concurrent_passes: usize) -> Lane {
        Lane {
            room: Arc::new(Semaphore::new(texts_max)),
            texts_max,
            throughput: Throughput::new(concurrent_passes),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Texts in the queue, and those that wait for it.
    fn texts(&self) -> usize {
        self.texts_max - self.room.available_permits() + self.waiting.load(Ordering::Relaxed)
    }
}

/// Counts texts that wait for as long as it lives.
struct WaitingTexts<'a> {
    count: &'a AtomicUsize,
    texts: usize,
}

impl WaitingTexts<'_> {
    fn new(count: &AtomicUsize, texts: usize) -> WaitingTexts<'_> {
        count.fetch_add(texts, Ordering::Relaxed);
        WaitingTexts { count, texts }
    }
}

impl Drop for WaitingTexts<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(self.texts, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn texts_wait_for_room_in_their_order_and_interactive_ones_for_their_own() {
        let room = QueueRoom::new(16, 1);
        assert_eq!((room.texts_max(Priority::Interactive), room.texts_max(Priority::Bulk)), (2, 14));
        let held = room.take(14, Priority::Bulk).await;
        let mut second = Box::pin(room.take(4, Priority::Bulk));
        let mut third = Box::pin(room.take(1, Priority::Bulk));
        assert!(second.as_mut().now_or_never().is_none() && third.as_mut().now_or_never().is_none());
        assert_eq!(room.bulk.texts(), 19);
        assert_eq!(room.take(2, Priority::Interactive).now_or_never().unwrap().len(), 2);
        drop(held.into_iter().take(4).collect::<Vec<_>>());
        // All of the first have gone by now.
        let second = second.now_or_never().unwrap();
        assert_eq!((second.len(), third.now_or_never().unwrap().len()), (4, 1));
        assert_eq!(room.bulk.texts(), 4);
    }

    #[tokio::test]
    async fn what_would_take_too_long_is_refused_with_the_time_to_wait() {
        let room = QueueRoom::new(1024, 1);
        let within = Duration::from_secs(10);
        let refusal = |within| {
            let error = room.check(Priority::Bulk, within).unwrap_err();
            assert_eq!(error.kind(), Kind::Overloaded);
            error.retry_after_seconds()
        };
        let _held = room.take(500, Priority::Bulk).await;
        assert!(room.check(Priority::Bulk, within).is_ok(), "the rate is not known yet");
        for _ in 0..2 {
            room.observe(Priority::Bulk, 100, Duration::from_secs(1));
        }
        assert!(room.check(Priority::Bulk, within).is_ok());
        let _more = room.take(300, Priority::Bulk).await;
        assert!(room.check(Priority::Bulk, within).is_ok());
        assert_eq!(refusal(Duration::from_secs(5)), Some(3));
        assert!(room.check(Priority::Interactive, Duration::ZERO).is_ok(), "no bulk text goes before it");
        room.observe(Priority::Bulk, 100, Duration::from_secs(10_000));
        assert_eq!(refusal(within), Some(60));
    }

    #[tokio::test]
    async fn where_nothing_waits_nothing_is_refused() {
        let room = QueueRoom::new(1024, 1);
        for _ in 0..3 {
            room.observe(Priority::Bulk, 8, Duration::from_secs(3600));
        }
        assert!(room.check(Priority::Bulk, Duration::ZERO).is_ok());
    }
}
