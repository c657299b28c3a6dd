//! Stores and removes objects, under the lock of the stripe of their key.

use std::sync::Arc;

use tracing::{Instrument as _, instrument};

use super::condition::is_present;
use super::{Address, Condition, DeleteOutcome, ObjectDraft, Objects, PutOutcome};
use crate::cache::{Found, HeldLease, Lease, Mode, Propagation, Replaces, Stamp, WriteCondition};
use crate::domain::{Codec, Entry, EntryMeta, EntryNames, InvalidationId, Key, Tag};
use crate::error::{Error, Kind, Result};
use crate::service::early_refresh::cost_us_since;

/// How often a change under a condition is tried while other nodes replace what it replaces.
const CHANGES_TRIED_MAX: usize = 3;

/// An entry that is not yet admitted.
struct EntryDraft {
    stamp: Stamp,
    meta: EntryMeta,
    tags: Vec<InvalidationId>,
    value: Arc<[u8]>,
    names: EntryNames,
    /// The lease under which it was made.
    lease: Option<HeldLease>,
}

impl Objects {
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
        let ttl_seconds = crate::service::ttl_seconds(policy, draft.ttl_seconds)?;
        draft.check(policy.value_bytes_max)?;
        let lease = match draft.lease {
            Some(lease) => Some(self.leases.check(&address.namespace, &address.key, lease).await?),
            None => None,
        };
        let stamp = lease.map_or(draft.stamp, |held| held.stamp);
        let value = Arc::from(&draft.value[..]);
        let lifetime = self.cache.freshness().lifetime(policy, ttl_seconds);
        let meta = EntryMeta {
            soft_expires: lifetime.soft_expires,
            stale_until: lifetime.stale_until,
            cost_us: lease.and_then(|held| held.since).map_or(0, cost_us_since),
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
        self.tag_names.learn(tags.iter().copied().zip(draft.tags.iter().map(Tag::as_str)));
        let (objects, address, condition) = (Arc::clone(self), address.clone(), draft.condition);
        let storing = async move {
            let _held = objects.cache.lock(&[address.key]).await;
            if let Some(lease) = &lease {
                // It may have ended while this waited for the lock.
                objects.leases.check_again(&address.key, lease)?;
            }
            let validator = meta.validator;
            let draft = EntryDraft { stamp, meta, tags, value, names, lease };
            let stored = objects.store_if(&address, &condition, draft).await;
            objects.end_lease(&address, lease.as_ref(), &stored).await;
            stored.map(|propagation| PutOutcome { validator, propagation })
        };
        to_completion(storing).await
    }

    /// After a put a waiting client finds the value, or gets the next lease. A condition that does not hold leaves the lease.
    async fn end_lease(&self, address: &Address, lease: Option<&HeldLease>, stored: &Result<Propagation>) {
        let Err(error) = stored else { return self.leases.end(&address.key) };
        if error.kind() == Kind::PreconditionFailed {
            return;
        }
        self.leases.end(&address.key);
        if let Some(lease) = lease {
            self.leases.give_back(&address.namespace, &address.key, lease).await;
        }
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
            let _held = objects.cache.lock(&[address.key]).await;
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
        let EntryDraft { stamp, meta, tags, value, names, lease } = draft;
        let mut tries = 0;
        loop {
            let (_, replaces) = self.replaced(address, condition).await?;
            let entry = self.admitted(address, stamp, meta.clone(), &tags, Arc::clone(&value))?;
            let (namespace, key) = (&address.namespace, address.key);
            let condition = WriteCondition { replaces, lease };
            let stored = self.cache.put_named(namespace, key, entry, &names, condition).await;
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
        let _held = self.cache.lock(&[address.key]).await;
        self.replaced(address, condition).await?;
        match lease {
            Some(lease) => self.release(address, lease).await,
            None => Ok(()),
        }
    }

    /// Hides objects by their keys.
    ///
    /// # Errors
    /// As [`Objects::delete`].
    ///
    /// Cancel safety: once begun, it runs to its end.
    pub(in crate::service) async fn invalidate(
        self: &Arc<Self>,
        addresses: Vec<Address>,
        mode: Mode,
    ) -> Result<Propagation> {
        let objects = Arc::clone(self);
        to_completion(async move {
            let keys: Vec<Key> = addresses.iter().map(|address| address.key).collect();
            let _held = objects.cache.lock(&keys).await;
            let mut propagation = Propagation::Complete;
            addresses.iter().for_each(|address| objects.leases.end(&address.key));
            if mode == Mode::Hard {
                return objects.cache.remove_many(&keys).await;
            }
            for address in &addresses {
                propagation = propagation.max(objects.outdate(address).await?);
            }
            Ok(propagation)
        })
        .await
    }

    /// Ends the time for which an object is fresh. One that other nodes replace meanwhile, or that cannot be compared with theirs, is
    /// removed. The caller holds the key's stripe.
    async fn outdate(&self, address: &Address) -> Result<Propagation> {
        for _ in 0..CHANGES_TRIED_MAX {
            let (found, replaces) = match self.cache.find_to_replace(&address.namespace, &address.key).await {
                Ok((Some(found), replaces)) => (found, replaces),
                Ok((None, _)) => return Ok(Propagation::Complete),
                Err(error) if error.kind() == Kind::Unavailable => break,
                Err(error) => return Err(error),
            };
            let now = self.cache.freshness().now();
            let meta = EntryMeta {
                soft_expires: found.entry.meta.soft_expires.min(now),
                ..found.entry.meta.clone()
            };
            let entry = Arc::new(Entry { meta, value: Arc::clone(&found.entry.value) });
            let replaced = self.cache.replace(&address.namespace, address.key, entry, replaces).await;
            if !is_overtaken(&replaced) {
                return replaced;
            }
        }
        self.cache.remove_many(&[address.key]).await
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
