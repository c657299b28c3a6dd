//! The two inner loops, written once for all instruction sets: scores of floats, and integer sums of codes.
//!
//! Both work on tiles of some queries by some rows whose sums stay in registers. A pair's sum is added in the same order
//! in a tile of any shape: component `i` goes to lane `i % FLOATS`, then the lanes are added in the order of
//! [`SimdOps::sum`]. That is what makes every scan bit-equal to the score of a single pair.

/// Registers of one instruction set and what is done with them.
///
/// # Safety
/// All methods need a processor with the set, and inlining into a function that enables it; those that load need so many
/// values as the constant says.
pub(super) trait SimdOps {
    /// `FLOATS` floats.
    type Floats: Copy;
    /// Sums of products of codes.
    type Sums: Copy;
    /// `CODES` numbers of 16 bits.
    type Codes: Copy;
    /// Floats in a register.
    const FLOATS: usize;
    /// Codes taken in one step; divides [`super::CODES_MULTIPLE`].
    const CODES: usize;

    unsafe fn zero() -> Self::Floats;
    unsafe fn load(from: *const f32) -> Self::Floats;
    /// `sum + a * b` in each lane.
    unsafe fn add_product(sum: Self::Floats, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a - b` in each lane.
    unsafe fn subtract(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// All lanes together, in a fixed order.
    unsafe fn sum(lanes: Self::Floats) -> f32;

    unsafe fn zero_sums() -> Self::Sums;
    unsafe fn load_query(from: *const i16) -> Self::Codes;
    unsafe fn load_codes(from: *const i8) -> Self::Codes;
    /// Adds the products of `query` and `codes` to the sums.
    unsafe fn add_codes(sum: Self::Sums, query: Self::Codes, codes: Self::Codes) -> Self::Sums;
    unsafe fn sum_codes(sum: Self::Sums) -> i32;

    /// Asks for what will be read soon; any address may be named, and nothing happens where the set has no such thing.
    unsafe fn prefetch(_at: *const u8) {}
}

/// What the memory brings at a time.
const LINE_BYTES: usize = 64;
/// How far ahead rows are asked for, a row more than this: measured at 384 dimensions on an AMD EPYC of family 25
/// (November 2026), where a single query then reads as fast as memory does.
const FLOATS_AHEAD_BYTES: usize = 5120;
const CODES_AHEAD_BYTES: usize = 2048;

/// The most floats of a register.
const FLOATS_MAX: usize = 16;

/// Scores of all pairs of queries and rows; `out` is queries x rows.
pub(super) struct ScoreJob {
    pub(super) is_distance: bool,
    pub(super) queries: Floats,
    pub(super) rows: Floats,
    pub(super) dim: usize,
    pub(super) out: *mut f32,
}

/// Vectors of floats, `stride` floats apart.
#[derive(Clone, Copy)]
pub(super) struct Floats {
    pub(super) start: *const f32,
    pub(super) stride: usize,
    pub(super) len: usize,
}

/// Sums of products of all pairs of coded queries and coded rows, both `stride` apart; `out` is queries x rows.
pub(super) struct CodeSums {
    pub(super) queries: *const i16,
    pub(super) queries_len: usize,
    pub(super) rows: *const i8,
    pub(super) rows_len: usize,
    pub(super) stride: usize,
    pub(super) out: *mut i32,
}

/// Scores in tiles of `Q` queries by `R` rows; of one query by `S` rows where there are fewer than `Q` queries.
///
/// # Safety
/// The processor has `A`, and the caller enables it. All vectors of the job can be read, and `out` can be written.
#[inline(always)]
pub(super) unsafe fn scores<A: SimdOps, const Q: usize, const R: usize, const S: usize>(job: &ScoreJob) {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        match (job.is_distance, job.queries.len < Q) {
            (false, false) => score_tiles::<A, false, Q, R>(job),
            (false, true) => score_tiles::<A, false, 1, S>(job),
            (true, false) => score_tiles::<A, true, Q, R>(job),
            (true, true) => score_tiles::<A, true, 1, S>(job),
        }
    }
}

/// # Safety
/// As [`scores`].
#[inline(always)]
unsafe fn score_tiles<A: SimdOps, const D: bool, const Q: usize, const R: usize>(job: &ScoreJob) {
    let (queries, rows) = (job.queries.len, job.rows.len);
    let mut row = 0;
    while row + R <= rows {
        let mut query = 0;
        // SAFETY: `query + Q <= queries` and `row + R <= rows`, in every call as its loop says.
        unsafe {
            while query + Q <= queries {
                score_tile::<A, D, Q, R>(job, query, row);
                query += Q;
            }
            while query < queries {
                score_tile::<A, D, 1, R>(job, query, row);
                query += 1;
            }
        }
        row += R;
    }
    while row < rows {
        for query in 0..queries {
            // SAFETY: `query < queries` and `row < rows`.
            unsafe { score_tile::<A, D, 1, 1>(job, query, row) };
        }
        row += 1;
    }
}

/// # Safety
/// As [`scores`]; the queries from `query` to `query + Q` and the rows from `row` to `row + R` exist.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "two arrays side by side, unrolled into registers")]
unsafe fn score_tile<A: SimdOps, const D: bool, const Q: usize, const R: usize>(
    job: &ScoreJob,
    query: usize,
    row: usize,
) {
    // SAFETY: the vectors exist, each has `dim` floats, and `at + FLOATS <= dim` where a whole register is loaded.
    unsafe {
        let queries = job.queries.start.add(query * job.queries.stride);
        let rows = job.rows.start.add(row * job.rows.stride);
        let ahead = 1 + FLOATS_AHEAD_BYTES / (job.rows.stride * size_of::<f32>()).max(1);
        let mut sums = [[A::zero(); R]; Q];
        let mut at = 0;
        while at + A::FLOATS <= job.dim {
            let mut loaded = [A::zero(); R];
            for r in 0..R {
                loaded[r] = A::load(rows.add(r * job.rows.stride + at));
                if Q == 1 && at.is_multiple_of(LINE_BYTES / size_of::<f32>()) {
                    A::prefetch(rows.wrapping_add((r + ahead) * job.rows.stride + at).cast());
                }
            }
            for q in 0..Q {
                let query = A::load(queries.add(q * job.queries.stride + at));
                for r in 0..R {
                    sums[q][r] = step::<A, D>(sums[q][r], query, loaded[r]);
                }
            }
            at += A::FLOATS;
        }
        if at < job.dim {
            for q in 0..Q {
                let query = load_rest::<A>(queries.add(q * job.queries.stride + at), job.dim - at);
                for r in 0..R {
                    let row = load_rest::<A>(rows.add(r * job.rows.stride + at), job.dim - at);
                    sums[q][r] = step::<A, D>(sums[q][r], query, row);
                }
            }
        }
        for q in 0..Q {
            for r in 0..R {
                let sum = A::sum(sums[q][r]);
                let score = if D { 0.0 - sum } else { sum };
                // What is not a number must rank somewhere: last.
                let score = if score >= f32::NEG_INFINITY { score } else { f32::NEG_INFINITY };
                job.out.add((query + q) * job.rows.len + row + r).write(score);
            }
        }
    }
}

/// # Safety
/// The processor has `A`, and the caller enables it.
#[inline(always)]
unsafe fn step<A: SimdOps, const D: bool>(sum: A::Floats, query: A::Floats, row: A::Floats) -> A::Floats {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        if D {
            let difference = A::subtract(query, row);
            A::add_product(sum, difference, difference)
        } else {
            A::add_product(sum, query, row)
        }
    }
}

/// Loads fewer floats than a register holds, and zeros, which change neither a product's sum nor a distance.
///
/// # Safety
/// The processor has `A`, and the caller enables it; `len < FLOATS` floats can be read.
#[inline(always)]
unsafe fn load_rest<A: SimdOps>(from: *const f32, len: usize) -> A::Floats {
    let mut padded = [0.0; FLOATS_MAX];
    // SAFETY: `len < FLOATS <= FLOATS_MAX`.
    unsafe {
        std::ptr::copy_nonoverlapping(from, padded.as_mut_ptr(), len);
        A::load(padded.as_ptr())
    }
}

/// Integer sums in tiles of `Q` queries by `R` rows; of one query by `S` rows where there are fewer than `Q` queries.
///
/// # Safety
/// The processor has `A`, and the caller enables it. `stride` is a multiple of `CODES`; all vectors of the job can be
/// read, and `out` can be written. No sum of absolute products of a pair passes `i32::MAX`.
#[inline(always)]
pub(super) unsafe fn code_sums<A: SimdOps, const Q: usize, const R: usize, const S: usize>(job: &CodeSums) {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        if job.queries_len < Q {
            code_tiles::<A, 1, S>(job);
        } else {
            code_tiles::<A, Q, R>(job);
        }
    }
}

/// # Safety
/// As [`code_sums`].
#[inline(always)]
unsafe fn code_tiles<A: SimdOps, const Q: usize, const R: usize>(job: &CodeSums) {
    let (queries, rows) = (job.queries_len, job.rows_len);
    let mut row = 0;
    while row + R <= rows {
        let mut query = 0;
        // SAFETY: `query + Q <= queries` and `row + R <= rows`, in every call as its loop says.
        unsafe {
            while query + Q <= queries {
                code_tile::<A, Q, R>(job, query, row);
                query += Q;
            }
            while query < queries {
                code_tile::<A, 1, R>(job, query, row);
                query += 1;
            }
        }
        row += R;
    }
    while row < rows {
        for query in 0..queries {
            // SAFETY: `query < queries` and `row < rows`.
            unsafe { code_tile::<A, 1, 1>(job, query, row) };
        }
        row += 1;
    }
}

/// # Safety
/// As [`code_sums`]; the queries from `query` to `query + Q` and the rows from `row` to `row + R` exist.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "two arrays side by side, unrolled into registers")]
unsafe fn code_tile<A: SimdOps, const Q: usize, const R: usize>(job: &CodeSums, query: usize, row: usize) {
    // SAFETY: the vectors exist, and each has `stride` numbers, which is a multiple of the step.
    unsafe {
        let queries = job.queries.add(query * job.stride);
        let rows = job.rows.add(row * job.stride);
        let ahead = 1 + CODES_AHEAD_BYTES / job.stride;
        let mut sums = [[A::zero_sums(); R]; Q];
        let mut at = 0;
        while at < job.stride {
            let mut loaded = [A::load_codes(rows.add(at)); R];
            for r in 0..R {
                loaded[r] = A::load_codes(rows.add(r * job.stride + at));
                if Q == 1 && at.is_multiple_of(LINE_BYTES) {
                    A::prefetch(rows.wrapping_add((r + ahead) * job.stride + at).cast());
                }
            }
            for q in 0..Q {
                let query = A::load_query(queries.add(q * job.stride + at));
                for r in 0..R {
                    sums[q][r] = A::add_codes(sums[q][r], query, loaded[r]);
                }
            }
            at += A::CODES;
        }
        for q in 0..Q {
            for r in 0..R {
                job.out.add((query + q) * job.rows_len + row + r).write(A::sum_codes(sums[q][r]));
            }
        }
    }
}
