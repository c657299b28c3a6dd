//! Fused element-wise operations in place: bias, or bias and activation, in one pass over the rows.

use candle_core::{CpuStorage, InplaceOp2, Layout, Result};
use rayon::prelude::*;

/// Rows of one task of the thread pool; fewer do not pay for its overhead.
const ROWS_PER_TASK: usize = 16;
/// Numbers of one task, where there are no rows.
const NUMBERS_PER_TASK: usize = 8192;

/// `x + bias`.
pub(super) struct AddBias;
/// `x + y`, of two tensors of one shape. Candle's own sum computes on threads that all passes of the process share.
pub(super) struct AddTensor;
/// `gelu(x + bias)`, by the error function.
pub(super) struct Gelu;
/// `gelu(x + bias)`, by the hyperbolic tangent.
pub(super) struct GeluTanh;
/// `max(0, x + bias)`.
pub(super) struct Relu;

macro_rules! in_place {
    ($op:ty, $name:literal, $activation:expr) => {
        impl InplaceOp2 for $op {
            fn name(&self) -> &'static str {
                $name
            }

            /// `x` is `rows x width`, `bias` is `width`; both contiguous.
            fn cpu_fwd(&self, x: &mut CpuStorage, lx: &Layout, bias: &CpuStorage, lb: &Layout) -> Result<()> {
                let (CpuStorage::F32(x), CpuStorage::F32(bias)) = (x, bias) else {
                    candle_core::bail!("{} takes f32", $name)
                };
                let (Some((from, to)), Some((bias_from, bias_to))) =
                    (lx.contiguous_offsets(), lb.contiguous_offsets())
                else {
                    candle_core::bail!("{} takes contiguous tensors", $name)
                };
                let bias = &bias[bias_from..bias_to];
                x[from..to].par_chunks_mut(ROWS_PER_TASK * bias.len()).for_each(|rows| {
                    for row in rows.chunks_exact_mut(bias.len()) {
                        for (x, b) in row.iter_mut().zip(bias) {
                            *x = $activation(*x + *b);
                        }
                    }
                });
                Ok(())
            }
        }
    };
}

in_place!(AddBias, "add-bias", |x: f32| x);
in_place!(Gelu, "bias-gelu", |x: f32| 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)));
in_place!(GeluTanh, "bias-gelu-tanh", gelu_tanh);
in_place!(Relu, "bias-relu", |x: f32| x.max(0.0));

impl InplaceOp2 for AddTensor {
    fn name(&self) -> &'static str {
        "add-tensor"
    }

    /// Both contiguous.
    fn cpu_fwd(&self, x: &mut CpuStorage, lx: &Layout, y: &CpuStorage, ly: &Layout) -> Result<()> {
        let (CpuStorage::F32(x), CpuStorage::F32(y)) = (x, y) else {
            candle_core::bail!("add-tensor takes f32")
        };
        let (Some((from, to)), Some((y_from, y_to))) = (lx.contiguous_offsets(), ly.contiguous_offsets())
        else {
            candle_core::bail!("add-tensor takes contiguous tensors")
        };
        if to - from != y_to - y_from {
            candle_core::bail!("add-tensor takes tensors of one shape")
        }
        let pieces = x[from..to].par_chunks_mut(NUMBERS_PER_TASK);
        pieces.zip(y[y_from..y_to].par_chunks(NUMBERS_PER_TASK)).for_each(|(x, y)| {
            x.iter_mut().zip(y).for_each(|(x, y)| *x += *y);
        });
        Ok(())
    }
}

fn gelu_tanh(x: f32) -> f32 {
    // Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016, section 2.
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    0.5 * x * (1.0 + (SQRT_2_OVER_PI * (x + 0.044_715 * x * x * x)).tanh())
}

/// The error function to a few units in the last place, without a branch, so that the loop around it is vectorised.
///
/// A rational minimax approximation on [-4, 4], outside of which f32 cannot tell erf from +-1; coefficients of Eigen 3.4,
/// `generic_fast_erf_float` in `MathFunctionsImpl.h`.
#[inline]
fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let x2 = x * x;
    let mut p = -2.726_142_3e-10;
    for c in [2.770_681_4e-8, -2.101_024e-6, -5.692_506_5e-5, -7.349_906_3e-4, -2.954_6e-3, -1.609_603_4e-2] {
        p = p * x2 + c;
    }
    let mut q = -1.456_607_2e-5;
    for c in [-2.133_740_6e-4, -1.682_827e-3, -7.373_329_2e-3, -1.426_473_9e-2] {
        q = q * x2 + c;
    }
    x * p / q
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};

    #[test]
    fn gelu_is_that_of_the_error_function() {
        let values: Vec<f32> = (-1200..=1200).map(|n| n as f32 / 100.0).collect();
        let n = values.len();
        let x = Tensor::from_vec(values, (1, n), &Device::Cpu).unwrap();
        let expected = x.gelu_erf().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        x.inplace_op2(&Tensor::zeros(n, candle_core::DType::F32, &Device::Cpu).unwrap(), &Gelu).unwrap();
        let got = x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (got, expected) in got.iter().zip(&expected) {
            assert!(
                (got - expected).abs() <= 1e-6_f32.max(expected.abs() * 5e-7),
                "{got} instead of {expected}"
            );
        }
    }

    #[test]
    fn the_bias_is_added_to_every_row() {
        let x = Tensor::zeros((40, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
        x.inplace_op2(&Tensor::new(&[-1.0_f32, 0.0, 2.0], &Device::Cpu).unwrap(), &Relu).unwrap();
        assert_eq!(x.to_vec2::<f32>().unwrap(), vec![vec![0.0, 0.0, 2.0]; 40]);
    }
}
