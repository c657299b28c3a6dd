//! A language model of a few lines behind OpenAI's interface, which stands for a remote one.
//!
//! No two of its answers are equal: each tells the call that made it. What goes wrong goes wrong when the test says so, and
//! what is slow is held by a gate, never by a clock.

// Another binary of tests takes this file from here.
#[path = "upstream/messages.rs"]
pub(crate) mod messages;
#[path = "upstream/responses.rs"]
mod responses;

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use futures_util::{StreamExt as _, stream};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{OwnedRwLockWriteGuard, RwLock, watch};

use crate::program::until;

type Answer = Response<Body>;
type Gate = Arc<RwLock<()>>;

/// The model. It ends with the runtime of its test.
pub(crate) struct Upstream {
    pub(crate) url: String,
    state: Arc<State>,
}

/// What the next calls get.
#[derive(Debug, Clone, Default)]
pub(crate) enum Mode {
    /// An answer, as it is asked for.
    #[default]
    Answer,
    /// An answer whose choices end for this reason.
    Ending(&'static str),
    /// A status, with headers and a body.
    Reply(u16, Vec<(&'static str, &'static str)>, String),
    /// The same with a body that is no text.
    Bytes(u16, Vec<(&'static str, &'static str)>, Vec<u8>),
    /// A stream that breaks off behind its first words.
    Cut,
    /// A stream that says this and then nothing, until it is given up.
    Silent(String),
    /// A stream that ends after these events.
    Events(Vec<String>),
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Default)]
struct State {
    seen: Mutex<Vec<Seen>>,
    answers: AtomicU64,
    /// Ids of responses that later requests may name.
    responses: Mutex<Vec<String>>,
    modes: Mutex<Vec<Mode>>,
    usual: Mutex<Mode>,
    /// Each answer passes it.
    head: Gate,
    /// Each stream passes it behind the first words.
    tail: Gate,
    cancelled: watch::Sender<u64>,
}

/// An API that the model is asked by.
#[derive(Clone, Copy, PartialEq)]
enum Api {
    Chat,
    Completions,
    Messages,
    Responses,
}

impl Api {
    fn of(path: &str) -> Api {
        if path.ends_with("/chat/completions") {
            Api::Chat
        } else if path.ends_with("/messages") {
            Api::Messages
        } else if path.ends_with("/responses") {
            Api::Responses
        } else {
            Api::Completions
        }
    }
}

/// Counts a call that ended before its answer did.
struct Underway {
    state: Arc<State>,
    is_finished: bool,
}

impl Underway {
    fn finish(mut self) {
        self.is_finished = true;
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        if !self.is_finished {
            self.state.cancelled.send_modify(|count| *count += 1);
        }
    }
}

impl Upstream {
    pub(crate) async fn start() -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/v1", listener.local_addr().expect("it is bound"));
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                let service = service_fn(move |request| answer(Arc::clone(&state), request));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(connection), service);
                // A server that is killed, or a stream that is cut, breaks its connection.
                tokio::spawn(async move { _ = connection.await });
            }
        });
        Upstream { url, state }
    }

    /// Requests so far.
    pub(crate) fn calls(&self) -> usize {
        self.seen().len()
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// What all calls get from now on.
    pub(crate) fn usually(&self, mode: Mode) {
        *self.state.usual.lock().unwrap() = mode;
    }

    /// What the next call gets; several in the order in which they were said.
    pub(crate) fn next(&self, mode: Mode) {
        self.state.modes.lock().unwrap().push(mode);
    }

    /// Holds all answers until the returned guard is dropped.
    pub(crate) async fn hold(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.state.head).write_owned().await
    }

    /// Holds all streams behind their first words until the returned guard is dropped.
    pub(crate) async fn hold_tail(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.state.tail).write_owned().await
    }

    /// Waits until so many calls have been given up by their callers.
    pub(crate) async fn cancelled(&self, count: u64) {
        let cancelled = self.state.cancelled.subscribe();
        until("calls are given up", async || *cancelled.borrow() >= count).await;
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(Body::new(body), 1 << 26).await.unwrap_or_default();
    let headers = head.headers.iter();
    state.seen.lock().unwrap().push(Seen {
        method: head.method.to_string(),
        path: head.uri.to_string(),
        headers: headers
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
            .collect(),
        body: String::from_utf8_lossy(&body).into(),
    });
    let underway = Underway { state: Arc::clone(&state), is_finished: false };
    let mode = {
        let mut modes = state.modes.lock().unwrap();
        if modes.is_empty() { state.usual.lock().unwrap().clone() } else { modes.remove(0) }
    };
    let _passed = state.head.read().await;
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let reason = match mode {
        Mode::Answer => None,
        Mode::Ending(reason) => Some(reason),
        Mode::Reply(status, headers, body) => {
            underway.finish();
            return Ok(reply(status, &headers, body));
        }
        Mode::Bytes(status, headers, body) => {
            underway.finish();
            return Ok(reply(status, &headers, body));
        }
        Mode::Cut => {
            underway.finish();
            let gate = Arc::clone(&state.tail);
            let first = match Api::of(head.uri.path()) {
                Api::Chat | Api::Completions => first_words(&asked),
                Api::Messages => messages::first_events(&asked),
                Api::Responses => responses::events(&responses::whole(&asked, 0, None))[..7].concat(),
            };
            let first = stream::iter([Ok(Bytes::from(first))]);
            let broken = stream::once(async move {
                drop(gate.read().await);
                Err(std::io::Error::other("cut"))
            });
            return Ok(events(Body::from_stream(first.chain(broken))));
        }
        Mode::Silent(text) => {
            underway.finish();
            let said = stream::iter([Ok::<_, Infallible>(Bytes::from(text))]);
            return Ok(events(Body::from_stream(said.chain(stream::pending()))));
        }
        Mode::Events(list) => {
            underway.finish();
            return Ok(events(Body::from(list.concat())));
        }
    };
    let call = state.answers.fetch_add(1, Ordering::SeqCst) + 1;
    if head.uri.path().ends_with("/embeddings") {
        underway.finish();
        return Ok(reply(200, &[("content-type", "application/json")], embeddings(&asked, call).to_string()));
    }
    let api = Api::of(head.uri.path());
    let previous = asked["previous_response_id"].as_str();
    if previous.is_some_and(|id| !state.responses.lock().unwrap().iter().any(|known| known == id)) {
        underway.finish();
        let error = json!({ "message": "not found", "type": "invalid_request_error", "param": "previous_response_id",
            "code": "previous_response_not_found" });
        return Ok(reply(
            400,
            &[("content-type", "application/json")],
            json!({ "error": error }).to_string(),
        ));
    }
    let whole = match api {
        Api::Chat => whole(&asked, call, reason),
        Api::Completions => completion(&asked, call, reason),
        Api::Messages => messages::message(&asked, call, reason),
        Api::Responses => responses::whole(&asked, call, reason),
    };
    if api == Api::Responses && whole["store"] == true {
        state.responses.lock().unwrap().push(whole["id"].as_str().unwrap().to_owned());
    }
    if asked["stream"] != true {
        underway.finish();
        return Ok(reply(
            200,
            &[("content-type", "application/json"), ("x-request-id", "theirs")],
            whole.to_string(),
        ));
    }
    let chunks = match api {
        Api::Chat => chunks(&asked, &whole),
        Api::Completions => completion_chunks(&asked, &whole),
        Api::Messages => messages::events(&whole),
        Api::Responses => responses::events(&whole),
    };
    let walk = stream::unfold((chunks.into_iter(), underway, 0), |(mut chunks, underway, at)| async move {
        if at == 2 {
            let gate = Arc::clone(&underway.state.tail);
            drop(gate.read().await);
        }
        match chunks.next() {
            Some(chunk) => Some((Ok::<_, Infallible>(Bytes::from(chunk)), (chunks, underway, at + 1))),
            None => {
                underway.finish();
                None
            }
        }
    });
    Ok(events(Body::from_stream(walk)))
}

/// A vector for each input, which tells the call that made it.
fn embeddings(asked: &Value, call: u64) -> Value {
    let inputs = asked["input"].as_array().cloned().unwrap_or_default();
    let object = |(index, input): (usize, &Value)| {
        let length = input.to_string().len();
        json!({ "object": "embedding", "index": index, "embedding": [call, index, length, 1] })
    };
    let data: Vec<Value> = inputs.iter().enumerate().map(object).collect();
    json!({ "object": "list", "data": data, "model": asked["model"], "usage": { "prompt_tokens": inputs.len() } })
}

fn reply(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
    let mut response = Response::builder().status(StatusCode::from_u16(status).unwrap());
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body.into()).unwrap()
}

fn events(body: Body) -> Answer {
    Response::builder().header("content-type", "text/event-stream; charset=utf-8").body(body).unwrap()
}

/// The answer that a call makes: as many choices as asked, with probabilities, a refusal or a tool's call where asked.
fn whole(asked: &Value, call: u64, reason: Option<&str>) -> Value {
    let question = asked["messages"].as_array().and_then(|all| all.last()).map(|last| &last["content"]);
    let question = question.and_then(Value::as_str).unwrap_or("nothing").to_owned();
    let choice = |index: u64| {
        let text = format!("Answer {call}.{index} to «{question}»: sí, 😀 and so on, word after word.");
        let calls = question == "call a tool";
        let refuses = question == "refuse";
        let mut message = json!({ "role": "assistant", "content": text, "refusal": null, "annotations": [] });
        if calls {
            let arguments = json!({ "city": "La Coruña", "days": 3 }).to_string();
            message["content"] = Value::Null;
            message["tool_calls"] = json!([{ "id": "call_1", "type": "function", "function": { "name": "weather", "arguments": arguments } }]);
        }
        if refuses {
            message["content"] = Value::Null;
            message["refusal"] = "I would rather not, and here is why.".into();
        }
        let token = |token: &str| json!({ "token": token, "logprob": -0.031_25, "bytes": token.as_bytes(), "top_logprobs": [] });
        let tokens: Vec<Value> = text.split_inclusive(' ').map(token).collect();
        let logprobs = if asked["logprobs"] == true {
            json!({ "content": tokens, "refusal": null })
        } else {
            Value::Null
        };
        let usual = if calls { "tool_calls" } else { "stop" };
        json!({ "index": index, "message": message, "logprobs": logprobs, "finish_reason": reason.unwrap_or(usual) })
    };
    let choices: Vec<Value> = (0..asked["n"].as_u64().unwrap_or(1)).map(choice).collect();
    json!({
        "id": format!("chatcmpl-{call}"), "object": "chat.completion", "created": 1_700_000_000 + call,
        "model": asked["model"], "choices": choices, "service_tier": "default", "system_fingerprint": "fp_1",
        "usage": { "prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30,
            "prompt_tokens_details": { "cached_tokens": 0 } },
    })
}

/// The same as events, cut in unusual places.
fn chunks(asked: &Value, whole: &Value) -> Vec<String> {
    let wants_usage = asked["stream_options"]["include_usage"] == true;
    let event = |choices: Value, usage: &Value| {
        let mut chunk = json!({ "id": whole["id"], "object": "chat.completion.chunk", "created": whole["created"],
            "model": whole["model"], "service_tier": "default", "system_fingerprint": "fp_1", "choices": choices });
        if wants_usage {
            chunk["usage"] = usage.clone();
        }
        format!("data: {chunk}\n\n")
    };
    let mut events = Vec::new();
    for choice in whole["choices"].as_array().unwrap() {
        let index = &choice["index"];
        let mut say = |delta: Value, logprobs: Value, reason: &Value| {
            let choice =
                json!({ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason });
            events.push(event(json!([choice]), &Value::Null));
        };
        let message = &choice["message"];
        let spoken = if message["content"].is_string() { "".into() } else { Value::Null };
        let first = json!({ "role": "assistant", "content": spoken, "refusal": null, "annotations": [] });
        say(first, Value::Null, &Value::Null);
        if let Some(text) = message["content"].as_str() {
            for (place, word) in text.split_inclusive(' ').enumerate() {
                let logprobs = match choice["logprobs"]["content"].get(place) {
                    Some(token) => json!({ "content": [token], "refusal": null }),
                    None => Value::Null,
                };
                say(json!({ "content": word }), logprobs, &Value::Null);
            }
        }
        if let Some(text) = message["refusal"].as_str() {
            say(json!({ "refusal": text[..7] }), Value::Null, &Value::Null);
            say(json!({ "refusal": text[7..] }), Value::Null, &Value::Null);
        }
        if let Some(call) = message["tool_calls"].get(0) {
            let arguments = call["function"]["arguments"].as_str().unwrap();
            let named = json!({ "index": 0, "id": call["id"], "type": "function",
                "function": { "name": call["function"]["name"], "arguments": "" } });
            say(json!({ "tool_calls": [named] }), Value::Null, &Value::Null);
            for piece in arguments.split_inclusive('"') {
                let more = json!({ "index": 0, "function": { "arguments": piece } });
                say(json!({ "tool_calls": [more] }), Value::Null, &Value::Null);
            }
        }
        say(json!({}), Value::Null, &choice["finish_reason"]);
    }
    if wants_usage {
        events.push(event(json!([]), &whole["usage"]));
    }
    events.push("data: [DONE]\n\n".into());
    events
}

fn first_words(asked: &Value) -> String {
    let delta = json!({ "role": "assistant", "content": "half of an" });
    let chunk = json!({ "id": "c", "object": "chat.completion.chunk", "created": 1, "model": asked["model"],
        "choices": [{ "index": 0, "delta": delta, "finish_reason": null }] });
    format!("data: {chunk}\n\n")
}

/// A completion of the API before chat completions.
fn completion(asked: &Value, call: u64, reason: Option<&str>) -> Value {
    let prompt = asked["prompt"].as_str().unwrap_or("tokens");
    let choice = |index: u64| {
        let text = format!(" Answer {call}.{index} to «{prompt}»: sí, 😀 and so on, word after word.");
        let tokens: Vec<&str> = text.split_inclusive(' ').collect();
        let logprobs = match asked["logprobs"].as_u64() {
            Some(_) => {
                json!({ "tokens": tokens, "token_logprobs": vec![-0.5; tokens.len()], "top_logprobs": null,
                "text_offset": (0..tokens.len()).collect::<Vec<_>>() })
            }
            None => Value::Null,
        };
        json!({ "index": index, "text": text, "logprobs": logprobs, "finish_reason": reason.unwrap_or("stop") })
    };
    let choices: Vec<Value> = (0..asked["n"].as_u64().unwrap_or(1)).map(choice).collect();
    json!({ "id": format!("cmpl-{call}"), "object": "text_completion", "created": 1_700_000_000 + call,
        "model": asked["model"], "choices": choices,
        "usage": { "prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30 } })
}

/// The same as events.
fn completion_chunks(asked: &Value, whole: &Value) -> Vec<String> {
    let wants_usage = asked["stream_options"]["include_usage"] == true;
    let event = |choices: Value, usage: &Value| {
        let mut chunk = json!({ "id": whole["id"], "object": "text_completion", "created": whole["created"],
            "model": whole["model"], "choices": choices });
        if wants_usage {
            chunk["usage"] = usage.clone();
        }
        format!("data: {chunk}\n\n")
    };
    let mut events = Vec::new();
    for choice in whole["choices"].as_array().unwrap() {
        let text = choice["text"].as_str().unwrap();
        for (place, word) in text.split_inclusive(' ').enumerate() {
            let one = |name: &str| vec![choice["logprobs"][name][place].clone()];
            let logprobs = if choice["logprobs"].is_null() {
                Value::Null
            } else {
                json!({ "tokens": one("tokens"), "token_logprobs": one("token_logprobs"), "top_logprobs": null,
                    "text_offset": one("text_offset") })
            };
            let piece = json!({ "index": choice["index"], "text": word, "logprobs": logprobs, "finish_reason": null });
            events.push(event(json!([piece]), &Value::Null));
        }
        let last = json!({ "index": choice["index"], "text": "", "logprobs": null,
            "finish_reason": choice["finish_reason"] });
        events.push(event(json!([last]), &Value::Null));
    }
    if wants_usage {
        events.push(event(json!([]), &whole["usage"]));
    }
    events.push("data: [DONE]\n\n".into());
    events
}
