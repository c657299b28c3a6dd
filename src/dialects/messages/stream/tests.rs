//! Which streams have a certain sum, and what it is.

use serde_json::{Value, json};

use super::MessageAssembler;
use crate::dialects::messages::reply::read_reply;
use crate::dialects::{Assembler as _, Note, Unstorable};
use crate::domain::{TokenUsage, UsageDetails};
use crate::sse::Event;

fn event(data: &Value) -> Event {
    Event::read(format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap_or_default()).into())
}

fn start() -> Value {
    json!({ "type": "message_start", "message": { "id": "msg_1", "type": "message", "role": "assistant", "model": "m",
        "content": [], "stop_reason": null, "stop_sequence": null,
        "usage": { "input_tokens": 7, "cache_read_input_tokens": 5, "output_tokens": 1 } } })
}

/// What a stream has used whose end says that it was 9 tokens long.
fn usage() -> TokenUsage {
    let details = UsageDetails { cached_prompt_tokens: 5, ..UsageDetails::default() };
    TokenUsage::new(12, 9).with_details(details)
}

fn begin(index: usize, block: Value) -> Value {
    json!({ "type": "content_block_start", "index": index, "content_block": block })
}

fn delta(index: usize, delta: Value) -> Value {
    json!({ "type": "content_block_delta", "index": index, "delta": delta })
}

fn end(index: usize) -> Value {
    json!({ "type": "content_block_stop", "index": index })
}

fn text(index: usize, text: &str) -> Value {
    delta(index, json!({ "type": "text_delta", "text": text }))
}

fn change(reason: &str) -> Value {
    json!({ "type": "message_delta", "delta": { "stop_reason": reason, "stop_sequence": null },
        "usage": { "output_tokens": 9 } })
}

fn stop() -> Value {
    json!({ "type": "message_stop" })
}

/// A whole stream around the events of its content.
fn around(content: &[Value]) -> Vec<Value> {
    [&[start()], content, &[change("end_turn"), stop()]].concat()
}

fn words() -> Vec<Value> {
    vec![begin(0, json!({ "type": "text", "text": "" })), text(0, "ho"), text(0, "la"), end(0)]
}

fn push_all(events: &[Value]) -> MessageAssembler {
    let mut assembler = MessageAssembler::default();
    events.iter().for_each(|data| _ = assembler.push(&event(data)));
    assembler.end();
    assembler
}

fn sum(events: &[Value]) -> Result<Value, Unstorable> {
    push_all(events).finish().map(|json| serde_json::from_slice(&json).unwrap())
}

fn content(blocks: &[Value]) -> Result<Value, Unstorable> {
    sum(&around(blocks)).map(|message| message["content"].clone())
}

#[test]
fn the_events_of_a_message_add_up() {
    let ping = json!({ "type": "ping" });
    let events = [&[start(), ping][..], &words(), &[change("end_turn"), stop()]].concat();
    let mut assembler = push_all(&events);
    assert!(assembler.is_done() && assembler.has_ended());
    assert_eq!(assembler.usage(), Some(usage()));
    let whole: Value = serde_json::from_slice(&assembler.finish().unwrap()).unwrap();
    assert_eq!(
        whole,
        json!({ "type": "message", "role": "assistant", "model": "m", "content": [{ "type": "text", "text": "hola" }],
            "stop_reason": "end_turn", "stop_sequence": null,
            "usage": { "input_tokens": 7, "cache_read_input_tokens": 5, "output_tokens": 9 } })
    );
    assert_eq!(read_reply(whole.to_string().as_bytes()).unwrap().unstorable, None);
}

#[test]
fn blocks_of_every_kind_add_up() {
    let thinking = json!({ "type": "thinking", "thinking": "", "signature": "" });
    let call = json!({ "type": "tool_use", "id": "toolu_1", "name": "f", "input": {} });
    let redacted = json!({ "type": "redacted_thinking", "data": "ZGF0YQ" });
    let piece =
        |index, piece: &str| delta(index, json!({ "type": "input_json_delta", "partial_json": piece }));
    let cited = |citation: &str| {
        delta(3, json!({ "type": "citations_delta", "citation": { "cited_text": citation } }))
    };
    let blocks = [
        begin(0, thinking),
        delta(0, json!({ "type": "thinking_delta", "thinking": "let me" })),
        delta(0, json!({ "type": "thinking_delta", "thinking": " think" })),
        delta(0, json!({ "type": "signature_delta", "signature": "c2ln" })),
        end(0),
        begin(1, redacted.clone()),
        end(1),
        begin(2, call.clone()),
        piece(2, ""),
        piece(2, "{\"city\": \"La "),
        piece(2, "Coruña\"}"),
        end(2),
        begin(3, json!({ "type": "text", "text": "", "citations": [] })),
        text(3, "so"),
        cited("a"),
        cited("b"),
        end(3),
        begin(4, call),
        end(4),
    ];
    assert_eq!(
        content(&blocks).unwrap(),
        json!([
            { "type": "thinking", "thinking": "let me think", "signature": "c2ln" },
            redacted,
            { "type": "tool_use", "id": "toolu_1", "name": "f", "input": { "city": "La Coruña" } },
            { "type": "text", "text": "so", "citations": [{ "cited_text": "a" }, { "cited_text": "b" }] },
            { "type": "tool_use", "id": "toolu_1", "name": "f", "input": {} },
        ])
    );
}

#[test]
fn events_that_keep_the_connection_open_are_no_part_of_it() {
    let mut assembler = MessageAssembler::default();
    let beside =
        [": processing\n\n", "event: ping\ndata: {\"type\":\"ping\"}\n\n", "event: ping\ndata: 1\n\n"];
    for data in around(&words()) {
        assembler.push(&event(&data));
        beside
            .iter()
            .for_each(|bytes| assert_eq!(assembler.push(&Event::read((*bytes).into())), Note::default()));
    }
    // Gateways end every stream as OpenAI does.
    assembler.push(&Event::read("data: [DONE]\n\n".into()));
    assert!(assembler.finish().is_ok());
}

#[test]
fn an_event_block_delta_or_member_that_is_not_listed_has_no_certain_sum() {
    let unknown = Err(Unstorable::UnknownMember);
    let odd = |event: Value| [vec![event], words()].concat();
    assert_eq!(content(&odd(json!({ "type": "content_block_progress" }))), unknown);
    assert_eq!(content(&odd(json!({ "index": 0 }))), unknown);
    let hosted = json!({ "type": "x_tool_use", "id": "t", "name": "web_search", "input": {} });
    assert_eq!(content(&[begin(0, hosted), end(0)]), unknown);
    let found = json!({ "type": "web_search_tool_result", "tool_use_id": "t", "content": [] });
    assert!(content(&[begin(0, found.clone()), end(0)]).is_ok(), "it comes in one piece");
    let more = delta(0, json!({ "type": "text_delta", "text": "a" }));
    assert_eq!(content(&[begin(0, found), more, end(0)]), unknown);
    let with = |delta_of_text: Value| content(&[words()[0].clone(), delta(0, delta_of_text), end(0)]);
    assert_eq!(with(json!({ "type": "audio_delta", "data": "AA" })), unknown);
    assert_eq!(with(json!({ "type": "thinking_delta", "thinking": "a" })), unknown);
    assert_eq!(with(json!({ "type": "text_delta", "text": "a", "x": 1 })), unknown);
    assert_eq!(with(json!({ "type": "text_delta" })), unknown);
    assert_eq!(with(json!({ "type": "text_delta", "text": ["a"] })), unknown);
    assert!(with(json!({ "type": "text_delta", "text": "a", "x": null })).is_ok());
    let mut changed = change("end_turn");
    changed["delta"]["x"] = json!(1);
    assert_eq!(sum(&[vec![start()], words(), vec![changed, stop()]].concat()), unknown);
    let mut stopped = stop();
    stopped["x"] = json!(1);
    assert_eq!(sum(&[vec![start()], words(), vec![change("end_turn"), stopped]].concat()), unknown);
}

#[test]
fn what_is_said_twice_or_out_of_its_place_has_no_certain_sum() {
    let uncertain = Err(Unstorable::Uncertain);
    let [first, _, _, last] = &words()[..] else { panic!("four events") };
    assert_eq!(content(&[first.clone(), first.clone(), last.clone()]), uncertain);
    assert_eq!(content(&[first.clone(), text(1, "a"), last.clone()]), uncertain);
    assert_eq!(content(&[words(), vec![text(0, "a")]].concat()), uncertain, "behind its end");
    assert_eq!(content(&[first.clone(), text(0, "a")]), uncertain, "without its end");
    assert_eq!(content(&[begin(1, json!({ "type": "text", "text": "" })), end(1)]), uncertain);
    assert_eq!(sum(&[vec![start()], around(&words())].concat()), uncertain, "two beginnings");
    assert_eq!(sum(&around(&words())[1..]), uncertain, "no beginning");
    assert_eq!(sum(&[around(&words()), vec![start()]].concat()), uncertain, "behind the end");
    let mut early = start();
    early["message"]["content"] = json!([{ "type": "text", "text": "a" }]);
    assert_eq!(sum(&[vec![early], vec![change("end_turn"), stop()]].concat()), uncertain);
    let signature = delta(0, json!({ "type": "signature_delta", "signature": "s" }));
    let thinking = begin(0, json!({ "type": "thinking", "thinking": "a", "signature": "" }));
    assert_eq!(content(&[thinking, signature.clone(), signature, end(0)]), uncertain);
    let call = |input: Value| begin(0, json!({ "type": "tool_use", "input": input }));
    let piece = |piece: &str| delta(0, json!({ "type": "input_json_delta", "partial_json": piece }));
    assert_eq!(content(&[call(json!({})), piece("{}{}"), end(0)]), uncertain);
    assert_eq!(content(&[call(json!({})), piece("{\"a\":"), end(0)]), uncertain);
    assert_eq!(content(&[call(json!({ "a": 1 })), piece("{}"), end(0)]), uncertain);
}

#[test]
fn a_stream_without_its_last_event_is_no_answer() {
    let whole = around(&words());
    for cut in 0..whole.len() {
        let mut assembler = push_all(&whole[..cut]);
        assert!(!assembler.is_done());
        assert_eq!(assembler.has_ended(), cut == whole.len() - 1);
        assert_eq!(assembler.finish(), Err(Unstorable::Incomplete), "{cut}");
    }
}

#[test]
fn an_error_is_the_reason_whatever_else_was_odd() {
    let error = json!({ "type": "error", "error": { "type": "overloaded_error", "message": "no" } });
    let mut assembler = push_all(&[start(), json!({ "type": "odd" })]);
    assert!(assembler.push(&event(&error)).is_error);
    assert_eq!(assembler.finish(), Err(Unstorable::Error));
    // Also where only the data, or only the event, says so.
    for bytes in [format!("data: {error}\n\n"), "event: error\ndata: {\"message\":\"no\"}\n\n".to_owned()] {
        assert!(MessageAssembler::default().push(&Event::read(bytes.into())).is_error);
    }
    let mut garbled = MessageAssembler::default();
    garbled.push(&Event::read("event: message_start\ndata: {\"type\"\n\n".into()));
    assert_eq!(garbled.finish(), Err(Unstorable::Garbled));
}

#[test]
fn what_is_too_long_is_dropped_and_its_usage_is_known_all_the_same() {
    let mut assembler = push_all(&[vec![start()], words()].concat());
    assembler.give_up();
    [change("end_turn"), stop()].iter().for_each(|data| _ = assembler.push(&event(data)));
    assert!(assembler.is_done() && assembler.has_ended());
    assert_eq!(assembler.usage(), Some(usage()));
    assert_eq!(assembler.finish(), Err(Unstorable::TooLarge));
}
