//! Why the answer to a request has no place in the cache, if the request itself is the reason.

use super::HostedFeature;

/// Why a request bypasses the cache: its answer depends on more than the request says, or does more than answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Uncacheable {
    /// It uses a feature that is not switched on.
    Feature(HostedFeature),
    /// It offers a tool of the upstream's of which nothing is known.
    UnknownTool,
}
