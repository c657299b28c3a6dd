//! NEON, which every 64-bit ARM processor has.

use std::arch::aarch64::*;

use super::tile::{self, CodeSums, ScoreJob, SimdOps};

/// 128-bit registers.
pub(super) struct Neon;

impl SimdOps for Neon {
    type Floats = float32x4_t;
    type Sums = int32x4_t;
    type Codes = int16x8_t;
    const FLOATS: usize = 4;
    const CODES: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> float32x4_t {
        // SAFETY: the caller has found NEON.
        unsafe { vdupq_n_f32(0.0) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> float32x4_t {
        // SAFETY: the caller has found NEON and promises the floats.
        unsafe { vld1q_f32(from) }
    }

    #[inline(always)]
    unsafe fn add_product(sum: float32x4_t, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: the caller has found NEON.
        unsafe { vfmaq_f32(sum, a, b) }
    }

    #[inline(always)]
    unsafe fn subtract(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: the caller has found NEON.
        unsafe { vsubq_f32(a, b) }
    }

    #[inline(always)]
    unsafe fn sum(lanes: float32x4_t) -> f32 {
        // SAFETY: the caller has found NEON.
        unsafe {
            let two = vadd_f32(vget_low_f32(lanes), vget_high_f32(lanes));
            vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
        }
    }

    #[inline(always)]
    unsafe fn zero_sums() -> int32x4_t {
        // SAFETY: the caller has found NEON.
        unsafe { vdupq_n_s32(0) }
    }

    #[inline(always)]
    unsafe fn load_query(from: *const i16) -> int16x8_t {
        // SAFETY: the caller has found NEON and promises the numbers.
        unsafe { vld1q_s16(from) }
    }

    #[inline(always)]
    unsafe fn load_codes(from: *const i8) -> int16x8_t {
        // SAFETY: the caller has found NEON and promises the codes.
        unsafe { vmovl_s8(vld1_s8(from)) }
    }

    #[inline(always)]
    unsafe fn add_codes(sum: int32x4_t, query: int16x8_t, codes: int16x8_t) -> int32x4_t {
        // SAFETY: the caller has found NEON.
        unsafe { vmlal_high_s16(vmlal_s16(sum, vget_low_s16(query), vget_low_s16(codes)), query, codes) }
    }

    #[inline(always)]
    unsafe fn sum_codes(sum: int32x4_t) -> i32 {
        // SAFETY: the caller has found NEON.
        unsafe { vaddvq_s32(sum) }
    }
}

/// # Safety
/// As [`tile::scores`]; the processor has NEON.
#[target_feature(enable = "neon")]
pub(super) unsafe fn scores(job: &ScoreJob) {
    // SAFETY: the caller's promise is passed on. 32 registers: 24 sums, 6 rows, one query.
    unsafe { tile::scores::<Neon, 4, 6, 1>(job) }
}

/// # Safety
/// As [`tile::code_sums`]; the processor has NEON.
#[target_feature(enable = "neon")]
pub(super) unsafe fn code_sums(job: &CodeSums) {
    // SAFETY: the caller's promise is passed on. 32 registers: 16 sums, 4 rows, one query.
    unsafe { tile::code_sums::<Neon, 4, 4, 2>(job) }
}
