//! Goal: what is saved and spent is what the provider bills, its own cache and its reasoning taken into account. Method: a price table, and
//! an upstream whose replies report the parts of their usage.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{is_hit, with};
use crate::program::{Answer, Server, likewise};
use crate::upstream::{Mode, Upstream};

const PRICES: &str = "[[upstream.prices]]\nmodels = [\"m\"]\nprompt_usd_per_million = 1000.0\n\
    completion_usd_per_million = 10000.0\ncached_prompt_usd_per_million = 100.0\n\
    written_prompt_usd_per_million = 1250.0\nreasoning_usd_per_million = 20000.0\n\
    [[upstream.prices]]\nmodels = [\"plain\"]\nprompt_usd_per_million = 1000.0\n\
    completion_usd_per_million = 10000.0\n";

/// 100 tokens of the prompt of which 60 were cached and 20 written, and 10 of the completion of which 4 were reasoning.
const USD: f64 = 0.02 + 0.006 + 0.025 + 0.06 + 0.08;
/// The same at the prices of prompt and completion.
const PLAIN_USD: f64 = 0.1 + 0.1;

fn start_in(dir: &TempDir, upstream: &Upstream) -> Server {
    let file = dir.path().join("likewise.toml");
    fs_err::write(&file, PRICES).unwrap();
    let mut program = likewise("serve", dir.path());
    program.arg("--config").arg(file).arg("--upstream").arg(&upstream.url);
    Server::spawn(program.env("OPENAI_API_KEY", "sk-ours"))
}

fn reply(body: &Value) -> Mode {
    Mode::Reply(200, vec![("content-type", "application/json")], body.to_string())
}

fn events(events: &[Value]) -> Mode {
    Mode::Events(events.iter().map(|event| format!("data: {event}\n\n")).collect())
}

fn chat_usage() -> Value {
    json!({ "prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110,
        "prompt_tokens_details": { "cached_tokens": 60, "cache_write_tokens": 20 },
        "completion_tokens_details": { "reasoning_tokens": 4 } })
}

fn chat() -> Value {
    let message = json!({ "role": "assistant", "content": "hola" });
    json!({ "id": "c", "object": "chat.completion", "created": 1, "model": "m", "usage": chat_usage(),
        "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }] })
}

fn question(model: &str, text: &str) -> Value {
    json!({ "model": model, "messages": [{ "role": "user", "content": text }] })
}

async fn ask(server: &Server, path: &str, body: &Value) -> Answer {
    server.ask("POST", path, &[("anthropic-version", "2023-06-01")], body.to_string()).await
}

fn saved(answer: &Answer) -> f64 {
    assert!(is_hit(answer));
    answer.header("x-likewise-cost-saved-usd").parse().unwrap()
}

fn assert_usd(usd: f64, expected: f64) {
    assert!((usd - expected).abs() < 1e-6, "{usd} instead of {expected}");
}

#[tokio::test]
async fn parts_of_a_usage_are_billed_apart_also_after_a_restart() {
    let (dir, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let server = start_in(&dir, &upstream);
    upstream.usually(reply(&chat()));
    let body = question("m", "what is it?");
    assert!(!is_hit(&ask(&server, "/v1/chat/completions", &body).await));
    assert_usd(saved(&ask(&server, "/v1/chat/completions", &body).await), USD);
    let stats = server.get("/v1/stats").await.body;
    for name in ["spent_usd", "saved_usd"] {
        assert_usd(stats["answers"][name].as_f64().unwrap(), USD);
    }
    let plain = question("plain", "what is it?");
    assert!(!is_hit(&ask(&server, "/v1/chat/completions", &plain).await));
    assert_usd(saved(&ask(&server, "/v1/chat/completions", &plain).await), PLAIN_USD);
    assert!(server.stop().success());
    let server = start_in(&dir, &upstream);
    assert_usd(saved(&ask(&server, "/v1/chat/completions", &body).await), USD);
    assert_eq!(upstream.calls(), 2);
}

#[tokio::test]
async fn a_stream_is_billed_by_its_last_usage() {
    let (dir, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let server = start_in(&dir, &upstream);
    let chunk = |delta: Value, reason: Value, usage: Value| {
        json!({ "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "usage": usage,
            "choices": [{ "index": 0, "delta": delta, "finish_reason": reason }] })
    };
    // Some upstreams count along.
    let begun = json!({ "prompt_tokens": 100, "completion_tokens": 1, "prompt_tokens_details": { "cached_tokens": 99 } });
    upstream.next(events(&[
        chunk(json!({ "role": "assistant", "content": "ho" }), Value::Null, begun),
        chunk(json!({ "content": "la" }), json!("stop"), chat_usage()),
    ]));
    let body = with(question("m", "stream?"), json!({ "stream": true }));
    assert!(!is_hit(&ask(&server, "/v1/chat/completions", &body).await));
    assert_usd(saved(&ask(&server, "/v1/chat/completions", &body).await), USD);
}

#[tokio::test]
async fn each_dialect_reports_its_parts_in_its_own_words() {
    let (dir, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let server = start_in(&dir, &upstream);
    let text = json!({ "type": "output_text", "text": "hola", "annotations": [] });
    let item = json!({ "id": "i", "type": "message", "role": "assistant", "status": "completed", "content": [text] });
    let usage = json!({ "input_tokens": 100, "output_tokens": 10, "total_tokens": 110,
        "input_tokens_details": { "cached_tokens": 60, "cache_write_tokens": 20 },
        "output_tokens_details": { "reasoning_tokens": 4 } });
    let response = json!({ "id": "resp_1", "object": "response", "status": "completed", "model": "m", "store": false,
        "output": [item], "usage": usage });
    let usage = json!({ "input_tokens": 20, "output_tokens": 10, "cache_read_input_tokens": 60,
        "cache_creation_input_tokens": 20 });
    let message = json!({ "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
        "content": [{ "type": "text", "text": "hola" }], "usage": usage });
    // Messages do not say what of their output was reasoning.
    let without_reasoning = 0.02 + 0.006 + 0.025 + 0.1;
    let asked = json!({ "model": "m", "input": "hello" });
    for (path, body, whole, expected) in [
        ("/v1/responses", asked, response, USD),
        (
            "/v1/messages",
            with(question("m", "hello"), json!({ "max_tokens": 9 })),
            message,
            without_reasoning,
        ),
    ] {
        upstream.next(reply(&whole));
        assert!(!is_hit(&ask(&server, path, &body).await));
        assert_usd(saved(&ask(&server, path, &body).await), expected);
    }
}
