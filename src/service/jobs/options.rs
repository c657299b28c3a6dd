//! The options of jobs.

use serde::{Deserialize, Serialize};

/// Limits of jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Jobs that run at the same time; others wait in their order.
    pub running_max: usize,
    /// Jobs of all tenants that wait, run or are paused; more are refused.
    pub active_max: usize,
    /// Jobs that have ended and are still listed; the oldest are forgotten first. One whose thousand errors are listed takes up to 0.7 MB.
    pub ended_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { running_max: 1, active_max: 64, ended_max: 100 }
    }
}
