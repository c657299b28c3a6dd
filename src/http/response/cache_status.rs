//! The values of the header `Cache-Status` (RFC 9211), in one table.

use std::sync::LazyLock;

use crate::domain::{LookupOutcome, TierName};
use crate::labels::Label as _;

/// Some of the texts or queries of a request were hits.
pub(in crate::http) const PARTIAL: &str = "likewise; fwd=miss; detail=partial";
/// The request demands a call of the upstream (`no-cache`).
pub(in crate::http) const FORCED_REFRESH: &str = "likewise; fwd=request";
/// The upstream failed, and a stale value was served.
pub(in crate::http) const STALE_IF_ERROR: &str = "likewise; fwd=stale";

/// The value for an outcome, to which details may be added.
pub(in crate::http) const fn of(outcome: LookupOutcome) -> &'static str {
    match outcome {
        LookupOutcome::Hit | LookupOutcome::Stale => "likewise; hit",
        LookupOutcome::Miss => "likewise; fwd=miss",
        LookupOutcome::Coalesced => "likewise; fwd=miss; collapsed",
        LookupOutcome::Bypass => "likewise; fwd=bypass",
    }
}

/// The value for hits whose lowest tier is `tier`.
pub(in crate::http) fn hit_in(tier: TierName) -> &'static str {
    static VALUES: LazyLock<Vec<String>> = LazyLock::new(|| {
        TierName::WORDS.iter().map(|tier| format!("likewise; hit; detail={tier}")).collect()
    });
    &VALUES[tier as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_words_of_outcomes_and_tiers() {
        for outcome in [LookupOutcome::Hit, LookupOutcome::Miss, LookupOutcome::Bypass] {
            assert!(of(outcome).ends_with(outcome.as_str()), "{outcome:?}");
        }
        assert!(of(LookupOutcome::Coalesced).starts_with(of(LookupOutcome::Miss)));
        assert_eq!(of(LookupOutcome::Stale), of(LookupOutcome::Hit));
        for tier in TierName::ALL {
            assert_eq!(hit_in(*tier), format!("{}; detail={tier}", of(LookupOutcome::Hit)));
        }
    }
}
