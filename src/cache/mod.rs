//! The tiers together: a value is looked for in memory first, then in the tiers below, and found once.
//!
//! Contains: the tiers, the one judge of freshness that stands above all of them with the tokens of tags and
//! namespaces, the policies of namespaces, single-flight and leases. Must not contain: a model, HTTP, or a second opinion
//! on whether an entry may be served. The one idea: tiers are dumb stores of [`Entry`]s by [`Key`]; every entry that
//! leaves this module has passed [`Freshness::judge`], whichever tier held it.

mod blocking_readers;
mod change_log;
mod compression;
mod disk;
pub mod entry_codec;
mod freshness;
mod hot_keys;
#[cfg(all(test, feature = "shuttle"))]
mod interleavings;
mod invalidation_tokens;
mod lease;
mod lookup_counters;
mod memory;
mod metrics;
mod policy;
mod random;
pub mod redis;
mod replication;
mod single_flight;
mod striped_locks;
mod tier;
mod tiers;

use std::sync::Arc;
use std::time::Duration;

pub use self::redis::{
    BreakerState, Located, NodeRegistry, RedisMetrics, RegisteredNode, RegisteredNodes, Replaces,
};
pub use self::replication::{Replication, ReplicationMetrics, SharedNode, SharedStatus, SharedTier, Trust};
pub use crate::storage::objects::{NamespaceCount, Position, ScanScope};
pub use disk::{ObjectTier, VectorTier};
pub use freshness::{Freshness, Lifetime, Verdict};
pub use hot_keys::{HotKey, HotKeys};
pub use invalidation_tokens::{
    EntryTokens, InvalidationTokens, LoadedTokens, LocalTokenLog, Mode, Propagation, QueueChanges, Queued,
    Stamp, Standing, TokenChange, TokenHistory, TokenLog,
};
pub use lease::{Claim, Lease, Leases};
pub use lookup_counters::{CounterId, LookupCounters, OutcomeCounters, OutcomeCounts};
pub use memory::{Budget, Eviction, Machine, MemoryOptions, MemoryTier};
pub use metrics::{CacheMetrics, TierMetrics};
pub use policy::{
    Compression, EMBEDDINGS, LLM_RESPONSES, Namespace, Namespaces, Policy, PolicyOptions, SEARCH_RESULTS,
    WhenUnverified,
};
pub use single_flight::{Flight, Landing, SingleFlight};
pub use striped_locks::{KeyGuard, StripedLocks};
pub use tier::{Choice, EntryScan, ScanRequest, ScannedEntry, Tier, TierStats};
pub use tiers::Tiers;

use self::redis::Current;
use self::replication::{KeyChanges, Published};
use crate::domain::{Entry, EntryMeta, EntryNames, Key, NamespaceId, TierName};
use crate::error::Result;

/// How long a lookup waits for the changes of other nodes.
const VERIFY_WITHIN: Duration = Duration::from_millis(100);

/// An entry with the tier that held it, and what may be done with it.
#[derive(Debug, Clone)]
pub struct Found {
    /// The entry.
    pub entry: Arc<Entry>,
    /// Where it was found.
    pub tier: TierName,
    /// What the judge says; never [`Verdict::Gone`].
    pub verdict: Verdict,
}

impl Found {
    /// Whether it is known that no other node has changed the entry.
    pub fn is_verified(&self) -> bool {
        self.verdict != Verdict::Unverified
    }
}

/// The tiers of one kind of value behind one door. Shared by `Arc`. Kinds share the memory tier and the judge.
pub struct Cache {
    memory: Arc<MemoryTier>,
    below: Vec<Arc<dyn Tier>>,
    freshness: Freshness,
    /// Where other nodes change entries too.
    shared: Option<SharedParts>,
}

/// An entry to be stored.
struct EntryPut<'a> {
    key: Key,
    entry: Arc<Entry>,
    /// `None` leaves those of the entry that it replaces.
    names: Option<&'a EntryNames>,
    replaces: Replaces,
}

/// The tier through which nodes change each other's entries.
struct SharedParts {
    tier: Arc<SharedTier>,
    changes: Arc<KeyChanges>,
}

impl Cache {
    /// A cache of `memory` above the tiers `below`.
    pub fn new(memory: Arc<MemoryTier>, below: Vec<Arc<dyn Tier>>, freshness: Freshness) -> Cache {
        Cache { memory, below, freshness, shared: None }
    }

    /// The same over a tier in which other nodes change entries too.
    #[must_use]
    pub fn of_node(mut self, node: &SharedNode) -> Cache {
        let (tier, changes) = (Arc::clone(node.shared()), Arc::clone(node.changes()));
        self.below.push(Arc::clone(&tier) as Arc<dyn Tier>);
        self.freshness = self.freshness.of_shared(Arc::clone(&tier.trust));
        self.shared = Some(SharedParts { tier, changes });
        self
    }

    /// The judge of this cache, which also makes the lifetimes of new entries.
    pub fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    /// Looks in memory only. Never blocks; costs one hash probe, one reference count and the judge's probes.
    pub fn peek(&self, key: &Key) -> Option<Found> {
        self.peek_judged(key, |freshness, meta| freshness.judge(meta))
    }

    /// As [`Cache::peek`], for entries whose end is moved when they are used: it must be one that `policy` allows.
    pub fn peek_within(&self, key: &Key, policy: &Policy) -> Option<Found> {
        self.peek_judged(key, |freshness, meta| freshness.judge_within(meta, policy))
    }

    fn peek_judged(&self, key: &Key, judge: impl FnOnce(&Freshness, &EntryMeta) -> Verdict) -> Option<Found> {
        let entry = self.memory.get(key)?;
        let verdict = judge(&self.freshness, &entry.meta);
        if verdict == Verdict::Gone {
            self.memory.remove_same(key, &entry);
            return None;
        }
        Some(Found { entry, tier: TierName::Memory, verdict })
    }

    /// Looks in memory, then in the tiers below. If it is not known whether other nodes have changed the entry, waits for the changes
    /// at most [`VERIFY_WITHIN`].
    pub async fn find(&self, namespace: &Namespace, key: &Key) -> Option<Found> {
        let found = match self.peek(key) {
            Some(found) if !found.is_verified() => {
                self.freshness.trust().verify(VERIFY_WITHIN).await;
                self.peek(key)
            }
            found => found,
        };
        match found {
            Some(found) => self.admit_unverified(namespace, found),
            None => self.fetch(namespace, std::slice::from_ref(key)).await.pop().flatten(),
        }
    }

    /// An entry of which it is not known whether it was changed is found only if its policy allows it.
    fn admit_unverified(&self, namespace: &Namespace, found: Found) -> Option<Found> {
        let policy = &namespace.policy;
        let may_serve = || {
            policy.unverified == WhenUnverified::Stale
                && self.freshness.trust().lapsed().as_secs() < u64::from(policy.stale_if_error_seconds)
        };
        (found.is_verified() || may_serve()).then_some(found)
    }

    /// Looks in the tiers below memory, in order, and promotes what it finds. The results stand in the order of
    /// `keys`. A tier that fails is counted by itself and answers with misses.
    pub async fn fetch(&self, namespace: &Namespace, keys: &[Key]) -> Vec<Option<Found>> {
        let changes: Vec<u64> = keys.iter().map(|key| self.changes_of(key)).collect();
        let mut found: Vec<Option<Found>> = vec![None; keys.len()];
        for tier in self.below_for(namespace) {
            let open: Vec<usize> = (0..keys.len()).filter(|&i| found[i].is_none()).collect();
            if open.is_empty() {
                break;
            }
            let wanted: Vec<Key> = open.iter().map(|&i| keys[i]).collect();
            let entries = tier.get_many(namespace, wanted).await;
            for (&i, entry) in open.iter().zip(entries) {
                let Some(entry) = entry else { continue };
                let verdict = self.freshness.judge_within(&entry.meta, &namespace.policy);
                if verdict != Verdict::Gone && self.promote(namespace, keys[i], &entry, changes[i]) {
                    found[i] = self.admit_unverified(namespace, Found { entry, tier: tier.name(), verdict });
                }
            }
        }
        found
    }

    /// Keeps an entry that was read below memory. Returns whether no other node has changed it since `changes` were counted.
    fn promote(&self, namespace: &Namespace, key: Key, entry: &Arc<Entry>, changes: u64) -> bool {
        if namespace.policy.uses(TierName::Memory) {
            self.memory.put(key, Arc::clone(entry));
        }
        // Compared after it was kept: the follower counts a change and then removes what is kept.
        let is_unchanged = self.changes_of(&key) == changes;
        if !is_unchanged {
            self.memory.remove_same(&key, entry);
        }
        is_unchanged
    }

    fn changes_of(&self, key: &Key) -> u64 {
        self.shared.as_ref().map_or(0, |shared| shared.changes.count(key))
    }

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
                let put = EntryPut { key, entry, names: None, replaces: Replaces::Any };
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
    /// As [`Cache::put_many`]; `PreconditionFailed` if other nodes share the entry, and it is not the one that is to be replaced.
    pub async fn put_named(
        &self,
        namespace: &Namespace,
        key: Key,
        entry: Arc<Entry>,
        names: &EntryNames,
        replaces: Replaces,
    ) -> Result<Propagation> {
        let put = EntryPut { key, entry, names: Some(names), replaces };
        if let Some(shared) = self.shared_for(namespace) {
            return self.put_shared(shared, namespace, put).await;
        }
        self.put_own(namespace, &put).await?;
        self.keep_in(namespace, put);
        Ok(Propagation::Complete)
    }

    /// Stores an entry that other nodes change too: in Redis first, whose order decides which of two nodes' entries is the later one.
    async fn put_shared(
        &self,
        shared: &SharedParts,
        namespace: &Namespace,
        put: EntryPut<'_>,
    ) -> Result<Propagation> {
        let write = shared.tier.begin(put.key);
        let published = shared.tier.publish(Some(namespace), put.key, Some(&put.entry), put.replaces).await?;
        if let Err(error) = self.put_own(namespace, &put).await {
            // What this node cannot keep is not stored; other nodes are not served it either.
            let _ = shared.tier.publish(None, put.key, None, Replaces::Any).await;
            return Err(error);
        }
        let key = put.key;
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
    fn shared_for(&self, namespace: &Namespace) -> Option<&SharedParts> {
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

    /// Reads a part of a scan over the entries of the first tier that stores names. `None` without such a tier.
    ///
    /// # Errors
    /// As [`Tier::scan`].
    pub async fn scan(&self, request: ScanRequest) -> Result<Option<EntryScan>> {
        for tier in &self.below {
            if let Some(scan) = tier.scan(request).await? {
                return Ok(Some(scan));
            }
        }
        Ok(None)
    }

    /// The entry of a key as a scan meets it.
    ///
    /// # Errors
    /// As [`Tier::scan`].
    pub async fn named(&self, key: Key) -> Result<Option<ScannedEntry>> {
        for tier in &self.below {
            if let Some(entry) = tier.named(key).await? {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// The namespaces that have entries below memory, in no order.
    pub fn namespaces_below(&self) -> Vec<NamespaceCount> {
        self.below.iter().flat_map(|tier| tier.namespaces()).collect()
    }

    /// Keeps an entry in memory only. Never blocks; costs one lock of a shard.
    pub fn keep(&self, key: Key, entry: Arc<Entry>) {
        self.memory.put(key, entry);
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
        let mut propagation = Propagation::Complete;
        if replaces == Replaces::Any {
            keys.iter().for_each(|key| self.memory.remove(key));
        }
        if let Some(shared) = &self.shared {
            for key in keys {
                let published = shared.tier.publish(None, *key, None, replaces).await?;
                propagation = propagation.max(published.propagation());
            }
        }
        keys.iter().for_each(|key| self.memory.remove(key));
        for tier in self.below.iter().filter(|tier| self.shared.is_none() || tier.name() != TierName::Redis) {
            tier.remove_many(keys.to_vec()).await?;
        }
        Ok(propagation)
    }

    /// The namespace of an entry, in whatever tier it is. `None` without an entry, and for those on a tier that does not
    /// store namespaces.
    ///
    /// # Errors
    /// `Io`, `Corrupt` if a tier cannot be read.
    pub async fn namespace_of(&self, key: &Key) -> Result<Option<NamespaceId>> {
        if let Some(namespace) = self.memory.namespace_of(key) {
            return Ok(Some(namespace));
        }
        for tier in &self.below {
            if let Some(namespace) = tier.namespace_of(*key).await? {
                return Ok(Some(namespace));
            }
        }
        Ok(None)
    }

    /// How many entries below memory are chosen, in the tiers that can tell; and how many those hold that cannot.
    ///
    /// # Errors
    /// `Io`, `Corrupt` if a tier cannot be read.
    pub async fn count_below(&self, choice: &Choice) -> Result<(u64, u64)> {
        let (mut chosen, mut unknown) = (0, 0);
        for tier in &self.below {
            match tier.count(Arc::clone(choice)).await? {
                Some(count) => chosen += count,
                None => unknown += tier.stats().entries,
            }
        }
        Ok((chosen, unknown))
    }

    /// Numbers of the tiers below memory.
    pub fn stats_below(&self) -> Vec<(TierName, TierStats)> {
        self.below.iter().map(|tier| (tier.name(), tier.stats())).collect()
    }

    /// Makes everything that was stored survive a loss of power.
    pub async fn flush(&self) {
        for tier in &self.below {
            tier.flush().await;
        }
    }

    /// The tiers below memory in the order in which entries of the namespace are looked for.
    fn below_for<'a>(
        &'a self,
        namespace: &'a Namespace,
    ) -> impl DoubleEndedIterator<Item = &'a Arc<dyn Tier>> {
        let tier_of = |name| self.below.iter().find(move |tier| tier.name() == name);
        namespace.policy.tiers.iter().filter_map(move |&name| tier_of(name))
    }

    /// A cache in memory only, for the tests of use cases. Its tokens lie in `dir`.
    #[cfg(test)]
    pub(crate) async fn in_memory(clock: Arc<dyn crate::domain::Clock>, dir: &std::path::Path) -> Cache {
        let records = Arc::new(crate::storage::Records::open(dir).expect("an empty directory"));
        let tokens =
            InvalidationTokens::open(Arc::new(LocalTokenLog::new(records)), 1024).await.expect("no records");
        let memory = MemoryTier::new(&MemoryOptions::default(), &crate::metrics::unexported());
        let freshness = Freshness::new(clock, Arc::new(tokens));
        Cache::new(Arc::new(memory.expect("the default budget")), Vec::new(), freshness)
    }
}
