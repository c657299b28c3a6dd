//! The nearest documents of a view: rows that the index covers are proposed by it or scanned, all others are scanned.

use std::cmp::Ordering;
use std::sync::Arc;

use likewise_index::{Bits, Neighbor, Scanner, SearchParams, score};
use ndarray::ArrayView2;

use super::ann_index::AnnIndex;
use super::filter::Filter;
use super::results::Results;
use super::view::View;
use crate::error::{Error, Result};

/// Rows that are scanned in about the time in which a graph expands one node.
const ROWS_PER_EXPANDED: usize = 20;
/// Candidates of the index that are scored for each result, and at least: what its codes confuse is among them.
const CANDIDATES_PER_RESULT: usize = 4;
const CANDIDATES_MIN: usize = 40;

/// What is searched for.
#[derive(Debug, Clone)]
pub struct Query {
    /// Prepared vectors, one after the other.
    pub vectors: Vec<f32>,
    /// How many results each is to have at most.
    pub k: usize,
    /// Which documents may be found.
    pub filter: Option<Arc<Filter>>,
    /// Scores below it are not results.
    pub score_min: Option<f32>,
    /// Whether results carry their vectors.
    pub has_vectors: bool,
    /// Nodes that a graph expands at least; none if the index is not to be asked.
    pub ef: Option<usize>,
    /// Bytes of all results together, at most.
    pub bytes_max: usize,
}

/// Which rows may be found, by part.
struct Kept<'a> {
    bits: Vec<&'a Bits>,
    rows: Vec<usize>,
}

/// A search of the index.
struct Walk<'a> {
    index: &'a AnnIndex,
    params: SearchParams,
    is_whole: bool,
}

impl View {
    /// Results for each vector of the query; exact if the index is not asked. Blocks for as long as it takes.
    ///
    /// # Errors
    /// `InvalidInput` if the results together would be too large.
    pub fn search(&self, scanner: &Scanner, query: &Query) -> Result<Vec<Results>> {
        let filtered: Vec<Option<Bits>> = self
            .parts
            .iter()
            .map(|part| query.filter.as_ref().map(|filter| part.block.filtered(part.live(), filter)))
            .collect();
        let bits: Vec<&Bits> = self
            .parts
            .iter()
            .zip(&filtered)
            .map(|(part, bits)| bits.as_ref().unwrap_or(part.live()))
            .collect();
        let kept = Kept { rows: bits.iter().map(|bits| bits.count()).collect(), bits };
        let found = self
            .walk(query, &kept)
            .and_then(|walk| self.walked(scanner, query, &kept, &walk))
            .unwrap_or_else(|| self.scanned(scanner, query, &kept, 0));
        let mut results = Vec::with_capacity(found.len());
        for found in found {
            results.push(self.results(query, found));
            check_bytes(results.iter(), query.bytes_max)?;
        }
        Ok(results)
    }

    /// Whether a search by the index would ask it: there is one, and no scan is as fast.
    pub fn asks_index(&self, ef: usize, k: usize) -> bool {
        self.index.as_ref().is_some_and(|index| index.rows() > ef.max(k) * ROWS_PER_EXPANDED)
    }

    /// How the index is searched; none where a scan is exact and takes no longer, or the index is not to be asked.
    fn walk(&self, query: &Query, kept: &Kept<'_>) -> Option<Walk<'_>> {
        let (index, ef) = (self.index.as_ref()?, query.ef?);
        let (all, kept) = (index.rows(), kept.rows[..index.parts()].iter().sum::<usize>());
        if kept < all / 2 && !index.takes_filters() {
            return None;
        }
        // Of the nodes that a graph expands, so many times fewer are kept.
        let ef = ef.max(query.k).saturating_mul(all) / kept.max(1);
        if kept <= ef.saturating_mul(ROWS_PER_EXPANDED) {
            return None;
        }
        // A query that asks for a smaller `ef` than the candidates need gets that `ef`.
        let candidates = (query.k * CANDIDATES_PER_RESULT).max(CANDIDATES_MIN).min(ef);
        Some(Walk { index, params: SearchParams { ef, candidates }, is_whole: kept == all })
    }

    /// Neighbours by the index, and by a scan of what it does not cover; none if it found too few.
    fn walked(
        &self,
        scanner: &Scanner,
        query: &Query,
        kept: &Kept<'_>,
        walk: &Walk<'_>,
    ) -> Option<Vec<Vec<Neighbor>>> {
        let mut found = self.scanned(scanner, query, kept, walk.index.parts());
        let wanted = query.k.min(kept.rows.iter().sum());
        for (found, vector) in found.iter_mut().zip(query.vectors.chunks_exact(self.dim)) {
            let keep = (!walk.is_whole).then_some(&kept.bits[..]);
            for (block, row) in walk.index.propose(vector, walk.params, keep) {
                let score = score(self.metric, vector, self.parts[block].block.vector(row));
                found.push(Neighbor { block: block as u32, row: row as u32, score });
            }
            if found.len() < wanted {
                return None;
            }
            found.sort_unstable_by(best_first);
            found.truncate(query.k);
        }
        Some(found)
    }

    /// Neighbours by a scan of the parts from one on.
    fn scanned(&self, scanner: &Scanner, query: &Query, kept: &Kept<'_>, from: usize) -> Vec<Vec<Neighbor>> {
        let parts = self.parts.iter().zip(&kept.bits).zip(&kept.rows).skip(from);
        let blocks: Vec<likewise_index::Block<'_>> = parts
            .map(|((part, bits), &rows)| part.block.searched((rows < part.block.len()).then_some(*bits)))
            .collect();
        let shape = (query.vectors.len() / self.dim, self.dim);
        let vectors = ArrayView2::from_shape(shape, &query.vectors).expect("whole vectors: this is a bug");
        let mut found = scanner.search(self.metric, &blocks, vectors, query.k);
        found.iter_mut().flatten().for_each(|neighbor| neighbor.block += from as u32);
        found
    }

    fn results(&self, query: &Query, found: Vec<Neighbor>) -> Results {
        let is_result = |score: f32| query.score_min.is_none_or(|min| score >= min);
        let hits = found.into_iter().filter(|found| is_result(found.score));
        Results::new(hits.map(|found| {
            let (block, row) = (&self.parts[found.block as usize].block, found.row as usize);
            let vector = if query.has_vectors { block.vector(row) } else { &[] };
            (found.score, block.document_bytes(row), vector)
        }))
    }
}

/// Whether results are small enough together.
///
/// # Errors
/// `InvalidInput` if not.
pub fn check_bytes<'a>(results: impl Iterator<Item = &'a Results>, bytes_max: usize) -> Result<()> {
    let bytes: usize = results.map(|results| results.bytes().len()).sum();
    if bytes <= bytes_max {
        return Ok(());
    }
    let message =
        format!("the results have more than {bytes_max} bytes: ask for fewer, or for fewer at once");
    Err(Error::invalid("k", message))
}

/// The order of results: the best first, equal ones as they were written.
fn best_first(a: &Neighbor, b: &Neighbor) -> Ordering {
    let by_score = b.score.partial_cmp(&a.score).unwrap_or(Ordering::Equal);
    by_score.then_with(|| (a.block, a.row).cmp(&(b.block, b.row)))
}
