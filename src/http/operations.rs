//! Probes and numbers for those who run the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use axum::Json;
use axum::extract;
use axum::http::header;
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::cache::{TierName, TierStats, Tiers};
use crate::embed::ModelRegistry;
use crate::error::{Error, Kind};
use crate::http::error_response::{ErrorBody, Problem};
use crate::http::metrics::ServerMetrics;
use crate::http::routes::{Access, Routes};
use crate::service::{Answers, Collections};

/// Where the server stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Parts are being built.
    Starting = 0,
    /// Requests are welcome.
    Ready = 1,
    /// Requests under way are finished, new ones go elsewhere.
    Stopping = 2,
}

/// The state of the server, written by the application and read by the probe. Shared by `Arc`.
#[derive(Debug, Default)]
pub struct Readiness(AtomicU8);

impl Readiness {
    /// Announces a new state.
    pub fn set(&self, state: State) {
        self.0.store(state as u8, Ordering::Release);
    }

    /// The state announced last.
    pub fn get(&self) -> State {
        match self.0.load(Ordering::Acquire) {
            0 => State::Starting,
            1 => State::Ready,
            _ => State::Stopping,
        }
    }
}

/// What the probes and the numbers are read from.
pub(super) struct Operations {
    pub(super) readiness: Arc<Readiness>,
    pub(super) models: Arc<ModelRegistry>,
    pub(super) tiers: Arc<Tiers>,
    pub(super) collections: Arc<Collections>,
    pub(super) answers: Arc<Answers>,
    pub(super) metrics: ServerMetrics,
    pub(super) started: Instant,
}

/// The routes of this feature.
pub(super) fn routes() -> Routes<Arc<Operations>> {
    Routes::new()
        .add_for(Access::Probe, routes!(healthz))
        .add_for(Access::Probe, routes!(readyz))
        .add_for(Access::Monitoring, routes!(metrics))
        .add_for(Access::Monitoring, routes!(stats))
}

/// Whether the process is alive.
#[utoipa::path(get, path = "/healthz", operation_id = "get_health", tag = "operations", responses((status = 200, body = String)))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether requests are welcome.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "get_readiness",
    tag = "operations",
    responses((status = 200, body = String), (status = 503, body = ErrorBody))
)]
pub(super) async fn readyz(
    extract::State(operations): extract::State<Arc<Operations>>,
) -> Result<&'static str, Problem> {
    let unready = |why| Err(Problem(Error::new(Kind::Unavailable, why)));
    match operations.readiness.get() {
        State::Starting => unready("the server is starting"),
        State::Stopping => unready("the server is stopping"),
        State::Ready if !operations.models.embedders().all(|model| model.is_alive()) => {
            unready("the model's thread has died")
        }
        State::Ready => Ok("ready\n"),
    }
}

/// Numbers in OpenMetrics format.
#[utoipa::path(get, path = "/metrics", operation_id = "get_metrics", tag = "operations", responses((status = 200, body = String)))]
pub(super) async fn metrics(
    extract::State(operations): extract::State<Arc<Operations>>,
) -> impl IntoResponse {
    operations.observe();
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], operations.metrics.registry.render())
}

/// The numbers of `/metrics` that matter most, as JSON.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Stats {
    /// Seconds since the server started.
    uptime_seconds: u64,
    /// Version of the server.
    version: &'static str,
    /// The model that embeds.
    model: ModelStats,
    /// Texts asked for, by outcome.
    texts: TextStats,
    /// Objects asked for, by outcome.
    objects: ObjectStats,
    /// Queries searched for, by outcome, and what they were searched in.
    searches: SearchStats,
    /// Answers asked for, by outcome, and what they have cost and saved.
    answers: AnswerStats,
    /// The tiers, memory first.
    tiers: Vec<TierNumbers>,
}

/// Numbers of the model.
#[derive(Debug, Serialize, ToSchema)]
struct ModelStats {
    /// Its name.
    name: String,
    /// Length of its vectors.
    dimensions: usize,
    /// Texts that wait for it.
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

/// Texts asked for, by outcome.
#[derive(Debug, Serialize, ToSchema)]
struct TextStats {
    /// Found in a tier.
    hits: u64,
    /// Embedded for the request that asked.
    misses: u64,
    /// Served by work done for another.
    coalesced: u64,
    /// Hits and coalesced texts among all; 0 before the first.
    saved_ratio: f64,
}

/// Objects asked for, by outcome.
#[derive(Debug, Serialize, ToSchema)]
struct ObjectStats {
    /// Found fresh.
    hits: u64,
    /// Found stale, and served.
    stale: u64,
    /// Not found.
    misses: u64,
    /// Made by another client while the request waited.
    coalesced: u64,
}

/// Queries searched for, by outcome, and what they were searched in.
#[derive(Debug, Serialize, ToSchema)]
struct SearchStats {
    /// Results were cached.
    hits: u64,
    /// Searched for the request that asked.
    misses: u64,
    /// Served by a search for another.
    coalesced: u64,
    /// Collections.
    collections: usize,
    /// Documents in all of them.
    documents: usize,
}

/// Answers asked for, by outcome, and what they have cost and saved.
#[derive(Debug, Serialize, ToSchema)]
struct AnswerStats {
    /// Found fresh.
    hits: u64,
    /// Found stale, and served.
    stale: u64,
    /// Asked for.
    misses: u64,
    /// Served by what was asked for another.
    coalesced: u64,
    /// Asked for without looking.
    bypassed: u64,
    /// Being made now.
    in_flight: usize,
    /// Requests to upstreams that were tried again.
    retries: u64,
    /// Tokens that upstreams have used.
    spent_tokens: u64,
    /// Dollars that these have cost, by the price table.
    spent_usd: f64,
    /// Tokens of answers that no upstream was asked for.
    saved_tokens: u64,
    /// Dollars that these would have cost, by the price table.
    saved_usd: f64,
}

/// Numbers of one tier.
#[derive(Debug, Serialize, ToSchema)]
struct TierNumbers {
    /// Its name.
    tier: &'static str,
    /// Whether it takes part.
    is_on: bool,
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

/// Numbers as JSON.
#[utoipa::path(get, path = "/v1/stats", operation_id = "get_stats", tag = "operations", responses((status = 200, body = Stats)))]
pub(super) async fn stats(extract::State(operations): extract::State<Arc<Operations>>) -> Json<Stats> {
    Json(operations.stats())
}

impl Operations {
    /// Sets the gauges whose values the tiers, the model and the system know.
    fn observe(&self) {
        for (name, stats) in self.tiers.stats() {
            let tier = self.metrics.cache.tier(name);
            tier.entries.set(gauge(stats.entries));
            tier.bytes.set(gauge(stats.bytes));
            tier.is_enabled.set(i64::from(stats.is_on));
        }
        self.metrics.embed.queued_texts.set(gauge(self.queued_texts() as u64));
        self.metrics.http.resident_bytes.set(gauge(crate::metrics::resident_bytes()));
    }

    fn stats(&self) -> Stats {
        Stats {
            uptime_seconds: self.started.elapsed().as_secs(),
            version: env!("CARGO_PKG_VERSION"),
            model: self.model_stats(),
            texts: self.text_stats(),
            objects: self.object_stats(),
            searches: self.search_stats(),
            answers: self.answer_stats(),
            tiers: self.tier_numbers(),
        }
    }

    /// Texts that wait for any model.
    fn queued_texts(&self) -> usize {
        self.models.embedders().map(|model| model.queued()).sum()
    }

    fn model_stats(&self) -> ModelStats {
        let (card, metrics) = (self.models.default_model().card(), &self.metrics.embed);
        ModelStats {
            name: card.name.clone(),
            dimensions: card.dim,
            queued_texts: self.queued_texts(),
            batches: metrics.batches.get(),
            embedded_texts: metrics.embedded_texts.get(),
            embedded_tokens: metrics.embedded_tokens.get(),
            dropped_texts: metrics.dropped_texts.get(),
        }
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

    fn search_stats(&self) -> SearchStats {
        let metrics = &self.metrics.queries;
        let collections = self.collections.list();
        let documents = collections.iter().flat_map(|(_, collection)| collection);
        SearchStats {
            hits: metrics.hits.get(),
            misses: metrics.misses.get(),
            coalesced: metrics.coalesced.get(),
            documents: documents.map(|collection| collection.view().documents()).sum(),
            collections: collections.len(),
        }
    }

    fn answer_stats(&self) -> AnswerStats {
        let metrics = &self.metrics.answers;
        AnswerStats {
            hits: metrics.hits.get(),
            stale: metrics.stale.get(),
            misses: metrics.misses.get(),
            coalesced: metrics.coalesced.get(),
            bypassed: metrics.bypassed.get(),
            in_flight: self.answers.in_flight(),
            retries: self.metrics.upstream.retries.get(),
            spent_tokens: metrics.spent_tokens.get(),
            spent_usd: metrics.spent_usd.get(),
            saved_tokens: metrics.saved_tokens.get(),
            saved_usd: metrics.saved_usd.get(),
        }
    }

    fn tier_numbers(&self) -> Vec<TierNumbers> {
        let numbers = |(name, stats): (TierName, TierStats)| {
            let metrics = self.metrics.cache.tier(name);
            TierNumbers {
                tier: name.as_str(),
                is_on: stats.is_on,
                entries: stats.entries,
                bytes: stats.bytes,
                bytes_max: stats.bytes_max,
                hits: metrics.hits.get(),
                misses: metrics.misses.get(),
                evictions: metrics.evictions.get(),
                errors: metrics.errors.get(),
            }
        };
        self.tiers.stats().into_iter().map(numbers).collect()
    }
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
