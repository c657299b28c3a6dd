//! An upstream in a process of its own: it takes its time and answers 2 KB, as JSON or in twenty events.

use std::convert::Infallible;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use crate::beside::Server;
use crate::load::{Connection, get as get_request, post as request};

/// Set for the copy of the benchmark that is the upstream: the milliseconds until an answer begins.
const UPSTREAM: &str = "LIKEWISE_BENCH_UPSTREAM";
/// Bytes of the answer's words.
const WORDS_BYTES: usize = 1750;
/// Events with words.
const EVENTS: usize = 20;
/// Where a question goes.
pub const PATH: &str = "/v1/chat/completions";

/// Starts the upstream, which takes so long to begin an answer.
///
/// # Panics
/// If it does not start.
pub fn start(takes: Duration) -> Server {
    let this = std::env::current_exe().expect("this program has a path");
    Server::start(Command::new(this).env(UPSTREAM, takes.as_millis().to_string()))
}

/// The bytes of a request that asks a question.
pub fn ask(address: SocketAddr, question: &str, streams: bool) -> Vec<u8> {
    let messages = json!([
        { "role": "system", "content": "You are the assistant of a shop." },
        { "role": "user", "content": question },
    ]);
    request(address, PATH, &json!({ "model": "bench", "messages": messages, "stream": streams }).to_string())
}

/// Questions that have reached it.
///
/// # Panics
/// If it does not answer.
pub async fn calls(address: SocketAddr) -> usize {
    let (_, count) = Connection::open(address).await.ask(&get_request(address, "/calls")).await;
    String::from_utf8(count).expect("a text").parse().expect("a number")
}

/// Makes answers name this version from now on.
///
/// # Panics
/// If the upstream does not answer.
pub async fn set_version(address: SocketAddr, version: u64) {
    let (status, _) =
        Connection::open(address).await.ask(&request(address, "/version", &version.to_string())).await;
    assert_eq!(status, 200);
}

/// The version that a whole answer names.
///
/// # Panics
/// If it is not an answer of this upstream.
pub fn version_of(answer: &[u8]) -> u64 {
    let answer: Value = serde_json::from_slice(answer).expect("JSON");
    let words = answer["choices"][0]["message"]["content"].as_str().expect("words");
    words.split(' ').next().expect("a word").parse().expect("a number")
}

/// Serves if this process is the upstream, and never returns then.
///
/// # Panics
/// If no port is free.
pub async fn serve_if_upstream() {
    let Ok(takes) = std::env::var(UPSTREAM) else { return };
    let takes = Duration::from_millis(takes.parse().expect("milliseconds"));
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let version = Arc::new(AtomicU64::new(0));
    let named = Arc::clone(&version);
    let answer = move |body: Bytes| {
        counted.fetch_add(1, Ordering::Relaxed);
        answer(body, takes, named.load(Ordering::SeqCst))
    };
    let set = move |body: String| async move {
        version.store(body.parse().expect("a number"), Ordering::SeqCst);
    };
    let count = move || async move { calls.load(Ordering::Relaxed).to_string() };
    let router = axum::Router::new()
        .route(PATH, post(answer))
        .route("/calls", get(count))
        .route("/version", post(set));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    println!("listening on http://{}", listener.local_addr().expect("bound"));
    std::io::stdout().flush().expect("stdout is piped");
    axum::serve(listener, router).await.expect("the upstream serves");
}

async fn answer(body: Bytes, takes: Duration, version: u64) -> Response {
    let asked: Value = serde_json::from_slice(&body).expect("JSON");
    // A thread wakes within a tenth of a millisecond; the runtime's timers go by whole ones, which is what is measured.
    tokio::task::spawn_blocking(move || std::thread::sleep(takes)).await.expect("it only sleeps");
    let words = format!("{version} {}", "palabra ".repeat(WORDS_BYTES / 8));
    if asked["stream"] != true {
        let message = json!({ "role": "assistant", "content": words });
        let answer = json!({
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "bench",
            "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }],
            "usage": { "prompt_tokens": 30, "completion_tokens": 400, "total_tokens": 430 },
        });
        return ([(CONTENT_TYPE, "application/json")], answer.to_string()).into_response();
    }
    let chunk = |delta: Value, reason: Value| {
        let chunk = json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "bench",
            "choices": [{ "index": 0, "delta": delta, "finish_reason": reason }],
        });
        format!("data: {chunk}\n\n")
    };
    let piece = |n: usize| {
        chunk(
            json!({ "content": &words[n * words.len() / EVENTS..(n + 1) * words.len() / EVENTS] }),
            Value::Null,
        )
    };
    let mut events = vec![chunk(json!({ "role": "assistant", "content": "" }), Value::Null)];
    events.extend((0..EVENTS).map(piece));
    events.push(chunk(json!({}), json!("stop")));
    events.push("data: [DONE]\n\n".to_owned());
    let events = stream::iter(events).map(Ok::<String, Infallible>);
    ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response()
}
