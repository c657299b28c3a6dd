//! A node that has missed events takes the tokens of Redis over.

use super::two_nodes::TwoNodes;
use crate::program::until;

const PATH: &str = "/v1/cache/products/1";
const TAGGED: [(&str, &str); 1] = [("x-cache-tags", "shoes")];

#[tokio::test]
async fn a_node_that_was_away_for_longer_than_the_log_invalidates_nothing_once_more() {
    let nodes = TwoNodes::start(&[]).await;
    nodes.node(1).signal("STOP");
    let invalidated = nodes.node(0).ask("POST", "/v1/invalidate", &[], r#"{"tags":["shoes"]}"#).await;
    assert_eq!(invalidated.status, 200, "{}", invalidated.body);
    assert_eq!(nodes.put(0, PATH, &TAGGED, "made since").await.status, 204);
    nodes.redis.ask::<()>("XTRIM {likewise:0}:events MAXLEN 0");
    let last = nodes.redis.ask::<u64>("HGET {likewise:0}:state seq");
    nodes.node(1).signal("CONT");
    until("the node follows again, after a gap", async || {
        let metrics = nodes.node(1).get("/metrics").await.body;
        let has_gap = |text: &str| text.lines().any(|line| line == "likewise_redis_gaps_total 1");
        metrics.as_str().is_some_and(has_gap)
            && nodes.node(1).get("/readyz?verbose").await.body["redis"]["trusted"] == true
    })
    .await;
    for node in 0..2 {
        assert_eq!(nodes.get(node, PATH, &[]).await.body, "made since");
    }
    assert_eq!(nodes.redis.ask::<u64>("HGET {likewise:0}:state seq"), last);
}
