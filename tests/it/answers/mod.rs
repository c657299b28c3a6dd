//! The cache of answers of language models. Each test is a guarantee, or a defect that caches of answers in the field have had.

mod cache_groups;
mod cache_keys;
mod cached_routes;
mod caching;
mod coalescing;
mod credentials;
mod deletions;
mod dialects;
mod direct;
mod forwarding;
mod hosted_features;
mod identity;
mod invalidation;
mod isolation;
mod messages;
mod misses;
mod money;
mod other_caches;
mod reasking;
mod redaction;
mod responses;
mod semantic;
mod streams;
mod upstream_failures;

use std::path::Path;

use futures_util::Stream;
use likewise::dialects::chat_completions::ChunkAssembler;
use likewise::dialects::{Assembler as _, Dialect};
use likewise::sse::Events;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::program::{Answer, Server, likewise, until};
use crate::upstream::Upstream;

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
    let mut assembly = ChunkAssembler::default();
    text.split("\n\n")
        .filter_map(|event| event.strip_prefix("data: "))
        .for_each(|data| _ = assembly.push_data(data));
    serde_json::from_slice(&assembly.finish().expect("it adds up")).unwrap()
}

/// The complete answer of a stream of a dialect.
fn accumulated_by(dialect: &dyn Dialect, answer: &Answer) -> Value {
    assert_eq!(answer.header("content-type"), "text/event-stream");
    let (mut events, mut assembler) = (Events::default(), dialect.assembler());
    events.push(answer.body.as_str().expect("a stream is no JSON").as_bytes());
    while let Some(event) = events.next_event() {
        assembler.push(&event);
    }
    serde_json::from_slice(&assembler.finish().expect("it adds up")).unwrap()
}

/// Without what names one delivery, and with the defaults that JSON and streams spell differently.
fn normalized(mut answer: Value) -> Value {
    let members = answer.as_object_mut().expect("an answer");
    ["id", "created", "created_at", "completed_at"].iter().for_each(|name| _ = members.remove(*name));
    answer
}

async fn in_flight(server: &Server) -> u64 {
    let metrics = server.get("/metrics").await.body;
    let mut lines = metrics.as_str().unwrap().lines();
    let line = lines.find_map(|line| line.strip_prefix("likewise_http_requests_in_flight "));
    line.unwrap().parse().unwrap()
}

/// Replies that were not stored for a reason.
async fn counted(server: &Server, reason: &str) -> u64 {
    let metrics = server.get("/metrics").await.body;
    let name = format!("likewise_answers_not_stored_total{{reason=\"{reason}\"}} ");
    let line = metrics.as_str().unwrap().lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |count| count.parse().unwrap())
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
