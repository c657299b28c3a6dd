//! Goal: a route that the configuration lists is cached by the exact body, with all that answers have, and every reply that cannot be
//! replayed is passed on. Method: the program before an upstream that counts its calls.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{CHAT, is_hit, quiet, status};
use crate::program::{Answer, Server, likewise, output, until};
use crate::upstream::{Mode, Upstream};

const PATH: &str = "/v1/moderations";
const JSON: (&str, &str) = ("content-type", "application/json");
const BODY: &str = r#"{"model": "mod-1", "input": "a text"}"#;

const ROUTES: &str = "[[answers.routes]]\npath = \"/v1/moderations\"\nttl_seconds = 600\n\
    [[answers.routes]]\npath = \"/v1/messages/count_tokens\"\nttl_seconds = 60\nnamespace = \"counts\"\n";

fn program(dir: &Path, configuration: &str) -> Command {
    let file = dir.join("likewise.toml");
    fs_err::write(&file, configuration).unwrap();
    let mut program = likewise("serve", dir);
    program.arg("--config").arg(file);
    program
}

async fn start() -> (TempDir, Upstream, Server) {
    let started = start_with(ROUTES).await;
    started.1.usually(reply(r#"{"id": "modr-1",  "results": [{"flagged": false}]}"#));
    started
}

async fn start_with(routes: &str) -> (TempDir, Upstream, Server) {
    let (dir, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let mut program = program(dir.path(), routes);
    program.arg("--upstream").arg(&upstream.url).env("OPENAI_API_KEY", "sk-ours");
    let server = Server::spawn(program.env("LIKEWISE__UPSTREAM__BACKOFF_MS", "1"));
    (dir, upstream, server)
}

fn reply(body: &str) -> Mode {
    Mode::Reply(200, vec![JSON], body.to_owned())
}

async fn ask(server: &Server, headers: &[(&str, &str)], body: &str) -> Answer {
    server.ask("POST", PATH, &[&[JSON], headers].concat(), body.to_owned()).await
}

#[tokio::test]
async fn an_equal_body_is_a_hit_and_nothing_in_it_is_read() {
    let (_dir, upstream, server) = start().await;
    let body = r#"{"model":"mod-1", "input":"a", "cache":{"no-store":true,"ttl":1}}"#;
    let miss = ask(&server, &[], body).await;
    assert_eq!((miss.status, status(&miss)), (200, "fwd=miss"));
    let hit = ask(&server, &[], body).await;
    assert!(
        status(&hit).starts_with("hit; ttl=5") || status(&hit).starts_with("hit; ttl=600"),
        "{}",
        status(&hit)
    );
    assert!(is_hit(&hit) && hit.header("age").parse::<u32>().is_ok());
    assert_eq!((hit.body.clone(), hit.header("content-type")), (miss.body, "application/json"));
    assert_eq!(hit.body["id"], "modr-1", "a replay is the reply");
    assert!(!hit.header("x-likewise-answer-id").is_empty());
    let seen = upstream.seen();
    assert_eq!((seen.len(), seen[0].body.as_str(), seen[0].path.as_str()), (1, body, PATH));
    let types = |name: &str| seen[0].headers.iter().filter(|(known, _)| known == name).count();
    assert_eq!((types("content-type"), seen[0].header("authorization")), (1, Some("Bearer sk-ours")));
    assert_eq!(server.stat("/answers/hits").await, 1);
}

#[tokio::test]
async fn a_request_that_differs_in_a_byte_is_a_miss() {
    let (_dir, upstream, server) = start().await;
    assert!(!is_hit(&ask(&server, &[], BODY).await));
    let other_type = [("content-type", "application/json; charset=utf-8")];
    let asked = [
        ask(&server, &[], &BODY.replace(": ", ":")).await,
        ask(&server, &[], &format!("{BODY}\n")).await,
        ask(&server, &[("openai-project", "p")], BODY).await,
        ask(&server, &[("authorization", "Bearer another")], BODY).await,
        server.ask("POST", PATH, &other_type, BODY).await,
        server.ask("POST", &format!("{PATH}?api-version=2"), &[JSON], BODY).await,
    ];
    assert!(asked.iter().all(|answer| !is_hit(answer)));
    assert_eq!(upstream.calls(), 1 + asked.len());
    assert_eq!(upstream.seen().pop().unwrap().path, "/v1/moderations?api-version=2");
}

#[tokio::test]
async fn directives_tags_and_namespaces_are_those_of_answers() {
    let (_dir, upstream, server) = start().await;
    assert!(!is_hit(&ask(&server, &[("x-cache-tags", "forum:7")], BODY).await));
    assert!(is_hit(&ask(&server, &[], BODY).await));
    let refused = ask(&server, &[("cache-control", "only-if-cached")], "{}").await;
    assert_eq!(refused.status, 504);
    let invalidated = server.ask("POST", "/v1/invalidate", &[], r#"{"tags":["forum:7"]}"#).await;
    assert_eq!(invalidated.status, 200);
    assert!(!is_hit(&ask(&server, &[], BODY).await));
    let no_store = ask(&server, &[("cache-control", "no-store")], "{}").await;
    assert_eq!(no_store.header("x-likewise-reason"), "no_store");
    assert!(!is_hit(&ask(&server, &[], "{}").await));
    let too_long = ask(&server, &[("x-cache-ttl", "99999999")], "{}").await;
    assert_eq!((too_long.status, too_long.error().1), (400, Some("x-cache-ttl")));
    let count = async || {
        let headers = [JSON, ("anthropic-version", "2023-06-01")];
        server.ask("POST", "/v1/messages/count_tokens", &headers, r#"{"model":"claude-x"}"#).await
    };
    assert!(!is_hit(&count().await) && is_hit(&count().await));
    let seen = upstream.seen().pop().unwrap();
    assert_eq!(
        (seen.header("x-api-key"), seen.header("anthropic-version")),
        (Some("sk-ours"), Some("2023-06-01"))
    );
    let of_namespace = server.ask("POST", "/v1/invalidate", &[], r#"{"namespace":"counts"}"#).await;
    assert_eq!(of_namespace.status, 200);
    assert!(!is_hit(&count().await) && is_hit(&ask(&server, &[], BODY).await));
}

#[tokio::test]
async fn what_cannot_be_replayed_is_passed_on_with_its_reason() {
    let (_dir, upstream, server) = start().await;
    let text = ("content-type", "text/plain");
    for (mode, code, reason) in [
        (Mode::Reply(200, vec![text], "[1]".into()), 200, "no_answer"),
        (Mode::Reply(201, vec![JSON], "{}".into()), 201, "no_answer"),
        (reply("{\"half\":"), 200, "no_answer"),
        (reply(r#"{"error":{"message":"no"}}"#), 200, "error"),
        (Mode::Reply(400, vec![JSON], "{}".into()), 400, "status"),
    ] {
        for _ in 0..2 {
            upstream.next(mode.clone());
            let answer = ask(&server, &[], BODY).await;
            assert_eq!((answer.status, answer.header("x-likewise-reason")), (code, reason), "{mode:?}");
            assert_eq!(status(&answer), "fwd=miss");
        }
    }
    assert_eq!(upstream.calls(), 10);
}

#[tokio::test]
async fn a_stream_is_passed_on_as_it_arrives() {
    let (_dir, upstream, server) = start().await;
    let events = ["event: odd\ndata: {\"text\":\"a\"}\n\n", "data: rest\n\n"].map(String::from);
    for _ in 0..2 {
        upstream.next(Mode::Events(events.to_vec()));
        let answer = ask(&server, &[("te", "trailers")], BODY).await;
        assert_eq!((answer.status, status(&answer)), (200, "fwd=miss"));
        assert_eq!(answer.header("content-type"), "text/event-stream");
        assert_eq!(answer.body.as_str(), Some(events.concat().as_str()));
    }
    upstream.next(Mode::Silent(events[0].clone()));
    let mut live = server.client().post(format!("{}{PATH}", server.url())).body(BODY).send().await.unwrap();
    assert_eq!(live.chunk().await.unwrap().unwrap(), events[0], "before its end");
    drop(live);
    let metrics = server.get("/metrics").await;
    let counted = r#"likewise_answers_not_stored_total{reason="stream"} 2"#;
    assert!(metrics.body.as_str().unwrap().contains(counted));
}

#[tokio::test]
async fn concurrent_equal_requests_are_one_call() {
    let (_dir, upstream, server) = start().await;
    let held = upstream.hold().await;
    let release = async {
        until("one call is made", async || upstream.calls() == 1).await;
        drop(held);
    };
    let (one, two, ()) = tokio::join!(ask(&server, &[], BODY), ask(&server, &[], BODY), release);
    assert_eq!((one.status, &one.body), (200, &two.body));
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn an_expired_answer_stands_in_for_an_upstream_that_fails() {
    let (_dir, upstream, server) = start().await;
    let briefly = [("x-cache-ttl", "1")];
    let first = ask(&server, &briefly, BODY).await;
    // Before it is stored it is not in the cache either.
    quiet(&server).await;
    upstream.usually(Mode::Reply(503, vec![JSON], "{}".into()));
    until("it expires", async || {
        let answer = ask(&server, &[("cache-control", "only-if-cached")], BODY).await;
        answer.status == 504
    })
    .await;
    let old = ask(&server, &briefly, BODY).await;
    assert!(status(&old).starts_with("fwd=stale; fwd-status=503"), "{}", status(&old));
    assert_eq!((old.status, old.body), (200, first.body));
}

#[tokio::test]
async fn other_methods_and_paths_beside_it_are_passed_on() {
    let (_dir, upstream, server) = start().await;
    let other = server.ask("POST", "/v1/audio/translations", &[JSON], BODY).await;
    assert_eq!((other.status, status(&other)), (200, "fwd=bypass"));
    let get = server.ask("GET", PATH, &[], "").await;
    assert_eq!(get.status, 404, "a GET of it is not in upstream.forwards");
    let unreadable = ask(&server, &[], r#"{"model": 7}"#).await;
    assert_eq!((unreadable.status, unreadable.error().1), (400, Some("model")));
    assert_eq!(upstream.calls(), 1);
}

#[test]
fn a_path_of_this_server_is_refused_at_the_start() {
    let dir = TempDir::new().unwrap();
    for path in ["/v1/invalidate", "/v1/embeddings", "/v1/answers/x", "/v1/models/m", "/v1/rerank"] {
        let routes = format!("[[answers.routes]]\npath = \"{path}\"\nttl_seconds = 60\n");
        let refused = output(&mut program(dir.path(), &routes));
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains("answers.routes[0].path"), "{path}: {said}");
    }
}

#[tokio::test]
async fn a_route_of_a_dialect_has_defaults_of_its_own() {
    let routes = "[[answers.routes]]\npath = \"/v1/responses\"\ncache_tool_calls = true\nttl_seconds = 77\n";
    let (_dir, _upstream, server) = start_with(routes).await;
    let ask = async |path: &str, body: Value| server.ask("POST", path, &[], body.to_string()).await;
    let response =
        |cache: Value| json!({ "model": "m", "input": "call a tool", "store": false, "cache": cache });
    let chat = json!({ "model": "m", "messages": [{ "role": "user", "content": "call a tool" }] });
    for _ in 0..2 {
        assert_eq!(ask(CHAT, chat.clone()).await.header("x-likewise-reason"), "tool_calls", "another route");
        let refused = ask("/v1/responses", response(json!({ "tool_calls": false }))).await;
        assert_eq!(refused.header("x-likewise-reason"), "tool_calls", "the request decides");
    }
    assert_eq!(status(&ask("/v1/responses", response(json!({}))).await), "fwd=miss");
    let hit = ask("/v1/responses", response(json!({}))).await;
    assert!(is_hit(&hit));
    let ttl = status(&hit).split("ttl=").nth(1).and_then(|rest| rest.split(';').next()).unwrap();
    assert!((60..=77).contains(&ttl.parse::<u32>().unwrap()), "{ttl}");
}

#[tokio::test]
async fn a_key_of_the_client_holds_on_its_own_route() {
    let (_dir, _upstream, server) = start().await;
    let key = [JSON, ("x-cache-key", "k1")];
    let ask = async |path: &str| server.ask("POST", path, &key, BODY).await;
    assert_eq!(status(&ask(PATH).await), "fwd=miss");
    assert!(is_hit(&ask(PATH).await));
    assert_eq!(status(&ask("/v1/messages/count_tokens").await), "fwd=miss", "another route");
}

#[tokio::test]
async fn routes_below_responses_are_never_shared_between_credentials() {
    let routes = "[answers]\nshare_across_keys = true\n\
        [[answers.routes]]\npath = \"/v1/responses/compact\"\nttl_seconds = 60\n\
        [[answers.routes]]\npath = \"/v1/moderations\"\nttl_seconds = 60\n";
    let (_dir, upstream, server) = start_with(routes).await;
    upstream.usually(reply(r#"{"id": "1"}"#));
    for (path, is_shared) in [("/v1/responses/compact", false), (PATH, true)] {
        let ask = async |key| server.ask("POST", path, &[JSON, ("authorization", key)], BODY).await;
        assert!(!is_hit(&ask("Bearer one").await));
        assert_eq!(is_hit(&ask("Bearer two").await), is_shared, "{path}");
        assert!(is_hit(&ask("Bearer one").await));
    }
}
