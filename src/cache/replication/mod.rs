//! What nodes that share a Redis know of each other's changes.
//!
//! Contains: until when this node is known to have seen all changes. Must not contain: commands of Redis, or an opinion
//! on whether an entry may be served.

mod trust;

pub use trust::Trust;
