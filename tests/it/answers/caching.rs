//! Goal: an equal request of the same client is answered from the cache for as long as the answer is valid. Method: the program before an
//! upstream that counts its calls.

use serde_json::{Value, json};

use super::{CHAT, accumulated, ask, is_hit, normalized, question, quiet, start, start_in, status, with};
use crate::program::{Server, until};
use crate::upstream::Mode;

#[tokio::test]
async fn an_equal_request_is_a_hit() {
    let (_dir, upstream, server) = start(&[]).await;
    let first = ask(&server, &question("what is it?")).await;
    assert_eq!((first.status, status(&first)), (200, "fwd=miss"));
    assert_eq!(first.body["id"], "chatcmpl-1", "a miss is what the model gave");
    assert_eq!(first.header("x-upstream-request-id"), "theirs");
    let second = ask(&server, &question("what is it?")).await;
    assert!(status(&second).starts_with("hit; ttl=1"), "{}", status(&second));
    assert!(second.header("cache-status").ends_with("; detail=memory"));
    assert!(second.header("age").parse::<u32>().is_ok());
    assert!(second.header("server-timing").starts_with("lookup;dur="));
    assert_eq!(second.header("x-likewise-tokens-saved"), "30");
    assert_ne!(second.body["id"], first.body["id"], "a replay is another delivery");
    assert_eq!(normalized(second.body), normalized(first.body));
    assert_eq!(upstream.calls(), 1);
    let counts = [server.stat("/answers/hits").await, server.stat("/answers/misses").await];
    assert_eq!(counts, [1, 1]);
    assert_eq!(server.stat("/answers/saved_tokens").await, 30);
    assert_eq!(server.stat("/answers/spent_tokens").await, 30);
}

#[tokio::test]
async fn an_answer_is_replayed_in_either_form() {
    let (_dir, upstream, server) = start(&[("LIKEWISE__ANSWERS__CACHE_TOOL_CALLS", "true")]).await;
    let tools = json!([{ "type": "function", "function": { "name": "weather" } }]);
    let questions = [
        question("tell me"),
        with(question("tell me"), json!({ "n": 3 })),
        with(question("tell me"), json!({ "logprobs": true, "n": 2 })),
        with(question("call a tool"), json!({ "tools": tools })),
        question("refuse"),
    ];
    let streamed = |body: &Value| {
        with(body.clone(), json!({ "stream": true, "stream_options": { "include_usage": true } }))
    };
    for (place, body) in questions.iter().enumerate() {
        let one = with(body.clone(), json!({ "seed": 1 }));
        let miss = ask(&server, &one).await;
        assert!(!is_hit(&miss));
        let (hit, as_stream) = (ask(&server, &one).await, ask(&server, &streamed(&one)).await);
        assert!(is_hit(&hit) && is_hit(&as_stream), "{place}");
        assert_eq!(normalized(hit.body), normalized(miss.body.clone()), "{place}");
        assert_eq!(normalized(accumulated(&as_stream)), normalized(miss.body), "{place}");

        let two = with(body.clone(), json!({ "seed": 2 }));
        let miss = ask(&server, &streamed(&two)).await;
        assert!(!is_hit(&miss));
        let (hit, as_json) = (ask(&server, &streamed(&two)).await, ask(&server, &two).await);
        assert!(is_hit(&hit) && is_hit(&as_json), "{place}");
        assert_eq!(normalized(accumulated(&hit)), normalized(accumulated(&miss)), "{place}");
        assert_eq!(normalized(as_json.body), normalized(accumulated(&miss)), "{place}");
        let chunks = hit.body.as_str().unwrap().matches("data: ").count();
        assert!(chunks > 3, "{chunks} chunks: one giant one is no stream");
    }
    assert_eq!(upstream.calls(), 2 * questions.len());
}

#[tokio::test]
async fn usage_of_a_stream_reaches_only_clients_that_request_it() {
    let (_dir, upstream, server) = start(&[]).await;
    let body = with(question("how much?"), json!({ "stream": true }));
    let miss = ask(&server, &body).await;
    assert!(upstream.seen()[0].body.contains("include_usage"), "the model is asked");
    // Nor does it show that another client requested it.
    assert!(!miss.body.as_str().unwrap().contains("\"usage\""), "{}", miss.body);
    assert!(accumulated(&ask(&server, &body).await).get("usage").is_none());
    let asked = with(body, json!({ "stream_options": { "include_usage": true } }));
    assert_eq!(accumulated(&ask(&server, &asked).await)["usage"]["total_tokens"], 30);
    let whole = ask(&server, &question("how much?")).await;
    assert!(is_hit(&whole));
    assert_eq!(whole.body["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    assert_eq!(upstream.calls(), 1);
}

/// A model that never tells what it used is asked once all the same.
#[tokio::test]
async fn an_answer_without_usage_is_replayed_in_either_form() {
    let (_dir, upstream, server) = start(&[]).await;
    let message = json!({ "role": "assistant", "content": "brief" });
    let whole = json!({ "id": "a", "object": "chat.completion", "created": 1, "model": "gpt-5",
        "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }] });
    upstream.usually(Mode::Reply(200, vec![("content-type", "application/json")], whole.to_string()));
    let body = question("how are you?");
    assert!(!is_hit(&ask(&server, &body).await));
    let hit = ask(&server, &body).await;
    assert!(is_hit(&hit));
    assert_eq!(normalized(hit.body), normalized(whole));
    let streamed = with(body, json!({ "stream": true, "stream_options": { "include_usage": true } }));
    assert_eq!(accumulated(&ask(&server, &streamed).await)["choices"][0]["message"]["content"], "brief");
    assert_eq!(upstream.calls(), 1);
}

/// Some upstreams choose the version of their interface by it.
#[tokio::test]
async fn the_query_string_is_part_of_the_identity() {
    let (_dir, upstream, server) = start(&[]).await;
    let ask = async |version: u64| {
        let path = format!("{CHAT}?api-version={version}");
        server.ask("POST", &path, &[], question("x").to_string()).await
    };
    assert!(!is_hit(&ask(1).await) && !is_hit(&ask(2).await) && is_hit(&ask(2).await));
    assert_eq!(upstream.seen()[1].path, "/v1/chat/completions?api-version=2");
}

#[tokio::test]
async fn a_request_that_differs_is_a_miss() {
    let (_dir, upstream, server) = start(&[]).await;
    let base = question("which one is it?");
    let others = [
        json!({ "model": "gpt-6" }),
        json!({ "messages": [{ "role": "user", "content": "which one is it?" }] }),
        json!({ "messages": [{ "role": "system", "content": "be cruel" }, { "role": "user", "content": "which one is it?" }] }),
        json!({ "temperature": 0.5 }),
        json!({ "tools": [{ "type": "function", "function": { "name": "f" } }] }),
        json!({ "response_format": { "type": "json_object" } }),
        json!({ "user": "bob" }),
        json!({ "x_unheard_of": { "deep": [1, 2] } }),
        json!({ "cache": { "namespace": "other" } }),
    ];
    assert!(!is_hit(&ask(&server, &base).await));
    for other in &others {
        assert!(!is_hit(&ask(&server, &with(base.clone(), other.clone())).await), "{other}");
    }
    assert_eq!(upstream.calls(), others.len() + 1);
    let project = server.ask("POST", CHAT, &[("openai-project", "p")], base.to_string()).await;
    assert!(!is_hit(&project), "a header that is passed on is part of what is asked");
    assert_eq!(upstream.seen().last().unwrap().header("openai-project"), Some("p"));
    let respelled = r#"{ "messages" : [ {"content":"be kind","role":"system"}, {"content":"which one is it?", "role":"\u0075ser"} ],
        "stream": false, "model":"gpt-5" }"#;
    assert!(
        is_hit(&server.ask("POST", CHAT, &[], respelled).await),
        "the order of what is read by name, and spelling, do not matter"
    );
    let spaced = ask(&server, &question(" which one is it?\n")).await;
    assert!(is_hit(&spaced) && spaced.header("cache-status").ends_with("detail=memory-normalized"));
    assert!(!is_hit(&ask(&server, &question("which ones is it?")).await));
}

#[tokio::test]
async fn a_list_of_parts_is_a_question() {
    let (_dir, upstream, server) = start(&[]).await;
    let parts = |url: &str| {
        let content = json!([{ "type": "text", "text": "what is this?" }, { "type": "image_url", "image_url": { "url": url } }]);
        json!({ "model": "gpt-5", "messages": [{ "role": "user", "content": content }] })
    };
    assert!(!is_hit(&ask(&server, &parts("data:1")).await));
    assert!(is_hit(&ask(&server, &parts("data:1")).await));
    assert!(!is_hit(&ask(&server, &parts("data:2")).await), "another picture");
    assert_eq!(upstream.calls(), 2);
}

#[tokio::test]
async fn credentials_share_nothing_unless_configured() {
    let bearer = |key: &str| format!("Bearer {key}");
    let ask_as = async |server: &Server, key: &str| {
        server.ask("POST", CHAT, &[("authorization", &bearer(key))], question("mine").to_string()).await
    };
    let (_dir, upstream, server) = start(&[("LIKEWISE__UPSTREAM__FORWARD_CLIENT_KEY", "true")]).await;
    assert!(!is_hit(&ask_as(&server, "alice").await));
    assert!(!is_hit(&ask_as(&server, "bob").await), "bob got alice's answer");
    assert!(is_hit(&ask_as(&server, "alice").await));
    assert_eq!(upstream.seen()[1].header("authorization"), Some("Bearer bob"));

    let keys = ("LIKEWISE__HTTP__API_KEYS", "secret-one,secret-two");
    let (_dir, upstream, server) = start(&[keys]).await;
    assert!(!is_hit(&ask_as(&server, "secret-one").await));
    assert!(!is_hit(&ask_as(&server, "secret-two").await));
    assert_eq!(ask_as(&server, "other").await.status, 401);
    assert!(upstream.seen().iter().all(|seen| seen.header("authorization") == Some("Bearer sk-ours")));

    let (_dir, _upstream, server) = start(&[keys, ("LIKEWISE__ANSWERS__SHARE_ACROSS_KEYS", "true")]).await;
    assert!(!is_hit(&ask_as(&server, "secret-one").await));
    assert!(is_hit(&ask_as(&server, "secret-two").await));
}

#[tokio::test]
async fn unknown_members_are_forwarded_unchanged() {
    let (_dir, upstream, server) = start(&[]).await;
    let body = r#"{"messages":[{"role":"user","content":"h\u00e9"}], "x":[ 1.50, 1e2 ],"model":"m"}"#;
    server.ask("POST", CHAT, &[("traceparent", "00-1-2-03"), ("cookie", "c")], body).await;
    let seen = upstream.seen().remove(0);
    assert_eq!(seen.body, body);
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", CHAT));
    assert_eq!((seen.header("traceparent"), seen.header("cookie")), (Some("00-1-2-03"), None));
    let with_cache =
        r#"{"messages":[{"role":"user","content":"h"}], "cache":{"ttl":5}, "x":[ 1.50 ],"model":"m"}"#;
    server.ask("POST", CHAT, &[], with_cache).await;
    assert_eq!(
        upstream.seen()[1].body,
        r#"{"messages":[{"role":"user","content":"h"}], "x":[ 1.50 ],"model":"m"}"#
    );
}

#[tokio::test]
async fn high_temperatures_and_tools_bypass_the_cache_unless_configured() {
    let (_dir, upstream, server) = start(&[]).await;
    let warm = with(question("surprise me"), json!({ "temperature": 1.2 }));
    for _ in 0..2 {
        let answer = ask(&server, &warm).await;
        assert_eq!((status(&answer), answer.header("x-likewise-reason")), ("fwd=bypass", "temperature"));
    }
    let kept_only = ask(&server, &with(warm.clone(), json!({ "cache": { "only-if-cached": true } }))).await;
    assert_eq!((kept_only.status, upstream.calls()), (504, 2));
    // What it cost is counted all the same, as a stream too, and shown only to clients that request it.
    let spent = server.stat("/answers/spent_tokens").await;
    let streamed = ask(&server, &with(warm.clone(), json!({ "stream": true }))).await;
    assert!(accumulated(&streamed).get("usage").is_none());
    assert_eq!(server.stat("/answers/spent_tokens").await, spent + 30);
    assert!(!is_hit(&ask(&server, &with(question("surprise me"), json!({ "temperature": 1.0 }))).await));
    assert!(is_hit(&ask(&server, &with(question("surprise me"), json!({ "temperature": 1 }))).await));
    let tools = json!({ "tools": [{ "type": "function", "function": { "name": "weather" } }] });
    for _ in 0..2 {
        assert!(
            !is_hit(&ask(&server, &with(question("call a tool"), tools.clone())).await),
            "a tool's call was kept"
        );
    }
    let calls = upstream.calls();
    let held = upstream.hold().await;
    let body = with(question("with tools"), tools.clone());
    let both = futures_util::future::join(ask(&server, &body), ask(&server, &body));
    let let_go = async {
        until("both have called", async || upstream.calls() == calls + 2).await;
        drop(held);
    };
    let ((one, two), ()) = futures_util::future::join(both, let_go).await;
    assert_ne!(one.body["id"], two.body["id"], "requests with tools are not joined");
    assert!(is_hit(&ask(&server, &body).await), "an answer in words is kept, with or without tools");

    let (_dir, upstream, server) = start(&[
        ("LIKEWISE__ANSWERS__CACHE_TOOL_CALLS", "true"),
        ("LIKEWISE__ANSWERS__TEMPERATURE_MAX", "2.0"),
    ])
    .await;
    for _ in 0..2 {
        ask(&server, &warm).await;
        ask(&server, &with(question("call a tool"), tools.clone())).await;
    }
    assert_eq!(upstream.calls(), 2);
}

#[tokio::test]
async fn cache_directives_are_followed() {
    let (_dir, upstream, server) = start(&[]).await;
    let cache =
        async |cache: Value| ask(&server, &with(question("direct me"), json!({ "cache": cache }))).await;
    let refused = cache(json!({ "only-if-cached": true })).await;
    assert_eq!((refused.status, refused.error().0), (504, "not_cached"));
    assert_eq!(upstream.calls(), 0);
    assert!(!is_hit(&cache(json!({ "no-store": true })).await));
    assert!(!is_hit(&cache(json!({})).await), "no-store has stored");
    let old = cache(json!({ "only-if-cached": true })).await;
    assert!(is_hit(&old));
    let refresh = cache(json!({ "no-cache": true })).await;
    assert_eq!(status(&refresh), "fwd=request");
    let replaced = cache(json!({})).await;
    assert!(is_hit(&replaced));
    assert_eq!(replaced.body["choices"], refresh.body["choices"], "no-cache refreshes what is kept");
    assert_ne!(replaced.body["choices"], old.body["choices"]);
    assert!(is_hit(&cache(json!({ "s-maxage": 3600 })).await));
    let by_header =
        server.ask("POST", CHAT, &[("cache-control", "no-cache")], question("direct me").to_string()).await;
    assert_eq!(status(&by_header), "fwd=request");
}

/// A request that can be answered with a stale answer does not wait for an upstream that asks for time.
#[tokio::test]
async fn a_stale_answer_is_served_at_once_if_the_upstream_fails() {
    let (_dir, upstream, server) = start(&[("LIKEWISE__UPSTREAM__RETRIES_MAX", "3")]).await;
    let body = with(question("price?"), json!({ "cache": { "ttl": 1 } }));
    let first = ask(&server, &body).await;
    // Until it is on the disk, those who ask the same join it.
    quiet(&server).await;
    let kept_only = with(question("price?"), json!({ "cache": { "only-if-cached": true } }));
    until("it has ended", async || ask(&server, &kept_only).await.status == 504).await;
    let calls = upstream.calls();
    upstream.next(Mode::Reply(503, vec![("retry-after", "1")], "{}".into()));
    let old = ask(&server, &body).await;
    assert_eq!((old.status, &old.body["choices"]), (200, &first.body["choices"]));
    assert!(status(&old).starts_with("fwd=stale; fwd-status=503"), "{}", status(&old));
    assert_eq!(upstream.calls(), calls + 1, "it was asked once");
    assert_eq!(server.stat("/answers/retries").await, 0);
}

#[tokio::test]
async fn answers_survive_a_kill() {
    let (dir, upstream, server) = start(&[]).await;
    let body = with(question("remember"), json!({ "stream": true }));
    let first = accumulated(&ask(&server, &body).await);
    quiet(&server).await;
    server.kill();
    let server = start_in(dir.path(), &upstream, &[]);
    let again = ask(&server, &body).await;
    assert!(is_hit(&again) && again.header("cache-status").ends_with("detail=disk"), "{}", status(&again));
    assert_eq!(accumulated(&again)["choices"], first["choices"]);
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn invalid_requests_are_refused_before_the_upstream_is_called() {
    let (_dir, upstream, server) = start(&[("LIKEWISE__HTTP__BODY_BYTES_MAX", "4096")]).await;
    let base = || question("x");
    let cases = [
        ("{".to_owned(), 400, None),
        ("[]".to_owned(), 400, None),
        (r#"{"model":"m","model":"n","messages":[{"role":"user","content":"a"}]}"#.to_owned(), 400, None),
        (json!({ "messages": [] }).to_string(), 400, Some("model")),
        (with(base(), json!({ "messages": [] })).to_string(), 400, Some("messages")),
        (with(base(), json!({ "messages": "hi" })).to_string(), 400, Some("messages")),
        (with(base(), json!({ "stream": "yes" })).to_string(), 400, Some("stream")),
        (with(base(), json!({ "cache": { "ttl": 0 } })).to_string(), 400, Some("cache.ttl")),
        (with(base(), json!({ "cache": { "ttl": -1 } })).to_string(), 400, Some("cache.ttl")),
        (with(base(), json!({ "cache": { "tags": ["a b"] } })).to_string(), 400, Some("cache.tags")),
        (with(base(), json!({ "cache": { "mood": 1 } })).to_string(), 400, Some("cache.mood")),
        (with(base(), json!({ "cache": [7] })).to_string(), 400, Some("cache")),
        (with(base(), json!({ "temperature": "2" })).to_string(), 400, Some("temperature")),
        (with(base(), json!({ "tools": {} })).to_string(), 400, Some("tools")),
        (with(base(), json!({ "cache": { "namespace": "a b" } })).to_string(), 400, Some("cache.namespace")),
        (with(base(), json!({ "x": "a".repeat(5000) })).to_string(), 413, None),
    ];
    for (body, code, param) in cases {
        let shown: String = body.chars().take(80).collect();
        let answer = server.ask("POST", CHAT, &[], body).await;
        assert_eq!((answer.status, answer.error().1), (code, param), "{shown}: {}", answer.body);
    }
    assert_eq!(upstream.calls(), 0);
}
