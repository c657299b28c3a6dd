//! Hits whose question was sent to the upstream too: which ones, and how many answers agreed.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::labels::label_enum;
use crate::matching::calibration::{CONFIDENCE, share_max, share_min};

label_enum! {
    /// What became of a hit whose question was sent to the upstream too.
    pub(in crate::service::answers) enum Reasked {
        /// The two answers agree.
        Agrees = "agrees",
        /// They differ.
        Differs = "differs",
        /// There is no second answer, or the two cannot be compared.
        Failed = "failed",
    }
}

/// The hits whose question was sent to the upstream too, since the start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReaskedAgreement {
    /// Those whose two answers were compared.
    pub compared: u64,
    /// Those whose two answers differ.
    pub differing: u64,
    /// Bounds of the share that differs, each with 90 % confidence.
    pub differing_share: (f64, f64),
}

/// Picks a share of the hits, evenly, and counts what came of them.
///
/// It is an estimate for people, and moves no threshold: a model words its answers in another way each time, and one wrong word does not show, so that the
/// comparison errs more often than any budget allows.
#[derive(Debug)]
pub(super) struct Reasking {
    share: f64,
    hits: AtomicU64,
    compared: AtomicU64,
    differing: AtomicU64,
}

impl Reasking {
    pub(super) fn new(share: f64) -> Reasking {
        Reasking { share, hits: AtomicU64::new(0), compared: AtomicU64::new(0), differing: AtomicU64::new(0) }
    }

    /// Whether the next hit is picked.
    pub(super) fn picks(&self) -> bool {
        let before = self.hits.fetch_add(1, Ordering::Relaxed) as f64;
        ((before + 1.0) * self.share).floor() > (before * self.share).floor()
    }

    pub(super) fn count(&self, agrees: bool) {
        self.differing.fetch_add(u64::from(!agrees), Ordering::Relaxed);
        self.compared.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn agreement(&self) -> ReaskedAgreement {
        let [compared, differing] =
            [&self.compared, &self.differing].map(|counter| counter.load(Ordering::Relaxed));
        let [of, wrong] = [compared, differing].map(|count| usize::try_from(count).unwrap_or(usize::MAX));
        let differing_share = (share_min(wrong, of, CONFIDENCE), share_max(wrong, of, CONFIDENCE));
        ReaskedAgreement { compared, differing, differing_share }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_picked_evenly() {
        for (share, of_hundred) in [(0.0, 0), (0.02, 2), (0.1, 10), (1.0, 100)] {
            let reasking = Reasking::new(share);
            let picked: Vec<bool> = (0..1000).map(|_| reasking.picks()).collect();
            for hundred in picked.chunks(100) {
                let count = hundred.iter().filter(|is_picked| **is_picked).count();
                assert!(count.abs_diff(of_hundred) <= 1, "{share}: {count}");
            }
        }
    }

    #[test]
    fn what_differs_is_counted_with_its_bounds() {
        let reasking = Reasking::new(1.0);
        assert_eq!(reasking.agreement().differing_share, (0.0, 1.0), "nothing is known");
        (0..200).for_each(|number| reasking.count(number % 10 != 0));
        let ReaskedAgreement { compared, differing, differing_share: (low, high) } = reasking.agreement();
        assert_eq!((compared, differing), (200, 20));
        assert!(low > 0.05 && low < 0.1 && high > 0.1 && high < 0.15, "{low} {high}");
    }
}
