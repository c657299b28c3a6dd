//! What does an answer cost that was given before, and what does one that was not?
//!
//! The server before an upstream that takes 500 ms: hits beside a bare handler that returns the same bytes, hits and a
//! stampede beside LiteLLM's proxy, streamed hits beside whole ones, misses beside the upstream itself.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use likewise_benches::beside::{Server, compare, serve_if_bare};
use likewise_benches::load::{Connection, Times, closed_loop};
use likewise_benches::upstream::{ask, calls};
use likewise_benches::{litellm, percentile, print_circumstances, spread, upstream};

/// How long the upstream takes to begin an answer.
const UPSTREAM_TAKES: Duration = Duration::from_millis(500);
/// Requests that are timed one after the other.
const TIMED: usize = 2000;
/// The same of a proxy that takes a quarter of a second for each.
const TIMED_SLOW: usize = 100;
/// Those who ask what was not asked before, at the same time, and what each of them asks of each server.
const MISSES: [(usize, usize); 2] = [(1, 24), (16, 12)];
/// Those who ask the same at once.
const STAMPEDE: usize = 200;
const CONNECTIONS: usize = 16;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(4);
const QUESTION: &str = "¿Tenéis camisetas azules de algodón en la talla M?";

#[tokio::main]
async fn main() {
    upstream::serve_if_upstream().await;
    serve_if_bare().await;
    print_circumstances("answers");
    let upstream = upstream::start(UPSTREAM_TAKES);
    let data = tempfile::tempdir().expect("a temporary directory");
    let own = start(data.path(), upstream.address);
    let request = |address| ask(address, QUESTION, false);
    let mut connection = Connection::open(own.address).await;
    assert_eq!(connection.ask(&request(own.address)).await.0, 200);
    let (status, prepared) = connection.ask(&request(own.address)).await;
    assert_eq!((status, calls(upstream.address).await), (200, 1));
    println!("a hit of {} bytes, beside a bare handler that returns the same\n", prepared.len());
    compare("likewise hit", &own, &Server::bare(prepared), request).await;

    println!("\none connection, {TIMED} hits of each kind in turn; ms");
    println!("| kind | first byte p50 | p99 | last byte p50 | p99 |\n|---|---|---|---|---|");
    let [whole, streamed] = hits(own.address, TIMED).await;
    row("whole", whole);
    row("streamed", streamed);

    println!("\nmisses, asked of both in turn; ms");
    println!(
        "| connections | server, kind | first byte p50 | p99 | last byte p50 | p99 |\n|---|---|---|---|---|---|"
    );
    let servers = [("upstream itself", upstream.address), ("likewise miss", own.address)];
    for (asking, each) in MISSES {
        for streams in [false, true] {
            let times = misses(servers.map(|(_, address)| address), streams, asking, each).await;
            for ((name, _), times) in servers.iter().zip(times) {
                row(&format!("{asking} | {name}, {}", if streams { "streamed" } else { "whole" }), times);
            }
        }
    }

    println!(
        "\n| cache | hits/s, {CONNECTIONS} connections | min-max | streamed hit p50 ms | of {STAMPEDE} at once sent on, whole | streamed |"
    );
    println!("|---|---|---|---|---|---|");
    beside("likewise", own.address, upstream.address, TIMED).await;
    match litellm::start(data.path(), upstream.address, "type: local").await {
        Some(proxy) => beside("LiteLLM 1.94.1, in memory", proxy.address, upstream.address, TIMED_SLOW).await,
        None => println!("SKIPPED: LIKEWISE_LITELLM is not LiteLLM's program"),
    }
}

fn start(data: &std::path::Path, upstream: SocketAddr) -> Server {
    let binary = std::env::var("LIKEWISE_BINARY").expect("run this by `make bench NAME=answers`");
    let model = std::env::var("LIKEWISE_TEST_MODEL").expect("run this by `make bench NAME=answers`");
    Server::start(
        Command::new(binary)
            .args(["serve", "--listen", "127.0.0.1:0", "--model", &model])
            .args(["--upstream", &format!("http://{upstream}/v1"), "--data-dir"])
            .arg(data.join("data"))
            .env("LIKEWISE_LOG", "warn"),
    )
}

/// Times of whole and of streamed hits.
async fn hits(address: SocketAddr, count: usize) -> [Vec<Times>; 2] {
    let requests = [false, true].map(|streams| ask(address, QUESTION, streams));
    let mut connection = Connection::open(address).await;
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..count {
        for (request, times) in requests.iter().zip(&mut times) {
            times.push(connection.time(request).await);
        }
    }
    times
}

/// Times of questions that were not asked before, of each server in turn.
async fn misses(servers: [SocketAddr; 2], streams: bool, asking: usize, each: usize) -> [Vec<Times>; 2] {
    let tasks = (0..asking).map(|who| {
        tokio::spawn(async move {
            let mut connections = Vec::new();
            for address in servers {
                connections.push(Connection::open(address).await);
            }
            let mut times = [Vec::new(), Vec::new()];
            for n in 0..each {
                let question = format!("{n} of {who} of {asking}, streams: {streams}");
                for (at, connection) in connections.iter_mut().enumerate() {
                    times[at].push(connection.time(&ask(servers[at], &question, streams)).await);
                }
            }
            times
        })
    });
    let mut all = [Vec::new(), Vec::new()];
    for one in tasks.collect::<Vec<_>>() {
        let times = one.await.expect("all are answered");
        all.iter_mut().zip(times).for_each(|(all, times)| all.extend(times));
    }
    all
}

fn row(name: &str, times: Vec<Times>) {
    let sorted = |of: fn(&Times) -> Duration| {
        let mut millis: Vec<f64> = times.iter().map(|times| of(times).as_secs_f64() * 1e3).collect();
        millis.sort_by(f64::total_cmp);
        millis
    };
    let (first, last) = (sorted(|times| times.first_byte), sorted(|times| times.last_byte));
    println!(
        "| {name} | {:.3} | {:.3} | {:.3} | {:.3} |",
        percentile(&first, 0.5),
        percentile(&first, 0.99),
        percentile(&last, 0.5),
        percentile(&last, 0.99)
    );
}

/// A row of the comparison of caches.
async fn beside(name: &str, address: SocketAddr, upstream: SocketAddr, timed: usize) {
    let requests: [Arc<[u8]>; 1] = [ask(address, QUESTION, false).into()];
    closed_loop(address, &requests, CONNECTIONS, ROUND).await;
    let before = calls(upstream).await;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(closed_loop(address, &requests, CONNECTIONS, ROUND).await);
    }
    // A cache may keep streams apart from whole answers.
    hits(address, 1).await;
    let [_, streamed] = hits(address, timed).await;
    assert!(calls(upstream).await <= before + 1, "these were no hits");
    let mut streamed: Vec<f64> = streamed.iter().map(|times| times.last_byte.as_secs_f64() * 1e3).collect();
    streamed.sort_by(f64::total_cmp);
    let rate = spread(rounds);
    let sent = [stampede(address, upstream, false).await, stampede(address, upstream, true).await];
    println!(
        "| {name} | {:.0} | {:.0}-{:.0} | {:.2} | {} | {} |",
        rate.median,
        rate.min,
        rate.max,
        percentile(&streamed, 0.5),
        sent[0],
        sent[1]
    );
}

/// How many of those who ask the same at once reach the upstream.
async fn stampede(address: SocketAddr, upstream: SocketAddr, streams: bool) -> usize {
    let before = calls(upstream).await;
    let request: Arc<[u8]> = ask(address, &format!("all at once, streams: {streams}"), streams).into();
    let asking = (0..STAMPEDE).map(|_| {
        let request = Arc::clone(&request);
        tokio::spawn(async move { Connection::open(address).await.time(&request).await })
    });
    for one in asking.collect::<Vec<_>>() {
        one.await.expect("all are answered");
    }
    calls(upstream).await - before
}
