//! How much of the exact results the indexes find: a share of the live searches is run again exactly, in the background.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;

use super::metrics::QueryMetrics;
use crate::metrics::Histogram;
use crate::search::{Catalog, Query, Results, View};
use crate::sync::lock;

/// Samples whose mean is held against the target.
const WINDOW: u32 = 100;
/// Scores this close to the last exact one are ties with it.
const TIE: f32 = 1e-6;

/// The sampler.
#[derive(Debug)]
pub(super) struct Recall {
    /// One search in so many is sampled; 0 is none.
    every: u64,
    target: f64,
    searches: AtomicU64,
    /// One sample at a time: what comes meanwhile is not sampled.
    turn: Arc<Semaphore>,
    window: Mutex<(f64, u32)>,
    recall: Histogram,
}

impl Recall {
    pub(super) fn new(share: f64, target: f64, metrics: &QueryMetrics) -> Recall {
        Recall {
            every: if share > 0.0 { (1.0 / share).round().max(1.0) as u64 } else { 0 },
            target,
            searches: AtomicU64::new(0),
            turn: Arc::new(Semaphore::new(1)),
            window: Mutex::default(),
            recall: metrics.recall.clone(),
        }
    }

    /// Runs the first query of a search by index again, exactly, if it is its turn. Returns at once.
    pub(super) fn sample(
        self: &Arc<Self>,
        catalog: &Arc<Catalog>,
        view: &Arc<View>,
        query: &Query,
        found: &[Results],
    ) {
        let is_by_index = query.ef.is_some_and(|ef| view.asks_index(ef, query.k));
        if !is_by_index
            || self.every == 0
            || !self.searches.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.every)
        {
            return;
        }
        let (Some(found), Ok(turn)) = (found.first().cloned(), Arc::clone(&self.turn).try_acquire_owned())
        else {
            return;
        };
        let vectors = query.vectors[..view.dim()].to_vec();
        let exact = Arc::new(Query { vectors, ef: None, ..query.clone() });
        let (own, catalog, view) = (Arc::clone(self), Arc::clone(catalog), Arc::clone(view));
        tokio::spawn(async move {
            // Where searches wait, a sample would only make them wait longer: it is refused like any other.
            if let Ok(exact) = catalog.search(view, exact).await
                && let Some(recall) = exact.first().and_then(|exact| recall(&scores(exact), &scores(&found)))
            {
                own.note(recall);
            }
            drop(turn);
        });
    }

    fn note(&self, recall: f64) {
        self.recall.observe(recall);
        let mut window = lock(&self.window);
        let (sum, count) = (window.0 + recall, window.1 + 1);
        *window = if count < WINDOW { (sum, count) } else { (0.0, 0) };
        let mean = sum / f64::from(count);
        if count == WINDOW && mean < self.target {
            tracing::warn!(
                recall = mean,
                target = self.target,
                "indexes find less than they should: search.index.ef can be raised, or ef with each search"
            );
        }
    }
}

fn scores(results: &Results) -> Vec<f32> {
    results.iter().map(|hit| hit.score).collect()
}

/// The share of exact results that were found, both by their scores, best first; none if there are none.
fn recall(exact: &[f32], found: &[f32]) -> Option<f64> {
    let threshold = exact.last()? - TIE;
    let hits = found.iter().filter(|&&score| score >= threshold).count();
    Some(hits.min(exact.len()) as f64 / exact.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_with_the_last_result_count() {
        let exact = [0.9, 0.8, 0.7, 0.7];
        assert_eq!(recall(&exact, &exact), Some(1.0));
        assert_eq!(recall(&exact, &[0.9, 0.7, 0.6, 0.5]), Some(0.5));
        assert_eq!(recall(&[], &exact), None);
    }
}
