//! The metrics of upstreams.

use prometheus_client::encoding::EncodeLabelSet;

use crate::metrics::{Counter, Family, ModuleMetrics, Registry};

/// The metrics of upstreams.
#[derive(Debug)]
pub struct UpstreamMetrics {
    /// Retries of requests.
    pub retries: Counter,
    /// Lists of models that an upstream did not give.
    pub(super) failed_model_lists: Counter,
    replies: Family<StatusLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    status: u16,
}

impl ModuleMetrics for UpstreamMetrics {
    fn register(registry: &mut Registry) -> UpstreamMetrics {
        UpstreamMetrics {
            retries: registry.counter("upstream_retries", "Retries of requests"),
            failed_model_lists: registry.counter(
                "upstream_failed_model_lists",
                "Lists of models that an upstream did not give; /v1/models had only those of the configuration",
            ),
            replies: registry.family(
                "upstream_replies",
                "Attempts, by the status of the reply; 0 if there was none",
                &["status"],
            ),
        }
    }
}

impl UpstreamMetrics {
    /// Counts an attempt by the status of its reply; 0 if there was no reply.
    pub(super) fn count_reply(&self, status: u16) {
        self.replies.get_or_create(&StatusLabels { status }).inc();
    }
}
