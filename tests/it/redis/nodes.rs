//! Nodes that share a Redis know of each other: which there are, how far behind each is, and what it has.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::servers::{Program, RedisServer, free_port};
use super::topologies::RedisCluster;
use crate::endpoint::{Endpoint, remote};
use crate::program::{Server, until};

/// So often a node announces itself. It counts as away after three times as long without, which must not happen on a busy machine.
const HEARTBEAT_MS: &str = "1000";
/// For tests of a node that is away, and of what is published every 30 heartbeats.
const SHORT_HEARTBEAT: (&str, &str) = ("LIKEWISE__NODES__HEARTBEAT_MS", "100");

/// A node, with the directory that it can be started on again.
pub(super) struct NodeUnderTest {
    // First, so that it ends before its directory does.
    pub(super) server: Server,
    pub(super) dir: TempDir,
}

/// Starts a node that shares `redis`, with more environment.
pub(super) fn start(endpoint: &Endpoint, redis: &RedisServer, environment: &[(&str, &str)]) -> NodeUnderTest {
    let dir = TempDir::new().unwrap();
    let server = Server::spawn(&mut program(dir.path(), endpoint, redis, environment));
    NodeUnderTest { server, dir }
}

/// A node that others reach at its address.
pub(super) fn start_advertised(endpoint: &Endpoint, redis: &RedisServer) -> NodeUnderTest {
    let (dir, address) = (TempDir::new().unwrap(), format!("127.0.0.1:{}", free_port()));
    let server = start_at(dir.path(), &address, endpoint, redis);
    NodeUnderTest { server, dir }
}

/// A node on a directory and an address that others know.
pub(super) fn start_at(dir: &Path, address: &str, endpoint: &Endpoint, redis: &RedisServer) -> Server {
    let url = format!("http://{address}");
    Server::spawn_at(&mut program(dir, endpoint, redis, &[("LIKEWISE__NODES__ADVERTISE", &url)]), address)
}

pub(super) fn program(
    dir: &Path,
    endpoint: &Endpoint,
    redis: &RedisServer,
    environment: &[(&str, &str)],
) -> Command {
    let mut program = remote(&dir.join("data"), &endpoint.url);
    program.args(["--redis", redis.url()]).env("LIKEWISE__NODES__HEARTBEAT_MS", HEARTBEAT_MS);
    // Servers share two processors with all tests.
    program.env("LIKEWISE__REDIS__CONNECT_MS_MAX", "2000").env("LIKEWISE__REDIS__RESPONSE_MS_MAX", "1000");
    program.envs(environment.iter().copied());
    program
}

/// The nodes that a node knows of, itself first.
pub(super) async fn known_to(server: &Server) -> Vec<Value> {
    let answer = server.get("/v1/nodes").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body["data"].as_array().unwrap().clone()
}

/// Waits until a node knows of so many others that are there.
pub(super) async fn until_it_knows(server: &Server, others: usize) {
    until("the nodes know of each other", async || {
        let known = known_to(server).await;
        known.iter().filter(|node| node["is_self"] == false && node["is_alive"] == true).count() == others
    })
    .await;
}

pub(super) async fn metric(server: &Server, name: &str) -> f64 {
    let text = server.client().get(format!("{}/metrics", server.url())).send().await.unwrap();
    let text = text.text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_redis_is_alone() {
    let server = Server::start();
    let answer = server.get("/v1/nodes").await;
    assert_eq!((answer.status, &answer.body["is_current"]), (200, &json!(true)));
    let nodes = answer.body["data"].as_array().unwrap();
    assert_eq!(nodes.len(), 1);
    assert_eq!((&nodes[0]["is_self"], &nodes[0]["id"]), (&json!(true), &json!("0000000000000000")));
    assert_eq!(nodes[0]["version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_know_who_is_there_how_far_behind_it_is_and_what_it_has() {
    let (endpoint, redis) = (Endpoint::start().await, RedisServer::start(Program::Redis));
    let (a, b) = (start(&endpoint, &redis, &[]), start(&endpoint, &redis, &[]));
    until_it_knows(&a.server, 1).await;
    until_it_knows(&b.server, 1).await;
    let (of_a, of_b) = (known_to(&a.server).await, known_to(&b.server).await);
    assert_eq!((&of_a[0]["id"], &of_a[1]["id"]), (&of_b[1]["id"], &of_b[0]["id"]));
    assert_ne!(of_a[0]["id"], of_a[1]["id"]);
    let stats = a.server.get("/v1/stats").await.body;
    assert_eq!(stats["redis"]["node"], of_a[0]["id"]);

    for n in 0..20 {
        let stored = a.server.ask("PUT", &format!("/v1/cache/products/{n}"), &[], "x").await;
        assert_eq!(stored.status, 204, "{}", stored.body);
    }
    until("the other node has applied each change", async || {
        metric(&b.server, "likewise_invalidation_lag_seconds_count").await >= 20.0
    })
    .await;
    // A change of its own has no lag.
    assert_eq!(metric(&a.server, "likewise_invalidation_lag_seconds_count").await, 0.0);
    let lag = metric(&b.server, "likewise_invalidation_lag_seconds_sum").await;
    assert!(lag < 20.0 * 5.0, "the clocks are compared: {lag} s for 20 changes");
    until("what a node has is announced", async || {
        let known = known_to(&b.server).await;
        known[1]["entries"].as_u64() >= Some(20) && known[1]["events_behind"] == 0
    })
    .await;
    for (name, value) in [("likewise_redis_events_behind", 0.0), ("likewise_nodes", 2.0)] {
        until(&format!("{name} is {value}"), async || metric(&b.server, name).await == value).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_ends_without_notice_is_away_and_one_without_redis_knows_the_others_as_they_were() {
    let (endpoint, mut redis) = (Endpoint::start().await, RedisServer::start(Program::Valkey));
    let (a, b) = (start(&endpoint, &redis, &[SHORT_HEARTBEAT]), start(&endpoint, &redis, &[SHORT_HEARTBEAT]));
    until_it_knows(&a.server, 1).await;
    let id = known_to(&a.server).await[1]["id"].clone();
    b.server.kill();
    until_it_knows(&a.server, 0).await;
    let known = known_to(&a.server).await;
    assert_eq!((known.len(), &known[1]["id"]), (2, &id), "it is remembered");
    assert!(known[1]["seen_ms_ago"].as_u64() > Some(300));
    assert_eq!(metric(&a.server, "likewise_nodes").await, 1.0);

    redis.kill();
    until("the node says that it does not know", async || {
        a.server.get("/v1/nodes").await.body["is_current"] == false
    })
    .await;
    assert_eq!(known_to(&a.server).await[1]["id"], id);
    redis.restart();
    until("the node knows again", async || a.server.get("/v1/nodes").await.body["is_current"] == true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_joins_has_what_others_use_most_in_memory() {
    const OBJECTS: usize = 50;
    let (endpoint, redis) = (Endpoint::start().await, RedisServer::start(Program::Valkey));
    let a = start(&endpoint, &redis, &[SHORT_HEARTBEAT]);
    let path = |n: usize| format!("/v1/cache/products/{n}");
    let text = r#"{"model": "mock", "input": "a text that is asked for often"}"#;
    for n in 0..OBJECTS {
        assert_eq!(a.server.ask("PUT", &path(n), &[], "x").await.status, 204);
    }
    let id = known_to(&a.server).await[0]["id"].as_str().unwrap().to_owned();
    // Each key of a list has 42 bytes.
    until("the keys that are used are published", async || {
        for n in 0..OBJECTS {
            assert_eq!(a.server.get(&path(n)).await.status, 200);
        }
        assert_eq!(a.server.post_raw(text).await.status, 200);
        redis.ask::<usize>(&format!("STRLEN {{likewise:0}}:hot:{id}")) >= 42 * (OBJECTS + 1)
    })
    .await;
    let b = start(&endpoint, &redis, &[SHORT_HEARTBEAT]);
    until("they are in its memory", async || {
        metric(&b.server, "likewise_node_warmed_entries_total").await >= OBJECTS as f64 + 1.0
    })
    .await;
    for n in 0..OBJECTS {
        let found = b.server.get(&path(n)).await;
        assert!(found.header("cache-status").ends_with("detail=memory"), "{}", found.header("cache-status"));
    }
    let found = b.server.post_raw(text).await;
    assert!(found.header("cache-status").ends_with("detail=memory"), "{}", found.header("cache-status"));
    let off = start(&endpoint, &redis, &[SHORT_HEARTBEAT, ("LIKEWISE__NODES__WARM_KEYS_MAX", "0")]);
    until_it_knows(&off.server, 2).await;
    assert_eq!(metric(&off.server, "likewise_node_warmed_entries_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_meet_in_a_cluster_too() {
    let (endpoint, cluster) = (Endpoint::start().await, RedisCluster::start(Program::Valkey));
    let environment = [("LIKEWISE__REDIS__MODE", "cluster")];
    let nodes = [0, 1].map(|seed| start(&endpoint, &cluster.nodes[seed], &environment));
    for node in &nodes {
        until_it_knows(&node.server, 1).await;
    }
    let made = nodes[0].server.ask("PUT", "/v1/collections/c", &[], r#"{"dimensions": 2}"#).await;
    assert_eq!(made.status, 201, "{}", made.body);
    until("the other node is named", async || nodes[1].server.get("/v1/collections/c").await.status == 421)
        .await;
    until("each shard is applied", async || known_to(&nodes[1].server).await[1]["events_behind"] == 0).await;
}

/// A node that takes a name between the answer of Redis to its heartbeat and the moment in which it reads that answer has not lost anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collections_are_created_beside_heartbeats() {
    const CLIENTS: usize = 8;
    const ROUNDS: usize = 60;
    let (endpoint, redis) = (Endpoint::start().await, RedisServer::start(Program::Redis));
    // The shortest that an option allows.
    let heartbeat = ("LIKEWISE__NODES__HEARTBEAT_MS", "10");
    let node = start(&endpoint, &redis, &[heartbeat, ("LIKEWISE__REDIS__RESPONSE_MS_MAX", "10000")]);
    let create = async |client: usize| {
        for _ in 0..ROUNDS {
            let path = format!("/v1/collections/c{client}");
            let body = json!({ "dimensions": 2, "model": null }).to_string();
            let created = node.server.ask("PUT", &path, &[], body).await;
            assert_eq!(created.status, 201, "{}", created.body);
            let dropped = node.server.ask("DELETE", &path, &[], String::new()).await;
            assert_eq!(dropped.status, 204, "{}", dropped.body);
        }
    };
    futures_util::future::join_all((0..CLIENTS).map(create)).await;
}
