//! HNSW graphs that FAISS built, searched where they lie: in the bytes of FAISS's file.
//!
//! The walk is that of Malkov and Yashunin ("Efficient and robust approximate nearest neighbor search using Hierarchical
//! Navigable Small World graphs", 2016, algorithms 2 and 5): greedily down the levels, then the best `ef` nodes seen so
//! far are expanded until all of them are. Nodes are compared by their 8-bit codes, whole numbers against the query's
//! weights; the caller rescores the candidates in f32.

use std::cell::RefCell;
use std::io;

use crate::Metric;
use crate::code_table::CodeTable;
use crate::faiss_file::{GraphContent, GraphLayout, Layout, Malformed, Sq8};
use crate::kernels;

/// Weights of a query go from minus this to this: two products with codes, and no more, fit 16 bits.
const WEIGHT_LEVEL: f32 = 63.0;
/// Codes go from 0 to this.
const CODE_LEVEL: f32 = 255.0;

/// A graph in the bytes of a FAISS file. Nothing in it can be changed.
#[derive(Debug)]
pub struct Graph<B> {
    file: B,
    metric: Metric,
    dim: usize,
    rows: usize,
    layout: GraphLayout,
    codes: Codes8,
}

/// 8-bit codes of all rows.
#[derive(Debug)]
struct Codes8 {
    quantizer: Sq8,
    table: CodeTable,
    /// Squared lengths of what the codes stand for; empty under the inner product.
    squares: Vec<f32>,
}

/// How far a search goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchParams {
    /// Nodes that are expanded at least; more find more, and take as much longer.
    pub ef: usize,
    /// Candidates that are returned at most.
    pub candidates: usize,
}

/// A query as it is compared with codes.
struct QueryWeights {
    weights: Vec<i8>,
    /// What a sum is multiplied by before the square of the row is taken off; 0 under the inner product.
    factor: f32,
}

/// A node that was seen.
#[derive(Clone, Copy, Debug)]
struct Node {
    score: f32,
    row: u32,
    is_expanded: bool,
}

/// The best nodes so far, best first.
#[derive(Debug, Default)]
struct Pool {
    nodes: Vec<Node>,
    capacity: usize,
}

/// What a search needs of memory, kept by each thread for its next one: a byte a row of the largest graph it searched.
#[derive(Debug, Default)]
struct Scratch {
    /// The number of the search that saw a row last.
    seen_in: Vec<u8>,
    search: u8,
    pool: Pool,
    kept: Pool,
    fresh: Vec<u32>,
    sums: Vec<i32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl<B: AsRef<[u8]>> Graph<B> {
    /// The graph in a file. Every number of it is checked here.
    ///
    /// Cost: reads the graph once, not the codes; of a graph over f32 rows it makes codes, `dim` bytes a row, and under
    /// the distance it computes their lengths.
    ///
    /// # Errors
    /// A file of another kind than HNSW over flat rows or 8-bit codes, or one that contradicts itself.
    pub fn open(file: B) -> Result<Graph<B>, Malformed> {
        let Layout { metric, dim, rows, content } = Layout::read(file.as_ref())?;
        let GraphContent::Hnsw { graph: layout, storage } = content else {
            return Err(Malformed("it holds no HNSW graph".into()));
        };
        let codes = match storage.content {
            GraphContent::Sq8(quantizer) => Codes8::of_file(file.as_ref(), quantizer, metric),
            GraphContent::Flat { floats } => Codes8::of_floats(&file.as_ref()[floats], dim, metric),
            GraphContent::Hnsw { .. } | GraphContent::IdMap { .. } => {
                return Err(Malformed("a graph over rows that are not flat, nor 8-bit codes".into()));
            }
        };
        let codes = codes.map_err(|error| Malformed(format!("no memory for its codes: {error}")))?;
        Ok(Graph { file, metric, dim, rows, layout, codes })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Components of a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Bytes of memory that it takes, those of the file not counted.
    pub fn memory_bytes(&self) -> usize {
        self.codes.table.bytes().len() + self.codes.squares.len() * 4
    }

    /// Rows that are near a query, nearest first by their codes; only those that `keep` allows, if it is given.
    ///
    /// Cost: about `ef` times half the neighbours of a node rows of codes, each read from memory once.
    ///
    /// # Panics
    /// If the query has another dimension.
    pub fn search(
        &self,
        query: &[f32],
        params: SearchParams,
        keep: Option<&dyn Fn(u32) -> bool>,
    ) -> Vec<u32> {
        assert_eq!(query.len(), self.dim, "a query of another dimension");
        let Some(entry) = self.layout.entry else { return Vec::new() };
        let weights = self.codes.quantizer.weights(query, self.metric);
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.begin(self.rows, params.ef.max(params.candidates));
            let nearest = self.descend(&weights, entry as u32, scratch);
            self.expand(&weights, nearest, keep, scratch);
            let found = if keep.is_some() { &scratch.kept } else { &scratch.pool };
            found.nodes.iter().take(params.candidates).map(|node| node.row).collect()
        })
    }

    /// Goes down the levels above the lowest, each time to the nearest node that can be reached.
    fn descend(&self, weights: &QueryWeights, entry: u32, scratch: &mut Scratch) -> Node {
        scratch.fresh.clear();
        scratch.fresh.push(entry);
        self.score(weights, &scratch.fresh, &mut scratch.sums);
        let mut nearest = self.node(weights, entry, scratch.sums[0]);
        for level in (1..=self.layout.level_max).rev() {
            loop {
                let before = nearest.row;
                scratch.fresh.clear();
                scratch.fresh.extend(self.neighbors(before, level));
                self.score(weights, &scratch.fresh, &mut scratch.sums);
                for (&row, &sum) in scratch.fresh.iter().zip(&scratch.sums) {
                    let node = self.node(weights, row, sum);
                    if node.score > nearest.score {
                        nearest = node;
                    }
                }
                if nearest.row == before {
                    break;
                }
            }
        }
        nearest
    }

    /// Fills the pool of the lowest level from a node near the query.
    fn expand(
        &self,
        weights: &QueryWeights,
        from: Node,
        keep: Option<&dyn Fn(u32) -> bool>,
        scratch: &mut Scratch,
    ) {
        let Scratch { seen_in, search, pool, kept, fresh, sums } = scratch;
        let mut see = |row: u32| std::mem::replace(&mut seen_in[row as usize], *search) != *search;
        let mut offer = |node: Node, pool: &mut Pool| {
            let place = pool.offer(node);
            if keep.is_some_and(|keep| kept.would_take(node.score) && keep(node.row)) {
                kept.offer(node);
            }
            place
        };
        see(from.row);
        offer(from, pool);
        let mut next = 0;
        while let Some(node) = pool.nodes.get_mut(next) {
            if std::mem::replace(&mut node.is_expanded, true) {
                next += 1;
                continue;
            }
            let row = node.row;
            fresh.clear();
            fresh.extend(self.neighbors(row, 0).filter(|&row| see(row)));
            self.score(weights, fresh, sums);
            for (&row, &sum) in fresh.iter().zip(&*sums) {
                next = next.min(offer(self.node(weights, row, sum), pool));
            }
        }
    }

    fn node(&self, weights: &QueryWeights, row: u32, sum: i32) -> Node {
        let score = match self.codes.squares.get(row as usize) {
            Some(square) => weights.factor * sum as f32 - square,
            None => sum as f32,
        };
        Node { score, row, is_expanded: false }
    }

    fn score(&self, weights: &QueryWeights, rows: &[u32], sums: &mut Vec<i32>) {
        sums.resize(rows.len(), 0);
        kernels::byte_sums(&weights.weights, self.codes.table.bytes(), rows, sums);
    }

    /// The neighbours of a node on a level.
    fn neighbors(&self, row: u32, level: usize) -> impl Iterator<Item = u32> {
        let file = self.file.as_ref();
        let (offsets, _) = file[self.layout.offsets.clone()].as_chunks::<8>();
        let (neighbors, _) = file[self.layout.neighbors.clone()].as_chunks::<4>();
        let ends = [row as usize, row as usize + 1].map(|row| u64::from_le_bytes(offsets[row]) as usize);
        let all = &neighbors[ends[0]..ends[1]];
        let [from, to] = [level, level + 1].map(|level| self.layout.below_level[level].min(all.len()));
        all[from..to].iter().map_while(|&bytes| u32::try_from(i32::from_le_bytes(bytes)).ok())
    }
}

impl Codes8 {
    fn of_file(file: &[u8], quantizer: Sq8, metric: Metric) -> io::Result<Codes8> {
        let dim = quantizer.low.len();
        let rows = file[quantizer.codes.clone()].chunks_exact(dim);
        let table = CodeTable::new(dim, rows.len(), rows, |row, codes| codes.copy_from_slice(row))?;
        Ok(Codes8 { squares: quantizer.squares(&table, metric), table, quantizer })
    }

    /// Codes of f32 rows in a file, each dimension cut into 256 parts between its ends.
    fn of_floats(floats: &[u8], dim: usize, metric: Metric) -> io::Result<Codes8> {
        let (floats, _) = floats.as_chunks::<4>();
        let rows = || floats.chunks_exact(dim);
        let (mut low, mut high) = (vec![f32::INFINITY; dim], vec![f32::NEG_INFINITY; dim]);
        for row in rows() {
            for ((low, high), &x) in low.iter_mut().zip(&mut high).zip(row) {
                let x = f32::from_le_bytes(x);
                (*low, *high) = (low.min(x), high.max(x));
            }
        }
        let span: Vec<f32> = low.iter().zip(&high).map(|(low, high)| high - low).collect();
        let steps: Vec<f32> =
            span.iter().map(|span| if *span > 0.0 { CODE_LEVEL / span } else { 0.0 }).collect();
        let encode = |row: &[[u8; 4]], codes: &mut [u8]| {
            for ((code, &x), (low, step)) in codes.iter_mut().zip(row).zip(low.iter().zip(&steps)) {
                *code = ((f32::from_le_bytes(x) - low) * step) as u8;
            }
        };
        let table = CodeTable::new(dim, rows().len(), rows(), encode)?;
        let quantizer = Sq8 { low, span, codes: 0..0 };
        Ok(Codes8 { squares: quantizer.squares(&table, metric), table, quantizer })
    }
}

impl Sq8 {
    /// A query in whole numbers. What all rows have in common is left out.
    fn weights(&self, query: &[f32], metric: Metric) -> QueryWeights {
        let exact = || query.iter().zip(&self.span).map(|(x, span)| x * span / CODE_LEVEL);
        let largest = exact().fold(0.0_f32, |largest, weight| largest.max(weight.abs()));
        let scale = if largest > 0.0 { WEIGHT_LEVEL / largest } else { 0.0 };
        let mut weights: Vec<i8> = exact().map(|weight| (weight * scale).round() as i8).collect();
        weights.resize(CodeTable::stride(query.len()), 0);
        let factor = match metric {
            Metric::Cosine | Metric::InnerProduct => 0.0,
            // -|q - x|^2 = 2 q.x - |x|^2 - |q|^2
            Metric::L2 => 2.0 * largest / WEIGHT_LEVEL,
        };
        QueryWeights { weights, factor }
    }

    /// The squared length of each row, if the metric needs it.
    fn squares(&self, table: &CodeTable, metric: Metric) -> Vec<f32> {
        match metric {
            Metric::Cosine | Metric::InnerProduct => Vec::new(),
            Metric::L2 => table.rows().map(|codes| self.decode(codes).map(|x| x * x).sum()).collect(),
        }
    }
}

impl Scratch {
    fn begin(&mut self, rows: usize, capacity: usize) {
        if self.seen_in.len() < rows {
            self.seen_in.resize(rows, 0);
        }
        self.search = self.search.wrapping_add(1);
        if self.search == 0 {
            self.seen_in.fill(0);
            self.search = 1;
        }
        for pool in [&mut self.pool, &mut self.kept] {
            pool.nodes.clear();
            pool.capacity = capacity;
        }
    }
}

impl Pool {
    fn would_take(&self, score: f32) -> bool {
        self.nodes.len() < self.capacity || self.nodes.last().is_some_and(|worst| score > worst.score)
    }

    /// Takes a node if it is among the best; returns its place, which is past the end if it is not.
    fn offer(&mut self, node: Node) -> usize {
        if !self.would_take(node.score) {
            return self.capacity;
        }
        let place = self.nodes.partition_point(|better| better.score >= node.score);
        if self.nodes.len() == self.capacity {
            self.nodes.pop();
        }
        self.nodes.insert(place, node);
        place
    }
}
