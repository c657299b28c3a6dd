//! Assembles the chunks of a stream into one complete answer, or reports why that could lose something.
//!
//! The shapes that can be replayed exactly are listed, each member with its type and its rule (`rules.rs`). Any other member
//! or type, wherever it stands, means that there is no complete answer: the stream is broadcast and not stored.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::rules::{Rule, Rules, Type, add, says_nothing};
use super::{AssembledChoice, ReplyFormat};
use crate::dialects::usage::OF_CHOICES;
use crate::dialects::{Assembler, Note, Unstorable};
use crate::domain::TokenUsage;
use crate::sse::Event;

/// Choices, calls of one choice and entries of one list of details that an answer may have.
pub(in crate::dialects) const PARTS_MAX: u64 = 1024;

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

/// Assembles the chunks of a stream.
#[derive(Debug, Default)]
pub struct ChunkAssembler<F: ReplyFormat> {
    whole: Map<String, Value>,
    choices: BTreeMap<u64, F::Assembled>,
    is_done: bool,
    /// The first reason why the stream has no certain sum.
    unstorable: Option<Unstorable>,
    has_given_up: bool,
}

impl<F: ReplyFormat> Assembler for ChunkAssembler<F> {
    fn push(&mut self, event: &Event) -> Note {
        if event.is_garbled {
            self.doubt(Unstorable::Garbled);
        }
        let data = event.data.as_deref().filter(|_| !is_ping(event));
        let note = data.map(|data| self.push_data(data)).unwrap_or_default();
        Note { is_error: note.is_error || event.is_error, ..note }
    }

    fn may_report_usage(&self, event: &Event) -> bool {
        // Most chunks do not mention usage, and are not parsed for it.
        event.data.as_ref().is_some_and(|data| data.contains("\"usage\""))
    }

    /// Some servers leave out `[DONE]` where every choice has a finish reason.
    fn end(&mut self) {
        self.is_done |= self.has_ended();
    }

    fn is_done(&self) -> bool {
        self.is_done
    }

    fn has_ended(&self) -> bool {
        !self.choices.is_empty() && self.choices.values().all(AssembledChoice::has_ended)
    }

    fn usage(&self) -> Option<TokenUsage> {
        OF_CHOICES.read(self.whole.get("usage")?)
    }

    fn give_up(&mut self) {
        self.doubt(Unstorable::TooLarge);
        self.has_given_up = true;
        self.whole.retain(|name, _| name == "usage");
        self.choices.values_mut().for_each(AssembledChoice::give_up);
    }

    fn finish(&mut self) -> Result<Vec<u8>, Unstorable> {
        if let Some(unstorable) = self.unstorable {
            return Err(unstorable);
        }
        if !self.is_done {
            return Err(Unstorable::Incomplete);
        }
        if self.choices.is_empty() {
            return Err(Unstorable::Empty);
        }
        let is_contiguous = self.choices.keys().copied().eq(0..self.choices.len() as u64);
        if !is_contiguous || !self.choices.values().all(AssembledChoice::is_whole) {
            return Err(Unstorable::Uncertain);
        }
        let mut whole = std::mem::take(&mut self.whole);
        whole.insert("object".into(), F::REPLY_OBJECT.into());
        let choices = std::mem::take(&mut self.choices);
        let choices = choices.into_iter().map(|(index, choice)| choice.finish(index)).collect();
        whole.insert("choices".into(), Value::Array(choices));
        serde_json::to_vec(&whole).map_err(|_| Unstorable::Uncertain)
    }
}

impl<F: ReplyFormat> ChunkAssembler<F> {
    /// Adds the data of one event.
    pub fn push_data(&mut self, data: &str) -> Note {
        if data.trim() == "[DONE]" {
            self.is_done = true;
            return Note::default();
        }
        let Ok(Value::Object(chunk)) = serde_json::from_str(data) else {
            self.doubt(Unstorable::Garbled);
            return Note::default();
        };
        if is_keepalive(&chunk) {
            return Note::default();
        }
        if is_error(&chunk) {
            // An error is the reason, whatever else was odd before it.
            self.unstorable = Some(Unstorable::Error);
            return Note { is_error: true, ..Note::default() };
        }
        let is_usage = is_usage_only(&chunk);
        if self.is_done {
            // A chunk behind the end belongs to no answer.
            self.doubt(Unstorable::Uncertain);
        } else if let Err(unstorable) = self.add(chunk) {
            self.doubt(unstorable);
        }
        Note { is_usage, is_error: self.unstorable == Some(Unstorable::Error) }
    }

    /// Records that there is no complete answer.
    fn doubt(&mut self, unstorable: Unstorable) {
        self.unstorable.get_or_insert(unstorable);
    }

    fn add(&mut self, mut chunk: Map<String, Value>) -> Result<(), Unstorable> {
        // First, because it is known also of what has no sum. The last one holds: some upstreams count along.
        match chunk.remove("usage") {
            None | Some(Value::Null) => {}
            Some(usage @ Value::Object(_)) => _ = self.whole.insert("usage".into(), usage),
            Some(_) => return Err(Unstorable::UnknownMember),
        }
        match chunk.remove("choices") {
            None | Some(Value::Null) => {}
            Some(Value::Array(choices)) => {
                choices.into_iter().try_for_each(|choice| self.add_choice(choice))?;
            }
            Some(_) => return Err(Unstorable::UnknownMember),
        }
        if self.has_given_up {
            return Ok(());
        }
        match chunk.remove("object") {
            None | Some(Value::Null) => {}
            Some(Value::String(object)) if F::CHUNK_OBJECTS.contains(&object.as_str()) => {}
            Some(_) => return Err(Unstorable::UnknownMember),
        }
        chunk.into_iter().try_for_each(|(name, value)| add(&mut self.whole, OF_CHUNK, name, value))
    }

    fn add_choice(&mut self, choice: Value) -> Result<(), Unstorable> {
        let Value::Object(mut choice) = choice else { return Err(Unstorable::UnknownMember) };
        let index = place(choice.remove("index"))?;
        self.choices.entry(index).or_default().add(choice, self.has_given_up)
    }
}

/// The place that an `index` names.
pub(in crate::dialects) fn place(index: Option<Value>) -> Result<u64, Unstorable> {
    let index = index.as_ref().and_then(Value::as_u64).filter(|index| *index < PARTS_MAX);
    index.ok_or(Unstorable::UnknownMember)
}

/// Whether `error` stands beside what is said, or instead of it.
pub(in crate::dialects) fn has_error(members: &Map<String, Value>) -> bool {
    members.get("error").is_some_and(|error| !error.is_null())
}

/// Whether a chunk is an error: some servers send the error itself.
fn is_error(chunk: &Map<String, Value>) -> bool {
    let is = |name: &str| chunk.get(name).is_some_and(|value| value == "error");
    let groq = chunk.get("x_groq").and_then(Value::as_object);
    has_error(chunk) || is("object") || is("type") || groq.is_some_and(has_error)
}

/// Whether an event only keeps the connection open by its type. Clients that ignore the types of events read a chunk all the same.
pub fn is_ping(event: &Event) -> bool {
    let Some(data) = event.data.as_deref().filter(|_| event.is_ping) else { return event.is_ping };
    let chunk: Value = serde_json::from_str(data).unwrap_or_default();
    data.trim() != "[DONE]" && chunk["choices"].is_null() && chunk["error"].is_null()
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
