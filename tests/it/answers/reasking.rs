//! Goal: an operator learns how often an answer in other words differs from the one that the question itself would have got, at a price that
//! is counted. Method: servers that ask again for each hit or for some. That answers to two questions
//! differ is seen with a real model (`tests/real_model/reasking.rs`).

use serde_json::{Value, json};

use super::semantic::{ASKED, NEAR, REWORDED, RULES_ALONE, semantic};
use super::{ask, is_hit, start, status, with};
use crate::program::{Server, until};
use crate::upstream::Mode;

fn share(share: &'static str) -> (&'static str, &'static str) {
    ("LIKEWISE__ANSWERS__SEMANTIC__REASK_SHARE", share)
}

/// Waits until so many hits were compared.
async fn compared(server: &Server, count: u64) {
    until("the answers are compared", async || server.stat("/answers/semantic/reasked").await == count).await;
}

/// Whether the metrics have this line.
async fn counts(server: &Server, line: &str) -> bool {
    server
        .get("/metrics")
        .await
        .body
        .as_str()
        .is_some_and(|metrics| metrics.lines().any(|known| known == line))
}

#[tokio::test]
async fn a_hit_is_asked_again_and_its_question_has_its_own_answer_then() {
    let (_dir, upstream, server) = start(&[NEAR, RULES_ALONE, share("1")]).await;
    ask(&server, &semantic(ASKED)).await;
    let spent = server.stat("/answers/spent_tokens").await;
    let hit = ask(&server, &semantic(REWORDED)).await;
    assert!(status(&hit).ends_with("detail=memory-semantic"), "{}", status(&hit));
    compared(&server, 1).await;
    assert_eq!(upstream.calls(), 2);
    assert_eq!(server.stat("/answers/spent_tokens").await, spent + 30, "its price is counted");
    let own = ask(&server, &semantic(REWORDED)).await;
    assert!(is_hit(&own) && status(&own).ends_with("detail=memory"), "its own answer: {}", status(&own));
    assert_ne!(own.body["choices"], hit.body["choices"]);
    assert_eq!(upstream.calls(), 2);
}

#[tokio::test]
async fn answers_that_agree_are_counted_as_such_and_failures_are_not() {
    let (_dir, upstream, server) = start(&[NEAR, RULES_ALONE, share("1")]).await;
    let body = json!({ "id": "c", "object": "chat.completion", "created": 1, "model": "gpt-5", "choices": [
        { "index": 0, "finish_reason": "stop", "message": { "role": "assistant", "content": "By  post." } },
    ] });
    upstream.usually(Mode::Reply(200, vec![("content-type", "application/json")], body.to_string()));
    ask(&server, &semantic(ASKED)).await;
    assert!(is_hit(&ask(&server, &semantic(REWORDED)).await));
    compared(&server, 1).await;
    assert_eq!(server.stat("/answers/semantic/reasked_differing").await, 0);

    let seeded = |text: &str| with(semantic(text), json!({ "seed": 2 }));
    ask(&server, &seeded(ASKED)).await;
    upstream.usually(Mode::Reply(500, Vec::new(), String::new()));
    assert!(is_hit(&ask(&server, &seeded(REWORDED)).await), "the hit does not depend on it");
    let failed = "likewise_answers_reasked_total{result=\"failed\"} 1";
    until("the failure is counted", async || counts(&server, failed).await).await;
    assert_eq!(server.stat("/answers/semantic/reasked").await, 1);
}

#[tokio::test]
async fn a_share_of_the_hits_is_asked_again_and_none_that_must_not_be_stored() {
    let (_dir, upstream, server) = start(&[NEAR, RULES_ALONE, share("0.25")]).await;
    let of_scope =
        |text: &str, scope: u32, more: Value| with(with(semantic(text), json!({ "seed": scope })), more);
    for scope in 0..8 {
        ask(&server, &of_scope(ASKED, scope, json!({}))).await;
        assert!(is_hit(&ask(&server, &of_scope(REWORDED, scope, json!({}))).await));
    }
    compared(&server, 2).await;
    assert_eq!(upstream.calls(), 8 + 2);
    let unstored = json!({ "cache": { "semantic": true, "no-store": true } });
    for scope in 8..16 {
        ask(&server, &of_scope(ASKED, scope, json!({}))).await;
        assert!(is_hit(&ask(&server, &of_scope(REWORDED, scope, unstored.clone())).await));
    }
    assert_eq!((server.stat("/answers/semantic/reasked").await, upstream.calls()), (2, 18));
}
