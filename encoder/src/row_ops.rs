//! What is computed row by row: normalization, activations, the exponentials of attention.

use pulp::Simd;

use crate::lanes::{CacheLine, EXPONENT_SHIFT, Kernel, LANES, Lanes, dispatch, lines};

/// The function between the two products of a layer. Fingerprints of models contain these names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// By the error function.
    Gelu,
    /// By the hyperbolic tangent.
    GeluTanh,
    /// The greater of the number and 0.
    Relu,
}

impl Activation {
    #[inline(always)]
    pub(crate) fn apply<S: Simd, const N: usize>(self, simd: S, x: Lanes<S, N>) -> Lanes<S, N> {
        match self {
            Activation::Gelu => gelu(simd, x),
            Activation::GeluTanh => gelu_tanh(simd, x),
            Activation::Relu => x.max(simd, Lanes::splat(simd, 0.0)),
        }
    }
}

/// `x / 2 * (1 + erf(x / sqrt(2)))`.
#[inline(always)]
fn gelu<S: Simd, const N: usize>(simd: S, x: Lanes<S, N>) -> Lanes<S, N> {
    let erf = erf(simd, x.mul(simd, Lanes::splat(simd, std::f32::consts::FRAC_1_SQRT_2)));
    x.mul(simd, Lanes::splat(simd, 0.5)).mul(simd, erf.add(simd, Lanes::splat(simd, 1.0)))
}

/// The error function to a few units in the last place.
///
/// A rational minimax approximation on [-4, 4], outside of which f32 cannot tell erf from +-1; coefficients of Eigen 3.4,
/// `generic_fast_erf_float` in `MathFunctionsImpl.h`.
#[inline(always)]
fn erf<S: Simd, const N: usize>(simd: S, x: Lanes<S, N>) -> Lanes<S, N> {
    let x = x.clamp(simd, -4.0, 4.0);
    let x2 = x.mul(simd, x);
    let p = x2.polynomial(
        simd,
        [
            -2.726_142_3e-10,
            2.770_681_4e-8,
            -2.101_024e-6,
            -5.692_506_5e-5,
            -7.349_906_3e-4,
            -2.954_6e-3,
            -1.609_603_4e-2,
        ],
    );
    let q = x2.polynomial(
        simd,
        [-1.456_607_2e-5, -2.133_740_6e-4, -1.682_827e-3, -7.373_329_2e-3, -1.426_473_9e-2],
    );
    x.mul(simd, p).div(simd, q)
}

/// Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016, section 2: `x / 2 * (1 + tanh(y))`, which is
/// `x - x / (exp(2 y) + 1)`.
#[inline(always)]
fn gelu_tanh<S: Simd, const N: usize>(simd: S, x: Lanes<S, N>) -> Lanes<S, N> {
    const TWICE_SQRT_2_OVER_PI: f32 = 1.595_769;
    let cubic = x.mul(simd, x).mul(simd, x).mul_add(simd, Lanes::splat(simd, 0.044_715), x);
    let exp = exp(simd, cubic.mul(simd, Lanes::splat(simd, TWICE_SQRT_2_OVER_PI)));
    x.sub(simd, x.div(simd, exp.add(simd, Lanes::splat(simd, 1.0))))
}

/// The exponential to two units in the last place, from -87 to 88; outside, that of the nearer end.
///
/// `2^n * exp(r)`, with `n` whole and `r` at most half of ln 2: coefficients of `expf.c` in the Cephes library (Moshier).
#[inline(always)]
pub(crate) fn exp<S: Simd, const N: usize>(simd: S, x: Lanes<S, N>) -> Lanes<S, N> {
    /// ln 2 in two parts: the product of the first one with `n` is exact.
    const LN_2: [f32; 2] = [355.0 / 512.0, -2.121_944_4e-4];
    let x = x.clamp(simd, -87.0, 88.0);
    let shifted =
        x.mul_add(simd, Lanes::splat(simd, std::f32::consts::LOG2_E), Lanes::splat(simd, EXPONENT_SHIFT));
    let n = shifted.sub(simd, Lanes::splat(simd, EXPONENT_SHIFT));
    let r = n.mul_add(simd, Lanes::splat(simd, -LN_2[1]), n.mul_add(simd, Lanes::splat(simd, -LN_2[0]), x));
    let tail =
        r.polynomial(simd, [1.987_569_2e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_66, 0.5]);
    let exp_r = tail.mul_add(simd, r.mul(simd, r), r.add(simd, Lanes::splat(simd, 1.0)));
    exp_r.scale_by_power_of_two(simd, shifted)
}

/// Replaces a row of scores by the exponentials of their differences to the greatest one, and returns the sum of these: the softmax is
/// their quotient. Not a number where a score is not finite, which maxima hide. The row fills whole lines.
#[inline(always)]
pub(crate) fn exponentials<S: Simd, const N: usize>(simd: S, scores: &mut [f32]) -> f32 {
    let (lines, _) = scores.as_chunks_mut::<LANES>();
    let mut greatest = Lanes::<S, N>::splat(simd, f32::NEG_INFINITY);
    let zero = Lanes::<S, N>::splat(simd, 0.0);
    let mut faults = zero;
    for line in &*lines {
        let scores = Lanes::load(line);
        greatest = greatest.max(simd, scores);
        faults = scores.mul_add(simd, zero, faults);
    }
    let greatest = Lanes::splat(simd, greatest.maximum(simd));
    let mut sum = zero;
    for line in lines {
        let exp = exp(simd, Lanes::<S, N>::load(line).sub(simd, greatest));
        exp.store(line);
        sum = sum.add(simd, exp);
    }
    sum.add(simd, faults).sum()
}

/// A layer normalization.
pub struct Norm {
    width: usize,
    weight: Vec<CacheLine>,
    bias: Vec<CacheLine>,
    epsilon: f32,
}

impl Norm {
    /// A normalization of rows as long as `weight`.
    ///
    /// # Panics
    /// If `bias` has another length, or both are empty.
    pub fn new(weight: &[f32], bias: &[f32], epsilon: f32) -> Norm {
        assert!(weight.len() == bias.len() && !weight.is_empty(), "a normalization without a width");
        Norm { width: weight.len(), weight: lines(weight), bias: lines(bias), epsilon }
    }

    /// Numbers of a row.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Normalizes rows in place.
    ///
    /// # Panics
    /// If there is a part of a row.
    pub fn apply(&self, rows: &mut [f32]) {
        assert!(rows.len().is_multiple_of(self.width), "a part of a row");
        dispatch(NormKernel { norm: self, rows });
    }

    /// As [`Norm::apply`], within a kernel.
    #[inline(always)]
    pub(crate) fn apply_lanes<S: Simd, const N: usize>(&self, simd: S, rows: &mut [f32]) {
        for row in rows.chunks_exact_mut(self.width) {
            self.row::<S, N>(simd, row);
        }
    }

    #[inline(always)]
    fn row<S: Simd, const N: usize>(&self, simd: S, row: &mut [f32]) {
        let width = self.width as f32;
        let (full, rest) = row.as_chunks_mut::<LANES>();
        let mut sum = Lanes::<S, N>::load_part(rest, 0.0);
        for x in &*full {
            sum = sum.add(simd, Lanes::load(x));
        }
        let mean = sum.sum() / width;
        let means = Lanes::splat(simd, mean);
        let difference = Lanes::<S, N>::load_part(rest, mean).sub(simd, means);
        let mut squares = difference.mul(simd, difference);
        for x in &*full {
            let difference = Lanes::load(x).sub(simd, means);
            squares = difference.mul_add(simd, difference, squares);
        }
        let scale = Lanes::splat(simd, 1.0 / (squares.sum() / width + self.epsilon).sqrt());
        let count = full.len();
        for ((x, weight), bias) in full.iter_mut().zip(&self.weight).zip(&self.bias) {
            normalized::<S, N>(simd, Lanes::load(x), means, scale, weight, bias).store(x);
        }
        if !rest.is_empty() {
            let x = Lanes::<S, N>::load_part(rest, 0.0);
            normalized(simd, x, means, scale, &self.weight[count], &self.bias[count]).store_part(rest);
        }
    }
}

/// `(x - mean) * scale * weight + bias`.
#[inline(always)]
fn normalized<S: Simd, const N: usize>(
    simd: S,
    x: Lanes<S, N>,
    mean: Lanes<S, N>,
    scale: Lanes<S, N>,
    weight: &CacheLine,
    bias: &CacheLine,
) -> Lanes<S, N> {
    let x = x.sub(simd, mean).mul(simd, scale);
    x.mul_add(simd, Lanes::load(&weight.0), Lanes::load(&bias.0))
}

struct NormKernel<'a> {
    norm: &'a Norm,
    rows: &'a mut [f32],
}

impl Kernel for NormKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, const N: usize>(self, simd: S) {
        self.norm.apply_lanes::<S, N>(simd, self.rows);
    }
}
