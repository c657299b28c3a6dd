//! Makes one whole answer of the chunks of a stream, or says why that could lose something.
//!
//! The shapes that can be replayed exactly are listed, each member with its type and its rule (`rules.rs`). Any other member
//! or type, wherever it stands, means that there is no whole answer: the stream is passed on live and not stored.

mod calls;
mod choice;
mod details;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use self::choice::Choice;
use self::rules::{Rule, Rules, Type, add, says_nothing};
use super::Unfit;
use super::answer::Usage;

/// Choices, calls of one choice and entries of one list of details that an answer may have.
pub(super) const PARTS_MAX: u64 = 1024;

/// What a chunk may be called: nothing at all (Azure's first one), or as OpenAI and Perplexity call it.
const OBJECTS: [&str; 4] = ["", "chat.completion.chunk", "chat.completion", "chat.completion.done"];

/// Members of a chunk beside `choices`, `usage`, `object` and `error`.
const OF_CHUNK: &Rules = &[
    ("id", Rule::Dropped(Type::Scalar)),
    ("created", Rule::Dropped(Type::Number)),
    ("model", Rule::Agree(Type::Text)),
    ("system_fingerprint", Rule::Agree(Type::Text)),
    ("service_tier", Rule::Agree(Type::Text)),
    // Letters that hide the length of a chunk: OpenAI's and Mistral's.
    ("obfuscation", Rule::Dropped(Type::Text)),
    ("p", Rule::Dropped(Type::Text)),
    // OpenRouter's.
    ("provider", Rule::Agree(Type::Text)),
    // Groq's: a name first, what was used last.
    ("x_groq", Rule::Agree(Type::Object)),
    // Azure's.
    ("prompt_filter_results", Rule::Agree(Type::List)),
    ("prompt_annotations", Rule::Agree(Type::List)),
    // Perplexity and xAI repeat them with every chunk or say them once.
    ("citations", Rule::Snapshot),
    ("search_results", Rule::Snapshot),
    ("images", Rule::Snapshot),
    ("related_questions", Rule::Snapshot),
    // vLLM's.
    ("prompt_token_ids", Rule::Once(Type::List)),
    ("prompt_logprobs", Rule::Once(Type::List)),
    ("kv_transfer_params", Rule::Once(Type::Object)),
    // Counted along by llama.cpp and Cerebras, like `usage`.
    ("timings", Rule::Last(Type::Object)),
    ("time_info", Rule::Last(Type::Object)),
];

/// A stream as far as it has come.
#[derive(Debug, Default)]
pub struct Assembly {
    whole: Map<String, Value>,
    choices: BTreeMap<u64, Choice>,
    is_done: bool,
    /// The first thing that keeps it from having a sum.
    unfit: Option<Unfit>,
    has_given_up: bool,
}

/// What one event was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Note {
    /// It tells what the answer used, and nothing else.
    pub is_usage: bool,
    /// It tells that the answer has failed.
    pub is_error: bool,
}

impl Assembly {
    /// Adds the data of one event.
    pub fn push(&mut self, data: &str) -> Note {
        if data.trim() == "[DONE]" {
            self.is_done = true;
            return Note::default();
        }
        let Ok(Value::Object(chunk)) = serde_json::from_str(data) else {
            self.doubt(Unfit::Garbled);
            return Note::default();
        };
        if is_keepalive(&chunk) {
            return Note::default();
        }
        if is_error(&chunk) {
            // An error is the reason, whatever else was odd before it.
            self.unfit = Some(Unfit::Error);
            return Note { is_error: true, ..Note::default() };
        }
        let is_usage = is_usage_only(&chunk);
        if self.is_done {
            // What comes behind the end belongs to nothing.
            self.doubt(Unfit::Uncertain);
        } else if let Err(unfit) = self.add(chunk) {
            self.doubt(unfit);
        }
        Note { is_usage, is_error: self.unfit == Some(Unfit::Error) }
    }

    /// The stream has ended cleanly. Some servers leave out `[DONE]` where every choice has said how it ended.
    pub fn end(&mut self) {
        self.is_done |= self.has_ended();
    }

    /// Whether the stream has said that it is over.
    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// Whether every choice has said how it ended.
    pub fn has_ended(&self) -> bool {
        !self.choices.is_empty() && self.choices.values().all(Choice::has_ended)
    }

    /// What the answer used, if the stream has said so.
    pub fn usage(&self) -> Option<Usage> {
        serde_json::from_value(self.whole.get("usage")?.clone()).ok()
    }

    /// There will be no whole answer.
    pub fn doubt(&mut self, unfit: Unfit) {
        self.unfit.get_or_insert(unfit);
    }

    /// There will be no whole answer, and nothing for one is collected any more.
    pub fn give_up(&mut self) {
        self.doubt(Unfit::TooLarge);
        self.has_given_up = true;
        self.whole.retain(|name, _| name == "usage");
        self.choices.values_mut().for_each(Choice::give_up);
    }

    /// The whole answer as JSON.
    ///
    /// # Errors
    /// Why there is none: the stream has not come to its end, has failed, or has no certain sum.
    pub fn finish(self) -> Result<Vec<u8>, Unfit> {
        if let Some(unfit) = self.unfit {
            return Err(unfit);
        }
        if !self.is_done {
            return Err(Unfit::Incomplete);
        }
        if self.choices.is_empty() {
            return Err(Unfit::Empty);
        }
        let is_contiguous = self.choices.keys().copied().eq(0..self.choices.len() as u64);
        if !is_contiguous || !self.choices.values().all(Choice::calls_are_whole) {
            return Err(Unfit::Uncertain);
        }
        let mut whole = self.whole;
        whole.insert("object".into(), "chat.completion".into());
        let choices = self.choices.into_iter().map(|(index, choice)| choice.finish(index)).collect();
        whole.insert("choices".into(), Value::Array(choices));
        serde_json::to_vec(&whole).map_err(|_| Unfit::Uncertain)
    }

    fn add(&mut self, mut chunk: Map<String, Value>) -> Result<(), Unfit> {
        // First, because it is known also of what has no sum. The last one holds: some upstreams count along.
        match chunk.remove("usage") {
            None | Some(Value::Null) => {}
            Some(usage @ Value::Object(_)) => _ = self.whole.insert("usage".into(), usage),
            Some(_) => return Err(Unfit::UnknownMember),
        }
        match chunk.remove("choices") {
            None | Some(Value::Null) => {}
            Some(Value::Array(choices)) => {
                choices.into_iter().try_for_each(|choice| self.add_choice(choice))?;
            }
            Some(_) => return Err(Unfit::UnknownMember),
        }
        if self.has_given_up {
            return Ok(());
        }
        match chunk.remove("object") {
            None | Some(Value::Null) => {}
            Some(Value::String(object)) if OBJECTS.contains(&object.as_str()) => {}
            Some(_) => return Err(Unfit::UnknownMember),
        }
        chunk.into_iter().try_for_each(|(name, value)| add(&mut self.whole, OF_CHUNK, name, value))
    }

    fn add_choice(&mut self, choice: Value) -> Result<(), Unfit> {
        let Value::Object(mut choice) = choice else { return Err(Unfit::UnknownMember) };
        let index = place(choice.remove("index"))?;
        self.choices.entry(index).or_default().add(choice, self.has_given_up)
    }
}

/// The place that an `index` names.
fn place(index: Option<Value>) -> Result<u64, Unfit> {
    let index = index.as_ref().and_then(Value::as_u64).filter(|index| *index < PARTS_MAX);
    index.ok_or(Unfit::UnknownMember)
}

/// Whether `error` stands beside what is said, or instead of it.
fn has_error(members: &Map<String, Value>) -> bool {
    members.get("error").is_some_and(|error| !error.is_null())
}

/// Whether a chunk is an error: some servers send the error itself.
fn is_error(chunk: &Map<String, Value>) -> bool {
    let is = |name: &str| chunk.get(name).is_some_and(|value| value == "error");
    let groq = chunk.get("x_groq").and_then(Value::as_object);
    has_error(chunk) || is("object") || is("type") || groq.is_some_and(has_error)
}

/// Whether data only keeps the connection open, as `{"type": "ping"}` does.
fn is_keepalive(chunk: &Map<String, Value>) -> bool {
    const TYPES: [&str; 4] = ["ping", "keepalive", "keep-alive", "heartbeat"];
    const BESIDE: [&str; 4] = ["cost", "id", "time", "timestamp"];
    let is_named = chunk.get("type").and_then(Value::as_str).is_some_and(|name| TYPES.contains(&name));
    let is_beside = |(name, value): (&String, &Value)| {
        name == "type" || says_nothing(value) || BESIDE.contains(&name.as_str())
    };
    is_named && chunk.iter().all(is_beside)
}

/// Whether a chunk holds what was used, and beside it only what every chunk has.
fn is_usage_only(chunk: &Map<String, Value>) -> bool {
    const ENVELOPE: [&str; 9] = [
        "usage",
        "id",
        "created",
        "object",
        "model",
        "system_fingerprint",
        "service_tier",
        "obfuscation",
        "p",
    ];
    let is_envelope =
        |(name, value): (&String, &Value)| ENVELOPE.contains(&name.as_str()) || says_nothing(value);
    chunk.get("usage").is_some_and(|usage| !usage.is_null()) && chunk.iter().all(is_envelope)
}
