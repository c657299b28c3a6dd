//! `kill -9` of one of two nodes under clients that store, delete and invalidate at both: afterwards both nodes serve what was
//! stored and not removed, and nothing that was.
//!
//! In every third round the node that is killed cannot reach Redis, so that what it has acknowledged waits on its disk.
//! The ledger is kept here, outside the servers. `LIKEWISE_KILL_ROUNDS` says how many rounds at least, at a fifth.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::field::address;
use super::proxy::{Fault, Proxy};
use crate::endpoint::{Endpoint, remote};
use crate::kill::{number_from, splitmix};
use crate::program::{Server, until};
use crate::redis::servers::{Program, RedisServer};

const NODES: usize = 2;
const CLIENTS_PER_NODE: usize = 4;
const KILLED_WITHIN_MS: u64 = 80;
const CHECKED_AT_ONCE: usize = 64;

/// What became of an object, as far as it was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Stored,
    /// Asked for, and perhaps done.
    Removing,
    /// By one node, which has not passed it on.
    RemovedThere,
    Removed,
}

type Ledger = BTreeMap<u64, Fate>;

struct Pair {
    _redis: RedisServer,
    endpoint: Endpoint,
    dirs: [TempDir; NODES],
    proxies: [Proxy; NODES],
}

impl Pair {
    fn start_node(&self, node: usize) -> Server {
        let mut program = remote(&self.dirs[node].path().join("data"), &self.endpoint.url);
        // What a node cannot know to be current is not served, so what is served counts.
        program.env("LIKEWISE__CACHE__NAMESPACES__PRODUCTS__UNVERIFIED", "miss");
        program.args(["--redis", &format!("redis://{}", self.proxies[node].address())]);
        Server::spawn(&mut program)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_and_nothing_removed_is_served_after_a_node_was_killed() {
    let rounds = number_from("LIKEWISE_KILL_ROUNDS", 100) / 5;
    let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), "moment of death");
    let pair = pair().await;
    let mut servers = Vec::from_iter((0..NODES).map(|node| pair.start_node(node)));
    for server in &servers {
        until("the node has joined the others", async || has_joined(server).await).await;
    }
    let mut ledger = Ledger::new();
    let next = Arc::new(AtomicU64::new(0));
    for round in 0..rounds {
        let victim = (splitmix(seed ^ round) % NODES as u64) as usize;
        let after = Duration::from_micros(splitmix(seed + round) % (KILLED_WITHIN_MS * 1_000));
        let is_cut = round % 3 == 0;
        pair.proxies[victim].set(if is_cut { Fault::Cut } else { Fault::Pass });
        let done = work_until_killed(&mut servers, victim, is_cut, &next, after).await;
        servers.insert(victim, pair.start_node(victim));
        pair.proxies[victim].set(Fault::Pass);
        check(&servers, &done).await;
        ledger.extend(done);
    }
    check(&servers, &ledger).await;
    let count = |fate| ledger.values().filter(|other| **other == fate).count() as u64;
    let (removed, kept) = (count(Fate::Removed) + count(Fate::RemovedThere), count(Fate::Stored));
    println!(
        "{rounds} rounds (seed {seed}): {removed} removals acknowledged, none served; {kept} objects kept, none lost"
    );
    assert!(removed > rounds && kept > rounds && count(Fate::RemovedThere) > 0);
}

/// Whether what the node stores reaches Redis.
async fn has_joined(server: &Server) -> bool {
    let stored = server.ask("PUT", "/v1/cache/products/joined", &[], "x").await;
    stored.status == 204 && stored.header("x-likewise-propagation").is_empty()
}

async fn pair() -> Pair {
    let (redis, endpoint) = (RedisServer::start(Program::Redis), Endpoint::start().await);
    let dirs = [(); NODES].map(|()| TempDir::new().unwrap());
    let proxies = [Proxy::start(address(&redis), 1).await, Proxy::start(address(&redis), 2).await];
    Pair { _redis: redis, endpoint, dirs, proxies }
}

/// Lets clients of both nodes work, kills one, and returns what became of each object.
async fn work_until_killed(
    servers: &mut Vec<Server>,
    victim: usize,
    is_cut: bool,
    next: &Arc<AtomicU64>,
    after: Duration,
) -> Ledger {
    let (reporter, mut reports) = mpsc::unbounded_channel();
    let (stop, mut clients) = (tokio::sync::watch::Sender::new(false), JoinSet::new());
    for client in 0..NODES * CLIENTS_PER_NODE {
        // A node that is cut off has what it stores for itself.
        let nodes = [client % NODES, (client + usize::from(!is_cut)) % NODES];
        let nodes = nodes.map(|node| servers[node].url().to_owned());
        let (http, next) = (servers[0].client().clone(), Arc::clone(next));
        let (reporter, stop) = (reporter.clone(), stop.subscribe());
        clients.spawn(async move {
            while !*stop.borrow() {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if store_and_perhaps_remove(&http, &nodes, n, &reporter).await.is_none() {
                    break;
                }
            }
        });
    }
    drop(reporter);
    let mut ledger = Ledger::new();
    let (n, fate) = reports.recv().await.expect("the first request of a round is answered");
    ledger.insert(n, fate);
    let working = async {
        while let Some((n, fate)) = reports.recv().await {
            ledger.insert(n, fate);
        }
    };
    assert!(tokio::time::timeout(after, working).await.is_err(), "the clients ended before the kill");
    servers.remove(victim).kill();
    stop.send_replace(true);
    while let Some((n, fate)) = reports.recv().await {
        ledger.insert(n, fate);
    }
    clients.join_all().await;
    ledger
}

/// Stores at one node and removes there or at the other. None once a node is gone.
async fn store_and_perhaps_remove(
    http: &reqwest::Client,
    [node, other]: &[String; NODES],
    n: u64,
    reporter: &mpsc::UnboundedSender<(u64, Fate)>,
) -> Option<()> {
    let path = format!("/v1/cache/products/{n}");
    let put = http.put(format!("{node}{path}")).header("x-cache-tags", format!("tag:{n}")).body(value(n));
    expect_success(put).await?;
    let say = |fate| _ = reporter.send((n, fate));
    say(Fate::Stored);
    let remover = if n.is_multiple_of(2) { node } else { other };
    let body = json!({ "entity": { "type": "tag", "id": n } }).to_string();
    let request = match n % 5 {
        0 => return Some(()),
        1 | 2 => http.delete(format!("{remover}{path}")),
        _ => http.post(format!("{remover}/v1/invalidate")).body(body),
    };
    say(Fate::Removing);
    let is_pending = expect_success(request).await?;
    say(if is_pending { Fate::RemovedThere } else { Fate::Removed });
    Some(())
}

/// Whether the change has yet to reach the other node.
async fn expect_success(request: reqwest::RequestBuilder) -> Option<bool> {
    let response = request.send().await.ok()?;
    let status = response.status();
    let is_pending = status == 202 || response.headers().contains_key("x-likewise-propagation");
    assert!(status.is_success(), "{status}: {}", response.text().await.unwrap_or_default());
    Some(is_pending)
}

/// Asks both nodes. One that has only now started may have to catch up first, and so may its peer with what waited there.
async fn check(servers: &[Server], ledger: &Ledger) {
    let entries = Vec::from_iter(ledger);
    let chunks =
        servers.iter().flat_map(|server| entries.chunks(CHECKED_AT_ONCE).map(move |chunk| (server, chunk)));
    for (server, chunk) in chunks {
        join_all(chunk.iter().map(async |(n, fate)| match fate {
            Fate::Stored => until("what was stored is served", async || serves(server, **n).await).await,
            Fate::RemovedThere => {
                until("the removal is known to both", async || !serves(server, **n).await).await;
            }
            Fate::Removed => assert!(!serves(server, **n).await, "object {n} was removed"),
            Fate::Removing => _ = serves(server, **n).await,
        }))
        .await;
    }
}

async fn serves(server: &Server, n: u64) -> bool {
    let found = server.get(&format!("/v1/cache/products/{n}")).await;
    match found.status {
        200 => assert_eq!(found.body.to_string(), value(n)),
        404 => {}
        status => panic!("object {n}: {status} {}", found.body),
    }
    found.status == 200
}

/// JSON, because that is how answers are read here.
fn value(n: u64) -> String {
    json!(format!("the value of {n}")).to_string()
}
