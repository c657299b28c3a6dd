//! Two hundred who ask the same at once, half of them at each of two nodes, beside two of LiteLLM's proxies with a Redis cache.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use likewise_benches::load::{Connection, closed_loop};
use likewise_benches::upstream::{ask, calls};
use likewise_benches::{litellm, spread};

use crate::Setting;

const ASKING: usize = 200;
const CONNECTIONS: usize = 16;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(4);

pub(crate) async fn print(setting: &Setting) {
    println!(
        "{ASKING} at once, half of them at each of two; {ROUNDS} rounds of {} s for hits",
        ROUND.as_secs()
    );
    println!(
        "| caches | hits/s of one, {CONNECTIONS} connections | min-max | of {ASKING} at once sent on, {ROUNDS} questions |"
    );
    println!("|---|---|---|---|");
    for single_flight in ["off", "answers"] {
        let environment = [("LIKEWISE__REDIS__SINGLE_FLIGHT", single_flight)];
        let names = ["first", "second"].map(|name| format!("{name} {single_flight}"));
        let nodes =
            [setting.node(&names[0], &environment).await, setting.node(&names[1], &environment).await];
        let name = format!("likewise, single_flight = \"{single_flight}\"");
        row(&name, nodes.each_ref().map(|node| node.address), setting.upstream.address).await;
    }
    let cache = format!("type: redis, host: 127.0.0.1, port: {}", setting.redis.port());
    let (dir, upstream) = (setting.dir.path(), setting.upstream.address);
    match (litellm::start(dir, upstream, &cache).await, litellm::start(dir, upstream, &cache).await) {
        (Some(first), Some(second)) => {
            row("LiteLLM 1.94.1, Redis", [first.address, second.address], upstream).await;
        }
        _ => println!("SKIPPED: LIKEWISE_LITELLM is not LiteLLM's program"),
    }
    println!();
}

async fn row(name: &str, addresses: [SocketAddr; 2], upstream: SocketAddr) {
    let [first, _] = addresses;
    let hit: [Arc<[u8]>; 1] = [ask(first, name, false).into()];
    closed_loop(first, &hit, CONNECTIONS, ROUND).await;
    let before = calls(upstream).await;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(closed_loop(first, &hit, CONNECTIONS, ROUND).await);
    }
    assert_eq!(calls(upstream).await, before, "these were no hits");
    let rate = spread(rounds);
    let mut sent = Vec::new();
    for round in 0..ROUNDS {
        sent.push(at_once(addresses, upstream, &format!("{round} of {name}")).await.to_string());
    }
    println!("| {name} | {:.0} | {:.0}-{:.0} | {} |", rate.median, rate.min, rate.max, sent.join(", "));
}

/// How many of those who ask the same at once reach the upstream.
async fn at_once(addresses: [SocketAddr; 2], upstream: SocketAddr, question: &str) -> usize {
    let before = calls(upstream).await;
    let mut connections = Vec::new();
    for n in 0..ASKING {
        let address = addresses[n % addresses.len()];
        connections.push((ask(address, question, false), Connection::open(address).await));
    }
    let asking = connections
        .into_iter()
        .map(|(request, mut connection)| tokio::spawn(async move { connection.time(&request).await }));
    for one in asking.collect::<Vec<_>>() {
        one.await.expect("all are answered");
    }
    calls(upstream).await - before
}
