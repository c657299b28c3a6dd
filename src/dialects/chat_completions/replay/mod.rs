//! What the chunks of one choice say.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{HashSet, VecDeque};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::completion::CALLS_MAX;
use crate::dialects::choices::{ReplayedChoice, Step, Text, Tokens, number};
use crate::raw_object::{RawObject, write_member};

/// Texts of a message that go out in pieces, in the order in which models say them.
const TEXTS: [&str; 5] = ["reasoning_content", "reasoning", "thinking", "content", "refusal"];
/// Texts of a call that go out in pieces.
const TEXTS_OF_CALLS: [&str; 2] = ["arguments", "input"];
/// Members of a call that hold such texts.
const FUNCTIONS: [&str; 2] = ["function", "custom"];

/// One choice of the answer.
pub struct ReplayedMessage<'a> {
    number: u64,
    /// Members beside those that are written apart.
    rest: Vec<(String, &'a RawValue)>,
    message: Vec<(String, &'a RawValue)>,
    calls: Vec<RawObject<'a>>,
    function_call: Option<RawObject<'a>>,
    logprobs: Option<&'a RawValue>,
    reason: &'a str,
}

/// The texts of a message that go out in pieces.
struct Texts {
    named: Vec<(&'static str, Text)>,
    /// Of the probabilities what does not go out with them, as JSON.
    logprobs: String,
}

/// A text of a call: what stands before it within the call, and what closes that.
struct CallText {
    before: String,
    closing: &'static str,
    text: String,
}

/// The calls of a message; none if they are no objects, or too many.
fn read_calls(value: &RawValue) -> Option<Vec<RawObject<'_>>> {
    // Counting takes no memory, however many there are.
    let count = serde_json::from_str::<Vec<IgnoredAny>>(value.get()).ok()?.len();
    (count <= CALLS_MAX).then(|| serde_json::from_str(value.get()).ok())?
}

impl<'a> ReplayedChoice<'a> for ReplayedMessage<'a> {
    fn read(place: usize, choice: RawObject<'a>) -> Option<ReplayedMessage<'a>> {
        let (mut index, mut message, mut logprobs, mut reason) = (None, None, None, "null");
        let mut rest = Vec::new();
        for (name, value) in choice.0 {
            match name.as_str() {
                "index" => index = Some(value).filter(|index| index.get() != "null"),
                "message" => message = RawObject::read(value.get().as_bytes()),
                "logprobs" => logprobs = Some(value),
                "finish_reason" => reason = value.get(),
                "delta" if value.get() == "null" => {}
                "delta" => return None,
                _ => rest.push((name, value)),
            }
        }
        let (mut members, mut calls, mut function_call) = (Vec::new(), Vec::new(), None);
        for (name, value) in message?.0 {
            match name.as_str() {
                "tool_calls" if begins(value, "[{") => calls = read_calls(value)?,
                "function_call" if begins(value, "{") => {
                    function_call = RawObject::read(value.get().as_bytes());
                }
                "reasoning_details" if !are_apart(value) => return None,
                _ => members.push((name, value)),
            }
        }
        let number = number(place, index)?;
        Some(ReplayedMessage { number, rest, message: members, calls, function_call, logprobs, reason })
    }

    fn add_steps(&self, steps: &mut VecDeque<Step>) {
        let texts = self.texts();
        steps.push_back(Step::Entries(self.first(&texts)));
        steps.extend(texts.named.into_iter().map(|(_, text)| Step::Text(text)));
        for (place, call) in self.calls.iter().enumerate() {
            self.add_call(call, Some(place), steps);
        }
        if let Some(call) = &self.function_call {
            self.add_call(call, None, steps);
        }
        let mut last = self.open();
        last.extend_from_slice(b",\"delta\":{}");
        if self.logprobs.is_some() {
            write_member(&mut last, "logprobs", "null");
        }
        write_member(&mut last, "finish_reason", self.reason);
        last.push(b'}');
        steps.push_back(Step::Entries(last));
    }

    fn write_whole(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.open());
        self.rest.iter().for_each(|(name, value)| write_member(out, name, value.get()));
        out.extend_from_slice(b",\"delta\":{");
        let at = out.len();
        self.message.iter().for_each(|(name, value)| write_member(out, name, value.get()));
        if !self.calls.is_empty() {
            write_member(out, "tool_calls", "[");
            for (place, call) in self.calls.iter().enumerate() {
                let separator = if place > 0 { "," } else { "" };
                out.extend_from_slice(format!("{separator}{{\"index\":{place}").as_bytes());
                let members = call.0.iter().filter(|(name, _)| name != "index");
                members.for_each(|(name, value)| write_member(out, name, value.get()));
                out.push(b'}');
            }
            out.push(b']');
        }
        if let Some(call) = &self.function_call {
            write_member(out, "function_call", "{");
            let at = out.len();
            call.0.iter().for_each(|(name, value)| write_member(out, name, value.get()));
            close(out, at, "}");
        }
        close(out, at, "}");
        if let Some(logprobs) = self.logprobs {
            write_member(out, "logprobs", logprobs.get());
        }
        write_member(out, "finish_reason", self.reason);
        out.push(b'}');
    }
}

impl<'a> ReplayedMessage<'a> {
    /// The first entry: who speaks, and whatever is said at once.
    fn first(&self, texts: &Texts) -> Vec<u8> {
        let mut out = self.open();
        self.rest.iter().for_each(|(name, value)| write_member(&mut out, name, value.get()));
        out.extend_from_slice(b",\"delta\":{");
        let at = out.len();
        for (name, value) in &self.message {
            let is_cut = texts.named.iter().any(|(known, _)| known == name);
            match name.as_str() {
                "content" if is_cut => write_member(&mut out, name, "\"\""),
                "refusal" if is_cut => write_member(&mut out, name, "null"),
                _ if is_cut => {}
                _ => write_member(&mut out, name, value.get()),
            }
        }
        close(&mut out, at, "}");
        if self.logprobs.is_some() {
            write_member(&mut out, "logprobs", &texts.logprobs);
        }
        write_member(&mut out, "finish_reason", "null");
        out.push(b'}');
        out
    }

    fn texts(&self) -> Texts {
        let logprobs = self.logprobs.and_then(|logprobs| RawObject::read(logprobs.get().as_bytes()));
        let (mut named, mut sent) = (Vec::new(), Vec::new());
        for name in TEXTS {
            let value = self.message.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
            let Some(text) = value.and_then(growing) else { continue };
            let tokens = logprobs.as_ref().and_then(|logprobs| tokens(name, &text, logprobs));
            if tokens.is_some() {
                sent.push(name);
            }
            let mut before = self.open();
            before.extend_from_slice(format!(",\"delta\":{{\"{name}\":").as_bytes());
            let has_null = self.logprobs.is_some() && tokens.is_none();
            named.push((name, Text::new(before, after("}", has_null), text, tokens)));
        }
        let logprobs = match (logprobs, self.logprobs) {
            (Some(logprobs), _) => rest_of(logprobs, &sent),
            (None, Some(other)) => other.get().to_owned(),
            (None, None) => String::new(),
        };
        Texts { named, logprobs }
    }

    /// Adds a call as it is streamed: its name first, then what it is called with. `place` is none for the only call of a
    /// message.
    fn add_call(&self, call: &RawObject<'a>, place: Option<usize>, steps: &mut VecDeque<Step>) {
        let (begin, end) = match place {
            Some(place) => (format!(",\"delta\":{{\"tool_calls\":[{{\"index\":{place}"), "}]}"),
            None => (",\"delta\":{\"function_call\":{".to_owned(), "}}"),
        };
        let open = || [self.open(), begin.clone().into_bytes()].concat();
        let (mut first, mut texts) = (open(), Vec::new());
        let at = first.len();
        for (name, value) in &call.0 {
            match place {
                Some(_) if name == "index" => {}
                Some(_) if FUNCTIONS.contains(&name.as_str()) => {
                    write_function(&mut first, name, value, &mut texts);
                }
                Some(_) => write_member(&mut first, name, value.get()),
                None => {
                    let cut = write_cut(&mut first, name, value);
                    let text = |text| CallText { before: format!("\"{name}\":"), closing: "", text };
                    texts.extend(cut.map(text));
                }
            }
        }
        // Behind the brace of the only call, no comma.
        if place.is_none() {
            close(&mut first, at, end)
        } else {
            first.extend_from_slice(end.as_bytes())
        }
        let has_logprobs = self.logprobs.is_some();
        first.extend_from_slice(&after("", has_logprobs));
        steps.push_back(Step::Entries(first));
        for CallText { before, closing, text } in texts {
            let before = [open(), before.into_bytes()].concat();
            let after = after(&format!("{closing}{end}"), has_logprobs);
            steps.push_back(Step::Text(Text::new(before, after, text, None)));
        }
    }

    /// The beginning of an entry.
    fn open(&self) -> Vec<u8> {
        format!("{{\"index\":{}", self.number).into_bytes()
    }
}

/// The tokens of a text, if the answer has them and they spell it. As models send them: members of `logprobs` that are null in
/// the whole are null in every chunk.
fn tokens(name: &str, text: &str, logprobs: &RawObject<'_>) -> Option<Tokens> {
    let is_null = |name| logprobs.get(name) == Some("null");
    let around: [&'static str; 2] = match name {
        "content" if is_null("refusal") => [",\"logprobs\":{\"content\":[", "],\"refusal\":null}"],
        "content" => [",\"logprobs\":{\"content\":[", "]}"],
        "refusal" if is_null("content") => [",\"logprobs\":{\"content\":null,\"refusal\":[", "]}"],
        "refusal" => [",\"logprobs\":{\"refusal\":[", "]}"],
        _ => return None,
    };
    Tokens::read(text, logprobs.value(name)?, around)
}

/// What does not go out with words: lists that do not spell the text, and empty ones.
fn rest_of(logprobs: RawObject<'_>, sent: &[&str]) -> String {
    let is_null = |(name, value): &(String, &RawValue)| {
        ["content", "refusal"].contains(&name.as_str()) && value.get() == "null"
    };
    let rest: Vec<_> = logprobs.0.into_iter().filter(|(name, _)| !sent.contains(&name.as_str())).collect();
    if !sent.is_empty() && rest.iter().all(is_null) {
        return "null".into();
    }
    String::from_utf8_lossy(&RawObject(rest).write_without(&[])).into_owned()
}

/// Writes a function without the texts that go out in pieces, and adds these to `texts`.
fn write_function(out: &mut Vec<u8>, name: &str, function: &RawValue, texts: &mut Vec<CallText>) {
    let members = RawObject::read(function.get().as_bytes());
    let Some(members) = members else { return write_member(out, name, function.get()) };
    write_member(out, name, "{");
    let at = out.len();
    for (member, value) in &members.0 {
        let cut = write_cut(out, member, value);
        let before = format!(",\"{name}\":{{\"{member}\":");
        texts.extend(cut.map(|text| CallText { before, closing: "}", text }));
    }
    close(out, at, "}");
}

/// Writes a member, or if its text goes out in pieces, an empty text; then returns it.
fn write_cut(out: &mut Vec<u8>, name: &str, value: &RawValue) -> Option<String> {
    let text = if TEXTS_OF_CALLS.contains(&name) { growing(value) } else { None };
    write_member(out, name, if text.is_some() { "\"\"" } else { value.get() });
    text
}

/// The end of an entry behind its piece: what closes the delta, the probabilities' place, and that it has not ended.
fn after(closing: &str, has_null_logprobs: bool) -> Vec<u8> {
    let mut out = closing.as_bytes().to_vec();
    if has_null_logprobs {
        write_member(&mut out, "logprobs", "null");
    }
    write_member(&mut out, "finish_reason", "null");
    out.push(b'}');
    out
}

/// Closes an object whose members have begun at `at`, each behind a comma.
fn close(out: &mut Vec<u8>, at: usize, end: &str) {
    if out.get(at) == Some(&b',') {
        out.remove(at);
    }
    out.extend_from_slice(end.as_bytes());
}

/// A value as text that is cut into pieces; none if it is no text, or empty.
fn growing(value: &RawValue) -> Option<String> {
    let text = if begins(value, "\"") { serde_json::from_str::<String>(value.get()).ok() } else { None };
    text.filter(|text| !text.is_empty())
}

/// Whether a value begins with these marks, spaces aside.
fn begins(value: &RawValue, with: &str) -> bool {
    let mut found = value.get().chars().filter(|letter| !letter.is_ascii_whitespace());
    with.chars().all(|mark| found.next() == Some(mark))
}

/// Whether no two entries of reasoning are fragments of one to a client that reads a stream.
fn are_apart(details: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Entry<'a> {
        #[serde(borrow, rename = "type")]
        kind: Option<Cow<'a, str>>,
        #[serde(borrow)]
        index: Option<&'a RawValue>,
    }
    if details.get() == "null" {
        return true;
    }
    let Ok(entries) = serde_json::from_str::<Vec<Entry<'_>>>(details.get()) else { return false };
    let mut seen = HashSet::new();
    let mut indexed = entries.iter().filter_map(|entry| Some((entry.index?.get(), entry.kind.as_deref())));
    indexed.all(|entry| seen.insert(entry))
}
