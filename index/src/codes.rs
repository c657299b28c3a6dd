//! int8 codes of rows, and how far a score by codes can be from the score.
//!
//! A row `x` is stored as `scale * c` with whole `c` from -127 to 127, a query `q` likewise with 16 bits. With `x'` and
//! `q'` for what the codes stand for, Cauchy and Schwarz bound the error of the integer sum:
//!
//! ```text
//! |q.x - q'.x'| <= |q| |x - x'| + |q - q'| |x'|,    |x'| <= |x| + |x - x'|
//! ```
//!
//! `|x - x'|` is stored for each row. What f32 rounds, in the score itself (at most `dim` additions in any order: Higham,
//! "Accuracy and Stability of Numerical Algorithms", 2002, section 3.1) and in the bound, is below
//! `1.01 * (dim + 128) * 2^-24 * |q| |x|`, or `(|q| + |x|)^2` in place of the last two for the distance; what underflows
//! is below 2^-125. The search adds all three, so that its bounds are bounds and not estimates.

use std::ops::Range;

use ndarray::ArrayView2;

use crate::Metric;
use crate::kernels::{self, CODES_MULTIPLE};
use crate::neighbor::Neighbor;
use crate::top_k::TopK;

/// Codes of a row go from minus this to this.
const ROW_LEVEL: f32 = 127.0;
/// Norms above this could overflow a square or a product; such vectors are compared in f32 only.
const NORM_MAX: f64 = 1e18;
/// Vectors whose largest component is below this get zeros for codes: a factor to the codes would overflow.
const COMPONENT_MIN: f32 = 1e-30;
/// Under the cosine all rows are this long at most.
const UNIT_MAX: f32 = 1.0001;
/// The dimension up to which the bound of the rounding errors holds.
const DIM_MAX: usize = 65_536;
/// Norms are rounded up by this share, which covers what f32 rounds in the products that they enter.
const ROUNDED_UP: f64 = 1.0 + 1e-6;
/// What a sum of products can lose by underflow.
const UNDERFLOW_MAX: f32 = 2.0 * f32::MIN_POSITIVE;
/// Rows whose sums are computed before they are looked at.
const STRIP_ROWS: usize = 128;
/// 1.5 * 2^23: added to a small number, it leaves the nearest whole number in the last bits.
const TO_WHOLE: f32 = 12_582_912.0;

/// int8 codes of rows for one metric; they make a search read a quarter of the bytes, and leave its result as it is.
#[derive(Clone, Debug)]
pub struct Codes {
    metric: Metric,
    dim: usize,
    stride: usize,
    codes: Vec<i8>,
    scales: Vec<f32>,
    /// Norm of what the codes leave of a row; infinite for rows that only f32 may compare.
    residuals: Vec<f32>,
    /// Norms of the rows; empty under the cosine, where they are 1.
    norms: Vec<f32>,
}

/// The codes of some rows one after another.
#[derive(Clone, Copy, Debug)]
pub struct CodesView<'a> {
    metric: Metric,
    dim: usize,
    stride: usize,
    codes: &'a [i8],
    scales: &'a [f32],
    residuals: &'a [f32],
    norms: &'a [f32],
}

impl Codes {
    /// No rows yet, which will have `dim` components.
    ///
    /// # Panics
    /// If `dim` is 0 or above 65,536.
    pub fn new(metric: Metric, dim: usize) -> Codes {
        assert!((1..=DIM_MAX).contains(&dim), "codes of dimension {dim}");
        let stride = dim.next_multiple_of(CODES_MULTIPLE);
        let (codes, scales, residuals, norms) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Codes { metric, dim, stride, codes, scales, residuals, norms }
    }

    /// Appends a row that has passed [`Metric::prepare`].
    ///
    /// # Panics
    /// If the row has another dimension.
    pub fn push(&mut self, row: &[f32]) {
        assert_eq!(row.len(), self.dim, "a row of another dimension");
        let from = self.codes.len();
        self.codes.resize(from + self.stride, 0);
        let norm = norm(row.iter().map(|&x| f64::from(x)));
        let norm_max = match self.metric {
            Metric::Cosine => f64::from(UNIT_MAX),
            Metric::InnerProduct | Metric::L2 => NORM_MAX,
        };
        let is_comparable = norm <= norm_max;
        let (scale, residual) = if is_comparable {
            encode(row, &mut self.codes[from..from + self.dim])
        } else {
            (0.0, f32::INFINITY)
        };
        self.scales.push(scale);
        self.residuals.push(residual);
        match self.metric {
            Metric::Cosine => {}
            Metric::InnerProduct | Metric::L2 => {
                self.norms.push(if is_comparable { round_up(norm) } else { 0.0 })
            }
        }
    }

    /// Appends rows, n x dim, that have passed [`Metric::prepare`].
    ///
    /// # Panics
    /// If the rows have another dimension, or their components do not lie side by side.
    pub fn extend(&mut self, rows: ArrayView2<'_, f32>) {
        self.codes.reserve(rows.nrows() * self.stride);
        let rows = kernels::Rows::new(&rows);
        (0..rows.len()).for_each(|row| self.push(rows.row(row)));
    }

    /// Removes a row; the last row takes its place.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn swap_remove(&mut self, row: usize) {
        let last = self.len() - 1;
        let codes = last * self.stride..(last + 1) * self.stride;
        self.codes.copy_within(codes, row * self.stride);
        self.codes.truncate(last * self.stride);
        self.scales.swap_remove(row);
        self.residuals.swap_remove(row);
        if !self.norms.is_empty() {
            self.norms.swap_remove(row);
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.scales.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.scales.is_empty()
    }

    /// Bytes of memory that the rows take, spare capacity included: for a row its dimension rounded up to a multiple of 32,
    /// and 8 bytes, or 12 for another metric than the cosine.
    pub fn memory_bytes(&self) -> usize {
        let floats = self.scales.capacity() + self.residuals.capacity() + self.norms.capacity();
        self.codes.capacity() + floats * size_of::<f32>()
    }

    /// All rows, without a copy.
    pub fn view(&self) -> CodesView<'_> {
        let (metric, dim, stride) = (self.metric, self.dim, self.stride);
        let (codes, scales, residuals, norms) = (&self.codes, &self.scales, &self.residuals, &self.norms);
        CodesView { metric, dim, stride, codes, scales, residuals, norms }
    }
}

impl<'a> CodesView<'a> {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.scales.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.scales.is_empty()
    }

    /// The rows of a range.
    ///
    /// # Panics
    /// If some of them do not exist.
    pub fn slice(&self, range: Range<usize>) -> CodesView<'a> {
        let norms = if self.norms.is_empty() { self.norms } else { &self.norms[range.clone()] };
        CodesView {
            codes: &self.codes[range.start * self.stride..range.end * self.stride],
            scales: &self.scales[range.clone()],
            residuals: &self.residuals[range],
            norms,
            ..*self
        }
    }

    /// The k rows nearest to a query by their codes alone, best first; ties go to the lower row, and `block` is 0.
    ///
    /// The scores are those of the codes: for the vectors of embedding models under the cosine, some 0.001 off. Cost: `dim` + 8 bytes a row
    /// read, on the calling thread.
    ///
    /// # Panics
    /// If the query has another dimension.
    pub fn nearest(&self, query: &QueryCodes, k: usize) -> Vec<Neighbor> {
        if k == 0 {
            return Vec::new();
        }
        let (mut best, mut sums) = (TopK::new(k), [0; STRIP_ROWS]);
        for start in (0..self.len()).step_by(STRIP_ROWS) {
            let rows = start..self.len().min(start + STRIP_ROWS);
            let sums = &mut sums[..rows.len()];
            self.offer(query, rows, sums, &mut best);
        }
        best.into_sorted()
    }

    /// As [`CodesView::nearest`], of some rows alone.
    ///
    /// # Panics
    /// As [`CodesView::nearest`], or if a row does not exist.
    pub fn nearest_of(&self, query: &QueryCodes, rows: &[u32], k: usize) -> Vec<Neighbor> {
        if k == 0 {
            return Vec::new();
        }
        let mut best = TopK::new(k);
        for &row in rows {
            self.offer(query, row as usize..row as usize + 1, &mut [0], &mut best);
        }
        best.into_sorted()
    }

    /// Offers rows by their codes. `sums` has room for one of each.
    fn offer(&self, query: &QueryCodes, rows: Range<usize>, sums: &mut [i32], best: &mut TopK) {
        assert_eq!(query.dim, self.dim, "a query of another dimension");
        let (start, strip) = (rows.start, self.slice(rows));
        strip.sums(&query.codes, sums);
        for (row, &sum) in sums.iter().enumerate() {
            let score = strip.score(&query.coded, sum, row);
            if score > best.threshold() {
                best.offer(Neighbor { block: 0, row: (start + row) as u32, score });
            }
        }
    }

    /// The score of a query and a row by their codes.
    fn score(&self, query: &CodedQuery, sum: i32, row: usize) -> f32 {
        let (scale, residual) = (self.scales[row], self.residuals[row]);
        match self.metric {
            Metric::Cosine => query.product(sum, scale, residual, UNIT_MAX).0,
            Metric::InnerProduct => query.product(sum, scale, residual, self.norms[row]).0,
            Metric::L2 => query.distance(sum, scale, residual, self.norms[row]).0,
        }
    }

    pub(crate) fn metric(&self) -> Metric {
        self.metric
    }

    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    /// Sums of products with the codes of queries: `out` is queries x rows.
    pub(crate) fn sums(&self, queries: &[i16], out: &mut [i32]) {
        kernels::code_sums(queries, self.codes, self.stride, out);
    }

    /// What the scores of a query are at most, from the sums of its codes with those of the rows. What cannot be bounded
    /// is infinite or not a number.
    pub(crate) fn upper_bounds(&self, query: &CodedQuery, sums: &[i32], out: &mut [f32]) {
        let rows = sums.iter().zip(self.scales).zip(self.residuals).zip(out);
        match self.metric {
            Metric::Cosine => rows.for_each(|(((&sum, &scale), &residual), out)| {
                let (near, error) = query.product(sum, scale, residual, UNIT_MAX);
                *out = near + error;
            }),
            Metric::InnerProduct => {
                rows.zip(self.norms).for_each(|((((&sum, &scale), &residual), out), &norm)| {
                    let (near, error) = query.product(sum, scale, residual, norm);
                    *out = near + error;
                });
            }
            Metric::L2 => rows.zip(self.norms).for_each(|((((&sum, &scale), &residual), out), &norm)| {
                let (near, error) = query.distance(sum, scale, residual, norm);
                *out = near + error;
            }),
        }
    }

    /// What the score of a query and a row is at least.
    pub(crate) fn lower_bound(&self, query: &CodedQuery, sum: i32, row: usize) -> f32 {
        let (scale, residual) = (self.scales[row], self.residuals[row]);
        let (near, error) = match self.metric {
            Metric::Cosine => query.product(sum, scale, residual, UNIT_MAX),
            Metric::InnerProduct => query.product(sum, scale, residual, self.norms[row]),
            Metric::L2 => query.distance(sum, scale, residual, self.norms[row]),
        };
        let bound = near - error;
        if bound.is_nan() { f32::NEG_INFINITY } else { bound }
    }
}

/// A query with its codes, for [`CodesView::nearest`].
#[derive(Debug)]
pub struct QueryCodes {
    dim: usize,
    coded: CodedQuery,
    codes: Vec<i16>,
}

impl QueryCodes {
    /// Of a query that has passed [`Metric::prepare`]. `None` for one that only f32 may compare.
    pub fn new(query: &[f32]) -> Option<QueryCodes> {
        let mut codes = Vec::new();
        let coded = CodedQuery::new(query, &mut codes)?;
        Some(QueryCodes { dim: query.len(), coded, codes })
    }
}

/// What the codes of a query, of 16 bits, stand for.
#[derive(Debug)]
pub(crate) struct CodedQuery {
    scale: f32,
    norm: f32,
    residual: f32,
    /// Share of a product of norms that rounding can take.
    rounding: f32,
}

impl CodedQuery {
    /// Appends the codes of a query to `codes`, padded as those of the rows are; nothing if only f32 may compare it.
    pub(crate) fn new(query: &[f32], codes: &mut Vec<i16>) -> Option<CodedQuery> {
        let exact_norm = norm(query.iter().map(|&x| f64::from(x)));
        if exact_norm.is_nan() || exact_norm > NORM_MAX {
            return None;
        }
        let stride = query.len().next_multiple_of(CODES_MULTIPLE);
        let level = level(stride);
        let largest = largest(query);
        let is_coded = largest >= COMPONENT_MIN;
        let scale = if is_coded { largest / level } else { 0.0 };
        let factor = if is_coded { level / largest } else { 0.0 };
        let from = codes.len();
        codes.extend(query.iter().map(|x| (x * factor).round_ties_even().clamp(-level, level) as i16));
        codes.resize(from + stride, 0);
        let rest =
            query.iter().zip(&codes[from..]).map(|(&x, &c)| f64::from(x) - f64::from(scale) * f64::from(c));
        let rounding = 1.01 * (query.len() + 128) as f32 * (f32::EPSILON / 2.0);
        Some(CodedQuery { scale, norm: round_up(exact_norm), residual: round_up(norm(rest)), rounding })
    }

    /// The product by codes, and what it can be off by; not a number where a row cannot be compared.
    #[inline(always)]
    fn product(&self, sum: i32, scale: f32, residual: f32, norm: f32) -> (f32, f32) {
        let error = self.product_error(residual, norm) + self.rounding * self.norm * norm + UNDERFLOW_MAX;
        (sum as f32 * self.scale * scale, error)
    }

    /// Minus the squared distance by codes, and what it can be off by.
    #[inline(always)]
    fn distance(&self, sum: i32, scale: f32, residual: f32, norm: f32) -> (f32, f32) {
        let product = sum as f32 * self.scale * scale;
        let reach = self.norm + norm;
        let error = 2.0 * self.product_error(residual, norm) + self.rounding * reach * reach + UNDERFLOW_MAX;
        (2.0 * product - self.norm * self.norm - norm * norm, error)
    }

    #[inline(always)]
    fn product_error(&self, residual: f32, norm: f32) -> f32 {
        self.norm * residual + self.residual * (norm + residual)
    }
}

/// Writes a row's codes, and returns their scale and the norm of what they leave.
fn encode(row: &[f32], codes: &mut [i8]) -> (f32, f32) {
    let largest = largest(row);
    let (scale, factor) =
        if largest < COMPONENT_MIN { (0.0, 0.0) } else { (largest / ROW_LEVEL, ROW_LEVEL / largest) };
    codes.iter_mut().zip(row).for_each(|(code, x)| *code = (x * factor + TO_WHOLE).to_bits() as i8);
    let rest = row.iter().zip(codes).map(|(&x, &mut code)| f64::from(x) - f64::from(scale) * f64::from(code));
    (scale, round_up(norm(rest)))
}

/// The largest code of a query for which no sum of products with `stride` codes passes `i32::MAX`.
fn level(stride: usize) -> f32 {
    let rows_level = ROW_LEVEL as usize;
    (i32::MAX as usize / (rows_level * stride)).min(i16::MAX as usize) as f32
}

fn largest(vector: &[f32]) -> f32 {
    vector.iter().fold(0.0, |largest: f32, x| if x.abs() > largest { x.abs() } else { largest })
}

fn norm(components: impl Iterator<Item = f64>) -> f64 {
    components.map(|x| x * x).sum::<f64>().sqrt()
}

/// A norm in f32 that is not below it, and not denormal.
fn round_up(norm: f64) -> f32 {
    ((norm * ROUNDED_UP) as f32).max(f32::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    //! Bounds hold, also where the query points along what the codes leave of a row, which Cauchy and Schwarz call worst.

    use super::*;
    use proptest::prelude::*;

    /// The bounds of the score of one query and one row.
    fn bounds(metric: Metric, query: &[f32], row: &[f32]) -> Option<(f32, f32)> {
        let mut codes = Codes::new(metric, row.len());
        codes.push(row);
        let mut query_codes = Vec::new();
        let coded = CodedQuery::new(query, &mut query_codes)?;
        let (mut sums, mut upper) = ([0], [0.0]);
        codes.view().sums(&query_codes, &mut sums);
        codes.view().upper_bounds(&coded, &sums, &mut upper);
        Some((codes.view().lower_bound(&coded, sums[0], 0), upper[0]))
    }

    fn rest(row: &[f32]) -> Vec<f32> {
        let mut codes = vec![0; row.len()];
        let (scale, _) = encode(row, &mut codes);
        row.iter().zip(codes).map(|(x, code)| x - scale * f32::from(code)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn scores_lie_within_their_bounds(
            metric in prop::sample::select(vec![Metric::Cosine, Metric::InnerProduct, Metric::L2]),
            pairs in prop::collection::vec((-1.0_f32..1.0, -1.0_f32..1.0), 1..500),
            exponents in (-44..31, -44..31),
            share in prop::option::of(0.0_f32..1.0),
        ) {
            let scale = |x: f32, exponent: i32| (f64::from(x) * 10.0_f64.powi(exponent)) as f32;
            let (mut row, mut query): (Vec<f32>, Vec<f32>) =
                pairs.iter().map(|&(x, y)| (scale(x, exponents.0), scale(y, exponents.1))).unzip();
            let is_fit = metric.prepare(&mut row).is_ok();
            if let Some(share) = share {
                // From along the rest to along the row, on which the rest hides behind the score.
                query = rest(&row).iter().zip(&row).map(|(rest, x)| rest * (1.0 - share) + x * share * 0.01).collect();
            }
            if is_fit && metric.prepare(&mut query).is_ok()
                && let Some((lower, upper)) = bounds(metric, &query, &row)
            {
                let score = crate::score(metric, &query, &row);
                let is_below = upper < score;
                prop_assert!(!is_below && lower <= score, "{lower} {score} {upper}");
            }
        }
    }

    #[test]
    fn bounds_are_as_tight_as_the_rest_is_short() {
        let mut row: Vec<f32> = (0..384).map(|at| ((at * 37 % 101) as f32 - 50.0) / 50.0).collect();
        Metric::Cosine.prepare(&mut row).expect("not zero");
        let (lower, upper) = bounds(Metric::Cosine, &row, &row).expect("short enough");
        assert!(upper - lower < 0.01, "{lower} {upper}");
    }

    #[test]
    fn codes_alone_find_the_nearest_rows_of_vectors_without_outliers() {
        let component = |row: usize, at: usize| {
            // SplitMix64: neighbouring numbers have nothing in common.
            let mut mixed = ((row * 384 + at) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (mixed >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let mut codes = Codes::new(Metric::Cosine, 384);
        let rows: Vec<Vec<f32>> = (0..300)
            .map(|row| {
                let mut row: Vec<f32> = (0..384).map(|at| component(row, at)).collect();
                Metric::Cosine.prepare(&mut row).expect("not zero");
                codes.push(&row);
                row
            })
            .collect();
        let of = |row: usize| QueryCodes::new(&rows[row]).expect("a unit vector");
        for query in [0, 150, 299] {
            let found = codes.view().nearest(&of(query), 3);
            assert_eq!(codes.view().nearest_of(&of(query), &[7, query as u32], 1), found[..1]);
            assert_eq!((found.len(), found[0].row), (3, query as u32));
            assert!(found.windows(2).all(|pair| pair[0].score >= pair[1].score));
            for neighbor in found {
                let exact = crate::score(Metric::Cosine, &rows[query], &rows[neighbor.row as usize]);
                assert!((neighbor.score - exact).abs() < 0.002, "{} {exact}", neighbor.score);
            }
        }
        assert!(codes.view().nearest(&of(0), 0).is_empty());
        codes.swap_remove(150);
        codes.swap_remove(298);
        assert_eq!(codes.len(), 298);
        assert_eq!(
            codes.view().nearest(&of(299), 1)[0].row,
            150,
            "the last row takes the place of one that is removed"
        );
        assert!(codes.view().nearest(&of(150), 1)[0].score < 0.9);
        assert!(Codes::new(Metric::Cosine, 384).view().nearest(&of(0), 3).is_empty());
    }

    #[test]
    fn what_is_too_long_is_left_to_f32() {
        let (lower, upper) = bounds(Metric::InnerProduct, &[1.0, 0.0], &[1e25, 1.0]).expect("a short query");
        assert!(lower == f32::NEG_INFINITY && upper == f32::INFINITY);
        assert!(bounds(Metric::L2, &[1e25, 0.0], &[1.0, 1.0]).is_none());
    }

    #[test]
    fn the_largest_sum_fits() {
        for stride in [32, 384, 1024, 4096, DIM_MAX] {
            let sum = level(stride) as u64 * 127 * stride as u64;
            assert!(sum <= i32::MAX as u64 && level(stride) >= 127.0, "{stride}");
        }
    }
}
