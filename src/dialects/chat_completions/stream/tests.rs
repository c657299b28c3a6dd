//! What adds up, what does not, and the shapes in which servers in the field send their streams.

use serde_json::json;

use super::*;
use crate::dialects::Assembler as _;
use crate::dialects::chat_completions::ChunkAssembler;
use crate::dialects::choices::is_ping;
use crate::domain::TokenUsage;
use crate::sse::Event;

fn assemble(chunks: &[Value]) -> Option<Value> {
    summed(chunks).ok()
}

/// The whole answer, or why there is none.
fn summed(chunks: &[Value]) -> Result<Value, Unstorable> {
    let mut assembly = ChunkAssembler::default();
    chunks.iter().for_each(|chunk| _ = assembly.push_data(&chunk.to_string()));
    assembly.push_data("[DONE]");
    assembly.finish().map(|json| serde_json::from_slice(&json).unwrap())
}

/// The choice of a stream of one, whose chunks are deltas with what stands beside them.
fn choice_of(parts: &[(Value, Value)]) -> Result<Value, Unstorable> {
    let mut chunks: Vec<Value> = Vec::new();
    for (delta, beside) in parts {
        let mut chunk = chunk(delta.clone(), Value::Null);
        let members = beside.as_object().into_iter().flatten();
        members.for_each(|(name, value)| chunk["choices"][0][name] = value.clone());
        chunks.push(chunk);
    }
    chunks.push(chunk(json!({}), "stop".into()));
    summed(&chunks).map(|whole| whole["choices"][0].clone())
}

fn chunk(delta: Value, reason: Value) -> Value {
    json!({ "id": "c", "created": 1, "object": "chat.completion.chunk", "model": "m",
        "choices": [{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": reason }], "usage": null })
}

#[test]
fn words_logprobs_and_usage_add_up() {
    let token = |token: &str| json!({ "content": [{ "token": token, "logprob": -0.1 }], "refusal": null });
    let mut one = chunk(json!({ "content": "Ho" }), Value::Null);
    one["choices"][0]["logprobs"] = token("Ho");
    let mut two = chunk(json!({ "content": "la" }), Value::Null);
    two["choices"][0]["logprobs"] = token("la");
    let usage =
        json!({ "id": "c", "created": 1, "model": "m", "choices": [], "usage": { "total_tokens": 3 } });
    let first = chunk(json!({ "role": "assistant", "content": "", "refusal": null }), Value::Null);
    let whole = assemble(&[first, one, two, chunk(json!({}), "stop".into()), usage]).unwrap();
    let choice = &whole["choices"][0];
    assert_eq!(choice["message"], json!({ "role": "assistant", "content": "Hola", "refusal": null }));
    assert_eq!(choice["logprobs"]["content"].as_array().unwrap().len(), 2);
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!((&whole["usage"]["total_tokens"], &whole["object"]), (&json!(3), &json!("chat.completion")));
}

#[test]
fn choices_and_calls_come_to_their_own_places() {
    let call = |choice: u64, call: Value| json!({ "model": "m", "choices": [{ "index": choice, "delta": { "tool_calls": [call] } }] });
    let end =
        |choice: u64| json!({ "choices": [{ "index": choice, "delta": {}, "finish_reason": "tool_calls" }] });
    let named =
        json!({ "id": "a", "type": "function", "index": 0, "function": { "name": "f", "arguments": "" } });
    let other =
        json!({ "id": "b", "type": "function", "index": 1, "function": { "name": "g", "arguments": "{}" } });
    let more = |text: &str| json!({ "index": 0, "function": { "arguments": text } });
    let whole = assemble(&[
        call(1, named.clone()),
        call(0, named),
        call(0, other),
        call(1, more("{\"x\"")),
        call(1, more(":1}")),
        end(0),
        end(1),
    ])
    .unwrap();
    let calls = &whole["choices"][1]["message"]["tool_calls"];
    let expected =
        json!([{ "id": "a", "type": "function", "function": { "name": "f", "arguments": "{\"x\":1}" } }]);
    assert_eq!(*calls, expected);
    assert_eq!(whole["choices"][0]["message"]["tool_calls"][1]["function"]["name"], "g");
    assert_eq!(whole["choices"][0]["message"]["content"], Value::Null);
}

#[test]
fn what_cannot_be_summed_up_is_no_answer() {
    let end = || chunk(json!({}), "stop".into());
    let audio = |data: &str| chunk(json!({ "audio": { "data": data } }), Value::Null);
    assert!(assemble(&[audio("a"), audio("b"), end()]).is_none());
    assert!(assemble(&[audio("a"), audio("a"), end()]).is_none(), "two pieces may be alike");
    assert!(assemble(&[audio("a"), audio(""), end()]).is_some());
    assert!(assemble(&[]).is_none());
    assert!(assemble(&[json!({ "choices": [{ "index": 3, "delta": {} }] }), end()]).is_none(), "a gap");
    assert!(assemble(&[json!({ "error": { "message": "no" } }), end()]).is_none());
    assert!(assemble(&[json!({ "object": "error", "message": "no" }), end()]).is_none());
    assert!(assemble(&[json!({ "choices": [{ "delta": {} }] })]).is_none(), "no index");
    let mut cut = ChunkAssembler::default();
    cut.push_data(&end().to_string());
    assert_eq!(cut.finish(), Err(Unstorable::Incomplete), "it has not said that it is over");
    let mut wrong = ChunkAssembler::default();
    wrong.push_data("{nonsense");
    wrong.push_data(&end().to_string());
    wrong.push_data("[DONE]");
    assert_eq!(wrong.finish(), Err(Unstorable::Garbled));
}

#[test]
fn members_that_come_in_pieces_are_joined() {
    let beside = |name: &str, value: Value| {
        let mut chunk = chunk(json!({ "role": "assistant", "content": "a" }), Value::Null);
        chunk[name] = value;
        chunk
    };
    let end = chunk(json!({}), "stop".into());
    let groq = [
        beside("x_groq", json!({ "id": "r" })),
        beside("x_groq", json!({ "usage": { "total_tokens": 3 } })),
        end.clone(),
    ];
    let whole = assemble(&groq).unwrap();
    assert_eq!(whole["x_groq"], json!({ "id": "r", "usage": { "total_tokens": 3 } }));
    assert_eq!(whole["choices"][0]["message"]["content"], "aa");
    let filters = |value: Value| {
        let mut chunk = end.clone();
        chunk["choices"][0]["content_filter_results"] = value;
        chunk
    };
    let safe = json!({ "hate": { "filtered": false, "severity": "safe" } });
    let whole = assemble(&[filters(json!({})), filters(safe.clone()), filters(safe.clone())]).unwrap();
    assert_eq!(whole["choices"][0]["content_filter_results"], safe);
    let low = json!({ "hate": { "filtered": false, "severity": "low" } });
    assert!(assemble(&[filters(safe), filters(low)]).is_none(), "either may hold");
}

#[test]
fn what_was_used_is_known_also_of_a_stream_without_a_sum() {
    let mut assembly = ChunkAssembler::default();
    assembly.push_data(&chunk(json!({ "audio": "a" }), Value::Null).to_string());
    assert!(!assembly.has_ended());
    assembly.push_data(&chunk(json!({ "audio": "b" }), "stop".into()).to_string());
    assembly.push_data(r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#);
    assert!(assembly.has_ended());
    assert_eq!(assembly.usage(), Some(TokenUsage::new(3, 2)));
    assert_eq!(assembly.finish(), Err(Unstorable::UnknownMember));
}

#[test]
fn the_event_that_tells_only_what_was_used_is_known() {
    let mut assembly = ChunkAssembler::default();
    let usage = json!({ "choices": [], "usage": { "total_tokens": 3 } });
    assert!(assembly.push_data(&usage.to_string()).is_usage);
    assert!(!assembly.push_data(&chunk(json!({ "content": "a" }), Value::Null).to_string()).is_usage);
    assert!(assembly.push_data(r#"{"error":{"message":"no"}}"#).is_error);
}

/// Streams as they come from servers that add something of their own to each chunk.
#[test]
fn what_is_of_a_chunk_is_not_of_the_answer() {
    let mut mistral =
        [chunk(json!({ "content": "a" }), Value::Null), chunk(json!({ "content": "b" }), json!("stop"))];
    mistral[0]["p"] = json!("abc");
    mistral[1]["p"] = json!("abcdef");
    let mut together = mistral.clone();
    together[0]["choices"][0]["text"] = json!("a");
    together[1]["choices"][0]["text"] = json!("b");
    together[0]["choices"][0]["delta"]["token_id"] = json!(32);
    together[1]["choices"][0]["delta"]["token_id"] = json!(33);
    let mut azure = mistral.clone();
    for (at, end) in [(0, 5), (1, 9)] {
        azure[at]["choices"][0]["content_filter_offsets"] = json!({ "end_offset": end });
    }
    for chunks in [&mistral, &together, &azure] {
        let whole = assemble(chunks).expect("it adds up");
        assert_eq!(whole["choices"][0]["message"]["content"], "ab");
        assert!(whole.get("p").is_none() && whole["choices"][0].get("text").is_none());
    }
    assert_eq!(assemble(&azure).unwrap()["choices"][0]["content_filter_offsets"]["end_offset"], 9);
    let thought = |text: &str| chunk(json!({ "reasoning_details": [{ "text": text }] }), Value::Null);
    let whole =
        assemble(&[thought("x"), thought("x"), chunk(json!({ "content": "y" }), json!("stop"))]).unwrap();
    let details = &whole["choices"][0]["message"]["reasoning_details"];
    assert_eq!(*details, json!([{ "text": "x" }, { "text": "x" }]));
}

#[test]
fn two_calls_under_one_number_are_none() {
    let call = |arguments: &str| {
        let call = json!({ "index": 0, "function": { "name": "", "arguments": arguments } });
        chunk(json!({ "function_call": null, "tool_calls": [call] }), Value::Null)
    };
    let end = chunk(json!({}), json!("tool_calls"));
    assert!(assemble(&[call("{\"a\":"), call("1}"), end.clone()]).is_some());
    assert!(assemble(&[call("{\"a\":1}"), call("{\"a\":2}"), end]).is_none());
}

#[test]
fn a_member_or_a_type_without_a_rule_is_no_answer() {
    let nothing = || json!({});
    let unknown = [
        (json!({ "words": "a" }), nothing()),
        (json!({ "content": { "text": "a" } }), nothing()),
        (json!({ "content": 7 }), nothing()),
        (json!({ "reasoning": ["a"] }), nothing()),
        (json!({ "tool_calls": { "0": {} } }), nothing()),
        (json!({ "tool_calls": [{ "index": 0, "function": { "name": "f", "then": "g" } }] }), nothing()),
        (json!({ "tool_calls": [{ "index": 0, "function": { "arguments": { "a": 1 } } }] }), nothing()),
        (json!({ "tool_calls": [{ "id": "no index" }] }), nothing()),
        (json!({ "function_call": "f" }), nothing()),
        (json!({ "reasoning_details": [{ "index": 0, "thought": "a" }] }), nothing()),
        (json!({ "reasoning_details": ["a"] }), nothing()),
        (json!("a"), nothing()),
        (json!(["a"]), nothing()),
        (nothing(), json!({ "text": "whole text" })),
        (json!({ "content": "a" }), json!({ "text": "b" })),
        (nothing(), json!({ "message": { "content": "whole text" } })),
        (json!({ "content": "a" }), json!({ "message": { "content": "ab" } })),
        (json!({ "content": "a" }), json!({ "message": { "content": "a", "tool_calls": [{ "id": "c" }] } })),
        (nothing(), json!({ "message": "whole text" })),
        (nothing(), json!({ "logprobs": [1] })),
        (nothing(), json!({ "logprobs": { "tokens": ["a"] } })),
        (nothing(), json!({ "token_ids": 7 })),
        (nothing(), json!({ "content": "a" })),
        (nothing(), json!({ "index": "0" })),
        (nothing(), json!({ "finish_reason": 1 })),
    ];
    for part in unknown {
        let shown = format!("{part:?}");
        let begun = (json!({ "role": "assistant", "content": "" }), nothing());
        assert_eq!(choice_of(&[begun, part]), Err(Unstorable::UnknownMember), "{shown}");
    }
    for (name, value) in [
        ("words", json!("a")),
        ("model", json!(7)),
        ("object", json!("text_completion")),
        ("choices", json!("a")),
        ("choices", json!(["a"])),
        ("usage", json!("a")),
        ("output", json!([{ "text": "a" }])),
    ] {
        let mut chunk = chunk(json!({ "content": "a" }), "stop".into());
        chunk[name] = value.clone();
        assert_eq!(summed(&[chunk]), Err(Unstorable::UnknownMember), "{name}: {value}");
    }
    let mut says_nothing =
        chunk(json!({ "content": "a", "words": null, "notes": [], "more": "" }), "stop".into());
    says_nothing["more"] = json!({});
    assert_eq!(assemble(&[says_nothing]).unwrap()["choices"][0]["message"]["content"], "a");
}

#[test]
fn an_error_is_no_answer_wherever_it_stands() {
    let error = json!({ "code": 502, "message": "died" });
    for (delta, beside) in [
        (json!({ "content": "par" }), json!({ "error": error })),
        (json!({ "content": "par", "error": error }), json!({})),
        (json!({ "content": "par" }), json!({ "finish_reason": "error" })),
    ] {
        assert_eq!(choice_of(&[(delta, beside)]), Err(Unstorable::Error));
    }
    for (name, value) in [
        ("error", error),
        ("object", json!("error")),
        ("type", json!("error")),
        ("x_groq", json!({ "id": "r", "error": "over capacity" })),
    ] {
        let mut chunk = chunk(json!({ "content": "par" }), "stop".into());
        chunk[name] = value;
        let mut assembly = ChunkAssembler::default();
        assert!(assembly.push_data(&chunk.to_string()).is_error, "{name}");
        assert_eq!(assembly.finish(), Err(Unstorable::Error), "{name}");
    }
}

#[test]
fn equal_pieces_are_not_one_piece() {
    let words = |ids: Value| (json!({ "content": "w" }), json!({ "token_ids": ids }));
    assert_eq!(choice_of(&[words(json!([7])), words(json!([7]))]).unwrap()["token_ids"], json!([7, 7]));
    let twice = |delta: Value| choice_of(&[(delta.clone(), json!({})), (delta, json!({}))]);
    for delta in [
        json!({ "annotations": [{ "url": "u" }] }),
        json!({ "audio": { "data": "AA" } }),
        json!({ "images": ["i"] }),
        json!({ "extra_content": { "google": { "thought_signature": "s" } } }),
        json!({ "tool_calls": [{ "index": 0, "function": { "name": "get" } }] }),
        json!({ "function_call": { "name": "get" } }),
        json!({ "reasoning_details": [{ "index": 0, "data": "AA" }] }),
        json!({ "reasoning_details": [{ "index": 0, "signature": "S" }] }),
    ] {
        assert_eq!(twice(delta.clone()), Err(Unstorable::Uncertain), "{delta}");
    }
    let named = json!({ "tool_calls": [{ "index": 0, "id": "c", "type": "function" }] });
    assert!(twice(named).is_ok(), "names of a call may be said again");
    assert_eq!(twice(json!({ "content": "ab" })).unwrap()["message"]["content"], "abab");
}

/// OpenRouter's shape, as LangChain's pull request 36401 shows it.
#[test]
fn entries_of_reasoning_come_in_fragments() {
    let part = json!({ "type": "reasoning.text", "index": 0, "format": "f" });
    let with = |more: Value| {
        let mut entry = part.clone();
        more.as_object().unwrap().iter().for_each(|(name, value)| entry[name] = value.clone());
        (json!({ "content": "", "reasoning_details": [entry] }), json!({}))
    };
    let sealed = json!({ "type": "reasoning.encrypted", "index": 0, "id": "rs", "data": "SECRET" });
    let whole = choice_of(&[
        with(json!({ "text": "Let" })),
        with(json!({ "text": " me" })),
        (json!({ "reasoning_details": [sealed] }), json!({})),
        with(json!({ "text": null, "signature": "SIG" })),
        (json!({ "content": "42" }), json!({})),
    ])
    .unwrap();
    let mut expected = part.clone();
    (expected["text"], expected["signature"]) = ("Let me".into(), "SIG".into());
    assert_eq!(whole["message"]["reasoning_details"], json!([expected, sealed]));
    assert_eq!(whole["message"]["content"], "42");
    let bare = |text: &str| {
        (json!({ "reasoning_details": [{ "type": "reasoning.text", "text": text }] }), json!({}))
    };
    let whole = choice_of(&[bare("x"), bare("x")]).unwrap();
    assert_eq!(
        whole["message"]["reasoning_details"].as_array().unwrap().len(),
        2,
        "whole ones without an index"
    );
}

/// Perplexity's shape: each chunk repeats the message so far, and the sources.
#[test]
fn a_message_may_run_along_beside_the_deltas() {
    let part = |text: &str, so_far: &str| {
        let message = json!({ "role": "assistant", "content": so_far });
        (json!({ "role": "assistant", "content": text }), json!({ "message": message }))
    };
    let whole = choice_of(&[part("Ho", "Ho"), part("la", "Hola"), part("", "Hola")]).unwrap();
    assert_eq!(whole["message"], json!({ "role": "assistant", "content": "Hola" }));
    let mut cited = [chunk(json!({ "content": "a" }), Value::Null), chunk(json!({}), "stop".into())];
    cited.iter_mut().for_each(|chunk| chunk["citations"] = json!(["http://a.example"]));
    cited[1]["object"] = "chat.completion.done".into();
    assert_eq!(assemble(&cited).unwrap()["citations"], json!(["http://a.example"]));
    cited[1]["citations"] = json!(["http://a.example", "http://b.example"]);
    assert_eq!(assemble(&cited).unwrap()["citations"].as_array().unwrap().len(), 2);
    cited[1]["citations"] = json!(["http://b.example"]);
    assert_eq!(summed(&cited), Err(Unstorable::Uncertain), "others than before");
}

#[test]
fn a_delta_that_is_null_is_none() {
    let whole =
        assemble(&[chunk(json!({ "content": "hi" }), Value::Null), chunk(Value::Null, "stop".into())])
            .unwrap();
    let choice = whole["choices"][0].as_object().unwrap();
    assert!(!choice.contains_key("delta") && choice["finish_reason"] == "stop");
}

#[test]
fn what_keeps_the_connection_open_is_no_part_of_it() {
    let pings = [json!({ "type": "ping" }), json!({ "type": "keepalive", "cost": "0", "timestamp": 5 })];
    let words = [chunk(json!({ "content": "a" }), Value::Null), chunk(json!({}), "stop".into())];
    let whole = assemble(&[&pings[..], &words[..], &pings[..]].concat()).unwrap();
    assert!(whole.get("type").is_none() && whole["choices"][0]["message"]["content"] == "a");
    let more = json!({ "type": "ping", "words": "b" });
    assert_eq!(summed(&[&words[..], &[more]].concat()), Err(Unstorable::UnknownMember));
}

#[test]
fn a_clean_end_counts_where_every_choice_has_ended() {
    let mut assembly = ChunkAssembler::default();
    assembly.push_data(&chunk(json!({ "content": "a" }), Value::Null).to_string());
    assembly.end();
    assert!(!assembly.is_done());
    assembly.push_data(&chunk(json!({}), "stop".into()).to_string());
    assembly.end();
    assert!(assembly.finish().is_ok());
    let mut half = ChunkAssembler::default();
    half.push_data(&chunk(json!({ "content": "a" }), "stop".into()).to_string());
    half.push_data(&json!({ "choices": [{ "index": 1, "delta": { "content": "b" } }] }).to_string());
    half.end();
    assert_eq!(half.finish(), Err(Unstorable::Incomplete));
}

#[test]
fn usage_beside_other_members_is_not_alone() {
    let is_usage = |chunk: Value| ChunkAssembler::default().push_data(&chunk.to_string()).is_usage;
    let usage = json!({ "id": "c", "model": "m", "choices": [], "usage": { "total_tokens": 3 }, "service_tier": null });
    assert!(is_usage(usage.clone()));
    for (name, value) in
        [("citations", json!(["u"])), ("x_groq", json!({ "id": "r" })), ("choices", json!([{ "index": 0 }]))]
    {
        let mut chunk = usage.clone();
        chunk[name] = value;
        assert!(!is_usage(chunk), "{name}");
    }
}

#[test]
fn a_ping_is_one_unless_it_carries_a_chunk() {
    let is_ping_event = |event: &'static [u8]| is_ping(&Event::read(bytes::Bytes::from_static(event)));
    for ping in [
        &b"event: ping\ndata: {\"type\":\"ping\"}\n\n"[..],
        b"event: ping\n\n",
        b"event: keepalive\ndata: 2026-01-01\n\n",
        b"data: {}\nevent: heartbeat\n\n",
    ] {
        assert!(is_ping_event(ping), "{ping:?}");
    }
    for other in [
        &b"event: ping\ndata: {\"choices\":[]}\n\n"[..],
        b"event: ping\ndata: {\"error\":{}}\n\n",
        b"event: ping\ndata: [DONE]\n\n",
        b"event: pong\ndata: {}\n\n",
        b"data: {\"type\":\"ping\"}\n\n",
    ] {
        assert!(!is_ping_event(other), "{other:?}");
    }
}
