//! The instruction set that every machine has: plain Rust, in lanes that the compiler can put into registers.

use super::SketchSearch;
use super::tile::SimdOps;

/// Floats added side by side.
const LANES: usize = 8;
/// Heads that are compared before what is left of their sketches is.
const STRIP_HEADS: usize = 256;

pub(super) struct Portable;

impl SimdOps for Portable {
    type Floats = [f32; LANES];
    type Sums = i32;
    type Codes = [i16; LANES];
    const FLOATS: usize = LANES;
    const CODES: usize = LANES;

    #[inline(always)]
    unsafe fn zero() -> Self::Floats {
        [0.0; LANES]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::Floats {
        // SAFETY: the caller promises so many floats; an array of floats may lie where a float may.
        unsafe { from.cast::<[f32; LANES]>().read() }
    }

    #[inline(always)]
    unsafe fn add_product(mut sum: Self::Floats, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        for lane in 0..LANES {
            sum[lane] += a[lane] * b[lane];
        }
        sum
    }

    #[inline(always)]
    unsafe fn subtract(mut a: Self::Floats, b: Self::Floats) -> Self::Floats {
        for lane in 0..LANES {
            a[lane] -= b[lane];
        }
        a
    }

    #[inline(always)]
    unsafe fn sum([a, b, c, d, e, f, g, h]: Self::Floats) -> f32 {
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }

    #[inline(always)]
    unsafe fn zero_sums() -> i32 {
        0
    }

    #[inline(always)]
    unsafe fn load_query(from: *const i16) -> Self::Codes {
        // SAFETY: the caller promises so many numbers; an array may lie where its element may.
        unsafe { from.cast::<[i16; LANES]>().read() }
    }

    #[inline(always)]
    unsafe fn load_codes(from: *const i8) -> Self::Codes {
        // SAFETY: the caller promises so many codes; an array may lie where its element may.
        unsafe { from.cast::<[i8; LANES]>().read() }.map(i16::from)
    }

    #[inline(always)]
    unsafe fn add_codes(sum: i32, query: Self::Codes, codes: Self::Codes) -> i32 {
        let mut products = 0;
        for lane in 0..LANES {
            products += i32::from(query[lane]) * i32::from(codes[lane]);
        }
        sum + products
    }

    #[inline(always)]
    unsafe fn sum_codes(sum: i32) -> i32 {
        sum
    }
}

/// # Safety
/// As [`super::tile::scores`].
pub(super) unsafe fn scores(job: &super::tile::ScoreJob) {
    // SAFETY: the caller's promise is passed on; no instructions are needed.
    unsafe { super::tile::scores::<Portable, 2, 2, 2>(job) }
}

/// # Safety
/// As [`super::tile::code_sums`].
pub(super) unsafe fn code_sums(job: &super::tile::CodeSums) {
    // SAFETY: the caller's promise is passed on; no instructions are needed.
    unsafe { super::tile::code_sums::<Portable, 1, 2, 2>(job) }
}

/// As [`super::sketches_within`].
#[inline(always)]
pub(super) fn sketches_within(search: &SketchSearch<'_>, found: &mut Vec<u32>) {
    let mut near = [0; STRIP_HEADS];
    for (strip, heads) in search.heads.chunks(STRIP_HEADS).enumerate() {
        let (first, mut count) = (strip * STRIP_HEADS, 0);
        for (at, head) in heads.iter().enumerate() {
            // Without a branch, which would often be mispredicted.
            near[count] = at;
            count += usize::from(differing(search.query.0, *head) <= search.head_differing_max);
        }
        for &at in &near[..count] {
            let rest = differing(search.query.1, search.rests[first + at]);
            if differing(search.query.0, heads[at]) + rest <= search.differing_max {
                found.push((first + at) as u32);
            }
        }
    }
}

/// In how many bits two sketches differ.
#[inline(always)]
fn differing<const N: usize>(one: [u64; N], other: [u64; N]) -> u32 {
    let mut bits = 0;
    for word in 0..N {
        bits += (one[word] ^ other[word]).count_ones();
    }
    bits
}

/// As [`super::byte_sums`].
pub(super) fn byte_sums(weights: &[i8], bytes: &[u8], rows: &[u32], out: &mut [i32]) {
    for (&row, out) in rows.iter().zip(out) {
        let row = &bytes[row as usize * weights.len()..][..weights.len()];
        *out = row.iter().zip(weights).map(|(&byte, &weight)| i32::from(byte) * i32::from(weight)).sum();
    }
}
