//! A response is the same in both forms, whichever way it came, and only a complete one is stored.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::Responses;
use crate::dialects::{Dialect as _, Note, StreamForm, Unstorable};
use crate::domain::{TokenUsage, UnixSeconds};
use crate::sse::{Event, Events};

const NOW: UnixSeconds = UnixSeconds(7);
const STREAM: StreamForm = StreamForm { wants_usage: true, ends_with_done: false };

pub(super) fn response(output: Value) -> Value {
    json!({ "id": "resp_1", "object": "response", "created_at": 1, "completed_at": 2, "status": "completed", "error": null,
        "incomplete_details": null, "instructions": "be kind", "model": "m", "output": output, "store": true, "tools": [],
        "usage": { "input_tokens": 1, "input_tokens_details": { "cached_tokens": 0 }, "output_tokens": 2, "total_tokens": 3 } })
}

pub(super) fn text(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
}

pub(super) fn message(content: Value) -> Value {
    json!({ "id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": content })
}

/// A response with everything that can be replayed.
fn everything() -> Value {
    let token = |text: &str| {
        json!({ "token": text, "logprob": -0.25, "bytes": text.as_bytes(),
            "top_logprobs": [{ "token": text, "logprob": -0.25, "bytes": text.as_bytes() }] })
    };
    let cited = json!({ "type": "url_citation", "url": "u", "start_index": 0, "end_index": 3 });
    response(json!([
        { "id": "rs_1", "type": "reasoning", "encrypted_content": "gAAAA", "status": null,
          "summary": [{ "type": "summary_text", "text": "first this, then that, and at last the other" }],
          "content": [{ "type": "reasoning_text", "text": "so it is" }] },
        { "id": "rs_2", "type": "reasoning", "summary": [] },
        message(json!([
            { "type": "output_text", "text": "uno dos tres cuatro cinco seis siete ocho nueve diez once 😀 y más palabras que siguen",
              "annotations": [cited, cited], "logprobs": [] },
            { "type": "refusal", "refusal": "I would rather not." },
            { "type": "output_text", "text": "ab c", "annotations": [], "logprobs": [token("ab"), token(" c")] },
            { "type": "output_text", "text": "ñ", "logprobs": [token("\u{fffd}"), token("\u{fffd}")] },
            { "type": "output_text", "text": "", "annotations": [] },
        ])),
        { "id": "fc_1", "type": "function_call", "call_id": "call_1", "name": "weather", "status": "completed",
          "arguments": "{\"city\": \"La Coruña\", \"days\": [1, 2, 3]}" },
        { "id": "ctc_1", "type": "custom_tool_call", "call_id": "call_2", "name": "run", "input": "print(1)\n" },
    ]))
}

/// The events of a response as an upstream sends them, with each text in pieces of `letters`.
fn events_of(whole: &Value, letters: usize) -> Vec<Value> {
    let mut events = vec![];
    let say = |events: &mut Vec<Value>, name: &str, more: Value| {
        let mut event = json!({ "type": name, "sequence_number": events.len(), "obfuscation": "x" });
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        events.push(event);
    };
    let mut opened = whole.clone();
    (opened["status"], opened["output"], opened["usage"]) = ("in_progress".into(), json!([]), Value::Null);
    say(&mut events, "response.created", json!({ "response": opened }));
    say(&mut events, "response.in_progress", json!({ "response": opened }));
    for (at, item) in whole["output"].as_array().unwrap().iter().enumerate() {
        say(&mut events, "response.output_item.added", json!({ "output_index": at, "item": item }));
        let mut pieces = |name: &str, place: Value, text: &str, member: &str, logprobs: &Value| {
            let letters: Vec<String> =
                text.chars().collect::<Vec<_>>().chunks(letters).map(String::from_iter).collect();
            for (n, piece) in letters.iter().enumerate() {
                let mut delta = place.clone();
                delta["delta"] = piece.as_str().into();
                delta["logprobs"] = if n == 0 { logprobs.clone() } else { json!([]) };
                say(&mut events, &format!("{name}.delta"), delta);
            }
            let mut done = place;
            done[member] = text.into();
            say(&mut events, &format!("{name}.done"), done);
        };
        let place = json!({ "item_id": item["id"], "output_index": at });
        for (list, index) in [("summary", "summary_index"), ("content", "content_index")] {
            for (n, part) in item[list].as_array().into_iter().flatten().enumerate() {
                let mut place = place.clone();
                place[index] = n.into();
                let (name, member) = match part["type"].as_str().unwrap() {
                    "summary_text" => ("response.reasoning_summary_text", "text"),
                    "reasoning_text" => ("response.reasoning_text", "text"),
                    "refusal" => ("response.refusal", "refusal"),
                    _ => ("response.output_text", "text"),
                };
                pieces(name, place, part[member].as_str().unwrap(), member, &part["logprobs"]);
            }
        }
        if let Some(arguments) = item["arguments"].as_str() {
            pieces("response.function_call_arguments", place.clone(), arguments, "arguments", &Value::Null);
        }
        if let Some(input) = item["input"].as_str() {
            pieces("response.custom_tool_call_input", place.clone(), input, "input", &Value::Null);
        }
        for (n, part) in item["content"].as_array().into_iter().flatten().enumerate() {
            for annotation in part["annotations"].as_array().into_iter().flatten() {
                let mut event = place.clone();
                (event["content_index"], event["annotation"]) = (n.into(), annotation.clone());
                say(&mut events, "response.output_text.annotation.added", event);
            }
        }
        say(&mut events, "response.output_item.done", json!({ "output_index": at, "item": item }));
    }
    say(&mut events, "response.completed", json!({ "response": whole }));
    events
}

fn event(data: &Value) -> Event {
    Event::read(format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap()).into())
}

pub(super) fn assembled(events: &[Value]) -> Result<Value, Unstorable> {
    let mut assembler = Responses.assembler();
    events.iter().for_each(|data| _ = assembler.push(&event(data)));
    assembler.end();
    assembler.finish().map(|json| serde_json::from_slice(&json).unwrap())
}

pub(super) fn stored(whole: &Value) -> Vec<u8> {
    let answer = Responses.read_reply(whole.to_string().as_bytes()).expect("an answer");
    assert_eq!(answer.unstorable, None);
    answer.json.to_vec()
}

/// The events of a replay, each of the type that its line `event` names, numbered from 0 on.
pub(super) fn replayed(answer: &[u8]) -> Vec<Value> {
    let mut replay = Responses.replay_events(answer, NOW, STREAM).expect("it can be replayed");
    let (mut events, mut all) = (Events::default(), Vec::new());
    std::iter::from_fn(|| replay.next_bytes(500)).for_each(|bytes| events.push(&bytes));
    while let Some(event) = events.next_event() {
        let data: Value = serde_json::from_str(event.data.as_deref().unwrap()).unwrap();
        let named = format!("event: {}\n", data["type"].as_str().unwrap());
        assert!(event.bytes.starts_with(named.as_bytes()), "{data}");
        assert_eq!(data["sequence_number"], all.len(), "{data}");
        all.push(data);
    }
    assert!(events.rest().is_empty());
    all
}

/// A response is the same in each form, whether it came whole or as events.
fn assert_round_trip(whole: &Value, letters: usize) {
    let from_events = assembled(&events_of(whole, letters)).expect("it adds up");
    for answer in [stored(whole), stored(&from_events)] {
        let json: Value = serde_json::from_slice(&Responses.replay_json(&answer, NOW)).unwrap();
        assert_eq!(json, *whole);
        assert_eq!(&assembled(&replayed(&answer)).expect("it adds up"), whole);
    }
}

#[test]
fn a_response_of_every_kind_is_the_same_in_both_forms() {
    for letters in [1, 5, 1000] {
        assert_round_trip(&everything(), letters);
    }
    let answer = Responses.read_reply(everything().to_string().as_bytes()).unwrap();
    assert!(answer.calls_tools);
    assert_eq!(answer.usage, Some(TokenUsage::new(1, 2)));
}

#[test]
fn the_mark_of_other_apis_ends_a_stream_that_is_to_have_it() {
    let answer = stored(&response(json!([message(json!([text("so it is")]))])));
    let stream = |ends_with_done| {
        let form = StreamForm { ends_with_done, ..STREAM };
        let mut replay = Responses.replay_events(&answer, NOW, form).expect("it can be replayed");
        let bytes: Vec<u8> = std::iter::from_fn(|| replay.next_bytes(100)).flatten().collect();
        String::from_utf8(bytes).unwrap()
    };
    let (unmarked, marked) = (stream(false), stream(true));
    assert_eq!(marked, format!("{unmarked}data: [DONE]\n\n"));
    assert!(!unmarked.contains("[DONE]"));
}

#[test]
fn the_events_of_a_text_are_those_that_clients_expect() {
    let whole = response(json!([message(json!([text(
        "one two three four five six seven eight nine ten eleven twelve thirteen"
    )]))]));
    let events = replayed(&stored(&whole));
    let mut names: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    names.dedup();
    assert_eq!(
        names,
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    assert!(events.len() > names.len(), "the text is sent in pieces");
    let opened = &events[0]["response"];
    assert_eq!(
        (&opened["status"], &opened["output"], &opened["usage"]),
        (&json!("in_progress"), &json!([]), &Value::Null)
    );
    assert_eq!(
        events[2]["item"],
        json!({ "id": "msg_1", "type": "message", "status": "in_progress", "role": "assistant", "content": [] })
    );
    assert_eq!(events[3]["part"], text(""));
    assert_eq!((&events[4]["item_id"], &events[4]["logprobs"]), (&json!("msg_1"), &json!([])));
    let pieces = events.iter().filter_map(|event| event["delta"].as_str());
    assert_eq!(pieces.collect::<String>(), whole["output"][0]["content"][0]["text"].as_str().unwrap());
}

#[test]
fn probabilities_are_sent_with_the_words_that_they_are_of() {
    let events = replayed(&stored(&everything()));
    let deltas = events
        .iter()
        .filter(|event| event["type"] == "response.output_text.delta" && event["content_index"] == 2);
    let deltas: Vec<&Value> = deltas.collect();
    let token = |text: &str| json!({ "token": text, "logprob": -0.25, "top_logprobs": [{ "token": text, "logprob": -0.25 }] });
    assert_eq!(
        (&deltas[0]["delta"], &deltas[0]["logprobs"]),
        (&json!("ab c"), &json!([token("ab"), token(" c")]))
    );
}

#[test]
fn a_response_that_the_upstream_stores_keeps_its_id() {
    let whole = response(json!([message(json!([text("a")]))]));
    let (mut unstored, mut silent) = (whole.clone(), whole.clone());
    unstored["store"] = false.into();
    silent.as_object_mut().unwrap().remove("store");
    for kept in [&whole, &silent] {
        let events = replayed(&stored(kept));
        assert!(
            events.iter().all(|event| event["response"].is_null() || event["response"]["id"] == "resp_1")
        );
    }
    let answer = stored(&unstored);
    let [one, two] =
        [(); 2].map(|()| serde_json::from_slice::<Value>(&Responses.replay_json(&answer, NOW)).unwrap());
    assert!(
        one["id"] != two["id"] && one["id"].as_str().unwrap().starts_with("resp_") && one["id"] != "resp_1"
    );
    assert_eq!(
        (&one["created_at"], &one["completed_at"], &one["output"]),
        (&json!(7), &json!(7), &whole["output"])
    );
    let events = replayed(&answer);
    assert_eq!(events[0]["response"]["id"], events.last().unwrap()["response"]["id"]);
}

#[test]
fn only_a_complete_response_is_stored() {
    let read = |member: &str, value: Value| {
        let mut whole = response(json!([message(json!([text("a")]))]));
        whole[member] = value;
        Responses.read_reply(whole.to_string().as_bytes()).map(|answer| answer.unstorable)
    };
    assert_eq!(read("status", "completed".into()), Some(None));
    for status in ["incomplete", "cancelled", "queued", "in_progress", "x_unknown"] {
        assert_eq!(read("status", status.into()), Some(Some(Unstorable::Unfinished)), "{status}");
    }
    for (member, value) in [
        ("status", json!("failed")),
        ("status", Value::Null),
        ("error", json!({ "code": "server_error" })),
        ("object", json!("chat.completion")),
    ] {
        assert_eq!(read(member, value), None, "{member}");
    }
    for (output, reason) in [
        (json!([]), Unstorable::Empty),
        (json!([message(json!([]))]), Unstorable::Empty),
        (json!([message(json!([text(" ")]))]), Unstorable::Empty),
        (
            json!([{ "id": "rs", "type": "reasoning", "summary": [{ "type": "summary_text", "text": "a" }] }]),
            Unstorable::Empty,
        ),
        (
            json!([{ "id": "sh", "type": "local_shell_call", "status": "completed" }]),
            Unstorable::UnknownMember,
        ),
        (json!([message(json!([{ "type": "output_audio" }]))]), Unstorable::UnknownMember),
        (json!([{ "type": "message", "content": [text("a")] }]), Unstorable::UnknownMember),
        (
            json!([{ "id": "m", "type": "message", "status": "incomplete", "content": [text("a")] }]),
            Unstorable::Unfinished,
        ),
        (json!([{ "id": "m".repeat(300), "type": "message", "content": [text("a")] }]), Unstorable::Envelope),
        (json!([message(Value::Array(vec![text("a"); 1024]))]), Unstorable::Envelope),
    ] {
        assert_eq!(read("output", output.clone()), Some(Some(reason)), "{output:.100}");
    }
}

#[test]
fn a_stream_that_does_not_add_up_is_no_answer() {
    let whole = response(json!([message(json!([text("one two")]))]));
    let events = events_of(&whole, 4);
    let changed = |at: usize, member: &str, value: Value| {
        let mut events = events.clone();
        events[at][member] = value;
        assembled(&events)
    };
    let delta = events.iter().position(|event| event["type"] == "response.output_text.delta").unwrap();
    let done = events.iter().position(|event| event["type"] == "response.output_item.done").unwrap();
    assert_eq!(changed(delta, "delta", "two ".into()), Err(Unstorable::Uncertain));
    assert_eq!(changed(delta, "delta", json!(1)), Err(Unstorable::UnknownMember));
    assert_eq!(changed(delta, "content_index", json!(1)), Err(Unstorable::Uncertain));
    assert_eq!(changed(delta, "x_unknown", json!(1)), Err(Unstorable::UnknownMember));
    assert_eq!(changed(delta, "x_unknown", Value::Null), Ok(whole.clone()));
    assert_eq!(changed(delta, "logprobs", json!([{ "token": "one " }])), Err(Unstorable::Uncertain));
    assert_eq!(changed(delta, "type", "response.x_unknown.delta".into()), Err(Unstorable::UnknownMember));
    assert_eq!(changed(delta, "type", "error".into()), Err(Unstorable::Error));
    assert_eq!(changed(done, "item", message(json!([text("one")]))), Err(Unstorable::Uncertain));
    assert_eq!(changed(done, "output_index", json!(1)), Err(Unstorable::Uncertain));
    let without = |at: usize| assembled(&[&events[..at], &events[at + 1..]].concat());
    assert_eq!(without(delta), Err(Unstorable::Uncertain));
    assert_eq!(without(done), Err(Unstorable::Uncertain));
    assert_eq!(without(events.len() - 1), Err(Unstorable::Incomplete));
    let late = [&events[..], &events[..1]].concat();
    assert_eq!(assembled(&late), Err(Unstorable::Uncertain));
    let kept_alive =
        [&events[..2], &[json!({ "type": "keepalive", "sequence_number": 2 })], &events[2..]].concat();
    assert_eq!(assembled(&kept_alive), Ok(whole));
}

#[test]
fn a_stream_that_ends_otherwise_is_over_and_not_stored() {
    let whole = response(json!([message(json!([text("one two")]))]));
    for (name, reason) in [
        ("response.failed", Unstorable::Error),
        ("response.incomplete", Unstorable::Unfinished),
        ("response.cancelled", Unstorable::Unfinished),
    ] {
        let mut events = events_of(&whole, 4);
        events.last_mut().unwrap()["type"] = name.into();
        let mut assembler = Responses.assembler();
        let notes: Vec<Note> = events.iter().map(|data| assembler.push(&event(data))).collect();
        assert_eq!(notes.last().unwrap().is_error, reason == Unstorable::Error, "{name}");
        assert!(assembler.is_done() && assembler.has_ended());
        assert_eq!(assembler.usage(), Some(TokenUsage::new(1, 2)));
        assert_eq!(assembler.finish(), Err(reason), "{name}");
    }
    let mut long = Responses.assembler();
    let events = events_of(&whole, 4);
    events[..5].iter().for_each(|data| _ = long.push(&event(data)));
    long.give_up();
    events[5..].iter().for_each(|data| _ = long.push(&event(data)));
    assert!(long.is_done() && long.usage().is_some());
    assert_eq!(long.finish(), Err(Unstorable::TooLarge));
}

#[test]
fn a_response_on_several_lines_is_replayed_as_events_on_one() {
    let reply = serde_json::to_string_pretty(&everything()).unwrap();
    let answer = Responses.read_reply(reply.as_bytes()).unwrap();
    assert_eq!(assembled(&replayed(&answer.json)), Ok(everything()));
}

#[test]
fn a_stream_is_not_much_longer_than_its_response() {
    for words in [1, 100, 10_000] {
        for id in ["m".to_owned(), "m".repeat(250)] {
            let mut whole = response(json!([message(json!([text(&"w ".repeat(words))]))]));
            whole["output"][0]["id"] = id.into();
            let answer = stored(&whole);
            let mut replay = Responses.replay_events(&answer, NOW, STREAM).unwrap();
            let (held, expected) = replay.bytes_held_and_expected();
            let bytes: usize = std::iter::from_fn(|| replay.next_bytes(1000)).map(|bytes| bytes.len()).sum();
            assert!(bytes <= 10 * answer.len() + 8192, "{bytes} of {}", answer.len());
            assert!(bytes <= expected && held >= answer.len(), "{bytes} of {expected}");
        }
    }
}

fn part() -> impl Strategy<Value = Value> {
    let said = "(?s).{0,200}";
    prop_oneof![
        said.prop_map(|said| text(&said)),
        said.prop_map(|said| json!({ "type": "refusal", "refusal": said })),
        (said, "[a-z]{1,9}").prop_map(|(said, url)| {
            json!({ "type": "output_text", "text": said, "annotations": [{ "type": "url_citation", "url": url }], "x_unknown": { "b": 1, "a": null } })
        }),
    ]
}

fn item() -> impl Strategy<Value = Value> {
    let said = "(?s).{0,200}";
    prop_oneof![
        prop::collection::vec(part(), 0..4).prop_map(|parts| message(Value::Array(parts))),
        prop::collection::vec(said, 0..3).prop_map(|texts| {
            let summary: Vec<Value> = texts.iter().map(|text| json!({ "type": "summary_text", "text": text })).collect();
            json!({ "id": "rs", "type": "reasoning", "summary": summary, "encrypted_content": "x" })
        }),
        (said, "[a-z_]{1,9}").prop_map(|(said, name)| {
            json!({ "id": "fc", "type": "function_call", "call_id": "c", "name": name, "arguments": said, "status": "completed" })
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_response_comes_out_of_its_events(items in prop::collection::vec(item(), 0..4), letters in 1usize..9) {
        let mut items = items;
        items.push(message(json!([text("the end")])));
        assert_round_trip(&response(Value::Array(items)), letters);
    }
}
