//! Searches while documents come and go, indexes are built, swapped and snapshotted. `make soak` lets it run for minutes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use super::{Fixture, ROWS, encoded, indexed, post, recall, results, search, vector};
use crate::kill::splitmix;
use crate::program::{Server, until};

const WRITERS: u64 = 2;
const READERS: u64 = 4;
/// Documents of one write.
const BATCH: u64 = 40;
/// Indexes that are built at least.
const BUILDS: u64 = 4;
/// What memory may grow by while nothing grows that it holds: allocators and the page tables of mappings.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

/// What became of each document: the number of its last write, odd where that has removed it.
struct Ledger(Vec<Fate>);

#[derive(Default)]
struct Fate {
    begun: AtomicU64,
    acknowledged: AtomicU64,
}

impl Ledger {
    /// Every document as its first write left it.
    fn new() -> Ledger {
        Ledger((0..ROWS).map(|_| Fate::default()).collect())
    }

    fn acknowledged(&self) -> Vec<u64> {
        self.0.iter().map(|fate| fate.acknowledged.load(Ordering::SeqCst)).collect()
    }

    /// Whether a document may have been found with a score by a search that began when `from` was acknowledged.
    fn allows(&self, from: &[u64], id: u64, score: f64, query: &[f32]) -> bool {
        let Some(fate) = self.0.get(id as usize) else { return false };
        let writes = from[id as usize]..=fate.begun.load(Ordering::SeqCst);
        let mut present = writes.filter(|write| write.is_multiple_of(2));
        present.any(|write| (cosine(query, &written(id, write)) - score).abs() < 1e-5)
    }
}

/// What a write leaves of a document. The first is what the fixture stores.
fn written(id: u64, write: u64) -> Vec<f32> {
    vector(id, 1 + write)
}

fn cosine(one: &[f32], two: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(one, two) / (dot(one, one) * dot(two, two)).sqrt()
}

async fn builds(server: &Server) -> u64 {
    let metrics = server.get("/metrics").await.body;
    let line = metrics
        .as_str()
        .unwrap()
        .lines()
        .find(|line| line.starts_with("likewise_collection_index_builds_total"));
    line.and_then(|line| line.rsplit(' ').next()).unwrap().parse().unwrap()
}

/// Replaces documents of its own, and removes some, which come back with a later write.
async fn write(server: &Server, ledger: &Ledger, writer: u64, is_over: &AtomicBool) {
    let mut random = writer;
    while !is_over.load(Ordering::Relaxed) {
        random = splitmix(random);
        let removes = random.is_multiple_of(8);
        let first = splitmix(random) % (ROWS / WRITERS);
        let own = (first..first + BATCH).map(|at| at % (ROWS / WRITERS) * WRITERS + writer);
        let batch: Vec<(u64, u64)> = own
            .map(|id| {
                let last = ledger.0[id as usize].begun.load(Ordering::SeqCst);
                (id, if last.is_multiple_of(2) == removes { last + 1 } else { last + 2 })
            })
            .collect();
        batch.iter().for_each(|&(id, write)| ledger.0[id as usize].begun.store(write, Ordering::SeqCst));
        if removes {
            let ids: Vec<String> = batch.iter().map(|(id, _)| id.to_string()).collect();
            post(server, "documents/delete", json!({ "ids": ids })).await;
        } else {
            let document = |&(id, write): &(u64, u64)| json!({ "id": id.to_string(), "vector": encoded(&written(id, write)) });
            let documents: Vec<_> = batch.iter().map(document).collect();
            post(server, "documents", json!({ "documents": documents })).await;
        }
        batch
            .iter()
            .for_each(|&(id, write)| ledger.0[id as usize].acknowledged.store(write, Ordering::SeqCst));
    }
}

/// Searches by index and exactly, cached and uncached, and holds every result against the ledger. Returns how often.
async fn read(server: &Server, ledger: &Ledger, reader: u64, is_over: &AtomicBool) -> u64 {
    let (mut random, mut searches) = (reader, 0);
    while !is_over.load(Ordering::Relaxed) {
        random = splitmix(random);
        let number = random >> 32 & 63;
        let fields = json!({ "exact": random.is_multiple_of(5), "cache": { "no-cache": random & 64 == 0 } });
        let from = ledger.acknowledged();
        let found = results(&search(server, number, fields).await);
        assert_eq!(found.len(), 10);
        assert!(found.is_sorted_by(|one, two| one.1 >= two.1), "{found:?}");
        for (id, score) in &found {
            let id = id.parse().unwrap();
            assert!(ledger.allows(&from, id, *score, &vector(number, 77)), "document {id}, score {score}");
        }
        searches += 1;
    }
    searches
}

/// Asks for one snapshot after the other until enough indexes have been built and the time is over.
async fn snapshots(server: &Server, lasts: Duration, is_over: &AtomicBool) {
    let start = Instant::now();
    while start.elapsed() < lasts || builds(server).await < BUILDS {
        let before = builds(server).await;
        post(server, "snapshots", json!({})).await;
        until("an index is built", async || builds(server).await > before).await;
    }
    is_over.store(true, Ordering::Relaxed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn searches_hold_while_documents_come_and_go_and_indexes_are_swapped() {
    let seconds = std::env::var("LIKEWISE_SOAK_SECONDS").map_or(2, |text| text.parse().unwrap());
    let fixture = Fixture::new().await;
    let server = fixture.with_index("HNSW16,SQ8").await;
    let (ledger, is_over) = (Ledger::new(), AtomicBool::new(false));
    let before = server.private_bytes();
    let (_, _, searches) = tokio::join!(
        snapshots(&server, Duration::from_secs(seconds), &is_over),
        join_all((0..WRITERS).map(|writer| write(&server, &ledger, writer, &is_over))),
        join_all((0..READERS).map(|reader| read(&server, &ledger, reader, &is_over))),
    );
    let after = server.private_bytes();
    let acknowledged = ledger.acknowledged();
    println!(
        "{} searches, {} writes of a document, {} indexes built, {} and then {} MiB of memory",
        searches.iter().sum::<u64>(),
        acknowledged.iter().map(|write| write / 2).sum::<u64>(),
        builds(&server).await,
        before >> 20,
        after >> 20
    );
    assert!(after < before + GROWTH_BYTES_MAX, "memory grew from {before} to {after} bytes");

    // In the end it holds what was acknowledged last, and nothing else.
    let present = |(id, &write): (usize, &u64)| write.is_multiple_of(2).then(|| written(id as u64, write));
    let left: Vec<Vec<f32>> = acknowledged.iter().enumerate().filter_map(present).collect();
    post(&server, "snapshots", json!({})).await;
    indexed(&server, left.len() as u64).await;
    assert!(recall(&server, json!({})).await >= 0.97);
    for number in 0..20 {
        let query = vector(number, 77);
        let mut scores: Vec<f64> = left.iter().map(|vector| cosine(&query, vector)).collect();
        scores.sort_by(|a, b| b.total_cmp(a));
        let found = results(&search(&server, number, json!({ "exact": true })).await);
        for ((id, found), score) in found.iter().zip(&scores) {
            assert!((found - score).abs() < 1e-5, "query {number}, document {id}: {found}, not {score}");
        }
    }
}
