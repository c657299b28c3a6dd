//! Leases: of many clients that want the same missing value, one gets the lease to compute it and the others wait for it.
//!
//! Single-flight is for values that this process makes. A lease is for values that a client makes: it may die, so its
//! right ends by itself and passes on.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::invalidation_tokens::Stamp;
use super::random::random_id;
use crate::domain::{ByPrefix, Key};
use crate::error::{Error, Kind, Result};
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard, ignore_poison};

const SHARDS: usize = 64;
/// A shard is rid of its ended leases whenever it has grown by so many.
const SWEEP_EVERY: usize = 32;

type Shard = Mutex<HashMap<Key, KeyGuard, ByPrefix>>;

/// The right to make a value, with which only its holder can store it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease(pub u64);

/// What came of asking for a lease.
#[derive(Debug)]
pub enum Claim {
    /// Make the value.
    Granted(Lease),
    /// Another client holds the lease.
    Held(Waiting),
}

/// Waits for the holder of a lease.
#[derive(Debug)]
pub struct Waiting {
    ended: watch::Receiver<()>,
    until: Instant,
}

/// Which nodes know of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cache) enum LeaseScope {
    /// This node alone.
    Node,
    /// All nodes; this one has granted it.
    Shared,
    /// All nodes; another one has granted it.
    Elsewhere,
}

/// A lease that a client presents, and that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldLease {
    pub(in crate::cache) lease: Lease,
    /// A point in the order of invalidations before its holder began.
    pub stamp: Stamp,
    pub(in crate::cache) scope: LeaseScope,
    /// When its holder began, if this node has granted it.
    pub since: Option<Instant>,
}

/// A lease as this side keeps it. Dropping it wakes those who wait.
#[derive(Debug)]
struct KeyGuard {
    lease: Lease,
    scope: LeaseScope,
    since: Instant,
    until: Instant,
    /// When its holder began, in the order of invalidations.
    stamp: Stamp,
    ended: watch::Sender<()>,
}

/// All leases. Shared by `Arc`.
#[derive(Debug)]
pub struct Leases {
    shards: Box<[Shard]>,
    count: AtomicUsize,
    leases_max: usize,
}

impl Leases {
    /// No leases; at most `leases_max` at a time.
    pub fn new(leases_max: usize) -> Leases {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Leases { shards, count: AtomicUsize::new(0), leases_max }
    }

    /// Asks for the lease of `key`. `stamp` must have been taken before, and before the value was looked for.
    ///
    /// # Errors
    /// `Overloaded` if there are too many leases.
    pub fn claim(&self, key: Key, lasts: Duration, stamp: Stamp) -> Result<Claim> {
        let now = Instant::now();
        let mut shard = self.shard(&key);
        if let Some(held) = shard.get(&key)
            && held.until > now
        {
            return Ok(Claim::Held(Waiting { ended: held.ended.subscribe(), until: held.until }));
        }
        let lease = Lease(random_id()?);
        if !shard.contains_key(&key) {
            if shard.len() % SWEEP_EVERY == SWEEP_EVERY - 1 {
                self.drop_ended(&mut shard, now);
            }
            self.count_one(&mut shard, now)?;
        }
        let scope = LeaseScope::Node;
        let ended = watch::Sender::new(());
        shard.insert(key, KeyGuard { lease, scope, since: now, until: now + lasts, stamp, ended });
        Ok(Claim::Granted(lease))
    }

    /// All nodes know of a lease that was granted here.
    pub(in crate::cache) fn mark_shared(&self, key: &Key, lease: Lease) {
        let mut shard = self.shard(key);
        let own = shard.get_mut(key).filter(|held| held.lease == lease);
        own.into_iter().for_each(|own| own.scope = LeaseScope::Shared);
    }

    /// A client of another node has the lease that was granted here, for `left`. Those who wait here wait for that one. Returns at once if
    /// the lease has ended meanwhile.
    pub(in crate::cache) fn mark_elsewhere(&self, key: &Key, lease: Lease, left: Duration) -> Waiting {
        let until = Instant::now() + left;
        let mut shard = self.shard(key);
        match shard.get_mut(key).filter(|held| held.lease == lease) {
            Some(held) => {
                held.scope = LeaseScope::Elsewhere;
                held.until = until;
                Waiting { ended: held.ended.subscribe(), until }
            }
            None => Waiting { ended: watch::Sender::new(()).subscribe(), until },
        }
    }

    /// A lease that was granted here. It stays.
    ///
    /// # Errors
    /// `Conflict` if it is not, or no longer, the lease of `key`.
    pub fn check(&self, key: &Key, lease: Lease) -> Result<HeldLease> {
        let shard = self.shard(key);
        let held = shard.get(key).filter(|held| held.lease == lease && held.until > Instant::now());
        let held = held.map(|held| HeldLease {
            lease,
            stamp: held.stamp,
            scope: held.scope,
            since: Some(held.since),
        });
        held.ok_or_else(lease_ended)
    }

    /// When the holder of the lease of `key` began, if there is one.
    pub fn since(&self, key: &Key) -> Option<Instant> {
        let shard = self.shard(key);
        shard.get(key).filter(|held| held.until > Instant::now()).map(|held| held.since)
    }

    /// Ends the lease of `key` for any holder, and wakes its waiters.
    pub fn end(&self, key: &Key) {
        let mut shard = self.shard(key);
        if shard.remove(key).is_some() {
            // Under the lock, or the next holder would be counted beside this one.
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Leases that are held, expired ones that were not looked up since included.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether no lease is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Counts one more lease, if it fits. Ended ones of the shard go first.
    fn count_one(&self, shard: &mut HashMap<Key, KeyGuard, ByPrefix>, now: Instant) -> Result<()> {
        let one_more = |count| (count < self.leases_max).then_some(count + 1);
        let count = || self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        if count().is_ok() {
            return Ok(());
        }
        self.drop_ended(shard, now);
        let counted = count().map(|_| ());
        counted.map_err(|_| Error::new(Kind::Overloaded, "too many leases are held"))
    }

    fn drop_ended(&self, shard: &mut HashMap<Key, KeyGuard, ByPrefix>, now: Instant) {
        let before = shard.len();
        shard.retain(|_, held| held.until > now);
        self.count.fetch_sub(before - shard.len(), Ordering::Relaxed);
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, HashMap<Key, KeyGuard, ByPrefix>> {
        let shard = &self.shards[usize::from(key.0[31]) % SHARDS];
        ignore_poison(shard.lock())
    }
}

impl Waiting {
    /// Returns when the lease has ended: its value is there, or it is to be asked for again. At the latest at `limit`.
    ///
    /// Cancel safety: waiting takes nothing.
    pub async fn ended(self, limit: Instant) {
        let limit = self.until.min(limit);
        // Either way it is time to ask again.
        let _ = tokio::time::timeout_at(limit, self.woken()).await;
    }

    /// Returns when the holder has ended the lease.
    pub(super) async fn woken(mut self) {
        // The sender is dropped with the lease, and never sends.
        let _ = self.ended.changed().await;
    }
}

pub(in crate::cache) fn lease_ended() -> Error {
    let message = "the lease has ended: its time was over, or the key was written or invalidated meanwhile";
    Error::new(Kind::Conflict, message).param("lease")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::KeyHasher;
    use futures_util::poll;
    use std::pin::pin;

    const LASTS: Duration = Duration::from_secs(5);

    fn key() -> Key {
        KeyHasher::new("test").finish()
    }

    fn granted(claim: Result<Claim>) -> Lease {
        let Claim::Granted(lease) = claim.unwrap() else { panic!("it is held") };
        lease
    }

    fn held(claim: Result<Claim>) -> Waiting {
        let Claim::Held(waiting) = claim.unwrap() else { panic!("it is not held") };
        waiting
    }

    #[tokio::test(start_paused = true)]
    async fn one_makes_the_value_and_its_end_wakes_the_others() {
        let leases = Leases::new(10);
        let lease = granted(leases.claim(key(), LASTS, Stamp::default()));
        let waiting = held(leases.claim(key(), LASTS, Stamp::default()));
        let limit = Instant::now() + Duration::from_secs(60);
        let mut ended = pin!(waiting.ended(limit));
        assert!(poll!(&mut ended).is_pending());
        assert!(leases.check(&key(), lease).is_ok());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(leases.since(&key()).unwrap().elapsed().as_secs(), 2);
        assert_eq!(leases.check(&key(), lease).unwrap().since, leases.since(&key()));
        leases.end(&key());
        assert!(leases.since(&key()).is_none());
        assert!(poll!(&mut ended).is_ready());
        assert_eq!(leases.check(&key(), lease).unwrap_err().kind(), Kind::Conflict);
        assert!(leases.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_whose_time_is_over_passes_on() {
        let leases = Leases::new(10);
        let lost = granted(leases.claim(key(), LASTS, Stamp::default()));
        let started = Instant::now();
        held(leases.claim(key(), LASTS, Stamp::default())).ended(started + Duration::from_secs(60)).await;
        assert_eq!(started.elapsed().as_secs(), 5);
        let next = granted(leases.claim(key(), LASTS, Stamp::default()));
        assert_eq!(leases.check(&key(), lost).unwrap_err().param_name(), Some("lease"));
        assert!(leases.check(&key(), next).is_ok());
        assert_eq!(leases.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn no_client_waits_longer_than_it_asked() {
        let leases = Leases::new(10);
        granted(leases.claim(key(), LASTS, Stamp::default()));
        let started = Instant::now();
        held(leases.claim(key(), LASTS, Stamp::default())).ended(started + Duration::from_secs(1)).await;
        assert_eq!(started.elapsed().as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn ended_leases_that_are_not_asked_about_again_do_not_pile_up() {
        let leases = Leases::new(1 << 20);
        for n in 0..20_000_u32 {
            let key = KeyHasher::new("test").field(&n.to_le_bytes()).finish();
            granted(leases.claim(key, Duration::from_millis(1), Stamp::default()));
            tokio::time::advance(Duration::from_millis(2)).await;
        }
        assert!(leases.len() <= SHARDS * SWEEP_EVERY, "{}", leases.len());
    }

    #[tokio::test(start_paused = true)]
    async fn leases_are_limited_and_ended_ones_make_room() {
        let leases = Leases::new(2);
        // All in one shard, which the last byte chooses.
        let key = |n: u8| Key(std::array::from_fn(|at| if at == 0 { n } else { 0 }));
        granted(leases.claim(key(0), LASTS, Stamp::default()));
        granted(leases.claim(key(1), LASTS, Stamp::default()));
        let refused = leases.claim(key(2), LASTS, Stamp::default());
        assert_eq!(refused.unwrap_err().kind(), Kind::Overloaded);
        held(leases.claim(key(1), LASTS, Stamp::default()));
        tokio::time::advance(LASTS).await;
        granted(leases.claim(key(2), LASTS, Stamp::default()));
        assert_eq!(leases.len(), 1);
    }
}
