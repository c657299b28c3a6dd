//! What is stored of a stream, and of replies of other shapes: all that was said, or nothing, with the reason.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{CHAT, accumulated, ask, counted, is_hit, normalized, question, quiet, start, status, with};
use crate::program::{Answer, Server};
use crate::upstream::{Mode, Upstream};

const DONE: &str = "data: [DONE]\n\n";
const JSON: (&str, &str) = ("content-type", "application/json");

fn chunk(choice: Value) -> String {
    let mut choice = choice;
    choice["index"] = 0.into();
    let chunk = json!({ "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice] });
    format!("data: {chunk}\n\n")
}

fn delta(delta: Value) -> String {
    chunk(json!({ "delta": delta, "finish_reason": null }))
}

fn end() -> String {
    chunk(json!({ "delta": {}, "finish_reason": "stop" }))
}

fn words() -> Vec<String> {
    vec![delta(json!({ "role": "assistant", "content": "ho" })), delta(json!({ "content": "la" })), end()]
}

fn whole(content: &str) -> Value {
    let message = json!({ "role": "assistant", "content": content });
    let choice = json!({ "index": 0, "message": message, "finish_reason": "stop" });
    json!({ "id": "own", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice] })
}

fn streamed(body: &Value) -> Value {
    with(body.clone(), json!({ "stream": true }))
}

/// The replies to one question: a stream of these events, and what a client that wants JSON gets afterwards.
async fn stream_then_whole(
    server: &Server,
    upstream: &Upstream,
    text: &str,
    events: Vec<String>,
) -> (Answer, Answer) {
    upstream.usually(Mode::Reply(200, vec![JSON], whole("own").to_string()));
    upstream.next(Mode::Events(events));
    let live = ask(server, &streamed(&question(text))).await;
    quiet(server).await;
    (live, ask(server, &question(text)).await)
}

#[tokio::test]
async fn words_that_stand_elsewhere_are_passed_on_and_not_stored() {
    let (_dir, upstream, server) = start(&[]).await;
    let said = json!({ "role": "assistant", "content": "whole text" });
    let cases = [
        vec![chunk(json!({ "message": said, "finish_reason": "stop" }))],
        vec![chunk(json!({ "delta": {}, "text": "whole text", "finish_reason": null })), end()],
        vec![chunk(json!({ "delta": { "output_text": "whole text" }, "finish_reason": null })), end()],
        vec![
            chunk(json!({ "delta": { "content": { "text": "whole text" } }, "finish_reason": null })),
            end(),
        ],
        vec![chunk(json!({ "delta": "whole text", "finish_reason": null })), end()],
        vec!["data: {\"content\":\"whole text\",\"stop\":false}\n\n".into(), end()],
        vec!["data: {\"choices\":[],\"message\":{\"content\":\"whole text\"}}\n\n".into(), end()],
    ];
    let count = cases.len() as u64;
    for (place, mut events) in cases.into_iter().enumerate() {
        events.push(DONE.into());
        let said = events.concat();
        let (live, after) =
            stream_then_whole(&server, &upstream, &format!("elsewhere {place}?"), events).await;
        assert_eq!(live.body, said, "passed on as it came");
        assert!(!is_hit(&after), "{said}");
    }
    assert_eq!(counted(&server, "unknown_member").await, count);
}

#[tokio::test]
async fn what_is_said_in_fragments_is_one_again() {
    let (_dir, upstream, server) = start(&[]).await;
    let entry = |more: Value| with(json!({ "type": "reasoning.text", "index": 0, "format": "f" }), more);
    let part = |more: Value| {
        delta(json!({ "role": "assistant", "content": "", "reasoning_details": [entry(more)] }))
    };
    let ids =
        |word: &str| chunk(json!({ "delta": { "content": word }, "token_ids": [7], "finish_reason": null }));
    let events = vec![
        part(json!({ "text": "Let" })),
        part(json!({ "text": " me" })),
        part(json!({ "signature": "SIG" })),
        ids("4"),
        ids("2"),
        chunk(json!({ "delta": null, "finish_reason": "stop" })),
        DONE.into(),
    ];
    let (live, after) = stream_then_whole(&server, &upstream, "in fragments?", events).await;
    assert!(is_hit(&after));
    let choice = &after.body["choices"][0];
    let entry = entry(json!({ "text": "Let me", "signature": "SIG" }));
    assert_eq!(choice["message"]["reasoning_details"], json!([entry]));
    assert_eq!((&choice["message"]["content"], &choice["token_ids"]), (&json!("42"), &json!([7, 7])));
    assert!(choice.get("delta").is_none());
    let again = ask(&server, &streamed(&question("in fragments?"))).await;
    assert!(is_hit(&again));
    assert_eq!(normalized(accumulated(&again)), normalized(accumulated(&live)));
    assert_eq!(normalized(accumulated(&again)), normalized(after.body));
}

#[tokio::test]
async fn what_keeps_a_connection_open_is_no_part_of_an_answer() {
    let (_dir, upstream, server) = start(&[]).await;
    let beside: Vec<String> = [
        "event: ping\ndata: {\"type\":\"ping\"}\n\n",
        ": OPENROUTER PROCESSING\n\n",
        "event: heartbeat\ndata: 2026-01-01\n\n",
        "data: {\"type\":\"ping\"}\n\n",
    ]
    .map(str::to_owned)
    .into();
    // With the last event, and with a clean end instead of it.
    for (place, tail) in [vec![DONE.to_owned()], vec![]].into_iter().enumerate() {
        let text = format!("ping {place}?");
        let events = [beside.clone(), words(), beside.clone(), tail].concat();
        let said = events.concat();
        let (live, after) = stream_then_whole(&server, &upstream, &text, events).await;
        assert_eq!(live.body, said);
        assert!(is_hit(&after), "{place}");
        assert_eq!(after.body["choices"][0]["message"]["content"], "hola");
        let again = ask(&server, &streamed(&question(&text))).await;
        assert!(is_hit(&again) && !again.body.to_string().contains("\\\"ping"), "{}", again.body);
    }
    // A clean end counts only where each choice has said how it ended.
    let (_, after) = stream_then_whole(&server, &upstream, "cut?", words()[..2].to_vec()).await;
    assert!(!is_hit(&after));
}

/// Together, Text Generation Inference, Anthropic, Cohere and Gemini have words of their own for an end.
#[tokio::test]
async fn an_end_by_other_words_is_an_end() {
    let (_dir, upstream, server) = start(&[]).await;
    let ends = ["eos", "eos_token", "stop_sequence", "end_turn", "STOP", "COMPLETE"];
    let others = ["length", "max_tokens", "content_filter", "error"];
    for reason in ends.into_iter().chain(others) {
        for stream in [false, true] {
            let body = with(question(reason), json!({ "stream": stream, "seed": u8::from(stream) }));
            upstream.next(Mode::Ending(reason));
            ask(&server, &body).await;
            quiet(&server).await;
            let is_stored = is_hit(&ask(&server, &body).await);
            assert_eq!(is_stored, ends.contains(&reason), "{reason}, stream: {stream}");
        }
    }
}

#[tokio::test]
async fn each_reply_that_is_not_stored_has_its_reason() {
    let (_dir, upstream, server) = start(&[("LIKEWISE__UPSTREAM__RETRIES_MAX", "0")]).await;
    let message = |content: Value| json!({ "role": "assistant", "content": content });
    let choice = |more: Value| {
        let mut whole = whole("par");
        whole["choices"][0] = with(whole["choices"][0].clone(), more);
        whole.to_string()
    };
    let named = with(whole("a"), json!({ "model": "M".repeat(20_000) })).to_string();
    let cases = [
        (200, choice(json!({ "error": { "code": 502, "message": "died" } })), "error"),
        (200, choice(json!({ "message": message(Value::Null) })), "empty"),
        (200, choice(json!({ "message": message(json!(" ")) })), "empty"),
        (200, choice(json!({ "finish_reason": "length" })), "truncated"),
        (200, choice(json!({ "delta": { "content": "b" } })), "unknown_member"),
        (200, named, "envelope"),
        (200, "<html>".into(), "no_answer"),
        (500, "{}".into(), "status"),
        (400, "{}".into(), "status"),
    ];
    for (place, (code, body, reason)) in cases.into_iter().enumerate() {
        let before = counted(&server, reason).await;
        let asked = with(question("why?"), json!({ "seed": place }));
        for stream in [false, true] {
            upstream.next(Mode::Reply(code, vec![JSON], body.clone()));
            let reply = ask(&server, &with(asked.clone(), json!({ "stream": stream }))).await;
            assert_eq!((reply.status, reply.header("x-likewise-reason")), (code, reason), "{place}");
        }
        quiet(&server).await;
        assert_eq!(counted(&server, reason).await, before + 2, "{reason}");
    }
    let unstored = with(question("why?"), json!({ "cache": { "no-store": true } }));
    assert_eq!(ask(&server, &unstored).await.header("x-likewise-reason"), "no_store");
    ask(&server, &with(question("why?"), json!({ "temperature": 2 }))).await;
    quiet(&server).await;
    assert_eq!((counted(&server, "no_store").await, counted(&server, "temperature").await), (1, 1));
}

/// What a client gets that reads trailers, and what one that does not.
#[tokio::test]
async fn the_reason_of_a_stream_comes_behind_it() {
    let (_dir, upstream, server) = start(&[]).await;
    let address = server.url().strip_prefix("http://").unwrap().to_owned();
    let raw = async |text: &str, te: &str, mode: Mode| {
        upstream.next(mode);
        let held = upstream.hold_tail().await;
        let body = streamed(&question(text)).to_string();
        let head = format!("POST {CHAT} HTTP/1.1\r\nhost: a\r\n{te}connection: close\r\ncontent-length: ");
        let request = format!("{head}{}\r\n\r\n{body}", body.len());
        let mut connection = tokio::net::TcpStream::connect(&address).await.unwrap();
        connection.write_all(request.as_bytes()).await.unwrap();
        // The headers leave before it is known how the stream ends.
        let mut first = vec![0; 1 << 16];
        let count = connection.read(&mut first).await.unwrap();
        drop(held);
        let mut reply = String::from_utf8_lossy(&first[..count]).into_owned();
        connection.read_to_string(&mut reply).await.unwrap();
        reply
    };
    let trailers = "te: gzip, trailers\r\n";
    let received = raw("one?", trailers, Mode::Ending("length")).await;
    assert!(received.contains("trailer: x-likewise-reason\r\n"), "{received}");
    assert!(received.ends_with("0\r\nx-likewise-reason: truncated\r\n\r\n"), "{received}");
    let untold = raw("two?", "", Mode::Ending("length")).await;
    assert!(!untold.contains("x-likewise-reason") && untold.ends_with("0\r\n\r\n"), "{untold}");
    let stored = raw("three?", trailers, Mode::Answer).await;
    assert!(stored.ends_with("[DONE]\n\n\r\n0\r\n\r\n"), "{stored}");
    quiet(&server).await;
    assert_eq!(counted(&server, "truncated").await, 2);
}

#[tokio::test]
async fn events_of_no_type_or_another_are_events() {
    let (_dir, upstream, server) = start(&[]).await;
    let events = [words(), vec![DONE.into()]].concat().concat();
    let cases = [
        (vec![], events.clone()),
        (vec![("content-type", "text/plain")], events.clone()),
        (vec![("content-type", "application/octet-stream")], format!(": hello\n\n{events}")),
        (vec![JSON], format!("\r\nevent: chunk\n{events}")),
        (vec![], format!("\u{feff}{events}")),
    ];
    for (place, (headers, events)) in cases.into_iter().enumerate() {
        let body = with(streamed(&question("untyped")), json!({ "seed": place }));
        upstream.next(Mode::Reply(200, headers, events.clone()));
        let live = ask(&server, &body).await;
        let received = (live.header("content-type"), live.body.as_str());
        assert_eq!(received, ("text/event-stream", Some(&*events)), "{place}");
        let again = ask(&server, &body).await;
        assert!(is_hit(&again), "{place}");
        assert_eq!(accumulated(&again)["choices"][0]["message"]["content"], "hola");
    }
    // JSON stays what it is, also for those who have asked for a stream.
    let body = streamed(&question("whole"));
    upstream.next(Mode::Reply(200, vec![], whole("all of it").to_string()));
    assert_eq!(accumulated(&ask(&server, &body).await)["choices"][0]["message"]["content"], "all of it");
    let json = ask(&server, &question("whole")).await;
    assert!(is_hit(&json) && json.header("content-type") == "application/json");
}

#[tokio::test]
async fn members_beside_the_usage_are_replayed_alike() {
    let (_dir, upstream, server) = start(&[]).await;
    let usage = json!({ "prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3 });
    let last = json!({ "id": "c", "model": "m", "choices": [], "usage": usage, "citations": ["http://x.example/1"] });
    let events = [words(), vec![format!("data: {last}\n\n"), DONE.into()]].concat();
    let (live, after) = stream_then_whole(&server, &upstream, "cite?", events).await;
    let again = ask(&server, &streamed(&question("cite?"))).await;
    assert!(is_hit(&after) && is_hit(&again));
    for reply in [&live, &again] {
        let text = reply.body.as_str().unwrap();
        assert!(text.contains("citations") && !text.contains("\"usage\""), "{text}");
    }
    assert_eq!((&after.body["citations"], &after.body["usage"]), (&last["citations"], &usage));
    let asked = with(streamed(&question("cite?")), json!({ "stream_options": { "include_usage": true } }));
    assert_eq!(accumulated(&ask(&server, &asked).await)["usage"], usage);
    // What was used, beside the words.
    let mut ends = end();
    ends.insert_str(ends.len() - 3, &format!(",\"usage\":{usage}"));
    let events = vec![delta(json!({ "content": "hola" })), ends, DONE.into()];
    let (live, after) = stream_then_whole(&server, &upstream, "how much?", events).await;
    assert!(is_hit(&after) && after.body["usage"] == usage);
    assert!(!live.body.as_str().unwrap().contains("\"usage\""), "{}", live.body);
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn gzipped(kind: &'static str, text: &str) -> Mode {
    Mode::Bytes(200, vec![("content-type", kind), ("content-encoding", "gzip")], gzip(text.as_bytes()))
}

#[tokio::test]
async fn what_comes_compressed_is_read() {
    let (_dir, upstream, server) = start(&[]).await;
    let whole = whole("hi").to_string();
    let events = [words(), vec![DONE.into()]].concat().concat();
    upstream.next(gzipped("application/json", &whole));
    let miss = ask(&server, &question("packed?")).await;
    assert_eq!((miss.body["id"].as_str(), miss.header("content-encoding")), (Some("own"), ""));
    assert_eq!(upstream.seen()[0].header("accept-encoding"), Some("identity"));
    assert!(is_hit(&ask(&server, &question("packed?")).await));
    for kind in ["text/event-stream", "text/plain"] {
        let body = with(streamed(&question("a packed stream?")), json!({ "user": kind }));
        upstream.next(gzipped(kind, &events));
        assert_eq!(ask(&server, &body).await.body.as_str(), Some(&*events));
        assert!(is_hit(&ask(&server, &body).await), "{kind}");
    }
    upstream.next(gzipped("application/json", &json!({ "error": { "message": "no" } }).to_string()));
    assert_eq!(ask(&server, &question("an error?")).await.body["error"]["message"], "no");
    // Other routes too.
    upstream.next(gzipped("application/json", "{\"a\":1}"));
    let other = server.ask("POST", "/v1/moderations", &[], r#"{"model":"m"}"#).await;
    assert_eq!(other.body, json!({ "a": 1 }));
    // What cannot be read here is passed on as it came.
    let brotli = b"\x0b\x02\x80hi\x03".to_vec();
    upstream.next(Mode::Bytes(200, vec![JSON, ("content-encoding", "br")], brotli));
    let passed = ask(&server, &question("in Brotli?")).await;
    assert_eq!((passed.header("content-encoding"), passed.header("x-likewise-reason")), ("br", "encoding"));
}

#[tokio::test]
async fn what_grows_past_the_limit_is_not_read() {
    let (_dir, upstream, server) = start(&[("LIKEWISE__UPSTREAM__ANSWER_BYTES_MAX", "65536")]).await;
    upstream.next(gzipped("application/json", &" ".repeat(50 << 20)));
    let bomb = ask(&server, &question("a bomb?")).await;
    assert_eq!((bomb.status, bomb.error().0), (502, "upstream_error"));
    upstream.next(gzipped("text/event-stream", &format!("data: {}\n\n", "a".repeat(50 << 20))));
    let body = streamed(&question("a long bomb?")).to_string();
    let broken = server.client().post(format!("{}{CHAT}", server.url())).body(body).send().await.unwrap();
    // Whether the headers have left by then or not.
    let is_refused = broken.status() == 502;
    assert!(is_refused || broken.bytes().await.is_err(), "an event past the limit ends the stream");
    quiet(&server).await;
    assert_eq!(counted(&server, "incomplete").await, 2);
}

#[tokio::test]
async fn a_replay_is_bounded_and_so_are_names_of_models() {
    let (_dir, upstream, server) = start(&[]).await;
    let model = "M".repeat(256);
    let body = with(question("at length?"), json!({ "model": model }));
    let long = with(whole(&"w ".repeat(50_000)), json!({ "model": model, "system_fingerprint": model }));
    upstream.next(Mode::Reply(200, vec![JSON], long.to_string()));
    let miss = ask(&server, &body).await;
    let replay = ask(&server, &streamed(&body)).await;
    assert!(is_hit(&replay));
    let (whole_bytes, stream_bytes) = (long.to_string().len(), replay.body.as_str().unwrap().len());
    assert!(stream_bytes <= 10 * whole_bytes, "{stream_bytes} of {whole_bytes}");
    assert_eq!(accumulated(&replay)["choices"], miss.body["choices"]);
    let longer = ask(&server, &with(question("x"), json!({ "model": "M".repeat(257) }))).await;
    assert_eq!((longer.status, longer.error().1), (400, Some("model")));
    assert_eq!(status(&miss), "fwd=miss");
    assert_eq!(upstream.calls(), 1);
}
