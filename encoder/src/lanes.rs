//! Sixteen numbers at a time, in as many registers as the processor needs for them.
//!
//! All instruction sets compute each lane alike and add lanes in one order, so that AVX-512, AVX2 and NEON, which have a fused
//! multiply-add, get the same bits.

use pulp::{Arch, Simd, WithSimd};

/// Numbers that are computed at a time.
pub(crate) const LANES: usize = 16;

/// Sixteen numbers in a line of the cache.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(64))]
pub(crate) struct CacheLine(pub(crate) [f32; LANES]);

impl CacheLine {
    pub(crate) const ZERO: CacheLine = CacheLine([0.0; LANES]);
}

/// The lines that `values` fill; the last one is filled up with zeros.
pub(crate) fn lines(values: &[f32]) -> Vec<CacheLine> {
    values.chunks(LANES).map(padded).map(CacheLine).collect()
}

/// At most sixteen numbers, and zeros behind them.
fn padded(values: &[f32]) -> [f32; LANES] {
    let mut all = [0.0; LANES];
    all[..values.len()].copy_from_slice(values);
    all
}

/// A computation on lanes, compiled once for each instruction set.
pub(crate) trait Kernel {
    /// What it returns.
    type Output;

    /// Sixteen lanes are in `N` registers.
    fn run<S: Simd, const N: usize>(self, simd: S) -> Self::Output;
}

/// Runs a kernel with the best instruction set of this processor.
pub(crate) fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    Arch::new().dispatch(WithLanes(kernel))
}

/// The instruction set of all passes: `AVX-512`, `AVX2`, `NEON` or `none`.
pub fn instruction_set() -> &'static str {
    dispatch(NameOfSet)
}

struct NameOfSet;

impl Kernel for NameOfSet {
    type Output = &'static str;

    fn run<S: Simd, const N: usize>(self, _: S) -> &'static str {
        match S::F32_LANES {
            16 => "AVX-512",
            8 => "AVX2",
            4 => "NEON",
            _ => "none",
        }
    }
}

/// A kernel behind the interface of `pulp`.
pub(crate) struct WithLanes<K>(pub(crate) K);

impl<K: Kernel> WithSimd for WithLanes<K> {
    type Output = K::Output;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> K::Output {
        match S::F32_LANES {
            16 => self.0.run::<S, 1>(simd),
            8 => self.0.run::<S, 2>(simd),
            4 => self.0.run::<S, 4>(simd),
            1 => self.0.run::<S, 16>(simd),
            lanes => unreachable!("registers of {lanes} numbers"),
        }
    }
}

/// Sixteen numbers in `N` registers.
#[derive(Clone, Copy)]
pub(crate) struct Lanes<S: Simd, const N: usize>([S::f32s; N]);

impl<S: Simd, const N: usize> Lanes<S, N> {
    #[inline(always)]
    pub(crate) fn splat(simd: S, value: f32) -> Lanes<S, N> {
        Lanes([simd.splat_f32s(value); N])
    }

    #[inline(always)]
    pub(crate) fn load(from: &[f32; LANES]) -> Lanes<S, N> {
        let from = S::as_simd_f32s(from).0;
        let mut registers = [from[0]; N];
        registers.copy_from_slice(from);
        Lanes(registers)
    }

    /// At most sixteen numbers; the lanes behind them are `rest`.
    #[inline(always)]
    pub(crate) fn load_part(from: &[f32], rest: f32) -> Lanes<S, N> {
        match <&[f32; LANES]>::try_from(from) {
            Ok(all) => Lanes::load(all),
            Err(_) => {
                let mut all = [rest; LANES];
                all[..from.len()].copy_from_slice(from);
                Lanes::load(&all)
            }
        }
    }

    #[inline(always)]
    pub(crate) fn store(self, to: &mut [f32; LANES]) {
        S::as_mut_simd_f32s(to).0.copy_from_slice(&self.0);
    }

    /// Stores the first lanes in at most sixteen places.
    #[inline(always)]
    pub(crate) fn store_part(self, to: &mut [f32]) {
        match <&mut [f32; LANES]>::try_from(&mut *to) {
            Ok(all) => self.store(all),
            Err(_) => to.copy_from_slice(&self.to_array()[..to.len()]),
        }
    }

    #[inline(always)]
    fn to_array(self) -> [f32; LANES] {
        let mut all = [0.0; LANES];
        self.store(&mut all);
        all
    }

    #[inline(always)]
    fn zip(mut self, other: Lanes<S, N>, compute: impl Fn(S::f32s, S::f32s) -> S::f32s) -> Lanes<S, N> {
        for n in 0..N {
            self.0[n] = compute(self.0[n], other.0[n]);
        }
        self
    }

    #[inline(always)]
    pub(crate) fn add(self, simd: S, other: Lanes<S, N>) -> Lanes<S, N> {
        self.zip(
            other,
            #[inline(always)]
            |a, b| simd.add_f32s(a, b),
        )
    }

    #[inline(always)]
    pub(crate) fn sub(self, simd: S, other: Lanes<S, N>) -> Lanes<S, N> {
        self.zip(
            other,
            #[inline(always)]
            |a, b| simd.sub_f32s(a, b),
        )
    }

    #[inline(always)]
    pub(crate) fn mul(self, simd: S, other: Lanes<S, N>) -> Lanes<S, N> {
        self.zip(
            other,
            #[inline(always)]
            |a, b| simd.mul_f32s(a, b),
        )
    }

    #[inline(always)]
    pub(crate) fn div(self, simd: S, other: Lanes<S, N>) -> Lanes<S, N> {
        self.zip(
            other,
            #[inline(always)]
            |a, b| simd.div_f32s(a, b),
        )
    }

    #[inline(always)]
    pub(crate) fn max(self, simd: S, other: Lanes<S, N>) -> Lanes<S, N> {
        self.zip(
            other,
            #[inline(always)]
            |a, b| simd.max_f32s(a, b),
        )
    }

    #[inline(always)]
    fn min(self, simd: S, other: Lanes<S, N>) -> Lanes<S, N> {
        self.zip(
            other,
            #[inline(always)]
            |a, b| simd.min_f32s(a, b),
        )
    }

    #[inline(always)]
    pub(crate) fn clamp(self, simd: S, low: f32, high: f32) -> Lanes<S, N> {
        let (low, high) = (Lanes::splat(simd, low), Lanes::splat(simd, high));
        self.max(simd, low).min(simd, high)
    }

    /// `self * factor + sum`, rounded once where the processor can.
    #[inline(always)]
    pub(crate) fn mul_add(mut self, simd: S, factor: Lanes<S, N>, sum: Lanes<S, N>) -> Lanes<S, N> {
        for n in 0..N {
            self.0[n] = mul_add(simd, self.0[n], factor.0[n], sum.0[n]);
        }
        self
    }

    /// A polynomial by Horner's rule, the coefficient of the highest power first.
    #[inline(always)]
    pub(crate) fn polynomial<const C: usize>(self, simd: S, coefficients: [f32; C]) -> Lanes<S, N> {
        let mut sum = Lanes::splat(simd, coefficients[0]);
        for coefficient in &coefficients[1..] {
            sum = sum.mul_add(simd, self, Lanes::splat(simd, *coefficient));
        }
        sum
    }

    /// `self * 2^n`, where `shifted` is the whole number `n` plus [`EXPONENT_SHIFT`].
    #[inline(always)]
    pub(crate) fn scale_by_power_of_two(self, simd: S, shifted: Lanes<S, N>) -> Lanes<S, N> {
        let exponent_bits = simd.splat_u32s(f32::MANTISSA_DIGITS - 1);
        self.zip(
            shifted,
            #[inline(always)]
            |x, shifted| {
                let power = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted), exponent_bits);
                simd.transmute_f32s_u32s(simd.add_u32s(simd.transmute_u32s_f32s(x), power))
            },
        )
    }

    /// The sum of all lanes: halves are added until one number is left.
    #[inline(always)]
    pub(crate) fn sum(self) -> f32 {
        let mut all = self.to_array();
        let mut half = LANES / 2;
        while half > 0 {
            for n in 0..half {
                all[n] += all[n + half];
            }
            half /= 2;
        }
        all[0]
    }

    /// The greatest lane.
    #[inline(always)]
    pub(crate) fn maximum(self, simd: S) -> f32 {
        let mut greatest = self.0[0];
        for n in 1..N {
            greatest = simd.max_f32s(greatest, self.0[n]);
        }
        simd.reduce_max_f32s(greatest)
    }

    /// Adds the products of `factor` and these lanes to `sums`.
    #[inline(always)]
    pub(crate) fn add_products(self, simd: S, factor: f32, sums: &mut Lanes<S, N>) {
        let factor = simd.splat_f32s(factor);
        for n in 0..N {
            sums.0[n] = mul_add(simd, factor, self.0[n], sums.0[n]);
        }
    }
}

/// Added to a whole number below 2^22, it puts the number into the lowest bits of the f32.
pub(crate) const EXPONENT_SHIFT: f32 = 12_582_912.0;

#[inline(always)]
fn mul_add<S: Simd>(simd: S, a: S::f32s, b: S::f32s, c: S::f32s) -> S::f32s {
    // Without an instruction set there is no fused multiply-add: the library's takes a hundred times as long.
    if S::F32_LANES == 1 { simd.add_f32s(simd.mul_f32s(a, b), c) } else { simd.mul_add_f32s(a, b, c) }
}
