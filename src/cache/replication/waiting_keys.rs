//! Keys whose changes wait, by when each is to be sent.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::{ByPrefix, Key};

/// The pauses before a key is sent again: the first, and the longest.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What is known of a key whose change waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::cache) enum KeyState {
    /// No other node has changed it.
    #[default]
    Uncontested,
    /// Another node has changed it: neither is known to be the later one.
    Contested,
    /// A later change of this node is in the log.
    Superseded,
}

/// A key to be sent.
#[derive(Debug, Clone, Copy)]
pub(in crate::cache) struct NextKey {
    pub(in crate::cache) key: Key,
    /// Changes of the key so far.
    changes: u64,
}

#[derive(Debug)]
struct WaitingKey {
    place: u64,
    state: KeyState,
    /// Changes of the key so far; it must not be taken for sent if there was one since it was read.
    changes: u64,
    due: Instant,
    pause: Duration,
}

impl WaitingKey {
    /// Another node has changed the key. A later change of this node that is in the log stands.
    fn contest(&mut self) {
        if self.state == KeyState::Uncontested {
            self.state = KeyState::Contested;
        }
    }
}

/// The keys that wait.
#[derive(Debug, Default)]
pub(super) struct WaitingKeys {
    keys: HashMap<Key, WaitingKey, ByPrefix>,
    /// The keys by when they are to be sent, then by their places.
    order: BTreeMap<(Instant, u64), Key>,
}

impl WaitingKeys {
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn state(&self, key: &Key) -> Option<KeyState> {
        self.keys.get(key).map(|waiting| waiting.state)
    }

    /// Adds a key, unless it waits.
    pub(super) fn push(&mut self, key: Key, place: u64, now: Instant) {
        let (order, state) = (&mut self.order, KeyState::default());
        self.keys.entry(key).or_insert_with(|| {
            order.insert((now, place), key);
            WaitingKey { place, state, changes: 0, due: now, pause: PAUSE }
        });
    }

    /// A key that waits has changed again, and is sent whatever came in between. Returns its place.
    pub(super) fn wait_again(&mut self, key: &Key) -> Option<u64> {
        let waiting = self.keys.get_mut(key)?;
        waiting.changes += 1;
        if waiting.state == KeyState::Superseded {
            waiting.state = KeyState::Uncontested;
        }
        Some(waiting.place)
    }

    pub(super) fn contest(&mut self, key: &Key) {
        self.keys.get_mut(key).into_iter().for_each(WaitingKey::contest);
    }

    pub(super) fn contest_all(&mut self) {
        self.keys.values_mut().for_each(WaitingKey::contest);
    }

    pub(super) fn supersede(&mut self, key: &Key) {
        self.keys.get_mut(key).into_iter().for_each(|waiting| waiting.state = KeyState::Superseded);
    }

    /// Up to `limit` keys that are due.
    pub(super) fn due(&self, now: Instant, limit: usize) -> Vec<NextKey> {
        let next = |key: &Key| NextKey {
            key: *key,
            changes: self.keys.get(key).map_or(0, |waiting| waiting.changes),
        };
        self.order.range(..=(now, u64::MAX)).take(limit).map(|(_, key)| next(key)).collect()
    }

    /// When the first key is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.order.first_key_value().map(|(&(due, _), _)| due)
    }

    /// A key could not be sent.
    pub(super) fn defer(&mut self, key: &Key, now: Instant) {
        let Some(waiting) = self.keys.get_mut(key) else { return };
        self.order.remove(&(waiting.due, waiting.place));
        waiting.due = now + waiting.pause;
        waiting.pause = (waiting.pause * 2).min(PAUSE_MAX);
        self.order.insert((waiting.due, waiting.place), *key);
    }

    /// A key was sent. Returns its place if it waits no longer.
    pub(super) fn complete(&mut self, sent: &NextKey) -> Option<u64> {
        let is_unchanged = |waiting: &WaitingKey| waiting.changes == sent.changes;
        self.keys.get(&sent.key).filter(|waiting| is_unchanged(waiting))?;
        let waiting = self.keys.remove(&sent.key)?;
        self.order.remove(&(waiting.due, waiting.place));
        Some(waiting.place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_that_fails_goes_behind_the_others_for_longer_each_time() {
        let mut waiting = WaitingKeys::default();
        let keys = [Key([1; 32]), Key([2; 32])];
        let now = Instant::now();
        keys.iter().zip(0..).for_each(|(key, place)| waiting.push(*key, place, now));
        let due = |waiting: &WaitingKeys, now| {
            waiting.due(now, 9).into_iter().map(|next| next.key).collect::<Vec<_>>()
        };
        assert_eq!(due(&waiting, now), keys);
        let mut at = now;
        for pause in [50, 100, 200, 400, 800, 1000, 1000].map(Duration::from_millis) {
            waiting.defer(&keys[0], at);
            assert_eq!(due(&waiting, at + pause - Duration::from_millis(1)), [keys[1]]);
            at += pause;
            assert_eq!(due(&waiting, at), [keys[1], keys[0]]);
        }
        let next = waiting.due(at, 2);
        assert_eq!(waiting.wait_again(&keys[0]), Some(0));
        assert_eq!((waiting.complete(&next[1]), waiting.complete(&next[0])), (None, Some(1)));
        assert_eq!((waiting.len(), waiting.next_due()), (1, Some(at)));
    }
}
