//! A choice of a complete chat completion, and whether it may be stored.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use serde_json::value::RawValue;

use crate::dialects::Unstorable;
use crate::dialects::choices::{ReplyChoice, ends_at_limit, ends_by_itself, is_one_of, says_something};
use crate::domain::TokenUsage;

/// Calls that a message may have.
pub(super) const CALLS_MAX: usize = 16_384;
/// Finish reasons for an end by the call of a tool. Anthropic by way of gateways: `tool_use`. Cohere: `TOOL_CALL`.
const CALLS: [&str; 4] = ["tool_calls", "function_call", "tool_use", "tool_call"];

#[derive(Deserialize)]
pub struct MessageChoice<'a> {
    #[serde(borrow)]
    index: Option<&'a RawValue>,
    finish_reason: Option<String>,
    #[serde(borrow)]
    message: ChoiceMessage<'a>,
    error: Option<IgnoredAny>,
    delta: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct ChoiceMessage<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    refusal: Option<&'a RawValue>,
    #[serde(borrow)]
    reasoning: Option<&'a RawValue>,
    #[serde(borrow)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(borrow)]
    thinking: Option<&'a RawValue>,
    #[serde(borrow)]
    reasoning_details: Option<&'a RawValue>,
    #[serde(borrow)]
    audio: Option<&'a RawValue>,
    #[serde(borrow)]
    images: Option<&'a RawValue>,
    tool_calls: Option<Vec<IgnoredAny>>,
    function_call: Option<IgnoredAny>,
    error: Option<IgnoredAny>,
}

impl ReplyChoice for MessageChoice<'_> {
    fn index(&self) -> Option<&RawValue> {
        self.index
    }

    fn calls_tools(&self) -> bool {
        self.message.calls_tools() || is_one_of(self.finish_reason.as_deref(), &CALLS)
    }

    fn is_truncated(&self) -> bool {
        ends_at_limit(self.finish_reason.as_deref())
    }

    fn text(&self) -> Option<String> {
        serde_json::from_str(self.message.content?.get()).ok()
    }

    fn unstorable(&self) -> Option<Unstorable> {
        let finish_reason = self.finish_reason.as_deref();
        if self.error.is_some() || self.message.error.is_some() || is_one_of(finish_reason, &["error"]) {
            Some(Unstorable::Error)
        } else if !ends_by_itself(finish_reason)
            && !ends_at_limit(finish_reason)
            && !is_one_of(finish_reason, &CALLS)
        {
            Some(Unstorable::Unfinished)
        } else if self.message.is_empty() {
            Some(Unstorable::Empty)
        } else if self.delta.is_some()
            || self.message.tool_calls.as_ref().is_some_and(|calls| calls.len() > CALLS_MAX)
        {
            // A stream would say either this or the message.
            Some(Unstorable::UnknownMember)
        } else {
            None
        }
    }
}

impl ChoiceMessage<'_> {
    fn calls_tools(&self) -> bool {
        self.tool_calls.as_ref().is_some_and(|calls| !calls.is_empty()) || self.function_call.is_some()
    }

    /// Whether it says nothing that a client could want; spaces are nothing.
    fn is_empty(&self) -> bool {
        let texts = [self.content, self.refusal, self.reasoning, self.reasoning_content, self.thinking];
        let others = [self.reasoning_details, self.audio, self.images];
        !texts.into_iter().chain(others).flatten().any(|value| says_something(value.get()))
            && !self.calls_tools()
    }
}

/// A complete reply of one choice in words, as a server in a simulation sends it.
pub fn reply_in_words(model: &str, text: &str, usage: TokenUsage) -> String {
    json!({
        "id": "chatcmpl-simulated", "object": "chat.completion", "created": 0, "model": model,
        "choices": [{ "index": 0, "finish_reason": "stop", "message": { "role": "assistant", "content": text } }],
        "usage": { "prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens },
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::Answer;
    use crate::dialects::chat_completions::read_reply;
    use serde_json::Value;

    fn read(body: Value) -> Option<Answer> {
        read_reply(body.to_string().as_bytes())
    }

    fn with(reason: Value, message: Value) -> Answer {
        let choice = json!({ "index": 0, "finish_reason": reason, "message": message });
        read(json!({ "id": "a", "created": 1, "choices": [choice] })).unwrap()
    }

    #[test]
    fn an_answer_is_kept_as_it_was_written_but_for_its_delivery() {
        let body = br#"{"id":"x","model":"m","created":5,"choices":[{"finish_reason":"stop","message":{"content":"a"},
            "logprobs":[-0.0000123, 1.0]}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#;
        let answer = read_reply(body).unwrap();
        let text = std::str::from_utf8(&answer.json).unwrap();
        assert!(
            text.starts_with(r#"{"model":"m","choices":[{"#) && text.contains("-0.0000123, 1.0"),
            "{text}"
        );
        assert_eq!(answer.usage, Some(TokenUsage::new(3, 2)));
        assert!(answer.unstorable.is_none() && !answer.calls_tools);
    }

    #[test]
    fn how_it_ended_is_read_of_every_choice() {
        let unstorable = |reason: Value| with(reason, json!({ "content": "a" })).unstorable;
        for reason in [
            "stop",
            "eos",
            "eos_token",
            "stop_sequence",
            "end_turn",
            "STOP",
            "COMPLETE",
            "endoftext",
            "tool_use",
        ] {
            assert_eq!(unstorable(json!(reason)), None, "{reason}");
        }
        for reason in ["length", "max_tokens", "MAX_TOKENS"] {
            let answer = with(json!(reason), json!({ "content": "a" }));
            assert!(answer.unstorable.is_none() && answer.is_truncated, "{reason}");
        }
        for reason in ["content_filter", "SAFETY", "abort", "insufficient_system_resource", ""] {
            assert_eq!(unstorable(json!(reason)), Some(Unstorable::Unfinished), "{reason}");
        }
        assert_eq!(unstorable(Value::Null), Some(Unstorable::Unfinished));
        assert_eq!(unstorable(json!("error")), Some(Unstorable::Error));
        let called = with(json!("tool_calls"), json!({ "tool_calls": [{ "id": "c" }] }));
        assert!(called.unstorable.is_none() && called.calls_tools);
        assert!(with(json!("stop"), json!({ "tool_calls": [{ "id": "c" }] })).calls_tools);
        assert!(!with(json!("stop"), json!({ "tool_calls": [], "function_call": null })).calls_tools);
    }

    #[test]
    fn what_says_nothing_is_not_to_be_stored() {
        let unstorable = |message: Value| with(json!("stop"), message).unstorable;
        for message in [
            json!({}),
            json!({ "content": null }),
            json!({ "content": "" }),
            json!({ "content": " \n" }),
            json!({ "content": [], "refusal": null, "reasoning": "", "tool_calls": [] }),
            json!({ "role": "assistant", "annotations": [] }),
        ] {
            assert_eq!(unstorable(message.clone()), Some(Unstorable::Empty), "{message}");
        }
        for message in [
            json!({ "refusal": "no" }),
            json!({ "reasoning_content": "hm" }),
            json!({ "content": [{ "type": "text", "text": "a" }] }),
            json!({ "reasoning_details": [{ "text": "a" }] }),
            json!({ "audio": { "data": "AA" } }),
            json!({ "tool_calls": [{ "id": "c" }] }),
            json!({ "function_call": { "name": "f" } }),
        ] {
            assert_eq!(unstorable(message.clone()), None, "{message}");
        }
    }

    #[test]
    fn the_text_of_an_answer_is_that_of_its_only_choice() {
        let text = |choices: Value| {
            let body = json!({ "choices": choices }).to_string();
            crate::dialects::choices::text_of_answer::<super::super::ChatCompletions>(body.as_bytes())
        };
        let choice = |content: Value| json!({ "finish_reason": "stop", "message": { "content": content } });
        assert_eq!(text(json!([choice(json!("¿qué?"))])).as_deref(), Some("¿qué?"));
        assert_eq!(text(json!([choice(json!("a")), choice(json!("b"))])), None);
        assert_eq!(text(json!([choice(json!([{ "type": "text", "text": "a" }]))])), None);
        assert_eq!(text(json!([choice(Value::Null)])), None);
        let called =
            json!({ "finish_reason": "stop", "message": { "content": "a", "tool_calls": [{ "id": "c" }] } });
        assert_eq!(text(json!([called])), None);
    }

    #[test]
    fn a_choice_that_failed_is_not_to_be_stored() {
        let choice = |more: Value| {
            let mut choice = json!({ "finish_reason": "stop", "message": { "content": "par" } });
            more.as_object().unwrap().iter().for_each(|(name, value)| choice[name] = value.clone());
            read(json!({ "choices": [choice] })).unwrap().unstorable
        };
        assert_eq!(choice(json!({ "error": { "code": 502 } })), Some(Unstorable::Error));
        assert_eq!(
            choice(json!({ "message": { "content": "par", "error": "died" } })),
            Some(Unstorable::Error)
        );
        assert_eq!(choice(json!({ "error": null, "delta": null })), None);
        assert_eq!(choice(json!({ "delta": { "content": "b" } })), Some(Unstorable::UnknownMember));
    }

    #[test]
    fn what_a_replay_would_repeat_is_bounded() {
        let choice =
            |index: Value| json!({ "index": index, "finish_reason": "stop", "message": { "content": "a" } });
        let unstorable = |name: &str, value: Value, choices: Value| {
            let mut body = json!({ "choices": choices });
            body[name] = value;
            read(body).unwrap().unstorable
        };
        let one = || json!([choice(json!(0))]);
        for name in ["id", "model", "system_fingerprint", "service_tier", "object"] {
            assert_eq!(unstorable(name, "M".repeat(256).into(), one()), None, "{name}");
            assert_eq!(unstorable(name, "M".repeat(257).into(), one()), Some(Unstorable::Envelope), "{name}");
        }
        let numbered = |indexes: [Value; 2]| unstorable("model", "m".into(), json!(indexes.map(choice)));
        assert_eq!(numbered([json!(0), json!(1)]), None);
        assert_eq!(numbered([Value::Null, Value::Null]), None, "by their places");
        for indexes in [[json!(0), json!(0)], [json!(0), json!(5000)], [json!(0), json!("1")]] {
            assert_eq!(numbered(indexes), Some(Unstorable::UnknownMember));
        }
    }

    #[test]
    fn usage_that_cannot_be_read_is_none() {
        for usage in
            [json!(null), json!({ "prompt_tokens": null }), json!({ "prompt_tokens": -1 }), json!("few")]
        {
            let choice = json!({ "finish_reason": "stop", "message": {} });
            let answer = read(json!({ "choices": [choice], "usage": usage })).unwrap();
            assert_eq!(answer.usage, None, "{usage}");
        }
    }

    #[test]
    fn what_is_no_completion_is_no_answer() {
        for body in [json!([]), json!({}), json!({ "choices": [] }), json!({ "choices": [{ "text": "a" }] })]
        {
            assert!(read(body.clone()).is_none(), "{body}");
        }
        let choice = json!({ "finish_reason": "stop", "message": {} });
        assert!(read(json!({ "choices": [choice], "error": { "message": "no" } })).is_none());
        assert!(read(json!({ "choices": [choice], "error": null })).is_some());
        assert!(read_reply(b"<html>").is_none());
    }
}
