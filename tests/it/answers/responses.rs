//! The Responses API: what it has beyond other dialects. Goal: no response is replayed that would break its client's next request, or that
//! belongs to another one. Method: a model that knows the ids of the responses which it stores.

use likewise::dialects::responses::Responses;
use serde_json::{Value, json};

use super::{accumulated_by, is_hit, normalized, quiet, start, start_in, status, with};
use crate::program::{Answer, Server};
use crate::upstream::Mode;

const PATH: &str = "/v1/responses";

fn input(text: &str) -> Value {
    json!({ "model": "gpt-5", "input": text })
}

fn streamed(body: &Value) -> Value {
    with(body.clone(), json!({ "stream": true }))
}

async fn ask(server: &Server, body: &Value) -> Answer {
    server.ask("POST", PATH, &[], body.to_string()).await
}

/// The response in an answer of either form.
fn whole(answer: &Answer) -> Value {
    if answer.body.is_string() { accumulated_by(&Responses, answer) } else { answer.body.clone() }
}

#[tokio::test]
async fn a_response_is_the_same_in_both_forms_whichever_came_first() {
    let (_dir, upstream, server) = start(&[("LIKEWISE__ANSWERS__CACHE_TOOL_CALLS", "true")]).await;
    let tool = json!({ "type": "function", "name": "weather", "parameters": {} });
    let questions = ["tell me", "refuse", "think", "call a tool"];
    for question in questions {
        let body = with(input(question), json!({ "tools": [tool] }));
        for (seed, first) in [body.clone(), streamed(&body)].into_iter().enumerate() {
            let seed = json!({ "metadata": { "seed": seed } });
            let miss = ask(&server, &with(first, seed.clone())).await;
            assert!(!is_hit(&miss), "{question}");
            for form in [body.clone(), streamed(&body)] {
                let hit = ask(&server, &with(form, seed.clone())).await;
                assert!(is_hit(&hit), "{question}");
                assert_eq!(whole(&hit), whole(&miss), "{question}: ids and secrets are the original's");
                assert_eq!(hit.header("x-likewise-tokens-saved"), "30");
            }
        }
    }
    assert_eq!(upstream.calls(), 2 * questions.len());
}

#[tokio::test]
async fn a_cached_first_turn_is_continued_by_its_id() {
    let (_dir, upstream, server) = start(&[]).await;
    for first in [input("first"), streamed(&input("first"))] {
        let id = whole(&ask(&server, &first).await)["id"].clone();
        let turn = with(input("and then?"), json!({ "previous_response_id": id }));
        let second = ask(&server, &turn).await;
        assert_eq!((second.status, &second.body["previous_response_id"]), (200, &id));
    }
    assert_eq!(upstream.calls(), 2, "both second turns are one");
    let unknown = ask(&server, &with(input("and then?"), json!({ "previous_response_id": "resp_x" }))).await;
    assert_eq!((unknown.status, unknown.error().1), (400, Some("previous_response_id")));
}

#[tokio::test]
async fn a_response_that_the_upstream_does_not_store_gets_a_fresh_id() {
    let (_dir, upstream, server) = start(&[]).await;
    let body = with(input("forget me"), json!({ "store": false }));
    let mut answers = Vec::new();
    for form in [body.clone(), body.clone(), streamed(&body)] {
        answers.push(whole(&ask(&server, &form).await));
    }
    let mut ids: Vec<&str> = answers.iter().map(|answer| answer["id"].as_str().unwrap()).collect();
    ids.dedup();
    assert_eq!((ids.len(), upstream.calls()), (3, 1));
    assert!(ids.iter().all(|id| id.starts_with("resp_")), "{ids:?}");
    assert!(answers.iter().all(|answer| normalized(answer.clone()) == normalized(answers[0].clone())));
}

/// Whose id a response has, and whose secrets.
#[tokio::test]
async fn clients_with_different_credentials_never_share_a_response() {
    let (_dir, upstream, server) = start(&[("LIKEWISE__ANSWERS__SHARE_ACROSS_KEYS", "true")]).await;
    let asked =
        async |key: &str| server.ask("POST", PATH, &[("api-key", key)], input("think").to_string()).await;
    for key in ["one", "two"] {
        assert!(!is_hit(&asked(key).await));
    }
    for key in ["one", "two"] {
        assert!(is_hit(&asked(key).await));
    }
    assert_eq!(upstream.calls(), 2);
}

#[tokio::test]
async fn requests_that_do_more_than_answer_bypass_the_cache() {
    let (_dir, upstream, server) = start(&[]).await;
    let cases = [
        (json!({ "background": true }), "background"),
        (json!({ "conversation": "conv_1" }), "conversation"),
        (json!({ "tools": [{ "type": "web_search" }] }), "hosted_tool"),
        (json!({ "tools": [{ "type": "mcp", "server_label": "a" }] }), "mcp_server"),
        (json!({ "tools": [{ "type": "code_interpreter", "container": "auto" }] }), "hosted_tool"),
        (json!({ "temperature": 1.5 }), "temperature"),
    ];
    for (more, reason) in &cases {
        for body in [input("do it"), streamed(&input("do it"))] {
            let answer = ask(&server, &with(body, more.clone())).await;
            assert_eq!((answer.status, status(&answer)), (200, "fwd=bypass"), "{more}");
            assert_eq!(answer.header("x-likewise-reason"), *reason);
        }
    }
    assert_eq!(upstream.calls(), 2 * cases.len());
    // One that arrived may have run its tool: it is not repeated.
    upstream.next(Mode::Reply(503, vec![], "busy".into()));
    assert_eq!(ask(&server, &with(input("do it"), cases[2].0.clone())).await.status, 503);
    assert_eq!(upstream.calls(), 2 * cases.len() + 1);
}

#[tokio::test]
async fn calls_of_tools_are_stored_by_the_option_only() {
    let (_dir, _upstream, server) = start(&[]).await;
    for body in [input("call a tool"), streamed(&input("call a tool"))] {
        for _ in 0..2 {
            assert!(!is_hit(&ask(&server, &body).await));
        }
    }
    assert_eq!(ask(&server, &input("call a tool")).await.header("x-likewise-reason"), "tool_calls");
}

#[tokio::test]
async fn a_stream_that_is_no_complete_response_is_passed_on_and_not_stored() {
    let (_dir, upstream, server) = start(&[("LIKEWISE__UPSTREAM__RETRIES_MAX", "0")]).await;
    let event = |data: Value| format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap());
    let created = event(json!({ "type": "response.created", "sequence_number": 0, "response": {} }));
    let failed = event(json!({ "type": "response.failed", "response": { "status": "failed" } }));
    let modes = [
        Mode::Cut,
        Mode::Ending("max_output_tokens"),
        Mode::Events(vec![created.clone()]),
        Mode::Events(vec![created.clone(), failed]),
        Mode::Events(vec![created, event(json!({ "type": "error", "message": "no", "code": "x" }))]),
    ];
    for (place, mode) in modes.into_iter().enumerate() {
        let body = with(input("fragile"), json!({ "metadata": { "seed": place } }));
        upstream.next(mode.clone());
        let response =
            server.client().post(format!("{}{PATH}", server.url())).body(streamed(&body).to_string());
        let held = upstream.hold_tail().await;
        let response = response.send().await.unwrap();
        assert_eq!(response.status(), 200, "{mode:?}");
        drop(held);
        let said = response.text().await;
        assert_eq!(said.is_err(), matches!(mode, Mode::Cut), "{mode:?}");
        quiet(&server).await;
        assert!(!is_hit(&ask(&server, &body).await), "{mode:?} was stored");
        assert!(is_hit(&ask(&server, &streamed(&body)).await), "{mode:?}");
    }
}

/// An upstream may end a stream as other APIs do. A client that asks again at once gets a hit, which ends in the same way.
#[tokio::test]
async fn a_mark_behind_the_last_event_is_passed_on_and_replayed() {
    let (dir, upstream, server) = start(&[]).await;
    let stream = ask(&server, &streamed(&input("once"))).await;
    let events = format!("{}data: [DONE]\n\n", stream.body.as_str().unwrap());
    upstream.next(Mode::Events(vec![events.clone()]));
    let marked = ask(&server, &streamed(&input("twice"))).await;
    assert_eq!(marked.body.as_str(), Some(events.as_str()));
    let ends_with_done = |hit: &Answer| {
        assert!(is_hit(hit));
        let body = hit.body.as_str().expect("a stream");
        assert_eq!(body.matches("[DONE]").count(), usize::from(body.ends_with("}\n\ndata: [DONE]\n\n")));
        body.ends_with("data: [DONE]\n\n")
    };
    assert!(ends_with_done(&ask(&server, &streamed(&input("twice"))).await));
    assert!(!ask(&server, &input("twice")).await.body.to_string().contains("[DONE]"));
    // Nothing is known of the streams of an upstream whose answer came whole.
    ask(&server, &input("whole")).await;
    for unmarked in ["once", "whole"] {
        assert!(!ends_with_done(&ask(&server, &streamed(&input(unmarked))).await), "{unmarked}");
    }
    quiet(&server).await;
    drop(server);
    let server = start_in(dir.path(), &upstream, &[]);
    assert!(ends_with_done(&ask(&server, &streamed(&input("twice"))).await), "on disk too");
}

#[tokio::test]
async fn a_malformed_request_is_refused_before_anything_is_sent() {
    let (_dir, upstream, server) = start(&[]).await;
    for (body, param) in [
        (json!({ "model": "m" }), "input"),
        (json!({ "input": "a" }), "model"),
        (json!({ "model": "m", "input": 7 }), "input"),
        (json!({ "model": "m", "input": "a", "tools": "web_search" }), "tools"),
        (json!({ "model": "m", "input": "a", "background": "yes" }), "background"),
        (json!({ "model": "m", "input": "a", "cache": { "ttl": "long" } }), "cache.ttl"),
    ] {
        let refused = ask(&server, &body).await;
        assert_eq!((refused.status, refused.error()), (400, ("invalid_input", Some(param))), "{body}");
    }
    assert_eq!(upstream.calls(), 0);
    // A template has its model and its input at the upstream.
    let template = json!({ "prompt": { "id": "pmpt_1" }, "store": false });
    assert!(!is_hit(&ask(&server, &template).await) && is_hit(&ask(&server, &template).await));
}

#[tokio::test]
async fn what_changes_no_answer_is_sent_as_it_came_and_separates_no_requests() {
    let (_dir, upstream, server) = start(&[]).await;
    let body = |key: &str, cache: &str| {
        format!(
            r#"{{ "prompt_cache_key":"{key}", "model": "gpt-5",{cache} "service_tier" : "flex",
            "input":[{{"role":"user","content":[{{"type":"input_text","text":"\u0061 b", "prompt_cache_breakpoint":{{"mode":"explicit"}}}}]}}]}}"#
        )
    };
    let first = server.ask("POST", PATH, &[], body("one", "")).await;
    assert_eq!(upstream.seen()[0].body, body("one", ""), "byte for byte");
    assert!(!is_hit(&first));
    assert!(is_hit(&server.ask("POST", PATH, &[], body("two", r#""cache":{},"#)).await));
    assert!(is_hit(&ask(&server, &input("a b")).await));
    let directed = server.ask("POST", PATH, &[], body("one", r#""cache":{"no-cache":true},"#)).await;
    assert_eq!(status(&directed), "fwd=request");
    assert!(!upstream.seen()[1].body.contains("no-cache"));
}

#[tokio::test]
async fn routes_below_it_are_forwarded() {
    let (_dir, upstream, server) = start(&[]).await;
    let routes = [
        ("GET", "/v1/responses/resp_1?stream=true"),
        ("DELETE", "/v1/responses/resp_1"),
        ("POST", "/v1/responses/resp_1/cancel"),
        ("GET", "/v1/responses/resp_1/input_items"),
        ("POST", "/v1/responses/compact"),
        ("POST", "/v1/responses/input_tokens"),
    ];
    for (method, path) in routes {
        upstream.next(Mode::Reply(200, vec![], "theirs".into()));
        let answer = server.ask(method, path, &[], "").await;
        assert_eq!((answer.status, status(&answer)), (200, "fwd=bypass"), "{method} {path}");
    }
    let seen: Vec<(String, String)> =
        upstream.seen().into_iter().map(|seen| (seen.method, seen.path)).collect();
    assert_eq!(seen, routes.map(|(method, path)| (method.to_owned(), path.to_owned())));
}

#[tokio::test]
async fn a_websocket_is_refused_with_the_reason() {
    let (_dir, upstream, server) = start(&[]).await;
    let upgrade = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    for path in [PATH, "/v1/realtime"] {
        let refused = server.ask("GET", path, &upgrade, "").await;
        assert_eq!((refused.status, refused.error().0), (426, "upgrade_required"), "{path}");
        assert_eq!(refused.header("upgrade"), "HTTP/1.1");
    }
    assert_eq!(upstream.calls(), 0);
}
