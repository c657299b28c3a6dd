//! Reads a complete message, and decides whether it may be stored.

use serde::Deserialize;

use super::block::{BLOCKS_MAX, BlockKind, has_no_name_twice, is_replayable, is_said, text};
use crate::dialects::{Answer, Unstorable};
use crate::domain::TokenUsage;
use crate::raw_object::{RawObject, on_one_line};

/// What names one delivery of a message and not the answer; replays get new ones.
const OF_DELIVERY: [&str; 1] = ["id"];
/// Reasons for an end by the model's own decision. Pauses and refusals are none.
const ENDS: [&str; 2] = ["end_turn", "stop_sequence"];
/// The reason for an end by the call of a tool.
const CALLS: &str = "tool_use";
/// The reason for an end at the limit of tokens.
const LIMIT: &str = "max_tokens";

/// Token usage as the API reports it: what was read from the provider's cache, and written to it, is not in `input_tokens`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MessageUsage {
    input_tokens: u32,
    output_tokens: u32,
    cache_creation_input_tokens: Option<u32>,
    cache_read_input_tokens: Option<u32>,
}

/// A complete message.
pub(super) struct CompleteMessage<'a> {
    pub(super) members: RawObject<'a>,
    pub(super) blocks: Vec<RawObject<'a>>,
}

impl<'a> CompleteMessage<'a> {
    /// Reads a message. `None` for anything else.
    pub(super) fn read(json: &'a [u8]) -> Option<CompleteMessage<'a>> {
        let members = RawObject::read(json)?;
        let is_message = members.value("type").is_none_or(|kind| text(kind).as_deref() == Some("message"));
        let has_error = members.get("error").is_some_and(|error| error != "null");
        let blocks = serde_json::from_str(members.get("content")?).ok()?;
        (is_message && !has_error).then_some(CompleteMessage { members, blocks })
    }

    /// Whether a stream can represent every part of it.
    pub(super) fn is_replayable(&self) -> bool {
        self.blocks.len() <= BLOCKS_MAX
            && has_no_name_twice(&self.members)
            && self.blocks.iter().all(is_replayable)
    }

    fn stop_reason(&self) -> Option<String> {
        text(self.members.value("stop_reason")?)
    }

    fn calls_tools(&self) -> bool {
        self.stop_reason().as_deref() == Some(CALLS)
            || self.blocks.iter().any(|block| BlockKind::of(block) == Some(BlockKind::ToolUse))
    }

    fn unstorable(&self) -> Option<Unstorable> {
        let ends = |reason: &str| ENDS.contains(&reason) || reason == CALLS || reason == LIMIT;
        if !self.stop_reason().as_deref().is_some_and(ends) {
            Some(Unstorable::Unfinished)
        } else if !self.is_replayable() {
            Some(Unstorable::UnknownMember)
        } else if !self.blocks.iter().any(is_said) {
            Some(Unstorable::Empty)
        } else {
            None
        }
    }
}

/// The answer in the body of a reply. `None` for anything but a message.
pub(super) fn read_reply(body: &[u8]) -> Option<Answer> {
    let message = CompleteMessage::read(body)?;
    Some(Answer {
        json: on_one_line(message.members.write_without(&OF_DELIVERY)).into(),
        usage: message.members.get("usage").and_then(usage),
        unstorable: message.unstorable(),
        calls_tools: message.calls_tools(),
        is_truncated: message.stop_reason().as_deref() == Some(LIMIT),
    })
}

/// The text of an answer. `None` if it has several texts, or says anything else than one; reasoning aside.
pub(super) fn text_of_answer(answer: &[u8]) -> Option<String> {
    let message = CompleteMessage::read(answer)?;
    let is_reasoning = |block: &&RawObject<'_>| {
        matches!(BlockKind::of(block), Some(BlockKind::Thinking | BlockKind::RedactedThinking))
    };
    let mut others = message.blocks.iter().filter(|block| !is_reasoning(block));
    let only = others.next().filter(|block| BlockKind::of(block) == Some(BlockKind::Text))?;
    let is_alone = others.next().is_none() && !message.calls_tools();
    if is_alone { text(only.value("text")?) } else { None }
}

/// The token usage of the member `usage`, `json`. `None` if it cannot be read.
pub(super) fn usage(json: &str) -> Option<TokenUsage> {
    let usage: MessageUsage = serde_json::from_str(json).ok()?;
    let cached = [usage.cache_creation_input_tokens, usage.cache_read_input_tokens];
    let prompt_tokens = cached.into_iter().flatten().fold(usage.input_tokens, u32::saturating_add);
    Some(TokenUsage { prompt_tokens, completion_tokens: usage.output_tokens })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn with(more: Value) -> Value {
        let mut message = json!({ "id": "msg_1", "type": "message", "role": "assistant", "model": "m",
            "content": [{ "type": "text", "text": "hola" }], "stop_reason": "end_turn", "stop_sequence": null });
        message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        message
    }

    fn read(message: &Value) -> Option<Answer> {
        read_reply(message.to_string().as_bytes())
    }

    #[test]
    fn a_message_is_kept_as_it_was_written_but_for_its_id() {
        let body = br#"{"id":"msg_1","type":"message","content":[ {"type":"text","text":"a"} ],"x":-0.00010, "stop_reason":"end_turn",
            "usage":{"input_tokens":3,
            "output_tokens":2,"cache_creation_input_tokens":null,"cache_read_input_tokens":40}}"#;
        let answer = read_reply(body).unwrap();
        let text = std::str::from_utf8(&answer.json).unwrap();
        assert!(
            text.starts_with(r#"{"type":"message","content":[ {"#)
                && !text.contains('\n')
                && text.contains("-0.00010"),
            "{text}"
        );
        assert_eq!(answer.usage, Some(TokenUsage { prompt_tokens: 43, completion_tokens: 2 }));
        assert!(answer.unstorable.is_none() && !answer.calls_tools);
    }

    #[test]
    fn only_an_end_by_the_model_itself_is_stored() {
        let unstorable = |reason: Value| read(&with(json!({ "stop_reason": reason }))).unwrap().unstorable;
        for reason in ["end_turn", "stop_sequence", "tool_use", "max_tokens"] {
            assert_eq!(unstorable(json!(reason)), None, "{reason}");
        }
        assert!(read(&with(json!({ "stop_reason": "max_tokens" }))).unwrap().is_truncated);
        for reason in ["pause_turn", "refusal", "model_context_window_exceeded", "END_TURN", ""] {
            assert_eq!(unstorable(json!(reason)), Some(Unstorable::Unfinished), "{reason}");
        }
        assert_eq!(unstorable(Value::Null), Some(Unstorable::Unfinished));
    }

    #[test]
    fn a_block_without_a_known_replay_is_not_stored() {
        let unstorable = |block: Value| read(&with(json!({ "content": [block] }))).unwrap().unstorable;
        for block in [
            json!({ "type": "text", "text": "a", "citations": [{ "type": "char_location" }] }),
            json!({ "type": "text", "text": "a", "citations": null }),
            json!({ "type": "thinking", "thinking": "", "signature": "s" }),
            json!({ "type": "redacted_thinking", "data": "d" }),
            json!({ "type": "tool_use", "id": "t", "name": "f", "input": {}, "caller": { "type": "direct" } }),
        ] {
            assert_eq!(unstorable(block.clone()), None, "{block}");
        }
        for block in [
            json!({ "type": "server_tool_use", "id": "t", "name": "web_search", "input": {} }),
            json!({ "type": "web_search_tool_result", "content": [] }),
            json!({ "type": "text" }),
            json!({ "type": "text", "text": ["a"] }),
            json!({ "type": "text", "text": "a", "citations": {} }),
            json!({ "type": "tool_use", "input": "{}" }),
            json!({ "text": "a" }),
        ] {
            assert_eq!(unstorable(block.clone()), Some(Unstorable::UnknownMember), "{block}");
        }
        let twice =
            with(json!({})).to_string().replace(r#""text":"hola""#, r#""text":"hola","text":"adiós""#);
        assert_eq!(read_reply(twice.as_bytes()).unwrap().unstorable, Some(Unstorable::UnknownMember));
        for nothing in [json!([]), json!([{ "type": "text", "text": " \n" }])] {
            let answer = read(&with(json!({ "content": nothing }))).unwrap();
            assert_eq!(answer.unstorable, Some(Unstorable::Empty));
        }
    }

    #[test]
    fn what_is_no_message_is_no_answer() {
        for body in [
            json!([]),
            json!({}),
            json!({ "type": "error", "error": { "type": "overloaded_error", "message": "no" } }),
            json!({ "type": "message" }),
            with(json!({ "type": "completion" })),
            with(json!({ "content": "hola" })),
            with(json!({ "content": ["hola"] })),
            with(json!({ "error": { "type": "api_error" } })),
        ] {
            assert!(read(&body).is_none(), "{body}");
        }
        assert!(read(&with(json!({ "error": null }))).is_some());
        assert!(read_reply(b"<html>").is_none());
    }

    #[test]
    fn the_text_of_an_answer_is_its_only_text() {
        let text =
            |content: Value| text_of_answer(with(json!({ "content": content })).to_string().as_bytes());
        let said = json!({ "type": "text", "text": "hola" });
        assert_eq!(text(json!([said])).as_deref(), Some("hola"));
        assert_eq!(text(json!([{ "type": "thinking", "thinking": "hm" }, said])).as_deref(), Some("hola"));
        assert_eq!(text(json!([said, said])), None);
        assert_eq!(text(json!([said, { "type": "tool_use", "input": {} }])), None);
        assert_eq!(text(json!([])), None);
    }
}
