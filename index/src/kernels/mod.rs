//! Safe doors to the inner loops, which are chosen once for the processor at hand.
#![expect(unsafe_code, reason = "vector instructions and rows by pointer, which the compiler cannot check")]

#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
mod tile;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::LazyLock;

use ndarray::ArrayView2;

use crate::Metric;

/// Coded vectors are padded with zeros to a multiple of this many codes, so that no loop over them has a rest.
pub(crate) const CODES_MULTIPLE: usize = 32;

/// Words of 64 bits at the head of a sketch, and behind it.
pub(crate) const HEAD_WORDS: usize = 2;
pub(crate) const REST_WORDS: usize = 4;

/// Sketches of rows, and a query with the bits in which they may differ from it.
#[derive(Clone, Copy)]
pub(crate) struct SketchSearch<'a> {
    pub(crate) query: ([u64; HEAD_WORDS], [u64; REST_WORDS]),
    /// As many heads as rests.
    pub(crate) heads: &'a [[u64; HEAD_WORDS]],
    pub(crate) rests: &'a [[u64; REST_WORDS]],
    pub(crate) head_differing_max: u32,
    pub(crate) differing_max: u32,
}

/// Vectors of one length in memory, as a view of an array holds them; the distance from one to the next may be longer.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    floats: tile::Floats,
    dim: usize,
    lives: PhantomData<&'a [f32]>,
}

impl<'a> Rows<'a> {
    /// The rows of a view.
    ///
    /// # Panics
    /// If the components of a row do not lie side by side, or the rows lie backwards.
    pub(crate) fn new(view: &ArrayView2<'a, f32>) -> Rows<'a> {
        let (len, dim) = view.dim();
        assert!(
            len == 0 || dim <= 1 || view.strides()[1] == 1,
            "the components of a row do not lie side by side"
        );
        let stride =
            if len <= 1 { dim } else { usize::try_from(view.strides()[0]).expect("rows in ascending order") };
        Rows { floats: tile::Floats { start: view.as_ptr(), stride, len }, dim, lives: PhantomData }
    }

    /// A single vector.
    pub(crate) fn one(row: &'a [f32]) -> Rows<'a> {
        let floats = tile::Floats { start: row.as_ptr(), stride: row.len(), len: 1 };
        Rows { floats, dim: row.len(), lives: PhantomData }
    }

    pub(crate) fn len(&self) -> usize {
        self.floats.len
    }

    pub(crate) fn slice(&self, range: Range<usize>) -> Rows<'a> {
        assert!(range.start <= range.end && range.end <= self.len(), "rows {range:?} of {}", self.len());
        // An empty range may start past the last row, where a pointer must not go.
        let first = if range.is_empty() { 0 } else { range.start };
        // SAFETY: the row `first` exists, or it is 0.
        let start = unsafe { self.floats.start.add(first * self.floats.stride) };
        Rows { floats: tile::Floats { start, len: range.len(), ..self.floats }, ..*self }
    }

    pub(crate) fn row(&self, row: usize) -> &'a [f32] {
        assert!(row < self.len(), "row {row} of {}", self.len());
        // SAFETY: the row exists, and the view that this was made of promises its `dim` floats for `'a`.
        unsafe { std::slice::from_raw_parts(self.floats.start.add(row * self.floats.stride), self.dim) }
    }
}

/// Instruction sets; a later one is faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InstructionSet {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 with byte and word instructions.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// The same with VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

/// The best set of this machine.
static BEST: LazyLock<InstructionSet> =
    LazyLock::new(|| *sets().last().expect("every machine has the portable set"));

/// The sets of this machine.
fn sets() -> Vec<InstructionSet> {
    let mut sets = vec![InstructionSet::Portable];
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("popcnt")
    {
        sets.push(InstructionSet::Avx2);
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
            sets.push(InstructionSet::Avx512);
            if is_x86_feature_detected!("avx512vnni") {
                sets.push(InstructionSet::Avx512Vnni);
            }
        }
    }
    #[cfg(target_arch = "aarch64")]
    if std::arch::is_aarch64_feature_detected!("neon") {
        sets.push(InstructionSet::Neon);
    }
    sets
}

/// Scores of all pairs: `out` is queries x rows.
///
/// # Panics
/// If the dimensions differ or `out` has another length.
pub(crate) fn scores(metric: Metric, queries: Rows<'_>, rows: Rows<'_>, out: &mut [f32]) {
    scores_with(*BEST, metric, queries, rows, out);
}

fn scores_with(set: InstructionSet, metric: Metric, queries: Rows<'_>, rows: Rows<'_>, out: &mut [f32]) {
    assert_eq!(queries.dim, rows.dim, "queries and rows of different dimensions");
    assert_eq!(out.len(), queries.len() * rows.len(), "one score a pair");
    let is_distance = match metric {
        Metric::Cosine | Metric::InnerProduct => false,
        Metric::L2 => true,
    };
    let (queries, rows, dim) = (queries.floats, rows.floats, rows.dim);
    let job = tile::ScoreJob { is_distance, queries, rows, dim, out: out.as_mut_ptr() };
    // SAFETY: the set was found on this machine, `Rows` promises the vectors, and the length of `out` was checked.
    unsafe {
        match set {
            InstructionSet::Portable => portable::scores(&job),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => x86::avx2_scores(&job),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 | InstructionSet::Avx512Vnni => x86::avx512_scores(&job),
            #[cfg(target_arch = "aarch64")]
            InstructionSet::Neon => neon::scores(&job),
        }
    }
}

/// Exact integer sums of products of all pairs of vectors of `stride` codes: `out` is queries x rows, and the same on every
/// instruction set. No sum of absolute products of a pair may pass `i32::MAX`, as it would wrap.
///
/// # Panics
/// If `stride` is not a multiple of [`CODES_MULTIPLE`], or a length does not fit.
pub(crate) fn code_sums(queries: &[i16], rows: &[i8], stride: usize, out: &mut [i32]) {
    code_sums_with(*BEST, queries, rows, stride, out);
}

fn code_sums_with(set: InstructionSet, queries: &[i16], rows: &[i8], stride: usize, out: &mut [i32]) {
    assert!(stride > 0 && stride.is_multiple_of(CODES_MULTIPLE), "codes are padded");
    let (queries_len, rows_len) = (queries.len() / stride, rows.len() / stride);
    assert!(queries.len() == queries_len * stride && rows.len() == rows_len * stride, "whole vectors");
    assert_eq!(out.len(), queries_len * rows_len, "one sum a pair");
    let (queries, rows, out) = (queries.as_ptr(), rows.as_ptr(), out.as_mut_ptr());
    let job = tile::CodeSums { queries, queries_len, rows, rows_len, stride, out };
    // SAFETY: the set was found on this machine, and the lengths were checked.
    unsafe {
        match set {
            InstructionSet::Portable => portable::code_sums(&job),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => x86::avx2_code_sums(&job),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => x86::avx512_code_sums(&job),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512Vnni => x86::vnni_code_sums(&job),
            #[cfg(target_arch = "aarch64")]
            InstructionSet::Neon => neon::code_sums(&job),
        }
    }
}

/// Sums of products of one query's weights with the bytes of some rows, which lie one after the other: `out` has one for
/// each of `rows`. Exact, and so the same on every instruction set.
///
/// # Panics
/// If a row does not exist, or `out` has another length than `rows`. In debug builds, if a weight is beyond ±64: two
/// products with bytes would not fit 16 bits.
pub(crate) fn byte_sums(weights: &[i8], bytes: &[u8], rows: &[u32], out: &mut [i32]) {
    byte_sums_with(*BEST, weights, bytes, rows, out);
}

fn byte_sums_with(set: InstructionSet, weights: &[i8], bytes: &[u8], rows: &[u32], out: &mut [i32]) {
    debug_assert!(weights.iter().all(|weight| (-64..=64).contains(weight)), "weights of 7 bits");
    assert_eq!(out.len(), rows.len(), "one sum a row");
    let rows_len = bytes.len() / weights.len().max(1);
    assert!(rows.iter().all(|&row| (row as usize) < rows_len), "a row that does not exist");
    match set {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the sets were found on this machine and all have AVX2; the rows exist, as was checked.
        InstructionSet::Avx2 | InstructionSet::Avx512 | InstructionSet::Avx512Vnni => unsafe {
            x86::avx2_byte_sums(weights, bytes, rows, out)
        },
        #[cfg(target_arch = "aarch64")]
        InstructionSet::Neon => portable::byte_sums(weights, bytes, rows, out),
        InstructionSet::Portable => portable::byte_sums(weights, bytes, rows, out),
    }
}

/// Appends to `found` the numbers of the rows that a search keeps, in their order: heads and whole sketches differ in no more bits than they
/// may.
///
/// # Panics
/// If there are not as many heads as rests, or 2^32 or more.
pub(crate) fn sketches_within(search: &SketchSearch<'_>, found: &mut Vec<u32>) {
    sketches_within_with(*BEST, search, found);
}

fn sketches_within_with(set: InstructionSet, search: &SketchSearch<'_>, found: &mut Vec<u32>) {
    assert_eq!(search.heads.len(), search.rests.len(), "a rest for each head");
    assert!(u32::try_from(search.heads.len()).is_ok(), "{} sketches", search.heads.len());
    match set {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the sets were found on this machine, and all have POPCNT.
        InstructionSet::Avx2 | InstructionSet::Avx512 | InstructionSet::Avx512Vnni => unsafe {
            x86::popcnt_sketches_within(search, found);
        },
        #[cfg(target_arch = "aarch64")]
        InstructionSet::Neon => portable::sketches_within(search, found),
        InstructionSet::Portable => portable::sketches_within(search, found),
    }
}

#[cfg(test)]
mod tests {
    //! Every kernel that the machine has against the portable one and against f64, and tiles against single pairs.

    use super::*;
    use ndarray::{Array2, s};

    const METRICS: [Metric; 2] = [Metric::InnerProduct, Metric::L2];

    /// Numbers from -1 to 1 of a linear congruential generator (Knuth, MMIX).
    fn noise(len: usize, seed: u64) -> impl Iterator<Item = f32> {
        let mut state = seed;
        std::iter::repeat_with(move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .take(len)
    }

    fn matrix(rows: usize, dim: usize, seed: u64) -> Array2<f32> {
        Array2::from_shape_vec((rows, dim), noise(rows * dim, seed).collect()).unwrap()
    }

    fn all_scores(
        set: InstructionSet,
        metric: Metric,
        queries: &Array2<f32>,
        rows: &Array2<f32>,
    ) -> Vec<f32> {
        let mut out = vec![f32::NAN; queries.nrows() * rows.nrows()];
        scores_with(set, metric, Rows::new(&queries.view()), Rows::new(&rows.view()), &mut out);
        out
    }

    /// The score in f64, and the sum of its absolute terms.
    fn reference(metric: Metric, query: &[f32], row: &[f32]) -> (f64, f64) {
        let pairs = query.iter().zip(row).map(|(&x, &y)| (f64::from(x), f64::from(y)));
        let terms: Vec<f64> = match metric {
            Metric::Cosine | Metric::InnerProduct => pairs.map(|(x, y)| x * y).collect(),
            Metric::L2 => pairs.map(|(x, y)| -(x - y) * (x - y)).collect(),
        };
        (terms.iter().sum(), terms.iter().map(|term| term.abs()).sum())
    }

    #[test]
    fn every_set_scores_within_rounding() {
        for dim in (1..=70).chain([384]) {
            let (queries, rows) = (matrix(3, dim, 1), matrix(9, dim, 2));
            for (set, metric) in sets().into_iter().flat_map(|set| METRICS.map(|metric| (set, metric))) {
                let scores = all_scores(set, metric, &queries, &rows);
                for (at, score) in scores.into_iter().enumerate() {
                    let (q, r) = (at / 9, at % 9);
                    let (query, row) = (queries.row(q).to_vec(), rows.row(r).to_vec());
                    let (expected, terms) = reference(metric, &query, &row);
                    let slack = (dim + 4) as f64 * f64::from(f32::EPSILON) * terms;
                    assert!(
                        (f64::from(score) - expected).abs() <= slack,
                        "{set:?} {metric:?} {dim}: {score}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_tile_of_any_shape_gives_the_bits_of_single_pairs() {
        for dim in [1, 7, 8, 16, 17, 33, 70, 384] {
            for (queries, rows) in [(1, 25), (2, 7), (4, 6), (5, 13), (7, 1), (16, 17)] {
                let (queries, rows) = (matrix(queries, dim, 3), matrix(rows, dim, 4));
                for (set, metric) in sets().into_iter().flat_map(|set| METRICS.map(|metric| (set, metric))) {
                    let scores = all_scores(set, metric, &queries, &rows);
                    for (at, score) in scores.into_iter().enumerate() {
                        let (query, row) = (at / rows.nrows(), at % rows.nrows());
                        let mut single = [0.0];
                        let (queries, rows) = (Rows::new(&queries.view()), Rows::new(&rows.view()));
                        let (query, row) = (Rows::one(queries.row(query)), Rows::one(rows.row(row)));
                        scores_with(set, metric, query, row, &mut single);
                        assert_eq!(score.to_bits(), single[0].to_bits(), "{set:?} {metric:?} {dim}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_set_sums_codes_exactly() {
        for (stride, level) in [(32, 32767), (384, 32767), (1536, 11_008)] {
            for (queries, rows) in [(1, 9), (1, 1), (3, 5), (4, 4), (5, 11), (16, 6)] {
                let mut coded: Vec<i16> =
                    noise(queries * stride, 5).map(|x| (x * level as f32) as i16).collect();
                let mut codes: Vec<i8> = noise(rows * stride, 6).map(|x| (x * 127.0) as i8).collect();
                // The largest sum there is.
                coded[..stride].fill(level as i16);
                codes[..stride].fill(-127);
                let pair = |at: usize| {
                    let (query, row) = (&coded[at / rows * stride..], &codes[at % rows * stride..]);
                    query
                        .iter()
                        .zip(row)
                        .take(stride)
                        .map(|(&q, &c)| i64::from(q) * i64::from(c))
                        .sum::<i64>()
                };
                for set in sets() {
                    let mut out = vec![0; queries * rows];
                    code_sums_with(set, &coded, &codes, stride, &mut out);
                    let is_exact = out.iter().enumerate().all(|(at, &sum)| i64::from(sum) == pair(at));
                    assert!(is_exact, "{set:?} {stride} {queries} x {rows}");
                }
            }
        }
    }

    #[test]
    fn every_set_keeps_the_same_sketches() {
        let mut word =
            noise(usize::MAX, 11).map(|x| u64::from(x.to_bits()).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut words = || word.next().unwrap();
        let heads: Vec<[u64; HEAD_WORDS]> = (0..1000).map(|_| [(); HEAD_WORDS].map(|()| words())).collect();
        let rests: Vec<[u64; REST_WORDS]> = (0..1000).map(|_| [(); REST_WORDS].map(|()| words())).collect();
        let query = (heads[7], rests[7]);
        for (head_differing_max, differing_max) in [(0, 0), (40, 384), (60, 185), (128, 190), (128, 384)] {
            let search =
                SketchSearch { query, heads: &heads, rests: &rests, head_differing_max, differing_max };
            let bits = |one: &[u64], other: &[u64]| -> u32 {
                one.iter().zip(other).map(|(one, other)| (one ^ other).count_ones()).sum()
            };
            let is_kept = |&row: &u32| {
                let head = bits(&query.0, &heads[row as usize]);
                head <= head_differing_max && head + bits(&query.1, &rests[row as usize]) <= differing_max
            };
            let expected: Vec<u32> = [99].into_iter().chain((0..1000).filter(is_kept)).collect();
            for set in sets() {
                let mut found = vec![99];
                sketches_within_with(set, &search, &mut found);
                assert_eq!(found, expected, "{set:?} {head_differing_max} {differing_max}");
            }
        }
    }

    #[test]
    fn every_set_sums_bytes_exactly() {
        for dim in [1, 2, 15, 16, 17, 31, 32, 50, 63, 64, 95, 384] {
            let mut weights: Vec<i8> = noise(dim, 9).map(|x| (x * 64.0) as i8).collect();
            let mut bytes: Vec<u8> = noise(7 * dim, 10).map(|x| (x * 127.0 + 128.0) as u8).collect();
            let rows = [6, 0, 3, 3, 5, 1, 2, 4];
            for is_largest in [false, true] {
                if is_largest {
                    weights.fill(-64);
                    bytes.fill(255);
                }
                let expected = rows.map(|row| {
                    let row = &bytes[row as usize * dim..][..dim];
                    row.iter().zip(&weights).map(|(&b, &w)| i32::from(b) * i32::from(w)).sum::<i32>()
                });
                for set in sets() {
                    let mut out = [0; 8];
                    byte_sums_with(set, &weights, &bytes, &rows, &mut out);
                    assert_eq!(out, expected, "{set:?} {dim}");
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "does not exist")]
    fn bytes_past_the_last_row_are_not_read() {
        byte_sums(&[1; 4], &[0; 11], &[1, 2], &mut [0; 2]);
    }

    #[test]
    fn rows_may_lie_apart() {
        let wide = matrix(9, 40, 7);
        let view = wide.slice(s![1..;2, 3..37]);
        let rows = Rows::new(&view);
        let near = view.to_owned();
        assert_eq!(rows.row(3), near.row(3).to_slice().unwrap());
        assert_eq!(rows.slice(2..4).row(0), near.row(2).to_slice().unwrap());
        assert_eq!(rows.slice(4..4).len(), 0);
        let queries = matrix(5, 34, 8);
        let mut out = vec![0.0; 20];
        scores(Metric::L2, Rows::new(&queries.view()), rows, &mut out);
        assert_eq!(out, all_scores(*BEST, Metric::L2, &queries, &near));
    }

    #[test]
    #[should_panic(expected = "side by side")]
    fn columns_are_not_rows() {
        Rows::new(&matrix(5, 4, 9).t());
    }
}
