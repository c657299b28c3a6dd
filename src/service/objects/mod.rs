//! A cache for any kind of data: bytes under a key in a namespace, produced by the client that asks for them first.
//!
//! The walk of a get: memory; then, under the lock of the key's stripe, the tiers below. The walk of a put: the same
//! lock, the tokens of its tags, the tiers below, memory. The client that must produce a missing value
//! holds a lease.

mod batch;
mod condition;
mod draft;
mod metrics;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub use batch::{BATCH_MAX, Batch, Done, check_batch_len};
pub use condition::{Condition, Validators};
pub use draft::{Draft, check_value_bytes};
pub use metrics::ObjectMetrics;

use self::condition::is_present;

use super::Directives;
use crate::cache::{
    Cache, Claim, Found, Lease, Leases, Mode, Namespace, Namespaces, Stamp, StripedLocks, Verdict,
};
use crate::domain::{Codec, Entry, EntryMeta, Key, KeyHasher, Principal, Subject, TenantId};
use crate::error::{Error, Kind, Result};

/// Bytes that a key may have.
pub const KEY_BYTES_MAX: usize = 1024;
/// Tags that one entry may carry.
pub const TAGS_MAX: usize = 64;

/// What clients may ask of objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Leases held at the same time; one more is refused.
    pub leases_max: usize,
    /// The longest time for which a lease is given.
    pub lease_seconds_max: u32,
    /// The longest time that a request waits for another's lease.
    pub wait_ms_max: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { leases_max: 65_536, lease_seconds_max: 300, wait_ms_max: 30_000 }
    }
}

/// Where an object is.
#[derive(Debug, Clone)]
pub struct Address {
    namespace: Namespace,
    key: Key,
    tenant: TenantId,
}

impl Address {
    /// The object's identity.
    pub fn key(&self) -> Key {
        self.key
    }

    /// The longest value that may be stored there.
    pub fn value_bytes_max(&self) -> usize {
        self.namespace.policy.value_bytes_max
    }

    /// The longest lifetime that may be asked for there.
    pub fn ttl_seconds_max(&self) -> u32 {
        self.namespace.policy.ttl_seconds_max
    }
}

/// How a get is to be answered.
#[derive(Debug, Clone, Default)]
pub struct Lookup {
    /// What the request says about the cache.
    pub directives: Directives,
    /// Asks for a lease of so many seconds where the value is missing or stale.
    pub lease_seconds: Option<u32>,
    /// How long to wait while another client holds the lease.
    pub wait: Duration,
}

/// An object as it was found.
#[derive(Debug, Clone)]
pub struct Object {
    /// The entry with the tier that held it.
    pub found: Found,
    /// The bytes as they were given.
    pub value: Bytes,
    /// Seconds since it was stored.
    pub age_seconds: u32,
    /// Seconds until it expires; negative once it has.
    pub fresh_seconds: i64,
    /// Given where the object is stale and this request is the one that refreshes it.
    pub lease: Option<Granted>,
}

/// The right to store a value, for some seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// What the put must carry.
    pub lease: Lease,
    /// How long it lasts.
    pub seconds: u32,
}

/// What came of a get.
#[derive(Debug)]
pub enum Answer {
    /// The object.
    Hit(Box<Object>),
    /// There is none, or none that the request accepts.
    Miss {
        /// Given where this request is the one that makes the value.
        lease: Option<Granted>,
        /// Whether another client holds the lease.
        is_held: bool,
    },
}

/// The use case. Shared by `Arc`.
pub struct Objects {
    cache: Arc<Cache>,
    namespaces: Arc<Namespaces>,
    leases: Leases,
    key_locks: StripedLocks,
    options: Options,
    metrics: Arc<ObjectMetrics>,
}

impl Objects {
    /// A use case over `cache`.
    pub fn new(
        cache: Arc<Cache>,
        namespaces: Arc<Namespaces>,
        options: Options,
        metrics: Arc<ObjectMetrics>,
    ) -> Objects {
        Objects {
            cache,
            namespaces,
            leases: Leases::new(options.leases_max),
            key_locks: StripedLocks::new(),
            options,
            metrics,
        }
    }

    /// Where the object `key` of a namespace is.
    ///
    /// # Errors
    /// `InvalidInput` for a key of no or too many bytes and for what cannot name a namespace, `NotFound` for an unknown
    /// namespace where namespaces are closed.
    pub fn address(&self, principal: &Principal, namespace: &str, key: &str) -> Result<Address> {
        let tenant = &principal.tenant;
        let namespace = self.namespaces.resolve(tenant, namespace)?;
        if !(1..=KEY_BYTES_MAX).contains(&key.len()) {
            let message = format!("a key has 1 to {KEY_BYTES_MAX} bytes, got {}", key.len());
            return Err(Error::invalid("key", message));
        }
        let key = KeyHasher::new("likewise/object/v1")
            .field(tenant.as_str().as_bytes())
            .field(namespace.name.as_bytes())
            .field(key.as_bytes())
            .finish();
        Ok(Address { namespace, key, tenant: tenant.clone() })
    }

    /// The present point in the order of invalidations, for [`Draft::stamp`].
    pub fn stamp(&self) -> Stamp {
        self.cache.freshness().tokens().stamp()
    }

    /// Looks an object up. Where it is missing or stale, one of many who ask for a lease is given it; the others are
    /// served the stale object, or wait.
    ///
    /// # Errors
    /// `InvalidInput` for a lease or a wait past its limit, `Overloaded` if too many leases are held, `NotCached` with
    /// `only_if_cached`.
    ///
    /// Cancel safety: a lease that was given to a request that is gone ends by its time.
    pub async fn get(&self, address: &Address, lookup: &Lookup) -> Result<Answer> {
        self.check(lookup)?;
        let limit = Instant::now() + lookup.wait;
        let mut has_waited = false;
        loop {
            let stamp = self.stamp();
            let found = self.look(address).await;
            let accepted = found.filter(|found| lookup.directives.accept(self.cache.freshness(), found));
            let is_settled = accepted.as_ref().is_some_and(|found| found.verdict == Verdict::Fresh);
            let claim = match lookup.lease_seconds {
                Some(seconds) if !is_settled && !lookup.directives.only_if_cached => Some((
                    self.leases.claim(address.key, Duration::from_secs(seconds.into()), stamp)?,
                    seconds,
                )),
                Some(_) | None => None,
            };
            match (accepted, claim) {
                (Some(found), Some((Claim::Granted(lease), seconds))) => {
                    return Ok(self.hit(found, has_waited, Some(Granted { lease, seconds })));
                }
                (Some(found), _) => return Ok(self.hit(found, has_waited, None)),
                (None, None) if lookup.directives.only_if_cached => {
                    self.metrics.misses.inc();
                    return Err(Error::new(Kind::NotCached, "the object is not in the cache"));
                }
                (None, None) => return Ok(self.miss(None, false)),
                (None, Some((Claim::Granted(lease), seconds))) => {
                    return Ok(self.miss(Some(Granted { lease, seconds }), false));
                }
                (None, Some((Claim::Held(_), _))) if Instant::now() >= limit => {
                    return Ok(self.miss(None, true));
                }
                (None, Some((Claim::Held(waiting), _))) => waiting.ended(limit).await,
            }
            has_waited = true;
        }
    }

    /// Stores an object and returns its validator when it is as durable as its namespace promises.
    ///
    /// # Errors
    /// `InvalidInput` for a lifetime past its limit, too many tags or a media type that cannot be one; `TooLarge`;
    /// `Conflict` for a lease that has ended, and for an object that was loaded before something that it depends on was
    /// invalidated; `PreconditionFailed`; `Io`, `DiskFull`, `Unavailable` if the disk did not take it. Then the cache
    /// does not have it.
    ///
    /// Cancel safety: what has begun is finished.
    pub async fn put(self: &Arc<Self>, address: &Address, draft: Draft) -> Result<u128> {
        let policy = &address.namespace.policy;
        let ttl_seconds = super::ttl_seconds(policy, draft.ttl_seconds)?;
        draft.check(policy.value_bytes_max)?;
        let stamp = match draft.lease {
            Some(lease) => self.leases.check(&address.key, lease)?,
            None => draft.stamp,
        };
        let value = Arc::from(&draft.value[..]);
        let lifetime = self.cache.freshness().lifetime(policy, ttl_seconds);
        let meta = EntryMeta {
            soft_expires: lifetime.soft_expires,
            stale_until: lifetime.stale_until,
            namespace: address.namespace.id,
            validator: draft.validator(),
            content_type: draft.content_type.into(),
            content_coding: draft.content_coding,
            ..EntryMeta::ending(Codec::Raw, lifetime.created, lifetime.expires)
        };
        let tags: Vec<Subject> = draft.tags.iter().map(|tag| Subject::tag(&address.tenant, tag)).collect();
        let (objects, address, condition) = (Arc::clone(self), address.clone(), draft.condition);
        let storing = async move {
            let _held = objects.key_locks.lock(&[address.key]).await;
            if let Some(lease) = draft.lease {
                // It may have ended while this waited for the lock.
                objects.leases.check(&address.key, lease)?;
            }
            objects.check_condition(&address, &condition).await?;
            let validator = meta.validator;
            let stored = objects.store(&address, stamp, meta, &tags, value).await;
            // A waiting client finds the value, or gets the next lease.
            objects.leases.end(&address.key);
            stored.map(|()| validator)
        };
        finished(storing).await
    }

    /// Removes an object and returns whether there was one.
    ///
    /// # Errors
    /// `PreconditionFailed`; `Io`, `DiskFull`, `Unavailable` if the disk did not take it: then the object is hidden until
    /// the next start only.
    ///
    /// Cancel safety: what has begun is finished.
    pub async fn delete(self: &Arc<Self>, address: &Address, condition: Condition) -> Result<bool> {
        let (objects, address) = (Arc::clone(self), address.clone());
        finished(async move {
            let _held = objects.key_locks.lock(&[address.key]).await;
            let found = objects.look_locked(&address).await;
            condition.check(found.as_ref())?;
            objects.leases.end(&address.key);
            objects.cache.remove_many(&[address.key]).await?;
            Ok(found.is_some_and(|found| is_present(&found)))
        })
        .await
    }

    /// Takes a put whose value is not to be stored: what was stored stays, and a lease is given back.
    ///
    /// # Errors
    /// `PreconditionFailed`, and `Conflict` for a lease that has ended.
    pub async fn decline(
        &self,
        address: &Address,
        lease: Option<Lease>,
        condition: &Condition,
    ) -> Result<()> {
        let _held = self.key_locks.lock(&[address.key]).await;
        self.check_condition(address, condition).await?;
        lease.map_or(Ok(()), |lease| self.release(address, lease))
    }

    /// Gives a lease back: the next who wants the value makes it.
    ///
    /// # Errors
    /// `Conflict` if it has ended.
    pub fn release(&self, address: &Address, lease: Lease) -> Result<()> {
        self.leases.check(&address.key, lease)?;
        self.leases.end(&address.key);
        Ok(())
    }

    /// Hides objects by their keys and returns how many there were.
    ///
    /// # Errors
    /// As [`Objects::delete`].
    ///
    /// Cancel safety: what has begun is finished.
    pub(super) async fn invalidate(self: &Arc<Self>, addresses: Vec<Address>, mode: Mode) -> Result<u64> {
        let objects = Arc::clone(self);
        finished(async move {
            let keys: Vec<Key> = addresses.iter().map(|address| address.key).collect();
            let _held = objects.key_locks.lock(&keys).await;
            let mut count = 0;
            for address in &addresses {
                let found = objects.look_locked(address).await;
                objects.leases.end(&address.key);
                if let (Mode::Soft, Some(found)) = (mode, &found) {
                    let now = objects.cache.freshness().now();
                    let meta = EntryMeta {
                        soft_expires: found.entry.meta.soft_expires.min(now),
                        ..found.entry.meta.clone()
                    };
                    let entry = Arc::new(Entry { meta, value: Arc::clone(&found.entry.value) });
                    objects.cache.put_many(&address.namespace, vec![(address.key, entry)]).await?;
                }
                count += u64::from(found.is_some_and(|found| is_present(&found)));
            }
            if mode == Mode::Hard {
                objects.cache.remove_many(&keys).await?;
            }
            Ok(count)
        })
        .await
    }

    /// How many of the addresses hold an object.
    pub(super) async fn count(&self, addresses: &[Address]) -> u64 {
        let mut count = 0;
        for address in addresses {
            count += u64::from(self.look(address).await.is_some_and(|found| is_present(&found)));
        }
        count
    }

    fn check(&self, lookup: &Lookup) -> Result<()> {
        let max = self.options.lease_seconds_max;
        if lookup.lease_seconds.is_some_and(|seconds| !(1..=max).contains(&seconds)) {
            let message = format!("a lease lasts from 1 to {max} seconds");
            return Err(Error::invalid("lease_seconds", message));
        }
        let max = self.options.wait_ms_max;
        if lookup.wait > Duration::from_millis(max) {
            return Err(Error::invalid("wait", format!("a request waits at most {max} ms")));
        }
        Ok(())
    }

    async fn look(&self, address: &Address) -> Option<Found> {
        if let Some(found) = self.cache.peek(&address.key) {
            return Some(found);
        }
        let _held = self.key_locks.lock(&[address.key]).await;
        self.look_locked(address).await
    }

    /// Looks in every tier. The caller holds the key's stripe, so no other task replaces the promoted entry.
    async fn look_locked(&self, address: &Address) -> Option<Found> {
        if let Some(found) = self.cache.peek(&address.key) {
            return Some(found);
        }
        self.cache.fetch(&address.namespace, &[address.key]).await.pop().flatten()
    }

    fn hit(&self, found: Found, has_waited: bool, lease: Option<Granted>) -> Answer {
        match (found.verdict, has_waited) {
            (Verdict::Fresh, true) => self.metrics.coalesced.inc(),
            (Verdict::Fresh, false) => self.metrics.hits.inc(),
            (Verdict::Stale | Verdict::Expired | Verdict::Gone, _) => self.metrics.stale.inc(),
        };
        let now = self.cache.freshness().now();
        let meta = &found.entry.meta;
        Answer::Hit(Box::new(Object {
            value: Bytes::from_owner(Arc::clone(&found.entry.value)),
            age_seconds: now.since(meta.created),
            fresh_seconds: i64::from(meta.expires.0) - i64::from(now.0),
            found,
            lease,
        }))
    }

    fn miss(&self, lease: Option<Granted>, is_held: bool) -> Answer {
        self.metrics.misses.inc();
        Answer::Miss { lease, is_held }
    }

    /// The caller holds the key's stripe.
    async fn check_condition(&self, address: &Address, condition: &Condition) -> Result<()> {
        if condition.is_none() {
            return Ok(());
        }
        condition.check(self.look_locked(address).await.as_ref())
    }

    async fn store(
        &self,
        address: &Address,
        stamp: Stamp,
        mut meta: EntryMeta,
        tags: &[Subject],
        value: Arc<[u8]>,
    ) -> Result<()> {
        let current = self.cache.freshness().tokens();
        let tokens = current.admit(stamp, address.namespace.id, tags).ok_or_else(|| {
            Error::new(
                Kind::Conflict,
                "something that the object depends on was invalidated while it was made",
            )
        })?;
        meta.epoch = tokens.epoch;
        meta.tags = tokens.tags;
        let entry = Arc::new(Entry { meta, value });
        self.cache.put_many(&address.namespace, vec![(address.key, entry)]).await
    }
}

/// Runs `work` to its end, even if the caller leaves.
async fn finished<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    tokio::spawn(work).await.unwrap_or_else(|died| {
        Err(Error::new(Kind::Internal, "the task that changed the cache died").source(died))
    })
}
