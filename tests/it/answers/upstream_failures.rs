//! Goal: failures of an upstream are retried, reported, and never stored. Method: an upstream that fails in each way.

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{accumulated, ask, is_hit, open, question, quiet, start, status, with};
use crate::program::{Server, likewise};
use crate::upstream::{Mode, Upstream};

#[tokio::test]
async fn an_incomplete_answer_is_forwarded_and_never_stored() {
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

#[tokio::test]
async fn a_stream_that_breaks_is_forwarded_as_broken_and_never_stored() {
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
async fn a_stream_too_long_to_be_held_is_forwarded() {
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

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_list_of_models_is_logged_once_until_there_is_one_again() {
    let (dir, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let log = dir.path().join("log");
    let mut program = likewise("serve", &dir.path().join("data"));
    program.arg("--upstream").arg(&upstream.url).env("OPENAI_API_KEY", "sk-ours").env("LIKEWISE_LOG", "info");
    program.stderr(fs_err::File::create(&log).unwrap().into_parts().0);
    let server = tokio::task::block_in_place(|| Server::spawn(&mut program));
    let list = async |reply: &str| {
        upstream.next(Mode::Reply(200, vec![], reply.into()));
        assert_eq!(server.get("/v1/models").await.status, 200);
        let said = fs_err::read_to_string(&log).unwrap();
        let count = |what: &str| said.matches(what).count();
        (count("an upstream does not list its models"), count("an upstream lists its models again"))
    };
    assert_eq!(list("{\"data\":[]}").await, (0, 0));
    assert_eq!(list("no").await, (1, 0));
    assert_eq!(list("no").await, (1, 0));
    assert_eq!(list("{\"data\":[]}").await, (1, 1));
    assert_eq!(list("no").await, (2, 1));
    assert_eq!(crate::inflight::metric(&server, "likewise_upstream_failed_model_lists_total").await, 3);
}

/// An address of the configuration is wrong.
#[tokio::test]
async fn a_server_that_is_its_own_upstream_reports_a_loop() {
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
async fn retries_are_made_before_the_first_byte_only() {
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
async fn an_error_of_one_address_is_retried_at_the_next() {
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
async fn an_upstream_that_is_down_or_silent_is_reported_as_an_error() {
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
