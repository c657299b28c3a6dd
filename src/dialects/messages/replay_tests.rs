//! A message is the same in both forms, whichever form it arrived in, and a stream of it is not much longer than it.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::Messages;
use crate::dialects::{Dialect as _, StreamForm, Unstorable};
use crate::domain::UnixSeconds;
use crate::sse::{Event, Events};

const NOW: UnixSeconds = UnixSeconds(7);
const STREAM: StreamForm = StreamForm { wants_usage: true, ends_with_done: false };

/// The events of a stream, each with its name.
fn events_of(stream: &[u8]) -> Vec<(String, Value)> {
    let (mut events, mut found) = (Events::default(), Vec::new());
    events.push(stream);
    while let Some(event) = events.next_event() {
        let text = String::from_utf8(event.bytes.to_vec()).unwrap();
        let name = text.strip_prefix("event: ").unwrap().lines().next().unwrap().to_owned();
        let data: Value = serde_json::from_str(&event.data.unwrap()).unwrap();
        assert_eq!(data["type"], name.as_str());
        found.push((name, data));
    }
    assert!(events.rest().is_empty());
    found
}

fn assembled(stream: &[u8]) -> Result<Value, Unstorable> {
    let (mut events, mut assembler) = (Events::default(), Messages.assembler());
    events.push(stream);
    while let Some(event) = events.next_event() {
        assembler.push(&event);
    }
    assembler.end();
    assembler.finish().map(|json| serde_json::from_slice(&json).unwrap())
}

/// What Anthropic's own client makes of the events of a stream: the snapshot of `MessageStream`.
fn accumulated(events: &[(String, Value)]) -> Value {
    let mut message = Value::Null;
    let mut inputs: Vec<String> = Vec::new();
    for (name, event) in events {
        let index = event["index"].as_u64().unwrap_or_default() as usize;
        match name.as_str() {
            "message_start" => message = event["message"].clone(),
            "content_block_start" => {
                assert_eq!(index, inputs.len());
                message["content"].as_array_mut().unwrap().push(event["content_block"].clone());
                inputs.push(String::new());
            }
            "content_block_delta" => {
                let (block, delta) = (&mut message["content"][index], &event["delta"]);
                let grow = |known: &Value, more: &Value| {
                    Value::from(format!("{}{}", known.as_str().unwrap(), more.as_str().unwrap()))
                };
                match delta["type"].as_str().unwrap() {
                    "text_delta" => block["text"] = grow(&block["text"], &delta["text"]),
                    "thinking_delta" => block["thinking"] = grow(&block["thinking"], &delta["thinking"]),
                    "signature_delta" => block["signature"] = delta["signature"].clone(),
                    "citations_delta" => {
                        block["citations"].as_array_mut().unwrap().push(delta["citation"].clone());
                    }
                    "input_json_delta" => {
                        inputs[index].push_str(delta["partial_json"].as_str().unwrap());
                    }
                    other => panic!("{other}"),
                }
            }
            "content_block_stop" if !inputs[index].is_empty() => {
                message["content"][index]["input"] = serde_json::from_str(&inputs[index]).unwrap();
            }
            "message_delta" => {
                for (name, value) in event["delta"].as_object().unwrap() {
                    message[name] = value.clone();
                }
                if let Some(managed) = event.get("context_management") {
                    message["context_management"] = managed.clone();
                }
                for (name, value) in event["usage"].as_object().into_iter().flatten() {
                    message["usage"][name] = value.clone();
                }
            }
            "content_block_stop" | "message_stop" => {}
            other => panic!("{other}"),
        }
    }
    message
}

fn without_id(mut message: Value) -> Value {
    let id = message.as_object_mut().unwrap().remove("id");
    assert!(id.is_none_or(|id| id.as_str().unwrap().starts_with("msg_")));
    message
}

fn replayed(answer: &[u8]) -> Vec<u8> {
    let mut replay = Messages.replay_events(answer, NOW, STREAM).expect("it can be streamed");
    std::iter::from_fn(|| replay.next_bytes(1000)).flatten().collect()
}

/// Stores a message from JSON and from a stream of it, and replays both in both forms.
fn assert_round_trip(message: &Value) -> Vec<(String, Value)> {
    let answer = Messages.read_reply(message.to_string().as_bytes()).expect("an answer");
    assert_eq!(answer.unstorable, None, "{message}");
    let expected = without_id(message.clone());
    let json: Value = serde_json::from_slice(&Messages.replay_json(&answer.json, NOW)).unwrap();
    assert_eq!(without_id(json), expected);
    let stream = replayed(&answer.json);
    let events = events_of(&stream);
    assert_eq!(without_id(accumulated(&events)), expected);
    let again = Messages.read_reply(assembled(&stream).unwrap().to_string().as_bytes()).unwrap();
    assert_eq!((again.unstorable, again.usage), (None, answer.usage));
    let json: Value = serde_json::from_slice(&Messages.replay_json(&again.json, NOW)).unwrap();
    assert_eq!(without_id(json), expected);
    assert_eq!(without_id(accumulated(&events_of(&replayed(&again.json)))), expected);
    events
}

fn message(content: Value) -> Value {
    json!({ "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": content,
        "stop_reason": "end_turn", "stop_sequence": null,
        "usage": { "input_tokens": 12, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 400,
            "cache_creation": { "ephemeral_5m_input_tokens": 3 }, "output_tokens": 9, "service_tier": "standard" } })
}

#[test]
fn what_the_upstream_ran_is_the_same_in_both_forms() {
    let message = json!({ "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
        "stop_sequence": null, "container": { "id": "container_1", "expires_at": "2026-12-01T00:00:00Z" },
        "usage": { "input_tokens": 1, "output_tokens": 2, "server_tool_use": { "web_search_requests": 1 } },
        "content": [
            { "type": "text", "text": "I look it up." },
            { "type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": { "query": "what a cache is, in words" } },
            { "type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [
                { "type": "web_search_result", "title": "Cache", "url": "u", "encrypted_content": "RXhhbXBsZQ==", "page_age": null }] },
            { "type": "server_tool_use", "id": "srvtoolu_2", "name": "bash_code_execution", "input": { "command": "ls" } },
            { "type": "bash_code_execution_tool_result", "tool_use_id": "srvtoolu_2",
                "content": { "type": "bash_code_execution_result", "stdout": "a\n", "stderr": "", "return_code": 0, "content": [] } },
            { "type": "mcp_tool_use", "id": "mcptoolu_1", "name": "log", "server_name": "git", "input": {} },
            { "type": "mcp_tool_result", "tool_use_id": "mcptoolu_1", "is_error": false, "content": [{ "type": "text", "text": "one" }] },
            { "type": "text", "text": "So it is.", "citations": [{ "type": "web_search_result_location", "url": "u", "encrypted_index": "RQ==" }] },
        ] });
    let events = assert_round_trip(&message);
    let whole: Vec<&Value> = events
        .iter()
        .filter(|(name, event)| {
            name == "content_block_start"
                && event["content_block"]["type"].as_str().unwrap().ends_with("_result")
        })
        .map(|(_, event)| &event["content_block"])
        .collect();
    let results: Vec<&Value> = [2, 4, 6].iter().map(|at| &message["content"][at]).collect();
    assert_eq!(whole, results, "a result comes in one piece");
    let grown = events.iter().filter(|(_, event)| event["delta"]["type"] == "input_json_delta");
    assert!(grown.count() >= 2, "an input comes in pieces");
}

#[test]
fn a_message_of_every_kind_is_the_same_in_both_forms() {
    let text = "uno dos tres cuatro cinco seis siete ocho nueve diez\n\nonce 😀";
    let citation = json!({ "type": "char_location", "cited_text": "dos", "document_index": 0 });
    let mut whole = message(json!([
        { "type": "thinking", "thinking": "so it is, and so it was, and so it will be", "signature": "c2ln" },
        { "type": "redacted_thinking", "data": "ZGF0YQ" },
        { "type": "text", "text": text },
        { "type": "text", "text": "cited", "citations": [citation, citation] },
        { "type": "text", "text": "", "citations": null },
        { "type": "tool_use", "id": "toolu_1", "name": "weather", "input": { "city": "A Coruña, en el norte de España, por favor", "days": [1, 2.5] } },
        { "type": "tool_use", "id": "toolu_2", "name": "now", "input": {}, "caller": { "type": "direct" } },
        { "type": "thinking", "thinking": "", "signature": "" },
    ]));
    whole["context_management"] = json!({ "applied_edits": [] });
    whole["container"] = Value::Null;
    let events = assert_round_trip(&whole);
    let names: Vec<&str> = events.iter().map(|(name, _)| &**name).collect();
    assert_eq!((names[0], names[1]), ("message_start", "content_block_start"));
    assert_eq!(names[names.len() - 2..], ["message_delta", "message_stop"]);
    let deltas = |kind: &str| events.iter().filter(|(_, event)| event["delta"]["type"] == kind).count();
    assert!(deltas("text_delta") >= 3 && deltas("thinking_delta") >= 2 && deltas("input_json_delta") >= 2);
    assert_eq!((deltas("signature_delta"), deltas("citations_delta")), (1, 2));
    let start = &events[0].1["message"];
    assert_eq!((&start["content"], &start["stop_reason"]), (&json!([]), &Value::Null));
    assert_eq!(
        (&start["usage"]["output_tokens"], &start["usage"]["cache_read_input_tokens"]),
        (&json!(0), &json!(400))
    );
    let end = &events[events.len() - 2].1;
    assert_eq!(
        (&end["delta"]["stop_reason"], &end["usage"]["output_tokens"]),
        (&json!("end_turn"), &json!(9))
    );
}

#[test]
fn a_message_with_the_fewest_members_is_the_same_in_both_forms() {
    let text = json!([{ "type": "text", "text": "a" }]);
    assert_round_trip(&json!({ "content": text, "stop_reason": "end_turn" }));
    let mut stopped = message(text);
    stopped["stop_reason"] = "stop_sequence".into();
    stopped["stop_sequence"] = "\n\n".into();
    stopped["x_unknown"] = json!({ "deep": [1] });
    assert_round_trip(&stopped);
}

#[test]
fn an_input_keeps_its_spelling() {
    let body = message(json!([{ "type": "tool_use", "id": "t", "name": "f", "input": {} }])).to_string();
    let body = body.replace(r#""input":{}"#, r#""input":{"n": 1.50, "big": 12345678901234567890123}"#);
    let answer = Messages.read_reply(body.as_bytes()).unwrap();
    let stream = replayed(&answer.json);
    let pieces = events_of(&stream).into_iter().map(|(_, event)| event["delta"]["partial_json"].clone());
    let input: String = pieces.filter_map(|piece| piece.as_str().map(str::to_owned)).collect();
    assert_eq!(input, r#"{"n": 1.50, "big": 12345678901234567890123}"#);
    let mut assembler = Messages.assembler();
    let mut events = Events::default();
    events.push(&stream);
    while let Some(event) = events.next_event() {
        assembler.push(&event);
    }
    assert!(String::from_utf8(assembler.finish().unwrap()).unwrap().contains(&input));
}

#[test]
fn two_deliveries_have_two_names() {
    let answer =
        Messages.read_reply(message(json!([{ "type": "text", "text": "a" }])).to_string().as_bytes());
    let json = answer.unwrap().json;
    let id = || events_of(&replayed(&json))[0].1["message"]["id"].clone();
    assert_ne!(id(), id());
    assert_ne!(Messages.replay_json(&json, NOW), Messages.replay_json(&json, NOW));
}

#[test]
fn a_stream_is_at_most_ten_times_its_message() {
    let text = |text: &str| json!({ "type": "text", "text": text });
    let call = json!({ "type": "tool_use", "input": { "a": ["\"\\".repeat(5000)] } });
    for content in [
        json!([text("a")]),
        json!([text(&"w ".repeat(10_000))]),
        json!([text(&"\u{1}".repeat(10_000))]),
        json!(vec![text(""); 1024]),
        json!(vec![text("a"); 1024]),
        json!(vec![text(&"word ".repeat(100)); 500]),
        json!(vec![json!({ "type": "redacted_thinking" }); 1024]),
        json!([call, text("a")]),
    ] {
        for whole in [json!({ "content": content, "stop_reason": "end_turn" }), message(content.clone())] {
            let json = whole.to_string();
            let mut replay =
                Messages.replay_events(json.as_bytes(), NOW, STREAM).expect("it can be streamed");
            let (held, expected) = replay.bytes_held_and_expected();
            let stream: Vec<u8> = std::iter::from_fn(|| replay.next_bytes(1000)).flatten().collect();
            assert!(stream.len() <= 10 * json.len(), "{} of {}", stream.len(), json.len());
            assert!(held >= json.len() && expected >= stream.len() / 3, "{expected} of {}", stream.len());
            assert_eq!(without_id(accumulated(&events_of(&stream))), without_id(whole));
        }
    }
}

#[test]
fn what_is_no_message_is_not_streamed() {
    for json in [
        "",
        "[]",
        "{}",
        r#"{"content":[1]}"#,
        r#"{"content":[{"type":"text"}]}"#,
        r#"{"content":[{"type":"server_tool_use","input":"{}"}]}"#,
        r#"{"content":[{"type":"x_unknown","input":{}}]}"#,
    ] {
        assert!(Messages.replay_events(json.as_bytes(), NOW, STREAM).is_none(), "{json}");
    }
    let many = message(json!(vec![json!({ "type": "text", "text": "a" }); 1025])).to_string();
    assert!(Messages.replay_events(many.as_bytes(), NOW, STREAM).is_none());
}

#[test]
fn a_long_stream_is_written_as_it_is_read() {
    let content = json!([{ "type": "text", "text": "word after word ".repeat(100_000) }]);
    let json = message(content).to_string();
    let mut replay = Messages.replay_events(json.as_bytes(), NOW, StreamForm::default()).unwrap();
    let pieces: Vec<usize> =
        std::iter::from_fn(|| replay.next_bytes(1 << 16)).map(|piece| piece.len()).collect();
    assert!(pieces.len() > 20 && replay.is_over(), "{} pieces", pieces.len());
    assert!(pieces.iter().all(|bytes| *bytes < (1 << 16) + 4096), "{pieces:?}");
}

#[test]
fn no_event_is_changed_for_a_client_without_interest_in_usage() {
    let event = Event::read(
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":1}}\n\n".into(),
    );
    assert!(!Messages.assembler().may_report_usage(&event));
    assert_eq!(Messages.without_usage(&event.bytes), None);
}

fn json_text() -> impl Strategy<Value = Value> {
    "(?s).{0,60}".prop_map(Value::from)
}

fn block() -> impl Strategy<Value = Value> {
    let citations = prop::collection::vec(json_text(), 1..3);
    let input = prop::collection::vec(("[a-z]{1,6}", json_text()), 0..4);
    prop_oneof![
        json_text().prop_map(|text| json!({ "type": "text", "text": text })),
        (json_text(), citations).prop_map(|(text, cited)| {
            let cited: Vec<Value> = cited.iter().map(|text| json!({ "cited_text": text })).collect();
            json!({ "type": "text", "text": text, "citations": cited })
        }),
        (json_text(), json_text()).prop_map(
            |(text, signature)| json!({ "type": "thinking", "thinking": text, "signature": signature })
        ),
        json_text().prop_map(|data| json!({ "type": "redacted_thinking", "data": data })),
        input.prop_map(|members| {
            let input: serde_json::Map<String, Value> = members.into_iter().collect();
            json!({ "type": "tool_use", "id": "toolu_1", "name": "f", "input": input })
        }),
    ]
}

proptest! {
    #[test]
    fn any_message_is_the_same_in_both_forms(
        content in prop::collection::vec(block(), 0..6),
        output_tokens in any::<u32>(),
    ) {
        let mut whole = message(json!(content));
        // It always says something.
        whole["content"].as_array_mut().unwrap().push(json!({ "type": "text", "text": "hola" }));
        whole["usage"]["output_tokens"] = output_tokens.into();
        assert_round_trip(&whole);
    }
}
