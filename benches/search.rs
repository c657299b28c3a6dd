//! What does a search cost over HTTP, of 40,000 real vectors? Beside `chroma run` in the same run; cached, beside a bare
//! handler; and while others write.
//!
//! `LIKEWISE_SHARED_DATA`, `LIKEWISE_BENCH_CACHE` and `LIKEWISE_PEERS_PYTHON` are those of the benchmark `flat`. Without
//! Chroma in that Python its lines are missing.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use likewise_benches::beside::{Server, compare, serve_if_bare};
use likewise_benches::load::{Connection, closed_loop, open_loop, post};
use likewise_benches::rival::Rival;
use likewise_benches::{percentile, print_circumstances, spread, vectors};
use likewise_index::{Metric, scores};
use ndarray::{Array2, ArrayView2, Axis, s};
use serde_json::{Value, json};

/// The vectors of the benchmark `flat`, so that they are embedded once.
const VECTORS: usize = 100_160;
const ROWS: usize = 40_000;
const QUERIES: usize = 160;
const K: usize = 10;
const BATCH: usize = 256;
const CONNECTIONS: usize = 16;
const INSERTING: usize = 4;
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(4);
/// Searches a second while others write.
const SEARCHES: f64 = 100.0;
const UPSERTS: f64 = 1000.0;

#[tokio::main]
async fn main() {
    serve_if_bare().await;
    print_circumstances("search");
    let Some((_, vectors)) = vectors::load(VECTORS) else {
        eprintln!("LIKEWISE_SHARED_DATA is not set: name the directory with text/npm_summaries.jsonl.gz");
        std::process::exit(1);
    };
    let rows = vectors.slice(s![..ROWS, ..]);
    let queries = vectors.slice(s![VECTORS - QUERIES.., ..]);
    let truth = nearest(rows, queries);
    let data = tempfile::tempdir().expect("a temporary directory");
    let own = likewise(data.path());
    println!("{ROWS} vectors of {} numbers, k = {K}, {CONNECTIONS} connections\n", rows.ncols());
    println!("| server | inserted/s | queries/s | min-max | recall@{K} | killed, started, first answer, s |");
    println!("|---|---|---|---|---|---|");
    let inserted = insert_own(own.address, rows).await;
    let requests = search_requests(own.address, queries, true);
    let recall = recall(own.address, &requests, &truth, |answer| {
        answer["results"].as_array().expect("results").iter().map(|hit| number(&hit["id"])).collect()
    });
    let recall = recall.await;
    let rate = rate(own.address, &requests).await;
    drop(own);
    let started = Instant::now();
    let own = likewise(data.path());
    let requests = search_requests(own.address, queries, true);
    assert_eq!(Connection::open(own.address).await.ask(&requests[0]).await.0, 200);
    let restarted = started.elapsed().as_secs_f64();
    println!(
        "| likewise | {inserted:.0} | {:.0} | {:.0}-{:.0} | {recall:.4} | {restarted:.2} |",
        rate.median, rate.min, rate.max
    );
    chroma(rows, queries, &truth).await;
    println!();

    let by_text = |address| {
        post(address, "/v1/collections/packages/search", r#"{"query":"parse command line options"}"#)
    };
    let mut connection = Connection::open(own.address).await;
    let (status, prepared) = connection.ask(&by_text(own.address)).await;
    assert_eq!(status, 200);
    compare("cached search", &own, &Server::bare(prepared), by_text).await;

    println!(
        "\nsearches, {SEARCHES} a second, not cached; ms\n| writes | p50 | p99 | min-max of p99 |\n|---|---|---|---|"
    );
    let upserts: Vec<Arc<[u8]>> = (0..1000)
        .map(|n| {
            let documents =
                json!([{ "id": (n * 37 % ROWS).to_string(), "vector": rows.row(n * 31 % ROWS).to_vec() }]);
            post(
                own.address,
                "/v1/collections/packages/documents",
                &json!({ "documents": documents }).to_string(),
            )
            .into()
        })
        .collect();
    let (mut quiet, mut busy) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        quiet.push(open_loop(own.address, &requests, SEARCHES, CONNECTIONS, ROUND).await);
        let (searches, _) = tokio::join!(
            open_loop(own.address, &requests, SEARCHES, CONNECTIONS, ROUND),
            open_loop(own.address, &upserts, UPSERTS, CONNECTIONS, ROUND),
        );
        busy.push(searches);
    }
    for (name, times) in [("none", quiet), ("1,000 upserts/s", busy)] {
        let at = |share| spread(times.iter().map(|round| percentile(round, share)).collect());
        let p99 = at(0.99);
        println!("| {name} | {:.2} | {:.2} | {:.2}-{:.2} |", at(0.5).median, p99.median, p99.min, p99.max);
    }
}

fn number(id: &Value) -> usize {
    id.as_str().expect("an id").parse().expect("ids are numbers here")
}

/// The rows that a plain loop finds.
fn nearest(rows: ArrayView2<'_, f32>, queries: ArrayView2<'_, f32>) -> Vec<Vec<usize>> {
    let scores: Array2<f32> = scores(Metric::Cosine, queries, rows);
    let best = |scores: ndarray::ArrayView1<'_, f32>| {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        order.truncate(K);
        order
    };
    scores.axis_iter(Axis(0)).map(best).collect()
}

fn likewise(data: &Path) -> Server {
    let variable = |name| std::env::var(name).expect("run this by `make bench NAME=search`");
    Server::start(
        Command::new(variable("LIKEWISE_BINARY"))
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--model",
                &variable("LIKEWISE_TEST_MODEL"),
                "--data-dir",
            ])
            .arg(data)
            .env("LIKEWISE_LOG", "warn"),
    )
}

async fn insert_own(address: SocketAddr, rows: ArrayView2<'_, f32>) -> f64 {
    let mut connection = Connection::open(address).await;
    let make =
        format!("PUT /v1/collections/packages HTTP/1.1\r\nhost: {address}\r\ncontent-length: 2\r\n\r\n{{}}");
    assert_eq!(connection.ask(make.as_bytes()).await.0, 201);
    let batch = |from: usize| {
        let document = |row: usize| json!({ "id": row.to_string(), "vector": rows.row(row).to_vec() });
        let documents: Vec<Value> = (from..(from + BATCH).min(ROWS)).map(document).collect();
        post(address, "/v1/collections/packages/documents", &json!({ "documents": documents }).to_string())
    };
    insert(address, (0..ROWS).step_by(BATCH).map(batch).collect()).await
}

/// Sends prepared requests over a few connections; rows a second.
async fn insert(address: SocketAddr, requests: Vec<Vec<u8>>) -> f64 {
    let requests = Arc::new(requests);
    let started = Instant::now();
    let tasks: Vec<_> = (0..INSERTING)
        .map(|first| {
            let requests = Arc::clone(&requests);
            tokio::spawn(async move {
                let mut connection = Connection::open(address).await;
                for request in requests.iter().skip(first).step_by(INSERTING) {
                    let (status, answer) = connection.ask(request).await;
                    assert!(status < 300, "{}", String::from_utf8_lossy(&answer));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("all are inserted");
    }
    ROWS as f64 / started.elapsed().as_secs_f64()
}

fn search_requests(address: SocketAddr, queries: ArrayView2<'_, f32>, is_fresh: bool) -> Vec<Arc<[u8]>> {
    let request = |query: ndarray::ArrayView1<'_, f32>| {
        let cache = json!({ "no-cache": is_fresh, "no-store": is_fresh });
        let body = json!({ "vector": query.to_vec(), "k": K, "include": [], "cache": cache });
        post(address, "/v1/collections/packages/search", &body.to_string()).into()
    };
    queries.axis_iter(Axis(0)).map(request).collect()
}

async fn recall(
    address: SocketAddr,
    requests: &[Arc<[u8]>],
    truth: &[Vec<usize>],
    ids: impl Fn(Value) -> Vec<usize>,
) -> f64 {
    let mut connection = Connection::open(address).await;
    let mut found = 0;
    for (request, truth) in requests.iter().zip(truth) {
        let (status, answer) = connection.ask(request).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
        let ids = ids(serde_json::from_slice(&answer).expect("JSON"));
        found += ids.iter().filter(|id| truth.contains(id)).count();
    }
    found as f64 / (truth.len() * K) as f64
}

async fn rate(address: SocketAddr, requests: &[Arc<[u8]>]) -> likewise_benches::Spread {
    closed_loop(address, requests, CONNECTIONS, Duration::from_millis(500)).await;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(closed_loop(address, requests, CONNECTIONS, ROUND).await);
    }
    spread(rounds)
}

/// Chroma's server; nothing if it is not there.
async fn start_chroma(data: &Path) -> Option<Rival> {
    let python = std::env::var_os("LIKEWISE_PEERS_PYTHON")?;
    let command = |port: u16| {
        let mut command = Command::new(Path::new(&python).with_file_name("chroma"));
        command.args(["run", "--host", "127.0.0.1", "--port", &port.to_string(), "--path"]).arg(data);
        command.env("ANONYMIZED_TELEMETRY", "False");
        command
    };
    Rival::start(command, "/api/v2/heartbeat").await
}

async fn chroma(rows: ArrayView2<'_, f32>, queries: ArrayView2<'_, f32>, truth: &[Vec<usize>]) {
    const BASE: &str = "/api/v2/tenants/default_tenant/databases/default_database/collections";
    let data = tempfile::tempdir().expect("a temporary directory");
    let Some(server) = start_chroma(data.path()).await else {
        println!("SKIPPED: chroma is not beside LIKEWISE_PEERS_PYTHON");
        return;
    };
    let make = json!({ "name": "packages", "configuration": { "hnsw": { "space": "cosine" } } });
    let mut connection = Connection::open(server.address).await;
    let (status, made) = connection.ask(&post(server.address, BASE, &make.to_string())).await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&made));
    let made: Value = serde_json::from_slice(&made).expect("JSON");
    let path = format!("{BASE}/{}", made["id"].as_str().expect("an id"));
    let batch = |from: usize| {
        let all = from..(from + BATCH).min(ROWS);
        let ids: Vec<String> = all.clone().map(|row| row.to_string()).collect();
        let embeddings: Vec<Vec<f32>> = all.map(|row| rows.row(row).to_vec()).collect();
        let body = json!({ "ids": ids, "embeddings": embeddings });
        post(server.address, &format!("{path}/add"), &body.to_string())
    };
    let inserted = insert(server.address, (0..ROWS).step_by(BATCH).map(batch).collect()).await;
    let requests = |address| -> Vec<Arc<[u8]>> {
        let request = |query: ndarray::ArrayView1<'_, f32>| {
            let body =
                json!({ "query_embeddings": [query.to_vec()], "n_results": K, "include": ["distances"] });
            post(address, &format!("{path}/query"), &body.to_string()).into()
        };
        queries.axis_iter(Axis(0)).map(request).collect()
    };
    let asked = requests(server.address);
    let recall = recall(server.address, &asked, truth, |answer| {
        answer["ids"][0].as_array().expect("ids").iter().map(number).collect()
    });
    let recall = recall.await;
    let rate = rate(server.address, &asked).await;
    drop(server);
    let started = Instant::now();
    let server = start_chroma(data.path()).await.expect("it started before");
    let asked = requests(server.address);
    assert_eq!(Connection::open(server.address).await.ask(&asked[0]).await.0, 200);
    let restarted = started.elapsed().as_secs_f64();
    println!(
        "| chroma run | {inserted:.0} | {:.0} | {:.0}-{:.0} | {recall:.4} | {restarted:.2} |",
        rate.median, rate.min, rate.max
    );
}
