//! Goal: a key of the client's own replaces what it asks, and nothing that separates it from others. Method: pairs of requests before an
//! upstream that counts its calls.

use serde_json::{Value, json};

use super::semantic::{ASKED, NEAR, REWORDED, RULES_ALONE, semantic};
use super::{CHAT, is_hit, question, start, status, with};
use crate::program::{Answer, Server};

const KEY: (&str, &str) = ("x-cache-key", "returns/v7");

async fn ask_at(server: &Server, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    server.ask("POST", path, headers, body.to_string()).await
}

#[tokio::test]
async fn requests_with_one_key_share_an_answer_whatever_they_ask() {
    for (path, one, other) in [
        (CHAT, question("what is it?"), with(question("and now?"), json!({ "seed": 7, "tools": [] }))),
        (
            "/v1/completions",
            json!({ "model": "gpt-5", "prompt": "a" }),
            json!({ "model": "gpt-5", "prompt": "b" }),
        ),
        (
            "/v1/responses",
            json!({ "model": "gpt-5", "input": "a" }),
            json!({ "model": "gpt-5", "input": "b", "instructions": "be brief" }),
        ),
        (
            "/v1/messages",
            with(question("a"), json!({ "max_tokens": 9 })),
            with(question("b"), json!({ "max_tokens": 10 })),
        ),
    ] {
        let (_dir, upstream, server) = start(&[]).await;
        let first = ask_at(&server, path, &[KEY], &one).await;
        assert_eq!((first.status, status(&first)), (200, "fwd=miss"), "{path}: {}", first.body);
        let second = ask_at(&server, path, &[KEY], &other).await;
        assert!(is_hit(&second), "{path}: {}", status(&second));
        assert_eq!(second.header("x-likewise-answer-id"), first.header("x-likewise-answer-id"));
        assert!(is_hit(&ask_at(&server, path, &[("cf-aig-cache-key", KEY.1)], &other).await), "{path}");
        let streamed = with(other.clone(), json!({ "stream": true }));
        assert_eq!(ask_at(&server, path, &[KEY], &streamed).await.status, 200);
        assert_eq!(upstream.calls(), 1, "{path}");
        assert!(!is_hit(&ask_at(&server, path, &[], &one).await), "{path}: without the key");
        assert!(!is_hit(&ask_at(&server, path, &[("x-cache-key", "v8")], &one).await), "{path}");
    }
}

#[tokio::test]
async fn a_key_is_one_of_its_partition_and_model_only() {
    let (_dir, upstream, server) = start(&[("LIKEWISE__UPSTREAM__FORWARDED_HEADERS", "x-team")]).await;
    let body = question("what is it?");
    assert!(!is_hit(&ask_at(&server, CHAT, &[KEY], &body).await));
    let in_namespace = with(body.clone(), json!({ "cache": { "namespace": "drafts" } }));
    let of_model = with(body.clone(), json!({ "model": "gpt-5-mini" }));
    let completion = json!({ "model": "gpt-5", "prompt": "a" });
    for (path, headers, body) in [
        (CHAT, &[KEY][..], &of_model),
        (CHAT, &[KEY], &in_namespace),
        (CHAT, &[KEY, ("authorization", "Bearer another")], &body),
        (CHAT, &[KEY, ("x-team", "a")], &body),
        ("/v1/chat/completions?api-version=2", &[KEY], &body),
        ("/v1/completions", &[KEY], &completion),
    ] {
        assert!(!is_hit(&ask_at(&server, path, headers, body).await), "{path} {headers:?}");
        assert!(is_hit(&ask_at(&server, path, headers, body).await), "{path} {headers:?}");
    }
    assert!(is_hit(&ask_at(&server, CHAT, &[KEY], &body).await));
    assert_eq!(upstream.calls(), 7);
    assert!(upstream.seen().iter().all(|seen| seen.header("x-cache-key").is_none()), "it stays here");
}

#[tokio::test]
async fn a_key_that_is_none_is_refused_by_its_header() {
    let (_dir, upstream, server) = start(&[]).await;
    let long = "k".repeat(257);
    for name in ["x-cache-key", "cf-aig-cache-key"] {
        for bad in ["", "a b", "a\tb", "añb", &long] {
            let refused = ask_at(&server, CHAT, &[(name, bad)], &question("a")).await;
            assert_eq!((refused.status, refused.error()), (400, ("invalid_input", Some(name))), "{bad:?}");
        }
    }
    let two = ask_at(&server, CHAT, &[KEY, ("cf-aig-cache-key", "another")], &question("a")).await;
    assert_eq!((two.status, two.error().1), (400, Some("cf-aig-cache-key")));
    assert_eq!(upstream.calls(), 0);
    let longest = ask_at(&server, CHAT, &[("x-cache-key", &long[1..])], &question("a")).await;
    assert_eq!(longest.status, 200, "{}", longest.body);
}

#[tokio::test]
async fn an_application_stores_and_finds_its_own_answers_by_a_key() {
    let (_dir, _upstream, server) = start(&[]).await;
    let given = json!({ "prompt": "How long?", "answer": "30 days", "scope": "shop" });
    assert_eq!(ask_at(&server, "/v1/answers", &[KEY], &given).await.status, 201);
    let lookup = json!({ "prompt": "When?", "scope": "elsewhere" });
    let found = ask_at(&server, "/v1/answers/lookup", &[KEY], &lookup).await;
    assert_eq!((&found.body["answer"], &found.body["layer"]), (&json!("30 days"), &json!("exact")));
    let same = json!({ "prompt": "How long?", "scope": "shop" });
    let unkeyed = ask_at(&server, "/v1/answers/lookup", &[], &same).await;
    assert_eq!(unkeyed.body["hit"], false, "{}", unkeyed.body);
}

#[tokio::test]
async fn nothing_is_found_in_other_words_by_a_key() {
    let (_dir, upstream, server) = start(&[NEAR, RULES_ALONE]).await;
    let first = ask_at(&server, CHAT, &[KEY], &semantic(ASKED)).await;
    assert_eq!(first.header("x-likewise-semantic"), "exact_only; because=request");
    for (headers, text) in [(&[][..], REWORDED), (&[("x-cache-key", "v8")], REWORDED)] {
        assert!(!is_hit(&ask_at(&server, CHAT, headers, &semantic(text)).await), "{headers:?}");
    }
    assert_eq!(upstream.calls(), 3);
    let explained = json!({ "prompt": REWORDED });
    let explained = ask_at(&server, "/v1/answers/explain", &[KEY], &explained).await;
    assert_eq!(explained.body["not_searched_because"], "request", "{}", explained.body);
}
