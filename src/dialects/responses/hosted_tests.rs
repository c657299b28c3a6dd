//! What the upstream ran for a response is replayed as its own stream has it, or not stored.

use serde_json::{Value, json};

use super::Responses;
use super::tests::{assembled, message, replayed, response, stored, text};
use crate::dialects::{Dialect as _, HostedFeature, HostedFeatures, Unstorable};

/// An item of a tool as OpenAI sends it.
struct Sent {
    whole: Value,
    feature: HostedFeature,
    calls_client: bool,
    /// Its events between the one that adds it and the one that ends it, without their place.
    events: Vec<Value>,
}

fn progress(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({ "type": format!("response.{name}") })).collect()
}

/// The text of a call, small enough for one piece.
fn call_text(events: &str, member: &str, text: &str) -> Vec<Value> {
    vec![
        json!({ "type": format!("response.{events}.delta"), "delta": text }),
        json!({ "type": format!("response.{events}.done"), member: text }),
    ]
}

fn all() -> Vec<Sent> {
    let code = "print(6 * 7)";
    let arguments = r#"{"owner":"a"}"#;
    vec![
        Sent {
            whole: json!({ "id": "ws_1", "type": "web_search_call", "status": "completed",
                "action": { "type": "search", "query": "a cache", "sources": [{ "type": "url", "url": "u" }] } }),
            feature: HostedFeature::WebSearch,
            calls_client: false,
            events: progress(&[
                "web_search_call.in_progress",
                "web_search_call.searching",
                "web_search_call.completed",
            ]),
        },
        Sent {
            whole: json!({ "id": "fs_1", "type": "file_search_call", "status": "completed", "queries": ["a cache"],
                "results": [{ "file_id": "file_1", "filename": "a.md", "score": 0.75, "text": "it is" }] }),
            feature: HostedFeature::FileSearch,
            calls_client: false,
            events: progress(&[
                "file_search_call.in_progress",
                "file_search_call.searching",
                "file_search_call.completed",
            ]),
        },
        Sent {
            whole: json!({ "id": "ci_1", "type": "code_interpreter_call", "status": "completed", "code": code,
                "container_id": "cntr_1", "outputs": [{ "type": "logs", "logs": "42\n" }] }),
            feature: HostedFeature::CodeInterpreter,
            calls_client: false,
            events: [
                progress(&["code_interpreter_call.in_progress"]),
                call_text("code_interpreter_call_code", "code", code),
                progress(&["code_interpreter_call.interpreting", "code_interpreter_call.completed"]),
            ]
            .concat(),
        },
        Sent {
            whole: json!({ "id": "ig_1", "type": "image_generation_call", "status": "completed", "result": "iVBORw0KGgo=",
                "revised_prompt": "a cat", "size": "1024x1024" }),
            feature: HostedFeature::ImageGeneration,
            calls_client: false,
            events: progress(&[
                "image_generation_call.in_progress",
                "image_generation_call.generating",
                "image_generation_call.completed",
            ]),
        },
        Sent {
            whole: json!({ "id": "cu_1", "type": "computer_call", "status": "completed", "call_id": "call_1",
                "action": { "type": "click", "x": 1, "y": 2, "button": "left" }, "pending_safety_checks": [] }),
            feature: HostedFeature::Computer,
            calls_client: true,
            events: vec![],
        },
        Sent {
            whole: json!({ "id": "mcpl_1", "type": "mcp_list_tools", "server_label": "git",
                "tools": [{ "name": "log", "input_schema": {} }], "error": null }),
            feature: HostedFeature::Mcp,
            calls_client: false,
            events: progress(&["mcp_list_tools.in_progress", "mcp_list_tools.completed"]),
        },
        Sent {
            whole: json!({ "id": "mcp_1", "type": "mcp_call", "status": "completed", "server_label": "git", "name": "log",
                "arguments": arguments, "output": "one commit", "error": null, "approval_request_id": null }),
            feature: HostedFeature::Mcp,
            calls_client: false,
            events: [
                progress(&["mcp_call.in_progress"]),
                call_text("mcp_call_arguments", "arguments", arguments),
                progress(&["mcp_call.completed"]),
            ]
            .concat(),
        },
        Sent {
            whole: json!({ "id": "mcpr_1", "type": "mcp_approval_request", "server_label": "git", "name": "push",
                "arguments": "{}" }),
            feature: HostedFeature::Mcp,
            calls_client: true,
            events: vec![],
        },
    ]
}

/// A response with an item, and a text behind it.
fn with_item(item: &Value) -> Value {
    response(json!([item, message(json!([text("so it is")]))]))
}

/// The stream of a response with an item.
fn stream_of(whole: &Value, of_item: &[Value]) -> Vec<Value> {
    let (item, said) = (&whole["output"][0], &whole["output"][1]);
    let mut opened = item.clone();
    opened["status"] = "in_progress".into();
    let mut events = vec![
        json!({ "type": "response.created", "response": {} }),
        json!({ "type": "response.output_item.added", "output_index": 0, "item": opened }),
    ];
    events.extend(of_item.iter().cloned().map(|mut event| {
        (event["item_id"], event["output_index"]) = (item["id"].clone(), 0.into());
        event
    }));
    let words = &said["content"][0]["text"];
    let place = json!({ "item_id": said["id"], "output_index": 1, "content_index": 0 });
    let mut delta = place;
    (delta["type"], delta["delta"]) = ("response.output_text.delta".into(), words.clone());
    events.extend([
        json!({ "type": "response.output_item.done", "output_index": 0, "item": item }),
        json!({ "type": "response.output_item.added", "output_index": 1, "item": said }),
        delta,
        json!({ "type": "response.output_item.done", "output_index": 1, "item": said }),
        json!({ "type": "response.completed", "response": whole }),
    ]);
    events
}

/// The events of a replay that are of the first item, without their numbers.
fn of_first_item(events: Vec<Value>) -> Vec<Value> {
    let of_item = events.into_iter().filter(|event| event["output_index"] == 0);
    of_item
        .map(|mut event| {
            event.as_object_mut().unwrap().remove("sequence_number");
            event
        })
        .collect()
}

#[test]
fn a_tool_of_the_upstreams_is_replayed_as_the_upstream_sends_it() {
    for Sent { whole, feature, calls_client, events } in all() {
        let whole = with_item(&whole);
        let sent = stream_of(&whole, &events);
        let answer = Responses.read_reply(whole.to_string().as_bytes()).unwrap();
        assert_eq!((answer.unstorable, answer.calls_tools), (None, calls_client), "{feature:?}");
        assert_eq!(answer.hosted, HostedFeatures::from(feature));
        let from_stream = assembled(&sent).unwrap_or_else(|unstorable| panic!("{feature:?}: {unstorable:?}"));
        assert_eq!(from_stream, whole);
        for answer in [stored(&whole), stored(&from_stream)] {
            let replay = replayed(&answer);
            assert_eq!(assembled(&replay), Ok(whole.clone()), "{feature:?}");
            let (mut said, mut expected) = (of_first_item(replay), of_first_item(sent.clone()));
            let (added, _) = (said.remove(0), expected.remove(0));
            assert_eq!(added["type"], "response.output_item.added");
            assert_eq!(added["item"]["id"], whole["output"][0]["id"]);
            assert_ne!(added["item"]["status"], "completed");
            assert_eq!(said, expected);
        }
    }
}

/// A replay has each event of progress once.
#[test]
fn other_progress_than_that_of_a_replay_is_not_stored() {
    let Sent { whole, events, .. } = all().remove(0);
    let whole = with_item(&whole);
    assert!(assembled(&stream_of(&whole, &events)).is_ok());
    let (mut less, mut more, mut reversed) = (events.clone(), events.clone(), events.clone());
    less.remove(1);
    more.push(events[1].clone());
    reversed.reverse();
    for events in [less, more, reversed] {
        assert_eq!(assembled(&stream_of(&whole, &events)), Err(Unstorable::Uncertain), "{events:?}");
    }
    let many = vec![events[0].clone(); 100];
    assert!(assembled(&stream_of(&whole, &many)).is_err());
}

#[test]
fn the_first_event_of_an_item_has_no_result_yet() {
    let images = &all()[3].whole;
    let replay = replayed(&stored(&with_item(images)));
    let said = replay.iter().filter(|event| event.to_string().contains("iVBORw0KGgo=")).count();
    assert_eq!(said, 2, "at the end of the item and of the response");
}

#[test]
fn what_has_no_exact_replay_or_has_failed_is_not_stored() {
    let [_, _, _, images, _, list, call, _] = &all()[..] else { panic!("the items") };
    let mut partial = images.events.clone();
    partial.insert(
        1,
        json!({ "type": "response.image_generation_call.partial_image", "partial_image_b64": "AA",
        "partial_image_index": 0 }),
    );
    let whole = with_item(&images.whole);
    assert_eq!(assembled(&stream_of(&whole, &partial)), Err(Unstorable::UnknownMember));
    let unstorable =
        |item: &Value| Responses.read_reply(with_item(item).to_string().as_bytes()).unwrap().unstorable;
    for (item, member, value) in [
        (call, "error", json!("the server does not answer")),
        (call, "status", json!("failed")),
        (list, "error", json!({ "code": 500 })),
        (images, "status", json!("generating")),
    ] {
        let mut failed = item.whole.clone();
        failed[member] = value;
        assert_eq!(unstorable(&failed), Some(Unstorable::Unfinished), "{failed}");
    }
    assert_eq!(unstorable(&json!({ "id": "sh_1", "type": "shell_call" })), Some(Unstorable::UnknownMember));
}

#[test]
fn an_image_alone_is_an_answer_and_a_search_alone_is_none() {
    let alone = |item: &Value| {
        let whole = response(json!([item])).to_string();
        Responses.read_reply(whole.as_bytes()).unwrap().unstorable
    };
    let [search, _, _, image, ..] = &all()[..] else { panic!("the items") };
    assert_eq!(alone(&image.whole), None);
    assert_eq!(alone(&search.whole), Some(Unstorable::Empty));
    let text_of = |item: &Value| Responses.text_of_answer(with_item(item).to_string().as_bytes());
    assert_eq!(text_of(&search.whole).as_deref(), Some("so it is"));
    assert_eq!(text_of(&image.whole), None);
}
