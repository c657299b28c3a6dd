//! Goal: an invalidated or removed answer is served to no later request. Method: invalidations between, and during, requests.

use serde_json::{Value, json};

use super::{CHAT, ask, is_hit, question, quiet, start, status, with};
use crate::program::until;

#[tokio::test]
async fn an_invalidated_tag_hides_its_answers() {
    let (_dir, upstream, server) = start(&[]).await;
    let body = with(question("price?"), json!({ "cache": { "tags": ["product:42"] } }));
    let invalidate = async |what: Value| {
        assert_eq!(server.ask("POST", "/v1/invalidate", &[], what.to_string()).await.status, 200);
    };
    assert!(!is_hit(&ask(&server, &body).await));
    assert!(is_hit(&ask(&server, &body).await));
    invalidate(json!({ "tags": ["product:42"] })).await;
    let second = ask(&server, &body).await;
    assert!(!is_hit(&second), "what was invalidated is not served");
    // Who says that the answer depends on more gets one that does.
    let more = server.ask("POST", CHAT, &[("x-cache-tags", "brand:7")], question("price?").to_string()).await;
    assert!(!is_hit(&more));
    assert!(is_hit(&ask(&server, &body).await), "what it depended on before is carried on");
    invalidate(json!({ "tags": ["brand:7"] })).await;
    assert!(!is_hit(&ask(&server, &body).await));
    // Softly: served once more while it is generated again.
    let calls = upstream.calls();
    invalidate(json!({ "tags": ["product:42"], "mode": "soft" })).await;
    let stale = ask(&server, &body).await;
    assert!(is_hit(&stale) && stale.header("cache-status").ends_with("-stale"), "{}", status(&stale));
    until("it is generated again", async || upstream.calls() > calls).await;
    quiet(&server).await;
    let fresh = ask(&server, &body).await;
    assert!(is_hit(&fresh) && !fresh.header("cache-status").ends_with("-stale"));
    assert_ne!(fresh.body["choices"], stale.body["choices"]);
    assert_eq!(upstream.calls(), calls + 1, "one request refreshes it");
    // What is invalidated while it is made is not kept.
    let other = with(question("stock?"), json!({ "cache": { "tags": ["product:42"] } }));
    let held = upstream.hold().await;
    let calls = upstream.calls();
    let during = async {
        until("it is being made", async || upstream.calls() > calls).await;
        invalidate(json!({ "entity": { "type": "product", "id": 42 } })).await;
        drop(held);
    };
    let (first, ()) = futures_util::future::join(ask(&server, &other), during).await;
    assert!(
        !is_hit(&first) && !is_hit(&ask(&server, &other).await),
        "what was asked before an invalidation was kept"
    );
    invalidate(json!({ "namespace": "llm_responses" })).await;
    assert!(!is_hit(&ask(&server, &body).await));
}

#[tokio::test]
async fn a_request_after_an_invalidation_gets_no_answer_from_before_it() {
    let (_dir, upstream, server) = start(&[]).await;
    let body = with(question("price?"), json!({ "cache": { "tags": ["product:42"] } }));
    for streams in [false, true] {
        let body = with(body.clone(), json!({ "stream": streams, "seed": u8::from(streams) }));
        let (held, calls) = (upstream.hold().await, upstream.calls());
        let after = async {
            until("it is being made", async || upstream.calls() > calls).await;
            let tags = json!({ "tags": ["product:42"] }).to_string();
            assert_eq!(server.ask("POST", "/v1/invalidate", &[], tags).await.status, 200);
            let let_go = async {
                until("it is generated again", async || upstream.calls() > calls + 1).await;
                drop(held);
            };
            futures_util::future::join(ask(&server, &body), let_go).await.0
        };
        let (before, after) = futures_util::future::join(ask(&server, &body), after).await;
        assert_ne!(before.body, after.body);
        assert_eq!(status(&after), "fwd=miss");
        assert!(is_hit(&ask(&server, &body).await), "the second is kept");
    }
}

#[tokio::test]
async fn an_answer_can_be_removed_by_its_id() {
    let (_dir, _upstream, server) = start(&[]).await;
    let (miss, hit) = (ask(&server, &question("wrong?")).await, ask(&server, &question("wrong?")).await);
    let name = miss.header("x-likewise-answer-id");
    assert_eq!(hit.header("x-likewise-answer-id"), name, "it is shown from the first time on");
    let path = format!("/v1/answers/{name}");
    assert_eq!(server.ask("DELETE", &path, &[], "").await.status, 204);
    assert!(!is_hit(&ask(&server, &question("wrong?")).await));
    let bad = server.ask("DELETE", "/v1/answers/x", &[], "").await;
    assert_eq!((bad.status, bad.error().1), (400, Some("id")));
}

/// A request that refreshes an answer need not repeat its tags.
#[tokio::test]
async fn a_replacement_inherits_the_tags_of_its_answer() {
    let (_dir, upstream, server) = start(&[]).await;
    let body = question("how much is it?");
    let tagged = with(body.clone(), json!({ "cache": { "tags": ["product:42"] } }));
    let refresh = with(body.clone(), json!({ "cache": { "no-cache": true } }));
    let invalidate = async || {
        let answer = server.ask("POST", "/v1/invalidate", &[], r#"{"tags":["product:42"]}"#).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    };
    assert!(!is_hit(&ask(&server, &tagged).await));
    // It is being generated again while what it depends on changes.
    let held = upstream.hold().await;
    let change = async {
        until("it is requested again", async || upstream.calls() == 2).await;
        invalidate().await;
        drop(held);
    };
    let (old, ()) = futures_util::future::join(ask(&server, &refresh), change).await;
    assert_eq!(status(&old), "fwd=request");
    quiet(&server).await;
    assert!(!is_hit(&ask(&server, &body).await), "it was made before the change");
    assert!(!is_hit(&ask(&server, &tagged).await));
    // Generated again without a change, it is found, and hidden by the next change.
    assert!(!is_hit(&ask(&server, &refresh).await));
    assert!(is_hit(&ask(&server, &body).await));
    invalidate().await;
    assert!(!is_hit(&ask(&server, &body).await));
}
