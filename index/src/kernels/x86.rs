//! AVX2 with FMA, AVX-512 with byte and word instructions, and the latter with VNNI.

use std::arch::x86_64::*;

use super::tile::{self, CodeSums, ScoreJob, SimdOps};
use super::{SketchSearch, portable};

/// 256-bit registers.
pub(super) struct Avx2;

impl SimdOps for Avx2 {
    type Floats = __m256;
    type Sums = __m256i;
    type Codes = __m256i;
    const FLOATS: usize = 8;
    const CODES: usize = 16;

    #[inline(always)]
    unsafe fn zero() -> __m256 {
        // SAFETY: the caller has found AVX2.
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m256 {
        // SAFETY: the caller has found AVX2 and promises the floats; alignment is not needed.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn add_product(sum: __m256, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the caller has found FMA.
        unsafe { _mm256_fmadd_ps(a, b, sum) }
    }

    #[inline(always)]
    unsafe fn subtract(a: __m256, b: __m256) -> __m256 {
        // SAFETY: the caller has found AVX2.
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn sum(lanes: __m256) -> f32 {
        // SAFETY: the caller has found AVX2.
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    unsafe fn zero_sums() -> __m256i {
        // SAFETY: the caller has found AVX2.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    unsafe fn load_query(from: *const i16) -> __m256i {
        // SAFETY: the caller has found AVX2 and promises the numbers; alignment is not needed.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn load_codes(from: *const i8) -> __m256i {
        // SAFETY: the caller has found AVX2 and promises the codes; alignment is not needed.
        unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    unsafe fn add_codes(sum: __m256i, query: __m256i, codes: __m256i) -> __m256i {
        // SAFETY: the caller has found AVX2.
        unsafe { _mm256_add_epi32(sum, _mm256_madd_epi16(query, codes)) }
    }

    #[inline(always)]
    unsafe fn sum_codes(sum: __m256i) -> i32 {
        // SAFETY: the caller has found AVX2.
        unsafe {
            let four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
            let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b00_00_11_10>(four));
            _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b00_00_00_01>(two)))
        }
    }

    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        // SAFETY: every processor of this architecture has the instruction, and it faults at no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
}

/// # Safety
/// As [`tile::scores`]; the processor has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn avx2_scores(job: &ScoreJob) {
    // SAFETY: the caller's promise is passed on. 16 registers: 8 sums, 2 rows, one query, differences; more were spilled.
    unsafe { tile::scores::<Avx2, 4, 2, 1>(job) }
}

/// # Safety
/// As [`tile::code_sums`]; the processor has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn avx2_code_sums(job: &CodeSums) {
    // SAFETY: the caller's promise is passed on. 16 registers: 8 sums, 2 rows, products.
    unsafe { tile::code_sums::<Avx2, 4, 2, 2>(job) }
}

/// 512-bit registers; the sums of codes with or without VNNI.
pub(super) struct Avx512<const VNNI: bool>;

impl<const VNNI: bool> SimdOps for Avx512<VNNI> {
    type Floats = __m512;
    type Sums = __m512i;
    type Codes = __m512i;
    const FLOATS: usize = 16;
    const CODES: usize = 32;

    #[inline(always)]
    unsafe fn zero() -> __m512 {
        // SAFETY: the caller has found AVX-512F.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        // SAFETY: the caller has found AVX-512F and promises the floats; alignment is not needed.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn add_product(sum: __m512, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the caller has found AVX-512F.
        unsafe { _mm512_fmadd_ps(a, b, sum) }
    }

    #[inline(always)]
    unsafe fn subtract(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the caller has found AVX-512F.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn sum(lanes: __m512) -> f32 {
        // SAFETY: the caller has found AVX-512F, which implies AVX2. The library's own reduction leaves its order open.
        unsafe {
            let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(lanes)));
            Avx2::sum(_mm256_add_ps(_mm512_castps512_ps256(lanes), high))
        }
    }

    #[inline(always)]
    unsafe fn zero_sums() -> __m512i {
        // SAFETY: the caller has found AVX-512F.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn load_query(from: *const i16) -> __m512i {
        // SAFETY: the caller has found AVX-512F and promises the numbers; alignment is not needed.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn load_codes(from: *const i8) -> __m512i {
        // SAFETY: the caller has found AVX-512BW and promises the codes; alignment is not needed.
        unsafe { _mm512_cvtepi8_epi16(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn add_codes(sum: __m512i, query: __m512i, codes: __m512i) -> __m512i {
        // SAFETY: the caller has found AVX-512BW, and VNNI if it says so.
        unsafe {
            if VNNI {
                _mm512_dpwssd_epi32(sum, query, codes)
            } else {
                _mm512_add_epi32(sum, _mm512_madd_epi16(query, codes))
            }
        }
    }

    #[inline(always)]
    unsafe fn sum_codes(sum: __m512i) -> i32 {
        // SAFETY: the caller has found AVX-512F, which implies AVX2.
        unsafe {
            let high = _mm512_extracti64x4_epi64::<1>(sum);
            Avx2::sum_codes(_mm256_add_epi32(_mm512_castsi512_si256(sum), high))
        }
    }

    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        // SAFETY: every processor of this architecture has the instruction, and it faults at no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
}

/// # Safety
/// As [`tile::scores`]; the processor has AVX-512F.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn avx512_scores(job: &ScoreJob) {
    // SAFETY: the caller's promise is passed on. 32 registers: 24 sums, 6 rows, one query.
    unsafe { tile::scores::<Avx512<false>, 4, 6, 1>(job) }
}

/// # Safety
/// As [`tile::code_sums`]; the processor has AVX-512F and AVX-512BW.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn avx512_code_sums(job: &CodeSums) {
    // SAFETY: the caller's promise is passed on. 32 registers: 16 sums, 4 rows, products.
    unsafe { tile::code_sums::<Avx512<false>, 4, 4, 2>(job) }
}

/// # Safety
/// As [`tile::code_sums`]; the processor has AVX-512F, AVX-512BW and AVX-512VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn vnni_code_sums(job: &CodeSums) {
    // SAFETY: the caller's promise is passed on. 32 registers: 16 sums, 4 rows, one query.
    unsafe { tile::code_sums::<Avx512<true>, 4, 4, 2>(job) }
}

/// # Safety
/// The processor has POPCNT.
#[target_feature(enable = "popcnt")]
pub(super) unsafe fn popcnt_sketches_within(search: &SketchSearch<'_>, found: &mut Vec<u32>) {
    portable::sketches_within(search, found);
}

/// Rows ahead of the one at hand whose bytes are fetched: they lie anywhere.
const AHEAD: usize = 4;
/// Bytes that are fetched at a time.
const LINE_BYTES: usize = 64;

/// # Safety
/// As [`super::byte_sums`]: all rows exist, and `out` has one place for each; the processor has AVX2.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn avx2_byte_sums(weights: &[i8], bytes: &[u8], rows: &[u32], out: &mut [i32]) {
    let dim = weights.len();
    let fetch = |row: u32| {
        for line in 0..dim.div_ceil(LINE_BYTES) {
            let at = bytes.as_ptr().wrapping_add(row as usize * dim + line * LINE_BYTES);
            _mm_prefetch::<_MM_HINT_T0>(at.cast());
        }
    };
    rows.iter().take(AHEAD).for_each(|&row| fetch(row));
    for (at, &row) in rows.iter().enumerate() {
        if let Some(&ahead) = rows.get(at + AHEAD) {
            fetch(ahead);
        }
        // SAFETY: the row exists, as the caller promises.
        let row = unsafe { bytes.get_unchecked(row as usize * dim..(row as usize + 1) * dim) };
        out[at] = byte_sum(weights, row);
    }
}

/// The sum of one row of as many bytes as there are weights.
#[inline]
#[target_feature(enable = "avx2")]
fn byte_sum(weights: &[i8], row: &[u8]) -> i32 {
    let ones = _mm256_set1_epi16(1);
    let (wide_weights, weights) = weights.as_chunks::<32>();
    let (wide_row, row) = row.as_chunks::<32>();
    let mut sums = _mm256_setzero_si256();
    for (weights, row) in wide_weights.iter().zip(wide_row) {
        // SAFETY: both hold 32 bytes; alignment is not needed.
        let (weights, row) =
            unsafe { (_mm256_loadu_si256(weights.as_ptr().cast()), _mm256_loadu_si256(row.as_ptr().cast())) };
        let pairs = _mm256_maddubs_epi16(row, weights);
        sums = _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, ones));
    }
    let mut sums = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
    let (half_weights, weights) = weights.as_chunks::<16>();
    let (half_row, row) = row.as_chunks::<16>();
    for (weights, row) in half_weights.iter().zip(half_row) {
        // SAFETY: both hold 16 bytes; alignment is not needed.
        let (weights, row) =
            unsafe { (_mm_loadu_si128(weights.as_ptr().cast()), _mm_loadu_si128(row.as_ptr().cast())) };
        sums = _mm_add_epi32(sums, _mm_madd_epi16(_mm_maddubs_epi16(row, weights), _mm_set1_epi16(1)));
    }
    let two = _mm_add_epi32(sums, _mm_shuffle_epi32::<0b00_00_11_10>(sums));
    let sum = _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b00_00_00_01>(two)));
    sum + row.iter().zip(weights).map(|(&byte, &weight)| i32::from(byte) * i32::from(weight)).sum::<i32>()
}
