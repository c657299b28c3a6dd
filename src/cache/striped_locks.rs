//! Order among those who change one key: a fixed number of locks, shared by keys.
//!
//! Between reading an entry from a lower tier and promoting it, no caller may replace or remove it, or the promoted one
//! would be the old one. Immutable values need no such order.

use tokio::sync::{Mutex, MutexGuard};

use crate::domain::Key;

const STRIPES: usize = 1024;

/// The locks.
#[derive(Debug)]
pub(super) struct StripedLocks(Box<[Mutex<()>]>);

/// The stripes of some keys, held.
#[derive(Debug)]
pub struct KeyGuard<'a>(#[expect(dead_code, reason = "held for its drop")] Vec<MutexGuard<'a, ()>>);

impl StripedLocks {
    /// All free.
    pub(super) fn new() -> StripedLocks {
        StripedLocks((0..STRIPES).map(|_| Mutex::default()).collect())
    }

    /// Waits until no other caller holds a stripe of `keys`. Stripes are taken in one order, so two callers that want several never
    /// wait for each other.
    pub(super) async fn lock(&self, keys: &[Key]) -> KeyGuard<'_> {
        let mut places: Vec<usize> = keys.iter().map(|key| key.prefix() as usize % STRIPES).collect();
        places.sort_unstable();
        places.dedup();
        let mut held = Vec::with_capacity(places.len());
        for place in places {
            held.push(self.0[place].lock().await);
        }
        KeyGuard(held)
    }

    /// Waits until all who hold a stripe now have let it go.
    pub(super) async fn wait(&self) {
        for stripe in &self.0 {
            drop(stripe.lock().await);
        }
    }
}
