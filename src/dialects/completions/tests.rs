//! A completion is the same in both forms, and only a complete one is stored.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::Completions;
use crate::dialects::{Dialect as _, StreamForm, Unstorable};
use crate::domain::UnixSeconds;
use crate::sse::{Event, Events};

const NOW: UnixSeconds = UnixSeconds(7);
const STREAM: StreamForm = StreamForm { wants_usage: true, ends_with_done: false };

/// The complete answer of a stream, or why there is none.
fn assembled(chunks: &[Value]) -> Result<Value, Unstorable> {
    let data = chunks.iter().map(Value::to_string).chain(["[DONE]".to_owned()]);
    let mut assembler = Completions.assembler();
    data.for_each(|data| _ = assembler.push(&Event::read(format!("data: {data}\n\n").into())));
    assembler.finish().map(|json| serde_json::from_slice(&json).unwrap())
}

fn chunk(text: &str, reason: Value) -> Value {
    json!({ "id": "c", "created": 1, "object": "text_completion", "model": "m",
        "choices": [{ "index": 0, "text": text, "logprobs": null, "finish_reason": reason }] })
}

fn reply(choices: Value) -> Value {
    json!({ "id": "x", "created": 1, "object": "text_completion", "model": "m", "choices": choices,
        "usage": { "prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3 } })
}

fn without_delivery(mut value: Value) -> Value {
    ["id", "created"].iter().for_each(|name| _ = value.as_object_mut().unwrap().remove(*name));
    value
}

/// Replays an answer in both forms, and returns the chunks of its stream.
fn assert_round_trip(whole: &Value) -> Vec<Value> {
    let answer = Completions.read_reply(whole.to_string().as_bytes()).expect("an answer");
    let json: Value = serde_json::from_slice(&Completions.replay_json(&answer.json, NOW)).unwrap();
    assert_eq!(without_delivery(json.clone()), without_delivery(whole.clone()));
    assert!(json["id"].as_str().unwrap().starts_with("cmpl-") && json["created"] == 7, "{json}");
    let mut replay = Completions.replay_events(&answer.json, NOW, STREAM).unwrap();
    let (mut events, mut assembler, mut chunks) = (Events::default(), Completions.assembler(), Vec::new());
    std::iter::from_fn(|| replay.next_bytes(1000)).for_each(|bytes| events.push(&bytes));
    while let Some(event) = events.next_event() {
        chunks.extend(event.data.as_deref().and_then(|data| serde_json::from_str::<Value>(data).ok()));
        assembler.push(&event);
    }
    let again: Value = serde_json::from_slice(&assembler.finish().expect("it adds up")).unwrap();
    assert_eq!(without_delivery(again), without_delivery(whole.clone()));
    chunks
}

#[test]
fn texts_logprobs_and_usage_add_up() {
    let logprobs = |token: &str, at: usize| json!({ "tokens": [token], "token_logprobs": [-0.5], "top_logprobs": null, "text_offset": [at] });
    let (mut one, mut two) = (chunk("Ho", Value::Null), chunk("la", Value::Null));
    one["choices"][0]["logprobs"] = logprobs("Ho", 0);
    two["choices"][0]["logprobs"] = logprobs("la", 2);
    let usage = json!({ "model": "m", "choices": [], "usage": { "total_tokens": 3 } });
    let whole = assembled(&[one, two, chunk("", "stop".into()), usage]).unwrap();
    let choice = &whole["choices"][0];
    assert_eq!((&choice["text"], &choice["finish_reason"]), (&json!("Hola"), &json!("stop")));
    assert_eq!(
        choice["logprobs"],
        json!({ "tokens": ["Ho", "la"], "token_logprobs": [-0.5, -0.5], "top_logprobs": null, "text_offset": [0, 2] })
    );
    assert_eq!((&whole["usage"]["total_tokens"], &whole["object"]), (&json!(3), &json!("text_completion")));
}

#[test]
fn a_stream_of_an_unknown_shape_has_no_sum() {
    let with = |member: &str, value: Value| {
        let mut odd = chunk("a", "stop".into());
        odd["choices"][0][member] = value;
        assembled(&[odd])
    };
    assert_eq!(with("delta", json!({ "content": "a" })), Err(Unstorable::UnknownMember));
    assert_eq!(with("message", json!({ "content": "a" })), Err(Unstorable::UnknownMember));
    assert_eq!(with("text", json!(["a"])), Err(Unstorable::UnknownMember));
    assert_eq!(with("logprobs", json!([1])), Err(Unstorable::UnknownMember));
    assert_eq!(with("logprobs", json!({ "content": [1] })), Err(Unstorable::UnknownMember));
    assert_eq!(with("error", json!({ "code": 1 })), Err(Unstorable::Error));
    assert_eq!(with("finish_reason", json!("error")), Err(Unstorable::Error));
    let mut chat = chunk("a", "stop".into());
    chat["object"] = "chat.completion.chunk".into();
    assert_eq!(assembled(&[chat]), Err(Unstorable::UnknownMember));
    assert_eq!(assembled(&[]), Err(Unstorable::Empty));
}

#[test]
fn only_a_complete_reply_is_stored() {
    let unstorable = |choice: Value| {
        Completions.read_reply(reply(json!([choice])).to_string().as_bytes()).unwrap().unstorable
    };
    let ended = |reason: Value, text: Value| json!({ "index": 0, "text": text, "finish_reason": reason });
    assert_eq!(unstorable(ended("stop".into(), "a".into())), None);
    assert_eq!(unstorable(ended("eos".into(), "a".into())), None);
    assert_eq!(
        unstorable(ended("length".into(), "a".into())),
        None,
        "it is of a kind that is stored by wish"
    );
    for reason in [json!("content_filter"), json!("tool_calls"), Value::Null] {
        assert_eq!(unstorable(ended(reason.clone(), "a".into())), Some(Unstorable::Unfinished), "{reason}");
    }
    assert_eq!(unstorable(ended("error".into(), "a".into())), Some(Unstorable::Error));
    assert_eq!(unstorable(ended("stop".into(), "".into())), Some(Unstorable::Empty));
    assert_eq!(unstorable(ended("stop".into(), json!(["a"]))), Some(Unstorable::UnknownMember));
    let failed = json!({ "text": "a", "finish_reason": "stop", "error": { "code": 1 } });
    assert_eq!(unstorable(failed), Some(Unstorable::Error));
    for other in [json!({}), json!([]), json!([{ "finish_reason": "stop", "message": {} }])] {
        assert!(Completions.read_reply(reply(other.clone()).to_string().as_bytes()).is_none(), "{other}");
    }
}

#[test]
fn a_completion_is_the_same_in_both_forms() {
    let text = "uno dos tres cuatro cinco seis siete ocho nueve diez\n\nonce 😀";
    let logprobs = json!({ "tokens": ["a", " b"], "token_logprobs": [null, -0.25], "top_logprobs": [null, { " b": -0.25 }],
        "text_offset": [0, 1] });
    let chunks = assert_round_trip(&reply(json!([
        { "index": 0, "text": text, "logprobs": null, "finish_reason": "stop" },
        { "index": 1, "text": "a b", "logprobs": logprobs, "finish_reason": "stop" },
        { "index": 2, "text": text, "finish_reason": "stop", "stop_reason": "\n" },
        { "index": 3, "text": "", "logprobs": null, "finish_reason": "stop" },
    ])));
    assert!(chunks.len() > 8, "not one giant chunk: {}", chunks.len());
    assert!(chunks.iter().all(|chunk| chunk["object"] == "text_completion" && chunk["created"] == 7));
    let last = chunks.last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]["total_tokens"]), (&json!([]), &json!(3)));
}

#[test]
fn a_stream_is_at_most_ten_times_its_answer() {
    let choices = |count: usize, text: &str| {
        let choice =
            |index| json!({ "index": index, "text": text, "logprobs": null, "finish_reason": "stop" });
        (0..count).map(choice).collect::<Vec<_>>()
    };
    let long = "M".repeat(256);
    for choices in [choices(1, "a"), choices(1, &"w ".repeat(10_000)), choices(1024, "a")] {
        for model in ["m", &long] {
            let json = json!({ "model": model, "choices": choices }).to_string();
            let mut replay = Completions.replay_events(json.as_bytes(), NOW, STREAM).unwrap();
            let bytes: usize = std::iter::from_fn(|| replay.next_bytes(1000)).map(|bytes| bytes.len()).sum();
            assert!(bytes <= 10 * json.len(), "{bytes} of {}", json.len());
        }
    }
}

proptest! {
    #[test]
    fn any_text_comes_out_of_its_pieces(text in "(?s).{0,400}") {
        let choice = json!({ "index": 0, "text": text, "logprobs": null, "finish_reason": "stop" });
        assert_round_trip(&reply(json!([choice])));
    }
}
