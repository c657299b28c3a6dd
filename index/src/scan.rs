//! Search over blocks of rows.

use ndarray::ArrayView2;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

use crate::bits::Bits;
use crate::codes::{CodedQuery, CodesView};
use crate::kernels;
use crate::metric::{Metric, score};
use crate::top::Top;

/// Rows that are scored before the best of them are looked at: their codes and sums stay in the nearest caches.
const STRIP: usize = 512;
/// Rows for which another thread is worth waking.
const ROWS_A_TASK_MIN: usize = 8192;
/// Queries that share a pass over the rows.
const QUERIES_A_TASK: usize = 16;

/// Rows that are searched together: those of a segment, or of the delta.
#[derive(Debug, Clone, Copy)]
pub struct Block<'a> {
    /// The rows, `n x dim`, row-major and contiguous.
    pub rows: ArrayView2<'a, f32>,
    /// Their codes, if they have any. Without codes every row is scored as it is.
    pub codes: Option<CodesView<'a>>,
    /// Which rows may be found; all of them if there is no such set.
    pub keep: Option<&'a Bits>,
}

/// A row that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbor {
    /// The place of its block.
    pub block: u32,
    /// Its place in the block.
    pub row: u32,
    /// Its score; see [`Metric`].
    pub score: f32,
}

/// Searches on threads of its own.
#[derive(Debug)]
pub struct Scanner {
    threads: ThreadPool,
}

/// Some rows of a block.
#[derive(Clone, Copy)]
struct Piece<'a, 'b> {
    block: &'a Block<'b>,
    number: u32,
    from: usize,
    to: usize,
}

impl Scanner {
    /// A scanner with so many threads.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub fn new(threads: usize) -> Result<Scanner, ThreadPoolBuildError> {
        let named = |number| format!("search-{number}");
        ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(named)
            .build()
            .map(|threads| Scanner { threads })
    }

    /// Does some work on a thread of the scanner, some time later.
    pub fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        self.threads.spawn(work);
    }

    /// The `k` nearest rows of every query, best first; of equal scores the row that comes first. Exact, with or without
    /// codes: what a loop over all rows would find. Vectors must be prepared for the metric.
    ///
    /// Cost for a query: one pass over the codes (or the rows, where a block has none), and the score of the few rows that
    /// the bound does not rule out. Sixteen queries share a pass.
    ///
    /// # Panics
    /// If a block's rows are not as long as the queries, or not contiguous, or its codes or set are of other rows.
    pub fn search(
        &self,
        metric: Metric,
        blocks: &[Block<'_>],
        queries: ArrayView2<'_, f32>,
        k: usize,
    ) -> Vec<Vec<Neighbor>> {
        blocks.iter().for_each(|block| check(block, queries.ncols()));
        let queries: Vec<Vec<f32>> = queries.rows().into_iter().map(|query| query.to_vec()).collect();
        if k == 0 {
            return vec![Vec::new(); queries.len()];
        }
        let pieces = pieces(blocks, self.threads.current_num_threads());
        let found: Vec<Vec<Top>> = self.threads.install(|| {
            queries
                .par_chunks(QUERIES_A_TASK)
                .map(|queries| search_pieces(metric, &pieces, queries, k))
                .collect()
        });
        found.into_iter().flatten().map(Top::into_sorted).collect()
    }
}

fn check(block: &Block<'_>, dim: usize) {
    let rows = block.rows.nrows();
    assert!(block.rows.is_standard_layout(), "rows stand one after the other");
    assert!(rows == 0 || block.rows.ncols() == dim, "rows are as long as queries");
    assert!(
        block.codes.is_none_or(|codes| codes.len() == rows && (rows == 0 || codes.dim() == dim)),
        "a code for each row"
    );
    assert!(block.keep.is_none_or(|keep| keep.len() == rows), "a bit for each row");
}

/// The blocks in pieces that a thread each is worth waking for.
fn pieces<'a, 'b>(blocks: &'a [Block<'b>], threads: usize) -> Vec<Vec<Piece<'a, 'b>>> {
    let all: usize = blocks.iter().map(|block| block.rows.nrows()).sum();
    let each = all.div_ceil(threads.max(1)).max(ROWS_A_TASK_MIN);
    let (mut tasks, mut task, mut room) = (Vec::new(), Vec::new(), each);
    for (number, block) in blocks.iter().enumerate() {
        let mut from = 0;
        while from < block.rows.nrows() {
            let to = block.rows.nrows().min(from + room);
            task.push(Piece { block, number: number as u32, from, to });
            room -= to - from;
            from = to;
            if room == 0 {
                tasks.push(std::mem::take(&mut task));
                room = each;
            }
        }
    }
    tasks.push(task);
    tasks
}

fn search_pieces(metric: Metric, tasks: &[Vec<Piece<'_, '_>>], queries: &[Vec<f32>], k: usize) -> Vec<Top> {
    let none = || queries.iter().map(|_| Top::new(k)).collect::<Vec<_>>();
    let join = |mut left: Vec<Top>, right: Vec<Top>| {
        left.iter_mut().zip(right).for_each(|(left, right)| left.extend(right));
        left
    };
    let search = |task: &Vec<Piece<'_, '_>>| {
        let mut walk = Walk::new(metric, queries, k);
        task.iter().for_each(|piece| walk.take(piece));
        walk.tops
    };
    if tasks.len() == 1 { search(&tasks[0]) } else { tasks.par_iter().map(search).reduce(none, join) }
}

/// A pass of some queries over some rows.
struct Walk<'a> {
    metric: Metric,
    queries: &'a [Vec<f32>],
    coded: Vec<CodedQuery>,
    tops: Vec<Top>,
    /// A score that at least `k` rows reach, for each query.
    floors: Vec<f32>,
    k: usize,
    sums: Vec<i32>,
    scores: Vec<f32>,
    uppers: Vec<f32>,
}

impl<'a> Walk<'a> {
    fn new(metric: Metric, queries: &'a [Vec<f32>], k: usize) -> Walk<'a> {
        Walk {
            metric,
            queries,
            coded: queries.iter().map(|query| CodedQuery::new(metric, query)).collect(),
            tops: queries.iter().map(|_| Top::new(k)).collect(),
            floors: vec![f32::NEG_INFINITY; queries.len()],
            k,
            sums: Vec::new(),
            scores: Vec::new(),
            uppers: Vec::new(),
        }
    }

    fn take(&mut self, piece: &Piece<'_, '_>) {
        for from in (piece.from..piece.to).step_by(STRIP) {
            let strip = Piece { from, to: piece.to.min(from + STRIP), ..*piece };
            match piece.block.codes {
                Some(codes) => self.take_by_codes(&strip, codes.slice(strip.from, strip.to)),
                None => self.take_as_it_is(&strip),
            }
        }
    }

    /// Scores every row.
    fn take_as_it_is(&mut self, strip: &Piece<'_, '_>) {
        let dim = strip.block.rows.ncols();
        let rows = strip.block.rows.to_slice().expect("checked: contiguous");
        self.scores.resize(strip.to - strip.from, 0.0);
        for (query, top) in self.queries.iter().zip(&mut self.tops) {
            let rows = &rows[strip.from * dim..strip.to * dim];
            kernels::get().scores(self.metric, query, rows, &mut self.scores);
            let mut threshold = top.threshold();
            for (row, &score) in (strip.from..).zip(&self.scores) {
                // An equal score may come earlier in the order of blocks than what another thread has found.
                if score >= threshold && strip.keeps(row) {
                    top.push(Neighbor { block: strip.number, row: row as u32, score });
                    threshold = top.threshold();
                }
            }
        }
    }

    /// Scores the rows whose bound reaches the best so far.
    fn take_by_codes(&mut self, strip: &Piece<'_, '_>, codes: CodesView<'_>) {
        let count = strip.to - strip.from;
        self.uppers.clear();
        self.uppers.resize(count * self.queries.len(), 0.0);
        let coded: Vec<&CodedQuery> = self.coded.iter().collect();
        let uppers = &mut self.uppers;
        codes.bounds(&coded, &mut self.sums, |query, row, upper| uppers[query * count + row] = upper);
        for (at, query) in self.queries.iter().enumerate() {
            let uppers = &self.uppers[at * count..][..count];
            let top = &mut self.tops[at];
            let row_of = |row: usize| strip.block.rows.row(row).to_slice().expect("checked: contiguous");
            let floor = &mut self.floors[at];
            if *floor == f32::NEG_INFINITY {
                *floor = floor_of(self.k, uppers, |row| {
                    let row = strip.from + row;
                    strip.keeps(row).then(|| score(self.metric, query, row_of(row)))
                });
            }
            let mut threshold = top.threshold().max(*floor);
            for (row, &upper) in (strip.from..).zip(uppers) {
                if upper >= threshold && strip.keeps(row) {
                    let score = score(self.metric, query, row_of(row));
                    top.push(Neighbor { block: strip.number, row: row as u32, score });
                    threshold = top.threshold().max(*floor);
                }
            }
        }
    }
}

impl Piece<'_, '_> {
    fn keeps(&self, row: usize) -> bool {
        self.block.keep.is_none_or(|keep| keep.contains(row))
    }
}

/// A score that at least `k` rows of the strip reach, by scoring those with the highest bounds. Without it the first
/// strip would be scored row by row.
fn floor_of(k: usize, uppers: &[f32], score: impl Fn(usize) -> Option<f32>) -> f32 {
    let mut order: Vec<usize> = (0..uppers.len()).collect();
    order.sort_unstable_by(|&a, &b| uppers[b].total_cmp(&uppers[a]));
    let mut best: Vec<f32> = order.into_iter().filter_map(score).take(k).collect();
    if best.len() < k {
        return f32::NEG_INFINITY;
    }
    best.sort_unstable_by(f32::total_cmp);
    best[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes::Codes;
    use proptest::prelude::*;

    /// What every search must find.
    fn plain(metric: Metric, blocks: &[Block<'_>], query: &[f32], k: usize) -> Vec<Neighbor> {
        let mut all = Vec::new();
        for (number, block) in (0..).zip(blocks) {
            for (row, vector) in block.rows.rows().into_iter().enumerate() {
                if block.keep.is_none_or(|keep| keep.contains(row)) {
                    let score = score(metric, query, vector.to_slice().unwrap());
                    all.push(Neighbor { block: number, row: row as u32, score });
                }
            }
        }
        // The sort is stable: equal scores stay in the order of rows.
        all.sort_by(|a, b| b.score.total_cmp(&a.score));
        all.truncate(k);
        all
    }

    /// Numbers that are easy, and numbers that are not.
    fn number() -> impl Strategy<Value = f32> {
        prop_oneof![
            6 => -1.0_f32..1.0,
            2 => prop::sample::select(vec![0.0, 1.0, -1.0, 0.5]),
            1 => prop::sample::select(vec![1e30, -1e30, 1e-30, 3e-39, 1e18, -127.0, 1e5]),
        ]
    }

    fn vectors(dim: usize, count: usize) -> impl Strategy<Value = Vec<f32>> {
        prop::collection::vec(number(), dim * count)
    }

    type Case = (Metric, usize, Vec<(Vec<f32>, bool, Option<u64>)>, Vec<f32>, usize);

    fn cases() -> impl Strategy<Value = Case> {
        let metrics = prop::sample::select(vec![Metric::Cosine, Metric::InnerProduct, Metric::L2]);
        (metrics, 1..70_usize).prop_flat_map(|(metric, dim)| {
            let block = (0..40_usize).prop_flat_map(move |count| vectors(dim, count));
            let block = (block, any::<bool>(), any::<Option<u64>>());
            let blocks = prop::collection::vec(block, 0..5);
            let queries = (1..20_usize).prop_flat_map(move |count| vectors(dim, count));
            (Just(metric), Just(dim), blocks, queries, 0..30_usize)
        })
    }

    fn prepared(metric: Metric, dim: usize, mut vectors: Vec<f32>) -> Vec<f32> {
        for vector in vectors.chunks_mut(dim) {
            if metric.prepare(vector).is_err() {
                vector.fill(0.5);
                metric.prepare(vector).unwrap();
            }
        }
        vectors
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]

        #[test]
        fn every_search_finds_what_a_plain_loop_finds((metric, dim, blocks, queries, k) in cases()) {
            let scanner = Scanner::new(2).unwrap();
            let blocks: Vec<_> = blocks
                .into_iter()
                .map(|(rows, has_codes, keep)| {
                    let rows = prepared(metric, dim, rows);
                    let count = rows.len() / dim;
                    let keep = keep.map(|seed| {
                        let mut keep = Bits::new(count, false);
                        (0..count).for_each(|row| _ = keep.set(row, seed >> (row % 61) & 1 == 1));
                        keep
                    });
                    (has_codes.then(|| Codes::of(dim, &rows)), rows, keep)
                })
                .collect();
            let blocks: Vec<Block<'_>> = blocks
                .iter()
                .map(|(codes, rows, keep)| Block {
                    rows: ArrayView2::from_shape((rows.len() / dim, dim), rows).unwrap(),
                    codes: codes.as_ref().map(Codes::view),
                    keep: keep.as_ref(),
                })
                .collect();
            let queries = prepared(metric, dim, queries);
            let queries = ArrayView2::from_shape((queries.len() / dim, dim), &queries).unwrap();
            let found = scanner.search(metric, &blocks, queries, k);
            prop_assert_eq!(found.len(), queries.nrows());
            for (query, found) in queries.rows().into_iter().zip(found) {
                let plain = plain(metric, &blocks, query.to_slice().unwrap(), k);
                let bits = |all: &[Neighbor]| -> Vec<(u32, u32, u32)> {
                    all.iter().map(|found| (found.block, found.row, found.score.to_bits())).collect()
                };
                prop_assert_eq!(bits(&found), bits(&plain));
            }
        }
    }

    #[test]
    fn large_blocks_are_searched_by_several_threads_with_the_same_result() {
        let (dim, count) = (24, 40_000);
        let mut state = 7_u64;
        let mut rows: Vec<f32> = (0..dim * count)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 40) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect();
        rows.copy_within(0..dim * 1_000, dim * 30_000);
        let codes = Codes::of(dim, &rows);
        let view = ArrayView2::from_shape((count, dim), &rows).unwrap();
        let blocks = [Block { rows: view, codes: Some(codes.view()), keep: None }];
        let queries = view.slice(ndarray::s![..40, ..]);
        let scanner = Scanner::new(3).unwrap();
        let found = scanner.search(Metric::InnerProduct, &blocks, queries, 25);
        for (query, found) in queries.rows().into_iter().zip(found) {
            assert_eq!(found, plain(Metric::InnerProduct, &blocks, query.to_slice().unwrap(), 25));
        }
    }
}
