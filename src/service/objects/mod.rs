//! A cache of objects: bytes under a key in a namespace, which clients produce and store.
//!
//! The flow of a get: memory; then, under the lock of the key's stripe, the tiers below. The flow of a put: the same lock, the tokens of
//! its tags, the tiers below, memory. One client holds the lease to produce a missing value.

mod batch;
mod condition;
mod draft;
mod metrics;
mod request;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tracing::{Instrument as _, instrument};

pub use batch::{BATCH_MAX, BatchResult, ObjectBatch, check_batch_len};
pub use condition::{Condition, Validators};
pub use draft::{ObjectDraft, check_value_bytes};
pub use metrics::ObjectMetrics;
pub use request::{
    Address, DeleteOutcome, GetOptions, GetOutcome, GrantedLease, KEY_BYTES_MAX, Object, Options, PutOutcome,
    TAGS_MAX,
};

use self::condition::is_present;
use super::spans::record_outcome;
use crate::cache::{
    Cache, Claim, Found, Lease, Leases, Mode, Namespaces, Propagation, Replaces, Stamp, StripedLocks, Verdict,
};
use crate::domain::{
    Codec, Entry, EntryMeta, EntryNames, InvalidationId, Key, KeyHasher, LookupOutcome, Principal,
};
use crate::error::{Error, Kind, Result};

/// How often a change under a condition is tried while other nodes replace what it replaces.
const CHANGES_TRIED_MAX: usize = 3;

/// An entry that is not yet admitted.
struct EntryDraft {
    stamp: Stamp,
    meta: EntryMeta,
    tags: Vec<InvalidationId>,
    value: Arc<[u8]>,
    names: EntryNames,
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

    /// The address of the object `key` in a namespace.
    ///
    /// # Errors
    /// `InvalidInput` for a key of no or too many bytes and an invalid name of a namespace; `NotFound` for an unknown namespace if only
    /// configured ones are allowed.
    pub fn address(&self, principal: &Principal, namespace: &str, key: &str) -> Result<Address> {
        let tenant = &principal.tenant;
        let namespace = self.namespaces.resolve(tenant, namespace)?;
        if !(1..=KEY_BYTES_MAX).contains(&key.len()) {
            let message = format!("key must have 1 to {KEY_BYTES_MAX} bytes, got {}", key.len());
            return Err(Error::invalid("key", message));
        }
        let key = KeyHasher::new("likewise/object/v1")
            .field(tenant.as_str().as_bytes())
            .field(namespace.name.as_bytes())
            .field(key.as_bytes())
            .finish();
        Ok(Address { namespace, key, tenant: tenant.clone() })
    }

    /// The present point in the order of invalidations, for [`ObjectDraft::stamp`].
    pub fn stamp(&self) -> Stamp {
        self.cache.freshness().tokens().stamp()
    }

    /// Looks an object up. If it is missing or stale, one of the requests that ask for a lease gets it; the others are served the
    /// stale object, or wait.
    ///
    /// # Errors
    /// `InvalidInput` for a lease or a wait past its limit, `Overloaded` if too many leases are held, `NotCached` with
    /// `only_if_cached`.
    ///
    /// Cancel safety: the lease of a request that was cancelled expires.
    #[instrument(level = "debug", skip_all, fields(namespace = %address.namespace.name, outcome), err(level = "debug"))]
    pub async fn get(&self, address: &Address, options: &GetOptions) -> Result<GetOutcome> {
        self.check_options(options)?;
        let limit = Instant::now() + options.wait;
        let mut has_waited = false;
        loop {
            let stamp = self.stamp();
            let found = self.find(address).await;
            let accepted = found.filter(|found| options.directives.accept(self.cache.freshness(), found));
            let is_settled = accepted.as_ref().is_some_and(|found| found.verdict == Verdict::Fresh);
            let claim = match options.lease_seconds {
                Some(seconds) if !is_settled && !options.directives.only_if_cached => Some((
                    self.leases.claim(address.key, Duration::from_secs(seconds.into()), stamp)?,
                    seconds,
                )),
                Some(_) | None => None,
            };
            match (accepted, claim) {
                (Some(found), Some((Claim::Granted(lease), seconds))) => {
                    return Ok(self.hit(address, found, has_waited, Some(GrantedLease { lease, seconds })));
                }
                (Some(found), _) => return Ok(self.hit(address, found, has_waited, None)),
                (None, None) if options.directives.only_if_cached => {
                    self.count_miss(address);
                    return Err(Error::new(Kind::NotCached, "the object is not in the cache"));
                }
                (None, None) => return Ok(self.miss(address, None, false)),
                (None, Some((Claim::Granted(lease), seconds))) => {
                    return Ok(self.miss(address, Some(GrantedLease { lease, seconds }), false));
                }
                (None, Some((Claim::Held(_), _))) if Instant::now() >= limit => {
                    return Ok(self.miss(address, None, true));
                }
                (None, Some((Claim::Held(waiting), _))) => waiting.ended(limit).await,
            }
            has_waited = true;
        }
    }

    /// Stores an object and returns once it is as durable as its namespace requires, and other nodes have it or cannot be reached.
    ///
    /// # Errors
    /// `InvalidInput` for a TTL past its limit, too many tags or an invalid media type; `TooLarge`; `Conflict` for a lease that has
    /// ended, and if a tag was invalidated after the loading began; `PreconditionFailed`; `Io`, `DiskFull`, `Unavailable` if the disk
    /// tier failed. Then the object is not stored.
    ///
    /// Cancel safety: once begun, it runs to its end.
    #[instrument(level = "debug", skip_all, fields(namespace = %address.namespace.name, bytes = draft.value.len()), err(level = "debug"))]
    pub async fn put(self: &Arc<Self>, address: &Address, draft: ObjectDraft) -> Result<PutOutcome> {
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
        let names = EntryNames {
            namespace: Arc::clone(&address.namespace.name),
            key: draft.key,
            tags: draft.tags.iter().map(|tag| tag.as_str().to_owned()).collect(),
        };
        let tags: Vec<InvalidationId> =
            draft.tags.iter().map(|tag| InvalidationId::tag(&address.tenant, tag)).collect();
        let (objects, address, condition) = (Arc::clone(self), address.clone(), draft.condition);
        let storing = async move {
            let _held = objects.key_locks.lock(&[address.key]).await;
            if let Some(lease) = draft.lease {
                // It may have ended while this waited for the lock.
                objects.leases.check(&address.key, lease)?;
            }
            let validator = meta.validator;
            let stored =
                objects.store_if(&address, &condition, EntryDraft { stamp, meta, tags, value, names }).await;
            // A waiting client finds the value, or gets the next lease. A condition that does not hold leaves the lease.
            if !stored.as_ref().is_err_and(|error| error.kind() == Kind::PreconditionFailed) {
                objects.leases.end(&address.key);
            }
            stored.map(|propagation| PutOutcome { validator, propagation })
        };
        to_completion(storing).await
    }

    /// Removes an object.
    ///
    /// # Errors
    /// `PreconditionFailed`; `Io`, `DiskFull`, `Unavailable` if the disk tier failed: then the object is hidden until the next
    /// start only.
    ///
    /// Cancel safety: once begun, it runs to its end.
    #[instrument(level = "debug", skip_all, fields(namespace = %address.namespace.name), err(level = "debug"))]
    pub async fn delete(self: &Arc<Self>, address: &Address, condition: Condition) -> Result<DeleteOutcome> {
        let (objects, address) = (Arc::clone(self), address.clone());
        to_completion(async move {
            let _held = objects.key_locks.lock(&[address.key]).await;
            let before = if condition.is_none() { objects.find_locked(&address).await } else { None };
            let (replaced, propagation) = objects.remove_if(&address, &condition).await?;
            let was_there = before.or(replaced).is_some_and(|found| is_present(&found));
            Ok(DeleteOutcome { was_there, propagation })
        })
        .await
    }

    /// Stores an entry if the condition holds of what it replaces. The caller holds the key's stripe.
    async fn store_if(
        &self,
        address: &Address,
        condition: &Condition,
        draft: EntryDraft,
    ) -> Result<Propagation> {
        let EntryDraft { stamp, meta, tags, value, names } = draft;
        let mut tries = 0;
        loop {
            let (_, replaces) = self.replaced(address, condition).await?;
            let entry = self.admitted(address, stamp, meta.clone(), &tags, Arc::clone(&value))?;
            let (namespace, key) = (&address.namespace, address.key);
            let stored = self.cache.put_named(namespace, key, entry, &names, replaces).await;
            tries += 1;
            if !is_overtaken(&stored) || tries == CHANGES_TRIED_MAX {
                return stored;
            }
        }
    }

    /// Removes an entry if the condition holds of it, and returns it; `None` without a condition. The caller holds the key's stripe.
    async fn remove_if(
        &self,
        address: &Address,
        condition: &Condition,
    ) -> Result<(Option<Found>, Propagation)> {
        let mut tries = 0;
        loop {
            let (found, replaces) = self.replaced(address, condition).await?;
            self.leases.end(&address.key);
            let removed = self.cache.remove_if(&[address.key], replaces).await;
            tries += 1;
            if !is_overtaken(&removed) || tries == CHANGES_TRIED_MAX {
                return Ok((found, removed?));
            }
        }
    }

    /// What a change replaces, if the condition holds of it. Without a condition it is not looked up.
    async fn replaced(&self, address: &Address, condition: &Condition) -> Result<(Option<Found>, Replaces)> {
        if condition.is_none() {
            return Ok((None, Replaces::Any));
        }
        let (found, replaces) = self.cache.find_to_replace(&address.namespace, &address.key).await?;
        condition.check(found.as_ref())?;
        Ok((found, replaces))
    }

    /// Accepts a put without storing its value (`no-store`): a stored object remains, and the lease is released.
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
        self.replaced(address, condition).await?;
        lease.map_or(Ok(()), |lease| self.release(address, lease))
    }

    /// Releases a lease: the next request for the object may get it.
    ///
    /// # Errors
    /// `Conflict` if it has ended.
    pub fn release(&self, address: &Address, lease: Lease) -> Result<()> {
        self.leases.check(&address.key, lease)?;
        self.leases.end(&address.key);
        Ok(())
    }

    /// Hides objects by their keys.
    ///
    /// # Errors
    /// As [`Objects::delete`].
    ///
    /// Cancel safety: once begun, it runs to its end.
    pub(super) async fn invalidate(
        self: &Arc<Self>,
        addresses: Vec<Address>,
        mode: Mode,
    ) -> Result<Propagation> {
        let objects = Arc::clone(self);
        to_completion(async move {
            let keys: Vec<Key> = addresses.iter().map(|address| address.key).collect();
            let _held = objects.key_locks.lock(&keys).await;
            let mut propagation = Propagation::Complete;
            for address in &addresses {
                objects.leases.end(&address.key);
                if mode == Mode::Soft
                    && let Some(found) = objects.find_locked(address).await
                {
                    let now = objects.cache.freshness().now();
                    let meta = EntryMeta {
                        soft_expires: found.entry.meta.soft_expires.min(now),
                        ..found.entry.meta.clone()
                    };
                    let entry = Arc::new(Entry { meta, value: Arc::clone(&found.entry.value) });
                    let put = objects.cache.put_many(&address.namespace, vec![(address.key, entry)]).await?;
                    propagation = propagation.max(put);
                }
            }
            if mode == Mode::Hard {
                propagation = objects.cache.remove_many(&keys).await?;
            }
            Ok(propagation)
        })
        .await
    }

    /// How many of the addresses hold an object.
    pub(super) async fn count(&self, addresses: &[Address]) -> u64 {
        let mut count = 0;
        for address in addresses {
            count += u64::from(self.find(address).await.is_some_and(|found| is_present(&found)));
        }
        count
    }

    fn check_options(&self, options: &GetOptions) -> Result<()> {
        let max = self.options.lease_seconds_max;
        if options.lease_seconds.is_some_and(|seconds| !(1..=max).contains(&seconds)) {
            let message = format!("lease_seconds must be 1 to {max}");
            return Err(Error::invalid("lease_seconds", message));
        }
        let max = self.options.wait_ms_max;
        if options.wait > Duration::from_millis(max) {
            return Err(Error::invalid("wait", format!("wait must be at most {max} ms")));
        }
        Ok(())
    }

    async fn find(&self, address: &Address) -> Option<Found> {
        if let Some(found) = self.cache.peek(&address.key).filter(Found::is_verified) {
            return Some(found);
        }
        let _held = self.key_locks.lock(&[address.key]).await;
        self.find_locked(address).await
    }

    /// Looks in every tier. The caller holds the key's stripe, so no other task replaces the promoted entry.
    async fn find_locked(&self, address: &Address) -> Option<Found> {
        self.cache.find(&address.namespace, &address.key).await
    }

    fn hit(
        &self,
        address: &Address,
        found: Found,
        has_waited: bool,
        lease: Option<GrantedLease>,
    ) -> GetOutcome {
        let (outcome, counter) = match (found.verdict, has_waited) {
            (Verdict::Fresh, true) => (LookupOutcome::Coalesced, &self.metrics.coalesced),
            (Verdict::Fresh, false) => (LookupOutcome::Hit, &self.metrics.hits),
            (Verdict::Stale | Verdict::Unverified | Verdict::Expired | Verdict::Gone, _) => {
                (LookupOutcome::Stale, &self.metrics.stale)
            }
        };
        counter.inc();
        self.namespaces.lookups_in(&address.namespace).add(outcome, 1);
        record_outcome(outcome);
        let now = self.cache.freshness().now();
        let meta = &found.entry.meta;
        GetOutcome::Hit(Box::new(Object {
            value: Bytes::from_owner(Arc::clone(&found.entry.value)),
            age_seconds: now.since(meta.created),
            fresh_seconds: i64::from(meta.expires.0) - i64::from(now.0),
            found,
            lease,
        }))
    }

    fn count_miss(&self, address: &Address) {
        self.metrics.misses.inc();
        self.namespaces.lookups_in(&address.namespace).add(LookupOutcome::Miss, 1);
    }

    fn miss(&self, address: &Address, lease: Option<GrantedLease>, is_held: bool) -> GetOutcome {
        self.count_miss(address);
        record_outcome(LookupOutcome::Miss);
        GetOutcome::Miss { lease, is_held }
    }

    fn admitted(
        &self,
        address: &Address,
        stamp: Stamp,
        mut meta: EntryMeta,
        tags: &[InvalidationId],
        value: Arc<[u8]>,
    ) -> Result<Arc<Entry>> {
        let current = self.cache.freshness().tokens();
        let tokens = current.admit(stamp, address.namespace.id, tags).ok_or_else(|| {
            Error::new(
                Kind::Conflict,
                "cannot store the object: a tag of it was invalidated since its loading began",
            )
        })?;
        meta.epoch = tokens.epoch;
        meta.tags = tokens.tags;
        Ok(Arc::new(Entry { meta, value }))
    }
}

/// Whether another node has replaced what a change was to replace, so that its condition is to be checked again.
fn is_overtaken(changed: &Result<Propagation>) -> bool {
    changed.as_ref().is_err_and(|error| error.kind() == Kind::PreconditionFailed)
}

/// Runs `work` to its end, also if the caller is cancelled.
async fn to_completion<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tokio::spawn(work.in_current_span()).await.unwrap_or_else(|died| {
        Err(Error::new(Kind::Internal, "cannot change the cache: the task has panicked").source(died))
    })
}
