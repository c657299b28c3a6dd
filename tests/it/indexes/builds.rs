//! Builds of indexes that are refused, crash, hang, outlive their limits or their server: each costs one collection its
//! index, and nothing else. The processes that build are ended and stopped by signals, as FAISS or the system would.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use likewise::storage::collections::{Place, RowStore};
use likewise::storage::{OsFiles, ReadMode};
use serde_json::{Value, json};

use super::{DIM, Fixture, ROWS, describe, encoded, indexed, make, post, recall, upsert, vector};
use crate::endpoint::remote;
use crate::program::{Server, until};

/// So slow that a build is seen while it runs.
const SLOW: (&str, &str) = ("LIKEWISE__SEARCH__INDEX__EF_CONSTRUCTION", "20000");

fn start(fixture: &Fixture, environment: &[(&str, &str)]) -> Server {
    let mut program = remote(fixture.dir.path(), &fixture.endpoint.url);
    program.env("LIKEWISE__SEARCH__COMPACTION__IDLE_MS", "10").envs(environment.iter().copied());
    Server::spawn(&mut program)
}

/// The process in which a server builds an index, if there is one that has set its limits, of which this is the last.
fn building(server: &Server) -> Option<u32> {
    let parent = format!("--parent\0{}\0", server.pid());
    let numbers =
        fs_err::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut processes = numbers.filter(|number: &u32| {
        let arguments = fs_err::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
        let weight = fs_err::read_to_string(format!("/proc/{number}/oom_score_adj")).unwrap_or_default();
        String::from_utf8_lossy(&arguments).contains(&parent) && weight.trim() == "1000"
    });
    processes.next()
}

async fn begun(server: &Server) -> u32 {
    let mut process = None;
    until("a build has begun", async || {
        process = building(server);
        process.is_some()
    })
    .await;
    process.unwrap()
}

/// Stops the process that builds, once there is one, as if it hung.
async fn stop_build(server: &Server) -> u32 {
    let process = begun(server).await;
    send("STOP", process);
    let is_stopped = async || state(process).is_some_and(|state| state == 'T');
    until("the build is stopped", is_stopped).await;
    process
}

/// Ends the process that builds as a division by zero would.
async fn crash_build(server: &Server) {
    let process = stop_build(server).await;
    send("FPE", process);
    send("CONT", process);
}

/// Sends a signal to a process, which may have ended.
fn try_send(signal: &str, process: u32) -> Output {
    Command::new("kill").args([&format!("-{signal}"), &process.to_string()]).output().unwrap()
}

fn send(signal: &str, process: u32) {
    let sent = try_send(signal, process);
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
}

/// The state of a process, as proc(5) has it for `stat`; none once there is no such process.
fn state(process: u32) -> Option<char> {
    let status = fs_err::read_to_string(format!("/proc/{process}/stat")).ok()?;
    status.rsplit_once(") ")?.1.chars().next()
}

fn is_gone(process: u32) -> bool {
    // One that has ended, and whose exit status is not read yet, is a zombie.
    state(process).is_none_or(|state| state == 'Z')
}

async fn failed(server: &Server) -> String {
    let mut error = Value::Null;
    until("the build has failed", async || {
        let now = describe(server).await;
        error = now["index_error"].clone();
        now["is_indexing"] == false && error.is_string()
    })
    .await;
    error.as_str().unwrap().to_owned()
}

async fn failures(server: &Server, cause: &str) -> u64 {
    let metrics = server.get("/metrics").await.body;
    let name = format!("likewise_collection_index_failures_total{{cause=\"{cause}\"}} ");
    let line = metrics.as_str().unwrap().lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |count| count.parse().unwrap())
}

async fn is_exact(server: &Server) {
    assert_eq!(describe(server).await["indexed_rows"], 0);
    assert_eq!(recall(server, json!({})).await, 1.0);
}

#[tokio::test]
async fn what_is_no_index_is_refused_with_the_grammar() {
    let fixture = Fixture::new().await;
    let server = start(&fixture, &[]);
    for (dim, index) in [
        (8, "PQ0"),
        (8, "HNSW32,PQ0"),
        (8, "HNSW32,SQfp16"),
        (8, "IVF4,PQ0"),
        (8, "PQ4x0"),
        (8, "PQ3"),
        (8, "PQ16"),
        (8, "HNSW0"),
        (8, "HNSW1"),
        (8, "HNSW65536"),
        (8, "IVF0,Flat"),
        (8, "IVF4"),
        (8192, "IVF65536,Flat"),
        (8, "NSG0"),
        (8, "NSG32"),
        (8, "LSH"),
        (8, "RaBitQ"),
        (8, "IVF4(IVF4(Flat),Flat),Flat"),
        (8192, "ZnLattice8x65536_6"),
        (8, "PCA0,Flat"),
        (8, "Flat,IDMap"),
        (8, "HNSW32,SQ8\n"),
    ] {
        let spec = json!({ "dimensions": dim, "index": index }).to_string();
        let refused = server.ask("PUT", "/v1/collections/points", &[], spec).await;
        assert_eq!((refused.status, refused.error().1), (400, Some("index")), "{index}: {}", refused.body);
        let message = refused.body["error"]["message"].as_str().unwrap();
        assert!(message.contains("HNSW<links>,SQ8 or IVF<lists>,CODES"), "{message}");
    }
    assert_eq!(server.get("/v1/collections").await.body["data"], json!([]));
}

#[tokio::test]
async fn every_kind_of_index_is_built_and_found_again() {
    let fixture = Fixture::new().await;
    for index in ["Flat", "SQ6", "PQ8", "HNSW8,SQ8", "IVF4,Flat", "IVF4,PQ12x6"] {
        let server = fixture.with_index(index).await;
        assert!(server.stop().success());
        let server = fixture.start();
        let opened = describe(&server).await;
        assert_eq!(
            (&opened["indexed_rows"], &opened["is_indexing"]),
            (&json!(ROWS), &json!(false)),
            "{index}"
        );
        assert!(recall(&server, json!({})).await >= 0.5, "{index}");
        assert_eq!(server.ask("DELETE", "/v1/collections/points", &[], String::new()).await.status, 204);
        assert!(server.stop().success());
    }
}

#[tokio::test]
async fn a_build_that_crashes_costs_the_index_and_is_not_tried_again_unasked() {
    let fixture = Fixture::new().await;
    let server = start(&fixture, &[SLOW]);
    make(&server, "HNSW64").await;
    upsert(&server, 0..ROWS, 1).await;
    crash_build(&server).await;
    assert_eq!(failed(&server).await, "it was ended by signal 8");
    assert_eq!(failures(&server, "crash").await, 1);
    is_exact(&server).await;
    assert!(server.stop().success());

    // The next start knows. Another collection has its index meanwhile.
    let server = start(&fixture, &[]);
    assert_eq!(describe(&server).await["index_error"], "it was ended by signal 8");
    assert_eq!(failures(&server, "recorded").await, 1);
    let spec = json!({ "dimensions": 2, "index": "Flat" }).to_string();
    assert_eq!(server.ask("PUT", "/v1/collections/other", &[], spec).await.status, 201);
    let document = |id: u64| json!({ "id": id.to_string(), "vector": [1.0, id as f32] });
    let body = json!({ "documents": (0..1024).map(document).collect::<Vec<_>>() }).to_string();
    assert_eq!(server.ask("POST", "/v1/collections/other/documents", &[], body).await.status, 200);
    let is_indexed = async || server.get("/v1/collections/other").await.body["indexed_rows"] == 1024;
    until("the other collection is indexed", is_indexed).await;
    is_exact(&server).await;

    post(&server, "snapshots", json!({})).await;
    indexed(&server, ROWS).await;
    assert_eq!(describe(&server).await["index_error"], Value::Null);
    assert!(server.stop().success());
    assert!(fixture.files("build").is_empty() && fixture.files("draft").is_empty());
}

#[tokio::test]
async fn a_build_that_hangs_keeps_neither_other_collections_nor_the_end_of_the_server() {
    let fixture = Fixture::new().await;
    let server = start(&fixture, &[SLOW]);
    make(&server, "HNSW64").await;
    upsert(&server, 0..ROWS, 1).await;
    let process = stop_build(&server).await;
    let spec = json!({ "dimensions": 2 }).to_string();
    assert_eq!(server.ask("PUT", "/v1/collections/other", &[], spec).await.status, 201);
    assert_eq!(server.ask("DELETE", "/v1/collections/other", &[], String::new()).await.status, 204);
    upsert(&server, 0..10, 2).await;
    is_exact(&server).await;
    assert!(!is_gone(process));
    let start_of_end = Instant::now();
    assert!(server.stop().success());
    assert!(start_of_end.elapsed() < Duration::from_secs(20));
    until("the build ends with its server", async || is_gone(process)).await;

    // An end of the server is no failure of the build.
    let server = start(&fixture, &[]);
    indexed(&server, ROWS).await;
}

#[tokio::test]
async fn a_build_ends_with_a_dropped_collection() {
    let fixture = Fixture::new().await;
    let server = start(&fixture, &[SLOW]);
    make(&server, "HNSW64").await;
    upsert(&server, 0..ROWS, 1).await;
    let process = stop_build(&server).await;
    assert_eq!(server.ask("DELETE", "/v1/collections/points", &[], String::new()).await.status, 204);
    until("the build ends with its collection", async || is_gone(process)).await;
    make(&server, "IVF4,Flat").await;
    upsert(&server, 0..ROWS, 1).await;
    indexed(&server, ROWS).await;
    assert!(server.stop().success());
    assert!(fixture.files("build").is_empty() && fixture.files("draft").is_empty());
}

#[tokio::test]
async fn a_build_is_ended_at_its_limits() {
    let fixture = Fixture::new().await;
    let seconds = ("LIKEWISE__SEARCH__INDEX__BUILD_SECONDS_MAX", "5");
    let server = start(&fixture, &[SLOW, seconds]);
    make(&server, "HNSW64").await;
    upsert(&server, 0..ROWS, 1).await;
    let process = begun(&server).await;
    // Stopped, it cannot end before its limit. On a busy machine the limit may have ended it already.
    try_send("STOP", process);
    assert_eq!(failed(&server).await, "it took longer than 5 s");
    assert!(is_gone(process));
    assert_eq!(failures(&server, "time").await, 1);
    assert!(server.stop().success());

    let little = ("LIKEWISE__SEARCH__INDEX__BUILD_MEMORY_BYTES_MAX", "65536");
    let server = start(&fixture, &[little]);
    assert_eq!(describe(&server).await["index_error"], "it took longer than 5 s");
    post(&server, "snapshots", json!({})).await;
    until("the build has failed", async || failures(&server, "memory").await == 1).await;
    assert_eq!(failed(&server).await, "it needed more than 0 MiB of memory");
    let listed = server.get("/v1/collections/points/snapshots").await.body;
    assert_eq!(listed["error"], "it needed more than 0 MiB of memory");
    is_exact(&server).await;
}

#[tokio::test]
async fn a_build_during_which_the_server_ends_again_and_again_is_given_up() {
    let fixture = Fixture::new().await;
    for round in 0..3 {
        let server = start(&fixture, &[SLOW]);
        if round == 0 {
            make(&server, "HNSW64").await;
            upsert(&server, 0..ROWS, 1).await;
        }
        let process = stop_build(&server).await;
        server.kill();
        until("the build ends with its server", async || is_gone(process)).await;
    }
    let server = start(&fixture, &[]);
    assert_eq!(describe(&server).await["index_error"], "the server ended during each of 3 builds");
    is_exact(&server).await;
    post(&server, "snapshots", json!({})).await;
    indexed(&server, ROWS).await;
}

/// A collection as an earlier version has made it, with an index that is no longer built.
fn leave_behind(data: &Path, index: &str) {
    let place = Place { files: Arc::new(OsFiles), dir: data.join("collections"), read: ReadMode::Mmap };
    let settings = json!({ "metric": "cosine", "dim": DIM, "model": null, "index": index });
    RowStore::create(&place, "points", DIM as u32, serde_json::to_vec(&settings).unwrap()).unwrap();
}

#[tokio::test]
async fn an_index_that_is_no_longer_built_leaves_its_collection_exact() {
    let fixture = Fixture::new().await;
    assert!(start(&fixture, &[]).stop().success());
    leave_behind(fixture.dir.path(), "NSG0");
    for _ in 0..2 {
        let server = start(&fixture, &[]);
        let error = describe(&server).await["index_error"].clone();
        assert!(error.as_str().is_some_and(|error| error.contains("\"NSG0\"")), "{error}");
        assert_eq!(failures(&server, "refused").await, 1);
        upsert(&server, 0..ROWS, 1).await;
        is_exact(&server).await;
        let refused = server.ask("POST", "/v1/collections/points/snapshots", &[], String::new()).await;
        assert_eq!(refused.status, 409, "{}", refused.body);
        let same = json!({ "dimensions": DIM, "index": "NSG0" }).to_string();
        assert_eq!(server.ask("PUT", "/v1/collections/points", &[], same).await.status, 200);
        assert!(server.stop().success());
    }
}

#[tokio::test]
async fn an_index_waits_for_the_rows_that_it_is_trained_on() {
    let fixture = Fixture::new().await;
    let server = start(&fixture, &[]);
    make(&server, "IVF2000,Flat").await;
    upsert(&server, 0..1500, 1).await;
    let refused = server.ask("POST", "/v1/collections/points/snapshots", &[], String::new()).await;
    assert_eq!(refused.status, 409, "{}", refused.body);
    let message = refused.body["error"]["message"].as_str().unwrap();
    assert!(message.contains("at least 2000 documents; there are 1500"), "{message}");
    assert_eq!(describe(&server).await["index_error"], Value::Null);
    upsert(&server, 1500..2100, 1).await;
    indexed(&server, 2100).await;
    let found = post(&server, "search", json!({ "vector": encoded(&vector(3, 1)), "k": 1 })).await;
    assert_eq!(found.body["results"][0]["id"], "3");
}

/// So many that a build is due behind the last of the two requests that store them.
const LISTED_ROWS: u64 = 2000;

/// The jobs that a server lists, by their ids, with kind, state, collection, done and total.
async fn listed(server: &Server) -> Vec<Value> {
    let list = server.get("/v1/jobs").await.body;
    let jobs = list["data"].as_array().unwrap().iter();
    jobs.map(|job| {
        json!([job["id"], job["kind"], job["state"], job["collection"], job["done"], job["total"]])
    })
    .collect()
}

#[tokio::test]
async fn builds_snapshots_and_compactions_are_listed_while_they_run() {
    let fixture = Fixture::new().await;
    let server = start(&fixture, &[SLOW]);
    make(&server, "HNSW8").await;
    upsert(&server, 0..LISTED_ROWS, 1).await;
    let process = stop_build(&server).await;
    let build = json!(["index-points", "index_build", "running", "points", 0, LISTED_ROWS]);
    assert_eq!(listed(&server).await, [build]);
    let one = server.get("/v1/jobs/index-points").await;
    assert_eq!((one.status, &one.body["kind"]), (200, &json!("index_build")));
    assert!(one.body["created_at"].as_u64().unwrap() > 1_700_000_000, "{}", one.body);
    assert_eq!(server.get("/v1/jobs/snapshot-points").await.status, 404);
    let paused = server.ask("POST", "/v1/jobs/index-points/pause", &[], String::new()).await;
    assert_eq!(paused.status, 404, "it is no recorded job: {}", paused.body);
    send("CONT", process);
    indexed(&server, LISTED_ROWS).await;
    assert_eq!(listed(&server).await, [] as [Value; 0]);

    assert_eq!(post(&server, "snapshots", json!({})).await.status, 202);
    let snapshot = json!(["snapshot-points", "snapshot", "running", "points", 0, LISTED_ROWS]);
    assert_eq!(listed(&server).await, std::slice::from_ref(&snapshot));
    let process = stop_build(&server).await;
    // A compaction waits for the build, so that it is seen.
    let gone: Vec<String> = (0..LISTED_ROWS / 3).map(|n| n.to_string()).collect();
    let deleted = post(&server, "documents/delete", json!({ "ids": gone })).await;
    assert_eq!(deleted.status, 200, "{}", deleted.body);
    let compaction = json!(["compaction-points", "compaction", "running", "points", 0, LISTED_ROWS / 3]);
    until("the compaction is listed", async || listed(&server).await.len() == 2).await;
    assert_eq!(listed(&server).await, [snapshot, compaction]);
    assert_eq!(server.get("/v1/jobs/compaction-points").await.body["kind"], "compaction");
    send("CONT", process);
    until("both have ended", async || listed(&server).await.is_empty()).await;
    assert_eq!(server.get("/v1/jobs/compaction-points").await.status, 404);
}
