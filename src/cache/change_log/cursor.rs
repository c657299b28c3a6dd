//! Where a follower stands in a shard of the shared log, and whether what it reads next continues from there.

use super::event::{LogEvent, Nonce};
use crate::storage::le_bytes::u64_at;

/// The last event that was applied. 0 before the first one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::cache) struct LogCursor {
    pub(in crate::cache) number: u64,
    pub(in crate::cache) nonce: Nonce,
}

/// The state of a shard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::cache) struct ShardState {
    /// Its last event.
    pub(in crate::cache) cursor: LogCursor,
    /// The generation of its values.
    pub(in crate::cache) generation: u64,
}

/// A place in a shard that nodes compare: those of two generations are places in different logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::cache) struct LogPosition {
    pub(in crate::cache) generation: u64,
    /// The number of an event.
    pub(in crate::cache) number: u64,
}

/// What one reading of a shard has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cache) struct Reading {
    /// The last event of the shard, when the reading began. `None` if the shard has no state: it is new, or its data are lost.
    pub(in crate::cache) last: Option<LogCursor>,
    /// Names the values of the shard. It is replaced when changes were lost: values from before are not served.
    pub(in crate::cache) generation: u64,
    /// Events behind the cursor, at least those up to `last` unless they are too many for one reading.
    pub(in crate::cache) events: Vec<LogEvent>,
    /// Whether there may be more events than the reading could hold.
    pub(in crate::cache) is_full: bool,
}

/// Why the log does not continue from the cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cache) enum Gap {
    /// Events in between were trimmed, or the shard is new.
    Trimmed,
    /// Events that this node has applied are not in the log: it went back, as after a failover to an older replica.
    Forked,
}

impl Reading {
    /// Of a shard whose state could not be read.
    pub(in crate::cache) fn lost() -> Reading {
        Reading { last: None, generation: 0, events: Vec::new(), is_full: false }
    }
}

impl LogCursor {
    /// Moves behind the events of a reading.
    ///
    /// Returns whether everything up to the beginning of the reading is applied.
    pub(in crate::cache) fn advance(&mut self, reading: &Reading) -> Result<bool, Gap> {
        let last = reading.last.ok_or(Gap::Trimmed)?;
        if last.number < self.number || (last.number == self.number && last.nonce != self.nonce) {
            return Err(Gap::Forked);
        }
        let mut at = *self;
        for event in &reading.events {
            if event.number != at.number + 1 {
                return Err(Gap::Trimmed);
            }
            if event.previous != at.nonce {
                return Err(Gap::Forked);
            }
            at = LogCursor { number: event.number, nonce: event.nonce };
        }
        if at.number < last.number && !reading.is_full {
            return Err(Gap::Trimmed);
        }
        *self = at;
        Ok(at.number >= last.number)
    }
}

impl ShardState {
    /// Whether the shard has all events up to `known`, as far as its last event shows it.
    pub(in crate::cache) fn continues(self, known: ShardState) -> bool {
        let (at, known_at) = (self.cursor, known.cursor);
        let is_ahead = at.number > known_at.number;
        self.generation == known.generation && (is_ahead || at == known_at)
    }

    /// The place of the last event.
    pub(in crate::cache) fn position(self) -> LogPosition {
        LogPosition { generation: self.generation, number: self.cursor.number }
    }

    const BYTES: usize = 24;

    pub(in crate::cache) fn encode(self) -> Vec<u8> {
        let numbers = [self.cursor.number, self.cursor.nonce, self.generation];
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    pub(in crate::cache) fn decode(bytes: &[u8]) -> Option<ShardState> {
        let cursor = LogCursor { number: u64_at(bytes, 0)?, nonce: u64_at(bytes, 8)? };
        let generation = u64_at(bytes, 16).filter(|_| bytes.len() == ShardState::BYTES)?;
        Some(ShardState { cursor, generation })
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::NodeId;
    use super::*;

    fn cursor(number: u64, nonce: u64) -> LogCursor {
        LogCursor { number, nonce }
    }

    /// Events with these numbers and nonces, each behind the nonce before it.
    fn reading(last: LogCursor, mut previous: u64, events: &[(u64, u64)]) -> Reading {
        let event = |&(number, nonce): &(u64, u64)| {
            let event =
                LogEvent { number, nonce, previous, node: NodeId(1), written_at_micros: 0, change: None };
            previous = nonce;
            event
        };
        Reading {
            last: Some(last),
            generation: 0,
            events: events.iter().map(event).collect(),
            is_full: false,
        }
    }

    #[test]
    fn a_reading_that_continues_moves_the_cursor() {
        let mut at = cursor(3, 30);
        assert_eq!(at.advance(&reading(cursor(3, 30), 30, &[])), Ok(true));
        assert_eq!(at.advance(&reading(cursor(4, 40), 30, &[(4, 40), (5, 50)])), Ok(true));
        assert_eq!(at, cursor(5, 50));
        let full = Reading { is_full: true, ..reading(cursor(9, 90), 50, &[(6, 60)]) };
        assert_eq!(at.advance(&full), Ok(false));
        let state = ShardState { cursor: at, generation: 7 };
        assert_eq!((at, ShardState::decode(&state.encode())), (cursor(6, 60), Some(state)));
    }

    #[test]
    fn a_state_continues_from_a_known_one_of_its_generation() {
        let state = |number, nonce, generation| ShardState { cursor: cursor(number, nonce), generation };
        let known = state(3, 30, 1);
        assert!(state(3, 30, 1).continues(known) && state(4, 40, 1).continues(known));
        for other in [state(2, 20, 1), state(3, 31, 1), state(4, 40, 2)] {
            assert!(!other.continues(known), "{other:?}");
        }
    }

    #[test]
    fn what_does_not_continue_is_a_gap_and_leaves_the_cursor() {
        let start = cursor(3, 30);
        use Gap::{Forked, Trimmed};
        let gaps = [
            ("no state", Trimmed, Reading { last: None, ..reading(start, 30, &[]) }),
            ("an older replica", Forked, reading(cursor(2, 20), 30, &[])),
            ("another event of this number", Forked, reading(cursor(3, 31), 30, &[])),
            ("an event is missing", Trimmed, reading(cursor(5, 50), 30, &[(5, 50)])),
            ("another event before it", Forked, reading(cursor(4, 40), 31, &[(4, 40)])),
            ("a trimmed log", Trimmed, reading(cursor(5, 50), 30, &[])),
            ("a hole among the events", Trimmed, reading(cursor(6, 60), 30, &[(4, 40), (6, 60)])),
        ];
        for (what, gap, reading) in gaps {
            let mut at = start;
            assert_eq!((at.advance(&reading), at), (Err(gap), start), "{what}");
        }
    }
}
