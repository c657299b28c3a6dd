//! Stale answers that could not be made anew a moment ago, and are left alone for a while: each hit would try again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::domain::{ByPrefix, Key, UnixSeconds};

/// How long an answer is left alone.
pub(super) const PAUSE_SECONDS: u32 = 10;
/// Pauses at the same time; one more is not noted.
const PAUSES_MAX: usize = 1 << 16;

/// Until when which answer is left alone.
#[derive(Debug, Default)]
pub(super) struct Pauses(Mutex<HashMap<Key, UnixSeconds, ByPrefix>>);

impl Pauses {
    /// Leaves `key` alone from now on.
    pub(super) fn begin(&self, key: Key, now: UnixSeconds) {
        let mut pauses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pauses.len() >= PAUSES_MAX {
            pauses.retain(|_, until| *until > now);
        }
        if pauses.len() < PAUSES_MAX {
            pauses.insert(key, UnixSeconds(now.0.saturating_add(PAUSE_SECONDS)));
        }
    }

    /// Whether `key` is left alone now.
    pub(super) fn holds(&self, key: &Key, now: UnixSeconds) -> bool {
        let pauses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pauses.get(key).is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_for_one_key_and_ends() {
        let pauses = Pauses::default();
        let (one, other) = (Key([1; 32]), Key([2; 32]));
        pauses.begin(one, UnixSeconds(100));
        assert!(pauses.holds(&one, UnixSeconds(99 + PAUSE_SECONDS)));
        assert!(
            !pauses.holds(&other, UnixSeconds(100)) && !pauses.holds(&one, UnixSeconds(100 + PAUSE_SECONDS))
        );
    }
}
