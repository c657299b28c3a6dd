//! Reads a complete chat completion, and decides whether it may be stored.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::dialects::{Answer, Unstorable};
use crate::raw_object::RawObject;

/// What names one delivery of an answer and not the answer; replays get new ones.
pub(super) const OF_DELIVERY: [&str; 2] = ["id", "created"];
/// Members that replays repeat with every chunk.
pub(super) const OF_ENVELOPE: [&str; 3] = ["model", "system_fingerprint", "service_tier"];
/// How long one of these may be, as JSON. Names of models have at most so many bytes in requests too.
pub(super) const ENVELOPE_BYTES_MAX: usize = 258;
/// Calls that a message may have.
pub(super) const CALLS_MAX: usize = 16_384;
/// Choices that an answer may have.
const CHOICES_MAX: u64 = 1024;

/// Words for an end by the model's own decision, of any case. OpenAI: `stop`. Together: `eos`. Text Generation Inference and
/// watsonx: `eos_token`, `stop_sequence`. Anthropic by way of gateways: `end_turn`, `stop_sequence`. Cohere: `COMPLETE`,
/// `STOP_SEQUENCE`. Gemini by way of gateways: `STOP`, `FINISH_REASON_STOP`. AI21: `endoftext`. Titan: `FINISH`.
const ENDS: [&str; 9] = [
    "stop",
    "eos",
    "eos_token",
    "stop_sequence",
    "end_turn",
    "complete",
    "finish_reason_stop",
    "endoftext",
    "finish",
];
/// The same for an end by the call of a tool. Anthropic by way of gateways: `tool_use`. Cohere: `TOOL_CALL`.
const CALLS: [&str; 4] = ["tool_calls", "function_call", "tool_use", "tool_call"];

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    choices: Vec<Choice<'a>>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    index: Option<&'a RawValue>,
    finish_reason: Option<String>,
    #[serde(borrow)]
    message: Message<'a>,
    error: Option<IgnoredAny>,
    delta: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Message<'a> {
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

impl Choice<'_> {
    fn calls_tools(&self) -> bool {
        self.message.calls_tools() || self.ends_by(&CALLS)
    }

    fn ends_by(&self, reasons: &[&str]) -> bool {
        let is_it = |known: &&str| {
            self.finish_reason.as_deref().is_some_and(|reason| reason.eq_ignore_ascii_case(known))
        };
        reasons.iter().any(is_it)
    }

    fn unstorable(&self) -> Option<Unstorable> {
        if self.error.is_some() || self.message.error.is_some() || self.ends_by(&["error"]) {
            Some(Unstorable::Error)
        } else if !self.ends_by(&ENDS) && !self.ends_by(&CALLS) {
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

impl Message<'_> {
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

/// Whether a value is neither blank text nor an empty list or object.
fn says_something(json: &str) -> bool {
    if json.starts_with('"') {
        return serde_json::from_str::<String>(json).is_ok_and(|text| !text.trim().is_empty());
    }
    let inner = json.strip_prefix(['[', '{']).and_then(|rest| rest.strip_suffix([']', '}']));
    json != "null" && inner.is_none_or(|inner| !inner.trim_ascii().is_empty())
}

/// The answer in the body of a reply. `None` for anything but a chat completion with at least one choice.
pub fn read_reply(body: &[u8]) -> Option<Answer> {
    let wire: Wire<'_> = serde_json::from_slice(body).ok()?;
    let members = RawObject::read(body)?;
    if wire.choices.is_empty() || members.get("error").is_some_and(|error| error != "null") {
        return None;
    }
    let unstorable = wire.choices.iter().find_map(Choice::unstorable);
    Some(Answer {
        json: members.write_without(&OF_DELIVERY).into(),
        // An answer that counts in a way of its own is an answer all the same.
        usage: wire.usage.and_then(|usage| serde_json::from_str(usage.get()).ok()),
        unstorable: unstorable.or_else(|| unstorable_envelope(&members, &wire.choices)),
        calls_tools: wire.choices.iter().any(Choice::calls_tools),
    })
}

/// Why an answer cannot be replayed whose choices can.
fn unstorable_envelope(members: &RawObject<'_>, choices: &[Choice<'_>]) -> Option<Unstorable> {
    let is_long = |name: &&str| members.get(name).is_some_and(|value| value.len() > ENVELOPE_BYTES_MAX);
    if OF_ENVELOPE.iter().chain(&OF_DELIVERY).chain(&["object"]).any(is_long) {
        return Some(Unstorable::Envelope);
    }
    if members.get("object").is_some_and(|object| object == "\"error\"") {
        return Some(Unstorable::Error);
    }
    // A client that reads a stream adds up what has the same number.
    let numbers = choices.iter().enumerate().map(|(place, choice)| number(place, choice.index));
    let apart: BTreeSet<u64> = numbers.flatten().collect();
    (apart.len() < choices.len()).then_some(Unstorable::UnknownMember)
}

/// The number of a choice; its place if it has none.
pub(super) fn number(place: usize, index: Option<&RawValue>) -> Option<u64> {
    let number = match index {
        Some(index) => index.get().parse().ok()?,
        None => place as u64,
    };
    (number < CHOICES_MAX).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::TokenUsage;
    use serde_json::{Value, json};

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
        assert_eq!(answer.usage, Some(TokenUsage { prompt_tokens: 3, completion_tokens: 2 }));
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
        for reason in [
            "length",
            "max_tokens",
            "MAX_TOKENS",
            "content_filter",
            "SAFETY",
            "abort",
            "insufficient_system_resource",
            "",
        ] {
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
