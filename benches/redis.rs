//! What does a hit in Redis cost? Embeddings of 384 numbers by the tier's own interface, beside `redis-benchmark`, which only
//! sends and counts, and redis-py: one connection, the same server, the same number of keys in flight, in turn.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use likewise::cache::redis::{
    Envelope, RedisClient, RedisEntries, RedisOptions, RedisTier, RedisTierParts, RedisUrl,
};
use likewise::cache::{Namespaces, PolicyOptions, Tier as _};
use likewise::domain::{Clock as _, Codec, Entry, EntryMeta, Key, SystemClock, TenantId};
use likewise::metrics::unexported;
use likewise_benches::{print_circumstances, spread};

/// Keys of a call, which are commands in flight for `redis-benchmark`.
const DEPTHS: [usize; 3] = [1, 16, 128];
const DIMENSIONS: u16 = 384;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);
/// Commands of a round of `redis-benchmark` for each key in flight.
const COMMANDS: usize = 20_000;

#[tokio::main]
async fn main() {
    print_circumstances("redis");
    let server = Server::start();
    let tier = tier(server.port).await;
    println!("embeddings of {DIMENSIONS} numbers, {ROUNDS} rounds in turn; hits/s");
    println!("| keys of a call | redis-benchmark | min-max | tier | min-max | ratio | redis-py | min-max |");
    println!("|---|---|---|---|---|---|---|---|");
    for depth in DEPTHS {
        let mut rounds: [Vec<f64>; 3] = Default::default();
        for _ in 0..ROUNDS {
            rounds[0].push(redis_benchmark(server.port, depth));
            rounds[1].push(hits(&tier, depth).await);
            rounds[2].extend(redis_py(server.port, depth));
        }
        let [bare, own, peer] = rounds;
        let (bare, own) = (spread(bare), spread(own));
        let peer = match peer.is_empty() {
            true => "not installed | ".into(),
            false => {
                let peer = spread(peer);
                format!("{:.0} | {:.0}-{:.0}", peer.median, peer.min, peer.max)
            }
        };
        println!(
            "| {depth} | {:.0} | {:.0}-{:.0} | {:.0} | {:.0}-{:.0} | {:.2} | {peer} |",
            bare.median,
            bare.min,
            bare.max,
            own.median,
            own.min,
            own.max,
            own.median / bare.median
        );
    }
}

/// A server of Debian's, ended with the benchmark.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start() -> Server {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port", &port.to_string()])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server starts; scripts/setup.sh test installs it");
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::yield_now();
        }
        Server { child, port }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn tier(port: u16) -> RedisTier {
    let options = RedisOptions {
        url: Some(RedisUrl::from(format!("redis://127.0.0.1:{port}"))),
        response_ms_max: 1000,
        ..RedisOptions::default()
    };
    let redis_metrics = unexported();
    let client = RedisClient::start(&options, Arc::clone(&redis_metrics))
        .expect("options that hold")
        .expect("an address");
    while !client.is_connected() {
        tokio::task::yield_now().await;
    }
    let parts = RedisTierParts {
        envelope: Envelope::unauthenticated(),
        value_bytes_max: options.value_bytes_max,
        clock: Arc::new(SystemClock),
        metrics: &unexported(),
        redis_metrics,
    };
    RedisTier::new(client, RedisEntries::Embeddings, parts).expect("its threads start")
}

fn key(number: usize) -> Key {
    let mut key = Key([7; 32]);
    key.0[..8].copy_from_slice(&(number as u64).to_le_bytes());
    key
}

/// Looks the same keys up again and again, one call after the other.
async fn hits(tier: &RedisTier, depth: usize) -> f64 {
    let namespaces = Namespaces::new(&PolicyOptions::built_in(), true).expect("built-in policies hold");
    let namespace = namespaces.resolve(&TenantId::default(), "embeddings").expect("a built-in namespace");
    let now = SystemClock.now();
    let entry = |number: usize| {
        let vector: Vec<u8> = (0..DIMENSIONS).flat_map(|n| f32::from(n).to_le_bytes()).collect();
        let meta = EntryMeta::ending(Codec::F32, now, now.plus(3600));
        (key(number), Arc::new(Entry { meta, value: vector.into() }))
    };
    tier.put_many(&namespace, (0..depth).map(entry).collect()).await.expect("writes cost no error");
    let keys: Vec<Key> = (0..depth).map(key).collect();
    let (begun, mut found) = (Instant::now(), 0);
    while begun.elapsed() < ROUND {
        let entries = tier.get_many(&namespace, keys.clone()).await;
        assert!(entries.iter().all(Option::is_some), "each is a hit");
        found += entries.len();
    }
    found as f64 / begun.elapsed().as_secs_f64()
}

fn redis_benchmark(port: u16, depth: usize) -> f64 {
    let (port, depth, count) = (port.to_string(), depth.to_string(), (COMMANDS * depth).to_string());
    let bytes = (usize::from(DIMENSIONS) * 4).to_string();
    let arguments =
        ["-p", &port, "-c", "1", "-P", &depth, "-n", &count, "-d", &bytes, "-t", "set,get", "--csv"];
    let output = Command::new("redis-benchmark").args(arguments).output();
    let output = output.expect("redis-benchmark starts; scripts/setup.sh peers installs it");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.starts_with("\"GET\"")).expect("a line of GET");
    line.split('"').nth(3).and_then(|number| number.parse().ok()).expect("requests a second")
}

/// `None` without the Python package.
fn redis_py(port: u16, depth: usize) -> Option<f64> {
    let python = std::env::var_os("LIKEWISE_PEERS_PYTHON")?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/redis_hits.py");
    let seconds = ROUND.as_secs_f64().to_string();
    let output =
        Command::new(python).args([script, &port.to_string(), &depth.to_string(), &seconds]).output().ok()?;
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}
