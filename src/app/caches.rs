//! The caches over the stores, which share the memory tier.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::Stores;
use super::metrics::AppMetrics;
use crate::cache::{
    Cache, Freshness, InvalidationTokens, LocalTokenLog, Machine, MemoryTier, NodeRegistry, ObjectTier,
    Replication, SharedNode, SharedPairs, SharedTier, Tier, Tiers, VectorTier,
};
use crate::config::Config;
use crate::domain::Clock;
use crate::error::Result;

/// The caches over the stores, which share the memory tier.
pub(super) struct Caches {
    pub(super) vectors: Arc<Cache>,
    /// Objects and answers.
    pub(super) objects: Arc<Cache>,
    /// Search results, in memory only.
    pub(super) results: Arc<Cache>,
    pub(super) tiers: Arc<Tiers>,
    pub(super) freshness: Freshness,
    pub(super) pressure: Option<JoinHandle<()>>,
    /// What nodes share, if they share a Redis.
    pub(super) shared: Option<Arc<SharedTier>>,
    pub(super) registry: Option<NodeRegistry>,
    pub(super) pairs: Option<SharedPairs>,
    pub(super) replication: Option<Replication>,
}

impl Caches {
    /// Opens the tiers, and the Redis that nodes share if there is one.
    ///
    /// # Errors
    /// `Config`, `Io`, `Corrupt`.
    pub(super) async fn open(
        config: &Config,
        stores: &Stores,
        clock: Arc<dyn Clock>,
        metrics: &AppMetrics,
    ) -> Result<Caches> {
        let options = &config.cache;
        let node =
            SharedNode::open(&config.redis, &stores.records, &clock, &metrics.redis, &metrics.cache).await?;
        let registry = node.as_ref().map(|node| node.registry().clone());
        let pairs = node.as_ref().map(|node| node.pairs().clone());
        let token_log = match &node {
            Some(node) => node.token_log(),
            None => Arc::new(LocalTokenLog::new(Arc::clone(&stores.records))),
        };
        let tokens = InvalidationTokens::open(token_log, options.tags_max(&Machine::read())).await?;
        let tokens = Arc::new(tokens);
        let freshness = Freshness::new(clock, Arc::clone(&tokens));
        let memory = Arc::new(MemoryTier::new(&options.memory, &metrics.cache)?);
        let cache = |below| Cache::new(Arc::clone(&memory), below, freshness.clone());
        let vectors = VectorTier::new(Arc::clone(&stores.vectors), options.disk.bytes_max, &metrics.cache)?;
        let objects =
            ObjectTier::new(Arc::clone(&stores.objects), options.objects.bytes_max, &metrics.cache)?;
        let objects = Arc::new(objects);
        let of_vectors = cache(vec![Arc::new(vectors) as Arc<dyn Tier>]);
        let vectors = Arc::new(match &node {
            Some(node) => of_vectors.of_embeddings(node),
            None => of_vectors,
        });
        let of_objects = cache(vec![Arc::clone(&objects) as Arc<dyn Tier>]);
        let (shared, objects, replication) = match node {
            None => (None, Arc::new(of_objects), None),
            Some(node) => {
                let (shared, cache) = (Arc::clone(node.shared()), Arc::new(of_objects.of_node(&node)));
                let metrics = Arc::clone(&metrics.replication);
                (Some(shared), cache, Some(node.follow(tokens, Arc::clone(&memory), objects, metrics)?))
            }
        };
        let results = Arc::new(cache(Vec::new()));
        let pressure = memory.follows_pressure().then(|| tokio::spawn(follow_pressure(Arc::clone(&memory))));
        let tiers = Arc::new(Tiers::new(memory, vec![Arc::clone(&vectors), Arc::clone(&objects)]));
        Ok(Caches {
            vectors,
            objects,
            results,
            tiers,
            freshness,
            pressure,
            shared,
            registry,
            pairs,
            replication,
        })
    }
}

/// Adapts the memory tier's budget to the free memory, every second.
async fn follow_pressure(memory: Arc<MemoryTier>) {
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    loop {
        seconds.tick().await;
        memory.follow_pressure(&Machine::read());
    }
}
