//! What one node stores, removes or outdates holds on all, also when Redis falls silent in between.

use serde_json::json;

use super::servers::{Program, RedisServer};
use super::two_nodes::TwoNodes;
use crate::program::{Answer, until};

const KEYS: usize = 60;

fn path(key: usize) -> String {
    format!("/v1/cache/products/{key}")
}

async fn invalidate(nodes: &TwoNodes, node: usize, mode: &str, keys: impl Iterator<Item = usize>) -> Answer {
    let keys: Vec<String> = keys.map(|key| key.to_string()).collect();
    let body = json!({ "namespace": "products", "keys": keys, "mode": mode });
    nodes.node(node).ask("POST", "/v1/invalidate", &[], body.to_string()).await
}

async fn until_nothing_waits(nodes: &TwoNodes) {
    for node in [0, 1] {
        until("the node is connected and nothing waits", async || {
            let body = nodes.get(node, "/readyz?verbose", &[]).await.body;
            let redis = &body["redis"];
            redis["state"] == "connected" && redis["trusted"] == true && redis["outbox"] == 0
        })
        .await;
    }
}

/// A removal that Redis does not take at once waits in the outbox, which must not send the value that is still on the disk.
#[tokio::test]
async fn what_is_removed_while_redis_is_silent_does_not_come_back() {
    let nodes = TwoNodes::start(&[("LIKEWISE__REDIS__RESPONSE_MS_MAX", "60")]).await;
    for round in 0..5 {
        for key in 0..KEYS {
            assert_eq!(nodes.put(0, &path(key), &[], "to be removed").await.status, 204);
        }
        until_nothing_waits(&nodes).await;
        nodes.redis.signal("STOP");
        let removing = invalidate(&nodes, 0, "hard", 0..KEYS);
        let continuing = async {
            // In the middle of the removals, each of which waits for Redis.
            until("a removal waits", async || nodes.node(0).stat("/redis/outbox").await > 0).await;
            nodes.redis.signal("CONT");
        };
        let (removed, ()) = tokio::join!(removing, continuing);
        assert!([200, 202].contains(&removed.status), "{}", removed.body);
        until_nothing_waits(&nodes).await;
        for (node, key) in (0..KEYS).flat_map(|key| [(0, key), (1, key)]) {
            let found = nodes.get(node, &path(key), &[]).await;
            assert_eq!(found.status, 404, "round {round}, node {node}, key {key}: {}", found.body);
        }
    }
}

#[tokio::test]
async fn what_is_outdated_at_one_node_replaces_nothing_of_another() {
    let mut nodes = TwoNodes::start(&[]).await;
    for round in 0..20 {
        nodes.put(0, &path(1), &[], "old").await;
        until("the other node has it", async || nodes.get(1, &path(1), &[]).await.body == "old").await;
        // The first node has not read the event of the second put.
        let newest = format!("new {round}");
        assert_eq!(nodes.put(1, &path(1), &[], &newest).await.status, 204);
        assert_eq!(invalidate(&nodes, 0, "soft", 1..2).await.status, 200);
        for node in [0, 1] {
            let found = nodes.get(node, &path(1), &[]).await;
            assert_eq!((found.status, found.body.as_str()), (200, Some(newest.as_str())), "node {node}");
        }
    }
    nodes.put(0, &path(2), &[], "kept").await;
    nodes.redis.kill();
    assert_eq!(invalidate(&nodes, 0, "soft", 2..3).await.status, 202);
    let found = nodes.get(0, &path(2), &[]).await;
    assert_eq!(found.status, 404, "what cannot be compared is removed: {}", found.body);
}

/// A primary that became a replica answers as before, and does not get what is written to the present one.
#[tokio::test]
async fn a_former_primary_is_not_trusted() {
    let nodes = TwoNodes::start(&[]).await;
    let other = RedisServer::start(Program::Redis);
    let () = nodes.redis.ask(&format!("REPLICAOF 127.0.0.1 {}", other.port()));
    for node in [0, 1] {
        until("the node does not follow a replica", async || {
            nodes.get(node, "/readyz?verbose", &[]).await.body["redis"]["state"] == "degraded"
        })
        .await;
    }
    let () = nodes.redis.ask("REPLICAOF NO ONE");
    until_nothing_waits(&nodes).await;
    assert_eq!(nodes.put(0, &path(1), &[], "again").await.status, 204);
    until("the other node has it", async || nodes.get(1, &path(1), &[]).await.body == "again").await;
}
