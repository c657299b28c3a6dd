//! int8 codes of rows, and how far a score by codes can be from the true one.
//!
//! A row `x` is kept as `x' = scale * code`, with `scale = max |x| / 127`, and with `e = |x - x'|`, the length of what the
//! code leaves out. The query `q` is coded likewise as `q'`. Since `q.x = q'.x' + q.(x - x') + (q - q').x'`, Cauchy and
//! Schwarz give
//!
//! ```text
//! |q.x - q'.x'| <= |q| e + |q - q'| |x'|
//! ```
//!
//! and to this comes what rounding in f32 may do to the true score of `n` numbers, at most `n * 2^-23 * |q| |x|`
//! (Higham, "Accuracy and Stability of Numerical Algorithms", section 3.1, with a factor of two to spare).

use crate::kernels::{self, CODE_LANES};
use crate::metric::{Metric, norm};

/// Codes of rows, in their order. Memory: `dim` rounded up to 64, and 16 bytes, for each row.
#[derive(Debug, Clone)]
pub struct Codes {
    dim: usize,
    /// Rows of `dim` codes, padded with zeros to full lanes.
    codes: Vec<i8>,
    facts: Vec<Facts>,
}

/// What is known of a row besides its code.
#[derive(Debug, Clone, Copy)]
struct Facts {
    /// What a code stands for.
    scale: f32,
    /// Sum of the codes: what an unsigned query adds too much.
    sum: i32,
    /// Length of what the code leaves out, rounded up.
    error: f32,
    /// Length of the row, rounded up.
    norm: f32,
}

/// Codes of some rows that stand one after the other.
#[derive(Debug, Clone, Copy)]
pub struct CodesView<'a> {
    dim: usize,
    codes: &'a [i8],
    facts: &'a [Facts],
}

/// A query prepared for scans by code.
#[derive(Debug)]
pub(crate) struct CodedQuery {
    metric: Metric,
    /// Codes moved up by 128, as the instruction wants one unsigned side.
    pub(crate) codes: Vec<u8>,
    scale: f32,
    /// Length of what the codes leave out, rounded up.
    error: f32,
    norm: f32,
    /// What rounding may add, for each unit of `|q| |x|`.
    rounding: f32,
}

/// Rounds a length up by more than its own computation can have lost.
fn up(length: f64) -> f32 {
    (length * (1.0 + 1e-6)) as f32 * (1.0 + f32::EPSILON)
}

/// The scale of a vector, and the length of what its codes leave out.
fn quantise(vector: &[f32], mut each: impl FnMut(i8)) -> (f32, f32) {
    let max = vector.iter().fold(0.0_f32, |max, number| max.max(number.abs()));
    let scale = max / 127.0;
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    let mut error = 0.0_f64;
    for &number in vector {
        // `as` saturates, and takes what is not a number as 0: the error then says the rest.
        let code = (number * inverse).round() as i8;
        let left = f64::from(number) - f64::from(scale) * f64::from(code);
        error += left * left;
        each(code);
    }
    (scale, up(error.sqrt()))
}

impl Codes {
    /// No rows of length `dim`.
    pub fn new(dim: usize) -> Codes {
        Codes { dim, codes: Vec::new(), facts: Vec::new() }
    }

    /// Codes of rows that stand one after the other.
    ///
    /// # Panics
    /// If `rows` does not hold whole rows.
    pub fn of(dim: usize, rows: &[f32]) -> Codes {
        assert!(dim > 0 && rows.len().is_multiple_of(dim), "whole rows of {dim} numbers");
        let mut codes = Codes::new(dim);
        codes.codes.reserve_exact(rows.len() / dim * stride(dim));
        codes.facts.reserve_exact(rows.len() / dim);
        rows.chunks_exact(dim).for_each(|row| codes.push(row));
        codes
    }

    /// Adds a row.
    ///
    /// # Panics
    /// If it has another length.
    pub fn push(&mut self, row: &[f32]) {
        assert_eq!(row.len(), self.dim, "rows have one length");
        let mut sum = 0;
        let (scale, error) = quantise(row, |code| {
            sum += i32::from(code);
            self.codes.push(code);
        });
        self.facts.push(Facts { scale, sum, error, norm: up(norm(row)) });
        self.codes.resize(self.facts.len() * stride(self.dim), 0);
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.facts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.facts.is_empty()
    }

    /// What they take of memory.
    pub fn memory_bytes(&self) -> usize {
        self.codes.capacity() + self.facts.capacity() * size_of::<Facts>()
    }

    /// All of them.
    pub fn view(&self) -> CodesView<'_> {
        CodesView { dim: self.dim, codes: &self.codes, facts: &self.facts }
    }
}

impl<'a> CodesView<'a> {
    pub(crate) fn len(&self) -> usize {
        self.facts.len()
    }

    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    /// The rows from `from` to before `to`.
    pub(crate) fn slice(&self, from: usize, to: usize) -> CodesView<'a> {
        let stride = stride(self.dim);
        CodesView {
            dim: self.dim,
            codes: &self.codes[from * stride..to * stride],
            facts: &self.facts[from..to],
        }
    }

    /// For every query and row, a score that the true one does not exceed. `sums` is room to work in.
    pub(crate) fn bounds(
        &self,
        queries: &[&CodedQuery],
        sums: &mut Vec<i32>,
        mut each: impl FnMut(usize, usize, f32),
    ) {
        let rows = self.len();
        sums.clear();
        sums.resize(rows * queries.len(), 0);
        kernels::get().code_sums(queries, self.codes, stride(self.dim), sums);
        for (at, query) in queries.iter().enumerate() {
            for (row, (facts, &sum)) in self.facts.iter().zip(&sums[at * rows..]).enumerate() {
                each(at, row, query.upper_bound(facts, sum));
            }
        }
    }
}

impl CodedQuery {
    pub(crate) fn new(metric: Metric, query: &[f32]) -> CodedQuery {
        let mut codes = Vec::with_capacity(stride(query.len()));
        let (scale, error) = quantise(query, |code| codes.push((i16::from(code) + 128) as u8));
        codes.resize(stride(query.len()), 128);
        let rounding = (query.len() + 16) as f32 * f32::EPSILON;
        CodedQuery { metric, codes, scale, error, norm: up(norm(query)), rounding }
    }

    /// What the score with a row does not exceed.
    #[inline]
    fn upper_bound(&self, row: &Facts, sum: i32) -> f32 {
        let product = self.scale * row.scale * (sum - 128 * row.sum) as f32;
        let error = self.norm * row.error + self.error * (row.norm + row.error);
        match self.metric {
            Metric::Cosine | Metric::InnerProduct => product + error + self.rounding * self.norm * row.norm,
            Metric::L2 => {
                let (q, x) = (self.norm, row.norm);
                // The norms are rounded up by parts in a million, and the sum of squares rounds too.
                let slack = (self.rounding + 8e-6) * (q + x) * (q + x);
                2.0 * (product + error) - (q * q + x * x) + slack
            }
        }
    }
}

/// Codes of one row with their padding.
fn stride(dim: usize) -> usize {
    dim.next_multiple_of(CODE_LANES)
}
