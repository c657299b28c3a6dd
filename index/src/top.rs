//! The best so far.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::scan::Neighbor;

/// A neighbour ordered so that the worst is the greatest: the lower score, then the later row.
#[derive(Debug, Clone, Copy)]
struct Worst(Neighbor);

impl Ord for Worst {
    fn cmp(&self, other: &Worst) -> Ordering {
        let place = |neighbor: &Neighbor| (neighbor.block, neighbor.row);
        other.0.score.total_cmp(&self.0.score).then_with(|| place(&self.0).cmp(&place(&other.0)))
    }
}

impl PartialOrd for Worst {
    fn partial_cmp(&self, other: &Worst) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Worst {
    fn eq(&self, other: &Worst) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Worst {}

/// The best `k` neighbours so far.
#[derive(Debug)]
pub(crate) struct Top {
    k: usize,
    heap: BinaryHeap<Worst>,
}

impl Top {
    pub(crate) fn new(k: usize) -> Top {
        Top { k, heap: BinaryHeap::with_capacity(k.min(4096) + 1) }
    }

    /// What a score must reach to be among the best, unless its row comes earlier.
    pub(crate) fn threshold(&self) -> f32 {
        match self.heap.peek() {
            Some(worst) if self.heap.len() == self.k => worst.0.score,
            _ => f32::NEG_INFINITY,
        }
    }

    pub(crate) fn push(&mut self, neighbor: Neighbor) {
        self.heap.push(Worst(neighbor));
        if self.heap.len() > self.k {
            self.heap.pop();
        }
    }

    pub(crate) fn extend(&mut self, other: Top) {
        other.heap.into_iter().for_each(|worst| self.push(worst.0));
    }

    /// The neighbours, best first.
    pub(crate) fn into_sorted(self) -> Vec<Neighbor> {
        self.heap.into_sorted_vec().into_iter().map(|worst| worst.0).collect()
    }
}
