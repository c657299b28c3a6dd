//! The metrics of nodes.

use crate::metrics::{Counter, Gauge, ModuleMetrics, Registry};

/// The metrics of nodes.
#[derive(Debug)]
pub struct NodeMetrics {
    pub(super) nodes: Gauge,
    pub(super) events_behind: Gauge,
    pub(super) warmed_entries: Counter,
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
            warmed_entries: registry.counter(
                "node_warmed_entries",
                "Entries that this node took into memory when it began, because other nodes use them most",
            ),
        }
    }
}
