//! A server beside a bare handler that returns the same bytes: in turn, on the same machine, in the same run. The load
//! shares the cores with both.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::header;
use axum::routing::any;

use crate::load::{closed_loop, open_loop};
use crate::{percentile, spread};

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(4);
const WARM_UP: Duration = Duration::from_millis(500);
const CONNECTIONS: [usize; 2] = [16, 64];
/// Of the bare handler's largest rate, for the open loop.
const OPEN_LOOP_SHARE: f64 = 0.3;
const OPEN_LOOP_CONNECTIONS: usize = 64;
/// Set for the copy of the benchmark that is the bare server; holds the bytes that it returns.
const BARE: &str = "LIKEWISE_BENCH_BARE";

/// A server in a process of its own, ended with the benchmark.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// Starts a server that says where it listens.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(command: &mut Command) -> Server {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the server starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout is piped")).read_line(&mut line).expect("a line");
        let address = line.trim().rsplit('/').next().expect("an address").parse().expect("an address");
        Server { child, address }
    }

    /// Processor time that it has used so far, of user and system.
    ///
    /// # Panics
    /// If it has ended.
    pub fn cpu_seconds(&self) -> f64 {
        /// `USER_HZ`, which is the same on every Linux.
        const TICKS_PER_SECOND: f64 = 100.0;
        let stat = fs_err::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        // The name before may have spaces; the 14th and 15th field of proc(5) come 11 and 12 after it.
        let fields = stat.rsplit(") ").next().expect("a state").split(' ').skip(11).take(2);
        fields.map(|ticks| ticks.parse::<f64>().expect("a number")).sum::<f64>() / TICKS_PER_SECOND
    }

    /// Starts the bare server, which is this program again, with the text that it returns.
    ///
    /// # Panics
    /// If it does not start, or if the bytes are not UTF-8.
    pub fn bare(prepared: Vec<u8>) -> Server {
        let this = std::env::current_exe().expect("this program has a path");
        Server::start(Command::new(this).env(BARE, String::from_utf8(prepared).expect("text")))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().expect("the server runs until here");
        self.child.wait().expect("the server ends");
    }
}

/// Serves the prepared bytes if this process is the bare server, and never returns then.
///
/// # Panics
/// If no port is free.
pub async fn serve_if_bare() {
    let Ok(prepared) = std::env::var(BARE) else { return };
    let prepared = Bytes::from(prepared);
    // The lower bound: reads the body, returns the same bytes.
    let handler = move |body: Bytes| {
        drop(body);
        let answer = prepared.clone();
        async move { ([(header::CONTENT_TYPE, "application/json")], answer) }
    };
    let router = axum::Router::new().fallback(any(handler));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    println!("listening on http://{}", listener.local_addr().expect("bound"));
    std::io::stdout().flush().expect("stdout is piped");
    axum::serve(listener, router).await.expect("the bare server serves");
}

/// Prints how a server compares with the bare one: as fast as it goes, and at a rate that leaves both idle time.
/// `request` makes the bytes of the one request that is asked again and again.
pub async fn compare(name: &str, own: &Server, bare: &Server, request: impl Fn(SocketAddr) -> Vec<u8>) {
    let servers = [(bare, "bare handler"), (own, name)];
    let requests: Vec<Arc<[u8]>> = servers.iter().map(|(server, _)| request(server.address).into()).collect();
    println!("closed loop, {ROUNDS} rounds of {} s each, in turn; requests/s", ROUND.as_secs());
    println!("| connections | bare handler | min-max | {name} | min-max | ratio |");
    println!("|---|---|---|---|---|---|");
    let mut bare_max = 0.0_f64;
    for connections in CONNECTIONS {
        let mut rounds = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (at, (server, _)) in servers.iter().enumerate() {
                closed_loop(server.address, &requests[at..=at], connections, WARM_UP).await;
                rounds[at].push(closed_loop(server.address, &requests[at..=at], connections, ROUND).await);
            }
        }
        let [b, o] = rounds.map(spread);
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
    let per_second = bare_max * OPEN_LOOP_SHARE;
    println!("\nopen loop, {per_second:.0} requests/s over {OPEN_LOOP_CONNECTIONS} connections; ms");
    println!("| server | p50 | p95 | p99 | min-max of p99 |");
    println!("|---|---|---|---|---|");
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (at, (server, _)) in servers.iter().enumerate() {
            let round =
                open_loop(server.address, &requests[at..=at], per_second, OPEN_LOOP_CONNECTIONS, ROUND).await;
            times[at].push(round);
        }
    }
    for ((_, name), times) in servers.iter().zip(times) {
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
