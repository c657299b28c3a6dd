//! What a pass costs, and how fast this machine computes.

use std::time::{Duration, Instant};

use rayon::prelude::*;

use crate::linear::{Dense, Linear};

/// Operations of a pass: one multiply-add is two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassCost {
    /// Of a token, in the linear layers.
    pub(crate) per_token: u64,
    /// Of a pair of tokens of one text, in attention.
    pub(crate) per_pair: u64,
}

impl PassCost {
    /// Operations for texts of these numbers of tokens.
    pub fn operations(self, lengths: &[usize]) -> u64 {
        let of = |length: u64| length * self.per_token + length * length * self.per_pair;
        lengths.iter().map(|&length| of(length as u64)).sum()
    }
}

/// Operations a second of this crate's own products of matrices, 480 x 384 x 384 on each thread of the current pool: what a pass would reach if it
/// had nothing else to do, and its weights in the cache. The best of many products within `time`.
pub fn product_rate(time: Duration) -> f64 {
    const ROWS: usize = 480;
    const INPUTS: usize = 384;
    const OUTPUTS: usize = 384;
    let weight: Vec<f32> = (0..INPUTS * OUTPUTS).map(|n| (n % 17) as f32 / 17.0).collect();
    let linear = Linear::new(INPUTS, &[Dense { weight: &weight, bias: &[0.0; OUTPUTS], scale: 1.0 }]);
    let x: Vec<f32> = (0..ROWS * INPUTS).map(|n| (n % 13) as f32 / 13.0).collect();
    let threads = rayon::current_num_threads();
    let began = Instant::now();
    let mut best = 0.0_f64;
    while best == 0.0 || began.elapsed() < time {
        let started = Instant::now();
        (0..threads).into_par_iter().with_max_len(1).for_each(|_| {
            std::hint::black_box(linear.apply(&x, None));
        });
        let operations = (2 * threads * ROWS * INPUTS * OUTPUTS) as f64;
        best = best.max(operations / started.elapsed().as_secs_f64());
    }
    best
}
