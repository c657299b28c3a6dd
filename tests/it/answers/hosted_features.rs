//! Goal: what an upstream runs or holds for a request is cached where the operator has named it, and only there. Method: clients of
//! both APIs before a model that searches, with and without the names.

use likewise::dialects::Dialect;
use likewise::dialects::messages::Messages;
use likewise::dialects::responses::Responses;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{accumulated_by, counted, is_hit, normalized, quiet, start, status, with};
use crate::program::{Answer, Server, likewise, output};
use crate::upstream::{Mode, Upstream};

const FEATURES: &str = "LIKEWISE__ANSWERS__CACHED_FEATURES";
const RESPONSES: &str = "/v1/responses";
const MESSAGES: &str = "/v1/messages";
const JSON: (&str, &str) = ("content-type", "application/json");

fn input(text: &str, more: Value) -> Value {
    with(json!({ "model": "gpt-5", "input": text }), more)
}

fn message(text: &str, more: Value) -> Value {
    let messages = json!([{ "role": "user", "content": text }]);
    with(json!({ "model": "claude-x", "max_tokens": 100, "messages": messages }), more)
}

async fn ask(server: &Server, path: &str, body: &Value) -> Answer {
    server.ask("POST", path, &[], body.to_string()).await
}

fn streamed(body: &Value) -> Value {
    with(body.clone(), json!({ "stream": true }))
}

/// How a request was answered, and why not from the cache.
fn outcome(answer: &Answer) -> (u16, &str, &str) {
    (answer.status, status(answer), answer.header("x-likewise-reason"))
}

/// The answer in either form, without what names one delivery.
fn whole(dialect: &dyn Dialect, answer: &Answer) -> Value {
    let stream = answer.body.is_string();
    normalized(if stream { accumulated_by(dialect, answer) } else { answer.body.clone() })
}

/// A configuration file with routes.
async fn start_with(configuration: &str) -> (TempDir, Upstream, Server) {
    let (dir, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let file = dir.path().join("likewise.toml");
    fs_err::write(&file, configuration).unwrap();
    let mut program = likewise("serve", dir.path());
    program.arg("--config").arg(file).arg("--upstream").arg(&upstream.url).env("OPENAI_API_KEY", "sk-ours");
    let server = Server::spawn(&mut program);
    (dir, upstream, server)
}

#[tokio::test]
async fn a_search_is_the_same_in_both_forms_whichever_came_first() {
    let (_dir, upstream, server) = start(&[(FEATURES, "web_search")]).await;
    let of_openai = json!({ "tools": [{ "type": "web_search" }] });
    let of_anthropic = json!({ "tools": [{ "type": "web_search_20250305", "name": "web_search" }] });
    let responses = input("search the web", of_openai);
    let messages = message("search the web", of_anthropic);
    let clients: [(&dyn Dialect, &str, Value, &str); 2] = [
        (&Responses, RESPONSES, responses, "web_search_call"),
        (&Messages, MESSAGES, messages, "web_search_tool_result"),
    ];
    for (dialect, path, body, item) in clients {
        for (seed, first) in [body.clone(), streamed(&body)].into_iter().enumerate() {
            let seed = json!({ "metadata": { "user_id": seed } });
            let miss = ask(&server, path, &with(first, seed.clone())).await;
            assert_eq!(status(&miss), "fwd=miss");
            let expected = whole(dialect, &miss);
            assert!(expected.to_string().contains(item), "{expected}");
            for form in [body.clone(), streamed(&body)] {
                let hit = ask(&server, path, &with(form, seed.clone())).await;
                assert!(is_hit(&hit), "{path}");
                assert_eq!(whole(dialect, &hit), expected, "{path}");
            }
        }
    }
    assert_eq!(upstream.calls(), 4);
}

#[tokio::test]
async fn concurrent_searches_are_one_call() {
    let (_dir, upstream, server) = start(&[(FEATURES, "web_search")]).await;
    let body = input("search the web", json!({ "tools": [{ "type": "web_search" }] }));
    let held = upstream.hold().await;
    let release = async {
        crate::program::until("all wait", async || super::in_flight(&server).await > 8).await;
        drop(held);
    };
    let requests = futures_util::future::join_all((0..8).map(|_| ask(&server, RESPONSES, &body)));
    let (answers, ()) = futures_util::future::join(requests, release).await;
    assert!(answers.iter().all(|answer| answer.body == answers[0].body));
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn every_feature_of_a_request_must_be_named() {
    let (_dir, upstream, server) = start(&[(FEATURES, "web_search,container,background")]).await;
    let tools = |tools: Value| json!({ "tools": tools });
    let search = json!({ "type": "web_search" });
    let file = json!([{ "role": "user", "content": [{ "type": "document", "source": { "type": "file", "file_id": "f" } }] }]);
    let cases = [
        (RESPONSES, tools(json!([search, { "type": "file_search" }])), "hosted_tool"),
        (RESPONSES, tools(json!([search, { "type": "mcp" }])), "mcp_server"),
        (RESPONSES, with(tools(json!([search])), json!({ "conversation": "conv_1" })), "conversation"),
        (RESPONSES, tools(json!([search, { "type": "x_unknown" }])), "hosted_tool"),
        (MESSAGES, with(tools(json!([search])), json!({ "mcp_servers": [{}] })), "mcp_server"),
        (MESSAGES, json!({ "container": "c", "messages": file }), "file"),
        (MESSAGES, tools(json!([{ "type": "bash_20250124", "name": "bash" }])), "hosted_tool"),
    ];
    for (place, (path, more, reason)) in cases.iter().enumerate() {
        let body =
            if *path == RESPONSES { input("do it", more.clone()) } else { message("do it", more.clone()) };
        for _ in 0..2 {
            assert_eq!(outcome(&ask(&server, path, &body).await), (200, "fwd=bypass", *reason), "{more}");
        }
        assert_eq!(upstream.calls(), 2 * (place + 1));
    }
}

/// A template of the upstream's may have tools that no request names.
#[tokio::test]
async fn a_reply_that_has_used_what_is_not_named_is_not_stored() {
    let (_dir, _upstream, server) = start(&[(FEATURES, "mcp")]).await;
    for (path, body) in
        [(RESPONSES, input("search the web", json!({}))), (MESSAGES, message("search the web", json!({})))]
    {
        for _ in 0..2 {
            assert_eq!(outcome(&ask(&server, path, &body).await), (200, "fwd=miss", "hosted_tool"), "{path}");
        }
    }
    assert_eq!(counted(&server, "hosted_tool").await, 4);
}

#[tokio::test]
async fn a_background_response_is_stored_once_it_is_complete() {
    let (_dir, upstream, server) = start(&[(FEATURES, "background")]).await;
    let body = input("later", json!({ "background": true }));
    for status in ["queued", "in_progress"] {
        let queued = json!({ "id": "resp_q", "object": "response", "status": status, "output": [], "background": true });
        upstream.next(Mode::Reply(200, vec![JSON], queued.to_string()));
        let answer = ask(&server, RESPONSES, &body).await;
        assert_eq!(outcome(&answer), (200, "fwd=miss", "unfinished"));
        assert_eq!(answer.body, queued, "it is passed on");
    }
    assert_eq!(status(&ask(&server, RESPONSES, &streamed(&body)).await), "fwd=miss");
    let hit = ask(&server, RESPONSES, &body).await;
    assert!(is_hit(&hit));
    assert_eq!(hit.body["status"], "completed");
    assert_eq!(upstream.calls(), 3);
}

#[tokio::test]
async fn what_an_upstream_holds_is_never_shared_between_credentials() {
    let shared = [(FEATURES, "conversation,container,mcp"), ("LIKEWISE__ANSWERS__SHARE_ACROSS_KEYS", "true")];
    let (_dir, upstream, server) = start(&shared).await;
    for (path, body) in [
        (RESPONSES, input("go on", json!({ "conversation": "conv_1" }))),
        (MESSAGES, message("go on", json!({ "container": "container_1" }))),
        (MESSAGES, message("go on", json!({ "mcp_servers": [{ "type": "url", "url": "https://a.test" }] }))),
    ] {
        let asked = async |key: &str| server.ask("POST", path, &[("api-key", key)], body.to_string()).await;
        let before = upstream.calls();
        for key in ["one", "two"] {
            assert!(!is_hit(&asked(key).await), "{body}");
            assert!(is_hit(&asked(key).await), "{body}");
        }
        assert_eq!(upstream.calls(), before + 2);
    }
    let other = input("go on", json!({ "conversation": "conv_2" }));
    assert!(!is_hit(&ask(&server, RESPONSES, &other).await), "another conversation is another question");
}

/// A template of the upstream's may run tools for which no request asks.
#[tokio::test]
async fn a_tool_that_was_not_asked_for_is_not_shared_between_credentials() {
    let result = json!({ "type": "web_search_tool_result", "tool_use_id": "t", "content": [] });
    let reply = json!({ "id": "msg_1", "type": "message", "role": "assistant", "model": "gpt-5", "stop_reason": "end_turn",
        "stop_sequence": null, "usage": { "input_tokens": 1, "output_tokens": 1 },
        "content": [result, { "type": "text", "text": "so it is" }] });
    for (shares, is_stored) in [("true", false), ("false", true)] {
        let options = [(FEATURES, "web_search"), ("LIKEWISE__ANSWERS__SHARE_ACROSS_KEYS", shares)];
        let (_dir, upstream, server) = start(&options).await;
        let asked = async |key: &str| {
            let body = message("is it so?", json!({})).to_string();
            server.ask("POST", MESSAGES, &[("api-key", key)], body).await
        };
        upstream.next(Mode::Reply(200, vec![("content-type", "application/json")], reply.to_string()));
        let first = asked("one").await;
        let reason = if is_stored { "" } else { "hosted_tool" };
        assert_eq!(first.header("x-likewise-reason"), reason, "share_across_keys = {shares}");
        assert!(!is_hit(&asked("two").await));
        assert!(!is_stored || is_hit(&asked("one").await));
    }
}

/// A tool may have run, and a turn may have been added, for a request that has arrived.
#[tokio::test]
async fn a_call_that_failed_is_not_repeated() {
    let (_dir, upstream, server) = start(&[(FEATURES, "conversation")]).await;
    let body = input("go on", json!({ "conversation": "conv_1" }));
    upstream.next(Mode::Reply(503, vec![], "busy".into()));
    assert_eq!(ask(&server, RESPONSES, &body).await.status, 503);
    assert_eq!(upstream.calls(), 1);
    assert!(!is_hit(&ask(&server, RESPONSES, &body).await));
    quiet(&server).await;
    assert!(is_hit(&ask(&server, RESPONSES, &body).await));
}

#[tokio::test]
async fn a_route_may_have_a_list_of_its_own() {
    let configuration = "[answers]\ncached_features = [\"web_search\"]\n\
        [[answers.routes]]\npath = \"/v1/messages\"\ncached_features = [\"container\"]\n";
    let (_dir, _upstream, server) = start_with(configuration).await;
    let search = json!({ "tools": [{ "type": "web_search" }] });
    let container = json!({ "container": "container_1" });
    for (path, body, is_cached) in [
        (RESPONSES, input("one", search.clone()), true),
        (MESSAGES, message("one", search), false),
        (MESSAGES, message("one", container), true),
    ] {
        ask(&server, path, &body).await;
        assert_eq!(is_hit(&ask(&server, path, &body).await), is_cached, "{body}");
    }
}

#[test]
fn an_unknown_name_is_refused_at_the_start_with_those_that_are_known() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("likewise.toml");
    for (configuration, environment) in [
        ("[answers]\ncached_features = [\"web_serch\"]\n", None),
        ("[[answers.routes]]\npath = \"/v1/messages\"\ncached_features = [\"web_serch\"]\n", None),
        ("", Some("mcp,web_serch")),
    ] {
        fs_err::write(&file, configuration).unwrap();
        let mut program = likewise("serve", dir.path());
        program.arg("--config").arg(&file);
        environment.into_iter().for_each(|list| _ = program.env(FEATURES, list));
        let refused = output(&mut program);
        let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success(), "it has started with {configuration}");
        assert!(stderr.contains("\"web_serch\"") && stderr.contains("background, conversation,"), "{stderr}");
        assert!(stderr.contains("cached_features"), "{stderr}");
    }
}
