//! Which caller computes an answer, where applications ask their model themselves: one at a time.

use std::time::Duration;

use crate::cache::{Claim, Leases, Stamp};
use crate::domain::Key;
use crate::service::early_refresh::cost_us_since;

/// How long the others rely on the caller that computes an answer. It may have died.
const LASTS: Duration = Duration::from_secs(60);
/// Answers that are computed at a time, each by one known caller.
const ANSWERS_MAX: usize = 65_536;

/// The answers that are being computed by their callers. No lease of these is presented: an answer is stored without one.
pub(super) struct Recomputation {
    leases: Leases,
}

impl Default for Recomputation {
    fn default() -> Recomputation {
        Recomputation { leases: Leases::new(ANSWERS_MAX) }
    }
}

impl Recomputation {
    /// Whether a caller is to compute the answer of `key`: no other one is doing so. `if_unknown` where too many answers are computed to know.
    pub(super) fn begin(&self, key: Key, if_unknown: bool) -> bool {
        let claim = self.leases.claim(key, LASTS, Stamp::default());
        claim.map_or(if_unknown, |claim| matches!(claim, Claim::Granted(_)))
    }

    /// How long the caller that computes the answer of `key` has taken so far, in microseconds. 0 if there is none.
    pub(super) fn cost_us(&self, key: &Key) -> u32 {
        self.leases.since(key).map_or(0, cost_us_since)
    }

    /// The answer of `key` is stored.
    pub(super) fn end(&self, key: &Key) {
        self.leases.end(key);
    }
}
