//! The metrics of the HTTP server.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;

use crate::cache::CacheMetrics;
use crate::embed::EmbedMetrics;
use crate::labels::label_enum;
use crate::metrics::{ByLabel, Counter, Family, FloatGauge, Gauge, Histogram, ModuleMetrics, Registry};
use crate::service::answers::AnswerMetrics;
use crate::service::collections::QueryMetrics;
use crate::service::embeddings::TextMetrics;
use crate::service::objects::ObjectMetrics;
use crate::upstream::UpstreamMetrics;

label_enum! {
    /// A limit at which the server refuses.
    pub(super) enum LoadLimit {
        /// `http.requests_max`.
        Requests = "requests",
        /// `upstream.requests_max`.
        UpstreamRequests = "upstream_requests",
        /// `http.inflight_bytes_max`.
        Bytes = "bytes",
        /// `embed.queue_texts_max`.
        QueuedTexts = "queued_texts",
        /// `search.searches_queued_max`.
        Searches = "searches",
        /// `http.connections_max`, less where the limit of open files is lower.
        Connections = "connections",
    }
}

/// The metrics of the HTTP server.
#[derive(Debug)]
pub struct HttpMetrics {
    /// Answered requests.
    pub(super) requests: Family<RequestLabels, Counter>,
    /// Seconds from the first byte of a request to its answer.
    pub(super) request_seconds: Histogram,
    /// Requests that are being answered.
    pub(super) requests_in_flight: Gauge,
    /// Open connections.
    pub(super) connections: Gauge,
    /// Connections whose request is being answered, as counted once a second.
    pub(super) connections_busy: Gauge,
    /// Connections that may be open.
    pub(super) connections_max: Gauge,
    /// Connections that were closed to make room for others.
    pub(super) connections_evicted: Counter,
    /// Requests with an unknown API key.
    pub(super) wrong_keys: Counter,
    /// Resident memory of the process.
    pub(super) resident_bytes: Gauge,
    /// The largest of `load_shares`.
    pub(super) load_ratio: FloatGauge,
    /// How much of each limit is in use.
    pub(super) load_shares: ByLabel<LoadLimit, FloatGauge>,
}

/// What `/metrics` exports, and the metrics that `/v1/stats` reads.
pub struct ServerMetrics {
    /// Everything that `/metrics` exports.
    pub registry: Arc<Registry>,
    /// The HTTP server.
    pub http: Arc<HttpMetrics>,
    /// Requested texts.
    pub texts: Arc<TextMetrics>,
    /// Requested objects.
    pub objects: Arc<ObjectMetrics>,
    /// Queries.
    pub queries: Arc<QueryMetrics>,
    /// Requested answers.
    pub answers: Arc<AnswerMetrics>,
    /// The tiers.
    pub cache: Arc<CacheMetrics>,
    /// The model.
    pub embed: Arc<EmbedMetrics>,
    /// The upstreams of answers.
    pub upstream: Arc<UpstreamMetrics>,
}

/// Route and status of an answered request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RequestLabels {
    /// The pattern of the route, never the path of the request.
    pub(super) route: Arc<str>,
    /// The status code.
    pub(super) status: u16,
}

impl ModuleMetrics for HttpMetrics {
    fn register(registry: &mut Registry) -> HttpMetrics {
        HttpMetrics {
            requests: registry.family("http_requests", "Answered HTTP requests", &["route", "status"]),
            request_seconds: registry.seconds("http_request", "Time to answer"),
            requests_in_flight: registry.gauge("http_requests_in_flight", "Requests being answered"),
            connections: registry.gauge("http_connections", "Open connections"),
            connections_busy: registry.gauge(
                "http_connections_busy",
                "Connections whose request is being answered, as counted once a second",
            ),
            connections_max: registry.gauge("http_connections_max", "Connections that may be open"),
            connections_evicted: registry
                .counter("http_connections_evicted", "Connections closed to make room for others"),
            wrong_keys: registry.counter("http_wrong_keys", "Requests with an unknown key"),
            resident_bytes: registry.gauge("resident_memory_bytes", "Resident memory"),
            load_ratio: registry.float_gauge(
                "load_ratio",
                "The largest of the shares of `likewise_load_share`: at 1 the server refuses requests",
            ),
            load_shares: registry.by_label("load_share", "The share of a limit that is in use", "limit"),
        }
    }
}
