//! Answers of language models: asked once. Each test is a promise, or a defect that such caches in the field have had.

use std::path::Path;

use futures_util::{Stream, StreamExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::program::{Answer, Server, likewise, until};
use crate::upstream::{Mode, Upstream};

const CHAT: &str = "/v1/chat/completions";

fn start_in(dir: &Path, upstream: &Upstream, environment: &[(&str, &str)]) -> Server {
    let mut program = likewise("serve", dir);
    program.arg("--upstream").arg(&upstream.url).env("OPENAI_API_KEY", "sk-ours");
    program.env("LIKEWISE__UPSTREAM__BACKOFF_MS", "1").envs(environment.iter().copied());
    Server::spawn(&mut program)
}

/// A server before a model of its own.
async fn start(environment: &[(&str, &str)]) -> (TempDir, Upstream, Server) {
    let (dir, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let server = start_in(dir.path(), &upstream, environment);
    (dir, upstream, server)
}

fn question(text: &str) -> Value {
    json!({ "model": "gpt-5", "messages": [{ "role": "system", "content": "be kind" }, { "role": "user", "content": text }] })
}

fn with(mut body: Value, more: Value) -> Value {
    let fields = more.as_object().expect("an object").clone();
    body.as_object_mut().expect("an object").extend(fields);
    body
}

async fn ask(server: &Server, body: &Value) -> Answer {
    server.ask("POST", CHAT, &[], body.to_string()).await
}

fn status(answer: &Answer) -> &str {
    let status = answer.header("cache-status");
    status.strip_prefix("likewise; ").unwrap_or_else(|| panic!("{status:?}: {}", answer.body))
}

fn is_hit(answer: &Answer) -> bool {
    assert_eq!(answer.status, 200, "{}", answer.body);
    status(answer).starts_with("hit")
}

/// What a client makes of a stream, as OpenAI's own does: deltas added up, by choice.
fn accumulated(answer: &Answer) -> Value {
    let text = answer.body.as_str().expect("a stream is no JSON");
    assert_eq!(answer.header("content-type"), "text/event-stream");
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    let mut assembly = likewise::upstream::Assembly::default();
    text.split("\n\n")
        .filter_map(|event| event.strip_prefix("data: "))
        .for_each(|data| _ = assembly.push(data));
    serde_json::from_slice(&assembly.finish().expect("it adds up")).unwrap()
}

/// Without what names one delivery, and with the defaults that JSON and streams spell differently.
fn normalised(mut answer: Value) -> Value {
    let members = answer.as_object_mut().expect("an answer");
    members.remove("id");
    members.remove("created");
    answer
}

#[tokio::test]
async fn a_question_is_asked_once() {
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
    assert_eq!(normalised(second.body), normalised(first.body));
    assert_eq!(upstream.calls(), 1);
    let counts = [server.stat("/answers/hits").await, server.stat("/answers/misses").await];
    assert_eq!(counts, [1, 1]);
    assert_eq!(server.stat("/answers/saved_tokens").await, 30);
    assert_eq!(server.stat("/answers/spent_tokens").await, 30);
}

#[tokio::test]
async fn an_answer_is_the_same_in_both_forms_whichever_came_first() {
    let (_dir, upstream, server) = start(&[("LIKEWISE__ANSWERS__KEEPS_TOOL_CALLS", "true")]).await;
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
        assert_eq!(normalised(hit.body), normalised(miss.body.clone()), "{place}");
        assert_eq!(normalised(accumulated(&as_stream)), normalised(miss.body), "{place}");

        let two = with(body.clone(), json!({ "seed": 2 }));
        let miss = ask(&server, &streamed(&two)).await;
        assert!(!is_hit(&miss));
        let (hit, as_json) = (ask(&server, &streamed(&two)).await, ask(&server, &two).await);
        assert!(is_hit(&hit) && is_hit(&as_json), "{place}");
        assert_eq!(normalised(accumulated(&hit)), normalised(accumulated(&miss)), "{place}");
        assert_eq!(normalised(as_json.body), normalised(accumulated(&miss)), "{place}");
        let chunks = hit.body.as_str().unwrap().matches("data: ").count();
        assert!(chunks > 3, "{chunks} chunks: one giant one is no stream");
    }
    assert_eq!(upstream.calls(), 2 * questions.len());
}

#[tokio::test]
async fn what_a_stream_used_is_told_only_to_those_who_ask() {
    let (_dir, upstream, server) = start(&[]).await;
    let body = with(question("how much?"), json!({ "stream": true }));
    let miss = ask(&server, &body).await;
    assert!(upstream.seen()[0].body.contains("include_usage"), "the model is asked");
    assert!(accumulated(&miss).get("usage").is_none(), "{}", miss.body);
    assert!(accumulated(&ask(&server, &body).await).get("usage").is_none());
    let asked = with(body, json!({ "stream_options": { "include_usage": true } }));
    assert_eq!(accumulated(&ask(&server, &asked).await)["usage"]["total_tokens"], 30);
    let whole = ask(&server, &question("how much?")).await;
    assert!(is_hit(&whole));
    assert_eq!(whole.body["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn a_thousand_who_ask_the_same_at_once_cost_one_call() {
    // Of so many one is a stream; none where there is no number.
    let forms = [("json", None), ("events", Some(1)), ("mixed", Some(2))];
    for (name, every) in forms {
        let (_dir, upstream, server) = start(&[]).await;
        let held = upstream.hold().await;
        let asks = (0..1000).map(|n| {
            let body = with(
                question("the same"),
                json!({ "stream": every.is_some_and(|every| n % every == 0), "temperature": 0.25 }),
            );
            let server = &server;
            async move { ask(server, &body).await }
        });
        let let_go = async {
            // Some are still on their way when the answer comes: they find it, or join.
            until("most are in flight", async || in_flight(&server).await >= 900).await;
            drop(held);
        };
        let (answers, ()) = futures_util::future::join(futures_util::future::join_all(asks), let_go).await;
        assert_eq!(upstream.calls(), 1, "{name}");
        let text = |answer: &Answer| {
            let whole = if answer.body.is_string() { accumulated(answer) } else { answer.body.clone() };
            whole["choices"].clone()
        };
        let first = text(&answers[0]);
        assert!(answers.iter().all(|answer| answer.status == 200 && text(answer) == first), "{name}");
        let misses = answers.iter().filter(|answer| status(answer) == "fwd=miss").count();
        assert_eq!(misses, 1, "{name}");
    }
}

async fn in_flight(server: &Server) -> u64 {
    let metrics = server.get("/metrics").await.body;
    let mut lines = metrics.as_str().unwrap().lines();
    let line = lines.find_map(|line| line.strip_prefix("likewise_http_requests_in_flight "));
    line.unwrap().parse().unwrap()
}

/// Waits until no answer is being made.
async fn quiet(server: &Server) {
    until("no answer is being made", async || server.stat("/answers/in_flight").await == 0).await;
}

/// A stream that is read as it comes.
async fn open(server: &Server, body: &Value) -> impl Stream<Item = reqwest::Result<Vec<u8>>> + Unpin {
    let response =
        server.client().post(format!("{}{CHAT}", server.url())).body(body.to_string()).send().await.unwrap();
    assert_eq!(response.status(), 200);
    Box::pin(futures_util::stream::unfold(Some(response), |response| async move {
        let mut response = response?;
        match response.chunk().await.transpose()? {
            Ok(bytes) => Some((Ok(bytes.to_vec()), Some(response))),
            Err(error) => Some((Err(error), None)),
        }
    }))
}

#[tokio::test]
async fn streams_go_through_as_they_come_also_to_those_who_join() {
    let (_dir, upstream, server) = start(&[]).await;
    let held = upstream.hold_tail().await;
    let body = with(question("slowly"), json!({ "stream": true }));
    let mut leader = open(&server, &body).await;
    let first = leader.next().await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&first).contains("assistant"));
    // The model is still speaking, and whoever joins now hears it from its first word.
    let mut follower = open(&server, &body).await;
    let joined = follower.next().await.unwrap().unwrap();
    assert!(joined.starts_with(&first) || first.starts_with(&joined));
    drop(held);
    let rest = |stream: Vec<reqwest::Result<Vec<u8>>>| {
        stream.into_iter().map(|bytes| bytes.unwrap()).collect::<Vec<_>>().concat()
    };
    let (one, two) = (rest(leader.collect().await), rest(follower.collect().await));
    assert_eq!([first, one].concat(), [joined, two].concat());
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn what_is_no_whole_answer_is_passed_on_and_never_kept() {
    let (_dir, upstream, server) = start(&[("LIKEWISE__UPSTREAM__RETRIES_MAX", "0")]).await;
    let error =
        json!({ "error": { "message": "bad things", "type": "server_error", "param": null, "code": "x" } });
    let reply = |status, body: &str| {
        Mode::Reply(status, vec![("content-type", "application/json"), ("retry-after", "7")], body.to_owned())
    };
    let modes = [
        (reply(400, &error.to_string()), 400),
        (reply(401, &error.to_string()), 401),
        (reply(404, &error.to_string()), 404),
        (reply(429, &error.to_string()), 429),
        (reply(500, &error.to_string()), 500),
        (reply(503, &error.to_string()), 503),
        (reply(200, &error.to_string()), 200),
        (reply(200, "{\"choices\": [{\"finish_re"), 200),
        (reply(200, "<html>busy</html>"), 200),
        (reply(200, "{}"), 200),
        (reply(204, ""), 204),
        (Mode::Ending("length"), 200),
        (Mode::Ending("content_filter"), 200),
    ];
    for (place, (mode, code)) in modes.into_iter().enumerate() {
        for stream in [false, true] {
            let body = with(question("fragile"), json!({ "stream": stream, "seed": place }));
            upstream.next(mode.clone());
            let failed = ask(&server, &body).await;
            assert_eq!((failed.status, status(&failed)), (code, "fwd=miss"), "{mode:?}");
            if let Mode::Reply(_, _, body) = &mode {
                let shown = failed.body.as_str().map_or_else(|| failed.body.to_string(), str::to_owned);
                let same = serde_json::from_str::<Value>(body).is_ok_and(|body| body == failed.body);
                assert!(same || *body == shown, "{mode:?}: passed on as {shown}");
                assert_eq!(failed.header("retry-after"), "7");
            }
        }
        let body = with(question("fragile"), json!({ "seed": place }));
        let calls = upstream.calls();
        assert!(!is_hit(&ask(&server, &body).await), "{mode:?} was kept");
        assert_eq!(upstream.calls(), calls + 1);
        assert!(is_hit(&ask(&server, &body).await), "an answer after a failure is kept");
    }
}

#[tokio::test]
async fn a_stream_that_breaks_is_passed_on_as_broken_and_never_kept() {
    let (_dir, upstream, server) = start(&[]).await;
    let body = with(question("cut me"), json!({ "stream": true }));
    upstream.next(Mode::Cut);
    let held = upstream.hold_tail().await;
    let mut broken = open(&server, &body).await;
    let first = broken.next().await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&first).contains("half of an"));
    drop(held);
    assert!(matches!(broken.next().await, Some(Err(_))), "no client may take the part for the whole");
    let chunk = |content: &str| {
        let delta = json!({ "content": content });
        format!(
            "data: {}\n\n",
            json!({ "choices": [{ "index": 0, "delta": delta, "finish_reason": "stop" }] })
        )
    };
    let error = "data: {\"error\":{\"message\":\"overloaded\"}}\n\n".to_owned();
    let streams = [
        vec![chunk("a"), error.clone(), "data: [DONE]\n\n".into()],
        vec![error],
        vec![chunk("a")],
        vec![chunk("a"), "data: {nonsense\n\n".into(), "data: [DONE]\n\n".into()],
        vec!["data: [DONE]\n\n".into()],
        vec![],
    ];
    for events in streams {
        upstream.next(Mode::Events(events.clone()));
        let passed = ask(&server, &body).await;
        let shown = passed.body.as_str().map_or_else(String::new, str::to_owned);
        assert_eq!((passed.status, shown), (200, events.concat()), "passed on as it came");
    }
    assert!(!is_hit(&ask(&server, &body).await));
    assert!(is_hit(&ask(&server, &body).await));
}

#[tokio::test]
async fn a_failure_is_told_to_all_who_wait() {
    let (_dir, upstream, server) = start(&[("LIKEWISE__UPSTREAM__RETRIES_MAX", "0")]).await;
    let held = upstream.hold().await;
    let error = json!({ "error": { "message": "slow down", "type": "rate_limit_error" } }).to_string();
    upstream.next(Mode::Reply(429, vec![("retry-after", "9")], error));
    let asks = (0..20).map(|n| {
        let body = with(question("all fail"), json!({ "stream": n % 2 == 0 }));
        let server = &server;
        async move { ask(server, &body).await }
    });
    let let_go = async {
        until("all are in flight", async || in_flight(&server).await >= 21).await;
        // They are in the server; that they have joined shows by what they are told.
        drop(held);
    };
    let (answers, ()) = futures_util::future::join(futures_util::future::join_all(asks), let_go).await;
    let told =
        answers.iter().filter(|answer| answer.status == 429 && answer.header("retry-after") == "9").count();
    assert!(told >= 2 && told + upstream.calls() > 20, "{told} of 20 were told, {} calls", upstream.calls());
}

#[tokio::test]
async fn whoever_asks_otherwise_gets_an_answer_of_his_own() {
    let (_dir, upstream, server) = start(&[]).await;
    let base = question("which one?");
    let others = [
        json!({ "model": "gpt-6" }),
        json!({ "messages": [{ "role": "user", "content": "which one?" }] }),
        json!({ "messages": [{ "role": "system", "content": "be cruel" }, { "role": "user", "content": "which one?" }] }),
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
    let respelled = r#"{ "messages" : [ {"content":"be kind","role":"system"}, {"content":"which one?", "role":"\u0075ser"} ],
        "stream": false, "model":"gpt-5" }"#;
    assert!(is_hit(&server.ask("POST", CHAT, &[], respelled).await), "order and spelling do not matter");
    let plain = ask(&server, &question("Which one")).await;
    assert!(is_hit(&plain) && plain.header("cache-status").ends_with("detail=memory-normalised"));
    assert!(!is_hit(&ask(&server, &question("which ones?")).await));
}

#[tokio::test]
async fn lists_of_parts_are_questions_too() {
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
async fn credentials_share_nothing_unless_told_to() {
    let bearer = |key: &str| format!("Bearer {key}");
    let ask_as = async |server: &Server, key: &str| {
        server.ask("POST", CHAT, &[("authorization", &bearer(key))], question("mine").to_string()).await
    };
    let (_dir, upstream, server) = start(&[("LIKEWISE__UPSTREAM__PASSES_KEY", "true")]).await;
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

    let (_dir, _upstream, server) = start(&[keys, ("LIKEWISE__ANSWERS__SHARES_BETWEEN_KEYS", "true")]).await;
    assert!(!is_hit(&ask_as(&server, "secret-one").await));
    assert!(is_hit(&ask_as(&server, "secret-two").await));
}

#[tokio::test]
async fn what_is_not_understood_goes_through_untouched() {
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
        r#"{"messages":[{"role":"user","content":"h"}],"x":[ 1.50 ],"model":"m"}"#
    );
}

#[tokio::test]
async fn warm_requests_and_tools_pass_by_unless_switched_on() {
    let (_dir, upstream, server) = start(&[]).await;
    let warm = with(question("surprise me"), json!({ "temperature": 1.2 }));
    for _ in 0..2 {
        let answer = ask(&server, &warm).await;
        assert_eq!((status(&answer), answer.header("x-likewise-reason")), ("fwd=bypass", "temperature"));
    }
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
        ("LIKEWISE__ANSWERS__KEEPS_TOOL_CALLS", "true"),
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
async fn directives_are_obeyed() {
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
    let anew = cache(json!({ "no-cache": true })).await;
    assert_eq!(status(&anew), "fwd=request");
    let replaced = cache(json!({})).await;
    assert!(is_hit(&replaced));
    assert_eq!(replaced.body["choices"], anew.body["choices"], "no-cache refreshes what is kept");
    assert_ne!(replaced.body["choices"], old.body["choices"]);
    assert!(is_hit(&cache(json!({ "s-maxage": 3600 })).await));
    let by_header =
        server.ask("POST", CHAT, &[("cache-control", "no-cache")], question("direct me").to_string()).await;
    assert_eq!(status(&by_header), "fwd=request");
}

#[tokio::test]
async fn what_an_answer_depends_on_hides_it() {
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
    // Softly: served once more while it is made anew.
    let calls = upstream.calls();
    invalidate(json!({ "tags": ["product:42"], "mode": "soft" })).await;
    let stale = ask(&server, &body).await;
    assert!(is_hit(&stale) && stale.header("cache-status").ends_with("-stale"), "{}", status(&stale));
    until("it is made anew", async || upstream.calls() > calls).await;
    quiet(&server).await;
    let fresh = ask(&server, &body).await;
    assert!(is_hit(&fresh) && !fresh.header("cache-status").ends_with("-stale"));
    assert_ne!(fresh.body["choices"], stale.body["choices"]);
    assert_eq!(upstream.calls(), calls + 1, "one request makes it anew");
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
async fn whoever_asks_after_an_invalidation_gets_no_answer_from_before_it() {
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
                until("it is made anew", async || upstream.calls() > calls + 1).await;
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
async fn one_answer_can_be_removed_by_its_name() {
    let (_dir, _upstream, server) = start(&[]).await;
    ask(&server, &question("wrong?")).await;
    let hit = ask(&server, &question("wrong?")).await;
    let path = format!("/v1/answers/{}", hit.header("x-likewise-answer-id"));
    assert_eq!(server.ask("DELETE", &path, &[], "").await.status, 204);
    assert!(!is_hit(&ask(&server, &question("wrong?")).await));
    let bad = server.ask("DELETE", "/v1/answers/x", &[], "").await;
    assert_eq!((bad.status, bad.error().1), (400, Some("id")));
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
async fn what_nobody_waits_for_is_stopped_unless_it_is_to_be_finished() {
    let (_dir, upstream, server) = start(&[]).await;
    let held = upstream.hold_tail().await;
    let body = with(question("leave"), json!({ "stream": true }));
    let mut one = open(&server, &body).await;
    let mut two = open(&server, &body).await;
    assert!(one.next().await.is_some() && two.next().await.is_some());
    drop(one);
    // One still waits, so the model goes on for it.
    drop(held);
    assert!(
        two.map(|bytes| bytes.unwrap()).collect::<Vec<_>>().await.concat().ends_with(b"data: [DONE]\n\n")
    );
    let body = with(question("leave again"), json!({ "stream": true }));
    let held = upstream.hold_tail().await;
    let mut one = open(&server, &body).await;
    assert!(one.next().await.is_some());
    drop(one);
    upstream.cancelled(1).await;
    drop(held);
    quiet(&server).await;
    assert!(!is_hit(&ask(&server, &body).await), "half an answer was kept");

    let (_dir, upstream, server) = start(&[("LIKEWISE__ANSWERS__FINISH_ABANDONED", "true")]).await;
    let held = upstream.hold_tail().await;
    let mut one = open(&server, &body).await;
    assert!(one.next().await.is_some());
    drop(one);
    drop(held);
    quiet(&server).await;
    assert!(is_hit(&ask(&server, &body).await));
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn attempts_are_repeated_before_the_first_byte_only() {
    let (_dir, upstream, server) = start(&[("LIKEWISE__UPSTREAM__BACKOFF_MS_MAX", "2000")]).await;
    let unavailable = || Mode::Reply(503, vec![], "{}".into());
    upstream.next(unavailable());
    upstream.next(Mode::Reply(429, vec![("retry-after", "0")], "{}".into()));
    assert_eq!(ask(&server, &question("retry")).await.status, 200);
    assert_eq!((upstream.calls(), server.stat("/answers/retries").await), (3, 2));
    upstream.next(Mode::Reply(429, vec![("retry-after", "60")], "{}".into()));
    let busy = ask(&server, &question("wait")).await;
    assert_eq!(
        (busy.status, busy.header("retry-after"), upstream.calls()),
        (429, "60", 4),
        "too long to wait for"
    );
    upstream.next(Mode::Reply(500, vec![], "{}".into()));
    assert_eq!((ask(&server, &question("broken")).await.status, upstream.calls()), (500, 5));
    (0..3).for_each(|_| upstream.next(unavailable()));
    assert_eq!((ask(&server, &question("never")).await.status, upstream.calls()), (503, 8));
}

#[tokio::test]
async fn an_upstream_that_is_down_or_silent_is_told_in_the_shape_of_every_error() {
    let dir = TempDir::new().unwrap();
    let mut program = likewise("serve", dir.path());
    program.args(["--upstream", "http://127.0.0.1:9/v1"]).env("LIKEWISE__UPSTREAM__BACKOFF_MS", "1");
    let server = Server::spawn(&mut program);
    let down = ask(&server, &question("anybody?")).await;
    assert_eq!((down.status, down.error().0), (502, "upstream_error"));

    let (_dir, upstream, server) = start(&[("LIKEWISE__UPSTREAM__TOTAL_MS", "200")]).await;
    let held = upstream.hold().await;
    let late = ask(&server, &question("anybody?")).await;
    assert_eq!((late.status, late.error().0), (504, "timeout"));
    drop(held);
    let (_dir, upstream, server) = start(&[("LIKEWISE__UPSTREAM__IDLE_MS", "200")]).await;
    let held = upstream.hold_tail().await;
    let body = with(question("anybody?"), json!({ "stream": true }));
    let mut silent = open(&server, &body).await;
    let last = loop {
        match silent.next().await {
            Some(Ok(_)) => {}
            end => break end,
        }
    };
    assert!(matches!(last, Some(Err(_))), "a silent stream is cut off");
    drop(held);
}

#[tokio::test]
async fn bad_requests_are_refused_before_anything_is_sent() {
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
        (with(base(), json!({ "cache": { "namespace": "a b" } })).to_string(), 400, Some("namespace")),
        (with(base(), json!({ "x": "a".repeat(5000) })).to_string(), 413, None),
    ];
    for (body, code, param) in cases {
        let shown: String = body.chars().take(80).collect();
        let answer = server.ask("POST", CHAT, &[], body).await;
        assert_eq!((answer.status, answer.error().1), (code, param), "{shown}: {}", answer.body);
    }
    assert_eq!(upstream.calls(), 0);
}

#[tokio::test]
async fn other_routes_are_passed_on_uncached_and_none_without_an_upstream() {
    let (_dir, upstream, server) = start(&[]).await;
    upstream.usually(Mode::Reply(201, vec![("x-own", "1"), ("content-type", "text/plain")], "made".into()));
    for _ in 0..2 {
        let body = json!({ "model": "m", "prompt": "a" }).to_string();
        let answer = server.ask("POST", "/v1/completions?a=b", &[("x-custom", "c")], body).await;
        assert_eq!((answer.status, answer.body.as_str(), answer.header("x-own")), (201, Some("made"), "1"));
        assert_eq!((answer.header("content-type"), status(&answer)), ("text/plain", "fwd=bypass"));
    }
    let seen = upstream.seen().remove(1);
    assert_eq!((seen.path.as_str(), seen.header("x-custom")), ("/v1/completions?a=b", Some("c")));
    assert_eq!(seen.header("authorization"), Some("Bearer sk-ours"));
    assert_eq!(server.get("/v1/files/f-1/content").await.status, 201);
    assert_eq!(server.get("/v1/a/%2e%2E/%2e%2e/admin").await.status, 404, "no path climbs out");
    assert_eq!(server.get("/nothing").await.status, 404);
    assert_eq!(upstream.calls(), 3);
    let alone = Server::start();
    for path in [CHAT, "/v1/completions"] {
        let answer = alone.ask("POST", path, &[], question("x").to_string()).await;
        assert_eq!((answer.status, answer.error().0), (404, "not_found"));
    }
}

#[tokio::test]
async fn models_go_to_the_upstreams_of_their_routes() {
    let (dir, one, two) = (TempDir::new().unwrap(), Upstream::start().await, Upstream::start().await);
    let config = format!(
        "[[upstream.routes]]\nmodels = [\"small\"]\nbase_urls = [\"{}\"]\n\
         [[upstream.routes]]\nmodels = [\"big-*\"]\nbase_urls = [\"http://127.0.0.1:9/v1\", \"{}\"]\n\
         [[upstream.prices]]\nmodels = [\"big-*\"]\nprompt_usd_per_million = 100\ncompletion_usd_per_million = 1000\n",
        one.url, two.url
    );
    fs_err::write(dir.path().join("config.toml"), config).unwrap();
    let mut program = likewise("serve", &dir.path().join("data"));
    program.arg("--config").arg(dir.path().join("config.toml")).env_remove("OPENAI_API_KEY");
    let server = Server::spawn(&mut program);
    let model = |name: &str| with(question("route me"), json!({ "model": name }));
    assert_eq!(ask(&server, &model("small")).await.status, 200);
    assert_eq!(
        ask(&server, &model("big-1")).await.status,
        200,
        "the second address answers where the first does not"
    );
    assert_eq!((one.calls(), two.calls()), (1, 1));
    assert_eq!(one.seen()[0].header("authorization"), None);
    let hit = ask(&server, &model("big-1")).await;
    assert_eq!(hit.header("x-likewise-cost-saved-usd"), "0.012000");
    let unknown = ask(&server, &model("other")).await;
    assert_eq!((unknown.status, unknown.error()), (404, ("model_not_found", Some("model"))));
}

#[tokio::test]
async fn answers_can_be_given_and_found_without_an_upstream() {
    let server = Server::start();
    let post = async |path: &str, body: Value| server.ask("POST", path, &[], body.to_string()).await;
    let scope = json!({ "model": "m", "shop": [1, 2.0] });
    let lookup = async |prompt: &str, scope: &Value| {
        let answer = post("/v1/answers/lookup", json!({ "prompt": prompt, "scope": scope })).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    };
    let missing = lookup("¿Cuánto cuesta?", &scope).await;
    assert_eq!((&missing["hit"], &missing["answer"]), (&json!(false), &Value::Null));
    assert!(missing["reason"].is_string());
    let given = json!({ "prompt": "¿Cuánto cuesta?", "answer": "19,90 €", "scope": scope, "tags": ["product:42"], "ttl": 60 });
    let given = post("/v1/answers", given).await;
    assert_eq!(given.status, 201, "{}", given.body);
    let exact = lookup("¿Cuánto cuesta?", &json!({ "shop": [1, 2], "model": "m" })).await;
    assert_eq!(
        (&exact["layer"], &exact["answer"], &exact["id"]),
        (&json!("exact"), &json!("19,90 €"), &given.body["id"])
    );
    assert_eq!(lookup("cuánto cuesta", &scope).await["layer"], "normalised");
    assert_eq!(lookup("cuanto cuesta", &scope).await["hit"], false, "an accent makes another word");
    assert_eq!(lookup("¿Cuánto cuesta?", &json!({ "model": "n" })).await["hit"], false);
    let invalidated = post("/v1/invalidate", json!({ "tags": ["product:42"] })).await;
    assert_eq!(invalidated.status, 200);
    assert_eq!(lookup("¿Cuánto cuesta?", &scope).await["hit"], false);
    for (body, param) in [
        (json!({ "prompt": "", "answer": "a" }), "prompt"),
        (json!({ "prompt": "a" }), "answer"),
        (json!({ "prompt": "a", "answer": "a", "ttl": 0 }), "ttl"),
        (json!({ "prompt": "a", "answer": "a", "tags": ["x y"] }), "tags"),
        (json!({ "prompt": "a", "answer": "a", "scope": { "seed": 1e300 } }), "scope"),
    ] {
        let refused = post("/v1/answers", body.clone()).await;
        assert_eq!((refused.status, refused.error().1), (400, Some(param)), "{body}");
    }
}
