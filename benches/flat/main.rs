//! How fast is the exact scan of real vectors, beside the machine's read bandwidth and beside faiss-cpu in the same run?
//! One thread; in f32, by int8 codes, and in batches.
//!
//! `LIKEWISE_SHARED_DATA` names the directory with `text/npm_summaries.jsonl.gz`, whose texts are embedded once and kept
//! in `LIKEWISE_BENCH_CACHE`. `LIKEWISE_PEERS_PYTHON` names a Python with `peers/requirements.txt`; without it the
//! columns of faiss are missing.

mod faiss;

use std::hint::black_box;
use std::time::Instant;

use likewise_benches::{Spread, print_circumstances, spread, vectors};
use likewise_index::{Block, Codes, Metric, Neighbor, Scanner, scores};
use ndarray::{Array2, ArrayView2, s};

use self::faiss::{Faiss, Figures};

const ROWS: [usize; 3] = [10_000, 40_000, 100_000];
const QUERIES: usize = 160;
const K: usize = 10;
const BATCH: usize = 16;
const ROUNDS: usize = 5;
/// Bytes of the buffer that is far larger than any cache.
const LARGE_BYTES: usize = 640 << 20;

fn main() {
    print_circumstances("flat");
    let rows_max = ROWS[ROWS.len() - 1];
    let Some((path, vectors)) = vectors::load(rows_max + QUERIES) else {
        eprintln!("LIKEWISE_SHARED_DATA is not set: name the directory with text/npm_summaries.jsonl.gz");
        std::process::exit(1);
    };
    let queries = vectors.slice(s![rows_max.., ..]);
    let mut faiss = Faiss::start(&path, QUERIES);
    println!(
        "all-MiniLM-L6-v2, {} dimensions, {QUERIES} queries, k = {K}; one thread; median of {ROUNDS} rounds (min-max)",
        vectors.ncols()
    );
    println!("read bandwidth, {} MB: {} GB/s\n", LARGE_BYTES / 1_000_000, show(bandwidth(LARGE_BYTES)));
    println!("ms per query, one at a time; read share: of the bandwidth at the same number of bytes\n");
    println!(
        "| rows | GB/s here | f32 | its read share | faiss IndexFlatIP | int8, exact | its read share | faiss SQ8 | SQ8 / int8 |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let measured: Vec<_> = ROWS.map(|rows| single(rows, &vectors, queries, &mut faiss)).into();
    println!("\nms per query, {BATCH} at a time\n");
    println!(
        "| rows | f32 | int8, exact | faiss IndexFlatIP | IndexFlatIP / f32 | IndexFlatIP / int8 | faiss SQ8 |"
    );
    println!("|---|---|---|---|---|---|---|");
    measured.iter().for_each(|line| println!("{line}"));
}

/// Prints the line of single queries, and returns that of batches.
fn single(
    rows: usize,
    vectors: &Array2<f32>,
    queries: ArrayView2<'_, f32>,
    faiss: &mut Option<Faiss>,
) -> String {
    let scanner = Scanner::new(1).expect("one thread");
    // A copy, so that all rows lie in memory as those of faiss do.
    let rows_f32 = vectors.slice(s![..rows, ..]).to_owned();
    let mut codes = Codes::new(Metric::Cosine, rows_f32.ncols());
    codes.extend(rows_f32.view());
    let f32_block = [Block { rows: rows_f32.view(), codes: None, keep: None }];
    let int8_block = [Block { codes: Some(codes.view()), ..f32_block[0] }];
    let search = |block: &[Block<'_>], batch: usize| {
        rounds(queries, batch, |some| scanner.search(Metric::Cosine, block, some, K))
    };

    let (f32_bytes, int8_bytes) = (rows_f32.len() * 4, codes.memory_bytes());
    let (f32_bandwidth, int8_bandwidth) = (bandwidth(f32_bytes), bandwidth(int8_bytes));
    let (f32_ms, int8_ms) = (search(&f32_block, 1), search(&int8_block, 1));
    let (f32_batch, int8_batch) = (search(&f32_block, BATCH), search(&int8_block, BATCH));
    let exact = check(&scanner, &f32_block, &int8_block, queries);
    let figures = faiss.as_mut().map(|faiss| faiss.measure(rows, K, BATCH, ROUNDS));

    let share = |ms: Spread, bytes: usize, bandwidth: Spread| {
        bytes as f64 / 1e6 / ms.median / bandwidth.median * 100.0
    };
    let peer =
        |of: fn(&Figures) -> Spread| figures.as_ref().map_or("-".to_owned(), |figures| show(of(figures)));
    let ratio = |of: fn(&Figures) -> Spread, ms: Spread| {
        figures.as_ref().map_or("-".to_owned(), |figures| format!("{:.2}", of(figures).median / ms.median))
    };
    println!(
        "| {rows} | {:.1} | {} | {:.0} % | {} | {} | {:.0} % | {} | {} |",
        f32_bandwidth.median,
        show(f32_ms),
        share(f32_ms, f32_bytes, f32_bandwidth),
        peer(|figures| figures.flat),
        show(int8_ms),
        share(int8_ms, int8_bytes, int8_bandwidth),
        peer(|figures| figures.codes),
        ratio(|figures| figures.codes, int8_ms),
    );
    if let Some(figures) = &figures {
        let (flat, codes) = (recall(&figures.flat_rows, &exact), recall(&figures.codes_rows, &exact));
        eprintln!(
            "{rows} rows: recall of int8 1 (checked), IndexFlatIP {flat:.4}, SQ8 {codes:.4}, ties not made up for"
        );
    }
    format!(
        "| {rows} | {} | {} | {} | {} | {} | {} |",
        show(f32_batch),
        show(int8_batch),
        peer(|figures| figures.flat_batch),
        ratio(|figures| figures.flat_batch, f32_batch),
        ratio(|figures| figures.flat_batch, int8_batch),
        peer(|figures| figures.codes_batch),
    )
}

/// Milliseconds per query in each round over all whole batches.
fn rounds(
    queries: ArrayView2<'_, f32>,
    batch: usize,
    search: impl Fn(ArrayView2<'_, f32>) -> Vec<Vec<Neighbor>>,
) -> Spread {
    let batches: Vec<_> = queries.axis_chunks_iter(ndarray::Axis(0), batch).collect();
    black_box(search(batches[0]));
    let round = |_| {
        let start = Instant::now();
        batches.iter().for_each(|some| drop(black_box(search(*some))));
        start.elapsed().as_secs_f64() * 1e3 / queries.nrows() as f64
    };
    spread((0..ROUNDS).map(round).collect())
}

/// Checks that searches one at a time, in batches, in f32 and by codes all find what scoring every row and sorting does;
/// returns that.
fn check<'a>(
    scanner: &Scanner,
    f32_block: &[Block<'a>],
    int8_block: &[Block<'a>],
    queries: ArrayView2<'_, f32>,
) -> Vec<Vec<Neighbor>> {
    let naive = |query: ArrayView2<'_, f32>| {
        let scores = scores(Metric::Cosine, query, f32_block[0].rows);
        let mut all: Vec<_> =
            (0_u32..).zip(scores.iter()).map(|(row, &score)| Neighbor { block: 0, row, score }).collect();
        all.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.row.cmp(&b.row)));
        all.truncate(K);
        all
    };
    let singles = || queries.axis_chunks_iter(ndarray::Axis(0), 1);
    let expected: Vec<_> = singles().map(naive).collect();
    for block in [f32_block, int8_block] {
        let found: Vec<_> =
            singles().flat_map(|query| scanner.search(Metric::Cosine, block, query, K)).collect();
        assert_eq!(found, expected, "one at a time");
        assert_eq!(scanner.search(Metric::Cosine, block, queries, K), expected, "all at a time");
    }
    expected
}

/// The share of the exact neighbours that were found.
fn recall(found: &[Vec<i64>], exact: &[Vec<Neighbor>]) -> f64 {
    let hit = |(found, exact): (&Vec<i64>, &Vec<Neighbor>)| {
        exact.iter().filter(|neighbor| found.contains(&i64::from(neighbor.row))).count()
    };
    let hits: usize = found.iter().zip(exact).map(hit).sum();
    hits as f64 / (exact.len() * K) as f64
}

/// GB/s at which one thread adds up a buffer, read again and again.
fn bandwidth(bytes: usize) -> Spread {
    let buffer = vec![1_u64; bytes / 8];
    let repeats = (LARGE_BYTES / bytes).max(1);
    let round = |_| {
        let start = Instant::now();
        (0..repeats).for_each(|_| assert_eq!(sum(black_box(&buffer)), buffer.len() as u64));
        (repeats * buffer.len() * 8) as f64 / 1e9 / start.elapsed().as_secs_f64()
    };
    round(0);
    spread((0..ROUNDS).map(round).collect())
}

/// In lanes, so that nothing but memory limits it.
fn sum(buffer: &[u64]) -> u64 {
    let (lines, rest) = buffer.as_chunks::<16>();
    let mut lanes = [0_u64; 16];
    for line in lines {
        for (lane, value) in lanes.iter_mut().zip(line) {
            *lane = lane.wrapping_add(*value);
        }
    }
    lanes.iter().chain(rest).fold(0, |sum, &value| sum.wrapping_add(value))
}

fn show(Spread { median, min, max }: Spread) -> String {
    format!("{median:.3} ({min:.3}-{max:.3})")
}
