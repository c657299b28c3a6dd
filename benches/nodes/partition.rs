//! What clients get at two nodes while one of them cannot reach Redis for half a minute, beside two of LiteLLM's proxies.
//!
//! The upstream's answer changes once a second; then the first node is asked to forget it. Likewise invalidates a tag. LiteLLM has no tags: all of its
//! cache is flushed.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use likewise_benches::load::{Connection, post};
use likewise_benches::upstream::{PATH, calls, set_version, version_of};
use likewise_benches::{litellm, percentile};
use serde_json::json;

use crate::Setting;
use crate::link::Link;

const BEFORE: Duration = Duration::from_secs(5);
const CUT: Duration = Duration::from_secs(30);
const AFTER: Duration = Duration::from_secs(10);
const CHANGES_EACH: Duration = Duration::from_secs(1);
/// Each reader of a node asks so often, or when it has its answer.
const READS_EACH: Duration = Duration::from_millis(20);
const READERS: usize = 4;
const QUESTIONS: usize = 10;

pub(crate) async fn print(setting: &Setting) {
    println!(
        "the second of two is cut off from Redis for {} s of {}; {READERS} readers of {QUESTIONS} questions at each, whose answers change every second",
        CUT.as_secs(),
        (BEFORE + CUT + AFTER).as_secs()
    );
    println!(
        "| caches | node | answers | stale | of them flagged | stale and unflagged, % | failed | p50 ms | p95 ms | max ms | upstream calls of both |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    let link = Link::to(setting.redis.port()).await;
    let first = setting.node("first", &[]).await;
    let second = setting.node_at(link.port(), "second", &[]).await;
    let invalidation = post(first.address, "/v1/invalidate", r#"{"tags":["prices"]}"#);
    run("likewise", [first.address, second.address], invalidation, setting, &link).await;

    let link = Link::to(setting.redis.port()).await;
    let cache = |port: u16| format!("type: redis, host: 127.0.0.1, port: {port}");
    let (dir, upstream) = (setting.dir.path(), setting.upstream.address);
    let first = litellm::start(dir, upstream, &cache(setting.redis.port())).await;
    let second = litellm::start(dir, upstream, &cache(link.port())).await;
    match (first, second) {
        (Some(first), Some(second)) => {
            let flush = post(first.address, "/cache/flushall", "{}");
            run("LiteLLM 1.94.1, Redis", [first.address, second.address], flush, setting, &link).await;
        }
        _ => println!("SKIPPED: LIKEWISE_LITELLM is not LiteLLM's program"),
    }
    println!();
}

/// What a reader got.
struct Read {
    sent: Instant,
    took: Duration,
    /// None if it was not answered with 200.
    version: Option<u64>,
    is_flagged: bool,
}

/// Changes of the upstream's answer that a node has acknowledged: the version, and when.
type Changes = Arc<Mutex<Vec<(u64, Instant)>>>;

async fn run(name: &str, nodes: [SocketAddr; 2], invalidation: Vec<u8>, setting: &Setting, link: &Link) {
    let upstream = setting.upstream.address;
    let before = calls(upstream).await;
    let began = Instant::now();
    let ends = began + BEFORE + CUT + AFTER;
    let changes = Changes::default();
    let writer = tokio::spawn(change(upstream, nodes[0], invalidation, Arc::clone(&changes), ends));
    let readers = nodes.map(|node| {
        let read = |number| tokio::spawn(read(node, number, ends));
        (0..READERS).map(read).collect::<Vec<_>>()
    });
    tokio::time::sleep_until((began + BEFORE).into()).await;
    link.set_cut(true);
    tokio::time::sleep_until((began + BEFORE + CUT).into()).await;
    link.set_cut(false);
    writer.await.expect("the writer ends");
    let mut reads: [Vec<Read>; 2] = Default::default();
    for (own, readers) in reads.iter_mut().zip(readers) {
        for reader in readers {
            own.extend(reader.await.expect("a reader ends"));
        }
    }
    let calls = calls(upstream).await - before;
    let changes = changes.lock().unwrap_or_else(PoisonError::into_inner);
    for (node, reads) in ["first", "cut off"].into_iter().zip(&reads) {
        row(&format!("{name} | {node}"), reads, &changes, calls);
    }
}

fn row(name: &str, reads: &[Read], changes: &[(u64, Instant)], calls: usize) {
    let is_stale = |read: &&Read| {
        // The newest change that was acknowledged before the read was sent.
        let known = changes.iter().rev().find(|(_, acknowledged)| *acknowledged < read.sent);
        read.version.zip(known).is_some_and(|(version, (newest, _))| version < *newest)
    };
    let stale: Vec<&Read> = reads.iter().filter(is_stale).collect();
    let flagged = stale.iter().filter(|read| read.is_flagged).count();
    let failed = reads.iter().filter(|read| read.version.is_none()).count();
    let answers = reads.len() - failed;
    let mut times: Vec<f64> = reads.iter().map(|read| read.took.as_secs_f64() * 1e3).collect();
    times.sort_by(f64::total_cmp);
    let [p50, p95, max] = [0.5, 0.95, 1.0].map(|share| percentile(&times, share));
    let share = 100.0 * (stale.len() - flagged) as f64 / answers as f64;
    println!(
        "| {name} | {answers} | {} | {flagged} | {share:.2} | {failed} | {p50:.1} | {p95:.1} | {max:.0} | {calls} |",
        stale.len()
    );
}

/// Changes the answer, then tells the node.
async fn change(
    upstream: SocketAddr,
    node: SocketAddr,
    invalidation: Vec<u8>,
    changes: Changes,
    ends: Instant,
) {
    let mut tick = tokio::time::interval(CHANGES_EACH);
    let mut connection = Connection::open(node).await;
    for version in 1.. {
        tick.tick().await;
        if Instant::now() > ends {
            return;
        }
        set_version(upstream, version).await;
        let (status, body) = connection.ask(&invalidation).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        changes.lock().unwrap_or_else(PoisonError::into_inner).push((version, Instant::now()));
    }
}

async fn read(node: SocketAddr, reader: usize, ends: Instant) -> Vec<Read> {
    let mut tick = tokio::time::interval(READS_EACH);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut connection = Connection::open(node).await;
    let mut reads = Vec::new();
    for number in reader.. {
        tick.tick().await;
        let sent = Instant::now();
        if sent > ends {
            break;
        }
        let (status, head, body) = connection.ask_whole(&question(node, number % QUESTIONS)).await;
        let version = (status == 200).then(|| version_of(&body));
        let is_flagged = head.contains("stale");
        reads.push(Read { sent, took: sent.elapsed(), version, is_flagged });
    }
    reads
}

/// A question that is tagged; LiteLLM does not know the header.
fn question(node: SocketAddr, number: usize) -> Vec<u8> {
    let messages = json!([{ "role": "user", "content": format!("What does article {number} cost?") }]);
    let body = json!({ "model": "bench", "messages": messages }).to_string();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: {node}\r\ncontent-type: application/json\r\nx-cache-tags: prices\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    [head, body].concat().into_bytes()
}
