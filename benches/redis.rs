//! What does a hit in Redis cost? Embeddings of 384 numbers and objects of as many bytes by the tier's own interface, beside
//! `redis-benchmark`, which only sends and counts, redis-py, and LangChain's cache of embeddings: one connection, the same server, the
//! same number of keys in flight, in turn.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use likewise::cache::redis::{
    Envelope, RedisClient, RedisEntries, RedisOptions, RedisTier, RedisTierParts, RedisUrl,
};
use likewise::cache::{Namespace, Namespaces, PolicyOptions, Tier as _};
use likewise::domain::{Clock as _, Codec, Entry, EntryMeta, Key, SystemClock, TenantId};
use likewise::metrics::unexported;
use likewise_benches::redis_server::RedisServer;
use likewise_benches::{print_circumstances, spread};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Keys of a call, which are commands in flight for `redis-benchmark`.
const DEPTHS: [usize; 3] = [1, 16, 128];
const DIMENSIONS: u16 = 384;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);
/// Commands of a round of `redis-benchmark`: about as long as one of the others, at each depth.
const COMMANDS: [usize; 3] = [60_000, 400_000, 1_000_000];

#[tokio::main]
async fn main() {
    print_circumstances("redis");
    let server = RedisServer::start();
    let embeddings = Arc::new(Subject::new(server.port(), RedisEntries::Embeddings).await);
    let objects = Arc::new(Subject::new(server.port(), RedisEntries::Objects).await);
    println!("values of {} bytes, one connection, {ROUNDS} rounds in turn", value_bytes());
    println!(
        "| keys of a call | read by | hits/s | min-max | share of redis-benchmark |\n|---|---|---|---|---|"
    );
    for (depth, commands) in DEPTHS.into_iter().zip(COMMANDS) {
        let mut rounds: [(&str, Vec<f64>); 5] = [
            ("redis-benchmark", Vec::new()),
            ("tier, embeddings", Vec::new()),
            ("tier, objects", Vec::new()),
            ("redis-py", Vec::new()),
            ("LangChain", Vec::new()),
        ];
        for _ in 0..ROUNDS {
            rounds[0].1.push(redis_benchmark(server.port(), depth, commands));
            rounds[1].1.push(hits(&embeddings, depth).await);
            rounds[2].1.push(hits(&objects, depth).await);
            rounds[3].1.extend(peer("redis-py", server.port(), depth));
            rounds[4].1.extend(peer("langchain", server.port(), depth));
        }
        let bare = spread(rounds[0].1.clone()).median;
        for (name, rounds) in rounds {
            if rounds.is_empty() {
                println!("SKIPPED: {name} is not installed");
                continue;
            }
            let own = spread(rounds);
            let share = own.median / bare;
            println!("| {depth} | {name} | {:.0} | {:.0}-{:.0} | {share:.2} |", own.median, own.min, own.max);
        }
    }
}

fn value_bytes() -> usize {
    usize::from(DIMENSIONS) * 4
}

/// A tier with the namespace of its entries.
struct Subject {
    tier: RedisTier,
    namespace: Namespace,
    codec: Codec,
}

impl Subject {
    async fn new(port: u16, entries: RedisEntries) -> Subject {
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
        let namespaces = Namespaces::new(&PolicyOptions::built_in(), true).expect("built-in policies hold");
        let (name, codec) = match entries {
            RedisEntries::Embeddings => ("embeddings", Codec::F32),
            RedisEntries::Objects => ("products", Codec::Raw),
        };
        Subject {
            tier: RedisTier::new(client, entries, parts).expect("its threads start"),
            namespace: namespaces.resolve(&TenantId::default(), name).expect("a namespace"),
            codec,
        }
    }

    /// Looks the same keys up again and again, one call after the other.
    async fn hits(&self, depth: usize) -> f64 {
        let now = SystemClock.now();
        let entry = |number: usize| {
            let meta = EntryMeta::ending(self.codec, now, now.plus(3600));
            (key(number), Arc::new(Entry { meta, value: value().into() }))
        };
        let entries = (0..depth).map(entry).collect();
        self.tier.put_many(&self.namespace, entries).await.expect("writes cost no error");
        let keys: Vec<Key> = (0..depth).map(key).collect();
        let (begun, mut found) = (Instant::now(), 0);
        while begun.elapsed() < ROUND {
            let entries = self.tier.get_many(&self.namespace, keys.clone()).await;
            assert!(entries.iter().all(Option::is_some), "each is a hit");
            found += entries.len();
        }
        found as f64 / begun.elapsed().as_secs_f64()
    }
}

/// On a thread of the runtime, as requests are worked on.
async fn hits(subject: &Arc<Subject>, depth: usize) -> f64 {
    let subject = Arc::clone(subject);
    tokio::spawn(async move { subject.hits(depth).await }).await.expect("it ends")
}

/// A vector whose bytes no compression shortens.
fn value() -> Vec<u8> {
    (0..DIMENSIONS).flat_map(|n| (f32::from(n) * 1.7).sin().to_le_bytes()).collect()
}

fn key(number: usize) -> Key {
    let mut key = Key([7; 32]);
    key.0[..8].copy_from_slice(&(number as u64).to_le_bytes());
    key
}

fn redis_benchmark(port: u16, depth: usize, commands: usize) -> f64 {
    let numbers = [usize::from(port), depth, commands, value_bytes()].map(|number| number.to_string());
    let [port, depth, commands, bytes] = numbers.each_ref().map(String::as_str);
    let arguments =
        ["-p", port, "-c", "1", "-P", depth, "-n", commands, "-d", bytes, "-t", "set,get", "--csv"];
    let output = Command::new("redis-benchmark").args(arguments).output();
    let output = output.expect("redis-benchmark starts; scripts/setup.sh peers installs it");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.starts_with("\"GET\"")).expect("a line of GET");
    line.split('"').nth(3).and_then(|number| number.parse().ok()).expect("requests a second")
}

/// `None` without the Python packages.
fn peer(which: &str, port: u16, depth: usize) -> Option<f64> {
    let python = std::env::var_os("LIKEWISE_PEERS_PYTHON")?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/redis_hits.py");
    let numbers = [port.to_string(), depth.to_string(), ROUND.as_secs_f64().to_string()];
    let output = Command::new(python).args([script, which]).args(numbers).output().ok()?;
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}
