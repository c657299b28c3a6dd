//! The orders in which writers, searches and readers of cached results can meet, tried by a scheduler; see
//! [`crate::sync`].

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use likewise_index::Metric;
use shuttle::thread;

use super::block::hash_id;
use super::document::Document;
use super::query_watch::{CommitEffects, QueryWatch, WatchedQuery};
use super::results::Results;
use crate::domain::{Key, KeyHasher};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};

const RUNS: usize = 3_000;
/// Forced switches a run.
const DEPTH: usize = 3;

/// A document of one number, which is its score too.
type ScoredId = (&'static str, f32);

/// What each commit does, and what is the best document after it: one that changes nothing that was found, one that
/// removes it, one that is better.
const COMMITS: [(Option<ScoredId>, Option<&str>, ScoredId); 4] = [
    (Some(("first", 5.0)), None, ("first", 5.0)),
    (Some(("worse", 3.0)), None, ("first", 5.0)),
    (None, Some("first"), ("worse", 3.0)),
    (Some(("better", 9.0)), None, ("better", 9.0)),
];

fn document(id: &str) -> Vec<u8> {
    Document { id: id.to_owned(), ..Document::default() }.encode()
}

fn effects(row: Option<ScoredId>, gone: Option<&str>) -> CommitEffects {
    CommitEffects {
        vectors: row.iter().map(|row| row.1).collect(),
        documents: row.iter().map(|row| document(row.0).into()).collect(),
        gone: gone.into_iter().map(hash_id).collect(),
    }
}

#[test]
fn a_cached_result_is_what_a_search_finds_and_never_older_than_what_was_acknowledged() {
    shuttle::check_pct(
        || {
            let key: Key = KeyHasher::new("test").finish();
            let watch = Arc::new(QueryWatch::new(1));
            let view = Arc::new(ArcSwap::from_pointee((1, COMMITS[0].2)));
            let cache: Arc<Mutex<HashMap<Key, ScoredId>>> = Arc::default();
            let acknowledged = Arc::new(AtomicU64::new(1));
            let writer = {
                let (watch, view, acknowledged) =
                    (Arc::clone(&watch), Arc::clone(&view), Arc::clone(&acknowledged));
                thread::spawn(move || {
                    for (&(row, gone, best), version) in COMMITS.iter().zip(1..).skip(1) {
                        let publish = || view.store(Arc::new((version, best)));
                        watch.publish(Metric::InnerProduct, version, &effects(row, gone), publish);
                        acknowledged.store(version, Ordering::SeqCst);
                    }
                })
            };
            let searcher = || {
                let (watch, view, cache) = (Arc::clone(&watch), Arc::clone(&view), Arc::clone(&cache));
                let acknowledged = Arc::clone(&acknowledged);
                thread::spawn(move || {
                    for _ in 0..3 {
                        let known = acknowledged.load(Ordering::SeqCst);
                        let held = || cache.lock().unwrap().get(&key).copied();
                        if let Some((row, version)) = watch.look(&key, held) {
                            assert_eq!(row, COMMITS[version as usize - 1].2, "at version {version}");
                            assert!(version >= known, "{known} was acknowledged, {version} is served");
                        }
                        let (version, best) = **view.load();
                        assert!(version >= known, "{known} was acknowledged, {version} is searched");
                        thread::yield_now();
                        let found = document(best.0);
                        let results = Results::new([(best.1, &found[..], &[][..])].into_iter());
                        let watched = WatchedQuery::new(&[1.0], None, 1, None, &results);
                        watch.admit(version, key, watched, || _ = cache.lock().unwrap().insert(key, best));
                    }
                })
            };
            let threads = [writer, searcher(), searcher()];
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        },
        RUNS,
        DEPTH,
    );
}
