//! What nodes that share a Redis do so that each knows the others' changes.
//!
//! Contains: until when this node is known to have applied all changes, the changes of its own that wait, and what must not be kept or
//! dropped meanwhile. Must not contain: commands of Redis, or an opinion on whether an entry may be served.

mod durable_cursor;
mod inflight_writes;
mod key_changes;
mod key_events;
mod metrics;
mod node;
mod node_state;
mod outbox;
mod replicator;
mod sender;
mod shared_leases;
mod shared_tier;
mod shared_token_log;
mod token_positions;
mod trust;
mod waiting_invalidations;
mod waiting_keys;

pub(in crate::cache) use key_changes::KeyChanges;
pub use key_events::KeyEvent;
pub use metrics::ReplicationMetrics;
pub use node::SharedNode;
pub use replicator::Replication;
pub(in crate::cache) use shared_tier::Published;
pub use shared_tier::{SharedStatus, SharedTier};
pub use trust::Trust;
