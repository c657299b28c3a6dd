//! The scores of pairs.

use ndarray::{Array2, ArrayView2};

use crate::kernels::{self, Rows};
use crate::metric::Metric;

/// One pair's score: the same bits as every scan of this crate gives for that pair on this machine. Another instruction
/// set may add in another order, and differ by rounding.
///
/// A sum that overflows so that it is not a number scores minus infinity.
///
/// # Panics
/// If the lengths differ.
pub fn score(metric: Metric, query: &[f32], row: &[f32]) -> f32 {
    let mut score = [0.0];
    kernels::scores(metric, Rows::one(query), Rows::one(row), &mut score);
    score[0]
}

/// Scores of every query against every row, on the calling thread; bit-equal to [`score`].
///
/// Shapes: `queries` q x dim, `rows` n x dim, returns q x n.
///
/// # Panics
/// If the dimensions differ, or the components of a vector do not lie side by side.
pub fn scores(metric: Metric, queries: ArrayView2<'_, f32>, rows: ArrayView2<'_, f32>) -> Array2<f32> {
    let shape = (queries.nrows(), rows.nrows());
    let mut scores = vec![0.0; shape.0 * shape.1];
    kernels::scores(metric, Rows::new(&queries), Rows::new(&rows), &mut scores);
    Array2::from_shape_vec(shape, scores).expect("one score a pair: this is a bug")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_vectors_are_at_distance_zero() {
        let score = score(Metric::L2, &[1.5, -2.0, 3.0], &[1.5, -2.0, 3.0]);
        assert_eq!(score.to_bits(), 0.0_f32.to_bits());
    }

    #[test]
    fn a_score_that_is_no_number_ranks_last() {
        let (huge, mixed) = ([f32::MAX, f32::MAX], [f32::MAX, f32::MIN]);
        assert_eq!(score(Metric::InnerProduct, &huge, &mixed), f32::NEG_INFINITY);
    }
}
