//! Goal: what is particular to Anthropic's API holds; what every dialect has is tested in [`super::dialects`]. Method: clients of
//! `/v1/messages` before an upstream that speaks it.

use likewise::dialects::messages::Messages;
use serde_json::{Value, json};

use super::{accumulated_by, is_hit, normalized, quiet, start, status, with};
use crate::program::{Answer, Server, until};
use crate::upstream::messages::event;
use crate::upstream::{Mode, Upstream};

const PATH: &str = "/v1/messages";
const JSON: (&str, &str) = ("content-type", "application/json");
const VERSION: (&str, &str) = ("anthropic-version", "2023-06-01");

fn question(text: &str) -> Value {
    json!({ "model": "claude-x", "max_tokens": 100, "system": "be kind", "messages": [{ "role": "user", "content": text }] })
}

fn streamed(body: &Value) -> Value {
    with(body.clone(), json!({ "stream": true }))
}

async fn ask_with(server: &Server, headers: &[(&str, &str)], body: &Value) -> Answer {
    server.ask("POST", PATH, &[&[VERSION], headers].concat(), body.to_string()).await
}

async fn ask(server: &Server, body: &Value) -> Answer {
    ask_with(server, &[], body).await
}

/// The complete message of a stream, without its id.
fn accumulated(answer: &Answer) -> Value {
    normalized(accumulated_by(&Messages, answer))
}

/// Type and message of an error in Anthropic's shape.
fn error(answer: &Answer) -> (&str, &str) {
    assert_eq!(answer.body["type"], "error", "{}", answer.body);
    let error = &answer.body["error"];
    (error["type"].as_str().expect("a type"), error["message"].as_str().expect("a message"))
}

#[tokio::test]
async fn a_message_is_the_same_in_both_forms_whichever_came_first() {
    let (_dir, upstream, server) = start(&[("LIKEWISE__ANSWERS__CACHE_TOOL_CALLS", "true")]).await;
    for text in ["tell me", "think", "call a tool"] {
        let one = with(question(text), json!({ "top_k": 1 }));
        let miss = ask(&server, &one).await;
        assert_eq!((miss.status, status(&miss)), (200, "fwd=miss"), "{}", miss.body);
        let (whole, events) = (ask(&server, &one).await, ask(&server, &streamed(&one)).await);
        assert!(is_hit(&whole) && is_hit(&events), "{text}");
        assert_eq!(
            whole.header("x-likewise-tokens-saved"),
            "30",
            "with those read from the provider's cache"
        );
        assert_ne!(whole.body["id"], miss.body["id"], "a replay is another delivery");
        let expected = normalized(miss.body);
        assert_eq!(normalized(whole.body), expected);
        assert_eq!(accumulated(&events), expected);
        let said = events.body.as_str().unwrap();
        assert!(said.starts_with("event: message_start\n") && !said.contains("event: ping"), "{said}");

        let two = with(one, json!({ "top_k": 2 }));
        let miss = ask(&server, &streamed(&two)).await;
        assert!(
            !is_hit(&miss) && miss.body.as_str().unwrap().contains("event: ping"),
            "passed on as it came"
        );
        let expected = accumulated(&miss);
        let (events, whole) = (ask(&server, &streamed(&two)).await, ask(&server, &two).await);
        assert!(is_hit(&events) && is_hit(&whole), "{text}");
        assert_eq!(accumulated(&events), expected);
        assert_eq!(normalized(whole.body), expected);
    }
    assert_eq!(upstream.calls(), 6);
    assert!(upstream.seen().iter().all(|seen| seen.path == PATH && !seen.body.contains("stream_options")));
}

#[tokio::test]
async fn what_does_not_change_an_answer_is_sent_and_shares_it() {
    let (_dir, upstream, server) = start(&[]).await;
    let marked = r#"{"model":"claude-x", "max_tokens":1e2,"service_tier":"auto","messages":[{"role":"user","content":
        [{"type":"text","text":"hello","cache_control":{"type":"ephemeral"}}]}],"system":[{"type":"text","text":"be kind"}]}"#;
    let first = server.ask("POST", PATH, &[VERSION], marked).await;
    assert_eq!(status(&first), "fwd=miss");
    assert_eq!(upstream.seen()[0].body, marked, "byte for byte");
    assert!(is_hit(&ask(&server, &question("hello")).await));
}

#[tokio::test]
async fn two_versions_and_two_betas_are_two_requests() {
    let (_dir, upstream, server) = start(&[]).await;
    let body = question("which?");
    let with = |name, value| [(name, value)];
    for headers in [
        &[][..],
        &with("anthropic-beta", "one-1"),
        &with("anthropic-beta", "one-1, two-2"),
        &with("anthropic-version", "2024-01-01"),
    ] {
        assert!(!is_hit(&ask_with(&server, headers, &body).await), "{headers:?}");
        let seen = upstream.seen().pop().unwrap();
        for (name, value) in headers {
            assert!(seen.headers.contains(&((*name).to_owned(), (*value).to_owned())), "{:?}", seen.headers);
        }
        assert_eq!(seen.header("anthropic-version"), Some("2023-06-01"));
    }
    let reordered = [("anthropic-beta", "two-2"), ("anthropic-beta", "one-1")];
    assert!(is_hit(&ask_with(&server, &reordered, &body).await));
    assert_eq!(upstream.calls(), 4);
}

#[tokio::test]
async fn what_the_upstream_runs_or_holds_bypasses_the_cache() {
    let (_dir, upstream, server) = start(&[]).await;
    let file = json!([{ "type": "document", "source": { "type": "file", "file_id": "file_1" } }]);
    let cases = [
        (json!({ "tools": [{ "type": "web_search_20250305", "name": "web_search" }] }), "hosted_tool"),
        (json!({ "mcp_servers": [{ "type": "url", "url": "https://a.test", "name": "a" }] }), "mcp_server"),
        (json!({ "container": "container_1" }), "container"),
        (json!({ "messages": [{ "role": "user", "content": file }] }), "file"),
        (json!({ "temperature": 1.5 }), "temperature"),
    ];
    for (more, reason) in &cases {
        let body = with(question("now?"), more.clone());
        for form in [&body, &body, &streamed(&body)] {
            let answer = ask(&server, form).await;
            let outcome = (answer.status, status(&answer), answer.header("x-likewise-reason"));
            assert_eq!(outcome, (200, "fwd=bypass", *reason), "{more}");
        }
    }
    assert_eq!(upstream.calls(), 3 * cases.len());
    let custom =
        with(question("call a tool"), json!({ "tools": [{ "name": "weather", "input_schema": {} }] }));
    let called = ask(&server, &custom).await;
    assert_eq!((status(&called), called.header("x-likewise-reason")), ("fwd=miss", "tool_calls"));
}

#[tokio::test]
async fn only_a_whole_message_is_stored() {
    let (_dir, upstream, server) = start(&[("LIKEWISE__UPSTREAM__RETRIES_MAX", "0")]).await;
    let start =
        json!({ "type": "message_start", "message": { "type": "message", "content": [], "usage": {} } });
    let block = json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "a" } });
    let unknown = json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "x_new" } });
    let end = json!({ "type": "content_block_stop", "index": 0 });
    let delta = json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn" } });
    let stop = json!({ "type": "message_stop" });
    let overloaded =
        json!({ "type": "error", "error": { "type": "overloaded_error", "message": "Overloaded" } });
    let events = |list: &[&Value]| Mode::Events(list.iter().map(|data| event(data)).collect());
    let reply = |status, body: &Value| Mode::Reply(status, vec![JSON], body.to_string());
    let modes = [
        Mode::Ending("max_tokens"),
        Mode::Ending("pause_turn"),
        Mode::Ending("refusal"),
        reply(529, &overloaded),
        reply(400, &overloaded),
        reply(200, &overloaded),
        reply(200, &json!({})),
        events(&[&start, &block, &end, &delta]),
        events(&[&start, &block, &overloaded]),
        events(&[&start, &unknown, &end, &delta, &stop]),
        events(&[&start, &block, &end, &json!({ "type": "x_new" }), &delta, &stop]),
    ];
    for (place, mode) in modes.into_iter().enumerate() {
        let body = with(question("fragile"), json!({ "top_k": place }));
        upstream.next(mode.clone());
        let live = ask(&server, &streamed(&body)).await;
        assert_eq!(status(&live), "fwd=miss", "{mode:?}");
        if let Mode::Events(list) = &mode {
            assert_eq!(live.body, list.concat(), "passed on as it came");
        }
        if let Mode::Reply(code, _, body) = &mode {
            assert_eq!((live.status, live.body.to_string()), (*code, body.clone()), "as it came");
        }
        quiet(&server).await;
        assert!(!is_hit(&ask(&server, &body).await), "{mode:?} was stored");
        assert!(is_hit(&ask(&server, &body).await), "{mode:?}");
    }
    // A connection that breaks off.
    upstream.next(Mode::Cut);
    let held = upstream.hold_tail().await;
    let body = streamed(&question("cut"));
    let sent = server.client().post(format!("{}{PATH}", server.url())).body(body.to_string()).send().await;
    let mut broken = sent.unwrap();
    assert!(broken.chunk().await.unwrap().is_some());
    drop(held);
    assert!(broken.text().await.is_err(), "no client takes a part for the whole");
    quiet(&server).await;
    assert!(!is_hit(&ask(&server, &body).await));
}

#[tokio::test]
async fn a_key_is_checked_at_the_door_and_the_operators_goes_to_the_upstream() {
    const OWN: &str = "a-key-of-likewise";
    let (_dir, upstream, server) = start(&[("LIKEWISE__HTTP__API_KEYS", OWN)]).await;
    let bearer = format!("Bearer {OWN}");
    let count = json!({ "model": "claude-x", "messages": [] });
    for key in [("x-api-key", OWN), ("authorization", &*bearer)] {
        assert_eq!(status(&ask_with(&server, &[key], &question("mine")).await), "fwd=miss", "{key:?}");
        assert!(is_hit(&ask_with(&server, &[key], &question("mine")).await));
        let counted =
            server.ask("POST", "/v1/messages/count_tokens", &[VERSION, key], count.to_string()).await;
        assert_eq!(counted.status, 200);
    }
    assert_eq!(upstream.calls(), 4);
    for seen in upstream.seen() {
        assert_eq!((seen.header("x-api-key"), seen.header("authorization")), (Some("sk-ours"), None));
        assert_eq!(seen.header("anthropic-version"), Some("2023-06-01"));
        assert!(!format!("{:?}", seen.headers).contains(OWN), "{:?}", seen.headers);
    }
    for headers in
        [&[][..], &[("x-api-key", "another-key")], &[("x-api-key", OWN), ("authorization", "Bearer b")]]
    {
        let refused = ask_with(&server, headers, &question("mine")).await;
        assert_eq!((refused.status, error(&refused).0), (401, "authentication_error"), "{headers:?}");
    }
    assert_eq!(upstream.calls(), 4);

    // An upstream that takes the key in another header than the API says.
    let (_dir, upstream, server) = start(&[("LIKEWISE__UPSTREAM__KEY_HEADER", "authorization")]).await;
    assert_eq!(status(&ask_with(&server, &[], &question("mine")).await), "fwd=miss");
    server.ask("POST", "/v1/messages/count_tokens", &[VERSION], count.to_string()).await;
    let seen = upstream.seen();
    assert_eq!(seen.len(), 2);
    for seen in seen {
        assert_eq!((seen.header("x-api-key"), seen.header("authorization")), (None, Some("Bearer sk-ours")));
    }

    // Where clients have keys of the upstream's, each goes through as it came, and separates clients.
    let (_dir, upstream, server) = start(&[("LIKEWISE__UPSTREAM__FORWARD_CLIENT_KEY", "true")]).await;
    for key in [("x-api-key", "one"), ("x-api-key", "two"), ("authorization", "Bearer one")] {
        assert!(!is_hit(&ask_with(&server, &[key], &question("mine")).await), "{key:?}");
        let seen = upstream.seen().pop().unwrap();
        let shown = ["x-api-key", "authorization"].map(|name| seen.header(name));
        assert_eq!(shown.into_iter().flatten().collect::<Vec<_>>(), [key.1]);
    }
}

#[tokio::test]
async fn errors_have_anthropics_shape() {
    let (_dir, upstream, server) = start(&[
        ("LIKEWISE__UPSTREAM__REQUESTS_MAX", "1"),
        ("LIKEWISE__UPSTREAM__RETRIES_MAX", "0"),
        ("LIKEWISE__HTTP__BODY_BYTES_MAX", "4096"),
    ])
    .await;
    for (body, named) in [
        (json!({ "messages": [{ "role": "user", "content": "a" }] }), "model"),
        (json!({ "model": "m" }), "messages"),
        (with(question("a"), json!({ "stream": "yes" })), "stream"),
        (with(question("a"), json!({ "tools": {} })), "tools"),
        (with(question("a"), json!({ "cache": { "ttl": "long" } })), "cache.ttl"),
    ] {
        let refused = ask(&server, &body).await;
        let (kind, message) = error(&refused);
        assert_eq!((refused.status, kind), (400, "invalid_request_error"), "{body}");
        assert!(message.contains(named), "{message}");
        assert_eq!(refused.body["request_id"], refused.header("x-request-id"));
    }
    let garbled = server.ask("POST", PATH, &[VERSION], "{").await;
    assert_eq!((garbled.status, error(&garbled).0), (400, "invalid_request_error"));
    assert_eq!(upstream.calls(), 0, "nothing was sent");
    let large = ask(&server, &question(&"a".repeat(5000))).await;
    assert_eq!((large.status, error(&large).0), (413, "request_too_large"));
    let foreign = ask_with(&server, &[("origin", "https://evil.test")], &question("a")).await;
    assert_eq!((foreign.status, error(&foreign).0), (403, "permission_error"));
    let cached_only = with(question("a"), json!({ "cache": { "only-if-cached": true } }));
    assert_eq!(error(&ask(&server, &cached_only).await).0, "api_error");

    let held = upstream.hold().await;
    let (waiting, busy) = (question("one"), question("two"));
    let waits = ask(&server, &waiting);
    let refused = async {
        until("one is asked", async || upstream.calls() == 1).await;
        let refused = ask(&server, &busy).await;
        drop(held);
        refused
    };
    let (answered, refused) = futures_util::future::join(waits, refused).await;
    assert_eq!((answered.status, refused.status), (200, 429));
    assert_eq!(error(&refused).0, "rate_limit_error");

    let server = Server::start();
    let none = ask(&server, &question("a")).await;
    assert_eq!((none.status, error(&none).0), (404, "not_found_error"));
}

#[tokio::test]
async fn an_error_in_a_stream_that_has_begun_is_an_event() {
    let (_dir, upstream, server) = start(&[("LIKEWISE__UPSTREAM__IDLE_MS", "50")]).await;
    let start = json!({ "type": "message_start", "message": { "type": "message", "content": [] } });
    upstream.next(Mode::Silent(event(&start)));
    let body = streamed(&question("silent")).to_string();
    let mut response =
        server.client().post(format!("{}{PATH}", server.url())).body(body).send().await.unwrap();
    let mut said = Vec::new();
    while let Ok(Some(bytes)) = response.chunk().await {
        said.extend_from_slice(&bytes);
    }
    let said = String::from_utf8(said).unwrap();
    let last = said.split("\n\n").find_map(|event| event.strip_prefix("event: error\ndata: "));
    let error: Value = serde_json::from_str(last.unwrap_or_else(|| panic!("{said}"))).unwrap();
    assert_eq!((&error["type"], &error["error"]["type"]), (&json!("error"), &json!("timeout_error")));
}

#[tokio::test]
async fn other_routes_below_it_are_passed_on() {
    let (_dir, upstream, server): (_, Upstream, _) = start(&[]).await;
    upstream.usually(Mode::Reply(200, vec![JSON], r#"{"input_tokens":7}"#.into()));
    let headers = [VERSION, ("anthropic-beta", "one-1")];
    let body = json!({ "model": "claude-x", "messages": [] }).to_string();
    let counted = server.ask("POST", "/v1/messages/count_tokens", &headers, body.clone()).await;
    assert_eq!(
        (counted.status, status(&counted), &counted.body["input_tokens"]),
        (200, "fwd=bypass", &json!(7))
    );
    let seen = upstream.seen().pop().unwrap();
    assert_eq!((&*seen.path, &*seen.body), ("/v1/messages/count_tokens", &*body));
    assert_eq!(
        (seen.header("anthropic-version"), seen.header("anthropic-beta")),
        (Some("2023-06-01"), Some("one-1"))
    );
    // Behind the operator's key are the operator's batches.
    assert_eq!(server.ask("POST", "/v1/messages/batches", &headers, body).await.status, 404);
    assert_eq!(upstream.calls(), 1);
    let (_dir, upstream, server) = start(&[("LIKEWISE__UPSTREAM__FORWARD_CLIENT_KEY", "true")]).await;
    upstream.usually(Mode::Reply(200, vec![JSON], "{}".into()));
    assert_eq!(server.ask("GET", "/v1/messages/batches/b_1/results", &headers, "").await.status, 200);
    assert_eq!(upstream.calls(), 1);
}
