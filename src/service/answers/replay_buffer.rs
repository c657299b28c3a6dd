//! The events of a stream that readers may still want: all of them, for as long as readers may join.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use crate::byte_budget::{Reservation, UNCOUNTED_BYTES};
use crate::dialects::Dialect;

/// What an event costs beside its bytes.
pub(super) const EVENT_BYTES: usize = size_of::<StreamEvent>();

/// What each byte of the events may hold: itself, its place in buffers that grow, its part of the answer that is assembled,
/// and the buffers of the connections that it goes through.
const EVENT_COST: usize = 6;

/// The events, and how far each reader has read them.
#[derive(Debug)]
pub(super) struct ReplayBuffer {
    events: VecDeque<StreamEvent>,
    /// Events that were dropped before the first of these.
    dropped: usize,
    bytes: usize,
    /// What the bytes have reserved of the budget of all requests in flight.
    reservation: Reservation,
    /// How many events each reader has read, by its number. A waiter that reads no events is none.
    read: HashMap<u64, usize>,
    /// Readers that have ever subscribed.
    subscribed: u64,
    /// Whether no reader can join any more, so that what all have read is dropped.
    is_closed: bool,
}

/// One event of a stream.
#[derive(Debug)]
pub(super) struct StreamEvent {
    pub(super) bytes: Bytes,
    pub(super) usage_content: UsageContent,
}

/// What an event says of token usage, which is for clients that requested it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UsageContent {
    /// Nothing.
    Absent,
    /// Perhaps something, beside other members that are for all.
    Mixed,
    /// All that it says.
    Only,
}

impl ReplayBuffer {
    /// An empty buffer, which grows `reservation`.
    pub(super) fn new(reservation: Reservation) -> ReplayBuffer {
        ReplayBuffer {
            events: VecDeque::new(),
            dropped: 0,
            bytes: 0,
            reservation,
            read: HashMap::new(),
            subscribed: 0,
            is_closed: false,
        }
    }

    /// The number of a new reader, which starts at the first event.
    pub(super) fn subscribe(&mut self) -> u64 {
        self.subscribed += 1;
        self.read.insert(self.subscribed, 0);
        self.subscribed
    }

    /// Forgets a reader.
    pub(super) fn unsubscribe(&mut self, reader: u64) {
        let before = self.read.remove(&reader);
        self.trim_behind(before);
    }

    /// Adds an event and returns how many have come.
    pub(super) fn push(&mut self, event: StreamEvent) -> usize {
        self.bytes += event.cost();
        if self.is_over_budget() {
            // A refusal shows in `is_over_budget`.
            let _ = self.reservation.try_cover(self.cost());
        }
        self.events.push_back(event);
        let count = self.dropped + self.events.len();
        if self.read.is_empty() {
            self.trim();
        }
        count
    }

    /// Events from number `from` on; `None` if some of them were dropped, because the reader was too slow.
    pub(super) fn events_from(&self, from: usize) -> Option<impl Iterator<Item = &StreamEvent>> {
        from.checked_sub(self.dropped).map(|skipped| self.events.iter().skip(skipped))
    }

    /// Notes that a reader has read `count` events. Costs a look at all other readers only if it was the slowest.
    pub(super) fn mark_read(&mut self, reader: u64, count: usize) {
        let before = self.read.insert(reader, count);
        self.trim_behind(before);
    }

    /// From here on no reader joins: what all have read is dropped.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
        self.trim();
    }

    /// Forgets the readers that are furthest behind.
    pub(super) fn drop_slowest(&mut self) {
        let slowest = self.read.values().min().copied();
        self.read.retain(|_, read| Some(*read) != slowest);
        self.trim();
    }

    /// Whether any reader reads the events.
    pub(super) fn has_readers(&self) -> bool {
        !self.read.is_empty()
    }

    /// Bytes that are held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether more is held than has been reserved. A few bytes are not counted.
    pub(super) fn is_over_budget(&self) -> bool {
        self.cost() > self.reservation.bytes().max(UNCOUNTED_BYTES)
    }

    fn cost(&self) -> usize {
        self.bytes.saturating_mul(EVENT_COST)
    }

    fn trim_behind(&mut self, before: Option<usize>) {
        if before == Some(self.dropped) {
            self.trim();
        }
    }

    /// Drops what no reader will read any more.
    fn trim(&mut self) {
        if !self.is_closed {
            return;
        }
        let wanted = self.read.values().min().copied().unwrap_or(usize::MAX);
        while self.dropped < wanted
            && let Some(event) = self.events.pop_front()
        {
            self.dropped += 1;
            self.bytes -= event.cost();
        }
        self.reservation.shrink_to(self.cost());
    }
}

impl StreamEvent {
    fn cost(&self) -> usize {
        self.bytes.len() + EVENT_BYTES
    }

    /// The bytes for a client; empty if the event is not for it.
    pub(super) fn for_client(&self, dialect: &dyn Dialect, wants_usage: bool) -> Bytes {
        match self.usage_content {
            UsageContent::Only if !wants_usage => Bytes::new(),
            UsageContent::Mixed if !wants_usage => {
                dialect.without_usage(&self.bytes).unwrap_or_else(|| self.bytes.clone())
            }
            UsageContent::Absent | UsageContent::Mixed | UsageContent::Only => self.bytes.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::byte_budget::ByteBudget;
    use crate::metrics::unexported;

    const EVENT: usize = UNCOUNTED_BYTES / 2;

    fn event() -> StreamEvent {
        StreamEvent { bytes: Bytes::from(vec![b'a'; EVENT]), usage_content: UsageContent::Absent }
    }

    #[test]
    fn events_are_held_until_the_slowest_reader_has_read_them_and_none_can_join() {
        let budget = ByteBudget::new(usize::MAX, unexported());
        let mut buffer = ReplayBuffer::new(budget.empty());
        let (fast, slow) = (buffer.subscribe(), buffer.subscribe());
        assert_eq!([buffer.push(event()), buffer.push(event())], [1, 2]);
        buffer.mark_read(fast, 2);
        buffer.mark_read(slow, 1);
        assert_eq!(buffer.events_from(0).unwrap().count(), 2, "a reader may join and starts at the first");
        buffer.close();
        assert!(buffer.events_from(0).is_none());
        assert_eq!(buffer.events_from(1).unwrap().count(), 1);
        buffer.unsubscribe(slow);
        assert_eq!((buffer.bytes(), budget.reserved()), (0, 0));
    }

    #[test]
    fn the_slowest_readers_are_dropped_and_the_others_go_on() {
        let mut buffer = ReplayBuffer::new(ByteBudget::new(usize::MAX, unexported()).empty());
        let (fast, _slow, _slow_too) = (buffer.subscribe(), buffer.subscribe(), buffer.subscribe());
        buffer.push(event());
        buffer.mark_read(fast, 1);
        buffer.close();
        buffer.drop_slowest();
        assert!(buffer.has_readers() && buffer.events_from(1).is_some());
        buffer.drop_slowest();
        assert!(!buffer.has_readers());
    }

    #[test]
    fn a_refused_reservation_shows_until_enough_was_read() {
        let budget = ByteBudget::new(4 * 64 * 1024, unexported());
        let mut buffer = ReplayBuffer::new(budget.empty());
        let reader = buffer.subscribe();
        buffer.close();
        buffer.push(event());
        assert!(!buffer.is_over_budget() && budget.reserved() > 0);
        let other = budget.try_reserve(2 * 64 * 1024).unwrap();
        (0..5).for_each(|_| _ = buffer.push(event()));
        assert!(buffer.is_over_budget(), "nothing is left of the budget");
        drop(other);
        buffer.mark_read(reader, 6);
        buffer.push(event());
        assert!(!buffer.is_over_budget(), "it fits again");
    }
}
