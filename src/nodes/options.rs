//! The options of nodes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::transport::check_address;
use crate::error::{Error, Kind, Result};

/// Options of the nodes that share a Redis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The address at which other nodes reach this one. Without it they refuse requests for its collections.
    pub advertise: Option<String>,
    /// How often a node announces itself.
    pub heartbeat_ms: u64,
    /// After how long without a sign of it a node is forgotten, with what it had.
    pub forget_after_seconds: u64,
    /// For opening a connection to another node.
    pub connect_ms_max: u64,
    /// For the head of another node's answer, and for each next piece of it.
    pub forward_ms_max: u64,
    /// Requests that wait for other nodes at the same time; one more gets 429.
    pub forwards_max: usize,
    /// Keys that a node publishes as those that it uses most, and that a node looks for when it begins; 0 for none.
    pub warm_keys_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            advertise: None,
            heartbeat_ms: 1000,
            forget_after_seconds: 86_400,
            connect_ms_max: 1000,
            forward_ms_max: 60_000,
            forwards_max: 256,
            warm_keys_max: 2000,
        }
    }
}

/// Within this time a node whose Redis is back has found that out, and has announced itself.
const RECOVERED_WITHIN: Duration = Duration::from_secs(5);
/// Announcements that a node may miss before it counts as away.
const MISSED_MAX: u32 = 3;

impl Options {
    /// Checks the values.
    ///
    /// # Errors
    /// `Config`, naming the key.
    pub fn validate(&self) -> Result<()> {
        self.advertise.as_deref().map_or(Ok(()), check_address)?;
        between("nodes.connect_ms_max", self.connect_ms_max, 1, 60_000)?;
        between("nodes.forward_ms_max", self.forward_ms_max, 1, 3_600_000)?;
        between("nodes.forwards_max", self.forwards_max as u64, 1, 1 << 20)?;
        between("nodes.warm_keys_max", self.warm_keys_max as u64, 0, 10_000)?;
        between("nodes.heartbeat_ms", self.heartbeat_ms, 10, 60_000)?;
        let heartbeats_seconds = self.alive_within().as_secs() + 1;
        between(
            "nodes.forget_after_seconds",
            self.forget_after_seconds,
            heartbeats_seconds,
            u64::from(u32::MAX),
        )
    }

    pub(super) fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms)
    }

    /// A node that was silent for longer counts as away.
    pub(super) fn alive_within(&self) -> Duration {
        self.heartbeat() * MISSED_MAX
    }

    /// For how long after a loss Redis may lack what nodes have.
    pub(super) fn recovered_within(&self) -> Duration {
        self.alive_within().max(RECOVERED_WITHIN)
    }

    pub(super) fn forget_after(&self) -> Duration {
        Duration::from_secs(self.forget_after_seconds)
    }
}

fn between(key: &str, value: u64, min: u64, max: u64) -> Result<()> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(Error::new(Kind::Config, format!("{key} must be {min} to {max}, got {value}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_not_forgotten_while_it_counts_as_there() {
        let with = |heartbeat_ms, forget_after_seconds| {
            Options { heartbeat_ms, forget_after_seconds, ..Options::default() }.validate()
        };
        assert!(with(1000, 86_400).is_ok() && with(1000, 4).is_ok());
        for (heartbeat_ms, forget_after_seconds) in [(1000, 3), (0, 86_400), (60_001, 86_400)] {
            assert_eq!(with(heartbeat_ms, forget_after_seconds).unwrap_err().kind(), Kind::Config);
        }
    }
}
