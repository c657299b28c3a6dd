//! How often entries were used lately, approximately: a table of small counters that keys share.
//!
//! The policies of eviction do not say which of their entries are used most, so that is counted beside them. A use costs one load, and
//! one store until the counter of its key is full: the keys that are used most cost no cache line that processors pass around.

use std::time::{Duration, Instant};

use crate::domain::Key;
use crate::sync::atomic::{AtomicU8, Ordering};
use crate::sync::{Mutex, ignore_poison};

/// After this time counts are halved, so that what is no longer used is forgotten.
const HALVED_AFTER: Duration = Duration::from_secs(60);
/// A counter for so many bytes of the budget. Most entries weigh four times as much: one in five shares its counter.
const BYTES_PER_COUNTER: u64 = 512;
const COUNTERS_MIN: u64 = 1 << 10;
/// 16 MiB.
const COUNTERS_MAX: u64 = 1 << 24;

/// The counters.
#[derive(Debug)]
pub(super) struct UseCounts {
    counters: Box<[AtomicU8]>,
    halved: Mutex<Instant>,
}

impl UseCounts {
    /// Counters for the entries of a tier of `bytes_max`. Takes 0.2 % of that.
    pub(super) fn new(bytes_max: u64, now: Instant) -> UseCounts {
        let count = (bytes_max / BYTES_PER_COUNTER).clamp(COUNTERS_MIN, COUNTERS_MAX);
        let counters = (0..count.next_power_of_two()).map(|_| AtomicU8::new(0)).collect();
        UseCounts { counters, halved: Mutex::new(now) }
    }

    /// Counts a use. Of uses at the same moment one may be lost.
    pub(super) fn note(&self, key: &Key) {
        let counter = self.counter(key);
        let uses = counter.load(Ordering::Relaxed);
        if uses < u8::MAX {
            counter.store(uses + 1, Ordering::Relaxed);
        }
    }

    /// The uses of a key, and of keys that share its counter.
    pub(super) fn of(&self, key: &Key) -> u8 {
        self.counter(key).load(Ordering::Relaxed)
    }

    /// Halves all counts, if that is due.
    pub(super) fn halve(&self, now: Instant) {
        let mut halved = ignore_poison(self.halved.lock());
        if now.saturating_duration_since(*halved) < HALVED_AFTER {
            return;
        }
        *halved = now;
        for counter in &self.counters {
            let uses = counter.load(Ordering::Relaxed);
            if uses > 0 {
                counter.store(uses / 2, Ordering::Relaxed);
            }
        }
    }

    /// Their number is a power of two.
    fn counter(&self, key: &Key) -> &AtomicU8 {
        &self.counters[key.prefix() as usize & (self.counters.len() - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_are_counted_up_to_a_limit_and_halved_once_in_a_while() {
        let now = Instant::now();
        let counts = UseCounts::new(1 << 20, now);
        let [often, once, never] = [1, 2, 3].map(|n| Key([n; 32]));
        (0..1000).for_each(|_| counts.note(&often));
        counts.note(&once);
        let all = || [often, once, never].map(|key| counts.of(&key));
        assert_eq!(all(), [255, 1, 0]);
        counts.halve(now + HALVED_AFTER / 2);
        assert_eq!(all(), [255, 1, 0], "it is not due");
        counts.halve(now + HALVED_AFTER);
        assert_eq!(all(), [127, 0, 0]);
        counts.halve(now + HALVED_AFTER);
        assert_eq!(all(), [127, 0, 0], "twice at one moment is once");
    }

    #[test]
    fn the_table_follows_the_budget_within_limits() {
        let counters = |bytes_max| UseCounts::new(bytes_max, Instant::now()).counters.len() as u64;
        assert_eq!(counters(0), COUNTERS_MIN);
        assert_eq!(counters(512 << 20), 1 << 20);
        assert_eq!(counters(u64::MAX), COUNTERS_MAX);
    }
}
