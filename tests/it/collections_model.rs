//! A collection against a plain list of documents: random writes, searches, restarts and compactions; then, over HTTP,
//! cached results against fresh ones while others write.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::future::join_all;
use likewise::domain::TenantId;
use likewise::error::Kind;
use likewise::metrics::unexported;
use likewise::search::{
    Catalog, Change, CompactionOptions, Document, DocumentBatch, DocumentPatch, Filter, Indexed, Metric,
    Options, PageQuery, Program, Query, Settings, Test, View, number,
};
use likewise::storage::collections::Place;
use likewise::storage::{OsFiles, ReadMode};
use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

use crate::endpoint::{Endpoint, remote};
use crate::kill::splitmix;
use crate::program::{Server, until};

const DIM: usize = 2;
const IDS: u8 = 12;

#[derive(Debug, Clone)]
enum Step {
    /// Ids, each with coordinates on a coarse grid, so that many scores are equal.
    Upsert(Vec<(u8, i8, i8)>),
    Delete(Vec<u8>),
    /// Another first coordinate in the metadata alone, or in the vector too.
    Patch {
        id: u8,
        x: i8,
        has_vector: bool,
    },
    /// Those whose first coordinate is at least so much.
    DeleteFrom(i8),
    Search {
        x: i8,
        y: i8,
        k: usize,
        from: Option<i8>,
    },
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let grid = || -2..3_i8;
    let documents = prop::collection::vec((0..IDS, grid(), grid()), 1..6);
    let step = prop_oneof![
        6 => documents.prop_map(Step::Upsert),
        2 => prop::collection::vec(0..IDS, 1..4).prop_map(Step::Delete),
        1 => grid().prop_map(Step::DeleteFrom),
        4 => (0..IDS, grid(), any::<bool>()).prop_map(|(id, x, has_vector)| Step::Patch { id, x, has_vector }),
        6 => (grid(), grid(), 1..8_usize, prop::option::of(grid()))
            .prop_map(|(x, y, k, from)| Step::Search { x, y, k, from }),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..40)
}

/// The documents in the order in which they were written last.
type Oracle = Vec<Known>;

/// A document as it must be.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Known {
    id: u8,
    point: [f32; DIM],
    /// The metadata.
    x: i8,
}

fn filter(from: i8) -> Filter {
    Filter::Field("x".into(), Test::Range(Bound::Included(number(from.into())), Bound::Unbounded))
}

struct World {
    dir: TempDir,
    catalog: Catalog,
    oracle: Oracle,
    version: u64,
}

impl World {
    fn open(dir: &TempDir) -> Catalog {
        // So small that segments, compactions and merged blocks come all the time.
        let compaction = CompactionOptions { segment_bytes: 600, dead_rows_busy: 1, idle_ms: 1 };
        let options = Options { threads: 1, compaction, ..Options::default() };
        let place = Place { files: Arc::new(OsFiles), dir: dir.path().join("c"), read: ReadMode::Mmap };
        Catalog::open(place, options, Program::at(env!("CARGO_BIN_EXE_likewise")), unexported()).unwrap()
    }

    async fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        let collection = self.catalog.get(&TenantId::default(), "points").unwrap();
        match step {
            Step::Upsert(documents) => {
                let mut seen = BTreeSet::new();
                let documents: Vec<_> = documents.into_iter().filter(|(id, ..)| seen.insert(*id)).collect();
                let mut batch = DocumentBatch::default();
                for (id, x, y) in documents {
                    let point = [f32::from(x), f32::from(y)];
                    self.oracle.retain(|known| known.id != id);
                    self.oracle.push(Known { id, point, x });
                    batch.vectors.extend(point);
                    let metadata = format!(r#"{{"x":{x}}}"#);
                    batch.documents.push(Document { id: id.to_string(), metadata, ..Document::default() });
                }
                self.version += 1;
                let count = batch.documents.len();
                let receipt = collection.change(Change::Upsert(batch)).await.unwrap();
                prop_assert_eq!((receipt.documents, receipt.version), (count, self.version));
            }
            Step::Delete(ids) => {
                let change = Change::Delete(ids.iter().map(u8::to_string).collect());
                self.delete(change, &collection, |known| ids.contains(&known.id)).await?;
            }
            Step::DeleteFrom(from) => {
                let change = Change::DeleteMatching(filter(from));
                self.delete(change, &collection, |known| known.x >= from).await?;
            }
            Step::Patch { id, x, has_vector } => self.patch(&collection, id, x, has_vector).await?,
            Step::Search { x, y, k, from } => {
                let point = [f32::from(x), f32::from(y)];
                let query = Query {
                    vectors: point.to_vec(),
                    k,
                    filter: from.map(|from| Arc::new(filter(from))),
                    score_min: None,
                    has_vectors: true,
                    ef: None,
                    bytes_max: 1 << 20,
                };
                let found = self.catalog.search(collection.view(), Arc::new(query)).await.unwrap();
                let found: Vec<(String, f32)> =
                    found[0].iter().map(|hit| (hit.document.id.to_owned(), hit.score)).collect();
                let distance = |[a, b]: [f32; DIM]| -((a - point[0]).powi(2) + (b - point[1]).powi(2));
                let kept = self.oracle.iter().filter(|known| from.is_none_or(|from| known.x >= from));
                let mut expected: Vec<(String, f32)> =
                    kept.map(|known| (known.id.to_string(), distance(known.point))).collect();
                expected.sort_by(|(_, a), (_, b)| b.total_cmp(a));
                expected.truncate(k);
                // Minus zero is zero.
                let plain = |all: Vec<(String, f32)>| -> Vec<_> {
                    all.into_iter().map(|(id, score)| (id, score + 0.0)).collect()
                };
                prop_assert_eq!(plain(found), plain(expected));
            }
            Step::Restart => {
                drop(collection);
                self.catalog.close();
                self.catalog = World::open(&self.dir);
            }
        }
        let view = self.catalog.get(&TenantId::default(), "points").unwrap().view();
        let ids: Vec<String> = view.iter().map(|(document, _)| document.id.to_owned()).collect();
        let expected: Vec<String> = self.oracle.iter().map(|known| known.id.to_string()).collect();
        prop_assert_eq!((ids, view.version()), (expected, self.version));
        if self.version.is_multiple_of(3) { self.list(&view).await } else { Ok(()) }
    }

    /// Pages through the documents that a filter selects, and counts them.
    async fn list(&self, view: &Arc<View>) -> Result<(), TestCaseError> {
        let from = (self.version % 4) as i8 - 2;
        let (mut listed, mut after, limit) = (Vec::new(), None, 1 + self.version as usize % 5);
        loop {
            let query = PageQuery {
                after: after.take(),
                limit,
                filter: Some(filter(from)),
                has_vectors: true,
                bytes_max: 1 << 20,
            };
            let page = self.catalog.page(Arc::clone(view), query).await.unwrap();
            prop_assert!(page.documents().len() <= limit);
            listed.extend(page.documents().map(|(document, vector)| {
                (document.id.to_owned(), document.metadata.to_owned(), vector.to_vec())
            }));
            after = page.next().map(str::to_owned);
            if after.is_none() {
                break;
            }
        }
        let kept = self.oracle.iter().filter(|known| known.x >= from);
        let mut expected: Vec<_> = kept
            .map(|known| (known.id.to_string(), format!(r#"{{"x":{}}}"#, known.x), known.point.to_vec()))
            .collect();
        expected.sort_by(|(one, ..), (two, ..)| one.cmp(two));
        prop_assert_eq!(self.catalog.count(Arc::clone(view), filter(from)).await.unwrap(), expected.len());
        prop_assert_eq!(listed, expected);
        Ok(())
    }

    async fn patch(
        &mut self,
        collection: &Arc<likewise::search::Collection>,
        id: u8,
        x: i8,
        has_vector: bool,
    ) -> Result<(), TestCaseError> {
        let place = self.oracle.iter().position(|known| known.id == id);
        let point = place.map_or([0.0; DIM], |place| self.oracle[place].point);
        let point = if has_vector { [f32::from(x), point[1]] } else { point };
        let patch = DocumentPatch {
            vector: has_vector.then(|| point.to_vec()),
            metadata: Some(format!(r#"{{"x":{x}}}"#)),
            ..DocumentPatch::default()
        };
        let done = collection.change(Change::Patch(id.to_string(), patch)).await;
        let Some(place) = place else {
            prop_assert_eq!(done.unwrap_err().kind(), Kind::NotFound);
            return Ok(());
        };
        let changes = has_vector || self.oracle[place].x != x;
        if changes {
            self.oracle.remove(place);
            self.oracle.push(Known { id, point, x });
        }
        self.version += u64::from(changes);
        let receipt = done.unwrap();
        prop_assert_eq!((receipt.documents, receipt.version), (usize::from(changes), self.version));
        Ok(())
    }

    async fn delete(
        &mut self,
        change: Change,
        collection: &Arc<likewise::search::Collection>,
        is_gone: impl Fn(&Known) -> bool,
    ) -> Result<(), TestCaseError> {
        let before = self.oracle.len();
        self.oracle.retain(|document| !is_gone(document));
        let gone = before - self.oracle.len();
        self.version += u64::from(gone > 0);
        let receipt = collection.change(change).await.unwrap();
        prop_assert_eq!((receipt.documents, receipt.version), (gone, self.version));
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_collection_agrees_with_a_list(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = TempDir::new().unwrap();
            let catalog = World::open(&dir);
            let settings = Settings { metric: Metric::L2, dim: DIM, model: None, index: Indexed::Exact };
            catalog.create(&TenantId::default(), "points", settings).await.unwrap();
            let mut world = World { dir, catalog, oracle: Oracle::new(), version: 0 };
            for step in steps {
                world.take(step).await?;
            }
            world.catalog.close();
            Ok::<(), TestCaseError>(())
        })?;
    }
}

#[tokio::test]
async fn the_bytes_of_a_deleted_document_are_gone_after_the_compaction() {
    let dir = TempDir::new().unwrap();
    let catalog = World::open(&dir);
    catalog
        .create(
            &TenantId::default(),
            "points",
            Settings { metric: Metric::L2, dim: DIM, model: None, index: Indexed::Exact },
        )
        .await
        .unwrap();
    let collection = catalog.get(&TenantId::default(), "points").unwrap();
    let text = |n: usize| Some(format!("the secret of customer {n}."));
    for n in 0..40 {
        let documents = vec![Document { id: n.to_string(), text: text(n), ..Document::default() }];
        let batch = DocumentBatch { vectors: vec![n as f32, 1.0], documents };
        collection.change(Change::Upsert(batch)).await.unwrap();
    }
    let gone: Vec<usize> = (0..40).filter(|n| n % 3 == 0).collect();
    collection.change(Change::Delete(gone.iter().map(usize::to_string).collect())).await.unwrap();
    let files = || fs_err::read_dir(dir.path().join("c")).unwrap().map(|file| file.unwrap().path());
    let holds = |n: usize| {
        let text = text(n).unwrap();
        let has = |path| {
            // A file that was outlived may vanish between the two calls.
            let bytes = fs_err::read(path).unwrap_or_default();
            bytes.windows(text.len()).any(|window| window == text.as_bytes())
        };
        files().any(has)
    };
    until("the bytes are gone", async || !gone.iter().any(|&n| holds(n))).await;
    assert!((0..40).filter(|n| n % 3 != 0).all(holds), "the others are kept");
    assert_eq!(collection.view().documents(), 40 - gone.len());
    catalog.close();
}

/// A point of a small grid as JSON.
fn point(number: u64) -> serde_json::Value {
    json!([number % 4, number / 4 % 4, number / 16 % 4])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_results_equal_fresh_ones_while_others_write() {
    /// Of each writer.
    const WRITES: u64 = 300;
    /// After so many, a writer lets one hit be compared.
    const WRITES_AT_ONCE: u64 = 3;
    let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
    let server = Server::spawn(&mut remote(dir.path(), &endpoint.url));
    let made = server.ask("PUT", "/v1/collections/grid", &[], r#"{"dimensions": 3, "metric": "l2"}"#).await;
    assert_eq!(made.status, 201);
    let (is_over, hits, compared) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let write = async |writer: u64| {
        for n in 0..WRITES {
            if n % WRITES_AT_ONCE == 0 {
                let before = compared.load(Ordering::Relaxed);
                until("a hit is compared", async || compared.load(Ordering::Relaxed) > before).await;
            }
            let random = splitmix(writer * WRITES + n);
            let (path, body) = if random.is_multiple_of(4) {
                (
                    "documents/delete",
                    json!({ "ids": [format!("{}", (random >> 8) % 60), format!("{}", (random >> 16) % 60)] }),
                )
            } else {
                let documents: Vec<_> = (0..random % 3 + 1)
                    .map(|at| {
                        let random = splitmix(random + at);
                        json!({
                            "id": format!("{}", random % 60 + at * 60),
                            "vector": point(random >> 10),
                            "metadata": { "parity": random >> 10 & 1 },
                        })
                    })
                    .collect();
                ("documents", json!({ "documents": documents }))
            };
            let answer =
                server.ask("POST", &format!("/v1/collections/grid/{path}"), &[], body.to_string()).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
    };
    let read = async |reader: u64| {
        let mut n = 0;
        while !is_over.load(Ordering::Relaxed) {
            n += 1;
            let random = splitmix(reader << 32 | n);
            let filter = if random.is_multiple_of(3) { json!({ "parity": 1 }) } else { json!({}) };
            let body =
                json!({ "vector": point(random >> 8 & 7), "k": random >> 20 & 7 | 1, "filter": filter });
            let ask = |headers| server.ask("POST", "/v1/collections/grid/search", headers, body.to_string());
            let cached = ask(&[]).await;
            let fresh = ask(&[("cache-control", "no-cache, no-store")]).await;
            assert_eq!((cached.status, fresh.status), (200, 200), "{}", cached.body);
            if cached.header("x-likewise-hits") == "1" {
                hits.fetch_add(1, Ordering::Relaxed);
                if cached.body["version"] == fresh.body["version"] {
                    compared.fetch_add(1, Ordering::Relaxed);
                    assert_eq!(cached.body, fresh.body, "{body}");
                }
            }
        }
    };
    let writers = async {
        join_all((0..2).map(write)).await;
        is_over.store(true, Ordering::Relaxed);
    };
    tokio::join!(writers, join_all((0..4).map(read)));
    let (hits, compared) = (hits.into_inner(), compared.into_inner());
    println!("{hits} hits, {compared} of them compared with a search of the same version");
    assert!(compared >= WRITES / WRITES_AT_ONCE, "{compared} of {hits} hits");
}

/// More searches than threads: they wait for their turn, and not on one another's stacks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_number_of_searches_at_once_is_answered() {
    const ROWS: usize = 40_000;
    let dir = TempDir::new().unwrap();
    let options = Options { threads: 2, searches_queued_max: 4096, ..Options::default() };
    let place = Place { files: Arc::new(OsFiles), dir: dir.path().join("c"), read: ReadMode::Mmap };
    let catalog = Arc::new(
        Catalog::open(place, options, Program::at(env!("CARGO_BIN_EXE_likewise")), unexported()).unwrap(),
    );
    let settings = Settings { metric: Metric::L2, dim: 32, model: None, index: Indexed::Exact };
    let (collection, _) = catalog.create(&TenantId::default(), "points", settings).await.unwrap();
    let document = |id: usize| Document { id: id.to_string(), ..Document::default() };
    let vectors = (0..ROWS * 32).map(|at| (splitmix(at as u64) % 1000) as f32).collect();
    let batch = DocumentBatch { vectors, documents: (0..ROWS).map(document).collect() };
    collection.change(Change::Upsert(batch)).await.unwrap();
    let search = |number: usize| {
        let (catalog, view) = (Arc::clone(&catalog), collection.view());
        let vectors = vec![number as f32; 32];
        let (filter, score_min, has_vectors, ef) = (None, None, false, None);
        let query = Query { vectors, k: 1, filter, score_min, has_vectors, ef, bytes_max: 1 << 20 };
        tokio::spawn(async move { catalog.search(view, Arc::new(query)).await.unwrap()[0].iter().count() })
    };
    for found in join_all((0..2000).map(search)).await {
        assert_eq!(found.unwrap(), 1);
    }
    catalog.close();
}
