//! A node that is killed between the event of a write and its copy on disk: afterwards all nodes serve the same, and what is too long
//! for Redis is not lost.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::Value;
use tokio::task::JoinSet;

use super::servers::RedisServer;
use super::two_nodes::TwoNodes;
use crate::kill::{number_from, splitmix};
use crate::program::until;

/// Values of `LONG_BYTES` stay on their node. Those of `SHORT_BYTES` take longer to reach the disk than the cursor does.
const SETTINGS: [(&str, &str); 1] = [("LIKEWISE__REDIS__VALUE_BYTES_MAX", "500000")];
const SHORT_BYTES: u64 = 400_000;
const LONG_BYTES: u64 = 800_000;
const WRITERS: u64 = 6;
const KILLED_WITHIN_MS: u64 = 60;

/// The last write of a key that was begun, and the last one that was acknowledged.
#[derive(Debug, Clone, Copy, Default)]
struct Written {
    begun: u64,
    acknowledged: u64,
}

/// Values of odd keys are too long for Redis.
fn is_long(key: u64) -> bool {
    key % 2 == 1
}

fn path(key: u64) -> String {
    format!("/v1/cache/products/{key}")
}

fn value(key: u64, number: u64) -> String {
    let bytes = if is_long(key) { LONG_BYTES } else { SHORT_BYTES };
    // Six random bits a byte: long ones do not compress to what Redis takes.
    let noise = (0..bytes / 8).map(|n| splitmix(number << 32 | key << 24 | n).to_le_bytes());
    let noise: Vec<u8> = noise.flatten().map(|byte| b' ' + byte % 64).collect();
    format!("number {number} {}", String::from_utf8_lossy(&noise))
}

/// The number of the write whose value a node serves.
async fn served(nodes: &TwoNodes, node: usize, key: u64) -> Option<u64> {
    let found = nodes.get(node, &path(key), &[]).await;
    let body = found.body.as_str().unwrap_or_default();
    let number = body.split(' ').nth(1).and_then(|number| number.parse().ok());
    assert_eq!(number.is_some(), found.status == 200, "{}", found.body);
    number
}

/// One client of the first node: writes its key again and again until the node is gone; or once, so that the last event of the key is
/// not that of a write which the death of the node has cut off.
async fn write_until_killed(
    http: reqwest::Client,
    url: String,
    key: u64,
    mut written: Written,
) -> (u64, Written) {
    loop {
        written.begun += 1;
        let body = value(key, written.begun);
        let put = http.put(format!("{url}{}", path(key))).body(body).send().await;
        let Ok(response) = put else { return (key, written) };
        assert_eq!(response.status(), 204);
        written.acknowledged = written.begun;
        if is_long(key) {
            return (key, written);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_killed_serves_what_the_others_serve_and_what_it_alone_has() {
    let rounds = number_from("LIKEWISE_KILL_ROUNDS", 100) / 5;
    let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), "moment of death");
    let mut nodes = TwoNodes::start(&SETTINGS).await;
    let mut written = BTreeMap::from_iter((0..WRITERS).map(|key| (key, Written::default())));
    for round in 0..rounds {
        let mut writers = JoinSet::new();
        for (&key, &before) in &written {
            let (http, url) = (nodes.node(0).client().clone(), nodes.node(0).url().to_owned());
            writers.spawn(write_until_killed(http, url, key, before));
        }
        let lives = Duration::from_micros(splitmix(seed + round) % (KILLED_WITHIN_MS * 1_000));
        let writing = async {
            while let Some(ended) = writers.join_next().await {
                let (key, of_key) = ended.unwrap();
                written.insert(key, of_key);
            }
        };
        assert!(tokio::time::timeout(lives, writing).await.is_err(), "the clients ended before the kill");
        nodes.kill(0);
        written.extend(writers.join_all().await);
        nodes.restart(0).await;
        for (&key, &Written { begun, acknowledged }) in &written {
            let mut seen = [None; 2];
            let is_last = |number: Option<u64>| match number {
                Some(number) => (acknowledged..=begun).contains(&number),
                // Nothing was stored, or the last write has replaced what was there and its own value has reached no disk.
                None => begun > acknowledged && (acknowledged == 0 || is_long(key)),
            };
            until(
                &format!("round {round} (seed {seed}): key {key} is {begun} or {acknowledged}"),
                async || {
                    seen = [served(&nodes, 0, key).await, served(&nodes, 1, key).await];
                    // The other node has no long values.
                    is_last(seen[0]) && (is_long(key) || seen[0] == seen[1])
                },
            )
            .await;
        }
    }
}

/// Appends events to the log as a third node does.
struct ThirdNode<'a>(&'a RedisServer);

impl ThirdNode<'_> {
    const APPEND: &'static str = concat!(
        include_str!("../../../src/cache/redis/scripts/append.lua"),
        "local previous = redis.call('HGET', KEYS[1], 'nonce')
         append(KEYS[1], KEYS[2], previous, ARGV[1], 'thirdone', ARGV[2], '100000')"
    );

    /// Kind and payload of the last event.
    fn last(&self) -> Vec<u8> {
        let last: Value = self.0.ask("XREVRANGE {likewise:0}:events + - COUNT 1");
        let Value::Array(events) = &last else { panic!("{last:?}") };
        let Value::Array(event) = &events[0] else { panic!("{last:?}") };
        let Value::Array(fields) = &event[1] else { panic!("{last:?}") };
        let Value::BulkString(bytes) = &fields[1] else { panic!("{last:?}") };
        bytes[32..].into()
    }

    fn append(&self, nonce: u64, payload: &[u8]) {
        let script = redis::Script::new(ThirdNode::APPEND);
        let mut call = script.key("{likewise:0}:state");
        call.key("{likewise:0}:events").arg(&nonce.to_le_bytes()).arg(payload);
        call.invoke::<()>(&mut self.0.connection()).unwrap();
    }
}

/// The event of a key with another entry.
fn of_another(payload: &[u8]) -> Vec<u8> {
    [&payload[..33], &[9; 8]].concat()
}

/// After a restart a node reads events again that it has applied.
#[tokio::test]
async fn an_event_drops_no_copy_that_is_what_it_announces() {
    let nodes = TwoNodes::start(&SETTINGS).await;
    let third = ThirdNode(&nodes.redis);
    let put = async |key| assert_eq!(nodes.put(0, &path(key), &[], &value(key, 7)).await.status, 204);
    // Events are applied in their order: once the copy of a second key is dropped, those before are applied.
    let applied = async |nonce| {
        put(3).await;
        third.append(nonce, &of_another(&third.last()));
        until("the event is applied", async || served(&nodes, 0, 3).await.is_none()).await;
    };
    put(1).await;
    let announcement = third.last();
    third.append(1, &announcement);
    applied(2).await;
    assert_eq!(served(&nodes, 0, 1).await, Some(7), "what the node has");
    third.append(3, &of_another(&announcement));
    third.append(4, &announcement[..33]);
    third.append(5, &of_another(&announcement));
    applied(6).await;
    assert_eq!(served(&nodes, 0, 1).await, None, "another entry");
}
