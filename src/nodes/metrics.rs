//! The metrics of nodes.

use crate::labels::label_enum;
use crate::metrics::{ByLabel, Counter, Gauge, ModuleMetrics, Registry};

label_enum! {
    /// What came of a request that was passed on to another node.
    pub(super) enum ForwardOutcome {
        /// The node answered.
        Answered = "answered",
        /// It could not be reached.
        Unreachable = "unreachable",
        /// It did not answer in time.
        TimedOut = "timed_out",
        /// It is away, or has no address, or too many requests waited for other nodes.
        Refused = "refused",
    }
}

/// The metrics of nodes.
#[derive(Debug)]
pub struct NodeMetrics {
    pub(super) nodes: Gauge,
    pub(super) events_behind: Gauge,
    pub(super) warmed_entries: Counter,
    pub(super) forwards: ByLabel<ForwardOutcome, Counter>,
}

impl ModuleMetrics for NodeMetrics {
    fn register(registry: &mut Registry) -> NodeMetrics {
        NodeMetrics {
            nodes: registry
                .gauge("nodes", "Nodes that share the Redis and were seen lately, this one included"),
            events_behind: registry.gauge(
                "redis_events_behind",
                "Changes of other nodes that are in Redis and that this node has yet to apply",
            ),
            forwards: registry.by_label(
                "node_forwards",
                "Requests for collections of other nodes, which are passed on to these",
                "outcome",
            ),
            warmed_entries: registry.counter(
                "node_warmed_entries",
                "Entries that this node took into memory when it began, because other nodes use them most",
            ),
        }
    }
}
