//! Invalidation over HTTP: what it speaks of is hidden, at once and after a restart, and nothing else is.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::endpoint::{Endpoint, remote};
use crate::program::{Answer, Server, until};

fn start_in(dir: &TempDir, endpoint: &Endpoint) -> Server {
    Server::spawn(&mut remote(dir.path(), &endpoint.url))
}

async fn put(server: &Server, key: &str, tags: &str) {
    let path = format!("/v1/cache/products/{key}");
    let headers = [("x-cache-tags", tags)];
    let headers = if tags.is_empty() { &headers[..0] } else { &headers[..] };
    let stored = server.ask("PUT", &path, headers, key.to_owned()).await;
    assert_eq!(stored.status, 204, "{}", stored.body);
}

/// The entries that a dry run has counted in memory and on disk.
fn tiers(counted: &Answer) -> (u64, u64) {
    let entries = &counted.body["entries"];
    let count = |tier: &str| entries[tier].as_u64().unwrap_or_else(|| panic!("{}", counted.body));
    (count("memory"), count("disk"))
}

/// Which of the keys are served.
async fn served<'a>(server: &Server, keys: &[&'a str]) -> Vec<&'a str> {
    let mut served = Vec::new();
    for key in keys {
        match server.get(&format!("/v1/cache/products/{key}")).await.status {
            200 => served.push(*key),
            404 => {}
            status => panic!("{key}: {status}"),
        }
    }
    served
}

async fn invalidate(server: &Server, body: Value) -> Answer {
    server.ask("POST", "/v1/invalidate", &[], body.to_string()).await
}

async fn hide(server: &Server, body: Value) {
    let answer = invalidate(server, body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[tokio::test]
async fn each_target_hides_what_it_speaks_of_and_nothing_else_and_for_good() {
    let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
    let server = start_in(&dir, &endpoint);
    let all = ["a", "b", "c", "d", "e"];
    for (key, tags) in [("a", "x"), ("b", "x,y"), ("c", "product:7"), ("d", ""), ("e", "")] {
        put(&server, key, tags).await;
    }
    let counted = invalidate(&server, json!({ "tags": ["x"], "dry_run": true })).await;
    assert_eq!(tiers(&counted), (2, 2));
    let counted = invalidate(&server, json!({ "namespace": "productos", "dry_run": true })).await;
    assert_eq!(tiers(&counted), (5, 5));
    assert_eq!(served(&server, &all).await, all, "counting hides nothing");

    hide(&server, json!({ "tags": ["y", "unknown"] })).await;
    assert_eq!(served(&server, &all).await, ["a", "c", "d", "e"]);
    hide(&server, json!({ "entity": { "type": "product", "id": 7 } })).await;
    assert_eq!(served(&server, &all).await, ["a", "d", "e"]);
    hide(&server, json!({ "namespace": "productos", "keys": ["d", "never"] })).await;
    assert_eq!(served(&server, &all).await, ["a", "e"]);
    server.kill();

    let server = start_in(&dir, &endpoint);
    assert_eq!(served(&server, &all).await, ["a", "e"], "what was hidden stays hidden");
    put(&server, "b", "y").await;
    assert_eq!(served(&server, &all).await, ["a", "b", "e"], "and what comes after is served");
    hide(&server, json!({ "namespace": "search_results" })).await;
    assert_eq!(served(&server, &all).await, ["a", "b", "e"]);
    hide(&server, json!({ "namespace": "products" })).await;
    assert_eq!(served(&server, &all).await, [] as [&str; 0]);
    put(&server, "a", "").await;
    hide(&server, json!({ "all": true })).await;
    put(&server, "b", "").await;
    server.kill();
    let server = start_in(&dir, &endpoint);
    assert_eq!(served(&server, &all).await, ["b"]);
}

#[tokio::test]
async fn softly_invalidated_objects_are_served_while_one_refreshes_them() {
    let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
    let server = start_in(&dir, &endpoint);
    put(&server, "a", "x").await;
    put(&server, "b", "").await;
    hide(&server, json!({ "tags": ["x"], "mode": "soft" })).await;
    hide(&server, json!({ "namespace": "products", "keys": ["b"], "mode": "soft" })).await;
    for key in ["a", "b"] {
        let path = format!("/v1/cache/products/{key}");
        let wants_lease = [("x-cache-lease-seconds", "60")];
        let first = server.ask("GET", &path, &wants_lease, "").await;
        assert_eq!((first.status, first.body.as_str()), (200, Some(key)));
        assert!(first.header("cache-status").ends_with("-stale"), "{}", first.header("cache-status"));
        let lease = first.header("x-cache-lease").to_owned();
        let second = server.ask("GET", &path, &wants_lease, "").await;
        assert_eq!((second.status, second.header("x-cache-lease")), (200, ""), "one is enough");
        let stored = server.ask("PUT", &path, &[("x-cache-lease", &lease)], "fresh").await;
        assert_eq!(stored.status, 204, "{}", stored.body);
        let fresh = server.get(&path).await;
        assert_eq!(fresh.body, "fresh");
        assert!(!fresh.header("cache-status").ends_with("-stale"));
    }
}

#[tokio::test]
async fn what_was_loaded_before_an_invalidation_is_not_admitted_after_it() {
    let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
    let server = start_in(&dir, &endpoint);
    let targets = [
        json!({ "tags": ["x"] }),
        json!({ "tags": ["x"], "mode": "soft" }),
        json!({ "namespace": "products" }),
        json!({ "namespace": "products", "keys": ["a"] }),
        json!({ "all": true }),
    ];
    for target in targets {
        let path = "/v1/cache/products/a";
        let missed = server.ask("GET", path, &[("x-cache-lease-seconds", "60")], "").await;
        let lease = missed.header("x-cache-lease").to_owned();
        assert_eq!((missed.status, lease.len()), (404, 16));
        hide(&server, target.clone()).await;
        let late = server.ask("PUT", path, &[("x-cache-lease", &lease), ("x-cache-tags", "x")], "old").await;
        assert_eq!((late.status, late.error().0), (409, "conflict"), "{target}");
        assert_eq!(server.get(path).await.status, 404, "{target}");
    }
}

#[tokio::test]
async fn embeddings_are_invalidated_by_the_same_mechanism() {
    let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
    let server = start_in(&dir, &endpoint);
    let embed = async |server: &Server| {
        let answer = server.post_raw(json!({ "model": "mock", "input": "one" }).to_string()).await;
        (answer.header("cache-status").to_owned(), answer.vectors())
    };
    let (_, first) = embed(&server).await;
    assert_eq!(embed(&server).await, ("likewise; hit; detail=memory".to_owned(), first.clone()));
    hide(&server, json!({ "namespace": "embeddings" })).await;
    let (status, second) = embed(&server).await;
    assert_eq!(status, "likewise; fwd=miss");
    assert_ne!(first, second, "the endpoint's vectors tell the call that made them");
    hide(&server, json!({ "namespace": "embeddings" })).await;
    server.kill();
    let server = start_in(&dir, &endpoint);
    assert_eq!(embed(&server).await.0, "likewise; fwd=miss", "what lies on disk is hidden as well");

    let (_, third) = embed(&server).await;
    hide(&server, json!({ "namespace": "embeddings", "mode": "soft" })).await;
    assert_eq!(embed(&server).await, ("likewise; hit; detail=memory".to_owned(), third.clone()));
    // The refresh goes on by itself; until it has landed the old vector is served.
    until("it is refreshed", async || embed(&server).await.1 != third).await;
}

#[tokio::test]
async fn bad_input_is_refused_and_hides_nothing() {
    let (dir, endpoint) = (TempDir::new().unwrap(), Endpoint::start().await);
    let server = start_in(&dir, &endpoint);
    put(&server, "a", "x").await;
    let many: Vec<String> = (0..1025).map(|n| n.to_string()).collect();
    for (body, param) in [
        (json!({}), "tags"),
        (json!({ "tags": ["x"], "all": true }), "all"),
        (json!({ "tags": ["x"], "namespace": "products" }), "tags"),
        (json!({ "tags": ["x", "a b"] }), "tags"),
        (json!({ "tags": [] }), "tags"),
        (json!({ "tags": many }), "tags"),
        (json!({ "tags": "x" }), "tags"),
        (json!({ "keys": ["a"] }), "namespace"),
        (json!({ "namespace": "products", "keys": ["a", ""] }), "key"),
        (json!({ "namespace": "a b" }), "namespace"),
        (json!({ "entity": { "type": "a:b", "id": "1" } }), "entity"),
        (json!({ "entity": { "type": "product" } }), "entity.id"),
        (json!({ "all": false }), "all"),
        (json!({ "all": true, "mode": "gentle" }), "mode"),
        (json!({ "everything": true }), "everything"),
    ] {
        let refused = invalidate(&server, body.clone()).await;
        assert_eq!((refused.status, refused.error()), (400, ("invalid_input", Some(param))), "{body}");
    }
    assert_eq!(served(&server, &["a"]).await, ["a"]);
}
