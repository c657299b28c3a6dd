//! Assembles the events of a stream into a complete response, or reports why that could lose something.
//!
//! The event that ends a stream has the complete response. It is the answer if the events before it said the same: each item as it was
//! complete, each text as its pieces add up. A stream with an event, a member or an item for which no exact replay is known is broadcast
//! and not stored.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use super::item_format::progress_event;
use super::output::{PARTS_MAX, read_output};
use super::part::{CONTENT, OutputPart, PartFormat, format_of_delta, text, without_bytes};
use super::reply::token_usage;
use crate::dialects::{Assembler, Note, Unstorable};
use crate::domain::TokenUsage;
use crate::raw_object::RawObject;
use crate::sse::Event;

/// Members of events.
const MEMBERS: [&str; 20] = [
    "annotation",
    "annotation_index",
    "arguments",
    "code",
    "content_index",
    "delta",
    "input",
    "item",
    "item_id",
    "logprobs",
    "name",
    "obfuscation",
    "output_index",
    "part",
    "refusal",
    "response",
    "sequence_number",
    "summary_index",
    "text",
    "type",
];

/// Events that say nothing which the complete item does not say.
const REPEATED: [&str; 16] = [
    "response.code_interpreter_call_code.done",
    "response.content_part.added",
    "response.content_part.done",
    "response.created",
    "response.custom_tool_call_input.done",
    "response.function_call_arguments.done",
    "response.in_progress",
    "response.mcp_call_arguments.done",
    "response.output_item.added",
    "response.output_text.done",
    "response.queued",
    "response.reasoning_summary_part.added",
    "response.reasoning_summary_part.done",
    "response.reasoning_summary_text.done",
    "response.reasoning_text.done",
    "response.refusal.done",
];

/// Events that only keep the connection open.
const KEEPALIVES: [&str; 4] = ["heartbeat", "keep-alive", "keepalive", "ping"];

/// Events that say how far one item is; no item that can be replayed has more.
const PROGRESS_MAX: usize = 8;

/// Assembles the events of a stream.
#[derive(Debug, Default)]
pub(super) struct EventAssembler {
    /// The complete response.
    response: Option<Box<RawValue>>,
    /// The complete items, by their place in the output.
    items: BTreeMap<u64, Box<RawValue>>,
    /// What the events said of each text.
    texts: BTreeMap<TextPlace, StreamedText>,
    /// The events that said how far each item is, by its place in the output.
    progress: BTreeMap<u64, Vec<&'static str>>,
    usage: Option<TokenUsage>,
    is_done: bool,
    /// The first reason why there is no complete answer.
    unstorable: Option<Unstorable>,
    has_given_up: bool,
}

/// The place of a text: of its item in the output, what its events are called, and its place in the item.
type TextPlace = (u64, &'static str, u64);

/// A text as its events add up.
#[derive(Debug, Default)]
struct StreamedText {
    text: String,
    logprobs: Vec<Value>,
    annotations: Vec<Value>,
}

impl Assembler for EventAssembler {
    fn push(&mut self, event: &Event) -> Note {
        if event.is_garbled {
            self.doubt(Unstorable::Garbled);
        }
        let data = event.data.as_deref().filter(|_| !event.is_ping);
        let has_failed = data.is_some_and(|data| self.push_data(data));
        Note { is_usage: false, is_error: event.is_error || has_failed }
    }

    /// The complete response reports it, in a stream too.
    fn may_report_usage(&self, _: &Event) -> bool {
        false
    }

    fn end(&mut self) {}

    fn is_done(&self) -> bool {
        self.is_done
    }

    fn has_ended(&self) -> bool {
        self.is_done
    }

    fn usage(&self) -> Option<TokenUsage> {
        self.usage
    }

    fn give_up(&mut self) {
        self.doubt(Unstorable::TooLarge);
        self.has_given_up = true;
        (self.response, self.items) = (None, BTreeMap::new());
        (self.texts, self.progress) = (BTreeMap::new(), BTreeMap::new());
    }

    fn finish(&mut self) -> Result<Vec<u8>, Unstorable> {
        if let Some(unstorable) = self.unstorable {
            return Err(unstorable);
        }
        let response = self.response.take().ok_or(Unstorable::Incomplete)?;
        let members = RawObject::read(response.get().as_bytes()).ok_or(Unstorable::UnknownMember)?;
        for (place, item) in (0..).zip(read_output(&members)?) {
            let complete = self.items.remove(&place);
            if !complete.is_some_and(|complete| is_same(&complete, &item.json)) {
                return Err(Unstorable::Uncertain);
            }
            // A replay has each of these events once, in their order.
            let progress = self.progress.remove(&place).unwrap_or_default();
            if !item.format.progress.iter().copied().flatten().eq(&progress) {
                return Err(Unstorable::Uncertain);
            }
            for part in &item.parts {
                let at = (place, part.format.events, part.index as u64);
                if !self.texts.remove(&at).unwrap_or_default().is_of(part) {
                    return Err(Unstorable::Uncertain);
                }
            }
        }
        if !self.items.is_empty() || !self.texts.is_empty() || !self.progress.is_empty() {
            return Err(Unstorable::Uncertain);
        }
        Ok(response.get().as_bytes().to_vec())
    }
}

impl EventAssembler {
    /// Records that there is no complete answer.
    fn doubt(&mut self, unstorable: Unstorable) {
        self.unstorable.get_or_insert(unstorable);
    }

    /// Adds the data of an event, and returns whether it reports that the response has failed.
    fn push_data(&mut self, data: &str) -> bool {
        if data.trim() == "[DONE]" {
            return false;
        }
        let added = match RawObject::read(data.as_bytes()) {
            Some(event) => self.add(&event),
            None => Err(Unstorable::Garbled),
        };
        match added {
            // An error is the reason, whatever else was odd before it.
            Err(Unstorable::Error) => self.unstorable = Some(Unstorable::Error),
            Err(unstorable) => self.doubt(unstorable),
            Ok(()) => {}
        }
        added == Err(Unstorable::Error)
    }

    fn add(&mut self, event: &RawObject<'_>) -> Result<(), Unstorable> {
        if event.get("error").is_some_and(|error| error != "null") {
            return Err(Unstorable::Error);
        }
        let name = text(event.get("type")).ok_or(Unstorable::UnknownMember)?;
        let name = name.as_str();
        if KEEPALIVES.contains(&name) {
            return Ok(());
        }
        if self.is_done {
            // What follows the end belongs to no answer.
            return Err(Unstorable::Uncertain);
        }
        match name {
            "response.completed" | "response.incomplete" | "response.failed" | "response.cancelled" => {
                self.finish_with(name, event.value("response"))?;
            }
            "error" => return Err(Unstorable::Error),
            _ if self.has_given_up => return Ok(()),
            "response.output_item.done" => self.add_item(event)?,
            "response.output_text.annotation.added" => {
                let annotation = json_of(event, "annotation").ok_or(Unstorable::UnknownMember)?;
                self.text(event, &CONTENT[0])?.annotations.push(annotation);
            }
            _ if REPEATED.contains(&name) => {}
            _ => match progress_event(name) {
                Some(progress) => self.add_progress(event, progress)?,
                None => self.add_delta(event, name)?,
            },
        }
        let is_known =
            |(name, value): &(String, &RawValue)| MEMBERS.contains(&name.as_str()) || value.get() == "null";
        event.0.iter().all(is_known).then_some(()).ok_or(Unstorable::UnknownMember)
    }

    /// Ends with the event `name`, which has the response as it is then.
    fn finish_with(&mut self, name: &str, response: Option<&RawValue>) -> Result<(), Unstorable> {
        self.is_done = true;
        let response = response.ok_or(Unstorable::UnknownMember)?;
        self.usage = RawObject::read(response.get().as_bytes()).and_then(|members| token_usage(&members));
        match name {
            "response.completed" => {
                self.response = (!self.has_given_up).then(|| response.to_owned());
                Ok(())
            }
            "response.failed" => Err(Unstorable::Error),
            _ => Err(Unstorable::Unfinished),
        }
    }

    fn add_item(&mut self, event: &RawObject<'_>) -> Result<(), Unstorable> {
        let place = number(event, "output_index").ok_or(Unstorable::UnknownMember)?;
        let item = event.value("item").ok_or(Unstorable::UnknownMember)?;
        match self.items.insert(place, item.to_owned()) {
            None if self.items.len() <= PARTS_MAX => Ok(()),
            None => Err(Unstorable::Envelope),
            Some(_) => Err(Unstorable::Uncertain),
        }
    }

    fn add_delta(&mut self, event: &RawObject<'_>, name: &str) -> Result<(), Unstorable> {
        let format = format_of_delta(name).ok_or(Unstorable::UnknownMember)?;
        let delta = text(event.get("delta")).ok_or(Unstorable::UnknownMember)?;
        let logprobs: Option<Vec<Value>> = serde_json::from_str(event.get("logprobs").unwrap_or("null"))
            .map_err(|_| Unstorable::UnknownMember)?;
        let said = self.text(event, format)?;
        said.text.push_str(&delta);
        said.logprobs.extend(logprobs.into_iter().flatten().map(without_bytes));
        Ok(())
    }

    fn add_progress(&mut self, event: &RawObject<'_>, name: &'static str) -> Result<(), Unstorable> {
        let place = number(event, "output_index").ok_or(Unstorable::UnknownMember)?;
        let items = self.progress.len();
        let progress = self.progress.entry(place).or_default();
        if items > PARTS_MAX || progress.len() == PROGRESS_MAX {
            return Err(Unstorable::Envelope);
        }
        progress.push(name);
        Ok(())
    }

    /// What was said so far of the text that an event belongs to.
    fn text(
        &mut self,
        event: &RawObject<'_>,
        format: &'static PartFormat,
    ) -> Result<&mut StreamedText, Unstorable> {
        let item = number(event, "output_index").ok_or(Unstorable::UnknownMember)?;
        let part = match format.index {
            "" => 0,
            index => number(event, index).ok_or(Unstorable::UnknownMember)?,
        };
        let at = (item, format.events, part);
        if self.texts.len() >= PARTS_MAX && !self.texts.contains_key(&at) {
            return Err(Unstorable::Envelope);
        }
        Ok(self.texts.entry(at).or_default())
    }
}

impl StreamedText {
    /// Whether a complete part says the same.
    fn is_of(&self, part: &OutputPart) -> bool {
        let annotations = part.annotations().iter();
        let annotations = annotations.map(|annotation| serde_json::from_str::<Value>(annotation.get()).ok());
        self.text == part.text
            && self.logprobs == part.logprobs()
            && annotations.eq(self.annotations.iter().cloned().map(Some))
    }
}

fn number(event: &RawObject<'_>, name: &str) -> Option<u64> {
    event.get(name)?.parse().ok()
}

/// Whether two JSON texts say the same, however they are spelled.
fn is_same(one: &RawValue, other: &RawValue) -> bool {
    let read = |json: &RawValue| serde_json::from_str::<Value>(json.get()).ok();
    one.get() == other.get() || read(one).is_some_and(|one| Some(one) == read(other))
}

fn json_of(event: &RawObject<'_>, name: &str) -> Option<Value> {
    serde_json::from_str(event.get(name)?).ok()
}
