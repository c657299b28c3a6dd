//! A whole answer, and what must be known of it before it is kept.

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::members::Members;

/// What names one delivery of an answer and not the answer; replays get new ones.
pub(super) const OF_DELIVERY: [&str; 2] = ["id", "created"];

/// Tokens that an answer used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Read.
    pub prompt_tokens: u32,
    /// Written.
    pub completion_tokens: u32,
}

/// A chat completion, whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The JSON without what names its delivery; every other member is written as it came.
    pub json: Bytes,
    /// What it used, if it says so.
    pub usage: Option<Usage>,
    /// Whether every choice came to its own end, by words or by the call of a tool.
    pub has_ended: bool,
    /// Whether any choice calls a tool.
    pub calls_tools: bool,
}

#[derive(Deserialize)]
struct Wire<'a> {
    choices: Vec<Choice>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice {
    finish_reason: Option<String>,
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    tool_calls: Option<Vec<IgnoredAny>>,
    function_call: Option<IgnoredAny>,
}

impl Choice {
    fn calls_tools(&self) -> bool {
        let calls = self.message.tool_calls.as_ref().is_some_and(|calls| !calls.is_empty());
        calls || self.message.function_call.is_some() || self.ends_by(&["tool_calls", "function_call"])
    }

    fn ends_by(&self, reasons: &[&str]) -> bool {
        self.finish_reason.as_deref().is_some_and(|reason| reasons.contains(&reason))
    }
}

impl Answer {
    /// The answer in the body of a reply; none for anything but a chat completion with at least one choice.
    pub fn read(body: &[u8]) -> Option<Answer> {
        let wire: Wire<'_> = serde_json::from_slice(body).ok()?;
        let members = Members::read(body)?;
        if wire.choices.is_empty() || members.get("error").is_some_and(|error| error != "null") {
            return None;
        }
        let ends = ["stop", "tool_calls", "function_call"];
        Some(Answer {
            json: members.write_without(&OF_DELIVERY).into(),
            // An answer that counts in a way of its own is an answer all the same.
            usage: wire.usage.and_then(|usage| serde_json::from_str(usage.get()).ok()),
            has_ended: wire.choices.iter().all(|choice| choice.ends_by(&ends)),
            calls_tools: wire.choices.iter().any(Choice::calls_tools),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(body: Value) -> Option<Answer> {
        Answer::read(body.to_string().as_bytes())
    }

    fn with(reason: Value, message: Value) -> Answer {
        let choice = json!({ "index": 0, "finish_reason": reason, "message": message });
        read(json!({ "id": "a", "created": 1, "choices": [choice] })).unwrap()
    }

    #[test]
    fn an_answer_is_kept_as_it_was_written_but_for_its_delivery() {
        let body = br#"{"id":"x","model":"m","created":5,"choices":[{"finish_reason":"stop","message":{"content":"a"},
            "logprobs":[-0.0000123, 1.0]}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#;
        let answer = Answer::read(body).unwrap();
        let text = std::str::from_utf8(&answer.json).unwrap();
        assert!(
            text.starts_with(r#"{"model":"m","choices":[{"#) && text.contains("-0.0000123, 1.0"),
            "{text}"
        );
        assert_eq!(answer.usage, Some(Usage { prompt_tokens: 3, completion_tokens: 2 }));
        assert!(answer.has_ended && !answer.calls_tools);
    }

    #[test]
    fn how_it_ended_is_read_of_every_choice() {
        assert!(!with(json!("length"), json!({})).has_ended);
        assert!(!with(json!("content_filter"), json!({})).has_ended);
        assert!(!with(Value::Null, json!({})).has_ended);
        let called = with(json!("tool_calls"), json!({ "tool_calls": [{ "id": "c" }] }));
        assert!(called.has_ended && called.calls_tools);
        assert!(with(json!("stop"), json!({ "tool_calls": [{ "id": "c" }] })).calls_tools);
        assert!(!with(json!("stop"), json!({ "tool_calls": [], "function_call": null })).calls_tools);
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
        assert!(Answer::read(b"<html>").is_none());
    }
}
