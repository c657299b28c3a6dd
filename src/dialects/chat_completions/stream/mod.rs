//! One choice of a stream: its deltas, and what stands beside them.

mod calls;
mod details;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use self::calls::{StreamedToolCall, add_function, is_whole};
use self::details::Details;
use crate::dialects::Unstorable;
use crate::dialects::choices::{
    AssembledChoice, Rule, Rules, Type, add, has_error, place, says_nothing, within,
};

/// Members of a choice beside `delta`, `message`, `text`, `logprobs`, `error` and `index`.
const OF_CHOICE: &Rules = &[
    ("finish_reason", Rule::Agree(Type::Text)),
    // vLLM's, OpenRouter's, SGLang's and Together's.
    ("stop_reason", Rule::Agree(Type::Scalar)),
    ("native_finish_reason", Rule::Agree(Type::Text)),
    ("matched_stop", Rule::Agree(Type::Scalar)),
    ("seed", Rule::Agree(Type::Number)),
    // Azure's; of the offsets the last ones say how far the filter has read.
    ("content_filter_results", Rule::Agree(Type::Object)),
    ("content_filter_result", Rule::Agree(Type::Object)),
    ("content_filter_offsets", Rule::Last(Type::Object)),
    // vLLM's: each chunk has its own.
    ("token_ids", Rule::List),
    ("prompt_token_ids", Rule::Once(Type::List)),
    // Moonshot's.
    ("usage", Rule::Last(Type::Object)),
];

/// Texts of a delta that grow.
const TEXTS: [&str; 5] = ["content", "refusal", "reasoning", "reasoning_content", "thinking"];

/// Members of a delta beside calls, details and `error`.
const OF_DELTA: &Rules = &[
    ("role", Rule::Agree(Type::Text)),
    ("content", Rule::Text),
    ("refusal", Rule::Text),
    ("reasoning", Rule::Text),
    ("reasoning_content", Rule::Text),
    ("thinking", Rule::Text),
    ("audio", Rule::Once(Type::Object)),
    ("annotations", Rule::Once(Type::List)),
    ("images", Rule::Once(Type::List)),
    ("name", Rule::Once(Type::Text)),
    ("tool_call_id", Rule::Agree(Type::Text)),
    // Mistral's and DeepSeek's.
    ("prefix", Rule::Agree(Type::Bool)),
    // Groq's.
    ("channel", Rule::Agree(Type::Text)),
    ("executed_tools", Rule::Once(Type::List)),
    // Gemini's, Azure's and LiteLLM's.
    ("extra_content", Rule::Once(Type::Object)),
    ("context", Rule::Once(Type::Object)),
    ("provider_specific_fields", Rule::Once(Type::Object)),
    ("thinking_blocks", Rule::Once(Type::List)),
    // Together's, which says each token's text too.
    ("token_id", Rule::Dropped(Type::Number)),
];

/// Members of a delta whose content is no text but a list of parts (Mistral's).
const OF_PARTS: &Rules = &[("content", Rule::Once(Type::List))];

/// Lists of tokens, one for the content and one for a refusal.
const OF_LOGPROBS: &Rules = &[("content", Rule::List), ("refusal", Rule::List)];

#[derive(Debug, Default)]
pub struct StreamedChoice {
    whole: Map<String, Value>,
    message: Map<String, Value>,
    calls: BTreeMap<u64, StreamedToolCall>,
    details: Details,
}

impl AssembledChoice for StreamedChoice {
    fn add(&mut self, mut choice: Map<String, Value>, has_given_up: bool) -> Result<(), Unstorable> {
        if has_error(&choice) {
            return Err(Unstorable::Error);
        }
        // First, because it is known also of what has no sum.
        if let Some(reason) = choice.remove("finish_reason") {
            let is_error = reason == "error";
            add(&mut self.whole, OF_CHOICE, "finish_reason".into(), reason)?;
            if is_error {
                return Err(Unstorable::Error);
            }
        }
        if has_given_up {
            return Ok(());
        }
        let (delta, message) = (choice.remove("delta"), choice.remove("message"));
        let text = choice.remove("text").filter(|text| !says_nothing(text));
        let delta = match delta {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(delta)) => delta,
            Some(_) => return Err(Unstorable::UnknownMember),
        };
        // Together's: the words of the delta once more.
        if text.is_some_and(|text| !TEXTS.iter().any(|name| delta.get(*name) == Some(&text))) {
            return Err(Unstorable::UnknownMember);
        }
        self.add_delta(delta)?;
        self.check_message(message)?;
        match choice.remove("logprobs") {
            None => {}
            Some(Value::Object(logprobs)) => self.add_logprobs(logprobs)?,
            Some(Value::Null) => _ = self.whole.entry("logprobs").or_insert(Value::Null),
            Some(_) => return Err(Unstorable::UnknownMember),
        }
        choice.into_iter().try_for_each(|(name, value)| add(&mut self.whole, OF_CHOICE, name, value))
    }

    fn has_ended(&self) -> bool {
        self.whole.get("finish_reason").and_then(Value::as_str).is_some_and(|reason| !reason.is_empty())
    }

    fn give_up(&mut self) {
        self.whole.retain(|name, _| name == "finish_reason");
        self.message.clear();
        self.calls.clear();
        self.details = Details::default();
    }

    /// Whether the arguments of each function are one JSON value: two calls under one number would be none.
    fn is_whole(&self) -> bool {
        self.calls.values().all(StreamedToolCall::is_whole)
            && self.message.get("function_call").is_none_or(is_whole)
    }

    fn finish(mut self, index: u64) -> Value {
        if !self.calls.is_empty() {
            let calls = self.calls.into_values().map(StreamedToolCall::finish).collect();
            self.message.insert("tool_calls".into(), Value::Array(calls));
        }
        if let Some(details) = self.details.finish() {
            self.message.insert("reasoning_details".into(), details);
        }
        self.message.entry("role").or_insert_with(|| "assistant".into());
        self.message.entry("content").or_insert(Value::Null);
        self.whole.insert("index".into(), index.into());
        self.whole.insert("message".into(), Value::Object(self.message));
        self.whole.entry("finish_reason").or_insert(Value::Null);
        Value::Object(self.whole)
    }
}

impl StreamedChoice {
    fn add_delta(&mut self, delta: Map<String, Value>) -> Result<(), Unstorable> {
        if has_error(&delta) {
            return Err(Unstorable::Error);
        }
        for (name, value) in delta {
            let is_said = !says_nothing(&value);
            match (name.as_str(), value) {
                ("tool_calls", Value::Array(calls)) if is_said => {
                    calls.into_iter().try_for_each(|call| self.add_call(call))?;
                }
                ("function_call", Value::Object(call)) if is_said => {
                    add_function(within(&mut self.message, name)?, call)?;
                }
                ("reasoning_details", Value::Array(entries)) if is_said => self.details.add(entries)?,
                ("content", parts @ Value::Array(_)) => add(&mut self.message, OF_PARTS, name, parts)?,
                (_, value) => add(&mut self.message, OF_DELTA, name, value)?,
            }
        }
        Ok(())
    }

    fn add_call(&mut self, call: Value) -> Result<(), Unstorable> {
        let Value::Object(mut call) = call else { return Err(Unstorable::UnknownMember) };
        let index = place(call.remove("index"))?;
        self.calls.entry(index).or_default().add(call)
    }

    /// A message that runs along beside the deltas (Perplexity's) says again what they have said, and nothing else.
    fn check_message(&self, message: Option<Value>) -> Result<(), Unstorable> {
        let message = match message {
            None | Some(Value::Null) => return Ok(()),
            Some(Value::Object(message)) => message,
            Some(_) => return Err(Unstorable::UnknownMember),
        };
        let is_known = |(name, value): (&String, &Value)| match (name.as_str(), value) {
            (_, nothing) if says_nothing(nothing) => true,
            ("role", role) => self.message.get("role").map_or(role == "assistant", |known| known == role),
            (text, Value::String(said)) if TEXTS.contains(&text) => {
                let known = self.message.get(text).and_then(Value::as_str);
                known.is_some_and(|known| known.starts_with(said.as_str()))
            }
            _ => false,
        };
        message.iter().all(is_known).then_some(()).ok_or(Unstorable::UnknownMember)
    }

    fn add_logprobs(&mut self, logprobs: Map<String, Value>) -> Result<(), Unstorable> {
        let known = within(&mut self.whole, "logprobs".into())?;
        logprobs.into_iter().try_for_each(|(name, value)| add(known, OF_LOGPROBS, name, value))
    }
}
