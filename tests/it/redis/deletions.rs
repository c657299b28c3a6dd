//! A response that a client has deleted at its upstream through one node is served by no other.

use serde_json::json;

use super::two_nodes::TwoNodes;
use crate::program::{Answer, until};
use crate::upstream::Mode;

const PATH: &str = "/v1/responses";

async fn ask(nodes: &TwoNodes, node: usize) -> Answer {
    let body = json!({ "model": "gpt-5", "input": "one", "cache": { "only-if-cached": node == 1 } });
    nodes.node(node).ask("POST", PATH, &[], body.to_string()).await
}

#[tokio::test]
async fn a_deletion_through_one_node_reaches_the_other() {
    let nodes = TwoNodes::start(&[]).await;
    let id = ask(&nodes, 0).await.body["id"].as_str().expect("an id").to_owned();
    until("the other node serves it", async || ask(&nodes, 1).await.status == 200).await;
    nodes.upstream.next(Mode::Reply(200, vec![("content-type", "application/json")], "{}".to_owned()));
    let deleted = nodes.node(0).ask("DELETE", &format!("{PATH}/{id}"), &[], "").await;
    assert_eq!(deleted.status, 200);
    until("the other node serves it no more", async || ask(&nodes, 1).await.status == 504).await;
}
