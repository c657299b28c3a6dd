//! How an answer is made: once, to its end, and by an upstream that may fail in any way.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;

use super::{CHAT, accumulated, ask, in_flight, is_hit, open, question, quiet, start, status, with};
use crate::program::{Answer, Server, likewise, until};
use crate::upstream::{Mode, Upstream};

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

#[tokio::test]
async fn streams_go_through_as_they_come_also_to_those_who_join() {
    let (_dir, upstream, server) = start(&[]).await;
    let held = upstream.hold_tail().await;
    let body = with(question("slowly"), json!({ "stream": true }));
    let mut leader = open(&server, &body).await;
    let first = leader.next().await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&first).contains("assistant"));
    // The model is still speaking, and a follower that joins now gets it from its first word.
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

/// A model that takes its time must not keep out those whose answer is here.
#[tokio::test]
async fn those_who_wait_take_no_place_from_others() {
    const WAITING: usize = 5;
    let (_dir, upstream, server) = start(&[("LIKEWISE__HTTP__REQUESTS_MAX", "2")]).await;
    ask(&server, &question("known")).await;
    let held = upstream.hold().await;
    let slow: Vec<Value> = (0..WAITING).map(|n| question(&format!("slow {n}"))).collect();
    let mut waiting = FuturesUnordered::new();
    for (n, body) in slow.iter().enumerate() {
        waiting.push(ask(&server, body));
        tokio::select! {
            answer = waiting.next() => panic!("no answer is expected yet: {answer:?}"),
            () = until("it waits", async || upstream.calls() == 2 + n) => {}
        }
    }
    assert!(is_hit(&ask(&server, &question("known")).await));
    drop(held);
    let answers: Vec<Answer> = waiting.collect().await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
}

/// An operator looks at the numbers when all places are taken.
#[tokio::test]
async fn a_full_server_still_tells_how_it_fares() {
    let (_dir, _upstream, server) = start(&[("LIKEWISE__HTTP__REQUESTS_MAX", "1")]).await;
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{{");
    let address = server.url().strip_prefix("http://").unwrap();
    let mut unfinished = tokio::net::TcpStream::connect(address).await.unwrap();
    unfinished.write_all(head.as_bytes()).await.unwrap();
    until("it is being answered, beside the request for the numbers", async || in_flight(&server).await == 2)
        .await;
    assert_eq!(server.get("/v1/models").await.status, 429, "all places are taken");
    for path in ["/metrics", "/v1/stats", "/healthz"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    drop(unfinished);
    until("no other request is answered", async || in_flight(&server).await == 1).await;
    assert_eq!(server.get("/v1/models").await.status, 200);
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
        vec!["data: {\"object\":\"error\",\"message\":\"bad\"}\n\n".into(), "data: [DONE]\n\n".into()],
        vec!["event: error\ndata: {\"message\":\"bad\"}\n\n".into(), chunk("a"), "data: [DONE]\n\n".into()],
        vec![chunk("a").replace("\"stop\"", "null")],
        vec![chunk("a"), "data: {nonsense\n\n".into(), "data: [DONE]\n\n".into()],
        vec!["data: [DONE]\n\n".into()],
        vec![chunk("a"), chunk("b").trim_end_matches("}\n\n").into()],
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
    // Only the blank line behind the last event may be missing.
    let body = with(question("end abruptly"), json!({ "stream": true }));
    upstream.next(Mode::Events(vec![chunk("a"), "data: [DONE]".into()]));
    let first = ask(&server, &body).await;
    assert_eq!(first.body, format!("{}data: [DONE]", chunk("a")));
    let again = ask(&server, &body).await;
    assert!(is_hit(&again));
    assert_eq!(accumulated(&again)["choices"][0]["message"]["content"], "a");
}

/// A long stream was paid for, and is no less an answer for being too long to be kept.
#[tokio::test]
async fn a_stream_too_long_to_be_collected_goes_through() {
    let (_dir, upstream, server) = start(&[("LIKEWISE__UPSTREAM__ANSWER_BYTES_MAX", "2048")]).await;
    let chunk = |n: usize, reason: Value| {
        let choice =
            json!({ "index": 0, "delta": { "content": format!("word {n} ") }, "finish_reason": reason });
        format!("data: {}\n\n", json!({ "choices": [choice], "usage": null }))
    };
    let mut events: Vec<String> = (0..1000).map(|n| chunk(n, Value::Null)).collect();
    events.push(chunk(1000, json!("stop")));
    events.push(format!(
        "data: {}\n\n",
        json!({ "choices": [], "usage": { "prompt_tokens": 3, "completion_tokens": 4 } })
    ));
    events.push("data: [DONE]\n\n".into());
    upstream.usually(Mode::Events(events));
    let body = with(question("a saga"), json!({ "stream": true }));
    for _ in 0..2 {
        let heard = ask(&server, &body).await;
        let text = accumulated(&heard)["choices"][0]["message"]["content"].clone();
        assert!(text.as_str().unwrap().ends_with("word 999 word 1000 "));
        assert!(!heard.body.as_str().unwrap().contains("usage"), "no client has requested it");
        assert!(!is_hit(&heard));
    }
    quiet(&server).await;
    assert_eq!((upstream.calls(), server.stat("/answers/spent_tokens").await), (2, 14));
}

/// An address of the configuration is wrong.
#[tokio::test]
async fn a_server_that_is_its_own_upstream_says_so() {
    let dir = TempDir::new().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut program = likewise("serve", dir.path());
    program.arg("--upstream").arg(format!("http://{free}/v1"));
    let server = Server::spawn_at(&mut program, &free.to_string());
    let asked = ask(&server, &question("who am I?")).await;
    assert_eq!((asked.status, asked.error().0), (508, "loop_detected"), "{}", asked.body);
    assert_eq!(server.get("/v1/responses/r").await.status, 508);
    assert_eq!(server.get("/v1/models").await.status, 200, "its own model is listed once");
}

#[tokio::test]
async fn a_failure_reaches_all_waiters() {
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
        // They are in the server; that they have joined shows by their answers.
        drop(held);
    };
    let (answers, ()) = futures_util::future::join(futures_util::future::join_all(asks), let_go).await;
    let received =
        answers.iter().filter(|answer| answer.status == 429 && answer.header("retry-after") == "9").count();
    assert!(
        received >= 2 && received + upstream.calls() > 20,
        "{received} of 20 failed together, {} calls",
        upstream.calls()
    );
}

/// A refusal that depends on the caller or on the form of its request does not reach other callers.
#[tokio::test]
async fn a_refusal_reaches_only_the_callers_it_concerns() {
    const ASKING: usize = 20;
    let shared = [
        ("LIKEWISE__UPSTREAM__FORWARD_CLIENT_KEY", "true"),
        ("LIKEWISE__ANSWERS__SHARE_ACROSS_KEYS", "true"),
    ];
    let (_dir, upstream, server) = start(&shared).await;
    let refusal = |status| Mode::Reply(status, vec![], json!({ "error": { "message": "no" } }).to_string());
    let asks = |name: &'static str, keys: [&'static str; 2], streams: [bool; 2]| {
        let server = &server;
        (0..ASKING).map(move |n| async move {
            let body = with(question(name), json!({ "stream": streams[n % 2] }));
            let answer = server.ask("POST", CHAT, &[("authorization", keys[n % 2])], body.to_string()).await;
            (n % 2, answer.status)
        })
    };
    let cases = [
        (401, asks("who am I?", ["Bearer a", "Bearer b"], [false; 2])),
        (400, asks("in which form?", ["Bearer a"; 2], [false, true])),
    ];
    for (status, asks) in cases {
        let held = upstream.hold().await;
        upstream.next(refusal(status));
        let let_go = async {
            until("all are in flight", async || in_flight(&server).await > ASKING as u64).await;
            drop(held);
        };
        let (received, ()) = futures_util::future::join(futures_util::future::join_all(asks), let_go).await;
        let refused: Vec<usize> =
            received.iter().filter(|(_, received)| *received == status).map(|(kind, _)| *kind).collect();
        assert!(!refused.is_empty() && refused.iter().all(|kind| *kind == refused[0]), "{received:?}");
        assert!(received.iter().all(|(_, received)| [status, 200].contains(received)), "{received:?}");
    }
}

#[tokio::test]
async fn a_generation_without_waiters_is_aborted_unless_it_is_to_be_finished() {
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
    let past = "Fri, 31 Dec 1999 23:59:59 GMT";
    upstream.next(Mode::Reply(503, vec![("retry-after", past)], "{}".into()));
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
    // The upstream knows best.
    upstream.next(Mode::Reply(409, vec![("x-should-retry", "true")], "{}".into()));
    assert_eq!((ask(&server, &question("advised")).await.status, upstream.calls()), (200, 10));
    upstream.next(Mode::Reply(503, vec![("x-should-retry", "false")], "{}".into()));
    assert_eq!((ask(&server, &question("advised against")).await.status, upstream.calls()), (503, 11));
}

#[tokio::test]
async fn an_error_of_one_address_may_not_be_one_of_the_next() {
    let (dir, one, two) = (TempDir::new().unwrap(), Upstream::start().await, Upstream::start().await);
    let config =
        format!("[[upstream.routes]]\nmodels = [\"*\"]\nbase_urls = [\"{}\", \"{}\"]\n", one.url, two.url);
    fs_err::write(dir.path().join("config.toml"), config).unwrap();
    let mut program = likewise("serve", &dir.path().join("data"));
    program.arg("--config").arg(dir.path().join("config.toml"));
    let server = Server::spawn(&mut program);
    one.next(Mode::Reply(500, vec![], "{}".into()));
    assert_eq!(ask(&server, &question("works?")).await.status, 200);
    assert_eq!((one.calls(), two.calls()), (1, 1));
    [&one, &two].iter().for_each(|each| each.next(Mode::Reply(500, vec![], "{}".into())));
    assert_eq!(ask(&server, &question("fails?")).await.status, 500);
    assert_eq!((one.calls(), two.calls()), (2, 2), "neither is asked twice");
}

#[tokio::test]
async fn an_upstream_that_is_down_or_silent_is_reported_in_the_shape_of_every_error() {
    let dir = TempDir::new().unwrap();
    let mut program = likewise("serve", dir.path());
    program.args(["--upstream", "http://127.0.0.1:9/v1"]).env("LIKEWISE__UPSTREAM__BACKOFF_MS", "1");
    let server = Server::spawn(&mut program);
    let down = ask(&server, &question("is it there?")).await;
    assert_eq!((down.status, down.error().0), (502, "upstream_error"));

    let (_dir, upstream, server) = start(&[("LIKEWISE__UPSTREAM__TOTAL_MS", "200")]).await;
    let held = upstream.hold().await;
    let late = ask(&server, &question("is it there?")).await;
    assert_eq!((late.status, late.error().0), (504, "timeout"));
    let message = late.body["error"]["message"].as_str().unwrap();
    assert!(message.contains("200 ms (upstream.total_ms)"), "{message}");
    drop(held);
    let (_dir, upstream, server) = start(&[("LIKEWISE__UPSTREAM__IDLE_MS", "200")]).await;
    let held = upstream.hold_tail().await;
    let body = with(question("is it there?"), json!({ "stream": true }));
    let mut silent = open(&server, &body).await;
    let mut heard = Vec::new();
    let last = loop {
        match silent.next().await {
            Some(Ok(bytes)) => heard.extend(bytes),
            end => break end,
        }
    };
    assert!(matches!(last, Some(Err(_))), "a silent stream is cut off");
    let heard = String::from_utf8(heard).unwrap();
    let received = heard.trim_end().rsplit("data: ").next().unwrap();
    let received: Value = serde_json::from_str(received).expect("an event with an error");
    assert_eq!(received["error"]["code"], "timeout", "{received}");
    // Nor does it stand behind half an event.
    upstream.next(Mode::Silent("data: {\"choices\":[".into()));
    let body = with(question("half a word?"), json!({ "stream": true }));
    let mut silent = open(&server, &body).await;
    let received = silent.next().await.unwrap().unwrap();
    let received = std::str::from_utf8(&received).unwrap().strip_prefix("data: ").unwrap();
    assert_eq!(serde_json::from_str::<Value>(received).unwrap()["error"]["code"], "timeout");
    assert!(matches!(silent.next().await, Some(Err(_))));
    drop(held);
}

#[tokio::test]
async fn other_routes_are_passed_on_uncached_and_none_without_an_upstream() {
    let (_dir, upstream, server) = start(&[]).await;
    upstream.usually(Mode::Reply(
        201,
        vec![("request-id", "1"), ("content-type", "text/plain")],
        "made".into(),
    ));
    for _ in 0..2 {
        let body = json!({ "model": "m", "input": "a" }).to_string();
        let answer = server.ask("POST", "/v1/moderations?a=b", &[("x-custom", "c")], body).await;
        assert_eq!(
            (answer.status, answer.body.as_str(), answer.header("request-id")),
            (201, Some("made"), "1")
        );
        assert_eq!((answer.header("content-type"), status(&answer)), ("text/plain", "fwd=bypass"));
    }
    let seen = upstream.seen().remove(1);
    assert_eq!((seen.path.as_str(), seen.header("x-custom")), ("/v1/moderations?a=b", Some("c")));
    assert_eq!(seen.header("authorization"), Some("Bearer sk-ours"));
    assert_eq!(server.get("/v1/responses/r-1").await.status, 201);
    assert_eq!(server.get("/v1/models/own").await.status, 201);
    assert_eq!(server.ask("PUT", "/v1/invalidate", &[], "").await.status, 405);
    for path in ["a/%2e%2E/%2e%2e/admin", "..;/admin", "/answers", "%61nswers", "embeddings/"] {
        let answer = server.ask("POST", &format!("/v1/{path}"), &[], "ours").await;
        assert_eq!(answer.status, 404, "{path}: no path climbs out, and what is ours stays here");
    }
    for method in ["TRACE", "OPTIONS", "BREW"] {
        let refused = server.ask(method, "/v1/files", &[], "").await;
        assert_eq!(
            (refused.status, refused.header("allow")),
            (405, "GET, HEAD, POST, PUT, PATCH, DELETE"),
            "{method}"
        );
        assert_eq!(server.ask(method, CHAT, &[], "").await.status, 405, "{method}");
    }
    let kept_only = server.ask("GET", "/v1/responses/r-1", &[("cache-control", "only-if-cached")], "").await;
    assert_eq!(kept_only.status, 504, "nothing of it is kept, and the upstream is not called");
    let unclear = server.ask("POST", "/v1/moderations", &[], r#"{"model":"a","model":"b"}"#).await;
    assert_eq!((unclear.status, unclear.error()), (400, ("invalid_input", Some("model"))));
    assert_eq!(server.get("/nothing").await.status, 404);
    for slip in ["cache/products", "collections/a/document", "invalidate/all", "answers/a/b"] {
        let answer = server.ask("PUT", &format!("/v1/{slip}"), &[], "ours").await;
        assert!([404, 405].contains(&answer.status), "{slip}: {}", answer.body);
    }
    assert_eq!(upstream.calls(), 4);
    let alone = Server::start();
    for path in [CHAT, "/v1/completions"] {
        let answer = alone.ask("POST", path, &[], question("x").to_string()).await;
        assert_eq!((answer.status, answer.error().0), (404, "not_found"));
        let message = answer.body["error"]["message"].as_str().unwrap();
        assert!(message.contains("--upstream"), "{message}");
    }
    let message = alone.get("/nothing").await.body["error"]["message"].to_string();
    assert!(!message.contains("upstream"), "{message}");
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
    // What is listed can be asked for; an upstream that does not tell is known by what the configuration says of it.
    let described = |names: &[&str]| {
        let all: Vec<Value> = names.iter().map(|id| json!({ "id": id, "owned_by": "them" })).collect();
        Mode::Reply(200, vec![("content-type", "application/json")], json!({ "data": all }).to_string())
    };
    let listed = async || {
        let list = server.get("/v1/models").await.body;
        list["data"].as_array().unwrap().iter().map(|model| model["id"].to_string()).collect::<Vec<_>>()
    };
    one.usually(Mode::Reply(500, vec![], "no".into()));
    two.usually(described(&["big-1", "small", "big-2"]));
    assert_eq!(listed().await, [r#""fake-model""#, r#""small""#, r#""big-1""#, r#""big-2""#]);
    one.usually(described(&["small", "other"]));
    two.usually(Mode::Reply(200, vec![], "[]".into()));
    assert_eq!(listed().await, [r#""fake-model""#, r#""small""#]);
    two.usually(Mode::Reply(200, vec![], "a big one".into()));
    assert_eq!(server.get("/v1/models/big-2").await.body, "a big one");
    assert_eq!(server.get("/v1/models/big-2/of/many").await.body, "a big one");
    let form = "--x\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nbig-2\r\n--x--\r\n";
    let is_form = [("content-type", "multipart/form-data; boundary=x")];
    let heard = server.ask("POST", "/v1/audio/transcriptions", &is_form, form).await;
    assert_eq!((heard.status, heard.body.as_str()), (200, Some("a big one")));
    assert_eq!(server.get("/v1/models/other").await.error(), ("model_not_found", Some("model")));
    assert_eq!(server.get("/v1/models/fake-model").await.body["owned_by"], "likewise");
}
