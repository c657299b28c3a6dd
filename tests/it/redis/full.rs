//! A Redis at `maxmemory` takes no values, and takes what hides them.

use serde_json::json;

use super::two_nodes::TwoNodes;
use crate::program::until;

const TAGGED: [(&str, &str); 1] = [("x-cache-tags", "full")];

#[tokio::test]
async fn a_full_redis_refuses_values_and_takes_invalidations_and_removals() {
    let nodes = TwoNodes::start(&[]).await;
    for n in 0..2 {
        let stored = nodes.put(0, &format!("/v1/cache/products/{n}"), &TAGGED, "before").await;
        assert_eq!((stored.status, stored.header("x-likewise-propagation")), (204, ""));
    }
    // Less than it uses.
    nodes.redis.ask::<()>("CONFIG SET maxmemory-policy noeviction maxmemory 100kb");
    let used = nodes.redis.ask::<String>("INFO memory");
    assert!(used.contains("maxmemory:102400"), "{used}");
    for n in 2..10 {
        let stored = nodes.put(0, &format!("/v1/cache/products/{n}"), &[], &"x".repeat(60_000)).await;
        assert_eq!((stored.status, stored.header("x-likewise-propagation")), (204, "pending"));
    }
    until("a node announces what it has stored since", async || {
        let known = nodes.get(1, "/v1/nodes", &[]).await.body;
        known["data"][1]["entries"].as_u64() >= Some(10)
    })
    .await;
    let removed = nodes.node(0).ask("DELETE", "/v1/cache/products/0", &[], "").await;
    assert_eq!((removed.status, removed.header("x-likewise-propagation")), (204, ""));
    let body = json!({ "tags": ["full"] }).to_string();
    let invalidated = nodes.node(0).ask("POST", "/v1/invalidate", &[], body).await;
    assert_eq!((invalidated.status, invalidated.body["propagation"].as_str()), (200, Some("complete")));
    for path in ["/v1/cache/products/0", "/v1/cache/products/1"] {
        until("the other node misses", async || nodes.get(1, path, &[]).await.status == 404).await;
    }
}

/// The tokens of all tenants but the default one are a field of their own.
#[tokio::test]
async fn tokens_without_those_of_all_other_tenants_are_written_again() {
    let nodes = TwoNodes::start(&[]).await;
    nodes.redis.ask::<()>("HDEL {likewise:0}:tokens tenants*");
    // Both nodes find another log and read the tokens.
    nodes.redis.ask::<()>("HSET {likewise:0}:state nonce anothers");
    until("the tokens are there", async || {
        nodes.redis.ask::<u64>("HEXISTS {likewise:0}:tokens tenants*") == 1
    })
    .await;
    for node in 0..2 {
        until("a value is shared", async || {
            let path = format!("/v1/cache/products/{node}");
            nodes.put(node, &path, &[], "shared").await.header("x-likewise-propagation").is_empty()
                && nodes.get(1 - node, &path, &[]).await.body == "shared"
        })
        .await;
    }
}
