//! Hits while Redis takes connections and commands and answers none (SIGSTOP).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use likewise_benches::load::{Connection, get, open_loop_answers};
use likewise_benches::percentile;

use crate::{Kind, Setting, cached, state};

const PHASE: Duration = Duration::from_secs(8);
/// Requests a second of each kind.
const RATE: f64 = 500.0;
/// Requests a second for what is not cached.
const ABSENT_RATE: f64 = 50.0;
const CONNECTIONS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn print(setting: &Setting) {
    let node = setting.node("first", &[]).await;
    cached(&node).await;
    let mut connection = Connection::open(node.address).await;
    println!("{RATE} requests/s for a cached value of each kind, {} s of each phase; ms", PHASE.as_secs());
    println!("| Redis | kind | p50 | p95 | p99 | max | hits | misses | failed | breaker at the end |");
    println!("|---|---|---|---|---|---|---|---|---|---|");
    phase("answers", node.address, &mut connection).await;
    setting.redis.signal("STOP");
    phase("is silent", node.address, &mut connection).await;
    setting.redis.signal("CONT");
    let continued = Instant::now();
    let is_closed = async |connection: &mut Connection| {
        let redis = &state(connection, node.address).await["redis"];
        redis["breaker"] == "closed" && redis["trusted"] == true
    };
    while !is_closed(&mut connection).await {
        assert!(continued.elapsed() < PATIENCE, "the breaker stays open");
        // Requests are what a breaker probes with.
        connection.ask(&Kind::Object.request(node.address)).await;
    }
    let closed = continued.elapsed().as_secs_f64();
    phase("answers again", node.address, &mut connection).await;
    println!("\nclosed and trusted {closed:.2} s after Redis answers again\n");
}

async fn phase(name: &str, address: SocketAddr, connection: &mut Connection) {
    let mut loads: Vec<_> = Kind::ALL
        .map(|kind| (kind.name(), tokio::spawn(load(address, kind.request(address), RATE))))
        .into_iter()
        .collect();
    // What is not in memory asks Redis, so that its silence is noticed.
    let absent: Arc<[u8]> = get(address, "/v1/cache/products/absent").into();
    loads.push(("absent object", tokio::spawn(load(address, absent, ABSENT_RATE))));
    let mut rows = Vec::new();
    for (kind, load) in loads {
        rows.push((kind, load.await.expect("the load ends")));
    }
    let breaker = state(connection, address).await["redis"]["breaker"].as_str().unwrap_or("none").to_owned();
    for (kind, answers) in rows {
        let count = |of: fn(u16) -> bool| answers.iter().filter(|(status, _)| of(*status)).count();
        let (hits, misses) = (count(|status| status == 200), count(|status| status == 404));
        let mut times: Vec<f64> = answers.iter().map(|(_, millis)| *millis).collect();
        times.sort_by(f64::total_cmp);
        let [p50, p95, p99, max] = [0.5, 0.95, 0.99, 1.0].map(|share| percentile(&times, share));
        let failed = answers.len() - hits - misses;
        println!(
            "| {name} | {kind} | {p50:.2} | {p95:.2} | {p99:.2} | {max:.2} | {hits} | {misses} | {failed} | {breaker} |"
        );
    }
}

async fn load(address: SocketAddr, request: Arc<[u8]>, rate: f64) -> Vec<(u16, f64)> {
    open_loop_answers(address, &[request], rate, CONNECTIONS, PHASE).await
}
