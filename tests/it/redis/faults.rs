//! A Redis that is away costs misses, never an error and never long, and is used again once it is back.

use std::time::{Duration, Instant};

use likewise::cache::Tier as _;
use likewise::cache::redis::{BreakerOptions, BreakerState, LuaScript, RedisMode, RedisOptions};

use super::node::{LIMIT, Node, at, at_all, key};
use super::servers::{Program, RedisServer, until};
use super::topologies::{RedisCluster, WatchedServers};

/// Of a node whose server is made silent: a call may wait so long.
const RESPONSE_MS: u64 = 50;
/// What a call may take on a machine that does other work too.
const CALL_MAX: Duration = Duration::from_millis(1500);

fn impatient(options: RedisOptions) -> RedisOptions {
    let breaker = BreakerOptions { open_ms: 100, open_ms_max: 400, ..BreakerOptions::default() };
    RedisOptions { response_ms_max: RESPONSE_MS, breaker, ..options }
}

#[tokio::test]
async fn a_socket_that_never_answers_costs_nothing() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let node = Node::new(&impatient(at(&url)));
    for _ in 0..100 {
        let begun = Instant::now();
        node.write([1]).await;
        assert!(node.read(1).await.is_none());
        assert!(begun.elapsed() < CALL_MAX, "no call waits for a connection");
    }
    assert!(!node.client.is_connected());
    node.until_state(BreakerState::Open).await;
    assert!(!node.objects.stats().is_on);
}

#[tokio::test]
async fn a_server_that_falls_silent_opens_the_breaker_and_is_used_again() {
    let server = RedisServer::start(Program::Valkey);
    let node = Node::new(&impatient(at(server.url()))).connected().await;
    node.until_it_works(1).await;
    let timed_out = || node.metric("redis_calls_total{outcome=\"timed_out\"}");
    let before = timed_out();
    server.signal("STOP");
    let mut reads = 0;
    while node.client.breaker_state() != BreakerState::Open {
        let begun = Instant::now();
        assert!(node.read(1).await.is_none());
        assert!(begun.elapsed() < CALL_MAX, "{:?}", begun.elapsed());
        reads += 1;
        // On a busy machine the connection may be given up before, and reads without one need more failures.
        assert!(timed_out() <= before + 5 && reads <= 100, "five silences in a row open it");
    }
    assert!(node.metric("redis_breaker_transitions_total{state=\"open\"}") >= 1);
    node.read(1).await;
    server.signal("CONT");
    node.until_state(BreakerState::Closed).await;
    node.until_it_works(1).await;
    assert!(node.metric("redis_breaker_transitions_total{state=\"closed\"}") >= 1);
    assert_eq!(node.metric("redis_breaker_state"), 0);
}

#[tokio::test]
async fn calls_beyond_the_limit_are_refused_at_once_and_dropped_ones_give_their_place_back() {
    let server = RedisServer::start(Program::Valkey);
    let options = RedisOptions { calls_max: 2, response_ms_max: 30_000, ..at(server.url()) };
    let node = Node::new(&options).connected().await;
    node.until_it_works(1).await;
    server.signal("STOP");
    let mut held = [node.read(1), node.read(1)].map(Box::pin);
    for call in &mut held {
        assert!(futures_util::poll!(call).is_pending());
    }
    assert!(node.read(1).await.is_none());
    assert_eq!(node.metric("redis_calls_total{outcome=\"too_many\"}"), 1);
    drop(held);
    server.signal("CONT");
    assert!(node.has(1).await, "their places are free");
}

#[tokio::test]
async fn a_node_starts_without_a_server_and_survives_its_restart() {
    let mut server = RedisServer::start(Program::Redis);
    server.kill();
    let node = Node::new(&impatient(at(server.url())));
    assert!(node.read(1).await.is_none());
    for round in 1..3 {
        server.restart();
        node.until_it_works(round).await;
        node.until_state(BreakerState::Closed).await;
        let script = LuaScript::new("return 1");
        node.client.script(&script, &[&node.client.keys().state(0)], &[], LIMIT).await.unwrap();
        server.kill();
        assert!(node.read(round).await.is_none());
        node.until("the loss is noticed", async |node| !node.client.is_connected()).await;
    }
}

#[tokio::test]
async fn a_script_that_a_server_has_forgotten_is_sent_again() {
    let server = RedisServer::start(Program::Valkey);
    let node = Node::new(&at(server.url())).connected().await;
    let script = LuaScript::new("return {KEYS[1], ARGV[1], ARGV[2]}");
    for _ in 0..3 {
        let reply = node.client.script(&script, &["k"], &[b"a", &[0, 255]], LIMIT).await.unwrap();
        let reply: Vec<Vec<u8>> = redis::from_redis_value(reply).unwrap();
        assert_eq!(reply, [b"k".to_vec(), b"a".to_vec(), vec![0, 255]]);
        server.ask::<()>("SCRIPT FLUSH");
    }
    let failing = LuaScript::new("return redis.error_reply('MINE no')");
    let error = node.client.script(&failing, &["k"], &[], LIMIT).await.unwrap_err();
    assert!(error.to_string().contains("MINE"), "{error}");
}

fn in_cluster(cluster: &RedisCluster) -> RedisOptions {
    RedisOptions { mode: RedisMode::Cluster, ..at_all(cluster.urls()) }
}

#[tokio::test]
async fn a_cluster_whose_master_dies_is_used_again_with_its_replica() {
    let mut cluster = RedisCluster::start(Program::Valkey);
    let node = Node::new(&in_cluster(&cluster)).connected().await;
    node.write(0..64).await;
    let slot: usize =
        cluster.nodes[0].ask(&format!("CLUSTER KEYSLOT {}", node.client.keys().object(&key(1))));
    let master = cluster.master_of(slot);
    until("the replica has the entry", || cluster.nodes[3 + master].ask::<usize>("DBSIZE") > 0);
    cluster.nodes[master].kill();
    node.until_it_works(1).await;
    let mut dedicated = node.client.dedicated(node.client.keys().shard_of(&key(1)));
    let mut pipeline = redis::pipe();
    pipeline.cmd("EXISTS").arg(node.client.keys().object(&key(1)));
    // Servers learn one after another that the replica has taken over.
    let replies = async {
        loop {
            match dedicated.pipeline(&pipeline, LIMIT).await {
                Ok(replies) => break replies,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let exists = tokio::time::timeout(LIMIT, replies).await.unwrap();
    assert_eq!(exists, [redis::Value::Int(1)], "although the first seed is away");
}

#[tokio::test]
async fn a_slot_that_moves_is_read_before_while_and_after() {
    let cluster = RedisCluster::start(Program::Valkey);
    let node = Node::new(&in_cluster(&cluster)).connected().await;
    node.write(0..64).await;
    let slot: usize =
        cluster.nodes[0].ask(&format!("CLUSTER KEYSLOT {}", node.client.keys().object(&key(1))));
    let shard = node.client.keys().shard_of(&key(1));
    let mut dedicated = node.client.dedicated(shard);
    let mut pipeline = redis::pipe();
    pipeline.cmd("EXISTS").arg(node.client.keys().object(&key(1)));
    assert_eq!(dedicated.pipeline(&pipeline, LIMIT).await.unwrap(), [redis::Value::Int(1)]);
    let target = (cluster.master_of(slot) + 1) % 3;
    cluster.move_slot(slot, target, async || assert!(node.has(1).await, "asked where it went")).await;
    assert!(node.has(1).await);
    node.write([1]).await;
    assert!(node.has(1).await);
    assert_eq!(dedicated.pipeline(&pipeline, LIMIT).await.unwrap(), [redis::Value::Int(1)]);
}

#[tokio::test]
async fn a_new_primary_is_found_through_sentinels() {
    let mut servers = WatchedServers::start();
    let urls = servers.sentinels.iter().map(|sentinel| sentinel.url().to_owned()).collect();
    let options = RedisOptions {
        mode: RedisMode::Sentinel,
        sentinel_service: Some(WatchedServers::SERVICE.into()),
        ..at_all(urls)
    };
    let node = Node::new(&options).connected().await;
    node.until_it_works(1).await;
    servers.primary.kill();
    servers.sentinels[0].kill();
    node.until_it_works(2).await;
    let role: Vec<redis::Value> = servers.replica.ask("ROLE");
    assert_eq!(role[0], redis::Value::BulkString(b"master".to_vec()));
}
