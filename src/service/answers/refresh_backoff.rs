//! Answers whose last refresh failed. They are not refreshed for a while; otherwise each hit would call the upstream.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::domain::{ByPrefix, Key, UnixSeconds};
use crate::sync::lock;

/// Seconds without a refresh after one that failed.
pub(super) const BACKOFF_SECONDS: u32 = 10;
/// Answers that are remembered; a further failure is not.
const ANSWERS_MAX: usize = 1 << 16;

/// Until when each of these answers is not refreshed.
#[derive(Debug, Default)]
pub(super) struct RefreshBackoff(Mutex<HashMap<Key, UnixSeconds, ByPrefix>>);

impl RefreshBackoff {
    /// Records that a refresh of `key` failed.
    pub(super) fn record_failure(&self, key: Key, now: UnixSeconds) {
        let mut ends = lock(&self.0);
        if ends.len() >= ANSWERS_MAX {
            ends.retain(|_, end| *end > now);
        }
        if ends.len() < ANSWERS_MAX {
            ends.insert(key, UnixSeconds(now.0.saturating_add(BACKOFF_SECONDS)));
        }
    }

    /// Whether `key` is not to be refreshed now.
    pub(super) fn is_active(&self, key: &Key, now: UnixSeconds) -> bool {
        let ends = lock(&self.0);
        ends.get(key).is_some_and(|end| *end > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backoff_is_for_one_key_and_ends() {
        let backoff = RefreshBackoff::default();
        let (one, other) = (Key([1; 32]), Key([2; 32]));
        backoff.record_failure(one, UnixSeconds(100));
        assert!(backoff.is_active(&one, UnixSeconds(99 + BACKOFF_SECONDS)));
        assert!(
            !backoff.is_active(&other, UnixSeconds(100))
                && !backoff.is_active(&one, UnixSeconds(100 + BACKOFF_SECONDS))
        );
    }
}
