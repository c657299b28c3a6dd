//! One choice of a completion: complete, and assembled from chunks.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::dialects::Unstorable;
use crate::dialects::choices::{
    AssembledChoice, ReplyChoice, Rule, Rules, Type, add, ends_at_limit, ends_by_itself, has_error,
    is_one_of, says_something, within,
};

/// Members of a choice beside `index`, `logprobs` and `error`.
const OF_CHOICE: &Rules = &[
    ("text", Rule::Text),
    ("finish_reason", Rule::Agree(Type::Text)),
    // vLLM's, OpenRouter's, SGLang's and Together's.
    ("stop_reason", Rule::Agree(Type::Scalar)),
    ("native_finish_reason", Rule::Agree(Type::Text)),
    ("matched_stop", Rule::Agree(Type::Scalar)),
    ("seed", Rule::Agree(Type::Number)),
    // Azure's.
    ("content_filter_results", Rule::Agree(Type::Object)),
    // vLLM's: each chunk has its own tokens.
    ("token_ids", Rule::List),
    ("prompt_token_ids", Rule::Once(Type::List)),
    ("prompt_logprobs", Rule::Once(Type::List)),
];

/// Lists with an entry for each token.
const OF_LOGPROBS: &Rules = &[
    ("tokens", Rule::List),
    ("token_logprobs", Rule::List),
    ("top_logprobs", Rule::List),
    ("text_offset", Rule::List),
];

/// A choice of a complete reply.
#[derive(Deserialize)]
pub struct TextChoice<'a> {
    #[serde(borrow)]
    index: Option<&'a RawValue>,
    finish_reason: Option<String>,
    #[serde(borrow)]
    text: &'a RawValue,
    error: Option<IgnoredAny>,
}

/// A choice that is assembled from chunks.
#[derive(Debug, Default)]
pub struct StreamedTextChoice {
    whole: Map<String, Value>,
}

impl ReplyChoice for TextChoice<'_> {
    fn index(&self) -> Option<&RawValue> {
        self.index
    }

    fn text(&self) -> Option<String> {
        serde_json::from_str(self.text.get()).ok()
    }

    fn unstorable(&self) -> Option<Unstorable> {
        let finish_reason = self.finish_reason.as_deref();
        if self.error.is_some() || is_one_of(finish_reason, &["error"]) {
            Some(Unstorable::Error)
        } else if !ends_by_itself(finish_reason) && !ends_at_limit(finish_reason) {
            Some(Unstorable::Unfinished)
        } else if !self.text.get().starts_with('"') {
            Some(Unstorable::UnknownMember)
        } else if !says_something(self.text.get()) {
            Some(Unstorable::Empty)
        } else {
            None
        }
    }

    fn calls_tools(&self) -> bool {
        false
    }

    fn is_truncated(&self) -> bool {
        ends_at_limit(self.finish_reason.as_deref())
    }
}

impl AssembledChoice for StreamedTextChoice {
    fn add(&mut self, mut entry: Map<String, Value>, has_given_up: bool) -> Result<(), Unstorable> {
        if has_error(&entry) {
            return Err(Unstorable::Error);
        }
        // First, because it is known also of a stream that has no certain sum.
        if let Some(reason) = entry.remove("finish_reason") {
            let is_error = reason == "error";
            add(&mut self.whole, OF_CHOICE, "finish_reason".into(), reason)?;
            if is_error {
                return Err(Unstorable::Error);
            }
        }
        if has_given_up {
            return Ok(());
        }
        match entry.remove("logprobs") {
            None => {}
            Some(Value::Null) => _ = self.whole.entry("logprobs").or_insert(Value::Null),
            Some(Value::Object(logprobs)) => {
                let known = within(&mut self.whole, "logprobs".into())?;
                logprobs.into_iter().try_for_each(|(name, value)| add(known, OF_LOGPROBS, name, value))?;
            }
            Some(_) => return Err(Unstorable::UnknownMember),
        }
        entry.into_iter().try_for_each(|(name, value)| add(&mut self.whole, OF_CHOICE, name, value))
    }

    fn has_ended(&self) -> bool {
        self.whole.get("finish_reason").and_then(Value::as_str).is_some_and(|reason| !reason.is_empty())
    }

    fn give_up(&mut self) {
        self.whole.retain(|name, _| name == "finish_reason");
    }

    fn is_whole(&self) -> bool {
        true
    }

    fn finish(mut self, index: u64) -> Value {
        self.whole.insert("index".into(), index.into());
        self.whole.entry("text").or_insert_with(|| "".into());
        self.whole.entry("finish_reason").or_insert(Value::Null);
        Value::Object(self.whole)
    }
}
