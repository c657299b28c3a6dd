//! The same model behind Anthropic's interface.

use serde_json::{Value, json};

/// The message that a call makes: with a tool's call, a search, or reasoning and citations, where asked.
pub(super) fn message(asked: &Value, call: u64, reason: Option<&str>) -> Value {
    let last = asked["messages"].as_array().and_then(|all| all.last()).map(|last| &last["content"]);
    let question =
        last.and_then(|content| content.as_str().or(content[0]["text"].as_str())).unwrap_or("nothing");
    let text = format!("Answer {call} to «{question}»: sí, 😀 and so on, word after word.");
    let citation = json!({ "type": "char_location", "cited_text": "sí", "document_index": 0 });
    let (content, usual) = match question {
        "call a tool" => {
            let input = json!({ "city": "La Coruña", "days": 3 });
            (json!([{ "type": "tool_use", "id": "toolu_1", "name": "weather", "input": input }]), "tool_use")
        }
        "search the web" => {
            let found = json!([{ "type": "web_search_result", "url": "u", "encrypted_content": format!("secret {call}") }]);
            (
                json!([
                    { "type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": { "query": "a cache" } },
                    { "type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": found },
                    { "type": "text", "text": text },
                ]),
                "end_turn",
            )
        }
        "think" => (
            json!([
                { "type": "thinking", "thinking": "step by step, one after the other", "signature": "c2lnbmVk" },
                { "type": "redacted_thinking", "data": "aGlkZGVu" },
                { "type": "text", "text": text, "citations": [citation] },
            ]),
            "end_turn",
        ),
        _ => (json!([{ "type": "text", "text": text }]), "end_turn"),
    };
    json!({
        "id": format!("msg_{call}"), "type": "message", "role": "assistant", "model": asked["model"], "content": content,
        "stop_reason": reason.unwrap_or(usual), "stop_sequence": null,
        "usage": { "input_tokens": 15, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 5, "output_tokens": 10,
            "service_tier": "standard" },
    })
}

/// The same as events.
pub(super) fn events(whole: &Value) -> Vec<String> {
    let mut events = Vec::new();
    let mut say = |data: Value| events.push(event(&data));
    let mut start = whole.clone();
    start["content"] = json!([]);
    start["stop_reason"] = Value::Null;
    start["usage"]["output_tokens"] = 1.into();
    say(json!({ "type": "message_start", "message": start }));
    for (index, block) in whole["content"].as_array().unwrap().iter().enumerate() {
        let (empty, deltas) = parts(block);
        say(json!({ "type": "content_block_start", "index": index, "content_block": empty }));
        say(json!({ "type": "ping" }));
        for delta in deltas {
            say(json!({ "type": "content_block_delta", "index": index, "delta": delta }));
        }
        say(json!({ "type": "content_block_stop", "index": index }));
    }
    let delta = json!({ "stop_reason": whole["stop_reason"], "stop_sequence": null });
    say(json!({ "type": "message_delta", "delta": delta, "usage": { "output_tokens": 10 } }));
    say(json!({ "type": "message_stop" }));
    events
}

/// What the stream of a message says first.
pub(super) fn first_events(asked: &Value) -> String {
    events(&message(asked, 0, None))[..4].concat()
}

/// An event as Anthropic writes it.
pub(crate) fn event(data: &Value) -> String {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap())
}

/// A block as it begins, and the deltas that it grows by.
fn parts(block: &Value) -> (Value, Vec<Value>) {
    let mut empty = block.clone();
    let words =
        |text: &Value| text.as_str().unwrap().split_inclusive(' ').map(String::from).collect::<Vec<_>>();
    let deltas = match block["type"].as_str().unwrap() {
        "text" => {
            empty["text"] = "".into();
            let mut deltas: Vec<Value> = words(&block["text"])
                .iter()
                .map(|word| json!({ "type": "text_delta", "text": word }))
                .collect();
            if let Some(citations) = block["citations"].as_array() {
                empty["citations"] = json!([]);
                deltas.extend(
                    citations
                        .iter()
                        .map(|citation| json!({ "type": "citations_delta", "citation": citation })),
                );
            }
            deltas
        }
        "thinking" => {
            empty["thinking"] = "".into();
            empty["signature"] = "".into();
            let said = words(&block["thinking"]);
            let said = said.iter().map(|word| json!({ "type": "thinking_delta", "thinking": word }));
            said.chain([json!({ "type": "signature_delta", "signature": block["signature"] })]).collect()
        }
        "tool_use" | "server_tool_use" => {
            empty["input"] = json!({});
            let json = block["input"].to_string();
            let pieces = std::iter::once("").chain(json.split_inclusive('"'));
            pieces.map(|piece| json!({ "type": "input_json_delta", "partial_json": piece })).collect()
        }
        _ => Vec::new(),
    };
    (empty, deltas)
}
