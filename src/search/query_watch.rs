//! Queries whose results are cached, watched for the writes that change them.
//!
//! A cached result is valid if every commit since its search left it as it was. The writer compares each
//! commit with the watched queries before it publishes the commit. Queries whose result the commit changes are no longer
//! watched, and a result that is not watched is not served. So a hit is exactly what a search at this moment would find.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use likewise_index::{Metric, score};

use super::document::DocumentRef;
use super::filter::Filter;
use super::results::Results;
use super::values::Values;
use crate::domain::{ByPrefix, Key};
use crate::sync::{RwLock, ignore_poison};

/// Cached results of one collection; past that all are dropped.
const WATCHED_MAX: usize = 4096;
/// Bytes that the watched queries of a collection take, about; past that all are dropped.
const BYTES_MAX: usize = 64 << 20;
/// Rows of one commit; past that all results are dropped, which is cheaper than to look.
const ROWS_MAX: usize = 256;
/// Comparisons of filters with values in one commit; past that all results are dropped, which is cheaper than to look.
const COMPARED_MAX: usize = 1 << 24;

/// A query whose results are cached.
#[derive(Debug)]
pub struct WatchedQuery {
    vector: Box<[f32]>,
    filter: Option<Arc<Filter>>,
    /// The score that a new row must exceed to be among the results; none while there are fewer than `k` of them.
    entry_score: Option<f32>,
    score_min: Option<f32>,
    /// Hashes of the ids that were found.
    ids: Box<[u64]>,
}

/// What a commit did.
#[derive(Debug, Default)]
pub(super) struct CommitEffects {
    /// Vectors of new rows, one after the other.
    pub(super) vectors: Vec<f32>,
    /// Their documents.
    pub(super) documents: Vec<Arc<[u8]>>,
    /// Hashes of the ids that are no longer what they were.
    pub(super) gone: HashSet<u64>,
}

impl CommitEffects {
    fn is_empty(&self) -> bool {
        self.documents.is_empty() && self.gone.is_empty()
    }

    /// The values of the new rows.
    fn values(&self) -> Vec<Values> {
        let documents = self.documents.iter().map(|document| DocumentRef::decode(document));
        documents.map(|document| Values::of(document.unwrap_or_default().metadata)).collect()
    }
}

/// The watched queries of one collection.
#[derive(Debug, Default)]
pub(super) struct QueryWatch {
    state: RwLock<WatchState>,
}

#[derive(Debug, Default)]
struct WatchState {
    version: u64,
    watched: HashMap<Key, Arc<WatchedQuery>, ByPrefix>,
    /// What they take. What no longer is watched counts until all are dropped.
    bytes: usize,
}

impl WatchedQuery {
    /// The query with the results that were found for it.
    pub fn new(
        vector: &[f32],
        filter: Option<Arc<Filter>>,
        k: usize,
        score_min: Option<f32>,
        results: &Results,
    ) -> WatchedQuery {
        let scores: Vec<f32> = results.iter().map(|hit| hit.score).collect();
        let is_full = scores.len() == k;
        WatchedQuery {
            vector: vector.into(),
            filter,
            entry_score: scores.last().copied().filter(|_| is_full),
            score_min,
            ids: results.iter().map(|hit| super::block::hash_id(hit.document.id)).collect(),
        }
    }

    /// About what it takes of memory.
    fn bytes(&self) -> usize {
        let filter = self.filter.as_ref().map_or(0, |filter| filter.bytes());
        size_of::<WatchedQuery>() + 64 + self.vector.len() * 4 + self.ids.len() * 8 + filter
    }

    /// The length of its filter.
    fn filter_len(&self) -> usize {
        self.filter.as_ref().map_or(0, |filter| filter.len())
    }

    /// `values` are those of the new rows, or empty if no watched query has a filter.
    fn is_changed_by(&self, metric: Metric, effects: &CommitEffects, values: &[Values]) -> bool {
        let none = Values::default();
        let row_values = |row: usize| values.get(row).unwrap_or(&none);
        self.ids.iter().any(|id| effects.gone.contains(id))
            || effects
                .vectors
                .chunks_exact(self.vector.len())
                .zip(&effects.documents)
                .enumerate()
                .any(|(row, (vector, document))| self.would_find(metric, vector, document, row_values(row)))
    }

    fn would_find(&self, metric: Metric, vector: &[f32], document: &[u8], values: &Values) -> bool {
        let score = score(metric, &self.vector, vector);
        // A new row comes after all others, so an equal score does not reach the results.
        let is_near = self.entry_score.is_none_or(|entry_score| score > entry_score)
            && self.score_min.is_none_or(|min| score >= min);
        is_near
            && self.filter.as_ref().is_none_or(|filter| {
                DocumentRef::decode(document).is_none_or(|document| filter.means(&document, values))
            })
    }
}

impl QueryWatch {
    /// Of a collection at `version`.
    pub(super) fn new(version: u64) -> QueryWatch {
        QueryWatch { state: RwLock::new(WatchState { version, watched: HashMap::default(), bytes: 0 }) }
    }

    /// What `look` finds, if the results under the key still hold; with the version at which they do.
    pub(super) fn look<T>(&self, key: &Key, look: impl FnOnce() -> Option<T>) -> Option<(T, u64)> {
        let state = ignore_poison(self.state.read());
        let found = state.watched.contains_key(key).then(look)??;
        Some((found, state.version))
    }

    /// Watches a query and lets `store` keep its results, if no write has happened since they were found at `version`.
    pub(super) fn admit(&self, version: u64, key: Key, watched: WatchedQuery, store: impl FnOnce()) {
        let mut state = ignore_poison(self.state.write());
        if state.version != version {
            return;
        }
        let bytes = watched.bytes();
        let is_full = state.watched.len() >= WATCHED_MAX && !state.watched.contains_key(&key);
        if is_full || state.bytes + bytes > BYTES_MAX {
            state.watched.clear();
            state.bytes = 0;
        }
        if bytes > BYTES_MAX {
            return;
        }
        state.bytes += bytes;
        state.watched.insert(key, Arc::new(watched));
        // Under the lock: no other task may store older results under this key afterwards.
        store();
    }

    /// Makes a commit visible by `publish`, and forgets the results that it changes, in one step for all readers.
    pub(super) fn publish(
        &self,
        metric: Metric,
        version: u64,
        effects: &CommitEffects,
        publish: impl FnOnce(),
    ) {
        if effects.is_empty() {
            let mut state = ignore_poison(self.state.write());
            state.version = version;
            return publish();
        }
        // Compared without the lock, because it may take long. Queries admitted meanwhile are dropped below.
        let before: HashMap<Key, Arc<WatchedQuery>, ByPrefix> =
            ignore_poison(self.state.read()).watched.clone();
        let filters: usize = before.values().map(|watched| watched.filter_len()).sum();
        let has_many_rows = effects.documents.len() > ROWS_MAX;
        let values = if filters > 0 && !has_many_rows { effects.values() } else { Vec::new() };
        let compared = filters.saturating_mul(values.iter().map(|values| values.len() + 1).sum());
        let drops_all = has_many_rows || compared > COMPARED_MAX;
        let changed: Vec<&Key> = if drops_all {
            Vec::new()
        } else {
            let changed =
                before.iter().filter(|(_, watched)| watched.is_changed_by(metric, effects, &values));
            changed.map(|(key, _)| key).collect()
        };
        let mut state = ignore_poison(self.state.write());
        if drops_all {
            state.watched.clear();
            state.bytes = 0;
        } else {
            // A query admitted meanwhile was not compared, so it is dropped: a miss at worst.
            state
                .watched
                .retain(|key, watched| before.get(key).is_some_and(|known| Arc::ptr_eq(known, watched)));
            changed.into_iter().for_each(|key| _ = state.watched.remove(key));
        }
        state.version = version;
        publish();
    }

    /// Queries that are watched.
    pub(super) fn len(&self) -> usize {
        ignore_poison(self.state.read()).watched.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::filter::Test;
    use super::super::scalar::Scalar;
    use super::*;
    use crate::domain::KeyHasher;

    const FILTER_BYTES: usize = 1 << 20;

    fn key(number: u64) -> Key {
        KeyHasher::new("test").field(&number.to_le_bytes()).finish()
    }

    /// A query whose filter is long.
    fn watched(filter_bytes: usize) -> WatchedQuery {
        let filter = Filter::Field("name".into(), Test::In(vec![Scalar::Text("x".repeat(filter_bytes))]));
        WatchedQuery::new(&[1.0], Some(Arc::new(filter)), 1, None, &Results::new(std::iter::empty()))
    }

    /// A client that sends long filters all day gets as much memory as any other.
    #[test]
    fn watched_queries_stay_within_their_bytes() {
        let watch = QueryWatch::new(0);
        for number in 0..200 {
            watch.admit(0, key(number), watched(FILTER_BYTES), || {});
            let held: usize =
                watch.state.read().unwrap().watched.values().map(|watched| watched.bytes()).sum();
            assert!(held <= BYTES_MAX, "{held} bytes after {number}");
            assert!(watch.look(&key(number), || Some(())).is_some(), "the newest is kept");
        }
        let mut is_stored = false;
        watch.admit(0, key(200), watched(BYTES_MAX), || is_stored = true);
        assert!(!is_stored && watch.look(&key(200), || Some(())).is_none(), "one alone over the limit");
    }
}
