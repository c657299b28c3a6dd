//! Assembles the events of a stream into one complete message, or reports why that could lose something.
//!
//! The events, blocks, deltas and members that can be replayed exactly are listed. Any other means that there is no complete answer:
//! the stream is broadcast and not stored.

mod block;
#[cfg(test)]
mod tests;

use serde_json::value::RawValue;

use self::block::StreamedBlock;
use super::block::{BLOCKS_MAX, text};
use super::members::{OwnedMembers, check_names, raw, set, write_members};
use super::reply;
use crate::dialects::{Assembler, Note, Unstorable};
use crate::domain::TokenUsage;
use crate::raw_object::RawObject;
use crate::sse::Event;

/// Members of `message_delta.delta` that take the place of those of the message.
const OF_MESSAGE_DELTA: [&str; 4] = ["container", "stop_details", "stop_reason", "stop_sequence"];
/// Members that `usage` may have.
const USAGE_MEMBERS_MAX: usize = 64;

/// Assembles the events of a stream.
#[derive(Debug, Default)]
pub(super) struct MessageAssembler {
    /// The message without its content and its usage.
    members: OwnedMembers,
    usage: Option<OwnedMembers>,
    blocks: Vec<StreamedBlock>,
    has_begun: bool,
    is_done: bool,
    /// The first reason why the stream has no certain sum.
    unstorable: Option<Unstorable>,
    has_given_up: bool,
}

impl Assembler for MessageAssembler {
    fn push(&mut self, event: &Event) -> Note {
        if event.is_garbled {
            self.doubt(Unstorable::Garbled);
        }
        // Clients take an event for what its type says.
        let data = event.data.as_deref().filter(|data| !event.is_ping && data.trim() != "[DONE]");
        match data.map_or(Ok(()), |data| self.add(data)) {
            // An error is the reason, whatever else was odd before it.
            Err(Unstorable::Error) => self.unstorable = Some(Unstorable::Error),
            Err(unstorable) => self.doubt(unstorable),
            Ok(()) => {}
        }
        Note { is_usage: false, is_error: event.is_error || self.unstorable == Some(Unstorable::Error) }
    }

    /// Usage is part of every message, and is never taken out of its events.
    fn may_report_usage(&self, _: &Event) -> bool {
        false
    }

    /// Nothing but its last event ends a stream.
    fn end(&mut self) {}

    fn is_done(&self) -> bool {
        self.is_done
    }

    fn has_ended(&self) -> bool {
        self.members.iter().any(|(name, value)| name == "stop_reason" && value.get() != "null")
    }

    fn usage(&self) -> Option<TokenUsage> {
        let usage = write_members(self.usage.as_ref()?);
        reply::usage(std::str::from_utf8(&usage).ok()?)
    }

    fn give_up(&mut self) {
        self.doubt(Unstorable::TooLarge);
        self.has_given_up = true;
        self.members.retain(|(name, _)| name == "stop_reason");
        self.blocks = Vec::new();
    }

    fn finish(&mut self) -> Result<Vec<u8>, Unstorable> {
        if let Some(unstorable) = self.unstorable {
            return Err(unstorable);
        }
        if !self.is_done {
            return Err(Unstorable::Incomplete);
        }
        let mut content = vec![b'['];
        for (place, block) in std::mem::take(&mut self.blocks).into_iter().enumerate() {
            if place > 0 {
                content.push(b',');
            }
            content.append(&mut block.finish()?);
        }
        content.push(b']');
        set(&mut self.members, "content", raw(content)?);
        if let Some(usage) = &self.usage {
            let usage = raw(write_members(usage))?;
            set(&mut self.members, "usage", usage);
        }
        Ok(write_members(&std::mem::take(&mut self.members)))
    }
}

impl MessageAssembler {
    /// Records that there is no complete answer.
    fn doubt(&mut self, unstorable: Unstorable) {
        self.unstorable.get_or_insert(unstorable);
    }

    /// Adds the data of one event.
    fn add(&mut self, data: &str) -> Result<(), Unstorable> {
        let event = RawObject::read(data.as_bytes()).ok_or(Unstorable::Garbled)?;
        let kind = event.value("type").and_then(text).ok_or(Unstorable::UnknownMember)?;
        if kind == "error" {
            return Err(Unstorable::Error);
        }
        if kind == "ping" {
            return Ok(());
        }
        if self.is_done {
            // An event behind the end belongs to no answer.
            return Err(Unstorable::Uncertain);
        }
        match kind.as_str() {
            "message_start" => self.begin(&event),
            "message_delta" => self.change(&event),
            "message_stop" => self.stop(&event),
            "content_block_start" | "content_block_delta" | "content_block_stop" if self.has_given_up => {
                Ok(())
            }
            "content_block_start" => self.begin_block(&event),
            "content_block_delta" => {
                check_names(&event, &["delta", "index", "type"])?;
                let delta = event.get("delta").and_then(|delta| RawObject::read(delta.as_bytes()));
                self.open_block(&event)?.grow(&delta.ok_or(Unstorable::UnknownMember)?)
            }
            "content_block_stop" => {
                check_names(&event, &["index", "type"])?;
                self.open_block(&event)?.close();
                Ok(())
            }
            _ => Err(Unstorable::UnknownMember),
        }
    }

    fn begin(&mut self, event: &RawObject<'_>) -> Result<(), Unstorable> {
        if std::mem::replace(&mut self.has_begun, true) {
            return Err(Unstorable::Uncertain);
        }
        let message = event.get("message").and_then(|message| RawObject::read(message.as_bytes()));
        let message = message.ok_or(Unstorable::UnknownMember)?;
        // First, because it is known also of what has no sum.
        self.add_usage(message.get("usage"))?;
        if self.has_given_up {
            return Ok(());
        }
        check_names(event, &["message", "type"])?;
        // What it has said before its first block has no certain place.
        let content: Option<Vec<&RawValue>> =
            message.get("content").map_or(Some(Vec::new()), |content| serde_json::from_str(content).ok());
        if !content.is_some_and(|content| content.is_empty()) {
            return Err(Unstorable::Uncertain);
        }
        let kept = message.0.into_iter().filter(|(name, _)| !["id", "usage"].contains(&name.as_str()));
        self.members = kept.map(|(name, value)| (name, value.to_owned())).collect();
        Ok(())
    }

    fn change(&mut self, event: &RawObject<'_>) -> Result<(), Unstorable> {
        self.add_usage(event.get("usage"))?;
        let delta = event.get("delta").and_then(|delta| RawObject::read(delta.as_bytes()));
        let delta = delta.ok_or(Unstorable::UnknownMember)?;
        // It says whether the answer has ended, also where nothing else of it is collected.
        for name in OF_MESSAGE_DELTA.iter().filter(|name| !self.has_given_up || **name == "stop_reason") {
            delta.value(name).into_iter().for_each(|value| set(&mut self.members, name, value.to_owned()));
        }
        if self.has_given_up {
            return Ok(());
        }
        let managed = event.value("context_management");
        managed.into_iter().for_each(|value| set(&mut self.members, "context_management", value.to_owned()));
        check_names(&delta, &OF_MESSAGE_DELTA)?;
        check_names(event, &["context_management", "delta", "type", "usage"])?;
        if self.has_begun { Ok(()) } else { Err(Unstorable::Uncertain) }
    }

    fn stop(&mut self, event: &RawObject<'_>) -> Result<(), Unstorable> {
        self.is_done = true;
        check_names(event, &["type"])?;
        let is_whole = self.has_begun && self.blocks.iter().all(StreamedBlock::is_closed);
        if is_whole { Ok(()) } else { Err(Unstorable::Uncertain) }
    }

    /// The usage of later events counts along: each of its members holds until it is said again.
    fn add_usage(&mut self, usage: Option<&str>) -> Result<(), Unstorable> {
        let Some(usage) = usage.filter(|usage| *usage != "null") else { return Ok(()) };
        let usage = RawObject::read(usage.as_bytes()).ok_or(Unstorable::UnknownMember)?;
        let known = self.usage.get_or_insert_default();
        for (name, value) in usage.0 {
            if known.len() >= USAGE_MEMBERS_MAX {
                return Err(Unstorable::UnknownMember);
            }
            let is_new = !known.iter().any(|(known, _)| *known == name);
            if is_new || value.get() != "null" {
                set(known, &name, value.to_owned());
            }
        }
        Ok(())
    }

    fn begin_block(&mut self, event: &RawObject<'_>) -> Result<(), Unstorable> {
        check_names(event, &["content_block", "index", "type"])?;
        if !self.has_begun || index(event)? != self.blocks.len() {
            return Err(Unstorable::Uncertain);
        }
        if self.blocks.len() == BLOCKS_MAX {
            return Err(Unstorable::UnknownMember);
        }
        let block = event.get("content_block").and_then(|block| RawObject::read(block.as_bytes()));
        self.blocks.push(StreamedBlock::begin(block.ok_or(Unstorable::UnknownMember)?)?);
        Ok(())
    }

    fn open_block(&mut self, event: &RawObject<'_>) -> Result<&mut StreamedBlock, Unstorable> {
        let block = self.blocks.get_mut(index(event)?).filter(|block| !block.is_closed());
        block.ok_or(Unstorable::Uncertain)
    }
}

fn index(event: &RawObject<'_>) -> Result<usize, Unstorable> {
    event.get("index").and_then(|index| index.parse().ok()).ok_or(Unstorable::UnknownMember)
}
