//! Whether an entry that is still fresh is refreshed already: by chance, and the more likely the nearer the end of its freshness is.
//!
//! The rule is XFetch of Vattani, Chierichetti and Lowenstein, "Optimal probabilistic cache stampede prevention" (VLDB 2015): refresh if
//! `now - delta * beta * ln(U) >= end`, with `U` uniform in (0, 1]. `delta` is how long the entry took to make, which it stores: the call of the
//! upstream, or the time that a client had the lease. So a request that arrives `left` seconds before the end refreshes with the probability
//! `exp(-left / (delta * beta))`: an entry that is asked for often has a successor before it is stale, and one that is seldom asked for costs
//! nothing.

use tokio::time::Instant;

/// The largest `-ln(U)` that is drawn: `U` has 53 bits.
const LOG_MAX: f64 = 36.8;
const MICROSECONDS_PER_SECOND: f64 = 1e6;

/// The rule with its factor and its random numbers.
pub(in crate::service) struct EarlyRefresh {
    beta: f64,
    /// Draws `U`.
    uniform: Box<dyn Fn() -> f64 + Send + Sync>,
}

impl EarlyRefresh {
    /// A factor of 0 refreshes nothing early.
    pub(in crate::service) fn new(beta: f64) -> EarlyRefresh {
        EarlyRefresh { beta, uniform: Box::new(uniform) }
    }

    /// Whether an entry that took `cost_us` microseconds to make is to be refreshed `left_seconds` before it is stale.
    /// Draws a random number only if that is not nearly impossible.
    pub(in crate::service) fn is_due(&self, cost_us: u32, left_seconds: u32) -> bool {
        let scale = self.beta * f64::from(cost_us) / MICROSECONDS_PER_SECOND;
        let left = f64::from(left_seconds);
        left <= scale * LOG_MAX && scale > 0.0 && -(self.uniform)().ln() * scale >= left
    }
}

/// The time since a computation began, as entries store it: at least one microsecond.
pub(in crate::service) fn cost_us_since(began: Instant) -> u32 {
    u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX).max(1)
}

/// A number in (0, 1]. A machine without random numbers refreshes nothing early.
fn uniform() -> f64 {
    getrandom::u64().map_or(1.0, |bits| ((bits >> 11) + 1) as f64 / (1_u64 << 53) as f64)
}

#[cfg(test)]
impl EarlyRefresh {
    /// The rule with `uniform` in the place of random numbers.
    pub(in crate::service) fn drawing(
        beta: f64,
        uniform: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> EarlyRefresh {
        EarlyRefresh { beta, uniform: Box::new(uniform) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Sebastiano Vigna's SplitMix64, from a fixed seed.
    fn seeded() -> impl Fn() -> f64 {
        let state = AtomicU64::new(7);
        move || {
            let mut z = state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (((z ^ (z >> 31)) >> 11) + 1) as f64 / (1_u64 << 53) as f64
        }
    }

    #[test]
    fn the_share_of_early_refreshes_is_the_computed_one() {
        const DRAWS: u32 = 200_000;
        for (beta, cost_us, left_seconds) in
            [(1.0, 2_000_000, 2), (1.0, 2_000_000, 10), (2.0, 500_000, 1), (0.5, 8_000_000, 3), (1.0, 4, 0)]
        {
            let rule = EarlyRefresh::drawing(beta, seeded());
            let due = (0..DRAWS).filter(|_| rule.is_due(cost_us, left_seconds)).count();
            let expected = (-f64::from(left_seconds) / (beta * f64::from(cost_us) / 1e6)).exp();
            let share = due as f64 / f64::from(DRAWS);
            // Five standard deviations.
            let tolerance = 5.0 * (expected * (1.0 - expected) / f64::from(DRAWS)).sqrt();
            assert!((share - expected).abs() <= tolerance, "{beta} {cost_us} {left_seconds}: {share}");
        }
    }

    #[test]
    fn nothing_is_drawn_for_what_is_hardly_possible_or_switched_off() {
        let drawing = |beta| EarlyRefresh::drawing(beta, || panic!("a number is drawn"));
        assert!(!drawing(1.0).is_due(1_000_000, 60));
        assert!(!drawing(1.0).is_due(0, 0), "no upstream was asked for it");
        assert!(!drawing(0.0).is_due(u32::MAX, 1));
    }

    #[test]
    fn random_numbers_are_in_range() {
        assert!((0..1000).map(|_| uniform()).all(|u| u > 0.0 && u <= 1.0));
    }
}
