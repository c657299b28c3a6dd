//! Informs use cases of keys that other nodes have changed.

use std::sync::{Arc, RwLock};

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use crate::domain::Key;
use crate::sync::ignore_poison;

/// Keys share wake-ups: one that waits for a key may be woken by the event of another.
const BUCKETS: usize = 256;

/// What another node has done to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyEvent {
    /// Its value was replaced or removed, by the event of this number.
    Changed(u64),
    /// Its lease has ended, and its value is what it was.
    LeaseEnded,
}

type Listener = Box<dyn Fn(&Key, KeyEvent) + Send + Sync>;

/// Who is informed. Shared by `Arc`.
pub(in crate::cache) struct KeyEvents {
    listeners: RwLock<Vec<Listener>>,
    waiters: Box<[Arc<Notify>]>,
}

impl Default for KeyEvents {
    fn default() -> KeyEvents {
        let waiters = (0..BUCKETS).map(|_| Arc::default()).collect();
        KeyEvents { listeners: RwLock::default(), waiters }
    }
}

impl KeyEvents {
    /// Adds a listener, which must not block.
    pub(in crate::cache) fn listen(&self, listener: impl Fn(&Key, KeyEvent) + Send + Sync + 'static) {
        ignore_poison(self.listeners.write()).push(Box::new(listener));
    }

    /// Returns after the next event of the key from now on; sometimes earlier.
    pub(in crate::cache) fn next(&self, key: &Key) -> OwnedNotified {
        Arc::clone(self.waiter(key)).notified_owned()
    }

    /// The local copies of the key are dropped.
    pub(super) fn send(&self, key: &Key, event: KeyEvent) {
        ignore_poison(self.listeners.read()).iter().for_each(|listener| listener(key, event));
        self.waiter(key).notify_waiters();
    }

    fn waiter(&self, key: &Key) -> &Arc<Notify> {
        &self.waiters[key.prefix() as usize % BUCKETS]
    }
}
