//! `/v1/stats`: the metrics that matter most, typed. They are read from the counters that `/metrics` exports.

mod by_name;
mod load;
mod redis;
mod semantic;
mod separated_misses;

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use utoipa::ToSchema;

use self::by_name::{ModelLookups, NamespaceStats};
pub(super) use self::load::LoadLimits;
use self::load::LoadStats;
pub(super) use self::redis::RedisStats;
use self::semantic::SemanticStats;
use self::separated_misses::SeparatedMissStats;
use crate::cache::{SharedTier, TierStats, Tiers};
use crate::domain::{Principal, TenantId, TierName};
use crate::embed::ModelRegistry;
use crate::http::label_value::{LabelValue, TierLabel};
use crate::http::metrics::ServerMetrics;
use crate::nodes::{LocalNode, NodeNumbers};
use crate::service::{Answers, Collections, Embeddings, Listing};

/// The parts that statistics are read from.
pub(super) struct Statistics {
    pub(super) models: Arc<ModelRegistry>,
    pub(super) tiers: Arc<Tiers>,
    /// What nodes share, if they share a Redis.
    pub(super) shared: Option<Arc<SharedTier>>,
    pub(super) collections: Arc<Collections>,
    pub(super) answers: Arc<Answers>,
    pub(super) embeddings: Arc<Embeddings>,
    pub(super) listing: Arc<Listing>,
    pub(super) metrics: ServerMetrics,
    pub(super) limits: LoadLimits,
    pub(super) started: Instant,
}

/// The metrics that matter most, as JSON.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Stats {
    /// Seconds since the server started.
    uptime_seconds: u64,
    /// Version of the server.
    version: &'static str,
    /// How much of its limits the server uses.
    load: LoadStats,
    /// The model that embeds, unless the server has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    model: Option<ModelStats>,
    /// Requested texts, by outcome.
    texts: TextStats,
    /// Requested objects, by outcome.
    objects: ObjectStats,
    /// Queries, by outcome, and the collections.
    searches: SearchStats,
    /// Requested answers, by outcome, with their cost and savings.
    answers: AnswerStats,
    /// Lookups and entries by namespace, of 256 names at most; the last element is that of all others.
    namespaces: Vec<NamespaceStats>,
    /// Requests by the model that they name, of 256 names at most each; the last element of each list is that of all others.
    models: ModelLookups,
    /// The tiers, memory first.
    tiers: Vec<TierNumbers>,
    /// How this node stands to Redis, if one is configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    redis: Option<RedisStats>,
}

/// Statistics of the model.
#[derive(Debug, Serialize, ToSchema)]
struct ModelStats {
    /// Its name.
    name: String,
    /// Length of its vectors.
    dimensions: usize,
    /// Texts in its queue.
    queued_texts: usize,
    /// Forward passes.
    batches: u64,
    /// Texts embedded.
    embedded_texts: u64,
    /// Tokens read.
    embedded_tokens: u64,
    /// Texts dropped unstarted because no client waited for them any more.
    dropped_texts: u64,
}

/// Requested texts, by outcome.
#[derive(Debug, Serialize, ToSchema)]
struct TextStats {
    /// Found in a tier.
    hits: u64,
    /// Embedded for the request.
    misses: u64,
    /// Embedded for another request.
    coalesced: u64,
    /// Hits and coalesced texts among all; 0 before the first.
    saved_ratio: f64,
}

/// Requested objects, by outcome.
#[derive(Debug, Serialize, ToSchema)]
struct ObjectStats {
    /// Found fresh.
    hits: u64,
    /// Found stale, and served.
    stale: u64,
    /// Not found.
    misses: u64,
    /// Stored by another client while the request waited.
    coalesced: u64,
}

/// Queries, by outcome, and the collections.
#[derive(Debug, Serialize, ToSchema)]
struct SearchStats {
    /// Results were cached.
    hits: u64,
    /// Searched for the request.
    misses: u64,
    /// Searched for another request.
    coalesced: u64,
    /// Collections.
    collections: usize,
    /// Documents in all of them.
    documents: usize,
}

/// Requested answers, by outcome, with their cost and savings.
#[derive(Debug, Serialize, ToSchema)]
struct AnswerStats {
    /// Found fresh.
    hits: u64,
    /// Found stale, and served.
    stale: u64,
    /// Generated for the request.
    misses: u64,
    /// Generated for another request.
    coalesced: u64,
    /// The cache was bypassed.
    bypassed: u64,
    /// The members that separated most misses from the nearest stored request of the same caller.
    separated_misses: Vec<SeparatedMissStats>,
    /// Searches for questions in other words.
    semantic: SemanticStats,
    /// Generations in flight.
    in_flight: usize,
    /// Retries of requests to upstreams.
    retries: u64,
    /// Tokens that upstreams have used.
    spent_tokens: u64,
    /// Dollars that these have cost, by the price table.
    spent_usd: f64,
    /// Tokens served from the cache instead of the upstream.
    saved_tokens: u64,
    /// Dollars that these would have cost, by the price table.
    saved_usd: f64,
}

/// Statistics of one tier.
#[derive(Debug, Serialize, ToSchema)]
struct TierNumbers {
    /// Its name.
    tier: TierLabel,
    /// Whether it is enabled; a failure disables it until the next start.
    is_enabled: bool,
    /// Entries held.
    entries: u64,
    /// Bytes held.
    bytes: u64,
    /// Its budget in bytes.
    bytes_max: u64,
    /// Lookups that it answered.
    hits: u64,
    /// Lookups that it could not answer.
    misses: u64,
    /// Entries removed to keep the budget.
    evictions: u64,
    /// Failures that were answered as misses.
    errors: u64,
}

/// Lookups by outcome.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(super) struct LookupNumbers {
    /// Found in the cache, fresh or stale.
    pub(super) hits: u64,
    /// Computed for another request at the same time.
    pub(super) coalesced: u64,
    /// Not found.
    pub(super) misses: u64,
}

impl Statistics {
    /// Sets the gauges whose values the tiers, the model and the system know.
    pub(super) fn observe(&self) {
        for (name, stats) in self.tiers.stats() {
            let tier = self.metrics.cache.tier(name);
            tier.entries.set(gauge(stats.entries));
            tier.bytes.set(gauge(stats.bytes));
            tier.is_enabled.set(i64::from(stats.is_on));
        }
        if let Some(reported) = self.answers.reported_wrong() {
            self.metrics.answers.wrong_share_low.set(reported.share.0);
            self.metrics.answers.wrong_share_high.set(reported.share.1);
        }
        if let Some(reasked) = self.answers.reasked() {
            self.metrics.answers.differing_share_low.set(reasked.differing_share.0);
            self.metrics.answers.differing_share_high.set(reasked.differing_share.1);
        }
        self.metrics.embed.queued_texts.set(gauge(self.queued_texts() as u64));
        self.load().export(&self.metrics.http);
        self.metrics.http.resident_bytes.set(gauge(crate::metrics::resident_bytes()));
    }

    /// The statistics of this moment.
    pub(super) fn read(&self, principal: &Principal) -> Stats {
        Stats {
            uptime_seconds: self.started.elapsed().as_secs(),
            version: env!("CARGO_PKG_VERSION"),
            load: self.load(),
            model: self.model_stats(),
            texts: self.text_stats(),
            objects: self.object_stats(),
            searches: self.search_stats(principal),
            answers: self.answer_stats(&principal.tenant),
            namespaces: self.listing.statistics(principal).into_iter().map(NamespaceStats::of).collect(),
            models: ModelLookups::of(&principal.tenant, &self.embeddings, &self.answers),
            tiers: self.tier_stats(),
            redis: self.redis(),
        }
    }

    /// Lookups of texts, answers, objects and queries.
    pub(super) fn lookups(&self) -> [LookupNumbers; 4] {
        let (texts, answers, objects, searches) =
            (&self.metrics.texts, &self.metrics.answers, &self.metrics.objects, &self.metrics.queries);
        [
            LookupNumbers {
                hits: texts.hits.get(),
                coalesced: texts.coalesced.get(),
                misses: texts.misses.get(),
            },
            LookupNumbers {
                hits: answers.hits.get() + answers.stale.get(),
                coalesced: answers.coalesced.get(),
                misses: answers.misses.get(),
            },
            LookupNumbers {
                hits: objects.hits.get() + objects.stale.get(),
                coalesced: objects.coalesced.get(),
                misses: objects.misses.get(),
            },
            LookupNumbers {
                hits: searches.hits.get(),
                coalesced: searches.coalesced.get(),
                misses: searches.misses.get(),
            },
        ]
    }

    fn load(&self) -> LoadStats {
        let longest_queue = self.models.embedders().map(|model| model.queued()).max().unwrap_or(0);
        let searches = self.collections.share_of_searches();
        LoadStats::new(&self.limits, &self.metrics.http, longest_queue, searches)
    }

    /// How this node stands to Redis, if one is configured.
    pub(super) fn redis(&self) -> Option<RedisStats> {
        self.shared.as_ref().map(|shared| RedisStats::of(shared.status()))
    }

    /// Texts in the queues of all models.
    fn queued_texts(&self) -> usize {
        self.models.embedders().map(|model| model.queued()).sum()
    }

    fn model_stats(&self) -> Option<ModelStats> {
        let (card, metrics) = (self.models.default_model().ok()?.card(), &self.metrics.embed);
        Some(ModelStats {
            name: card.name.clone(),
            dimensions: card.dim,
            queued_texts: self.queued_texts(),
            batches: metrics.batches.get(),
            embedded_texts: metrics.embedded_texts.get(),
            embedded_tokens: metrics.embedded_tokens.get(),
            dropped_texts: metrics.dropped_texts.get(),
        })
    }

    fn text_stats(&self) -> TextStats {
        let metrics = &self.metrics.texts;
        let (hits, misses, coalesced) = (metrics.hits.get(), metrics.misses.get(), metrics.coalesced.get());
        let all = hits + misses + coalesced;
        let saved_ratio = if all == 0 { 0.0 } else { (hits + coalesced) as f64 / all as f64 };
        TextStats { hits, misses, coalesced, saved_ratio }
    }

    fn object_stats(&self) -> ObjectStats {
        let metrics = &self.metrics.objects;
        ObjectStats {
            hits: metrics.hits.get(),
            stale: metrics.stale.get(),
            misses: metrics.misses.get(),
            coalesced: metrics.coalesced.get(),
        }
    }

    fn search_stats(&self, principal: &Principal) -> SearchStats {
        let metrics = &self.metrics.queries;
        let collections = self.collections.list(principal);
        let documents = collections.iter().flat_map(|(_, collection)| collection);
        SearchStats {
            hits: metrics.hits.get(),
            misses: metrics.misses.get(),
            coalesced: metrics.coalesced.get(),
            documents: documents.map(|collection| collection.view().documents()).sum(),
            collections: collections.len(),
        }
    }

    fn answer_stats(&self, tenant: &TenantId) -> AnswerStats {
        let metrics = &self.metrics.answers;
        AnswerStats {
            hits: metrics.hits.get(),
            stale: metrics.stale.get(),
            misses: metrics.misses.get(),
            coalesced: metrics.coalesced.get(),
            bypassed: metrics.bypassed.get(),
            separated_misses: SeparatedMissStats::most(tenant, &self.answers),
            semantic: SemanticStats::of(&self.answers, &self.metrics.answers),
            in_flight: self.answers.in_flight(),
            retries: self.metrics.upstream.retries.get(),
            spent_tokens: metrics.spent_tokens.get(),
            spent_usd: metrics.spent_usd.get(),
            saved_tokens: metrics.saved_tokens.get(),
            saved_usd: metrics.saved_usd.get(),
        }
    }

    fn tier_stats(&self) -> Vec<TierNumbers> {
        let read = |(name, stats): (TierName, TierStats)| {
            let metrics = self.metrics.cache.tier(name);
            TierNumbers {
                tier: LabelValue(name),
                is_enabled: stats.is_on,
                entries: stats.entries,
                bytes: stats.bytes,
                bytes_max: stats.bytes_max,
                hits: metrics.hits.get(),
                misses: metrics.misses.get(),
                evictions: metrics.evictions.get(),
                errors: metrics.errors.get(),
            }
        };
        self.tiers.stats().into_iter().map(read).collect()
    }
}

impl LocalNode for Statistics {
    fn numbers(&self) -> NodeNumbers {
        let memory = self.tiers.stats().into_iter().find(|(name, _)| *name == TierName::Memory);
        let (entries, memory_bytes) = memory.map_or((0, 0), |(_, stats)| (stats.entries, stats.bytes));
        NodeNumbers {
            entries,
            memory_bytes,
            collections: self.collections.names().len() as u64,
            load_ratio: self.load().ratio(),
        }
    }

    fn collections(&self) -> Vec<(TenantId, String)> {
        self.collections.names()
    }
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
