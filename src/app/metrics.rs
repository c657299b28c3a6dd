//! The metrics of all modules, in one registry.

use std::sync::Arc;

use crate::byte_budget::BudgetMetrics;
use crate::cache::warm_restart::WarmRestartMetrics;
use crate::cache::{CacheMetrics, RedisMetrics, ReplicationMetrics};
use crate::domain::TierName;
use crate::embed::EmbedMetrics;
use crate::http::{HttpMetrics, ServerMetrics};
use crate::metrics::{MetricDescription, ModuleMetrics, Registry};
use crate::nodes::NodeMetrics;
use crate::search::SearchMetrics;
use crate::service::answers::AnswerMetrics;
use crate::service::collections::QueryMetrics;
use crate::service::embeddings::TextMetrics;
use crate::service::invalidation::InvalidationMetrics;
use crate::service::jobs::JobMetrics;
use crate::service::objects::ObjectMetrics;
use crate::storage::StorageMetrics;
use crate::upstream::UpstreamMetrics;

/// The metrics of all modules.
pub(super) struct AppMetrics {
    registry: Arc<Registry>,
    http: Arc<HttpMetrics>,
    pub(super) budget: Arc<BudgetMetrics>,
    pub(super) texts: Arc<TextMetrics>,
    pub(super) objects: Arc<ObjectMetrics>,
    pub(super) queries: Arc<QueryMetrics>,
    pub(super) answers: Arc<AnswerMetrics>,
    pub(super) invalidations: Arc<InvalidationMetrics>,
    pub(super) jobs: Arc<JobMetrics>,
    pub(super) cache: Arc<CacheMetrics>,
    pub(super) warm_restart: Arc<WarmRestartMetrics>,
    pub(super) redis: Arc<RedisMetrics>,
    pub(super) replication: Arc<ReplicationMetrics>,
    pub(super) nodes: Arc<NodeMetrics>,
    pub(super) storage: Arc<StorageMetrics>,
    pub(super) search: Arc<SearchMetrics>,
    pub(super) embed: Arc<EmbedMetrics>,
    pub(super) upstream: Arc<UpstreamMetrics>,
}

impl AppMetrics {
    /// Registers the metrics of every module.
    pub(super) fn register() -> AppMetrics {
        let mut registry = Registry::new();
        let cache = CacheMetrics::register(&mut registry);
        let evictions = cache.tier(TierName::Disk).evictions;
        AppMetrics {
            http: of_module(&mut registry),
            budget: of_module(&mut registry),
            texts: of_module(&mut registry),
            objects: of_module(&mut registry),
            queries: of_module(&mut registry),
            answers: of_module(&mut registry),
            invalidations: of_module(&mut registry),
            jobs: of_module(&mut registry),
            cache: Arc::new(cache),
            warm_restart: of_module(&mut registry),
            redis: of_module(&mut registry),
            replication: of_module(&mut registry),
            nodes: of_module(&mut registry),
            storage: Arc::new(StorageMetrics::register(&mut registry).with_evictions(evictions)),
            search: of_module(&mut registry),
            embed: of_module(&mut registry),
            upstream: of_module(&mut registry),
            registry: Arc::new(registry),
        }
    }

    pub(super) fn descriptions(&self) -> Vec<MetricDescription> {
        self.registry.descriptions().to_vec()
    }

    /// The metrics that the HTTP server counts and exports.
    pub(super) fn of_server(&self) -> ServerMetrics {
        ServerMetrics {
            registry: Arc::clone(&self.registry),
            http: Arc::clone(&self.http),
            texts: Arc::clone(&self.texts),
            objects: Arc::clone(&self.objects),
            queries: Arc::clone(&self.queries),
            answers: Arc::clone(&self.answers),
            cache: Arc::clone(&self.cache),
            embed: Arc::clone(&self.embed),
            upstream: Arc::clone(&self.upstream),
        }
    }
}

fn of_module<M: ModuleMetrics>(registry: &mut Registry) -> Arc<M> {
    Arc::new(M::register(registry))
}
