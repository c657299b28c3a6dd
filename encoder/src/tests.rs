//! The layers beside the formulas in f64, and a text beside itself in other batches.

use std::f64::consts::{FRAC_2_SQRT_PI, SQRT_2};

use proptest::prelude::*;
use rayon::ThreadPoolBuilder;

use crate::lanes::{Kernel, LANES, Lanes, WithLanes, dispatch};
use crate::{Activation, Dense, Layer, Layers, Linear, Norm};

/// Numbers in [-1, 1) that depend on the seed alone (Knuth's generator, the upper bits).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn take(&mut self, count: usize, scale: f32) -> Vec<f32> {
        (0..count).map(|_| self.next() * scale).collect()
    }
}

/// A matrix and a bias.
struct DenseWeights {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl DenseWeights {
    fn random(numbers: &mut Numbers, inputs: usize, outputs: usize) -> DenseWeights {
        let scale = 1.0 / (inputs as f32).sqrt();
        DenseWeights { weight: numbers.take(inputs * outputs, scale), bias: numbers.take(outputs, 0.1) }
    }

    fn part(&self, scale: f32) -> Dense<'_> {
        Dense { weight: &self.weight, bias: &self.bias, scale }
    }

    /// `x * weight + bias` of one row.
    fn apply(&self, x: &[f64]) -> Vec<f64> {
        let of = |(column, bias): (&[f32], &f32)| {
            let products = column.iter().zip(x).map(|(w, x)| f64::from(*w) * x);
            products.sum::<f64>() + f64::from(*bias)
        };
        self.weight.chunks_exact(x.len()).zip(&self.bias).map(of).collect()
    }
}

struct NormWeights {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

const EPSILON: f32 = 1e-12;

impl NormWeights {
    fn random(numbers: &mut Numbers, width: usize) -> NormWeights {
        let weight = numbers.take(width, 0.5).iter().map(|x| x + 1.0).collect();
        NormWeights { weight, bias: numbers.take(width, 0.1) }
    }

    fn norm(&self) -> Norm {
        Norm::new(&self.weight, &self.bias, EPSILON)
    }

    fn apply(&self, x: &[f64]) -> Vec<f64> {
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
        let scale = 1.0 / (variance + f64::from(EPSILON)).sqrt();
        let weights = self.weight.iter().zip(&self.bias);
        x.iter().zip(weights).map(|(x, (w, b))| (x - mean) * scale * f64::from(*w) + f64::from(*b)).collect()
    }
}

/// One layer in plain sight.
struct LayerWeights {
    query: DenseWeights,
    key: DenseWeights,
    value: DenseWeights,
    attention_output: DenseWeights,
    attention_norm: NormWeights,
    up: DenseWeights,
    down: DenseWeights,
    output_norm: NormWeights,
}

impl LayerWeights {
    fn random(numbers: &mut Numbers, hidden: usize, inner: usize) -> LayerWeights {
        let dense = &mut |inputs, outputs| DenseWeights::random(numbers, inputs, outputs);
        let (query, key, value) = (dense(hidden, hidden), dense(hidden, hidden), dense(hidden, hidden));
        let (attention_output, up, down) =
            (dense(hidden, hidden), dense(hidden, inner), dense(inner, hidden));
        let attention_norm = NormWeights::random(numbers, hidden);
        let output_norm = NormWeights::random(numbers, hidden);
        LayerWeights { query, key, value, attention_output, attention_norm, up, down, output_norm }
    }

    fn layer(&self, heads: usize) -> Layer {
        let hidden = self.query.bias.len();
        let scale = 1.0 / ((hidden / heads) as f32).sqrt();
        let linear =
            |dense: &DenseWeights| Linear::new(dense.weight.len() / dense.bias.len(), &[dense.part(1.0)]);
        Layer {
            query_key_value: Linear::new(
                hidden,
                &[self.query.part(scale), self.key.part(1.0), self.value.part(1.0)],
            ),
            attention_output: linear(&self.attention_output),
            attention_norm: self.attention_norm.norm(),
            up: linear(&self.up),
            down: linear(&self.down),
            output_norm: self.output_norm.norm(),
        }
    }

    /// The layer for one text, by its formulas.
    fn apply(&self, text: &[Vec<f64>], heads: usize, activation: Activation) -> Vec<Vec<f64>> {
        let rows = |dense: &DenseWeights| text.iter().map(|row| dense.apply(row)).collect::<Vec<_>>();
        let (queries, keys, values) = (rows(&self.query), rows(&self.key), rows(&self.value));
        let width = self.query.bias.len() / heads;
        let context = |query: &[f64]| -> Vec<f64> {
            (0..heads)
                .flat_map(|head| weighed(query, &keys, &values, head * width..(head + 1) * width))
                .collect()
        };
        let add = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a + b).collect::<Vec<_>>();
        let rest = |(hidden, query): (&Vec<f64>, &Vec<f64>)| {
            let attended = add(&self.attention_output.apply(&context(query)), hidden);
            let hidden = self.attention_norm.apply(&attended);
            let inner: Vec<f64> =
                self.up.apply(&hidden).into_iter().map(|x| activate(x, activation)).collect();
            self.output_norm.apply(&add(&self.down.apply(&inner), &hidden))
        };
        text.iter().zip(&queries).map(rest).collect()
    }
}

/// The means of the values of a head, weighed by the softmax of the scores of a query.
fn weighed(query: &[f64], keys: &[Vec<f64>], values: &[Vec<f64>], head: std::ops::Range<usize>) -> Vec<f64> {
    let of = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let score =
        |key: &Vec<f64>| (of(&query[head.clone()], &key[head.clone()]) / (head.len() as f64).sqrt()).exp();
    let scores: Vec<f64> = keys.iter().map(score).collect();
    let sum: f64 = scores.iter().sum();
    let mean = |at: usize| scores.iter().zip(values).map(|(score, value)| score / sum * value[at]).sum();
    head.clone().map(mean).collect()
}

fn activate(x: f64, activation: Activation) -> f64 {
    match activation {
        Activation::Gelu => 0.5 * x * (1.0 + erf(x / SQRT_2)),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((FRAC_2_SQRT_PI / SQRT_2) * (x + 0.044715 * x.powi(3))).tanh())
        }
        Activation::Relu => x.max(0.0),
    }
}

/// The error function by its series, exact enough up to 4.
fn erf(x: f64) -> f64 {
    if x.abs() > 4.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..120 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    FRAC_2_SQRT_PI * sum
}

/// Shapes of a network and its texts.
#[derive(Clone, Debug)]
struct Case {
    seed: u64,
    layers: usize,
    heads: usize,
    head_width: usize,
    inner: usize,
    activation: Activation,
    lengths: Vec<usize>,
}

impl Case {
    fn hidden(&self) -> usize {
        self.heads * self.head_width
    }

    fn weights(&self) -> Vec<LayerWeights> {
        let mut numbers = Numbers(self.seed);
        (0..self.layers).map(|_| LayerWeights::random(&mut numbers, self.hidden(), self.inner)).collect()
    }

    fn layers(&self) -> Layers {
        let layers = self.weights().iter().map(|layer| layer.layer(self.heads)).collect();
        Layers::new(layers, self.hidden(), self.heads, self.activation)
    }

    fn embeddings(&self) -> Vec<f32> {
        Numbers(!self.seed).take(self.lengths.iter().sum::<usize>() * self.hidden(), 1.0)
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let activations = prop::sample::select(vec![Activation::Gelu, Activation::GeluTanh, Activation::Relu]);
    let lengths = prop::collection::vec(prop_oneof![8 => 0..120_usize, 1 => 500..513_usize], 1..6);
    (any::<u64>(), 1..3_usize, 1..5_usize, 1..34_usize, 1..80_usize, activations, lengths).prop_map(
        |(seed, layers, heads, head_width, inner, activation, lengths)| Case {
            seed,
            layers,
            heads,
            head_width,
            inner,
            activation,
            lengths,
        },
    )
}

fn run_on(threads: usize, layers: &Layers, embeddings: &[f32], lengths: &[usize]) -> Vec<f32> {
    let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let mut hidden = embeddings.to_vec();
    pool.install(|| layers.run(&mut hidden, lengths));
    hidden
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hidden_states_are_those_of_the_formulas(case in cases()) {
        let hidden = run_on(2, &case.layers(), &case.embeddings(), &case.lengths);
        let (weights, embeddings) = (case.weights(), case.embeddings());
        let mut rows = embeddings.chunks_exact(case.hidden()).zip(hidden.chunks_exact(case.hidden()));
        for &length in &case.lengths {
            let (before, after): (Vec<_>, Vec<_>) = rows.by_ref().take(length).unzip();
            let widen = |row: &[f32]| row.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
            let text = before.into_iter().map(widen).collect();
            let expected =
                weights.iter().fold(text, |text: Vec<_>, layer| layer.apply(&text, case.heads, case.activation));
            for (got, expected) in after.into_iter().flatten().zip(expected.into_iter().flatten()) {
                // A row of one or two numbers is normalized by their difference, which may be tiny.
                let tolerance = if case.hidden() < 8 { 0.05 } else { 2e-4 };
                prop_assert!((f64::from(*got) - expected).abs() < tolerance, "{got} instead of {expected}");
            }
        }
    }

    #[test]
    fn a_text_has_the_same_bits_in_any_batch_on_any_number_of_threads(case in cases(), order in any::<u64>()) {
        let (layers, width) = (case.layers(), case.hidden());
        let embeddings = case.embeddings();
        let mut texts = Vec::new();
        let mut rest = &embeddings[..];
        for &length in &case.lengths {
            let (own, behind) = rest.split_at(length * width);
            texts.push(own);
            rest = behind;
        }
        let alone: Vec<Vec<f32>> = texts.iter().map(|text| run_on(1, &layers, text, &[text.len() / width])).collect();
        let mut numbers = Numbers(order);
        let mut shuffled: Vec<(f32, usize)> = (0..texts.len()).map(|text| (numbers.next(), text)).collect();
        shuffled.sort_by(|a, b| a.0.total_cmp(&b.0));
        let shuffled: Vec<usize> = shuffled.into_iter().map(|(_, text)| text).collect();
        let expected: Vec<f32> = shuffled.iter().flat_map(|&text| alone[text].iter().copied()).collect();
        let batch: Vec<f32> = shuffled.iter().flat_map(|&text| texts[text].iter().copied()).collect();
        let lengths: Vec<usize> = shuffled.iter().map(|&text| case.lengths[text]).collect();
        for threads in [1, 2, 3, 16] {
            let together = run_on(threads, &layers, &batch, &lengths);
            prop_assert!(bits(&together) == bits(&expected), "other bits on {threads} threads");
        }
    }

    /// So processors with a fused multiply-add agree, whatever the width of their registers.
    #[test]
    fn a_number_is_one_chain_of_fused_products(seed: u64, inputs in 1..90_usize, outputs in 1..50_usize, rows in 1..30_usize) {
        let mut numbers = Numbers(seed);
        let dense = DenseWeights::random(&mut numbers, inputs, outputs);
        let x = numbers.take(rows * inputs, 1.0);
        let got = Linear::new(inputs, &[dense.part(1.0)]).apply(&x, None);
        let is_fused = dispatch(IsFused);
        let product = |sum: f32, x: f32, w: f32| if is_fused { x.mul_add(w, sum) } else { sum + x * w };
        let expected: Vec<f32> = x.chunks_exact(inputs).flat_map(|x| {
            let columns = dense.weight.chunks_exact(inputs).zip(&dense.bias);
            columns.map(|(column, bias)| x.iter().zip(column).fold(0.0, |sum, (x, w)| product(sum, *x, *w)) + bias)
        }).collect();
        prop_assert_eq!(bits(&got), bits(&expected));
    }
}

/// Hidden states with each instruction set of this machine, by their names; the first is without one.
fn with_each_set(layers: &Layers, embeddings: &[f32], lengths: &[usize]) -> Vec<(&'static str, Vec<f32>)> {
    let mut states = Vec::new();
    let mut hidden = embeddings.to_vec();
    layers.run_with(pulp::Scalar::new(), &mut hidden, lengths);
    states.push(("none", hidden));
    #[cfg(target_arch = "x86_64")]
    if let Some(set) = pulp::x86::V3::try_new() {
        let mut hidden = embeddings.to_vec();
        layers.run_with(set, &mut hidden, lengths);
        states.push(("AVX2", hidden));
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(set) = pulp::x86::V4::try_new() {
        let mut hidden = embeddings.to_vec();
        layers.run_with(set, &mut hidden, lengths);
        states.push(("AVX-512", hidden));
    }
    states
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn instruction_sets_agree(case in cases()) {
        let (layers, embeddings) = (case.layers(), case.embeddings());
        let best = run_on(1, &layers, &embeddings, &case.lengths);
        for (set, states) in with_each_set(&layers, &embeddings, &case.lengths) {
            if set == "none" {
                let tolerance = if case.hidden() < 8 { 0.05 } else { 2e-4 };
                let is_near = states.iter().zip(&best).all(|(one, two)| (one - two).abs() < tolerance);
                prop_assert!(is_near, "{states:?} without an instruction set, {best:?} with the best");
            } else {
                prop_assert!(bits(&states) == bits(&best), "other bits with {set}");
            }
        }
    }
}

/// Scores that are not finite must not become vectors that are.
#[test]
fn what_is_not_finite_stays_so() {
    let case = Case {
        seed: 1,
        layers: 1,
        heads: 2,
        head_width: 16,
        inner: 16,
        activation: Activation::Gelu,
        lengths: vec![5, 40],
    };
    let mut weights = case.weights();
    let LayerWeights { query, key, .. } = &mut weights[0];
    for dense in [query, key] {
        dense.weight.iter_mut().for_each(|weight| *weight *= 1e20);
    }
    let layers = weights.iter().map(|layer| layer.layer(case.heads)).collect();
    let layers = Layers::new(layers, case.hidden(), case.heads, case.activation);
    for (set, states) in with_each_set(&layers, &case.embeddings(), &case.lengths) {
        assert!(states.iter().all(|state| !state.is_finite()), "{set}: {states:?}");
    }
}

struct IsFused;

impl Kernel for IsFused {
    type Output = bool;

    fn run<S: pulp::Simd, const N: usize>(self, _: S) -> bool {
        S::F32_LANES > 1
    }
}

/// A function of lanes, number by number.
struct EachLane<'a> {
    values: &'a mut [[f32; LANES]],
    function: Function,
}

#[derive(Clone, Copy)]
enum Function {
    Exp,
    Activate(Activation),
}

impl Kernel for EachLane<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: pulp::Simd, const N: usize>(self, simd: S) {
        for values in self.values {
            let x = Lanes::<S, N>::load(values);
            let y = match self.function {
                Function::Exp => crate::row_ops::exp(simd, x),
                Function::Activate(activation) => activation.apply(simd, x),
            };
            y.store(values);
        }
    }
}

/// Runs a function on all numbers from `-limit` to `limit` in steps of 1/64, with each instruction set of this machine and without one.
fn assert_is(function: Function, limit: i32, expected: impl Fn(f64) -> f64, tolerance: impl Fn(f64) -> f64) {
    let inputs: Vec<[f32; LANES]> = (-limit * 4..limit * 4)
        .map(|n| std::array::from_fn(|lane| n as f32 / 4.0 + lane as f32 / 64.0))
        .collect();
    let (mut best, mut scalar) = (inputs.clone(), inputs.clone());
    dispatch(EachLane { values: &mut best, function });
    pulp::WithSimd::with_simd(WithLanes(EachLane { values: &mut scalar, function }), pulp::Scalar::new());
    for ((x, best), scalar) in inputs.iter().flatten().zip(best.iter().flatten()).zip(scalar.iter().flatten())
    {
        let expected = expected(f64::from(*x));
        for got in [best, scalar] {
            let error = (f64::from(*got) - expected).abs();
            assert!(error <= tolerance(expected), "{got} instead of {expected} at {x}");
        }
    }
}

#[test]
fn the_exponential_is_right_to_two_units_in_the_last_place() {
    assert_is(Function::Exp, 87, f64::exp, |exact| exact * 2.5e-7);
}

#[test]
fn activations_are_those_of_their_formulas() {
    for activation in [Activation::Gelu, Activation::GeluTanh, Activation::Relu] {
        assert_is(
            Function::Activate(activation),
            12,
            |x| activate(x, activation),
            |exact| 1e-6_f64.max(exact.abs() * 5e-7),
        );
    }
}
