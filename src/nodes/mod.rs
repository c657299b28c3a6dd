//! The nodes that share a Redis: which there are, what each has, and which of them has a collection.
//!
//! Contains: what a node announces, what it knows of the others, and the transport of requests from node to node. Must not
//! contain: commands of Redis, routes, or an opinion on entries. The one idea: what is known of other nodes is a hint, except where a
//! collection is: a node that cannot find that out says so.

mod directory;
mod metrics;
mod options;
mod places;
mod report;
mod transport;
mod warm_up;

pub use directory::{LocalNode, NodeStatus, Nodes};
pub use metrics::NodeMetrics;
pub use options::Options;
pub use places::{CollectionOwner, CollectionPlace, on_other_node};
pub use report::NodeNumbers;
pub use transport::{FORWARDED_BY, NodeReply, NodeRequest};
