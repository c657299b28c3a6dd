//! How much of its limits the server uses: what an autoscaler acts on. Computed when it is read; no request pays for it.

use std::sync::Arc;

use serde::Serialize;
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use crate::byte_budget::ByteBudget;
use crate::http::metrics::{HttpMetrics, LoadLimit};
use crate::upstream::Origin;

/// The limits that are not read from other parts.
pub(in crate::http) struct LoadLimits {
    pub(in crate::http) permits: Arc<Semaphore>,
    pub(in crate::http) requests_max: usize,
    pub(in crate::http) budget: Arc<ByteBudget>,
    pub(in crate::http) origin: Option<Arc<dyn Origin>>,
    pub(in crate::http) queue_texts_max: usize,
}

/// Shares of limits in use: from 0 for nothing to 1, at which the server refuses.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(in crate::http) struct LoadStats {
    /// The largest of the others.
    ratio: f64,
    /// Requests that are worked on, of `http.requests_max`; those that wait for an upstream are not counted.
    requests: f64,
    /// Requests under way to upstreams, of `upstream.requests_max`.
    upstream_requests: f64,
    /// Bytes that requests in flight hold, of `http.inflight_bytes_max`.
    bytes: f64,
    /// Texts in the queue of the model that has most, of `embed.queue_texts_max`.
    queued_texts: f64,
    /// Searches that wait or run, of `search.searches_queued_max`.
    searches: f64,
    /// Connections whose request is being answered, of those that may be open; counted once a second.
    connections: f64,
}

impl LoadStats {
    /// The load of this moment. `longest_queue` is that of the model that has most texts, `searches` a share.
    pub(super) fn new(
        limits: &LoadLimits,
        http: &HttpMetrics,
        longest_queue: usize,
        searches: f64,
    ) -> LoadStats {
        let worked_on = limits.requests_max.saturating_sub(limits.permits.available_permits());
        let load = LoadStats {
            ratio: 0.0,
            requests: share(worked_on, limits.requests_max),
            upstream_requests: limits.origin.as_ref().map_or(0.0, |origin| origin.share_under_way()),
            bytes: share(limits.budget.reserved(), limits.budget.limit()),
            queued_texts: share(longest_queue, limits.queue_texts_max),
            searches,
            connections: share(count(http.connections_busy.get()), count(http.connections_max.get())),
        };
        load.with_ratio()
    }

    pub(super) fn ratio(&self) -> f64 {
        self.ratio
    }

    fn shares(&self) -> [(LoadLimit, f64); 6] {
        [
            (LoadLimit::Requests, self.requests),
            (LoadLimit::UpstreamRequests, self.upstream_requests),
            (LoadLimit::Bytes, self.bytes),
            (LoadLimit::QueuedTexts, self.queued_texts),
            (LoadLimit::Searches, self.searches),
            (LoadLimit::Connections, self.connections),
        ]
    }

    fn with_ratio(self) -> LoadStats {
        let ratio = self.shares().into_iter().map(|(_, share)| share).fold(0.0, f64::max);
        LoadStats { ratio, ..self }
    }

    /// Sets the gauges.
    pub(super) fn export(&self, metrics: &HttpMetrics) {
        metrics.load_ratio.set(self.ratio);
        for (limit, share) in self.shares() {
            metrics.load_shares.with(limit).set(share);
        }
    }
}

fn count(gauge: i64) -> usize {
    usize::try_from(gauge).unwrap_or(0)
}

/// Nothing is in use of a limit that is not known yet.
fn share(used: usize, limit: usize) -> f64 {
    if limit == 0 { 0.0 } else { used as f64 / limit as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{ModuleMetrics as _, Registry};

    #[test]
    fn the_ratio_is_the_largest_share_and_each_share_is_exported() {
        let load = LoadStats {
            ratio: 0.0,
            requests: share(1, 4),
            upstream_requests: 0.0,
            bytes: share(3, 4),
            queued_texts: share(5, 10),
            searches: 0.125,
            connections: share(7, 0),
        };
        let mut registry = Registry::new();
        load.with_ratio().export(&HttpMetrics::register(&mut registry));
        let exported = registry.render();
        assert!(exported.contains("likewise_load_ratio 0.75\n"), "{exported}");
        for (limit, share) in
            [("requests", "0.25"), ("bytes", "0.75"), ("searches", "0.125"), ("connections", "0.0")]
        {
            let line = format!("likewise_load_share{{limit=\"{limit}\"}} {share}\n");
            assert!(exported.contains(&line), "no {line} in {exported}");
        }
    }
}
