//! The row of a scenario, and what of it fails the gate.

use super::history::Micros;
use super::judge::Verdicts;

/// The share of hits that may be stale and unflagged.
const STALE_SHARE_MAX: f64 = 0.01;

impl Verdicts {
    pub(super) fn stale_share(&self) -> f64 {
        self.stale.len() as f64 / self.hits.max(1) as f64
    }

    /// The time at or below which a share of the stale values had been stale, in milliseconds.
    fn stale_ms(&self, share: f64) -> f64 {
        let place = ((self.stale.len() as f64 * share).ceil() as usize).saturating_sub(1);
        self.stale.get(place).map_or(0.0, |age: &Micros| *age as f64 / 1_000.0)
    }

    /// What fails the gate.
    pub(super) fn faults(&self) -> Vec<String> {
        let counts = [
            ("stale after the suspicion time", self.stale_late),
            ("reads that went back", self.went_back),
            ("own writes missed", self.own_write_missed),
            ("lost compare-and-sets", self.lost_sets),
            ("foreign values", self.foreign),
            ("keys that diverged", self.diverged),
        ];
        let found = counts.iter().filter(|(_, count)| *count > 0);
        let mut faults = Vec::from_iter(found.map(|(what, count)| format!("{count} {what}")));
        if self.stale_share() >= STALE_SHARE_MAX {
            faults.push(format!("{:.2} % of the hits stale and unflagged", self.stale_share() * 100.0));
        }
        if !faults.is_empty() {
            faults.extend(self.examples.iter().cloned());
        }
        faults
    }

    /// A row of the table of `docs/consistency.md`.
    pub(super) fn row(&self, scenario: &str) -> String {
        let percentiles = [0.5, 0.95, 0.99, 1.0].map(|share| format!("{:.1}", self.stale_ms(share)));
        format!(
            "| {scenario} | {} | {} | {:.3} % | {} | {} | {} | {} | {} | {} | {} | {} |",
            self.reads,
            self.hits,
            self.stale_share() * 100.0,
            percentiles.join(" / "),
            self.stale_late,
            self.flagged,
            self.failed_reads,
            self.went_back,
            self.own_write_missed,
            self.lost_sets,
            self.diverged,
        )
    }
}
