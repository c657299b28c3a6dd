//! The k best of what was seen.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::atomic::{self, AtomicU32};

use crate::neighbor::Neighbor;

/// A neighbour in the order of results: a smaller one comes first.
struct Ranked(Neighbor);

impl Ord for Ranked {
    fn cmp(&self, other: &Ranked) -> Ordering {
        let (a, b) = (&self.0, &other.0);
        // Scores are numbers; zeros of either sign are equal.
        let by_score = b.score.partial_cmp(&a.score).unwrap_or(Ordering::Equal);
        by_score.then_with(|| (a.block, a.row).cmp(&(b.block, b.row)))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Ranked) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Ranked) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ranked {}

/// The k best neighbours among those offered, for a k of at least 1.
pub(crate) struct TopK {
    k: usize,
    /// The worst on top.
    heap: BinaryHeap<Ranked>,
}

impl TopK {
    pub(crate) fn new(k: usize) -> TopK {
        TopK { k, heap: BinaryHeap::new() }
    }

    pub(crate) fn offer(&mut self, neighbor: Neighbor) {
        let neighbor = Ranked(neighbor);
        if self.heap.len() < self.k {
            self.heap.push(neighbor);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && neighbor < *worst
        {
            *worst = neighbor;
        }
    }

    /// What scores less than this is not among the k best.
    pub(crate) fn threshold(&self) -> f32 {
        let worst = self.heap.peek().filter(|_| self.heap.len() == self.k);
        worst.map_or(f32::NEG_INFINITY, |worst| worst.0.score)
    }

    /// The k best, best first.
    pub(crate) fn into_sorted(self) -> Vec<Neighbor> {
        self.heap.into_sorted_vec().into_iter().map(|ranked| ranked.0).collect()
    }
}

/// A score that the k-th best of a query has at least, which the threads that search for it raise together.
pub(crate) struct SharedThreshold(AtomicU32);

impl SharedThreshold {
    pub(crate) fn new() -> SharedThreshold {
        SharedThreshold(AtomicU32::new(ordered(f32::NEG_INFINITY)))
    }

    pub(crate) fn get(&self) -> f32 {
        // Relaxed: an old value is lower, which costs time and no result.
        let bits = self.0.load(atomic::Ordering::Relaxed);
        f32::from_bits(if bits & SIGN == 0 { !bits } else { bits ^ SIGN })
    }

    pub(crate) fn raise(&self, score: f32) {
        self.0.fetch_max(ordered(score), atomic::Ordering::Relaxed);
    }
}

const SIGN: u32 = 1 << 31;

/// The bits of a number such that larger numbers have larger bits.
fn ordered(score: f32) -> u32 {
    let bits = score.to_bits();
    if bits & SIGN == 0 { bits | SIGN } else { !bits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_thresholds_rise_and_never_fall() {
        let shared_threshold = SharedThreshold::new();
        let steps = [(-5.0, -5.0), (-7.0, -5.0), (-0.5, -0.5), (1e-40, 1e-40), (0.0, 1e-40), (3.0, 3.0)];
        for (raise, expected) in steps {
            shared_threshold.raise(raise);
            assert_eq!(shared_threshold.get(), expected);
        }
    }

    #[test]
    fn ties_go_to_the_lower_row_whatever_came_first() {
        let mut best = TopK::new(2);
        for (block, row, score) in [(1, 0, 0.0), (0, 9, -0.0), (0, 2, 0.0), (0, 3, -1.0)] {
            best.offer(Neighbor { block, row, score });
        }
        let rows: Vec<u32> = best.into_sorted().iter().map(|neighbor| neighbor.row).collect();
        assert_eq!(rows, [2, 9]);
    }
}
