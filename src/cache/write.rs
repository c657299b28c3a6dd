//! Stores and removes entries: in the lowest tier first, and where nodes share entries in Redis before everything else.

use std::sync::Arc;

use super::redis::{Current, Replaces};
use super::replication::Published;
use super::write_condition::WriteCondition;
use super::{Cache, Found, Namespace, Propagation, SharedParts, Tier, Verdict};
use crate::domain::{Entry, EntryNames, Key, TierName};
use crate::error::Result;

/// An entry to be stored.
struct EntryPut<'a> {
    key: Key,
    entry: Arc<Entry>,
    /// `None` leaves those of the entry that it replaces.
    names: Option<&'a EntryNames>,
    condition: WriteCondition,
}

impl Cache {
    /// Stores entries in every tier of their namespace, the lowest first: an entry is visible only after it is as
    /// durable as it was promised.
    ///
    /// # Errors
    /// The first error of a tier whose writes are acknowledged; then the entries are not in memory either.
    pub async fn put_many(
        &self,
        namespace: &Namespace,
        entries: Vec<(Key, Arc<Entry>)>,
    ) -> Result<Propagation> {
        if let Some(shared) = self.shared_for(namespace) {
            let mut propagation = Propagation::Complete;
            for (key, entry) in entries {
                let condition = WriteCondition::default();
                let put = EntryPut { key, entry, names: None, condition };
                propagation = propagation.max(self.put_shared(shared, namespace, put).await?);
            }
            return Ok(propagation);
        }
        for tier in self.below_for(namespace).rev() {
            if let Err(error) = tier.put_many(namespace, entries.clone()).await {
                entries.iter().for_each(|(key, _)| self.memory.remove(key));
                return Err(error);
            }
        }
        if namespace.policy.uses(TierName::Memory) {
            entries.into_iter().for_each(|(key, entry)| self.memory.put(key, entry));
        }
        Ok(Propagation::Complete)
    }

    /// Stores an entry with the names by which it is listed. Otherwise as [`Cache::put_many`], which leaves the names of an entry
    /// as they are.
    ///
    /// # Errors
    /// As [`Cache::put_many`]; `PreconditionFailed` if other nodes share the entry, and it is not the one that is to be replaced;
    /// `Conflict` if other nodes know the lease, and it has ended.
    pub async fn put_named(
        &self,
        namespace: &Namespace,
        key: Key,
        entry: Arc<Entry>,
        names: &EntryNames,
        condition: WriteCondition,
    ) -> Result<Propagation> {
        let put = EntryPut { key, entry, names: Some(names), condition };
        if let Some(shared) = self.shared_for(namespace) {
            return self.put_shared(shared, namespace, put).await;
        }
        self.put_own(namespace, &put).await?;
        self.keep_in(namespace, put);
        Ok(Propagation::Complete)
    }

    /// Stores an entry under the names of the one that it replaces. Otherwise as [`Cache::put_named`].
    ///
    /// # Errors
    /// As [`Cache::put_named`].
    pub async fn replace(
        &self,
        namespace: &Namespace,
        key: Key,
        entry: Arc<Entry>,
        replaces: Replaces,
    ) -> Result<Propagation> {
        match self.shared_for(namespace) {
            Some(shared) => {
                let put = EntryPut { key, entry, names: None, condition: replaces.into() };
                self.put_shared(shared, namespace, put).await
            }
            None => self.put_many(namespace, vec![(key, entry)]).await,
        }
    }

    /// Stores an entry that other nodes change too: in Redis first, whose order decides which of two nodes' entries is the later one.
    async fn put_shared(
        &self,
        shared: &SharedParts,
        namespace: &Namespace,
        put: EntryPut<'_>,
    ) -> Result<Propagation> {
        let write = shared.tier.begin(put.key).await;
        let published =
            shared.tier.publish(Some(namespace), put.key, Some(&put.entry), put.condition).await?;
        if let Err(error) = self.put_own(namespace, &put).await {
            // What this node cannot keep is not stored; other nodes are not served it either.
            let _ = shared.tier.publish(None, put.key, None, WriteCondition::default()).await;
            return Err(error);
        }
        let key = put.key;
        // Counted before, so that a lookup that does not hold the lock of the key keeps nothing older in memory.
        shared.changes.add(&key);
        self.keep_in(namespace, put);
        let is_last = match published {
            Published::Event(number) => write.end(number),
            // Another node's write was read meanwhile: neither is known to be the later one.
            Published::Waiting => !shared.tier.is_contested(&key),
        };
        if !is_last {
            self.drop_own(namespace, &key).await?;
        }
        Ok(published.propagation())
    }

    /// Stores an entry in the tiers of this node below memory.
    async fn put_own(&self, namespace: &Namespace, put: &EntryPut<'_>) -> Result<()> {
        for tier in self.own_below(namespace) {
            let entry = Arc::clone(&put.entry);
            let stored = match put.names {
                Some(names) => tier.put_named(namespace, put.key, entry, names).await,
                None => tier.put_many(namespace, vec![(put.key, entry)]).await,
            };
            if let Err(error) = stored {
                self.memory.remove(&put.key);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Another node's write came after the one that was just stored here.
    async fn drop_own(&self, namespace: &Namespace, key: &Key) -> Result<()> {
        self.memory.remove(key);
        for tier in self.own_below(namespace) {
            tier.remove_many(vec![*key]).await?;
        }
        Ok(())
    }

    fn keep_in(&self, namespace: &Namespace, put: EntryPut<'_>) {
        if namespace.policy.uses(TierName::Memory) {
            self.memory.put(put.key, put.entry);
        }
    }

    /// What other nodes change too, if entries of the namespace are shared.
    pub(super) fn shared_for(&self, namespace: &Namespace) -> Option<&SharedParts> {
        self.shared.as_ref().filter(|_| namespace.policy.uses(TierName::Redis))
    }

    /// The tiers of this node below memory, the lowest first.
    fn own_below<'a>(&'a self, namespace: &'a Namespace) -> impl Iterator<Item = &'a Arc<dyn Tier>> {
        let is_own = |tier: &&Arc<dyn Tier>| self.shared.is_none() || tier.name() != TierName::Redis;
        self.below_for(namespace).rev().filter(is_own)
    }

    /// The entry that may be replaced under a condition, and what must then be replaced: the one in Redis, if other nodes share it.
    ///
    /// # Errors
    /// `Unavailable` if Redis cannot be asked.
    pub async fn find_to_replace(
        &self,
        namespace: &Namespace,
        key: &Key,
    ) -> Result<(Option<Found>, Replaces)> {
        let Some(shared) = self.shared_for(namespace) else {
            return Ok((self.find(namespace, key).await, Replaces::Any));
        };
        let applied = shared.tier.applied(key);
        let Some(Current { entry, write_id }) = shared.tier.current(namespace, key).await? else {
            // Redis has evicted it, it is too long for Redis, or it was removed and this node has not read the event.
            let found = self.find(namespace, key).await;
            let replaces = if found.is_some() { Replaces::NothingSince(applied) } else { Replaces::Nothing };
            return Ok((found, replaces));
        };
        let verdict = self.freshness.judge_within(&entry.meta, &namespace.policy);
        let found = Found { entry, tier: TierName::Redis, verdict };
        Ok((Some(found).filter(|found| found.verdict != Verdict::Gone), Replaces::Write(write_id)))
    }

    /// Keeps an entry in memory only. Never blocks; costs one lock of a shard.
    pub fn keep(&self, key: Key, entry: Arc<Entry>) {
        self.memory.put(key, entry);
    }

    /// Forgets an entry in memory, unless another one is there.
    pub fn forget_kept(&self, key: &Key, entry: &Arc<Entry>) {
        self.memory.remove_same(key, entry);
    }

    /// Forgets entries in every tier.
    ///
    /// # Errors
    /// The first error of a tier whose writes are acknowledged; the entries are removed from memory nevertheless.
    pub async fn remove_many(&self, keys: &[Key]) -> Result<Propagation> {
        self.remove_if(keys, Replaces::Any).await
    }

    /// As [`Cache::remove_many`], if other nodes have not replaced what is to be removed.
    ///
    /// # Errors
    /// As [`Cache::remove_many`]; `PreconditionFailed` if other nodes share the entries, and one is not the one to be removed.
    pub async fn remove_if(&self, keys: &[Key], replaces: Replaces) -> Result<Propagation> {
        if replaces == Replaces::Any {
            keys.iter().for_each(|key| self.memory.remove(key));
        }
        let Some(shared) = &self.shared else {
            self.remove_own(keys).await?;
            return Ok(Propagation::Complete);
        };
        // Until the copies of this node are removed, what waits in the outbox is not taken from them.
        let mut writes = Vec::with_capacity(keys.len());
        for key in keys {
            writes.push(shared.tier.begin(*key).await);
        }
        let (mut removed, mut propagation) = (Vec::new(), Ok(Propagation::Complete));
        for key in keys {
            match shared.tier.publish(None, *key, None, replaces.into()).await {
                Ok(published) => {
                    removed.push(published);
                    propagation = propagation.map(|so_far| published.propagation().max(so_far));
                }
                Err(error) => {
                    propagation = Err(error);
                    break;
                }
            }
        }
        self.remove_own(&keys[..removed.len()]).await?;
        // Not before: a copy that could not be removed is outdated.
        for (write, published) in writes.iter().zip(&removed) {
            if let Published::Event(number) = published {
                write.end(*number);
            }
        }
        propagation
    }

    /// Removes entries from the tiers of this node.
    async fn remove_own(&self, keys: &[Key]) -> Result<()> {
        keys.iter().for_each(|key| self.memory.remove(key));
        for tier in self.below.iter().filter(|tier| self.shared.is_none() || tier.name() != TierName::Redis) {
            tier.remove_many(keys.to_vec()).await?;
        }
        if let Some(shared) = &self.shared {
            // A lookup that does not hold the lock of the key may have read it before, and keep it in memory after it was removed there.
            for key in keys {
                shared.changes.add(key);
                self.memory.remove(key);
            }
        }
        Ok(())
    }
}
