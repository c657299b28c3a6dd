//! A lease is one among all nodes: whichever granted it, whichever gets the value, and whichever dies.

use super::two_nodes::TwoNodes;

const PATH: &str = "/v1/cache/products/1";
const WAITING: [(&str, &str); 2] = [("x-cache-lease-seconds", "60"), ("x-cache-wait-ms", "20000")];
const AT_ONCE: [(&str, &str); 2] = [("x-cache-lease-seconds", "60"), ("x-cache-wait-ms", "0")];

/// A lease that a node grants.
async fn lease_of(nodes: &TwoNodes, node: usize, headers: &[(&str, &str)]) -> String {
    let missed = nodes.get(node, PATH, headers).await;
    assert_eq!((missed.status, missed.header("x-cache-lease").len()), (404, 16), "{}", missed.body);
    missed.header("x-cache-lease").to_owned()
}

#[tokio::test]
async fn one_client_of_all_nodes_makes_the_value_and_may_store_it_at_any_of_them() {
    let nodes = TwoNodes::start(&[]).await;
    for maker in [0, 1] {
        nodes.node(0).ask("DELETE", PATH, &[], "").await;
        crate::program::until("the other node has read the deletion", async || {
            nodes.get(1, PATH, &[]).await.status == 404
        })
        .await;
        let lease = lease_of(&nodes, 0, &WAITING).await;
        let waiting = futures_util::future::join_all((0..20).map(|n| nodes.get(n % 2, PATH, &WAITING)));
        let making = async {
            let held = nodes.get(1, PATH, &AT_ONCE).await;
            assert_eq!(
                (held.status, held.header("retry-after"), held.header("x-cache-lease")),
                (404, "1", "")
            );
            nodes.put(maker, PATH, &[("x-cache-lease", &lease)], "made once").await
        };
        let (waiting, made) = tokio::join!(waiting, making);
        assert_eq!(made.status, 204, "node {maker}: {}", made.body);
        for answer in waiting {
            assert_eq!((answer.status, answer.body.as_str()), (200, Some("made once")));
        }
        for node in [0, 1] {
            let late = nodes.put(node, PATH, &[("x-cache-lease", &lease)], "made twice").await;
            assert_eq!((late.status, late.error()), (409, ("conflict", Some("x-cache-lease"))));
            assert_eq!(nodes.get(node, PATH, &[]).await.body, "made once");
        }
    }
}

#[tokio::test]
async fn a_lease_ends_for_all_nodes_at_any_of_them() {
    let nodes = TwoNodes::start(&[]).await;
    let first = lease_of(&nodes, 0, &WAITING).await;
    let presented = [("x-cache-lease", first.as_str())];
    let (second, given_back) =
        tokio::join!(lease_of(&nodes, 0, &WAITING), nodes.node(1).ask("DELETE", PATH, &presented, ""));
    assert_eq!(given_back.status, 204, "{}", given_back.body);
    assert_eq!(nodes.node(1).ask("DELETE", PATH, &presented, "").await.status, 409);
    let written = nodes.put(1, PATH, &[], "without the lease").await;
    assert_eq!(written.status, 204);
    for node in [0, 1] {
        let late = nodes.put(node, PATH, &[("x-cache-lease", &second)], "with it").await;
        assert_eq!((late.status, late.error()), (409, ("conflict", Some("x-cache-lease"))));
    }
}

/// What its holder has loaded is from before the invalidation.
#[tokio::test]
async fn a_value_from_before_an_invalidation_is_refused_at_every_node() {
    let nodes = TwoNodes::start(&[]).await;
    for (invalidated_at, stored_at) in [(0, 1), (1, 0), (1, 1), (0, 0)] {
        let lease = lease_of(&nodes, 0, &WAITING).await;
        let body = r#"{"tags":["brand:7"]}"#;
        let invalidated = nodes.node(invalidated_at).ask("POST", "/v1/invalidate", &[], body).await;
        assert_eq!(invalidated.status, 200, "{}", invalidated.body);
        let headers = [("x-cache-lease", lease.as_str()), ("x-cache-tags", "brand:7")];
        let stored = nodes.put(stored_at, PATH, &headers, "old").await;
        if stored.status == 204 {
            // The node had not read the invalidation yet, which then hides the value.
            assert_ne!(invalidated_at, stored_at);
            crate::program::until("the invalidation is read", async || {
                nodes.get(stored_at, PATH, &[]).await.status == 404
            })
            .await;
            continue;
        }
        assert_eq!((stored.status, stored.error().0), (409, "conflict"), "{}", stored.body);
        // The lease has ended with the attempt. One that is granted before its node has read the invalidation in the log is from before it
        // too, so the next may be refused once more.
        crate::program::until("a lease from after the invalidation is accepted", async || {
            let other = lease_of(&nodes, stored_at, &WAITING).await;
            let untouched = [("x-cache-lease", other.as_str()), ("x-cache-tags", "brand:7")];
            let stored = nodes.put(1 - stored_at, PATH, &untouched, "new").await;
            assert!([204, 409].contains(&stored.status), "{}", stored.body);
            stored.status == 204
        })
        .await;
        nodes.node(0).ask("DELETE", PATH, &[], "").await;
    }
}

#[tokio::test]
async fn the_lease_of_a_node_that_died_passes_on_when_its_time_is_over() {
    let mut nodes = TwoNodes::start(&[]).await;
    let short = [("x-cache-lease-seconds", "1"), ("x-cache-wait-ms", "20000")];
    lease_of(&nodes, 0, &short).await;
    nodes.kill(0);
    let lease = lease_of(&nodes, 1, &WAITING).await;
    assert_eq!(nodes.put(1, PATH, &[("x-cache-lease", &lease)], "made").await.status, 204);
}

#[tokio::test]
async fn without_redis_each_node_grants_leases_of_its_own() {
    let mut nodes = TwoNodes::start(&[]).await;
    let shared = lease_of(&nodes, 0, &WAITING).await;
    nodes.redis.kill();
    for node in [0, 1] {
        crate::program::until("the node is cut off", async || {
            nodes.get(node, "/readyz?verbose", &[]).await.body["redis"]["state"] == "degraded"
        })
        .await;
    }
    let own = lease_of(&nodes, 1, &WAITING).await;
    let unknown = nodes.put(1, PATH, &[("x-cache-lease", &shared)], "of the other").await;
    assert_eq!((unknown.status, unknown.error().0), (503, "unavailable"), "{}", unknown.body);
    for (node, lease) in [(0, shared), (1, own)] {
        let stored = nodes.put(node, PATH, &[("x-cache-lease", &lease)], "made").await;
        assert_eq!(
            (stored.status, stored.header("x-likewise-propagation")),
            (204, "pending"),
            "{}",
            stored.body
        );
    }
}
