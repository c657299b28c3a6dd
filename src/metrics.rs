//! Every metric of the server: its name, unit, labels and buckets, in one list.
//!
//! Rooms receive an `Arc<Metrics>` and count; none invents a name. The handles can be read back, so the numbers of
//! `/v1/stats` and of `/metrics` are the same numbers. Counters get the suffix `_total` when they are exported.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Route and status of an answered HTTP request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The route's pattern, never the path as it was sent.
    pub route: Arc<str>,
    /// The status code.
    pub status: u16,
}

/// A storage level.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TierLabels {
    /// `memory` or `disk`.
    pub tier: &'static str,
}

/// How a lookup ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// `hit`, `stale`, `miss`, `coalesced` or `bypass`.
    pub outcome: &'static str,
}

/// How entries were hidden.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ModeLabels {
    /// `hard` or `soft`.
    pub mode: &'static str,
}

/// What went wrong, by its stable name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabels {
    /// The code of the error's kind.
    pub kind: &'static str,
}

/// What kept an index from being built.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CauseLabels {
    /// `refused`, `memory`, `time`, `crash`, `interrupted`, `recorded` or `system`.
    pub cause: &'static str,
}

/// How an upstream replied.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StatusLabels {
    /// The status code; 0 where there was no reply.
    pub status: u16,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabels {
    /// One word of a fixed list.
    pub reason: &'static str,
}

/// All metrics. Cheap to share, and each field may be used from any thread.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// HTTP requests answered.
    pub requests: Family<RequestLabels, Counter>,
    /// Seconds from the first byte of a request to its answer.
    pub request_seconds: Histogram,
    /// Requests being answered now.
    pub requests_in_flight: Gauge,
    /// Bytes that requests in flight have reserved.
    pub inflight_bytes: Gauge,
    /// Reservations of bytes that were refused.
    pub inflight_refused: Counter,
    /// Connections that are open.
    pub connections: Gauge,
    /// Connections that were closed to make room for others.
    pub connections_evicted: Counter,
    /// Requests with an API key that is not known.
    pub wrong_keys: Counter,
    /// Texts asked for, by outcome.
    pub texts: Family<OutcomeLabels, Counter>,
    /// Objects asked for, by outcome.
    pub objects: Family<OutcomeLabels, Counter>,
    /// Invalidations.
    pub invalidations: Family<ModeLabels, Counter>,
    /// Lookups that a tier answered.
    pub tier_hits: Family<TierLabels, Counter>,
    /// Lookups that a tier could not answer.
    pub tier_misses: Family<TierLabels, Counter>,
    /// Entries in a tier.
    pub tier_entries: Family<TierLabels, Gauge>,
    /// Bytes that a tier holds against its budget.
    pub tier_bytes: Family<TierLabels, Gauge>,
    /// Entries that a tier removed to keep its budget.
    pub tier_evictions: Family<TierLabels, Counter>,
    /// Failures of a tier that were answered as misses.
    pub tier_errors: Family<TierLabels, Counter>,
    /// 1 while a tier takes part, 0 once it has been turned off.
    pub tier_is_on: Family<TierLabels, Gauge>,
    /// Slots on disk whose checksum, salt or position did not hold.
    pub bad_slots: Counter,
    /// Searches, by outcome.
    pub searches: Family<OutcomeLabels, Counter>,
    /// Rows of collections whose checksum did not hold.
    pub bad_rows: Counter,
    /// Steps of tidying up a collection that failed.
    pub compaction_errors: Counter,
    /// Indexes built.
    pub index_builds: Counter,
    /// Indexes that could not be built, or opened from their snapshot.
    pub index_errors: Counter,
    /// Indexes that could not be built, by what kept them from it.
    pub index_failures: Family<CauseLabels, Counter>,
    /// The share of the exact results that a search by index found, of searches that were sampled.
    pub recall: Histogram,
    /// Segments that were sealed because a write or a flush failed.
    pub failed_segments: Counter,
    /// Forward passes of a local model, or calls of a remote one.
    pub batches: Counter,
    /// Texts in each pass.
    pub batch_texts: Histogram,
    /// Texts that a model has embedded.
    pub embedded_texts: Counter,
    /// Tokens that a model has read.
    pub embedded_tokens: Counter,
    /// Seconds that each pass took.
    pub inference_seconds: Histogram,
    /// Texts waiting for a model.
    pub queued_texts: Gauge,
    /// Texts dropped before they were started because nobody waited for them any more.
    pub dropped_texts: Counter,
    /// Requests to a remote model that were tried again.
    pub upstream_retries: Counter,
    /// Attempts at an upstream of answers, by how it replied.
    pub upstream_replies: Family<StatusLabels, Counter>,
    /// Answers asked for, by outcome.
    pub answers: Family<OutcomeLabels, Counter>,
    /// Answers that were found only because the question was joined with another spelling of it.
    pub answers_joined: Counter,
    /// Answers that were made and not kept, by reason.
    pub answers_not_kept: Family<ReasonLabels, Counter>,
    /// Answers whose making was stopped because nobody waited for them any more.
    pub answers_abandoned: Counter,
    /// Tokens that upstreams have used.
    pub spent_tokens: Counter,
    /// Dollars that upstreams have cost, by the price table.
    pub spent_usd: Counter<f64, AtomicU64>,
    /// Tokens of answers that nobody was asked for.
    pub saved_tokens: Counter,
    /// Dollars that these would have cost, by the price table.
    pub saved_usd: Counter<f64, AtomicU64>,
    /// Background failures, by kind.
    pub background_errors: Family<KindLabels, Counter>,
    /// Resident memory of the process.
    pub resident_bytes: Gauge<u64, AtomicU64>,
}

impl Metrics {
    /// All metrics, registered and at zero.
    #[expect(
        clippy::new_without_default,
        reason = "a second instance is a second registry: say so at the call"
    )]
    pub fn new() -> Metrics {
        let mut registry = Registry::with_prefix("likewise");
        let r = &mut registry;
        let seconds = || Histogram::new(exponential_buckets(0.000_1, 2.0, 20));
        Metrics {
            requests: register(r, "http_requests", "HTTP requests answered", Family::default()),
            request_seconds: register_with(r, "http_request", "Time to answer", Unit::Seconds, seconds()),
            requests_in_flight: register(
                r,
                "http_requests_in_flight",
                "Requests being answered",
                Gauge::default(),
            ),
            inflight_bytes: register(
                r,
                "inflight_bytes",
                "Bytes reserved by requests in flight",
                Gauge::default(),
            ),
            inflight_refused: register(
                r,
                "inflight_refused",
                "Reservations of bytes that were refused",
                Counter::default(),
            ),
            connections: register(r, "http_connections", "Connections that are open", Gauge::default()),
            connections_evicted: register(
                r,
                "http_connections_evicted",
                "Connections closed to make room for others",
                Counter::default(),
            ),
            wrong_keys: register(r, "http_wrong_keys", "Requests with an unknown key", Counter::default()),
            texts: register(r, "texts", "Texts asked for", Family::default()),
            objects: register(r, "objects", "Objects asked for", Family::default()),
            invalidations: register(r, "invalidations", "Invalidations", Family::default()),
            tier_hits: register(r, "tier_hits", "Lookups that a tier answered", Family::default()),
            tier_misses: register(
                r,
                "tier_misses",
                "Lookups that a tier could not answer",
                Family::default(),
            ),
            tier_entries: register(r, "tier_entries", "Entries in a tier", Family::default()),
            tier_bytes: register(r, "tier_size_bytes", "Bytes held against the budget", Family::default()),
            tier_evictions: register(
                r,
                "tier_evictions",
                "Entries removed for the budget",
                Family::default(),
            ),
            tier_errors: register(r, "tier_errors", "Failures answered as misses", Family::default()),
            tier_is_on: register(r, "tier_is_on", "1 while a tier takes part", Family::default()),
            bad_slots: register(r, "disk_bad_slots", "Slots that failed verification", Counter::default()),
            searches: register(r, "searches", "Queries searched for", Family::default()),
            bad_rows: register(r, "collection_bad_rows", "Rows that failed verification", Counter::default()),
            compaction_errors: register(
                r,
                "collection_compaction_errors",
                "Steps of tidying up that failed",
                Counter::default(),
            ),
            index_builds: register(r, "collection_index_builds", "Indexes built", Counter::default()),
            index_errors: register(
                r,
                "collection_index_errors",
                "Indexes not built, or not opened",
                Counter::default(),
            ),
            index_failures: register(
                r,
                "collection_index_failures",
                "Indexes not built, by cause",
                Family::default(),
            ),
            recall: register(
                r,
                "recall_at_k",
                "Share of the exact results that the index found",
                Histogram::new([0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999]),
            ),
            failed_segments: register(
                r,
                "disk_failed_segments",
                "Segments sealed by a failure",
                Counter::default(),
            ),
            batches: register(r, "batches", "Forward passes", Counter::default()),
            batch_texts: register(
                r,
                "batch_texts",
                "Texts in a pass",
                Histogram::new(exponential_buckets(1.0, 2.0, 12)),
            ),
            embedded_texts: register(r, "embedded_texts", "Texts embedded by the model", Counter::default()),
            embedded_tokens: register(r, "embedded_tokens", "Tokens read by the model", Counter::default()),
            inference_seconds: register_with(r, "inference", "Time of a pass", Unit::Seconds, seconds()),
            queued_texts: register(r, "queued_texts", "Texts waiting for the model", Gauge::default()),
            dropped_texts: register(r, "dropped_texts", "Texts dropped unstarted", Counter::default()),
            upstream_retries: register(r, "upstream_retries", "Requests tried again", Counter::default()),
            upstream_replies: register(r, "upstream_replies", "Attempts, by reply", Family::default()),
            answers: register(r, "answers", "Answers asked for", Family::default()),
            answers_joined: register(
                r,
                "answers_joined",
                "Answers found under another spelling of the question",
                Counter::default(),
            ),
            answers_not_kept: register(r, "answers_not_kept", "Answers made and not kept", Family::default()),
            answers_abandoned: register(
                r,
                "answers_abandoned",
                "Answers that nobody waited for any more",
                Counter::default(),
            ),
            spent_tokens: register(r, "answers_spent_tokens", "Tokens that were used", Counter::default()),
            spent_usd: register(r, "answers_spent_usd", "Dollars that were spent", Counter::default()),
            saved_tokens: register(r, "answers_saved_tokens", "Tokens not used again", Counter::default()),
            saved_usd: register(r, "answers_saved_usd", "Dollars not spent again", Counter::default()),
            background_errors: register(r, "background_errors", "Background failures", Family::default()),
            resident_bytes: register(r, "resident_memory_bytes", "Resident memory", Gauge::default()),
            registry,
        }
    }

    /// The metrics in OpenMetrics text format, as `/metrics` serves them.
    pub fn render(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .expect("writing to a string cannot fail: this is a bug");
        text
    }
}

fn register<M>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M
where
    M: Clone + prometheus_client::registry::Metric,
{
    registry.register(name, help, metric.clone());
    metric
}

fn register_with<M>(registry: &mut Registry, name: &str, help: &str, unit: Unit, metric: M) -> M
where
    M: Clone + prometheus_client::registry::Metric,
{
    registry.register_with_unit(name, help, unit, metric.clone());
    metric
}

/// Metrics that nothing exports, for tests and for commands that do not serve.
pub fn unexported() -> Arc<Metrics> {
    Arc::new(Metrics::new())
}

/// Resident memory of this process in bytes, from `/proc/self/statm` (proc(5)); 0 where there is none.
pub fn resident_bytes() -> u64 {
    const PAGE_BYTES: u64 = 4096;
    let Ok(text) = fs_err::read_to_string("/proc/self/statm") else { return 0 };
    text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * PAGE_BYTES
}
