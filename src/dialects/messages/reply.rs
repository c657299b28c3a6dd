//! Reads a complete message, and decides whether it may be stored.

use serde_json::Value;

use super::block::{
    BLOCKS_MAX, BlockKind, has_no_name_twice, hosted_features, is_failure, is_replayable, is_said, text,
};
use crate::dialects::usage::tokens;
use crate::dialects::{Answer, Unstorable};
use crate::domain::{TokenUsage, UsageDetails};
use crate::raw_object::{RawObject, on_one_line};

/// What names one delivery of a message and not the answer; replays get new ones.
const OF_DELIVERY: [&str; 1] = ["id"];
/// Reasons for an end by the model's own decision. Pauses and refusals are none.
const ENDS: [&str; 2] = ["end_turn", "stop_sequence"];
/// The reason for an end by the call of a tool.
const CALLS: &str = "tool_use";
/// The reason for an end at the limit of tokens.
const LIMIT: &str = "max_tokens";

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
        } else if self.blocks.iter().any(is_failure) {
            Some(Unstorable::Unfinished)
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
        hosted: message.blocks.iter().map(hosted_features).collect(),
        calls_tools: message.calls_tools(),
        is_truncated: message.stop_reason().as_deref() == Some(LIMIT),
        ends_with_done: false,
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

/// The token usage of the member `usage`, `json`: what was read from the provider's cache, and written to it, is not in `input_tokens`.
/// `None` if it is no object, or if its input or its output is no number of tokens.
pub(super) fn usage(json: &str) -> Option<TokenUsage> {
    let usage: Value = serde_json::from_str(json).ok()?;
    let members = usage.as_object()?;
    let sum = |name: &str| members.get(name).map_or(Some(0), tokens);
    let part = |name: &str| members.get(name).and_then(tokens).unwrap_or(0);
    let details = UsageDetails {
        cached_prompt_tokens: part("cache_read_input_tokens"),
        written_prompt_tokens: part("cache_creation_input_tokens"),
        reasoning_tokens: 0,
    };
    let prompt_tokens = [details.cached_prompt_tokens, details.written_prompt_tokens]
        .into_iter()
        .fold(sum("input_tokens")?, u32::saturating_add);
    Some(TokenUsage::new(prompt_tokens, sum("output_tokens")?).with_details(details))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::{HostedFeature, HostedFeatures};
    use serde_json::json;

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
        let cached = UsageDetails { cached_prompt_tokens: 40, ..UsageDetails::default() };
        assert_eq!(answer.usage, Some(TokenUsage::new(43, 2).with_details(cached)));
        assert!(answer.unstorable.is_none() && !answer.calls_tools);
    }

    #[test]
    fn what_the_providers_cache_read_and_wrote_is_beside_the_input() {
        let read = |usage: Value| super::usage(&usage.to_string());
        let details = |cached_prompt_tokens, written_prompt_tokens| UsageDetails {
            cached_prompt_tokens,
            written_prompt_tokens,
            reasoning_tokens: 0,
        };
        let both = json!({ "input_tokens": 5, "output_tokens": 2, "cache_creation_input_tokens": 30,
            "cache_read_input_tokens": 200, "cache_creation": { "ephemeral_1h_input_tokens": 30 } });
        assert_eq!(read(both), Some(TokenUsage::new(235, 2).with_details(details(200, 30))));
        for odd in [json!(null), json!(-5), json!("9"), json!({})] {
            let usage = json!({ "input_tokens": 5, "output_tokens": 2, "cache_read_input_tokens": odd });
            assert_eq!(read(usage), Some(TokenUsage::new(5, 2)), "{odd}");
            assert_eq!(read(json!({ "input_tokens": odd })), None, "{odd}");
        }
        let huge = json!({ "input_tokens": 5, "cache_read_input_tokens": 1e30 });
        assert_eq!(read(huge), Some(TokenUsage::new(u32::MAX, 0).with_details(details(u32::MAX, 0))));
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
            json!({ "type": "tool_search_tool_result", "content": [] }),
            json!({ "type": "server_tool_use", "id": "t", "name": "web_search", "input": "{}" }),
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
    fn what_the_upstream_ran_is_named() {
        let said = json!({ "type": "text", "text": "hola" });
        let answer = |block: Value| read(&with(json!({ "content": [block, said] }))).unwrap();
        for (block, hosted) in [
            (said.clone(), HostedFeatures::default()),
            (
                json!({ "type": "server_tool_use", "id": "t", "name": "web_search", "input": {} }),
                HostedFeature::WebSearch.into(),
            ),
            (
                json!({ "type": "server_tool_use", "id": "t", "name": "bash_code_execution", "input": {} }),
                HostedFeature::CodeExecution.into(),
            ),
            (
                json!({ "type": "server_tool_use", "id": "t", "name": "oracle", "input": {} }),
                HostedFeatures::UNKNOWN_TOOL,
            ),
            (
                json!({ "type": "mcp_tool_use", "id": "t", "name": "web_search", "input": {} }),
                HostedFeature::Mcp.into(),
            ),
            (json!({ "type": "web_search_tool_result", "content": [] }), HostedFeature::WebSearch.into()),
            (
                json!({ "type": "mcp_tool_result", "is_error": false, "content": [] }),
                HostedFeature::Mcp.into(),
            ),
        ] {
            let answer = answer(block.clone());
            assert_eq!(
                (answer.hosted, answer.unstorable, answer.calls_tools),
                (hosted, None, false),
                "{block}"
            );
        }
        for failed in [
            json!({ "type": "web_search_tool_result",
                "content": { "type": "web_search_tool_result_error", "error_code": "max_uses_exceeded" } }),
            json!({ "type": "mcp_tool_result", "is_error": true, "content": [] }),
        ] {
            assert_eq!(answer(failed.clone()).unstorable, Some(Unstorable::Unfinished), "{failed}");
        }
        let alone = json!({ "content": [{ "type": "web_search_tool_result", "content": [] }] });
        assert_eq!(read(&with(alone)).unwrap().unstorable, Some(Unstorable::Empty));
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
