//! Self-attention of one text, head by head, in buffers that stay in the cache.
//!
//! Vaswani et al., "Attention Is All You Need", 2017, section 3.2, without a mask: a text has no padding.

use pulp::Simd;

use crate::lanes::{LANES, Lanes};
use crate::matrix::{Panels, StridedRows, multiply};
use crate::row_ops::exponentials;

/// Rows of queries that are scored at a time: their scores stay in the cache.
const QUERY_ROWS: usize = 48;

/// Added to the scores of lanes without a key: its exponential vanishes beside that of the greatest score, which is 1.
const NO_SCORE: f32 = -1e30;

/// Heads of a hidden state.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    pub(crate) count: usize,
    /// Numbers of a head.
    pub(crate) width: usize,
}

impl Heads {
    pub(crate) fn hidden(self) -> usize {
        self.count * self.width
    }
}

/// Buffers of attention.
#[derive(Default)]
pub(crate) struct AttentionBuffers {
    keys: Panels,
    values: Panels,
    scores: Vec<f32>,
    /// For each row of scores, 1 over the sum of its exponentials.
    shares: Vec<f32>,
}

/// The contexts of the tokens `first ..` of a text, as many as `contexts` has rows.
///
/// Shapes: `projected: length x (query, key, value) x heads x width`, the query scaled by 1 / sqrt(width);
/// `contexts: tokens x heads x width`.
#[inline(always)]
pub(crate) fn attend<S: Simd, const N: usize>(
    simd: S,
    heads: Heads,
    projected: &[f32],
    first: usize,
    contexts: &mut [f32],
    buffers: &mut AttentionBuffers,
) {
    let hidden = heads.hidden();
    let stride = 3 * hidden;
    let length = projected.len() / stride;
    for head in 0..heads.count {
        let at = head * heads.width;
        let part = |at: usize| projected.chunks_exact(stride).map(move |token| &token[at..][..heads.width]);
        buffers.keys.fill_columns(part(hidden + at), heads.width);
        buffers.values.fill_rows(part(2 * hidden + at), heads.width);
        for (block, contexts) in contexts.chunks_mut(QUERY_ROWS * hidden).enumerate() {
            let count = contexts.len() / hidden;
            let first = first + block * QUERY_ROWS;
            let queries =
                StridedRows { values: &projected[first * stride + at..], stride, width: heads.width };
            score::<S, N>(simd, queries, count, length, buffers);
            mix::<S, N>(simd, count, length, heads, at, contexts, buffers);
        }
    }
}

/// The exponentials of the scores of queries and keys.
#[inline(always)]
fn score<S: Simd, const N: usize>(
    simd: S,
    queries: StridedRows<'_>,
    count: usize,
    length: usize,
    buffers: &mut AttentionBuffers,
) {
    let AttentionBuffers { keys, scores, shares, .. } = buffers;
    let stride = length.next_multiple_of(LANES);
    scores.resize(count * stride, 0.0);
    for (n, panel) in keys.iter().enumerate() {
        let first = n * LANES;
        let behind = Lanes::load_part(&[0.0; LANES][..LANES.min(length - first)], NO_SCORE);
        multiply(
            simd,
            queries,
            count,
            panel,
            #[inline(always)]
            |row, sums: Lanes<S, N>| {
                sums.add(simd, behind).store_part(&mut scores[row * stride + first..][..LANES]);
            },
        );
    }
    shares.clear();
    for scores in scores.chunks_exact_mut(stride) {
        shares.push(1.0 / exponentials::<S, N>(simd, scores));
    }
}

/// The means of the values, weighed by the scores.
#[inline(always)]
fn mix<S: Simd, const N: usize>(
    simd: S,
    count: usize,
    length: usize,
    heads: Heads,
    at: usize,
    contexts: &mut [f32],
    buffers: &AttentionBuffers,
) {
    let scores =
        StridedRows { values: &buffers.scores, stride: length.next_multiple_of(LANES), width: length };
    for (n, panel) in buffers.values.iter().enumerate() {
        let first = n * LANES;
        let width = LANES.min(heads.width - first);
        multiply(
            simd,
            scores,
            count,
            panel,
            #[inline(always)]
            |row, sums: Lanes<S, N>| {
                let place = &mut contexts[row * heads.hidden() + at + first..][..width];
                sums.mul(simd, Lanes::splat(simd, buffers.shares[row])).store_part(place);
            },
        );
    }
}
