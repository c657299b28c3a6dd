//! The metrics of replication.

use crate::metrics::{Counter, Gauge, Histogram, ModuleMetrics, Registry};

/// The metrics of replication.
#[derive(Debug)]
pub struct ReplicationMetrics {
    /// Events that were applied.
    pub events: Counter,
    /// From the moment when Redis had a change of another node until it was applied here.
    pub lag: Histogram,
    /// Times that the log did not continue.
    pub gaps: Counter,
    /// Changes that wait in the outbox.
    pub outbox: Gauge,
    /// Whether local copies are trusted.
    pub is_trusted: Gauge,
}

impl ModuleMetrics for ReplicationMetrics {
    fn register(registry: &mut Registry) -> ReplicationMetrics {
        ReplicationMetrics {
            events: registry.counter("redis_events_applied", "Changes of all nodes that this node has applied"),
            lag: registry.seconds(
                "invalidation_lag",
                "Time from the moment when Redis had a change of another node until this node had applied it",
            ),
            gaps: registry.counter(
                "redis_gaps",
                "Times that changes of other nodes were lost, and all objects and answers of this node were hidden",
            ),
            outbox: registry.gauge("redis_outbox_entries", "Changes of this node that wait until Redis is reachable"),
            is_trusted: registry.gauge(
                "redis_is_trusted",
                "1 while this node is known to have applied all changes of other nodes, or has no Redis",
            ),
        }
    }
}
