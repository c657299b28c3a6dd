//! Single-flight among nodes: of nodes that want the same missing value at once, one makes it, and the others wait for it.
//!
//! A flight is a lease that its node renews for as long as it makes the value. The value is stored only while the lease is that of the
//! flight, so a node that was stopped, and comes back after another one has taken over, overwrites nothing.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::futures::OwnedNotified;
use tokio::time::{sleep, timeout};

use super::invalidation_tokens::Stamp;
use super::lease::{HeldLease, Lease, LeaseScope};
use super::random::random_id;
use super::redis::{SharedClaim, SingleFlightScope};
use super::replication::{KeyEvent, SharedTier};
use super::{Cache, Namespace};
use crate::domain::Key;

/// How long a flight lasts whose node has died.
const LASTS: Duration = Duration::from_secs(5);
const RENEWED_EVERY: Duration = Duration::from_millis(1500);

/// What came of asking to make a value for all nodes.
pub enum FlightClaim {
    /// This node makes it for itself: it shares nothing, or Redis cannot be reached.
    Alone,
    /// This node makes it.
    Granted(SharedFlight),
    /// Another node makes it.
    Elsewhere(FlightElsewhere),
}

/// The right of a node to make a value. Dropping it without [`SharedFlight::end`] leaves it to its end.
pub struct SharedFlight {
    shared: Arc<SharedTier>,
    key: Key,
    /// For [`super::WriteCondition`].
    pub lease: HeldLease,
    /// Whether there was a value when the flight began.
    pub has_value: bool,
    /// The number of the last event of other nodes before it began.
    pub number: u64,
}

/// The flight of another node.
pub struct FlightElsewhere {
    /// Tells it from others.
    pub lease: Lease,
    left: Duration,
    event: OwnedNotified,
}

impl Cache {
    /// Asks to make the answer of a key for all nodes. `stamp` was taken before.
    pub async fn claim_flight(&self, namespace: &Namespace, key: Key, stamp: Stamp) -> FlightClaim {
        let Some(shared) = self.shared_for(namespace) else { return FlightClaim::Alone };
        let shared = &shared.tier;
        let Some(lease) = random_id().ok().filter(|_| shared.single_flight != SingleFlightScope::Off) else {
            return FlightClaim::Alone;
        };
        // Before the claim, so that the end of a flight that holds the lease is not missed.
        let event = shared.events.next(&key);
        match shared.claim_lease(namespace.id, &key, Lease(lease), LASTS).await {
            Err(_) => FlightClaim::Alone,
            Ok(SharedClaim::Held { lease, left }) => {
                FlightClaim::Elsewhere(FlightElsewhere { lease, left, event })
            }
            Ok(SharedClaim::Granted { has_value, number }) => {
                let lease = HeldLease { lease: Lease(lease), stamp, scope: LeaseScope::Shared, since: None };
                FlightClaim::Granted(SharedFlight {
                    shared: Arc::clone(shared),
                    key,
                    lease,
                    has_value,
                    number,
                })
            }
        }
    }

    /// Calls `listener` with each key that another node has changed, after the copies of this node are dropped. It must not block.
    pub fn on_key_event(&self, listener: impl Fn(&Key, KeyEvent) + Send + Sync + 'static) {
        if let Some(shared) = &self.shared {
            shared.tier.events.listen(listener);
        }
    }

    /// The number of the last event of other nodes that concerns keys like this one, and is applied.
    pub fn applied_event(&self, key: &Key) -> u64 {
        self.shared.as_ref().map_or(0, |shared| shared.tier.applied(key))
    }
}

impl SharedFlight {
    /// Does the work, and keeps the flight meanwhile.
    pub async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            done = work => done,
            never = self.renew() => match never {},
        }
    }

    async fn renew(&self) -> Infallible {
        loop {
            sleep(RENEWED_EVERY).await;
            // One that is lost is noticed when the value is stored.
            let _ = self.shared.renew_lease(&self.key, self.lease.lease, LASTS).await;
        }
    }

    /// Ends without a value: another node may make it.
    pub async fn end(self) {
        let _ = self.shared.end_lease(&self.key, self.lease.lease).await;
    }
}

impl FlightElsewhere {
    /// Waits until it is time to look for the value, or to ask again.
    pub async fn ended(self) {
        let _ = timeout(self.left, self.event).await;
    }
}
