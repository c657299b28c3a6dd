//! Collections with an index: built in the background, searched, outlived, snapshotted, damaged, exported.

mod builds;
mod soak;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use base64_simd::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::endpoint::{Endpoint, remote};
use crate::kill::splitmix;
use crate::program::{Answer, Server, output, until};

const DIM: usize = 24;
const ROWS: u64 = 3000;
/// Few enough nodes that a scan of all rows would not be faster.
const EF: usize = 64;

struct Fixture {
    dir: TempDir,
    endpoint: Endpoint,
}

impl Fixture {
    async fn new() -> Fixture {
        Fixture { dir: TempDir::new().unwrap(), endpoint: Endpoint::start().await }
    }

    fn start(&self) -> Server {
        let mut program = remote(self.dir.path(), &self.endpoint.url);
        program
            .env("LIKEWISE__SEARCH__COMPACTION__IDLE_MS", "10")
            .env("LIKEWISE__COLLECTIONS__RECALL_SAMPLE", "1");
        Server::spawn(&mut program)
    }

    /// A server with a collection of so many rows that has its index.
    async fn with_index(&self, index: &str) -> Server {
        let server = self.start();
        make(&server, index).await;
        upsert(&server, 0..ROWS, 1).await;
        indexed(&server, ROWS).await;
        server
    }

    /// The files of a kind in the data directory.
    fn files(&self, extension: &str) -> Vec<PathBuf> {
        let all = walk(self.dir.path());
        all.into_iter().filter(|path| path.extension().is_some_and(|end| end == extension)).collect()
    }
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let entries = fs_err::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

async fn make(server: &Server, index: &str) {
    let spec = json!({ "dimensions": DIM, "index": index }).to_string();
    let made = server.ask("PUT", "/v1/collections/points", &[], spec).await;
    assert_eq!(made.status, 201, "{}", made.body);
}

/// The vector of a document: near one of thirty centres.
fn vector(id: u64, generation: u64) -> Vec<f32> {
    let part = |seed: u64| (splitmix(seed) >> 40) as f32 / (1 << 23) as f32 - 1.0;
    let centre = splitmix(id) % 30;
    (0..DIM as u64)
        .map(|at| part(centre * 1000 + at) + 0.6 * part(id << 20 | generation << 10 | at))
        .collect()
}

fn encoded(vector: &[f32]) -> String {
    STANDARD.encode_to_string(vector.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
}

async fn upsert(server: &Server, ids: impl Iterator<Item = u64>, generation: u64) {
    let ids: Vec<u64> = ids.collect();
    for ids in ids.chunks(1000) {
        let document = |id: &u64| {
            let metadata = json!({ "half": id % 2, "tenth": id % 10, "hundredth": id % 100 });
            json!({ "id": id.to_string(), "vector": encoded(&vector(*id, generation)), "metadata": metadata })
        };
        let documents: Vec<Value> = ids.iter().map(document).collect();
        post(server, "documents", json!({ "documents": documents })).await;
    }
}

async fn post(server: &Server, what: &str, body: Value) -> Answer {
    let answer = server.ask("POST", &format!("/v1/collections/points/{what}"), &[], body.to_string()).await;
    assert!((200..300).contains(&answer.status), "{what}: {}", answer.body);
    answer
}

async fn describe(server: &Server) -> Value {
    server.get("/v1/collections/points").await.body
}

/// Waits until the index holds so many rows and none is being built.
async fn indexed(server: &Server, rows: u64) {
    let is_indexed = async || {
        let now = describe(server).await;
        now["indexed_rows"] == rows && now["is_indexing"] == false
    };
    until(&format!("{rows} rows are indexed"), is_indexed).await;
}

async fn search(server: &Server, query: u64, fields: Value) -> Answer {
    let mut body = json!({ "vector": encoded(&vector(query, 77)), "k": 10, "ef": EF, "include": [] });
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    post(server, "search", body).await
}

fn results(answer: &Answer) -> Vec<(String, f64)> {
    let hit = |hit: &Value| (hit["id"].as_str().unwrap().to_owned(), hit["score"].as_f64().unwrap());
    answer.body["results"].as_array().unwrap().iter().map(hit).collect()
}

/// The share of the exact results that searches by index find; what they find has the exact scores.
async fn recall(server: &Server, fields: Value) -> f64 {
    let (mut found, mut wanted) = (0, 0);
    for query in 0..40 {
        let mut exact = fields.clone();
        exact["exact"] = true.into();
        let exact = results(&search(server, query, exact).await);
        let known: BTreeMap<&String, f64> = exact.iter().map(|(id, score)| (id, *score)).collect();
        let by_index = results(&search(server, query, fields.clone()).await);
        assert_eq!(by_index.len(), exact.len());
        for (id, score) in &by_index {
            assert!(known.get(id).is_none_or(|exact| exact == score), "{id}: {score}");
            found += usize::from(known.contains_key(id));
        }
        wanted += exact.len();
    }
    found as f64 / wanted as f64
}

#[tokio::test]
async fn an_index_finds_what_a_scan_finds() {
    let fixture = Fixture::new().await;
    for index in ["HNSW16,SQ8", "HNSW16", "IVF8,SQ8"] {
        let server = fixture.with_index(index).await;
        let all = recall(&server, json!({})).await;
        assert!(all >= 0.97, "{index}: {all}");
        for (field, share) in [("half", 2), ("tenth", 10), ("hundredth", 100)] {
            let filtered = recall(&server, json!({ "filter": { field: 1 } })).await;
            assert!(filtered >= 0.97, "{index}, one in {share}: {filtered}");
        }
        let metrics = server.get("/metrics").await.body;
        let sampled = metrics.as_str().unwrap().lines().find(|line| line.contains("recall_at_k_count"));
        let count =
            sampled.and_then(|line| line.rsplit(' ').next()).map(|count| count.parse::<u64>().unwrap());
        assert!(count.is_some_and(|count| count > 0), "{sampled:?}");
        let dropped = server.ask("DELETE", "/v1/collections/points", &[], String::new()).await;
        assert_eq!(dropped.status, 204);
        assert!(server.stop().success());
        assert!(fixture.files("faiss").is_empty() && fixture.files("draft").is_empty());
    }
}

#[tokio::test]
async fn writes_show_at_once_and_a_rebuilt_index_forgets_what_is_gone() {
    let fixture = Fixture::new().await;
    let server = fixture.with_index("HNSW16,SQ8").await;
    let before = results(&search(&server, 5, json!({})).await);
    let gone: HashSet<&String> = before.iter().map(|(id, _)| id).take(4).collect();
    post(&server, "documents/delete", json!({ "ids": gone })).await;
    let after = results(&search(&server, 5, json!({})).await);
    assert!(after.iter().all(|(id, _)| !gone.contains(id)));
    assert_eq!(after.len(), 10);
    // The nearest of all, in the log only.
    let document = json!({ "id": "new", "vector": encoded(&vector(5, 77)) });
    post(&server, "documents", json!({ "documents": [document] })).await;
    assert_eq!(results(&search(&server, 5, json!({})).await)[0].0, "new");
    // More than a fifth: compacted, and indexed again.
    let ids: Vec<String> = (0..1000).map(|id| id.to_string()).collect();
    post(&server, "documents/delete", json!({ "ids": ids })).await;
    let left = describe(&server).await["documents"].as_u64().unwrap();
    let found = recall(&server, json!({})).await;
    assert!(found >= 0.97, "{found}");
    indexed(&server, left).await;
    assert!(recall(&server, json!({})).await >= 0.97);
    assert_eq!(describe(&server).await["dead_rows"], 0);
}

#[tokio::test]
async fn a_snapshot_is_opened_and_a_damaged_or_missing_one_is_rebuilt() {
    let fixture = Fixture::new().await;
    let server = fixture.with_index("HNSW16,SQ8").await;
    let found = results(&search(&server, 3, json!({})).await);
    upsert(&server, 10_000..10_010, 1).await;
    assert!(server.stop().success());

    let server = fixture.start();
    let opened = describe(&server).await;
    assert_eq!((&opened["indexed_rows"], &opened["is_indexing"]), (&json!(ROWS), &json!(false)));
    assert_eq!(results(&search(&server, 3, json!({ "cache": { "no-cache": true } })).await), found);
    assert!(recall(&server, json!({})).await >= 0.97);
    assert!(server.stop().success());

    let [file] = &fixture.files("faiss")[..] else { panic!("one snapshot") };
    let [manifest] = &fixture.files("snapshot")[..] else { panic!("one manifest") };
    let whole = (fs_err::read(file).unwrap(), fs_err::read(manifest).unwrap());
    let damages: [&dyn Fn(); 4] = [
        &|| {
            let mut damaged = whole.0.clone();
            damaged[whole.0.len() / 2] ^= 1;
            fs_err::write(file, damaged).unwrap();
        },
        &|| fs_err::write(file, &whole.0[..whole.0.len() / 2]).unwrap(),
        &|| fs_err::write(manifest, &whole.1[..20]).unwrap(),
        &|| fs_err::remove_file(file).unwrap(),
    ];
    for damage in damages {
        for left in fixture.files("faiss").iter().chain(&fixture.files("snapshot")) {
            fs_err::remove_file(left).unwrap();
        }
        fs_err::write(file, &whole.0).unwrap();
        fs_err::write(manifest, &whole.1).unwrap();
        damage();
        let server = fixture.start();
        assert_eq!(recall(&server, json!({ "exact": true })).await, 1.0);
        assert!(recall(&server, json!({})).await >= 0.97);
        indexed(&server, ROWS + 10).await;
        assert!(recall(&server, json!({})).await >= 0.97);
        assert!(server.stop().success());
    }
}

/// With an index a cached answer may lack what a scan finds, but holds nothing deleted, nothing outdated, and nothing
/// written later that scores above its last result is missing.
#[tokio::test]
async fn cached_results_keep_up_with_writes() {
    let fixture = Fixture::new().await;
    let server = fixture.with_index("HNSW16,SQ8").await;
    let cosine = |query: &[f32], vector: &[f32]| {
        let dot =
            |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        dot(query, vector) / (dot(query, query) * dot(vector, vector)).sqrt()
    };
    // What was written after the index, by id; no vector for what was deleted.
    let mut later: BTreeMap<u64, Option<Vec<f32>>> = BTreeMap::new();
    let (mut hits, mut random) = (0, 1);
    let mut draw = |below: u64| {
        random = splitmix(random);
        random % below
    };
    for round in 0..150 {
        let id = if round % 3 == 0 { draw(30) } else { draw(ROWS) };
        if draw(3) == 0 {
            post(&server, "documents/delete", json!({ "ids": [id.to_string()] })).await;
            later.insert(id, None);
        } else {
            // Some land right beside a query.
            let vector = if draw(4) == 0 { vector(id % 30, 77) } else { vector(id, 100 + round) };
            let document = json!({ "id": id.to_string(), "vector": encoded(&vector) });
            post(&server, "documents", json!({ "documents": [document] })).await;
            later.insert(id, Some(vector));
        }
        for query in 0..30 {
            let answer = search(&server, query, json!({})).await;
            hits += usize::from(answer.header("cache-status").starts_with("likewise; hit"));
            let (found, query) = (results(&answer), vector(query, 77));
            assert_eq!(found.len(), 10);
            let last = found[9].1;
            for (id, written) in &later {
                let place = found.iter().find(|(found, _)| *found == id.to_string());
                match written {
                    None => assert!(place.is_none(), "deleted document {id} in round {round}"),
                    Some(vector) => {
                        let score = cosine(&query, vector);
                        match place {
                            Some((_, found)) => {
                                assert!((found - score).abs() < 1e-5, "outdated {id}: {found}")
                            }
                            None => {
                                assert!(score <= last + 1e-5, "{id} scores {score}, the last result {last}")
                            }
                        }
                    }
                }
            }
        }
    }
    assert!(hits > 1000, "{hits} hits of 4500");
}

#[tokio::test]
async fn wrong_indexes_and_efforts_are_refused() {
    let fixture = Fixture::new().await;
    let server = fixture.start();
    for index in ["Quux", "", "HNSW32,PQ7x", "IVF99999999,Flat"] {
        let spec = json!({ "dimensions": DIM, "index": index }).to_string();
        let refused = server.ask("PUT", "/v1/collections/points", &[], spec).await;
        assert_eq!((refused.status, refused.error().1), (400, Some("index")), "{index}: {}", refused.body);
    }
    make(&server, "exact").await;
    let other = json!({ "dimensions": DIM, "index": "HNSW32" }).to_string();
    assert_eq!(server.ask("PUT", "/v1/collections/points", &[], other).await.status, 409);
    let snapshot = server.ask("POST", "/v1/collections/points/snapshots", &[], String::new()).await;
    assert_eq!(snapshot.status, 409, "{}", snapshot.body);
    for ef in [json!(0), json!(100_000), json!(-1), json!("many")] {
        let body = json!({ "vector": vec![1.0; DIM], "ef": ef }).to_string();
        let refused = server.ask("POST", "/v1/collections/points/search", &[], body).await;
        assert_eq!(refused.status, 400, "{ef}: {}", refused.body);
    }
    let missing = server.get("/v1/collections/nothing/index.faiss").await;
    assert_eq!(missing.status, 404);
}

#[tokio::test]
async fn indexes_are_taken_out_and_put_in_again_as_files_of_faiss() {
    let fixture = Fixture::new().await;
    let server = fixture.start();
    make(&server, "auto").await;
    upsert(&server, 0..300, 1).await;
    let run = |arguments: &[&str]| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_likewise"));
        output(program.args(arguments).env("LIKEWISE_URL", server.url()))
    };
    let said = |done: &std::process::Output| String::from_utf8_lossy(&done.stderr).into_owned();
    let files = TempDir::new().unwrap();
    let path = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    let take = async |what: &str| {
        let url = format!("{}/v1/collections/points/{what}", server.url());
        let bytes = server.client().get(url).send().await.unwrap().bytes().await.unwrap();
        fs_err::write(files.path().join(what), &bytes).unwrap();
        bytes
    };
    // Small, so without index: all vectors, as they are.
    let flat = take("index.faiss").await;
    assert_eq!((&flat[..4], flat.len()), (&b"IxFI"[..], 45 + 300 * DIM * 4));
    take("ids.jsonl").await;
    let done = run(&["import", "again", &path("index.faiss")]);
    assert!(done.status.success(), "{}", said(&done));
    let again = server.get("/v1/collections/again/documents/299?include=vector").await.body;
    assert_eq!(
        again["vector"],
        server.get("/v1/collections/points/documents/299?include=vector").await.body["vector"]
    );

    // With a snapshot, and documents that are gone since.
    let done = run(&["snapshot", "points"]);
    assert!(done.status.success() && said(&done).contains("HNSW32,SQ8 of 300 rows"), "{}", said(&done));
    post(&server, "documents/delete", json!({ "ids": ["0", "7"] })).await;
    assert_eq!(&take("index.faiss").await[..4], b"IHNs");
    let ids = String::from_utf8(take("ids.jsonl").await.to_vec()).unwrap();
    assert_eq!(ids.lines().collect::<Vec<_>>()[..3], ["null", "\"1\"", "\"2\""]);
    let done = run(&["import", "third", &path("index.faiss")]);
    assert!(done.status.success() && said(&done).contains("stored 298 documents"), "{}", said(&done));
    let done = run(&["snapshot", "nothing"]);
    assert!(!done.status.success());
    fs_err::write(files.path().join("foreign.faiss"), [b"IxPQ", &[1; 40][..]].concat()).unwrap();
    let done = run(&["import", "fourth", &path("foreign.faiss")]);
    assert!(!done.status.success() && said(&done).contains("not an index of FAISS"), "{}", said(&done));
}
