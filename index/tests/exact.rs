//! Goal: whatever path a search takes, its result is bit for bit that of the naive loop. Method: random blocks of every
//! shape and kind of numbers, searched by the scanner and by the loop, with one thread and with several.

#![expect(clippy::unwrap_used, reason = "a test stops where something is missing")]

use std::sync::LazyLock;

use likewise_index::{Bits, Block, Codes, Metric, Neighbor, Scanner, score, scores};
use ndarray::{Array2, ArrayView2, s};
use proptest::prelude::*;

/// Numbers from -1 to 1 of a linear congruential generator (Knuth, MMIX).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// What the numbers of a case are like.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Around zero, multiplied by this.
    Scaled(f32),
    /// All the same number.
    Constant(f32),
    /// From a few values, so that many rows are equal.
    Coarse,
    /// One component a million times the others, so that codes tell nothing of these.
    Dominated,
    /// Rows of very different lengths.
    Mixed,
    /// All rows near each other, nearer than codes can tell.
    Dense,
}

fn vector(kind: Kind, dim: usize, noise: &mut Noise) -> Vec<f32> {
    let length = 10.0_f32.powf(noise.next() * 30.0);
    let component = |at: usize, x: f32| match kind {
        Kind::Scaled(scale) => x * scale,
        Kind::Constant(value) => value,
        Kind::Coarse => (x * 1.5).round(),
        Kind::Dominated => x * if at == 0 { 1e6 } else { 1.0 },
        Kind::Mixed => x * length,
        Kind::Dense => 1.0 + at as f32 * 0.01 + x * 1e-4,
    };
    (0..dim).map(|at| component(at, noise.next())).collect()
}

fn matrix(metric: Metric, kind: Kind, len: usize, dim: usize, noise: &mut Noise) -> Array2<f32> {
    let mut all = Vec::with_capacity(len * dim);
    while all.len() < len * dim {
        let mut row = vector(kind, dim, noise);
        if metric.prepare(&mut row).is_err() {
            row = vec![1.0; dim];
            metric.prepare(&mut row).unwrap();
        }
        all.extend(row);
    }
    Array2::from_shape_vec((len, dim), all).unwrap()
}

fn naive(metric: Metric, blocks: &[Block<'_>], query: &[f32], k: usize) -> Vec<Neighbor> {
    let mut all = Vec::new();
    for (at, block) in blocks.iter().enumerate() {
        for row in (0..block.rows.nrows()).filter(|&row| block.keep.is_none_or(|keep| keep.get(row))) {
            let score = score(metric, query, &block.rows.row(row).to_vec());
            all.push(Neighbor { block: at as u32, row: row as u32, score });
        }
    }
    all.sort_by(|a, b| b.score.partial_cmp(&a.score).unwrap().then((a.block, a.row).cmp(&(b.block, b.row))));
    all.truncate(k);
    all
}

static SCANNERS: LazyLock<[Scanner; 2]> =
    LazyLock::new(|| [1, 3].map(|threads| Scanner::new(threads).unwrap()));

fn assert_exact(metric: Metric, blocks: &[Block<'_>], queries: ArrayView2<'_, f32>, k: usize) {
    let expected: Vec<_> =
        queries.rows().into_iter().map(|q| naive(metric, blocks, &q.to_vec(), k)).collect();
    for scanner in &*SCANNERS {
        let found = scanner.search(metric, blocks, queries, k);
        assert_eq!(found, expected);
        let bits = |lists: &[Vec<Neighbor>]| -> Vec<u32> {
            lists.iter().flatten().map(|neighbor| neighbor.score.to_bits()).collect()
        };
        assert_eq!(bits(&found), bits(&expected));
    }
}

/// What a block holds besides its rows.
#[derive(Clone, Copy, Debug)]
struct Shape {
    len: usize,
    has_codes: bool,
    /// Share of rows that may be found, if not all.
    kept: Option<f32>,
    /// Whether rows lie apart in memory.
    is_strided: bool,
}

fn shapes(len_max: usize) -> impl Strategy<Value = Shape> {
    let kept = prop::option::of(prop::sample::select(vec![0.0, 0.02, 0.5, 0.97]));
    (0..len_max, any::<bool>(), kept, any::<bool>()).prop_map(|(len, has_codes, kept, is_strided)| Shape {
        len,
        has_codes,
        kept,
        is_strided,
    })
}

fn metrics() -> impl Strategy<Value = Metric> {
    prop::sample::select(vec![Metric::Cosine, Metric::InnerProduct, Metric::L2])
}

fn kinds() -> impl Strategy<Value = Kind> {
    let scales = [1.0, 1e30, 1e-30, 1e-42, 1e18];
    let others = [
        Kind::Constant(1e30),
        Kind::Constant(-0.3),
        Kind::Constant(0.0),
        Kind::Coarse,
        Kind::Dominated,
        Kind::Mixed,
        Kind::Dense,
    ];
    prop::sample::select(scales.map(Kind::Scaled).into_iter().chain(others).collect::<Vec<_>>())
}

/// A whole case from a seed.
fn check(metric: Metric, kind: Kind, shapes: &[Shape], dim: usize, queries: usize, k: usize, seed: u64) {
    let mut noise = Noise(seed);
    let wide: Vec<_> =
        shapes.iter().map(|shape| matrix(metric, kind, shape.len * 2, dim, &mut noise)).collect();
    let rows: Vec<_> = shapes
        .iter()
        .zip(&wide)
        .map(
            |(shape, rows)| {
                if shape.is_strided { rows.slice(s![..;2, ..]) } else { rows.slice(s![..shape.len, ..]) }
            },
        )
        .collect();
    let codes: Vec<_> = rows
        .iter()
        .map(|rows| {
            let mut codes = Codes::new(metric, dim);
            codes.extend(rows.view());
            codes
        })
        .collect();
    let keeps: Vec<Option<Bits>> = shapes
        .iter()
        .map(|shape| {
            let share = shape.kept?;
            let mut bits = Bits::with_len(shape.len, false);
            (0..shape.len).for_each(|row| bits.set(row, noise.next().abs() < share));
            Some(bits)
        })
        .collect();
    let blocks: Vec<_> = (0..shapes.len())
        .map(|at| Block {
            rows: rows[at].view(),
            codes: shapes[at].has_codes.then(|| codes[at].view()),
            keep: keeps[at].as_ref(),
        })
        .collect();
    let queries = matrix(metric, kind, queries, dim, &mut noise);
    assert_exact(metric, &blocks, queries.view(), k);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_search_is_the_naive_loop(
        metric in metrics(),
        kind in kinds(),
        shapes in prop::collection::vec(shapes(400), 0..4),
        dim in 1_usize..71,
        queries in 1_usize..21,
        k in prop::sample::select(vec![0, 1, 2, 3, 10, 40, 2000]),
        seed in any::<u64>(),
    ) {
        check(metric, kind, &shapes, dim, queries, k, seed);
    }

    #[test]
    fn a_matrix_of_scores_has_the_bits_of_its_pairs(
        metric in metrics(), kind in kinds(), dim in 1_usize..71, q in 0_usize..9, n in 0_usize..20, seed in any::<u64>(),
    ) {
        let mut noise = Noise(seed);
        let queries = matrix(metric, kind, q, dim, &mut noise);
        let rows = matrix(metric, kind, n, dim, &mut noise);
        let all = scores(metric, queries.view(), rows.view());
        prop_assert_eq!(all.dim(), (q, n));
        for ((query, row), of_pair) in all.indexed_iter() {
            let single = score(metric, &queries.row(query).to_vec(), &rows.row(row).to_vec());
            prop_assert_eq!(of_pair.to_bits(), single.to_bits());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Blocks of several tasks, at the dimension of a real model.
    #[test]
    fn a_long_search_is_the_naive_loop(
        metric in metrics(),
        kind in prop::sample::select(vec![Kind::Scaled(1.0), Kind::Coarse, Kind::Dense]),
        shapes in prop::collection::vec(shapes(10_000), 1..3),
        queries in prop::sample::select(vec![1_usize, 3, 18]),
        k in prop::sample::select(vec![1, 10, 100, 600]),
        seed in any::<u64>(),
    ) {
        check(metric, kind, &shapes, 96, queries, k, seed);
    }
}

#[test]
fn equal_rows_come_in_the_order_of_blocks_and_rows() {
    let rows = Array2::from_shape_fn((5000, 40), |(_, at)| at as f32);
    let mut codes = Codes::new(Metric::L2, 40);
    codes.extend(rows.view());
    let block = |codes| Block { rows: rows.view(), codes, keep: None };
    let blocks = [block(Some(codes.view())), block(None)];
    for scanner in &*SCANNERS {
        let found = scanner.search(Metric::L2, &blocks, rows.slice(s![..1, ..]), 5010);
        assert!(found[0].iter().take(5000).enumerate().all(|(at, n)| (n.block, n.row) == (0, at as u32)));
        assert!(found[0].iter().skip(5000).enumerate().all(|(at, n)| (n.block, n.row) == (1, at as u32)));
    }
}

#[test]
fn codes_of_a_part_are_those_of_its_rows() {
    let rows = matrix(Metric::InnerProduct, Kind::Scaled(1.0), 300, 33, &mut Noise(1));
    let mut codes = Codes::new(Metric::InnerProduct, 33);
    codes.extend(rows.view());
    let part = rows.slice(s![100..250, ..]);
    let block = Block { rows: part, codes: Some(codes.view().slice(100..250)), keep: None };
    assert_exact(Metric::InnerProduct, &[block], rows.slice(s![..4, ..]), 7);
    assert!(codes.memory_bytes() >= 300 * (64 + 12));
}

#[test]
fn a_search_from_within_the_pool_is_the_same() {
    let rows = matrix(Metric::Cosine, Kind::Scaled(1.0), 9000, 64, &mut Noise(2));
    let (sender, receiver) = std::sync::mpsc::channel();
    let scanner = std::sync::Arc::new(Scanner::new(2).unwrap());
    let (inner, owned) = (scanner.clone(), rows.clone());
    scanner.spawn(move || {
        let block = Block { rows: owned.view(), codes: None, keep: None };
        sender.send(inner.search(Metric::Cosine, &[block], owned.slice(s![..2, ..]), 10)).unwrap();
    });
    let block = Block { rows: rows.view(), codes: None, keep: None };
    let expected = scanner.search(Metric::Cosine, &[block], rows.slice(s![..2, ..]), 10);
    assert_eq!(receiver.recv().unwrap(), expected);
    drop(scanner);
}

#[test]
#[should_panic(expected = "codes of another metric")]
fn codes_of_another_metric_are_refused() {
    let rows = Array2::ones((3, 4));
    let mut codes = Codes::new(Metric::Cosine, 4);
    codes.extend(rows.view());
    let block = Block { rows: rows.view(), codes: Some(codes.view()), keep: None };
    SCANNERS[0].search(Metric::L2, &[block], rows.view(), 1);
}

#[test]
#[should_panic(expected = "another dimension")]
fn queries_of_another_dimension_are_refused() {
    let (rows, queries) = (Array2::ones((3, 4)), Array2::ones((1, 5)));
    SCANNERS[0].search(
        Metric::L2,
        &[Block { rows: rows.view(), codes: None, keep: None }],
        queries.view(),
        1,
    );
}

#[test]
fn a_scanner_outlives_work_that_panics() {
    let scanner = Scanner::new(2).unwrap();
    let (done, results) = std::sync::mpsc::channel();
    for number in 0..20 {
        let done = done.clone();
        scanner.spawn(move || {
            assert!(number % 2 == 0, "meant to panic");
            done.send(number).unwrap();
        });
    }
    drop(done);
    let mut results: Vec<i32> = results.iter().collect();
    results.sort_unstable();
    assert_eq!(results, (0..20).step_by(2).collect::<Vec<_>>());
}
