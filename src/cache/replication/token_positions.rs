//! Where the invalidations of the shared log stand in the order of invalidations of this node: a lease that another node has granted
//! says up to which event that node had applied them.

use std::collections::VecDeque;
use std::sync::Mutex;

use crate::cache::change_log::LogPosition;
use crate::cache::invalidation_tokens::Stamp;
use crate::sync::lock;

/// Invalidations whose place is remembered. A lease from before them is not known here.
const INVALIDATIONS_MAX: usize = 4096;

/// The places of the last invalidations. Shared by `Arc`.
#[derive(Debug, Default)]
pub(in crate::cache) struct TokenPositions(Mutex<Places>);

#[derive(Debug, Default)]
struct Places {
    /// From where on every invalidation is among `known`.
    from: LogPosition,
    known: VecDeque<Place>,
}

/// An invalidation of the log.
#[derive(Debug)]
struct Place {
    /// The number of its event.
    number: u64,
    /// A point before it, and before every later one. `None` if that is not known.
    before: Option<Stamp>,
}

impl TokenPositions {
    /// The log is followed from here on.
    pub(super) fn restart(&self, from: LogPosition) {
        *lock(&self.0) = Places { from, known: VecDeque::new() };
    }

    /// An invalidation was read, and is applied next.
    pub(super) fn note(&self, number: u64, before: Option<Stamp>) {
        let mut places = lock(&self.0);
        if places.known.len() == INVALIDATIONS_MAX {
            let oldest = places.known.pop_front().map_or(0, |oldest| oldest.number);
            places.from.number = places.from.number.max(oldest);
        }
        places.known.push_back(Place { number, before });
    }

    /// A point before every invalidation behind `position`. `None` if that is not known. `now` is the point before every one that is not
    /// read.
    pub(in crate::cache) fn stamp_of(
        &self,
        position: LogPosition,
        now: impl FnOnce() -> Option<Stamp>,
    ) -> Option<Stamp> {
        let places = lock(&self.0);
        if position.generation != places.from.generation || position.number < places.from.number {
            return None;
        }
        let behind = places.known.partition_point(|place| place.number <= position.number);
        match places.known.get(behind) {
            Some(first) => first.before,
            // Under the lock, so that no invalidation is applied in between.
            None => now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::invalidation_tokens::{TokenHistory, TokenTable};

    #[test]
    fn a_place_is_before_the_next_invalidation_and_unknown_from_before_the_first() {
        let table = TokenTable::new(TokenHistory::starting(7), Default::default(), 100, true);
        let stamps: Vec<Stamp> = (0..4)
            .map(|_| {
                table.apply(false, Vec::new(), None);
                table.stamp()
            })
            .collect();
        let positions = TokenPositions::default();
        let at = |number| LogPosition { generation: 1, number };
        positions.restart(at(10));
        let of = |number| positions.stamp_of(at(number), || Some(stamps[3]));
        assert_eq!((of(9), of(10), of(99)), (None, Some(stamps[3]), Some(stamps[3])));
        positions.note(12, Some(stamps[0]));
        positions.note(15, None);
        positions.note(20, Some(stamps[2]));
        assert_eq!((of(10), of(11), of(12)), (Some(stamps[0]), Some(stamps[0]), None));
        assert_eq!((of(15), of(19), of(20)), (Some(stamps[2]), Some(stamps[2]), Some(stamps[3])));
        let other = LogPosition { generation: 2, number: 15 };
        assert_eq!(positions.stamp_of(other, || Some(stamps[3])), None);
        (0..INVALIDATIONS_MAX as u64).for_each(|n| positions.note(21 + n, Some(stamps[1])));
        assert_eq!((of(19), of(20)), (None, Some(stamps[1])), "forgotten");
    }
}
