//! `kill -9` under clients that store objects and invalidate them: after the restart no invalidated object is served,
//! and no object that was stored and not invalidated is lost.
//!
//! The ledger is kept here, outside the server. An object whose invalidation was asked for and not acknowledged may be
//! served or not. `LIKEWISE_KILL_ROUNDS` says how many rounds at least; there are at least 2,000 invalidations.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::endpoint::{Endpoint, remote};
use crate::kill::{number_from, splitmix};
use crate::program::Server;

const CLIENTS: usize = 8;
const INVALIDATED_MIN: usize = 2_000;
const KILLED_WITHIN_MS: u64 = 60;
const CHECKED_AT_ONCE: usize = 64;

/// What became of an object, as far as the server has acknowledged it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Stored,
    /// Asked for, and perhaps done.
    Invalidating,
    Invalidated,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_invalidated_is_served_after_the_server_was_killed() {
    let rounds_min = number_from("LIKEWISE_KILL_ROUNDS", 100) / 2;
    let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), "moment of death");
    let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
    let start = || Server::spawn(&mut remote(dir.path(), &endpoint.url));
    let next = Arc::new(AtomicU64::new(0));
    let mut ledger: Vec<(u64, State)> = Vec::new();
    let (mut rounds, mut checked) = (0, 0);
    while rounds < rounds_min || count(&ledger, State::Invalidated) < INVALIDATED_MIN {
        let server = start();
        check(&server, &ledger[checked..]).await;
        checked = ledger.len();
        let after = Duration::from_micros(splitmix(seed + rounds) % (KILLED_WITHIN_MS * 1000));
        ledger.extend(work_until_killed(server, &next, after).await);
        rounds += 1;
    }
    check(&start(), &ledger).await;
    println!(
        "{rounds} rounds (seed {seed}): {} invalidations acknowledged, none served; {} objects kept, none lost",
        count(&ledger, State::Invalidated),
        count(&ledger, State::Stored),
    );
}

fn count(ledger: &[(u64, State)], wanted: State) -> usize {
    ledger.iter().filter(|(_, state)| *state == wanted).count()
}

/// Lets clients work, kills the server, and returns what became of each object.
async fn work_until_killed(server: Server, next: &Arc<AtomicU64>, after: Duration) -> Vec<(u64, State)> {
    let (reporter, mut reports) = mpsc::unbounded_channel();
    for _ in 0..CLIENTS {
        let (client, url) = (server.client().clone(), server.url().to_owned());
        let (next, reporter) = (Arc::clone(next), reporter.clone());
        tokio::spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if store_and_perhaps_invalidate(&client, &url, n, &reporter).await.is_none() {
                    break;
                }
            }
        });
    }
    drop(reporter);
    let mut last = std::collections::BTreeMap::new();
    let (n, state) = reports.recv().await.expect("the first request of a round is answered");
    last.insert(n, state);
    let working = async {
        while let Some((n, state)) = reports.recv().await {
            last.insert(n, state);
        }
    };
    let outcome = tokio::time::timeout(after, working).await;
    assert!(outcome.is_err(), "the clients ended before the server was killed");
    server.kill();
    // What was answered before the end, and heard only now.
    while let Some((n, state)) = reports.recv().await {
        last.insert(n, state);
    }
    last.into_iter().collect()
}

/// None once the server is gone.
async fn store_and_perhaps_invalidate(
    client: &reqwest::Client,
    url: &str,
    n: u64,
    reporter: &mpsc::UnboundedSender<(u64, State)>,
) -> Option<()> {
    let object = format!("{url}/v1/cache/products/{n}");
    let put = client.put(&object).header("x-cache-tags", format!("tag:{n}")).body(value(n));
    expect(put, 204).await?;
    let say = |state| _ = reporter.send((n, state));
    say(State::Stored);
    let invalidate = |body: Value| client.post(format!("{url}/v1/invalidate")).body(body.to_string());
    let (request, status) = match n % 5 {
        0 => return Some(()),
        1 => (client.delete(&object), 204),
        2 => (invalidate(json!({ "namespace": "products", "keys": [n.to_string()] })), 200),
        _ => (invalidate(json!({ "entity": { "type": "tag", "id": n } })), 200),
    };
    say(State::Invalidating);
    expect(request, status).await?;
    say(State::Invalidated);
    Some(())
}

async fn expect(request: reqwest::RequestBuilder, status: u16) -> Option<()> {
    let response = request.send().await.ok()?;
    let found = response.status().as_u16();
    assert_eq!(found, status, "{}", response.text().await.unwrap_or_default());
    Some(())
}

async fn check(server: &Server, ledger: &[(u64, State)]) {
    for chunk in ledger.chunks(CHECKED_AT_ONCE) {
        join_all(chunk.iter().map(async |&(n, state)| {
            let found = server.get(&format!("/v1/cache/products/{n}")).await;
            match (state, found.status) {
                (State::Stored | State::Invalidating, 200) => assert_eq!(found.body.to_string(), value(n)),
                (State::Invalidating | State::Invalidated, 404) => {}
                (_, status) => panic!("object {n}, {state:?}: {status} {}", found.body),
            }
        }))
        .await;
    }
}

/// JSON, because that is how answers are read here.
fn value(n: u64) -> String {
    json!(format!("the value of {n}")).to_string()
}
