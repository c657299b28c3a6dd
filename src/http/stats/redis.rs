//! How this node stands to Redis, as JSON.

use serde::Serialize;
use utoipa::ToSchema;

use crate::cache::SharedStatus;
use crate::http::label_value::{BreakerLabel, LabelValue};

/// How this node stands to Redis and the other nodes.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct RedisStats {
    /// The id of this node: 16 hexadecimal digits.
    node: String,
    /// `connected`, or `degraded` while Redis does not answer: then entries are served from this node alone.
    #[schema(pattern = "^(connected|degraded)$")]
    state: &'static str,
    /// Whether calls are made.
    breaker: BreakerLabel,
    /// Whether this node is known to have applied all changes of other nodes. While it is not, objects and answers are not served as fresh.
    trusted: bool,
    /// Milliseconds since that was known.
    unverified_ms: u64,
    /// Changes of this node that wait until Redis answers.
    outbox: usize,
}

impl RedisStats {
    pub(in crate::http) fn of(status: SharedStatus) -> RedisStats {
        RedisStats {
            node: format!("{:016x}", status.node),
            state: if status.is_connected { "connected" } else { "degraded" },
            breaker: LabelValue(status.breaker),
            trusted: status.is_trusted,
            unverified_ms: status.unverified_ms,
            outbox: status.outbox,
        }
    }
}
