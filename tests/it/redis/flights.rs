//! A question that is asked at several nodes at once is sent to the upstream once; the death of the node that does it hands over.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::two_nodes::TwoNodes;
use crate::program::{Answer, until};
use crate::upstream::Mode;

const CHAT: &str = "/v1/chat/completions";
const MARKER: &str = "/v1/cache/products/marker";

fn question(text: &str) -> String {
    json!({ "model": "gpt-5", "messages": [{ "role": "user", "content": text }] }).to_string()
}

async fn ask(nodes: &TwoNodes, node: usize, text: &str) -> Answer {
    nodes.node(node).ask("POST", CHAT, &[], question(text)).await
}

/// The words of an answer, which name the call that made it.
fn words(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body["choices"][0]["message"]["content"].clone()
}

#[tokio::test]
async fn a_question_at_both_nodes_is_one_call() {
    let nodes = TwoNodes::start(&[]).await;
    let held = nodes.upstream.hold().await;
    let asking = join_all((0..200).map(|n| ask(&nodes, n % 2, "how late is it?")));
    let releasing = async {
        until("the question is sent", async || nodes.upstream.calls() >= 1).await;
        drop(held);
    };
    let (answers, ()) = tokio::join!(asking, releasing);
    assert!(answers.iter().all(|answer| words(answer) == words(&answers[0])));
    assert_eq!(nodes.upstream.calls(), 1);
}

#[tokio::test]
async fn a_node_that_fails_hands_over_and_one_that_is_off_flies_alone() {
    let nodes = TwoNodes::start(&[("LIKEWISE__UPSTREAM__RETRIES_MAX", "0")]).await;
    let held = nodes.upstream.hold().await;
    nodes.upstream.next(Mode::Reply(400, Vec::new(), r#"{"error":{"message":"no"}}"#.into()));
    let asking = async { tokio::join!(ask(&nodes, 0, "one"), ask(&nodes, 1, "one")) };
    let releasing = async {
        until("the question is sent", async || nodes.upstream.calls() >= 1).await;
        drop(held);
    };
    let (answers, ()) = tokio::join!(asking, releasing);
    let mut statuses = [answers.0.status, answers.1.status];
    statuses.sort_unstable();
    assert_eq!((statuses, nodes.upstream.calls()), ([200, 400], 2));

    let off = TwoNodes::start(&[("LIKEWISE__REDIS__SINGLE_FLIGHT", "off")]).await;
    let held = off.upstream.hold().await;
    let asking = async { tokio::join!(ask(&off, 0, "one"), ask(&off, 1, "one")) };
    let releasing = async {
        until("both ask", async || off.upstream.calls() == 2).await;
        drop(held);
    };
    let ((first, second), ()) = tokio::join!(asking, releasing);
    assert_eq!((first.status, second.status), (200, 200));
}

#[tokio::test]
async fn the_death_of_a_node_hands_over() {
    let mut nodes = TwoNodes::start(&[]).await;
    let held = nodes.upstream.hold().await;
    let first = nodes.node(0).client().post(format!("{}{CHAT}", nodes.node(0).url())).body(question("one"));
    let first = tokio::spawn(first.header("content-type", "application/json").send());
    until("the question is sent", async || nodes.upstream.calls() == 1).await;
    nodes.kill(0);
    let second = ask(&nodes, 1, "one");
    let releasing = async {
        until("the other node takes over", async || nodes.upstream.calls() == 2).await;
        drop(held);
    };
    let (answer, ()) = tokio::join!(second, releasing);
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(first.await.unwrap().is_err());
}

/// A node is stopped while it waits for the upstream, for longer than its flight lasts. What it then gets is not stored over the answer
/// of the node that took over.
#[tokio::test]
async fn a_node_that_was_stopped_overwrites_nothing() {
    let nodes = TwoNodes::start(&[]).await;
    let held = nodes.upstream.hold().await;
    let first = ask(&nodes, 0, "one");
    let stopping = async {
        until("the question is sent", async || nodes.upstream.calls() == 1).await;
        nodes.node(0).signal("STOP");
        let second = ask(&nodes, 1, "one");
        let releasing = async {
            until("the other node takes over", async || nodes.upstream.calls() == 2).await;
            drop(held);
        };
        let (second, ()) = tokio::join!(second, releasing);
        nodes.node(0).signal("CONT");
        second
    };
    let (first, second) = tokio::join!(first, stopping);
    assert_ne!(words(&first), words(&second));
    for node in [0, 1] {
        until("the node serves the answer that is stored", async || {
            words(&ask(&nodes, node, "one").await) == words(&second)
        })
        .await;
    }
    assert_eq!(nodes.upstream.calls(), 2);
}

#[tokio::test]
async fn an_answer_that_is_deleted_at_another_node_while_it_is_generated_is_not_stored() {
    for scope in ["answers", "off"] {
        let nodes = TwoNodes::start(&[("LIKEWISE__REDIS__SINGLE_FLIGHT", scope)]).await;
        let id = ask(&nodes, 0, "one").await.header("x-likewise-answer-id").to_owned();
        assert!(!id.is_empty());
        let path = format!("/v1/answers/{id}");
        if scope != "off" {
            assert_eq!(nodes.node(0).ask("DELETE", &path, &[], "").await.status, 204);
        }
        nodes.put(0, MARKER, &[], "before").await;
        assert!(nodes.get(0, MARKER, &[]).await.header("cache-status").ends_with("detail=memory"));
        let held = nodes.upstream.hold().await;
        // Without a flight the other node knows only of an answer that is stored.
        let headers: &[_] = if scope == "off" { &[("cache-control", "no-cache")] } else { &[] };
        let asking = nodes.node(0).ask("POST", CHAT, headers, question("one"));
        let deleting = async {
            until("the question is sent", async || nodes.upstream.calls() == 2).await;
            let deleted = nodes.node(1).ask("DELETE", &path, &[], "").await;
            assert_eq!(deleted.status, 204, "{}", deleted.body);
            // The other node has read the event once its copy of what was changed afterwards is replaced.
            nodes.put(1, MARKER, &[], "after").await;
            until("the other node has read the events", async || {
                nodes.get(0, MARKER, &[]).await.body == "after"
            })
            .await;
            drop(held);
        };
        let (answer, ()) = tokio::join!(asking, deleting);
        assert_eq!(answer.status, 200);
        for node in [0, 1] {
            let headers = [("cache-control", "only-if-cached")];
            let cached = nodes.node(node).ask("POST", CHAT, &headers, question("one")).await;
            assert_eq!(cached.status, 504, "{scope}, node {node}: {}", cached.body);
        }
    }
}

/// As long as Redis is away each node asks for itself, at once.
#[tokio::test]
async fn without_redis_each_node_asks() {
    let mut nodes = TwoNodes::start(&[]).await;
    nodes.redis.kill();
    let begun = std::time::Instant::now();
    let answers = tokio::join!(ask(&nodes, 0, "one"), ask(&nodes, 1, "one"));
    assert_eq!((answers.0.status, answers.1.status, nodes.upstream.calls()), (200, 200, 2));
    assert!(begun.elapsed() < Duration::from_secs(10));
}

async fn embed(nodes: &TwoNodes, node: usize, texts: &[String]) -> Answer {
    let body = json!({ "model": "mock", "input": texts }).to_string();
    nodes.node(node).ask("POST", "/v1/embeddings", &[], body).await
}

/// Each vector names the call that made it.
#[tokio::test]
async fn a_text_at_both_nodes_is_embedded_once() {
    let mut nodes = TwoNodes::start(&[("LIKEWISE__REDIS__SINGLE_FLIGHT", "all")]).await;
    let texts: Vec<String> = (0..50).map(|n| format!("text {n}")).collect();
    let held = nodes.endpoint.hold().await;
    // Each node has claimed some when it asks for the others.
    let embedding = async {
        tokio::join!(embed(&nodes, 0, &texts[..40]), embed(&nodes, 1, &texts[10..]), async {
            until("texts are sent", async || nodes.endpoint.texts() > 0).await;
            drop(held);
        })
    };
    let (first, second, ()) = embedding.await;
    assert_eq!((first.status, second.status), (200, 200));
    assert_eq!(first.vectors()[10..], second.vectors()[..30]);
    assert_eq!(nodes.endpoint.texts(), 50);

    // The death of a node hands over.
    let held = nodes.endpoint.hold().await;
    let sent = nodes.endpoint.texts();
    let lost = nodes.node(0).client().post(format!("{}/v1/embeddings", nodes.node(0).url()));
    let lost = lost.json(&json!({ "model": "mock", "input": ["of a node that dies"] })).send();
    let lost = tokio::spawn(lost);
    until("the text is sent", async || nodes.endpoint.texts() == sent + 1).await;
    nodes.kill(0);
    let text = ["of a node that dies".to_owned()];
    let (answer, ()) = tokio::join!(embed(&nodes, 1, &text), async {
        until("the other node takes over", async || nodes.endpoint.texts() == sent + 2).await;
        drop(held);
    });
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(lost.await.unwrap().is_err());

    nodes.redis.kill();
    assert_eq!(embed(&nodes, 1, &["alone".into()]).await.status, 200);
}
