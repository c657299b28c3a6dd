//! Goal: requests for embedding models of an upstream that only it understands are forwarded to it. Method: the program before an upstream that records its
//! requests.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::program::{Answer, Server, likewise};
use crate::upstream::{Mode, Upstream};

const VECTORS: &str =
    r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[1,2]}],"model":"other"}"#;

async fn start() -> (TempDir, Upstream, Server) {
    let (dir, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    upstream.usually(Mode::Reply(200, vec![("content-type", "application/json")], VECTORS.to_owned()));
    let mut program = likewise("serve", dir.path());
    program.arg("--upstream").arg(&upstream.url).env("OPENAI_API_KEY", "sk-ours");
    (dir, upstream, Server::spawn(&mut program))
}

async fn ask(server: &Server, body: &Value) -> Answer {
    server.ask("POST", "/v1/embeddings", &[("authorization", "Bearer sk-theirs")], body.to_string()).await
}

#[tokio::test]
async fn a_request_with_fields_that_are_not_known_here_is_forwarded_and_not_cached() {
    let (_dir, upstream, server) = start().await;
    let body = json!({ "model": "other", "input": ["a"], "dimensions": 2, "their_own": null });
    for calls in 1..=2 {
        let answer = ask(&server, &body).await;
        assert_eq!((answer.status, answer.body.to_string()), (200, VECTORS_SORTED.to_owned()));
        assert_eq!(answer.header("cache-status"), "likewise; fwd=bypass");
        assert_eq!(upstream.calls(), calls);
    }
    let seen = upstream.seen().remove(0);
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/v1/embeddings"));
    assert_eq!(seen.header("authorization"), Some("Bearer sk-ours"));
    assert_eq!(serde_json::from_str::<Value>(&seen.body).unwrap(), body);
    // Ours is served here.
    assert_eq!(server.embed(&["a"]).await.status, 200);
    assert_eq!(upstream.calls(), 2);
}

#[tokio::test]
async fn another_model_may_take_other_shapes_and_its_refusal_is_passed_on() {
    let (_dir, upstream, server) = start().await;
    let images = json!({ "model": "other", "input": [{ "image": "data:," }], "encoding_format": "int8" });
    assert_eq!(ask(&server, &images).await.status, 200);
    assert_eq!(serde_json::from_str::<Value>(&upstream.seen().remove(0).body).unwrap(), images);
    upstream.next(Mode::Reply(404, vec![], r#"{"error":{"message":"no such model"}}"#.to_owned()));
    assert_eq!(ask(&server, &json!({ "model": "none", "input": "a" })).await.status, 404);
    // An input that is invalid for a local model is refused here.
    let images = json!({ "model": "fake-model", "input": [{ "image": "data:," }] });
    let answer = ask(&server, &images).await;
    assert_eq!((answer.status, answer.error()), (400, ("invalid_input", Some("input[0]"))));
    let nameless = json!({ "input": "a" });
    assert_eq!(ask(&server, &nameless).await.error(), ("invalid_input", Some("model")));
    assert_eq!(upstream.calls(), 2);
}

#[tokio::test]
async fn what_is_said_to_the_cache_stays_here() {
    let (_dir, upstream, server) = start().await;
    let body = json!({ "model": "other", "input": "a", "cache": { "no-store": true } });
    assert_eq!(ask(&server, &body).await.status, 200);
    let sent: Value = serde_json::from_str(&upstream.seen().remove(0).body).unwrap();
    assert_eq!(sent, json!({ "model": "other", "input": ["a"] }));
    let body = json!({ "model": "other", "input": "a", "cache": { "only-if-cached": true } });
    assert_eq!(ask(&server, &body).await.error().0, "not_cached");
    let long = json!({ "model": "m".repeat(257), "input": "a" });
    let answer = ask(&server, &long).await;
    assert_eq!((answer.status, answer.error()), (400, ("invalid_input", Some("model"))));
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn a_long_wait_that_an_upstream_names_is_for_its_one_client() {
    let (_dir, upstream, server) = start().await;
    for wait in ["1000000000", "Fri, 31 Dec 9999 23:59:59 GMT", "-1", "1e300"] {
        upstream.next(Mode::Reply(429, vec![("retry-after", wait)], "{}".to_owned()));
        let ask = async |text: &str| {
            ask(&server, &json!({ "model": "other", "input": format!("{text} {wait}") })).await
        };
        let answer = ask("a").await;
        // A day at most. It may be tried again at once where nothing that can be read is asked.
        let is_passed_on = answer.status == 429 && answer.header("retry-after") == "86400";
        assert!(is_passed_on || answer.status == 200, "{wait}: {} {}", answer.status, answer.body);
        assert_eq!(ask("b").await.status, 200, "the next is asked at once");
    }
}

/// Members in the order in which the tests' JSON writes them.
const VECTORS_SORTED: &str =
    r#"{"data":[{"embedding":[1,2],"index":0,"object":"embedding"}],"model":"other","object":"list"}"#;
