//! An answer is the same in both forms, and a stream of it is not much longer than it.

use serde_json::{Value, json};

use crate::dialects::chat_completions::{ChatCompletions, ChunkAssembler, read_reply};
use crate::dialects::choices::{ChunkReplay, as_json};
use crate::dialects::{Assembler as _, Replay as _};
use crate::domain::UnixSeconds;
use crate::sse::Events;
use proptest::prelude::*;

const OF_DELIVERY: [&str; 2] = ["id", "created"];
const NOW: UnixSeconds = UnixSeconds(7);

fn as_events(json: &[u8], created: UnixSeconds, wants_usage: bool) -> Option<Vec<u8>> {
    let mut replay = ChunkReplay::new::<ChatCompletions>(json, created, wants_usage)?;
    Some(std::iter::from_fn(|| replay.next_bytes(1000)).collect::<Vec<_>>().concat())
}

/// A stream read as a client reads it.
fn read(stream: &[u8]) -> (Vec<Value>, Value) {
    let (mut events, mut assembly, mut chunks) = (Events::default(), ChunkAssembler::default(), Vec::new());
    events.push(stream);
    while let Some(event) = events.next_event() {
        let data = event.data.unwrap();
        assembly.push_data(&data);
        chunks.extend(serde_json::from_str::<Value>(&data));
    }
    assert!(events.rest().is_empty());
    let whole = serde_json::from_slice(&assembly.finish().expect("it adds up")).unwrap();
    (chunks, whole)
}

fn without_delivery(mut value: Value) -> Value {
    OF_DELIVERY.iter().for_each(|name| _ = value.as_object_mut().unwrap().remove(*name));
    value
}

fn assert_round_trip(whole: &Value) -> Vec<Value> {
    let answer = read_reply(whole.to_string().as_bytes()).expect("an answer");
    let json: Value = serde_json::from_slice(&as_json::<ChatCompletions>(&answer.json, NOW)).unwrap();
    assert_eq!(without_delivery(json.clone()), without_delivery(whole.clone()));
    assert_eq!(json["created"], 7);
    let (chunks, again) = read(&as_events(&answer.json, NOW, true).unwrap());
    assert_eq!(without_delivery(again), without_delivery(whole.clone()));
    assert!(chunks.iter().all(|chunk| chunk["id"] == chunks[0]["id"] && chunk["created"] == 7));
    chunks
}

fn answer(choices: Value) -> Value {
    json!({ "id": "x", "created": 1, "object": "chat.completion", "model": "m", "system_fingerprint": "fp",
        "choices": choices, "usage": { "prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3 } })
}

#[test]
fn an_answer_of_every_kind_is_the_same_in_both_forms() {
    let token = |token: &str| json!({ "token": token, "logprob": -0.25, "bytes": [1], "top_logprobs": [] });
    let text = "uno dos tres cuatro cinco seis siete ocho nueve diez\n\nonce 😀";
    let calls = json!([
        { "id": "a", "type": "function", "function": { "name": "f", "arguments": "{\"a\": [1, 2], \"b\": \"c d\"}" } },
        { "id": "b", "type": "custom", "custom": { "name": "g", "input": "some free text that is long enough" } },
    ]);
    let chunks = assert_round_trip(&answer(json!([
        { "index": 0, "finish_reason": "stop", "logprobs": null,
          "message": { "role": "assistant", "content": text, "refusal": null, "annotations": [] } },
        { "index": 1, "finish_reason": "stop", "message": { "role": "assistant", "content": "ab c" },
          "logprobs": { "content": [token("ab"), token(" c")], "refusal": null } },
        { "index": 2, "finish_reason": "tool_calls", "logprobs": null,
          "message": { "role": "assistant", "content": null, "refusal": null, "tool_calls": calls } },
        { "index": 3, "finish_reason": "stop", "logprobs": { "content": null, "refusal": [token("no")] },
          "message": { "role": "assistant", "content": null, "refusal": "no" } },
        { "index": 4, "finish_reason": "function_call",
          "message": { "role": "assistant", "content": null, "function_call": { "name": "f", "arguments": "{}" } } },
        { "index": 5, "finish_reason": "stop", "message": { "role": "assistant", "content": "", "reasoning": "so it is" } },
        { "index": 6, "finish_reason": "stop", "message": { "role": "assistant", "content": "ñ" },
          "logprobs": { "content": [token("\u{fffd}"), token("\u{fffd}")], "refusal": null } },
    ])));
    assert!(chunks.len() > 20, "not one giant chunk");
    let of_second = chunks.iter().map(|chunk| &chunk["choices"][0]).filter(|choice| choice["index"] == 1);
    let replayed: Vec<&Value> = of_second.map(|choice| &choice["logprobs"]).collect();
    let piece = |text| json!({ "content": [token(text)], "refusal": null });
    assert_eq!(replayed, [&Value::Null, &piece("ab"), &piece(" c"), &Value::Null]);
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let last = chunks.last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]["total_tokens"]), (&json!([]), &json!(3)));
    assert!(chunks[..chunks.len() - 1].iter().all(|chunk| chunk["usage"].is_null()));
}

/// OpenAI indents its JSON, and a line break ends the data of an event.
#[test]
fn an_answer_on_several_lines_is_replayed_as_events_on_one() {
    let whole = answer(
        json!([{ "index": 0, "finish_reason": "stop", "message": { "role": "assistant", "content": "a b\n" } }]),
    );
    let reply = serde_json::to_string_pretty(&whole).unwrap().replace('\n', "\r\n");
    let answer = read_reply(reply.as_bytes()).unwrap();
    let (chunks, again) = read(&as_events(&answer.json, NOW, true).unwrap());
    assert_eq!(without_delivery(again), without_delivery(whole));
    assert_eq!(chunks.last().unwrap()["usage"]["total_tokens"], 3);
}

#[test]
fn usage_is_sent_to_clients_that_request_it() {
    let whole = answer(json!([{ "index": 0, "finish_reason": "stop", "message": { "content": "a" } }]));
    let answer = read_reply(whole.to_string().as_bytes()).unwrap();
    let (chunks, _) = read(&as_events(&answer.json, NOW, false).unwrap());
    assert!(chunks.iter().all(|chunk| chunk.get("usage").is_none()));
}

#[test]
fn two_deliveries_have_two_names() {
    assert_ne!(as_json::<ChatCompletions>(b"{}", NOW), as_json::<ChatCompletions>(b"{}", NOW));
    assert!(serde_json::from_slice::<Value>(&as_json::<ChatCompletions>(b"{}", NOW)).is_ok());
}

#[test]
fn what_is_no_part_of_every_chunk_is_said_once() {
    let long = "cited ".repeat(1000);
    let choice = |content: Value| json!({ "message": { "content": content }, "finish_reason": "stop" });
    let parts = json!([{ "type": "text", "text": "two" }]);
    let whole = json!({ "model": "m", "citations": [long], "choices": [choice(long.clone().into()), choice(parts.clone())] });
    let json = whole.to_string();
    let events = as_events(json.as_bytes(), UnixSeconds(7), false).unwrap();
    assert!(events.len() < json.len() * 20, "{} bytes", events.len());
    let (chunks, again) = read(&events);
    assert_eq!(chunks.iter().filter(|chunk| chunk.get("citations").is_some()).count(), 1);
    assert_eq!(again["citations"], whole["citations"]);
    assert_eq!(again["choices"][0]["message"]["content"], long);
    assert_eq!(again["choices"][1]["message"]["content"], parts, "what is no text stays what it is");
}

#[test]
fn what_is_no_answer_is_not_streamed() {
    for json in ["", "[]", "{}", r#"{"choices":[1]}"#, r#"{"choices":[{}]}"#] {
        assert!(as_events(json.as_bytes(), NOW, true).is_none(), "{json}");
    }
}

proptest! {
    #[test]
    fn any_text_comes_out_of_its_pieces(text in "(?s).{0,400}") {
        assert_round_trip(&answer(json!([
            { "index": 0, "finish_reason": "stop", "message": { "role": "assistant", "content": text } },
        ])));
    }
}

/// Answers that are little beside what each of their chunks would repeat.
#[test]
fn a_stream_is_at_most_ten_times_its_answer() {
    let long = "M".repeat(256);
    let frame = |choices: Value| json!({ "model": long, "system_fingerprint": long, "service_tier": long, "choices": choices });
    let choice = |message: Value| json!({ "finish_reason": "eos", "message": message });
    let say = |text: &str| choice(json!({ "content": text }));
    let call = |arguments: &str| json!({ "id": "a", "function": { "name": "f", "arguments": arguments } });
    let tokens: Vec<Value> = (0..5000).map(|_| json!({ "token": "a" })).collect();
    let spelled = |text: &str| {
        let mut choice = say(text);
        choice["logprobs"] = json!({ "content": tokens[..text.len()], "refusal": null });
        choice
    };
    let mut odd = say("a");
    odd["logprobs"] = json!({ "content": [{ "token": "a" }], "N".repeat(5000): null });
    let details: Vec<Value> = (0..500).map(|index| json!({ "index": index, "text": "t" })).collect();
    let answers = [
        json!({ "choices": [say("a")] }),
        json!({ "choices": [say("a")], "usage": {} }),
        frame(json!([say("a")])),
        frame(json!([say(&"w ".repeat(10_000))])),
        json!({ "choices": [say(&"w ".repeat(10_000))] }),
        frame(json!((0..1024).map(|_| say("a")).collect::<Vec<_>>())),
        json!({ "choices": (0..1024).map(|_| say("a")).collect::<Vec<_>>() }),
        frame(json!([choice(json!({ "tool_calls": (0..5000).map(|_| json!({})).collect::<Vec<_>>() }))])),
        frame(json!([choice(json!({ "tool_calls": (0..500).map(|_| call("1")).collect::<Vec<_>>() }))])),
        frame(json!([choice(json!({ "tool_calls": [call(&format!("[{} 1]", "1, ".repeat(5000)))] }))])),
        frame(json!([spelled(&"a".repeat(5000))])),
        json!({ "choices": [spelled(&"a".repeat(5000))] }),
        json!({ "choices": [odd] }),
        frame(json!([choice(
            json!({ "reasoning": "r ".repeat(5000), "content": "c ".repeat(5000), "reasoning_details": details })
        )])),
        json!({ "model": "M".repeat(20_000), "choices": [say(&"w ".repeat(10_000))] }),
        json!({ "citations": ["c".repeat(20_000)], "choices": [say(&"w ".repeat(10_000))] }),
    ];
    for (place, whole) in answers.iter().enumerate() {
        let json = whole.to_string();
        let stream = as_events(json.as_bytes(), NOW, true).expect("it can be streamed");
        assert!(stream.len() <= 10 * json.len(), "{place}: {} of {}", stream.len(), json.len());
        let calls = whole["choices"][0]["message"]["tool_calls"].as_array().map_or(0, Vec::len);
        if calls <= 1024 {
            let (_, again) = read(&stream);
            assert_eq!(
                again["choices"].as_array().unwrap().len(),
                whole["choices"].as_array().unwrap().len()
            );
            for (replayed, kept) in
                again["choices"].as_array().unwrap().iter().zip(whole["choices"].as_array().unwrap())
            {
                for name in ["content", "reasoning", "tool_calls", "reasoning_details"] {
                    assert_eq!(replayed["message"][name], kept["message"][name], "{place}: {name}");
                }
                if place != 12 {
                    assert_eq!(replayed["logprobs"], kept["logprobs"], "{place}");
                }
            }
        }
    }
}

#[test]
fn a_long_stream_is_written_as_it_is_read() {
    let message = json!({ "content": "word after word ".repeat(100_000) });
    let json = json!({ "choices": [{ "finish_reason": "stop", "message": message }] }).to_string();
    let mut replay = ChunkReplay::new::<ChatCompletions>(json.as_bytes(), NOW, false).unwrap();
    let pieces: Vec<usize> =
        std::iter::from_fn(|| replay.next_bytes(1 << 16)).map(|piece| piece.len()).collect();
    assert!(pieces.len() > 20 && replay.is_over(), "{} pieces", pieces.len());
    assert!(pieces.iter().all(|bytes| *bytes < (1 << 16) + 4096), "{pieces:?}");
}

/// What no stream can say is not said in one.
#[test]
fn what_a_reader_would_take_for_one_is_not_streamed() {
    let streamed =
        |choices: Value| as_events(json!({ "choices": choices }).to_string().as_bytes(), NOW, false);
    let with = |message: Value| streamed(json!([{ "finish_reason": "stop", "message": message }]));
    let entry = |index: Value| json!({ "type": "reasoning.text", "text": "x", "index": index });
    assert!(with(json!({ "reasoning_details": [entry(json!(0)), entry(json!(0))] })).is_none());
    assert!(with(json!({ "reasoning_details": [entry(json!(0)), entry(json!(1))] })).is_some());
    assert!(with(json!({ "reasoning_details": [entry(Value::Null), entry(Value::Null)] })).is_some());
    assert!(with(json!({ "tool_calls": [{ "id": "a" }, "b"] })).is_none());
    assert!(streamed(json!([{ "message": {}, "delta": { "content": "a" } }])).is_none());
    assert!(streamed(json!([{ "message": {}, "delta": null }])).is_some());
    assert!(streamed(json!([{ "index": -1, "message": {} }])).is_none());
}

#[test]
fn what_is_no_list_of_calls_and_empty_texts_are_said_as_they_are() {
    let message = json!({ "role": "assistant", "content": "a", "refusal": "", "reasoning": "", "tool_calls": [], "function_call": null });
    let chunks =
        assert_round_trip(&answer(json!([{ "index": 0, "finish_reason": "stop", "message": message }])));
    assert_eq!(chunks[0]["choices"][0]["delta"]["tool_calls"], json!([]));
}
