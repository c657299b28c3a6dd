//! Linear layers, with what follows them while a tile of the result is in registers.

use pulp::Simd;

use crate::lanes::{CacheLine, Kernel, LANES, Lanes, dispatch, lines};
use crate::matrix::{Panels, StridedRows, multiply};
use crate::row_ops::Activation;

/// A matrix and a bias as files of weights have them.
#[derive(Clone, Copy)]
pub struct Dense<'a> {
    /// `outputs x inputs`.
    pub weight: &'a [f32],
    /// `outputs`.
    pub bias: &'a [f32],
    /// Both are multiplied by it.
    pub scale: f32,
}

/// A linear layer: `rows x inputs` to `rows x outputs`.
pub struct Linear {
    inputs: usize,
    outputs: usize,
    weight: Panels,
    bias: Vec<CacheLine>,
}

/// What becomes of the sums.
#[derive(Clone, Copy)]
pub(crate) enum Finish {
    /// They are stored.
    Store,
    /// They are stored behind an activation.
    Activate(Activation),
    /// They are added to what is there.
    Add,
}

impl Linear {
    /// A layer whose outputs are those of all parts, one behind the other. Weights are held as f32, 4 bytes a parameter.
    ///
    /// # Panics
    /// If a matrix does not have `inputs` numbers for each number of its bias, or that is 0.
    pub fn new(inputs: usize, parts: &[Dense<'_>]) -> Linear {
        assert!(inputs > 0, "a layer without inputs");
        assert!(
            parts.iter().all(|part| part.weight.len() == inputs * part.bias.len()),
            "a matrix of another shape than its bias"
        );
        let scaled =
            |part: &Dense<'_>| part.weight.iter().map(|weight| weight * part.scale).collect::<Vec<_>>();
        let columns: Vec<f32> = parts.iter().flat_map(scaled).collect();
        let outputs = parts.iter().map(|part| part.bias.len()).sum();
        let mut weight = Panels::default();
        weight.fill_columns(columns.chunks_exact(inputs), inputs);
        let biases = parts.iter().flat_map(|part| part.bias.iter().map(|bias| bias * part.scale));
        let bias = lines(&biases.collect::<Vec<_>>());
        Linear { inputs, outputs, weight, bias }
    }

    /// Numbers of a row that it takes.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Numbers of a row that it makes.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Computes rows on the calling thread.
    ///
    /// # Panics
    /// If there is a part of a row.
    pub fn apply(&self, x: &[f32], activation: Option<Activation>) -> Vec<f32> {
        assert!(x.len().is_multiple_of(self.inputs), "a part of a row");
        let mut y = vec![0.0; x.len() / self.inputs * self.outputs];
        let finish = activation.map_or(Finish::Store, Finish::Activate);
        dispatch(LinearKernel { linear: self, x, y: &mut y, finish });
        y
    }

    /// As [`Linear::apply`], within a kernel; `y` has as many rows as `x`.
    #[inline(always)]
    pub(crate) fn apply_lanes<S: Simd, const N: usize>(
        &self,
        simd: S,
        x: &[f32],
        y: &mut [f32],
        finish: Finish,
    ) {
        let left = StridedRows { values: x, stride: self.inputs, width: self.inputs };
        let count = x.len() / self.inputs;
        for ((n, panel), bias) in self.weight.iter().enumerate().zip(&self.bias) {
            let bias = Lanes::<S, N>::load(&bias.0);
            let first = n * LANES;
            let width = LANES.min(self.outputs - first);
            // The match is outside of the loop over rows, which is compiled for each case.
            match finish {
                Finish::Store => multiply(
                    simd,
                    left,
                    count,
                    panel,
                    #[inline(always)]
                    |row, sums| {
                        sums.add(simd, bias).store_part(&mut y[row * self.outputs + first..][..width]);
                    },
                ),
                Finish::Activate(activation) => multiply(
                    simd,
                    left,
                    count,
                    panel,
                    #[inline(always)]
                    |row, sums| {
                        let sums = activation.apply(simd, sums.add(simd, bias));
                        sums.store_part(&mut y[row * self.outputs + first..][..width]);
                    },
                ),
                Finish::Add => multiply(
                    simd,
                    left,
                    count,
                    panel,
                    #[inline(always)]
                    |row, sums| {
                        let place = &mut y[row * self.outputs + first..][..width];
                        let before = Lanes::load_part(place, 0.0);
                        sums.add(simd, bias).add(simd, before).store_part(place);
                    },
                ),
            }
        }
    }
}

struct LinearKernel<'a> {
    linear: &'a Linear,
    x: &'a [f32],
    y: &'a mut [f32],
    finish: Finish,
}

impl Kernel for LinearKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, const N: usize>(self, simd: S) {
        self.linear.apply_lanes::<S, N>(simd, self.x, self.y, self.finish);
    }
}
