//! Single-flight: of many that want the same missing value at once, one makes it and all get it.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;

use tokio::sync::watch;

use crate::domain::Key;
use crate::error::{Error, Kind, Result};
use crate::sync::{Mutex, MutexGuard, ignore_poison};

const SHARDS: usize = 64;

type Outcome<V> = Option<Result<V>>;
type Shard<V> = Mutex<HashMap<Key, watch::Sender<Outcome<V>>>>;

/// The values being made now. Shared by `Arc`; a key is held only while its flight is in the air.
pub struct SingleFlight<V> {
    shards: Box<[Shard<V>]>,
}

/// The duty to make a value: exactly one caller holds it. Dropping it without [`Flight::land`] tells the waiters
/// that the maker died.
pub struct Flight<V: Clone> {
    key: Key,
    outcome: watch::Sender<Outcome<V>>,
    all: Arc<SingleFlight<V>>,
    has_landed: bool,
}

/// The right to receive the value.
pub struct Landing<V>(watch::Receiver<Outcome<V>>);

impl<V: Clone> SingleFlight<V> {
    /// No flights.
    pub fn new() -> Arc<SingleFlight<V>> {
        Arc::new(SingleFlight { shards: (0..SHARDS).map(|_| Mutex::default()).collect() })
    }

    /// Joins the flight of `key`. The first to join also gets the duty to make the value.
    pub fn join(self: &Arc<Self>, key: Key) -> (Landing<V>, Option<Flight<V>>) {
        match self.shard(&key).entry(key) {
            Slot::Occupied(flight) => (Landing(flight.get().subscribe()), None),
            Slot::Vacant(slot) => {
                let (outcome, landing) = watch::channel(None);
                slot.insert(outcome.clone());
                (Landing(landing), Some(Flight { key, outcome, all: Arc::clone(self), has_landed: false }))
            }
        }
    }

    /// Flights in the air.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| ignore_poison(shard.lock()).len()).sum()
    }

    /// Whether nothing is being made.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, HashMap<Key, watch::Sender<Outcome<V>>>> {
        ignore_poison(self.shards[usize::from(key.0[0]) % SHARDS].lock())
    }
}

impl<V: Clone> Flight<V> {
    /// Sends every waiter the outcome. The value must be in the cache before: a later caller begins another flight.
    pub fn land(mut self, outcome: Result<V>) {
        self.end(outcome);
    }

    /// Returns once no caller waits any more; from then on the flight is out of the table and need not be finished.
    ///
    /// Cancel safety: may be dropped and called again.
    pub async fn abandoned(&mut self) {
        loop {
            self.outcome.closed().await;
            let mut shard = self.all.shard(&self.key);
            // A caller may have joined between the wake-up and the lock.
            if self.outcome.receiver_count() == 0 {
                shard.remove(&self.key);
                self.has_landed = true;
                return;
            }
        }
    }

    fn end(&mut self, outcome: Result<V>) {
        self.has_landed = true;
        self.all.shard(&self.key).remove(&self.key);
        self.outcome.send_replace(Some(outcome));
    }
}

impl<V: Clone> Drop for Flight<V> {
    fn drop(&mut self) {
        if !self.has_landed {
            self.end(Err(Error::new(Kind::Internal, "the task that made this value died")));
        }
    }
}

impl<V: Clone> Landing<V> {
    /// Waits for the outcome of the flight.
    pub async fn wait(mut self) -> Result<V> {
        match self.0.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().expect("waited until it is some: this is a bug"),
            Err(_) => Err(Error::new(Kind::Internal, "the flight of this value vanished")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::KeyHasher;

    fn key() -> Key {
        KeyHasher::new("test").finish()
    }

    #[tokio::test]
    async fn all_who_join_get_what_one_makes() {
        let flights = SingleFlight::<u32>::new();
        let (first, duty) = flights.join(key());
        let (second, none) = flights.join(key());
        assert!(none.is_none());
        duty.unwrap().land(Ok(7));
        assert_eq!((first.wait().await.unwrap(), second.wait().await.unwrap()), (7, 7));
        assert!(flights.is_empty());
        assert!(flights.join(key()).1.is_some(), "a landed flight is over");
    }

    #[tokio::test]
    async fn a_failure_reaches_every_waiter_and_is_not_kept() {
        let flights = SingleFlight::<u32>::new();
        let (first, duty) = flights.join(key());
        let (second, _) = flights.join(key());
        duty.unwrap().land(Err(Error::new(Kind::Upstream, "model on fire")));
        assert_eq!(first.wait().await.unwrap_err().kind(), Kind::Upstream);
        assert_eq!(second.wait().await.unwrap_err().kind(), Kind::Upstream);
        assert!(flights.is_empty());
    }

    #[tokio::test]
    async fn a_leader_that_panics_leaves_no_waiter_hanging() {
        let flights = SingleFlight::<u32>::new();
        let (landing, duty) = flights.join(key());
        drop(duty);
        assert_eq!(landing.wait().await.unwrap_err().kind(), Kind::Internal);
        assert!(flights.is_empty());
    }

    #[tokio::test]
    async fn a_flight_without_waiters_is_abandoned() {
        let flights = SingleFlight::<u32>::new();
        let (first, duty) = flights.join(key());
        let (second, _) = flights.join(key());
        let mut duty = duty.unwrap();
        drop(first);
        assert!(futures_util::poll!(std::pin::pin!(duty.abandoned())).is_pending(), "one still waits");
        drop(second);
        duty.abandoned().await;
        assert!(flights.is_empty());
    }
}
