//! Assembles the parts of a node that shares a Redis, in the order in which they need each other.

use std::sync::Arc;
use std::time::Duration;

use super::key_changes::KeyChanges;
use super::metrics::ReplicationMetrics;
use super::node_state::NodeState;
use super::outbox::Outbox;
use super::replicator::{LocalCopies, Replication, Replicator};
use super::shared_tier::SharedTier;
use super::shared_token_log::SharedTokenLog;
use super::trust::Trust;
use crate::cache::change_log::NodeId;
use crate::cache::disk::ObjectTier;
use crate::cache::invalidation_tokens::{InvalidationTokens, TokenLog};
use crate::cache::memory::MemoryTier;
use crate::cache::metrics::CacheMetrics;
use crate::cache::random::random_id;
use crate::cache::redis::{
    EmbeddingClaims, Envelope, NodeRegistry, RedisClient, RedisEntries, RedisMetrics, RedisOptions,
    RedisTier, RedisTierParts, SharedLog, SharedPairs, SingleFlightScope,
};
use crate::cache::tier::Tier;
use crate::domain::Clock;
use crate::error::Result;
use crate::storage::Records;

/// A node that shares a Redis, before it follows the others.
pub struct SharedNode {
    embeddings: Arc<RedisTier>,
    embedding_claims: Option<Arc<EmbeddingClaims>>,
    shared: Arc<SharedTier>,
    registry: NodeRegistry,
    pairs: SharedPairs,
    changes: Arc<KeyChanges>,
    state: NodeState,
    records: Arc<Records>,
    suspect_after: Duration,
}

impl SharedNode {
    /// Reads what the node kept and begins to connect. `None` if no Redis is configured.
    ///
    /// # Errors
    /// `Config` about the options; `Io`, `DiskFull`, `Corrupt` from the small records. That Redis does not answer is no error.
    pub async fn open(
        options: &RedisOptions,
        records: &Arc<Records>,
        clock: &Arc<dyn Clock>,
        redis_metrics: &Arc<RedisMetrics>,
        cache_metrics: &CacheMetrics,
    ) -> Result<Option<SharedNode>> {
        let Some(client) = RedisClient::start(options, Arc::clone(redis_metrics))? else { return Ok(None) };
        let limit = client.response_max();
        let state = NodeState::open(Arc::clone(records)).await?;
        let suspect_after = Duration::from_millis(options.suspect_after_ms);
        let trust = Arc::new(Trust::of_follower(client.keys().shards().into(), suspect_after));
        let outbox = Arc::new(Outbox::open(Arc::clone(records))?);
        let envelope = Envelope::from_environment()?;
        let tier = |entries| {
            let parts = RedisTierParts {
                envelope: envelope.clone(),
                value_bytes_max: options.value_bytes_max,
                clock: Arc::clone(clock),
                metrics: cache_metrics,
                redis_metrics: Arc::clone(redis_metrics),
            };
            RedisTier::new(client.clone(), entries, parts).map(Arc::new)
        };
        let (embeddings, objects) = (tier(RedisEntries::Embeddings)?, tier(RedisEntries::Objects)?);
        let registry = NodeRegistry::new(client.clone(), state.id.0, envelope.clone());
        let pairs = SharedPairs::new(client.clone(), envelope.clone());
        let claims_embeddings = options.single_flight == SingleFlightScope::All;
        let embedding_claims = claims_embeddings.then(|| Arc::new(EmbeddingClaims::new(client.clone())));
        // Of this process alone: a copied data directory must not make a node take the events of another one for its own.
        let author = NodeId(random_id()?);
        let log = Arc::new(SharedLog::new(client.clone(), author, options.events_max));
        let shared =
            Arc::new(SharedTier::new(state.id, objects, log, outbox, trust, limit, options.single_flight));
        let (changes, records) = (Arc::new(KeyChanges::new()), Arc::clone(records));
        Ok(Some(SharedNode {
            embeddings,
            embedding_claims,
            shared,
            registry,
            pairs,
            changes,
            state,
            records,
            suspect_after,
        }))
    }

    /// Where the tokens of this node are durable, and go to the others.
    pub fn token_log(&self) -> Arc<dyn TokenLog> {
        let SharedTier { outbox, trust, limit, .. } = &*self.shared;
        let records = Arc::clone(&self.records);
        Arc::new(SharedTokenLog::new(records, Arc::clone(outbox), Arc::clone(trust), *limit))
    }

    /// The tier of embeddings in Redis.
    pub fn embeddings(&self) -> Arc<dyn Tier> {
        Arc::clone(&self.embeddings) as Arc<dyn Tier>
    }

    /// Which node embeds a text, if only one of all is to.
    pub(in crate::cache) fn embedding_claims(&self) -> Option<Arc<EmbeddingClaims>> {
        self.embedding_claims.clone()
    }

    /// The tier of objects and answers in Redis.
    pub fn shared(&self) -> &Arc<SharedTier> {
        &self.shared
    }

    /// The nodes that share the Redis.
    pub fn registry(&self) -> &NodeRegistry {
        &self.registry
    }

    /// The pairs of questions that share no answer at any node.
    pub fn pairs(&self) -> &SharedPairs {
        &self.pairs
    }

    /// Counts the keys that other nodes have changed.
    pub(in crate::cache) fn changes(&self) -> &Arc<KeyChanges> {
        &self.changes
    }

    /// Begins to follow the other nodes, on whose changes these copies depend.
    ///
    /// # Errors
    /// `Io`, `Corrupt` from the small records.
    pub fn follow(
        self,
        tokens: Arc<InvalidationTokens>,
        memory: Arc<MemoryTier>,
        disk: Arc<ObjectTier>,
        metrics: Arc<ReplicationMetrics>,
    ) -> Result<Replication> {
        disk.set_salt(self.state.salt()?);
        let copies = LocalCopies { memory, disk, changes: self.changes };
        Replicator::new(self.shared, tokens, copies, self.state, self.suspect_after, metrics).start()
    }
}
