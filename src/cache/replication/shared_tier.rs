//! The tier of entries that other nodes change too: objects and answers in Redis. Each write is an event for the others.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::inflight_writes::{InflightWrite, InflightWrites};
use super::key_events::KeyEvents;
use super::outbox::Outbox;
use super::token_positions::TokenPositions;
use super::trust::Trust;
use super::waiting_keys::KeyState;
use crate::cache::change_log::{EntryFingerprint, NodeId};
use crate::cache::compression;
use crate::cache::invalidation_tokens::Propagation;
use crate::cache::lease::{LeaseScope, lease_ended};
use crate::cache::policy::Namespace;
use crate::cache::random::random_id;
use crate::cache::redis::{
    BreakerState, Current, RedisTier, Replaces, SharedLog, SharedWrite, SingleFlightScope, Written,
};
use crate::cache::tier::{Tier, TierStats};
use crate::cache::write_condition::WriteCondition;
use crate::domain::{Entry, EntryNames, Key, NamespaceId, TierName};
use crate::error::{Error, Kind, Result};

/// How long a write under a lease waits for a connection: a node that was stopped has one again after this time.
const RECONNECTS_WITHIN: Duration = Duration::from_millis(250);

/// Objects and answers in Redis. Shared by `Arc`.
pub struct SharedTier {
    node: NodeId,
    pub(super) tier: Arc<RedisTier>,
    pub(super) log: Arc<SharedLog>,
    pub(super) outbox: Arc<Outbox>,
    pub(in crate::cache) trust: Arc<Trust>,
    pub(super) inflight: InflightWrites,
    /// Informs use cases of what other nodes change.
    pub(in crate::cache) events: KeyEvents,
    /// Where the invalidations of the log stand.
    pub(in crate::cache) positions: TokenPositions,
    /// How long a write waits for Redis.
    pub(super) limit: Duration,
    /// What only one node makes at a time.
    pub(in crate::cache) single_flight: SingleFlightScope,
}

/// How a node stands to Redis and the other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedStatus {
    /// This node.
    pub node: u64,
    /// Whether Redis answers, so that changes of other nodes are applied and those of this node are sent.
    pub is_connected: bool,
    /// Whether calls are made to Redis.
    pub breaker: BreakerState,
    /// Whether this node is known to have applied all changes of other nodes.
    pub is_trusted: bool,
    /// Milliseconds since that was known. 0 while it is.
    pub unverified_ms: u64,
    /// Changes of this node that wait.
    pub outbox: usize,
}

/// A write that Redis has, or that waits in the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cache) enum Published {
    /// It is the event of this number.
    Event(u64),
    /// It waits until Redis can be reached.
    Waiting,
}

impl Published {
    pub(in crate::cache) fn propagation(self) -> Propagation {
        match self {
            Published::Event(_) => Propagation::Complete,
            Published::Waiting => Propagation::Pending,
        }
    }
}

impl SharedTier {
    pub(in crate::cache) fn new(
        node: NodeId,
        tier: Arc<RedisTier>,
        log: Arc<SharedLog>,
        outbox: Arc<Outbox>,
        trust: Arc<Trust>,
        limit: Duration,
        single_flight: SingleFlightScope,
    ) -> SharedTier {
        let (inflight, events, positions) = Default::default();
        SharedTier { node, tier, log, outbox, trust, inflight, events, positions, limit, single_flight }
    }

    /// How this node stands to Redis and the other nodes now.
    pub fn status(&self) -> SharedStatus {
        let is_trusted = self.trust.is_held();
        let lapsed = if is_trusted { Duration::ZERO } else { self.trust.lapsed() };
        SharedStatus {
            node: self.node.0,
            is_connected: self.trust.is_all_connected(),
            breaker: self.log.breaker_state(),
            is_trusted,
            unverified_ms: u64::try_from(lapsed.as_millis()).unwrap_or(u64::MAX),
            outbox: self.outbox.len(),
        }
    }

    /// The number of the last event of each shard that this node has applied.
    pub fn positions(&self) -> Vec<u64> {
        (0..self.log.shards()).map(|shard| self.log.known(shard).cursor.number).collect()
    }

    /// The age from which on all changes of other nodes are applied here.
    pub fn behind(&self) -> Duration {
        self.trust.behind()
    }

    /// A write of a key begins: until its end it decides whether an event of another node is later.
    pub(in crate::cache) async fn begin(&self, key: Key) -> InflightWrite<'_> {
        self.inflight.begin(key).await
    }

    /// Writes an entry with its event; `None` removes it. What cannot reach Redis waits in the outbox, if it may replace anything.
    ///
    /// # Errors
    /// `PreconditionFailed` if Redis holds another entry than the one that is to be replaced; `Conflict` if the lease has ended;
    /// `Unavailable` if that cannot be known; `Overloaded`, and the errors of the small records.
    pub(in crate::cache) async fn publish(
        &self,
        namespace: Option<&Namespace>,
        key: Key,
        entry: Option<&Arc<Entry>>,
        condition: WriteCondition,
    ) -> Result<Published> {
        let fingerprint = entry.and_then(|entry| EntryFingerprint::of(&entry.meta));
        let entry =
            entry.zip(namespace).map(|(entry, namespace)| compression::compress(&namespace.policy, entry));
        let value = entry.and_then(|entry| self.sealed(&key, Entry::clone(&entry)));
        let value = value.as_ref().map(|(bytes, lives_ms)| (bytes.as_slice(), *lives_ms));
        let WriteCondition { replaces, lease } = condition;
        let known = lease.filter(|held| held.scope != LeaseScope::Node);
        let lease = known.map(|held| held.lease);
        let write = SharedWrite { key, value, entry: fingerprint, replaces, after: None, lease };
        let shard = usize::from(self.log.shard_of(&key));
        if known.is_some() {
            // What another node has made meanwhile must not be replaced only because this one was stopped for a while.
            let _ = tokio::time::timeout(RECONNECTS_WITHIN, self.trust.connected(shard)).await;
        }
        let written = match self.trust.is_connected(shard) {
            true => self.log.write(&write, random_id()?, self.limit).await.ok(),
            false => None,
        };
        match written {
            Some(Written::Done(number)) => {
                self.outbox.supersede(&key);
                Ok(Published::Event(number))
            }
            Some(Written::Conflict | Written::Contested | Written::Behind) => Err(changed_meanwhile()),
            Some(Written::LeaseEnded) => Err(lease_ended()),
            None if replaces != Replaces::Any || is_elsewhere(&condition) => Err(unreachable()),
            None => {
                self.outbox.push_key(key).await?;
                // An event of another node that was read while this write was open may be a later one.
                if self.inflight.has_foreign(&key) {
                    self.outbox.contest(&key);
                }
                Ok(Published::Waiting)
            }
        }
    }

    /// Whether the shard of a key has answered last.
    pub(super) fn is_connected(&self, key: &Key) -> bool {
        self.trust.is_connected(self.log.shard_of(key).into())
    }

    /// The number of the last event of a key's shard that this node has applied.
    pub(in crate::cache) fn applied(&self, key: &Key) -> u64 {
        self.log.known(self.log.shard_of(key)).cursor.number
    }

    /// Whether another node has changed a key whose change waits.
    pub(in crate::cache) fn is_contested(&self, key: &Key) -> bool {
        self.outbox.key_state(key) == Some(KeyState::Contested)
    }

    /// The entry that Redis holds now, for a write that replaces only this one.
    ///
    /// # Errors
    /// `Unavailable` if Redis cannot be asked, or changes of this node wait.
    pub(in crate::cache) async fn current(
        &self,
        namespace: &Namespace,
        key: &Key,
    ) -> Result<Option<Current>> {
        if !self.is_connected(key) || self.outbox.holds(key) {
            return Err(unreachable());
        }
        let current = self.tier.current(namespace, key).await?;
        Ok(current
            .map(|Current { entry, write_id }| Current { entry: self.of_generation(key, entry), write_id }))
    }

    /// The bytes of a stored entry, and the milliseconds that it has left.
    pub(super) fn sealed(&self, key: &Key, mut stored: Entry) -> Option<(Vec<u8>, u64)> {
        stored.meta.epoch ^= self.log.generation(self.log.shard_of(key));
        self.tier.sealed(key, &stored)
    }

    /// An entry as it was before the generation of its shard was combined with its epoch: the judge hides one of another generation.
    fn of_generation(&self, key: &Key, mut entry: Arc<Entry>) -> Arc<Entry> {
        Arc::make_mut(&mut entry).meta.epoch ^= self.log.generation(self.log.shard_of(key));
        entry
    }
}

/// Whether only Redis knows that the lease of a write has not ended.
fn is_elsewhere(condition: &WriteCondition) -> bool {
    condition.lease.is_some_and(|held| held.scope == LeaseScope::Elsewhere)
}

fn unreachable() -> Error {
    Error::new(
        Kind::Unavailable,
        "Redis is not reachable: the change could concern what another node has stored; try again later",
    )
}

/// The same as what a condition that does not hold gives: the caller looks again.
fn changed_meanwhile() -> Error {
    Error::new(Kind::PreconditionFailed, "another node has changed the stored object meanwhile")
}

impl Tier for SharedTier {
    fn name(&self) -> TierName {
        TierName::Redis
    }

    fn get_many<'a>(
        &'a self,
        namespace: &'a Namespace,
        keys: Vec<Key>,
    ) -> BoxFuture<'a, Vec<Option<Arc<Entry>>>> {
        Box::pin(async move {
            // What Redis holds under a key that waits in the outbox is older than what this node has. One that leaves the outbox while
            // Redis is read was read too early.
            let was_current: Vec<bool> = keys.iter().map(|key| !self.outbox.holds(key)).collect();
            let found = self.log.get_many(&self.tier, namespace, keys.clone()).await;
            let of_generation = |((entry, key), was_current): ((Option<_>, &Key), bool)| {
                let entry = entry.filter(|_| was_current && !self.outbox.holds(key));
                entry.map(|entry| self.of_generation(key, entry))
            };
            found.into_iter().zip(&keys).zip(was_current).map(of_generation).collect()
        })
    }

    fn namespace_of(&self, key: Key) -> BoxFuture<'_, Result<Option<NamespaceId>>> {
        Box::pin(async move {
            if !self.is_connected(&key) {
                return Err(unreachable());
            }
            self.tier.namespace_of(&key).await.map_err(|_| unreachable())
        })
    }

    fn put_many<'a>(
        &'a self,
        namespace: &'a Namespace,
        entries: Vec<(Key, Arc<Entry>)>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            for (key, entry) in entries {
                self.publish(Some(namespace), key, Some(&entry), WriteCondition::default()).await?;
            }
            Ok(())
        })
    }

    fn put_named<'a>(
        &'a self,
        namespace: &'a Namespace,
        key: Key,
        entry: Arc<Entry>,
        _: &'a EntryNames,
    ) -> BoxFuture<'a, Result<()>> {
        self.put_many(namespace, vec![(key, entry)])
    }

    fn remove_many(&self, keys: Vec<Key>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            for key in keys {
                self.publish(None, key, None, WriteCondition::default()).await?;
            }
            Ok(())
        })
    }

    fn stats(&self) -> TierStats {
        self.tier.stats()
    }
}
