//! The model behind the Responses API.

use serde_json::{Value, json};

/// The response that a call makes: a text, a refusal, a call of a tool, or thoughts or a search before a text, where asked. With a `reason` it is
/// incomplete.
pub(super) fn whole(asked: &Value, call: u64, reason: Option<&str>) -> Value {
    let last = asked["input"].as_array().and_then(|items| items.last());
    let question = asked["input"].as_str().or_else(|| last?["content"].as_str()).unwrap_or("nothing");
    let status = if reason.is_some() { "incomplete" } else { "completed" };
    let text = format!("Answer {call} to «{question}»: sí, 😀 and so on, word after word.");
    let message = |content: Value| json!({ "id": format!("msg_{call}"), "type": "message", "status": status, "role": "assistant", "content": [content] });
    let said = message(json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] }));
    let output = match question {
        "call a tool" => {
            json!([{ "id": format!("fc_{call}"), "type": "function_call", "call_id": "call_1", "name": "weather",
            "arguments": json!({ "city": "La Coruña", "days": 3 }).to_string(), "status": status }])
        }
        "refuse" => {
            json!([message(json!({ "type": "refusal", "refusal": "I would rather not, and here is why." }))])
        }
        "think" => {
            json!([{ "id": format!("rs_{call}"), "type": "reasoning", "encrypted_content": format!("secret {call}"),
            "summary": [{ "type": "summary_text", "text": "First this, and then that." }] }, said])
        }
        "search the web" => {
            let action = json!({ "type": "search", "query": "a cache" });
            json!([{ "id": format!("ws_{call}"), "type": "web_search_call", "status": status, "action": action }, said])
        }
        _ => json!([said]),
    };
    let incomplete = reason.map(|reason| json!({ "reason": reason }));
    json!({
        "id": format!("resp_{call}"), "object": "response", "created_at": 1_700_000_000 + call, "status": status,
        "completed_at": 1_700_000_001 + call, "error": null, "incomplete_details": incomplete, "model": asked["model"],
        "instructions": asked["instructions"], "output": output, "previous_response_id": asked["previous_response_id"],
        "store": asked["store"].as_bool().unwrap_or(true), "service_tier": "default",
        "usage": { "input_tokens": 20, "input_tokens_details": { "cached_tokens": 0 }, "output_tokens": 10,
            "output_tokens_details": { "reasoning_tokens": 0 }, "total_tokens": 30 },
    })
}

/// The same as events.
pub(super) fn events(whole: &Value) -> Vec<String> {
    let mut events = Vec::new();
    let mut opened = whole.clone();
    (opened["status"], opened["output"], opened["usage"]) = ("in_progress".into(), json!([]), Value::Null);
    push(&mut events, "response.created", json!({ "response": opened }));
    push(&mut events, "response.in_progress", json!({ "response": opened }));
    for (at, item) in whole["output"].as_array().unwrap().iter().enumerate() {
        push_item(&mut events, at, item);
    }
    let end = if whole["status"] == "completed" { "response.completed" } else { "response.incomplete" };
    push(&mut events, end, json!({ "response": whole }));
    events
}

fn push_item(events: &mut Vec<String>, at: usize, item: &Value) {
    let mut opened = item.clone();
    for (member, value) in [("content", json!([])), ("summary", json!([])), ("arguments", "".into())] {
        opened.as_object_mut().unwrap().entry(member).and_modify(|known| *known = value);
    }
    push(events, "response.output_item.added", json!({ "output_index": at, "item": opened }));
    if item["type"] == "web_search_call" {
        for progress in ["in_progress", "searching", "completed"] {
            let place = json!({ "item_id": item["id"], "output_index": at });
            push(events, &format!("response.web_search_call.{progress}"), place);
        }
    }
    for (list, around, index) in [
        ("summary", "response.reasoning_summary_part", "summary_index"),
        ("content", "response.content_part", "content_index"),
    ] {
        for (place, part) in item[list].as_array().into_iter().flatten().enumerate() {
            let of_part = json!({ "item_id": item["id"], "output_index": at, index: place });
            let (name, member) = match part["type"].as_str().unwrap() {
                "summary_text" => ("response.reasoning_summary_text", "text"),
                "refusal" => ("response.refusal", "refusal"),
                _ => ("response.output_text", "text"),
            };
            let mut opened = part.clone();
            opened[member] = "".into();
            push(events, &format!("{around}.added"), merged(&of_part, json!({ "part": opened })));
            push_text(events, name, member, &of_part, &part[member]);
            push(events, &format!("{around}.done"), merged(&of_part, json!({ "part": part })));
        }
    }
    if item["arguments"].is_string() {
        let of_call = json!({ "item_id": item["id"], "output_index": at });
        let name = "response.function_call_arguments";
        push_text(events, name, "arguments", &of_call, &item["arguments"]);
    }
    push(events, "response.output_item.done", json!({ "output_index": at, "item": item }));
}

fn push_text(events: &mut Vec<String>, name: &str, member: &str, place: &Value, text: &Value) {
    for word in text.as_str().unwrap().split_inclusive(' ') {
        push(events, &format!("{name}.delta"), merged(place, json!({ "delta": word, "logprobs": [] })));
    }
    push(events, &format!("{name}.done"), merged(place, json!({ member: text, "logprobs": [] })));
}

fn push(events: &mut Vec<String>, name: &str, more: Value) {
    let data = merged(&json!({ "type": name, "sequence_number": events.len() }), more);
    events.push(format!("event: {name}\ndata: {data}\n\n"));
}

fn merged(one: &Value, two: Value) -> Value {
    let mut merged = one.clone();
    merged.as_object_mut().unwrap().extend(two.as_object().unwrap().clone());
    merged
}
