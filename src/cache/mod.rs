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
mod feedback_exchange;
mod freshness;
mod hot_keys;
#[cfg(all(test, feature = "shuttle"))]
mod interleavings;
mod invalidation_tokens;
mod lease;
mod lookup_counters;
mod memory;
mod metrics;
mod pair_feedback;
mod policy;
mod random;
mod read;
pub mod redis;
mod replication;
mod shared_flights;
mod shared_leases;
mod single_flight;
mod striped_locks;
mod tier;
mod tiers;
pub mod warm_restart;
mod warm_up;
mod write;
mod write_condition;

use std::sync::Arc;

pub use self::redis::{
    BreakerState, EmbeddingClaims, Located, NodeRegistry, RedisMetrics, RegisteredNode, RegisteredNodes,
    Replaces, SharedPairs,
};
pub use self::replication::{
    KeyEvent, Replication, ReplicationMetrics, SharedNode, SharedStatus, SharedTier, Trust,
};
pub use crate::storage::objects::{NamespaceCount, Position, ScanScope};
pub use disk::{ObjectTier, VectorTier};
pub use feedback_exchange::exchange_feedback;
pub use freshness::{Freshness, Lifetime, Verdict};
pub use hot_keys::HotKey;
pub use invalidation_tokens::{
    EntryTokens, InvalidationTokens, LoadedTokens, LocalTokenLog, Mode, Propagation, QueueChanges, Queued,
    Stamp, Standing, TokenChange, TokenHistory, TokenLog,
};
pub use lease::{Claim, HeldLease, Lease, Leases};
pub use lookup_counters::{CounterId, LookupCounters, OutcomeCounters, OutcomeCounts};
pub use memory::{Budget, Eviction, Machine, MemoryOptions, MemoryTier};
pub use metrics::{CacheMetrics, TierMetrics};
pub use pair_feedback::{PAIR_QUESTION_BYTES_MAX, PairFeedback, PairJudgement, QuestionPair};
pub use policy::{
    Compression, EMBEDDINGS, LLM_RESPONSES, Namespace, Namespaces, Policy, PolicyOptions, SEARCH_RESULTS,
    WhenUnverified,
};
pub use shared_flights::{FlightClaim, FlightElsewhere, SharedFlight};
pub use shared_leases::SharedLeases;
pub use single_flight::{Flight, Landing, SingleFlight};
pub use striped_locks::KeyGuard;
pub use tier::{Choice, EntryScan, ScanRequest, ScannedEntry, Tier, TierStats};
pub use tiers::Tiers;
pub use warm_up::{ReadPace, WarmUp};
pub use write_condition::WriteCondition;

use self::replication::KeyChanges;
use self::striped_locks::StripedLocks;
use crate::domain::{Entry, InvalidationId, Key, NamespaceId, TierName};
use crate::error::Result;

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
    embedding_claims: Option<Arc<EmbeddingClaims>>,
    key_locks: StripedLocks,
}

/// The tier through which nodes change each other's entries.
struct SharedParts {
    tier: Arc<SharedTier>,
    changes: Arc<KeyChanges>,
}

impl Cache {
    /// A cache of `memory` above the tiers `below`.
    pub fn new(memory: Arc<MemoryTier>, below: Vec<Arc<dyn Tier>>, freshness: Freshness) -> Cache {
        let key_locks = StripedLocks::new();
        Cache { memory, below, freshness, shared: None, embedding_claims: None, key_locks }
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

    /// The same over embeddings that other nodes make too.
    #[must_use]
    pub fn of_embeddings(mut self, node: &SharedNode) -> Cache {
        self.below.push(node.embeddings());
        self.embedding_claims = node.embedding_claims();
        self
    }

    /// Waits until no other task replaces, removes or promotes entries of `keys`, nor of keys that share a lock with them. For values
    /// that can be replaced under their key; see `striped_locks`.
    pub async fn lock(&self, keys: &[Key]) -> KeyGuard<'_> {
        self.key_locks.lock(keys).await
    }

    /// Returns once all locks that are held now are released.
    pub async fn wait_for_locks(&self) {
        self.key_locks.wait().await;
    }

    /// Which node embeds a text, if only one of all is to.
    pub fn embedding_claims(&self) -> Option<&Arc<EmbeddingClaims>> {
        self.embedding_claims.as_ref()
    }

    /// The judge of this cache, which also makes the lifetimes of new entries.
    pub fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    /// The leases of its keys, at most `leases_max` on this node.
    pub fn leases(&self, leases_max: usize) -> SharedLeases {
        let shared = self.shared.as_ref().map(|shared| Arc::clone(&shared.tier));
        SharedLeases::new(leases_max, self.freshness.clone(), shared)
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

    /// The tenant of an entry, as in [`NamespaceId::tenant`], or of what some node is making under its key. `None` if there is neither.
    ///
    /// # Errors
    /// As [`Cache::namespace_of`]; `Unavailable` if Redis cannot be asked.
    pub async fn tenant_of(&self, key: &Key) -> Result<Option<Option<InvalidationId>>> {
        if let Some(namespace) = self.namespace_of(key).await? {
            return Ok(Some(namespace.tenant()));
        }
        let Some(shared) = &self.shared else { return Ok(None) };
        Ok(shared.tier.lease(key).await?.map(|(_, terms)| terms.tenant))
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

    /// Where entries of the namespace are looked for first below memory. `None` if nowhere.
    pub(in crate::cache) fn first_below(&self, namespace: &Namespace) -> Option<TierName> {
        self.below_for(namespace).next().map(|tier| tier.name())
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
