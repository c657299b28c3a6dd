//! Goal: an answer that a client has called wrong at one node is served in those words by no node, whatever Redis loses meanwhile. Method: feedback to one of two
//! nodes, and a Redis that is emptied.

use serde_json::{Value, json};

use super::two_nodes::TwoNodes;
use crate::program::{Answer, until};

const STORED: &str = "How do I return a pair of shoes?";
const ASKED: &str = "What is the way to return a pair of shoes?";
/// The model of these tests has vectors that mean nothing, and no verifier.
const SETTINGS: [(&str, &str); 2] =
    [("LIKEWISE__ANSWERS__SEMANTIC__SIMILARITY_MIN", "0"), ("LIKEWISE__ANSWERS__SEMANTIC__VERIFIER", "off")];

async fn post(nodes: &TwoNodes, node: usize, path: &str, body: Value) -> Answer {
    nodes.node(node).ask("POST", path, &[], body.to_string()).await
}

/// Why the question is not answered from the stored one.
async fn refusal(nodes: &TwoNodes, node: usize) -> String {
    let given = json!({ "prompt": STORED, "answer": "By post.", "semantic": true });
    assert_eq!(post(nodes, node, "/v1/answers", given).await.status, 201);
    let found =
        post(nodes, node, "/v1/answers/lookup", json!({ "prompt": ASKED, "semantic": true })).await.body;
    if found["hit"] == true { String::new() } else { found["reason"].to_string() }
}

async fn knows_pairs(nodes: &TwoNodes, node: usize, count: u64) {
    until("the node knows the pairs", async || {
        nodes.node(node).stat("/answers/semantic/wrong_pairs").await == count
    })
    .await;
}

#[tokio::test]
async fn what_one_node_learns_is_wrong_is_refused_by_all_and_survives_a_loss_of_redis() {
    let nodes = TwoNodes::start(&SETTINGS).await;
    assert_eq!(refusal(&nodes, 1).await, "");
    let wrong = |stored: &str| json!({ "prompt": ASKED, "question": stored, "correct": false });
    assert_eq!(post(&nodes, 0, "/v1/answers/feedback", wrong(STORED)).await.status, 200);
    knows_pairs(&nodes, 1, 1).await;
    for node in 0..2 {
        assert!(refusal(&nodes, node).await.contains("feedback"));
    }
    // Both write: neither loses what the other has.
    assert_eq!(post(&nodes, 1, "/v1/answers/feedback", wrong("Can shoes be returned?")).await.status, 200);
    assert_eq!(post(&nodes, 0, "/v1/answers/feedback", wrong("Who may return shoes?")).await.status, 200);
    for node in 0..2 {
        knows_pairs(&nodes, node, 3).await;
    }
    nodes.redis.ask::<()>("FLUSHALL");
    until("Redis has the pairs again", async || nodes.redis.ask::<u64>("HLEN {likewise:0}:pairs") == 3).await;
}

#[tokio::test]
async fn a_record_that_no_node_has_sealed_is_not_believed() {
    let sealed =
        ("LIKEWISE_REDIS_MAC_KEY", "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff");
    let nodes = TwoNodes::start(&[SETTINGS[0], SETTINGS[1], sealed]).await;
    let record = json!({ "tenant": "default", "asked": ASKED, "stored": STORED, "is_wrong": true, "at": 1 });
    nodes.redis.ask::<()>(&format!(
        "HSET {{likewise:0}}:pairs {} {}",
        "k".repeat(32),
        record.to_string().replace(' ', "+")
    ));
    // A pair that comes behind it is exchanged: the node has looked at both.
    let wrong = json!({ "prompt": ASKED, "question": "Who may return shoes?", "correct": false });
    assert_eq!(post(&nodes, 0, "/v1/answers/feedback", wrong).await.status, 200);
    knows_pairs(&nodes, 1, 1).await;
    assert_eq!(nodes.redis.ask::<u64>("HLEN {likewise:0}:pairs"), 2);
    assert_eq!(nodes.node(0).stat("/answers/semantic/wrong_pairs").await, 1);
}
