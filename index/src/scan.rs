//! The search: blocks are cut into tasks, tasks find candidates, and candidates become results.

use std::ops::Range;

use ndarray::ArrayView2;
use rayon::prelude::*;

use crate::codes::CodedQuery;
use crate::kernels::{self, Rows};
use crate::neighbor::Neighbor;
use crate::top_k::{SharedThreshold, TopK};
use crate::{Bits, CodesView, Metric};

/// Rows of a task.
const TASK_ROWS: usize = 4096;
/// Queries of a task: their vectors stay in the nearest caches while the rows pass once.
const TASK_QUERIES: usize = 16;
/// Rows whose scores are computed before they are looked at: these of all queries of a task fit the nearest cache.
const STRIP_ROWS: usize = 128;
/// Scores looked at together, because most are below the threshold.
const LOOK_ROWS: usize = 16;
/// If fewer rows than one in so many may be found, they are scored one by one.
const SPARSE: usize = 8;
/// If more rows of a task than one in so many remain as candidates, a scan in f32 is faster than scoring them one by one.
const DENSE: usize = 8;
/// Multiplications below which handing work to other threads costs more than it saves; about 0.1 ms.
const ALONE_MAX: usize = 1 << 20;

/// Rows of one block: a sealed segment's mapped rows, or those not yet sealed.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// n x dim; the components of a row lie side by side, rows may lie apart.
    pub rows: ArrayView2<'a, f32>,
    /// Codes of the same rows for the metric of the search; without them the rows are scanned in f32.
    pub codes: Option<CodesView<'a>>,
    /// The rows that may be found; without it, all.
    pub keep: Option<&'a Bits>,
}

/// Searches on threads of its own.
#[derive(Debug)]
pub struct Scanner {
    pool: rayon::ThreadPool,
}

impl Scanner {
    /// Starts `threads` threads, named `scan-0` and so on; at least one.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn new(threads: usize) -> std::io::Result<Scanner> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(|thread| format!("scan-{thread}"))
            // The panic has been reported, and the waiting caller receives an error. Without a handler the panic would abort
            // the process.
            .panic_handler(drop)
            .build()
            .map_err(std::io::Error::other)?;
        Ok(Scanner { pool })
    }

    /// Does `work` on a thread of the scanner without waiting for it; searches in it start there at once.
    pub fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        self.pool.spawn(work);
    }

    /// The k nearest rows of every query, best first; ties go to the lower block, then to the lower row. Fewer than k if
    /// fewer rows may be found.
    ///
    /// Exact: bit for bit what [`score`](crate::score) of every kept row gives, sorted. Rows and queries have passed
    /// [`Metric::prepare`].
    ///
    /// Shapes: `queries` q x dim, returns q lists. Cost: with codes `dim` + 8 bytes a row read for up to 16 queries, else
    /// `4 * dim`; small work is done on the calling thread. Blocks it until done.
    ///
    /// # Panics
    /// If a block has another dimension than the queries, codes or bits of another length, codes of another metric, more
    /// than `u32::MAX` rows, or rows whose components do not lie side by side.
    pub fn search(
        &self,
        metric: Metric,
        blocks: &[Block<'_>],
        queries: ArrayView2<'_, f32>,
        k: usize,
    ) -> Vec<Vec<Neighbor>> {
        blocks.iter().for_each(|block| check(metric, block, queries.ncols()));
        if k == 0 {
            return vec![Vec::new(); queries.nrows()];
        }
        let thresholds = (0..queries.nrows()).map(|_| SharedThreshold::new()).collect();
        let search = ScanJob { metric, blocks, queries: queries.view(), k, thresholds };
        let multiplications =
            queries.len().saturating_mul(blocks.iter().map(|block| block.rows.nrows()).sum());
        if multiplications <= ALONE_MAX || self.pool.current_num_threads() == 1 {
            return search.alone();
        }
        self.pool.install(|| search.together())
    }
}

fn check(metric: Metric, block: &Block<'_>, dim: usize) {
    let len = block.rows.nrows();
    assert_eq!(block.rows.ncols(), dim, "rows of another dimension than the queries");
    assert!(u32::try_from(len).is_ok(), "{len} rows in a block");
    if let Some(codes) = block.codes {
        assert!(codes.len() == len && codes.dim() == dim, "codes of other rows");
        assert_eq!(codes.metric(), metric, "codes of another metric");
    }
    if let Some(keep) = block.keep {
        assert_eq!(keep.len(), len, "bits of other rows");
    }
}

/// One search, seen by all its tasks.
struct ScanJob<'a, 'b> {
    metric: Metric,
    blocks: &'a [Block<'b>],
    queries: ArrayView2<'a, f32>,
    k: usize,
    /// One a query.
    thresholds: Vec<SharedThreshold>,
}

/// Some rows of a block against some queries.
struct ScanTask {
    block: usize,
    rows: Range<usize>,
    queries: Range<usize>,
}

/// What a task found for one of its queries.
struct ScanHits {
    /// Rows with their scores.
    exact: TopK,
    /// Rows whose scores are only bounded so far.
    candidates: Vec<Candidate>,
}

/// A row that may be among the k best.
#[derive(Clone, Copy)]
struct Candidate {
    block: u32,
    row: u32,
    /// What its score is at most.
    upper: f32,
}

impl ScanJob<'_, '_> {
    fn alone(&self) -> Vec<Vec<Neighbor>> {
        let found = self.tasks().into_iter().map(|task| (task.queries.clone(), self.run(&task))).collect();
        self.gather(found).into_iter().enumerate().map(|(query, found)| self.finish(query, found)).collect()
    }

    fn together(&self) -> Vec<Vec<Neighbor>> {
        let found =
            self.tasks().into_par_iter().map(|task| (task.queries.clone(), self.run(&task))).collect();
        let gathered = self.gather(found).into_par_iter().enumerate();
        gathered.map(|(query, found)| self.finish(query, found)).collect()
    }

    fn tasks(&self) -> Vec<ScanTask> {
        let mut tasks = Vec::new();
        for (block, rows) in self.blocks.iter().map(|block| block.rows.nrows()).enumerate() {
            for rows in pieces(0..rows, TASK_ROWS) {
                for queries in pieces(0..self.queries.nrows(), TASK_QUERIES) {
                    tasks.push(ScanTask { block, rows: rows.clone(), queries });
                }
            }
        }
        tasks
    }

    /// What all tasks found, by query.
    fn gather(&self, tasks: Vec<(Range<usize>, Vec<ScanHits>)>) -> Vec<Vec<ScanHits>> {
        let mut gathered: Vec<Vec<ScanHits>> = self.thresholds.iter().map(|_| Vec::new()).collect();
        for (queries, found) in tasks {
            gathered[queries].iter_mut().zip(found).for_each(|(query, found)| query.push(found));
        }
        gathered
    }

    /// Scores the candidates of a query, the most promising first, until no other can be among the k best.
    fn finish(&self, query: usize, found: Vec<ScanHits>) -> Vec<Neighbor> {
        let mut best = TopK::new(self.k);
        let mut candidates = Vec::new();
        for found in found {
            found.exact.into_sorted().into_iter().for_each(|neighbor| best.offer(neighbor));
            candidates.extend(found.candidates);
        }
        candidates.sort_unstable_by(|a: &Candidate, b| b.upper.total_cmp(&a.upper));
        let queries = Rows::new(&self.queries);
        for Candidate { block, row, upper } in candidates {
            if upper < best.threshold() {
                break;
            }
            let rows = Rows::new(&self.blocks[block as usize].rows);
            let score = crate::score(self.metric, queries.row(query), rows.row(row as usize));
            best.offer(Neighbor { block, row, score });
        }
        best.into_sorted()
    }

    fn run(&self, task: &ScanTask) -> Vec<ScanHits> {
        let mut found: Vec<ScanHits> = task
            .queries
            .clone()
            .map(|_| ScanHits { exact: TopK::new(self.k), candidates: Vec::new() })
            .collect();
        let block = &self.blocks[task.block];
        let (from, to) = (task.rows.start, task.rows.end);
        let kept = block.keep.map_or(to - from, |keep| keep.count_within(from, to));
        if let Some(keep) = block.keep
            && kept * SPARSE < to - from
        {
            self.score_each(task, keep, &mut found);
        } else if let Some(codes) = block.codes
            && self.k * DENSE < kept
        {
            self.scan_codes(task, codes.slice(task.rows.clone()), &mut found);
        } else {
            self.scan_floats(task, &mut found);
        }
        for (query, found) in task.queries.clone().zip(&found) {
            self.thresholds[query].raise(found.exact.threshold());
        }
        found
    }

    /// Scores the few kept rows one by one.
    fn score_each(&self, task: &ScanTask, keep: &Bits, found: &mut [ScanHits]) {
        let queries = Rows::new(&self.queries).slice(task.queries.clone());
        let rows = Rows::new(&self.blocks[task.block].rows);
        let mut scores = vec![0.0; queries.len()];
        for row in keep.iter_within(task.rows.start, task.rows.end) {
            kernels::scores(self.metric, queries, rows.slice(row..row + 1), &mut scores);
            for (found, &score) in found.iter_mut().zip(&scores) {
                found.exact.offer(Neighbor { block: task.block as u32, row: row as u32, score });
            }
        }
    }

    /// Scores all rows.
    fn scan_floats(&self, task: &ScanTask, found: &mut [ScanHits]) {
        let queries = Rows::new(&self.queries).slice(task.queries.clone());
        let block = &self.blocks[task.block];
        let rows = Rows::new(&block.rows);
        let mut scores = vec![0.0; queries.len() * STRIP_ROWS.min(task.rows.len())];
        for strip in pieces(task.rows.clone(), STRIP_ROWS) {
            let scores = &mut scores[..queries.len() * strip.len()];
            kernels::scores(self.metric, queries, rows.slice(strip.clone()), scores);
            for ((query, found), scores) in
                task.queries.clone().zip(&mut *found).zip(scores.chunks_exact(strip.len()))
            {
                let shared_threshold = self.thresholds[query].get();
                for_each_reaching(scores, found.exact.threshold().max(shared_threshold), |at| {
                    let row = strip.start + at;
                    if block.keep.is_none_or(|keep| keep.get(row)) {
                        let (block, row, score) = (task.block as u32, row as u32, scores[at]);
                        found.exact.offer(Neighbor { block, row, score });
                    }
                    found.exact.threshold().max(shared_threshold)
                });
            }
        }
    }

    /// Finds the rows whose scores by codes are so high that their scores may be among the k best.
    fn scan_codes(&self, task: &ScanTask, codes: CodesView<'_>, found: &mut [ScanHits]) {
        let all = Rows::new(&self.queries);
        let mut query_codes = Vec::new();
        let (mut coded, mut rest) = (Vec::new(), Vec::new());
        for query in task.queries.clone() {
            match CodedQuery::new(all.row(query), &mut query_codes) {
                Some(query_codes) => coded.push(CandidateFilter::new(query, query_codes, self.k)),
                None => rest.push(query),
            }
        }
        let mut sums = vec![0; coded.len() * STRIP_ROWS.min(task.rows.len())];
        for strip in pieces(0..task.rows.len(), STRIP_ROWS) {
            let sums = &mut sums[..coded.len() * strip.len()];
            let strip_codes = codes.slice(strip.clone());
            strip_codes.sums(&query_codes, sums);
            for (filter, sums) in coded.iter_mut().zip(sums.chunks_exact(strip.len())) {
                self.filter_candidates(task, filter, &strip_codes, sums, task.rows.start + strip.start);
            }
        }
        for filter in coded {
            self.thresholds[filter.query].raise(filter.lower.threshold());
            match filter.candidates {
                Some(candidates) => found[filter.query - task.queries.start].candidates = candidates,
                None => rest.push(filter.query),
            }
        }
        for query in rest {
            let alone = ScanTask { block: task.block, rows: task.rows.clone(), queries: query..query + 1 };
            let at = query - task.queries.start;
            self.scan_floats(&alone, &mut found[at..at + 1]);
        }
    }

    /// Adds the rows of a strip, which starts at the row `start`, to the candidates of a query.
    fn filter_candidates(
        &self,
        task: &ScanTask,
        filter: &mut CandidateFilter,
        codes: &CodesView<'_>,
        sums: &[i32],
        start: usize,
    ) {
        let Some(candidates) = &mut filter.candidates else { return };
        let mut bounds = [0.0; STRIP_ROWS];
        let bounds = &mut bounds[..sums.len()];
        codes.upper_bounds(&filter.coded, sums, bounds);
        let shared_threshold = self.thresholds[filter.query].get();
        let keep = self.blocks[task.block].keep;
        for_each_reaching(bounds, filter.lower.threshold().max(shared_threshold), |at| {
            let row = start + at;
            if keep.is_none_or(|keep| keep.get(row)) {
                let upper = if bounds[at].is_nan() { f32::INFINITY } else { bounds[at] };
                let (block, row) = (task.block as u32, row as u32);
                candidates.push(Candidate { block, row, upper });
                let score = codes.lower_bound(&filter.coded, sums[at], at);
                filter.lower.offer(Neighbor { block, row, score });
            }
            filter.lower.threshold().max(shared_threshold)
        });
        if candidates.len() > task.rows.len() / DENSE {
            let threshold = filter.lower.threshold().max(shared_threshold);
            candidates.retain(|candidate| candidate.upper >= threshold);
            if candidates.len() > task.rows.len() / (2 * DENSE) + self.k {
                filter.candidates = None;
            }
        }
    }
}

/// What remains of the rows for one query.
struct CandidateFilter {
    query: usize,
    coded: CodedQuery,
    /// The k best lower bounds of scores.
    lower: TopK,
    /// Nothing once they were too many.
    candidates: Option<Vec<Candidate>>,
}

impl CandidateFilter {
    fn new(query: usize, coded: CodedQuery, k: usize) -> CandidateFilter {
        CandidateFilter { query, coded, lower: TopK::new(k), candidates: Some(Vec::new()) }
    }
}

/// Calls `act` for the place of every score that is not below the threshold, which becomes what `act` returns.
#[inline]
fn for_each_reaching(scores: &[f32], mut threshold: f32, mut act: impl FnMut(usize) -> f32) {
    for (piece, scores) in scores.chunks(LOOK_ROWS).enumerate() {
        // Without an early end, so that it becomes vector instructions. What is not a number is not below.
        if scores.iter().fold(true, |is_below, &score| is_below & (score < threshold)) {
            continue;
        }
        for (at, &score) in scores.iter().enumerate() {
            let is_below = score < threshold;
            if !is_below {
                threshold = act(piece * LOOK_ROWS + at);
            }
        }
    }
}

/// A range in pieces of `len`, the last one shorter.
fn pieces(range: Range<usize>, len: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(len).map(move |start| start..(start + len).min(end))
}
