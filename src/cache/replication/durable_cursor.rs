//! How far the cursor of a shard may be kept across restarts: to the event before the first one about which a write of this node has not
//! decided. What comes behind is read again, because the copy on disk may be from before it.

use std::collections::VecDeque;

use crate::cache::change_log::LogCursor;

/// Events that are remembered; past them only the last one is.
const EVENTS_MAX: usize = 4096;

/// The applied events of a shard that are not covered by its durable cursor.
#[derive(Debug, Default)]
pub(super) struct DurableCursor {
    applied: VecDeque<LogCursor>,
}

impl DurableCursor {
    /// An event was applied.
    pub(super) fn note(&mut self, event: LogCursor) {
        if self.applied.len() == EVENTS_MAX {
            self.applied.pop_back();
        }
        self.applied.push_back(event);
    }

    /// Moves on, before `undecided` if that is an event. Returns the cursor that is to be made durable; none if it is where it was.
    pub(super) fn advance(&mut self, undecided: Option<u64>) -> Option<LogCursor> {
        let is_decided = |event: &LogCursor| undecided.is_none_or(|undecided| event.number < undecided);
        let decided = self.applied.iter().take_while(|event| is_decided(event)).count();
        self.applied.drain(..decided).next_back()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(number: u64) -> LogCursor {
        LogCursor { number, nonce: number * 10 }
    }

    #[test]
    fn the_cursor_stays_before_the_first_undecided_event() {
        let mut durable = DurableCursor::default();
        assert_eq!(durable.advance(None), None);
        (1..=5).for_each(|number| durable.note(cursor(number)));
        assert_eq!(durable.advance(Some(1)), None);
        assert_eq!(durable.advance(Some(4)), Some(cursor(3)));
        assert_eq!(durable.advance(Some(4)), None);
        durable.note(cursor(6));
        assert_eq!(durable.advance(Some(9)), Some(cursor(6)));
    }

    #[test]
    fn past_its_limit_it_moves_in_larger_steps() {
        let mut durable = DurableCursor::default();
        let last = 2 * EVENTS_MAX as u64;
        (1..=last).for_each(|number| durable.note(cursor(number)));
        assert_eq!(durable.applied.len(), EVENTS_MAX);
        assert_eq!(durable.advance(Some(last)), Some(cursor(EVENTS_MAX as u64 - 1)));
        assert_eq!(durable.advance(None), Some(cursor(last)));
    }
}
