//! How much does a hit cost on top of the HTTP request that carries it?
//!
//! A bare axum handler that reads the same body and returns the same prepared bytes, and the server, in turn on the same
//! machine in the same run; the load shares the cores with both. One cached text, base64.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::header;
use likewise_benches::load::{Connection, closed_loop, open_loop, post};
use likewise_benches::{percentile, print_circumstances, spread};

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(4);
const WARM_UP: Duration = Duration::from_millis(500);
const CONNECTIONS: [usize; 2] = [16, 64];
/// Of the bare handler's largest rate, for the open loop.
const OPEN_LOOP_SHARE: f64 = 0.3;
const BODY: &str =
    r#"{"model":"all-MiniLM-L6-v2","input":"una camiseta azul de algodón","encoding_format":"base64"}"#;
const PATH: &str = "/v1/embeddings";
/// Set for the copy of this program that is the bare server; holds the bytes that it returns.
const BARE: &str = "LIKEWISE_BENCH_BARE";

/// A server in a process of its own, ended with the benchmark.
struct Server {
    child: Child,
    address: SocketAddr,
    request: Arc<[u8]>,
}

impl Server {
    fn start(command: &mut Command) -> Server {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the server starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout is piped")).read_line(&mut line).expect("a line");
        let address = line.trim().rsplit('/').next().expect("an address").parse().expect("an address");
        Server { child, address, request: post(address, PATH, BODY).into() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().expect("the server runs until here");
        self.child.wait().expect("the server ends");
    }
}

#[tokio::main]
async fn main() {
    if let Ok(prepared) = std::env::var(BARE) {
        return serve_bare(prepared).await;
    }
    print_circumstances("hit_path");
    let binary = std::env::var("LIKEWISE_BINARY").expect("run this by `make bench NAME=hit_path`");
    let model = std::env::var("LIKEWISE_TEST_MODEL").expect("run this by `make bench NAME=hit_path`");
    let data = tempfile::tempdir().expect("a temporary directory");
    let own = Server::start(
        Command::new(binary)
            .args(["serve", "--listen", "127.0.0.1:0", "--model", &model, "--data-dir"])
            .arg(data.path())
            .env("LIKEWISE__MODEL__NAME", "all-MiniLM-L6-v2")
            .env("LIKEWISE_LOG", "warn"),
    );
    let (status, prepared) = Connection::open(own.address).await.ask(&own.request).await;
    assert_eq!(status, 200);
    let this = std::env::current_exe().expect("this program has a path");
    let bare = Server::start(Command::new(this).env(BARE, String::from_utf8(prepared).expect("JSON")));

    println!("closed loop, {ROUNDS} rounds of {} s each, in turn; requests/s", ROUND.as_secs());
    println!("| connections | bare handler | min-max | likewise hit | min-max | ratio |");
    println!("|---|---|---|---|---|---|");
    let mut bare_max = 0.0_f64;
    for connections in CONNECTIONS {
        let (mut bare_rounds, mut own_rounds) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            for (server, rounds) in [(&bare, &mut bare_rounds), (&own, &mut own_rounds)] {
                closed_loop(server.address, &server.request, connections, WARM_UP).await;
                rounds.push(closed_loop(server.address, &server.request, connections, ROUND).await);
            }
        }
        let (b, o) = (spread(bare_rounds), spread(own_rounds));
        bare_max = bare_max.max(b.median);
        println!(
            "| {connections} | {:.0} | {:.0}-{:.0} | {:.0} | {:.0}-{:.0} | {:.2} |",
            b.median,
            b.min,
            b.max,
            o.median,
            o.min,
            o.max,
            o.median / b.median
        );
    }
    open_loops(&bare, &own, bare_max * OPEN_LOOP_SHARE).await;
}

async fn open_loops(bare: &Server, own: &Server, per_second: f64) {
    const CONNECTIONS: usize = 64;
    println!("\nopen loop, {per_second:.0} requests/s over {CONNECTIONS} connections; ms");
    println!("| server | p50 | p95 | p99 | min-max of p99 |");
    println!("|---|---|---|---|---|");
    let mut rounds = [(bare, "bare handler", Vec::new()), (own, "likewise hit", Vec::new())];
    for _ in 0..ROUNDS {
        for (server, _, times) in &mut rounds {
            times.push(open_loop(server.address, &server.request, per_second, CONNECTIONS, ROUND).await);
        }
    }
    for (_, name, times) in rounds {
        let at = |share| spread(times.iter().map(|round| percentile(round, share)).collect());
        let p99 = at(0.99);
        println!(
            "| {name} | {:.3} | {:.3} | {:.3} | {:.3}-{:.3} |",
            at(0.5).median,
            at(0.95).median,
            p99.median,
            p99.min,
            p99.max
        );
    }
}

/// The floor: reads the body, returns the same bytes.
async fn serve_bare(prepared: String) {
    let prepared = Bytes::from(prepared);
    let handler = move |body: Bytes| {
        let answer = if body.is_empty() { Bytes::new() } else { prepared.clone() };
        async move { ([(header::CONTENT_TYPE, "application/json")], answer) }
    };
    let router = axum::Router::new().route(PATH, axum::routing::post(handler));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    println!("listening on http://{}", listener.local_addr().expect("bound"));
    std::io::stdout().flush().expect("stdout is piped");
    axum::serve(listener, router).await.expect("the bare server serves");
}
