//! The inner loops, with the widest vector instructions that the processor has, chosen once.
//!
//! Every kernel of scores adds up one pair in one fixed order, whatever stands beside it in the same pass, so a score has
//! the same bits in every search on one machine. On aarch64 the portable loops are compiled to NEON, which is part of it.
#![expect(unsafe_code, reason = "vector instructions may only run where the processor has them")]

use std::sync::OnceLock;

use crate::codes::CodedQuery;
use crate::metric::Metric;

/// Codes are padded to so many.
pub(crate) const CODE_LANES: usize = 64;
/// Numbers that are added up side by side.
const LANES: usize = 16;
/// Queries that share a pass over codes.
const QUERIES: usize = 4;

/// One way to do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kernels {
    /// AVX-512 with VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX2 with FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// What the compiler makes of plain loops.
    Portable,
}

/// The best way that this processor has.
pub(crate) fn get() -> Kernels {
    static BEST: OnceLock<Kernels> = OnceLock::new();
    *BEST.get_or_init(|| Kernels::all()[0])
}

impl Kernels {
    /// The ways that this processor has, the best first.
    pub(crate) fn all() -> Vec<Kernels> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vnni")
            {
                all.push(Kernels::Avx512);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                all.push(Kernels::Avx2);
            }
        }
        all.push(Kernels::Portable);
        all
    }

    /// The score of the query with each of `rows`, which stand one after the other, into `out`.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub(crate) fn scores(self, metric: Metric, query: &[f32], rows: &[f32], out: &mut [f32]) {
        assert_eq!(rows.len(), query.len() * out.len(), "whole rows");
        let is_l2 = metric == Metric::L2;
        match self {
            // SAFETY: `all` gives this only where the processor has the instructions; the lengths are checked above.
            #[cfg(target_arch = "x86_64")]
            Kernels::Avx512 if is_l2 => unsafe { avx512::scores::<true>(query, rows, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kernels::Avx512 => unsafe { avx512::scores::<false>(query, rows, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kernels::Avx2 if is_l2 => unsafe { avx2::scores::<true>(query, rows, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kernels::Avx2 => unsafe { avx2::scores::<false>(query, rows, out) },
            Kernels::Portable => portable::scores(is_l2, query, rows, out),
        }
    }

    /// For each query in turn, the sum of products with the codes of each row into `out`. Rows are `stride` codes long,
    /// as are the queries.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub(crate) fn code_sums(self, queries: &[&CodedQuery], codes: &[i8], stride: usize, out: &mut [i32]) {
        assert!(stride > 0 && stride.is_multiple_of(CODE_LANES) && codes.len().is_multiple_of(stride));
        assert!(queries.iter().all(|query| query.codes.len() == stride), "queries are as long as rows");
        let rows = codes.len() / stride;
        assert_eq!(out.len(), rows * queries.len(), "a sum for each pair");
        for (queries, out) in queries.chunks(QUERIES).zip(out.chunks_mut(rows.max(1) * QUERIES)) {
            let codes_of: Vec<&[u8]> = queries.iter().map(|query| &query.codes[..]).collect();
            match self {
                // SAFETY: `all` gives this only where the processor has the instructions; the lengths are checked above.
                #[cfg(target_arch = "x86_64")]
                Kernels::Avx512 => unsafe { avx512::code_sums(&codes_of, codes, stride, out) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Kernels::Avx2 => unsafe { avx2::code_sums(&codes_of, codes, stride, out) },
                Kernels::Portable => portable::code_sums(&codes_of, codes, stride, out),
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{CODE_LANES, LANES};
    use std::arch::x86_64::*;

    /// Rows that share a pass: enough sums in flight to hide what an addition takes.
    const ROWS: usize = 8;

    /// # Safety
    /// The processor has AVX-512F, and `rows` holds `out.len()` rows as long as `query`.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn scores<const L2: bool>(query: &[f32], rows: &[f32], out: &mut [f32]) {
        let dim = query.len();
        let (blocks, rest) = out.as_chunks_mut::<ROWS>();
        let done = blocks.len() * ROWS * dim;
        for (at, block) in blocks.iter_mut().enumerate() {
            // SAFETY: the block's rows lie inside `rows`.
            *block = unsafe { tile::<L2, ROWS>(query, rows.as_ptr().add(at * ROWS * dim)) };
        }
        for (at, score) in rest.iter_mut().enumerate() {
            // SAFETY: as above.
            [*score] = unsafe { tile::<L2, 1>(query, rows.as_ptr().add(done + at * dim)) };
        }
    }

    /// # Safety
    /// As [`scores`], with `R` rows from `rows` on.
    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn tile<const L2: bool, const R: usize>(query: &[f32], rows: *const f32) -> [f32; R] {
        let dim = query.len();
        let mut sums = [_mm512_setzero_ps(); R];
        let mut at = 0;
        while at < dim {
            let left = dim - at;
            let mask: __mmask16 = if left >= LANES { !0 } else { (1 << left) - 1 };
            // SAFETY: lanes past the end are masked out, here and below, so nothing past the vectors is read.
            let q = unsafe { _mm512_maskz_loadu_ps(mask, query.as_ptr().add(at)) };
            for (row, sum) in sums.iter_mut().enumerate() {
                // SAFETY: as above.
                let x = unsafe { _mm512_maskz_loadu_ps(mask, rows.add(row * dim + at)) };
                *sum = if L2 {
                    let apart = _mm512_sub_ps(q, x);
                    _mm512_fmadd_ps(apart, apart, *sum)
                } else {
                    _mm512_fmadd_ps(q, x, *sum)
                };
            }
            at += LANES;
        }
        sums.map(|sum| if L2 { -_mm512_reduce_add_ps(sum) } else { _mm512_reduce_add_ps(sum) })
    }

    /// # Safety
    /// The processor has AVX-512F, BW and VNNI; queries and rows are `stride` long, a multiple of 64; `out` has a sum for
    /// each pair.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(super) unsafe fn code_sums(queries: &[&[u8]], codes: &[i8], stride: usize, out: &mut [i32]) {
        let rows = codes.len() / stride;
        // SAFETY: what each tile reads lies inside `queries` and `codes`, as the caller says.
        unsafe {
            match *queries {
                [a] => pass([a], codes, stride, rows, out),
                [a, b] => pass([a, b], codes, stride, rows, out),
                [a, b, c] => pass([a, b, c], codes, stride, rows, out),
                [a, b, c, d] => pass([a, b, c, d], codes, stride, rows, out),
                _ => unreachable!("queries come in chunks of four"),
            }
        }
    }

    /// # Safety
    /// As [`code_sums`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    #[inline]
    unsafe fn pass<const Q: usize>(
        queries: [&[u8]; Q],
        codes: &[i8],
        stride: usize,
        rows: usize,
        out: &mut [i32],
    ) {
        const R: usize = 4;
        let mut row = 0;
        while row + R <= rows {
            // SAFETY: `R` rows from here on lie inside `codes`.
            let sums = unsafe { code_tile::<Q, R>(&queries, codes.as_ptr().add(row * stride), stride) };
            for (query, sums) in sums.iter().enumerate() {
                out[query * rows + row..][..R].copy_from_slice(sums);
            }
            row += R;
        }
        while row < rows {
            // SAFETY: as above, with one row.
            let sums = unsafe { code_tile::<Q, 1>(&queries, codes.as_ptr().add(row * stride), stride) };
            sums.iter().enumerate().for_each(|(query, [sum])| out[query * rows + row] = *sum);
            row += 1;
        }
    }

    /// # Safety
    /// As [`code_sums`], with `R` rows from `codes` on.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    #[inline]
    unsafe fn code_tile<const Q: usize, const R: usize>(
        queries: &[&[u8]; Q],
        codes: *const i8,
        stride: usize,
    ) -> [[i32; R]; Q] {
        let mut sums = [[_mm512_setzero_si512(); R]; Q];
        let mut at = 0;
        while at < stride {
            let mut xs = [_mm512_setzero_si512(); R];
            for (row, x) in xs.iter_mut().enumerate() {
                // SAFETY: `stride` is a multiple of 64, so a whole vector is left.
                *x = unsafe { _mm512_loadu_si512(codes.add(row * stride + at).cast()) };
            }
            for (query, sums) in queries.iter().zip(&mut sums) {
                // SAFETY: as above.
                let q = unsafe { _mm512_loadu_si512(query.as_ptr().add(at).cast()) };
                for (sum, x) in sums.iter_mut().zip(xs) {
                    *sum = _mm512_dpbusd_epi32(*sum, q, x);
                }
            }
            at += CODE_LANES;
        }
        sums.map(|sums| sums.map(|sum| _mm512_reduce_add_epi32(sum)))
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    const LANES: usize = 8;
    const ROWS: usize = 4;

    /// # Safety
    /// The processor has AVX2 and FMA, and `rows` holds `out.len()` rows as long as `query`.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn scores<const L2: bool>(query: &[f32], rows: &[f32], out: &mut [f32]) {
        let dim = query.len();
        let (blocks, rest) = out.as_chunks_mut::<ROWS>();
        let done = blocks.len() * ROWS * dim;
        for (at, block) in blocks.iter_mut().enumerate() {
            // SAFETY: the block's rows lie inside `rows`.
            *block = unsafe { tile::<L2, ROWS>(query, rows.as_ptr().add(at * ROWS * dim)) };
        }
        for (at, score) in rest.iter_mut().enumerate() {
            // SAFETY: as above.
            [*score] = unsafe { tile::<L2, 1>(query, rows.as_ptr().add(done + at * dim)) };
        }
    }

    /// Two sums of eight lanes for each pair.
    ///
    /// # Safety
    /// As [`scores`], with `R` rows from `rows` on.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    unsafe fn tile<const L2: bool, const R: usize>(query: &[f32], rows: *const f32) -> [f32; R] {
        let dim = query.len();
        let whole = dim - dim % LANES;
        let mut sums = [[_mm256_setzero_ps(); 2]; R];
        let mut at = 0;
        while at < whole {
            // SAFETY: eight numbers are left from `at` on, in the query and in each row.
            let q = unsafe { _mm256_loadu_ps(query.as_ptr().add(at)) };
            for (row, sums) in sums.iter_mut().enumerate() {
                // SAFETY: as above.
                let x = unsafe { _mm256_loadu_ps(rows.add(row * dim + at)) };
                let sum = &mut sums[at / LANES % 2];
                *sum = if L2 {
                    let apart = _mm256_sub_ps(q, x);
                    _mm256_fmadd_ps(apart, apart, *sum)
                } else {
                    _mm256_fmadd_ps(q, x, *sum)
                };
            }
            at += LANES;
        }
        std::array::from_fn(|row| {
            let mut lanes = [0.0_f32; LANES];
            // SAFETY: `lanes` has room for eight numbers.
            unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), _mm256_add_ps(sums[row][0], sums[row][1])) };
            let rest = (whole..dim).map(|at| {
                // SAFETY: `at` is less than `dim`.
                let (q, x) = (query[at], unsafe { *rows.add(row * dim + at) });
                if L2 { (q - x) * (q - x) } else { q * x }
            });
            let sum = lanes.iter().sum::<f32>() + rest.sum::<f32>();
            if L2 { -sum } else { sum }
        })
    }

    /// # Safety
    /// The processor has AVX2; queries and rows are `stride` long, a multiple of 64; `out` has a sum for each pair.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn code_sums(queries: &[&[u8]], codes: &[i8], stride: usize, out: &mut [i32]) {
        let rows = codes.len() / stride;
        for (row, codes) in codes.chunks_exact(stride).enumerate() {
            for (at, query) in queries.iter().enumerate() {
                let mut sum = _mm256_setzero_si256();
                for (q, x) in query.chunks_exact(16).zip(codes.chunks_exact(16)) {
                    // SAFETY: both chunks are sixteen bytes.
                    let (q, x) =
                        unsafe { (_mm_loadu_si128(q.as_ptr().cast()), _mm_loadu_si128(x.as_ptr().cast())) };
                    // As 16-bit numbers: products of unsigned and signed bytes, added in pairs, would saturate.
                    let (q, x) = (_mm256_cvtepu8_epi16(q), _mm256_cvtepi8_epi16(x));
                    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(q, x));
                }
                let mut lanes = [0_i32; 8];
                // SAFETY: `lanes` has room for eight numbers.
                unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sum) };
                out[at * rows + row] = lanes.iter().sum();
            }
        }
    }
}

mod portable {
    use super::LANES;

    pub(super) fn scores(is_l2: bool, query: &[f32], rows: &[f32], out: &mut [f32]) {
        let term = |q: f32, x: f32| if is_l2 { (q - x) * (q - x) } else { q * x };
        let (query_lanes, query_rest) = query.as_chunks::<LANES>();
        for (row, score) in rows.chunks_exact(query.len().max(1)).zip(out) {
            let (row_lanes, row_rest) = row.as_chunks::<LANES>();
            let mut sums = [0.0_f32; LANES];
            for (q, x) in query_lanes.iter().zip(row_lanes) {
                for lane in 0..LANES {
                    sums[lane] += term(q[lane], x[lane]);
                }
            }
            let rest: f32 = query_rest.iter().zip(row_rest).map(|(&q, &x)| term(q, x)).sum();
            let sum = sums.iter().sum::<f32>() + rest;
            *score = if is_l2 { -sum } else { sum };
        }
    }

    pub(super) fn code_sums(queries: &[&[u8]], codes: &[i8], stride: usize, out: &mut [i32]) {
        let rows = codes.len() / stride;
        for (row, codes) in codes.chunks_exact(stride).enumerate() {
            for (at, query) in queries.iter().enumerate() {
                out[at * rows + row] =
                    query.iter().zip(codes).map(|(&q, &x)| i32::from(q) * i32::from(x)).sum();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_way_gives_the_same_sums_and_nearly_the_same_scores(
            dim in 1..150_usize, count in 0..20_usize, queries in 1..7_usize, seed in any::<u64>(),
        ) {
            let mut state = seed | 1;
            let mut next = || {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 40) as f32 / (1 << 23) as f32 - 1.0
            };
            let rows: Vec<f32> = (0..dim * count).map(|_| next()).collect();
            let query: Vec<f32> = (0..dim).map(|_| next()).collect();
            for metric in [Metric::InnerProduct, Metric::L2] {
                for way in Kernels::all() {
                    let mut out = vec![f32::NAN; count];
                    way.scores(metric, &query, &rows, &mut out);
                    for (row, score) in rows.chunks(dim).zip(out) {
                        let pairs = query.iter().zip(row).map(|(&q, &x)| (f64::from(q), f64::from(x)));
                        let truth: f64 = if metric == Metric::L2 {
                            -pairs.map(|(q, x)| (q - x) * (q - x)).sum::<f64>()
                        } else {
                            pairs.map(|(q, x)| q * x).sum()
                        };
                        prop_assert!((f64::from(score) - truth).abs() < 1e-6 * dim as f64, "{way:?}");
                        let mut alone = [0.0];
                        way.scores(metric, &query, row, &mut alone);
                        prop_assert_eq!(alone[0].to_bits(), score.to_bits(), "{:?} alone and beside others", way);
                    }
                }
            }
            let stride = dim.next_multiple_of(CODE_LANES);
            let codes: Vec<i8> = (0..stride * count).map(|_| (next() * 127.0) as i8).collect();
            let coded: Vec<CodedQuery> = (0..queries)
                .map(|_| CodedQuery::new(Metric::L2, &(0..dim).map(|_| next()).collect::<Vec<_>>()))
                .collect();
            let coded: Vec<&CodedQuery> = coded.iter().collect();
            let sums = |way: Kernels| {
                let mut out = vec![0; queries * count];
                way.code_sums(&coded, &codes, stride, &mut out);
                out
            };
            for way in Kernels::all() {
                prop_assert_eq!(sums(way), sums(Kernels::Portable), "{:?}", way);
            }
        }
    }
}
