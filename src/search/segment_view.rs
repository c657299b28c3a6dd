//! One part of a view: a block of rows, and which of them are live.

use std::sync::Arc;

use likewise_index::{Bits, Metric};

use super::block::RowBlock;
use super::document::DocumentRef;
use crate::storage::RowSegment;

/// A block, and which of its rows are live.
#[derive(Debug, Clone)]
pub(super) struct SegmentView {
    pub(super) block: Arc<RowBlock>,
    pub(super) live: Arc<Bits>,
    pub(super) live_rows: usize,
}

impl SegmentView {
    /// All rows of a block.
    pub(super) fn whole(block: RowBlock) -> SegmentView {
        let live = Arc::new(Bits::with_len(block.len(), true));
        SegmentView { live_rows: block.len(), block: Arc::new(block), live }
    }

    /// A segment with its dead rows, one bit each as the manifest keeps them. Rows that cannot be read are dead too;
    /// returns how many.
    pub(super) fn sealed(
        metric: Metric,
        dim: usize,
        segment: Arc<RowSegment>,
        dead: &[u8],
    ) -> (SegmentView, usize) {
        let block = RowBlock::sealed(metric, dim, Arc::clone(&segment));
        let mut live = Bits::with_len(block.len(), true);
        for row in 0..block.len() {
            if dead.get(row / 8).is_some_and(|byte| byte >> (row % 8) & 1 == 1) {
                live.set(row, false);
            }
        }
        let undecoded =
            (0..block.len()).filter(|&row| DocumentRef::decode(block.document_bytes(row)).is_none());
        let unreadable = segment.bad_rows().iter().map(|&row| row as usize).chain(undecoded);
        let before = live.count();
        unreadable.for_each(|row| live.set(row, false));
        let live_rows = live.count();
        (SegmentView { live_rows, live: Arc::new(live), block: Arc::new(block) }, before - live_rows)
    }

    pub(super) fn dead_rows(&self) -> usize {
        self.block.len() - self.live_rows
    }

    pub(super) fn live_rows(&self) -> usize {
        self.live_rows
    }

    pub(super) fn live(&self) -> &Bits {
        &self.live
    }

    /// Its dead rows as the manifest keeps them.
    pub(super) fn dead_bits(&self) -> Vec<u8> {
        if self.dead_rows() == 0 {
            return Vec::new();
        }
        let mut dead = vec![0; self.block.len().div_ceil(8)];
        for row in (0..self.block.len()).filter(|&row| !self.live.get(row)) {
            dead[row / 8] |= 1 << (row % 8);
        }
        dead
    }

    /// Its live rows, in order.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&[f32], &[u8])> + Clone {
        let rows: Vec<usize> = self.live.iter().collect();
        rows.into_iter().map(|row| (self.block.vector(row), self.block.document_bytes(row)))
    }

    pub(super) fn find(&self, id: &str, hash: u64) -> Option<usize> {
        self.block.find(id, hash).find(|&row| self.live.get(row))
    }

    pub(super) fn kill(&mut self, row: usize) {
        // The caller has found the row live.
        Arc::make_mut(&mut self.live).set(row, false);
        self.live_rows -= 1;
    }
}
