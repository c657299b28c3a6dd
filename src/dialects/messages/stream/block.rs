//! One block of a stream: how it begins, and what its deltas add.

use serde_json::value::RawValue;

use super::super::block::{BlockKind, text};
use super::super::members::{OwnedMembers, check_names, raw, set, write_members};
use crate::dialects::Unstorable;
use crate::raw_object::{RawObject, write_string};

/// A block that is assembled from events.
#[derive(Debug)]
pub(super) struct StreamedBlock {
    kind: BlockKind,
    /// As it began.
    members: OwnedMembers,
    /// What its deltas have added to the member that grows.
    added: String,
    signature: Option<Box<RawValue>>,
    citations: Vec<Box<RawValue>>,
    is_closed: bool,
}

impl StreamedBlock {
    /// A block as `content_block_start` has it.
    pub(super) fn begin(block: RawObject<'_>) -> Result<StreamedBlock, Unstorable> {
        let kind = BlockKind::of(&block).ok_or(Unstorable::UnknownMember)?;
        let members = block.0.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
        let (added, citations) = (String::new(), Vec::new());
        Ok(StreamedBlock { kind, members, added, signature: None, citations, is_closed: false })
    }

    /// Adds a delta.
    pub(super) fn grow(&mut self, delta: &RawObject<'_>) -> Result<(), Unstorable> {
        let kind = delta.value("type").and_then(text).ok_or(Unstorable::UnknownMember)?;
        match (self.kind, kind.as_str()) {
            (BlockKind::Text, "citations_delta") => {
                check_names(delta, &["citation", "type"])?;
                let citation = delta.value("citation").ok_or(Unstorable::UnknownMember)?;
                self.citations.push(citation.to_owned());
            }
            (BlockKind::Thinking, "signature_delta") => {
                check_names(delta, &["signature", "type"])?;
                let signature = delta.value("signature").filter(|value| value.get().starts_with('"'));
                let signature = signature.ok_or(Unstorable::UnknownMember)?;
                // Clients differ in whether a second one replaces the first or continues it.
                if self.signature.replace(signature.to_owned()).is_some() {
                    return Err(Unstorable::Uncertain);
                }
            }
            (known, kind) => {
                let growth = known.growth().filter(|growth| growth.delta == kind);
                let growth = growth.ok_or(Unstorable::UnknownMember)?;
                check_names(delta, &[growth.of_delta, "type"])?;
                let more = delta.value(growth.of_delta).and_then(text).ok_or(Unstorable::UnknownMember)?;
                self.added.push_str(&more);
            }
        }
        Ok(())
    }

    /// Records that it has ended.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
    }

    /// Whether it has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// The block of the complete message, as JSON.
    pub(super) fn finish(mut self) -> Result<Vec<u8>, Unstorable> {
        if let Some(growth) = self.kind.growth() {
            let before = self.value(growth.member).map(RawValue::get).unwrap_or(growth.empty);
            let whole = match self.kind {
                BlockKind::ToolUse | BlockKind::HostedToolUse => whole_input(before, &self.added)?,
                BlockKind::Text
                | BlockKind::Thinking
                | BlockKind::RedactedThinking
                | BlockKind::HostedResult => whole_text(before, &self.added)?,
            };
            set(&mut self.members, growth.member, raw(whole)?);
        }
        if let Some(signature) = self.signature.take() {
            let is_first =
                self.value("signature").is_none_or(|before| ["null", "\"\""].contains(&before.get()));
            if !is_first {
                return Err(Unstorable::Uncertain);
            }
            set(&mut self.members, "signature", signature);
        }
        if !self.citations.is_empty() {
            let mut all: Vec<Box<RawValue>> = match self.value("citations").map(RawValue::get) {
                None | Some("null") => Vec::new(),
                Some(before) => serde_json::from_str(before).map_err(|_| Unstorable::UnknownMember)?,
            };
            all.append(&mut self.citations);
            let all = serde_json::to_vec(&all).map_err(|_| Unstorable::Uncertain)?;
            set(&mut self.members, "citations", raw(all)?);
        }
        Ok(write_members(&self.members))
    }

    fn value(&self, name: &str) -> Option<&RawValue> {
        self.members.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }
}

/// A text, of which `before` is the beginning as JSON.
fn whole_text(before: &str, added: &str) -> Result<Vec<u8>, Unstorable> {
    let mut whole: String = serde_json::from_str(before).map_err(|_| Unstorable::UnknownMember)?;
    whole.push_str(added);
    let mut json = Vec::with_capacity(whole.len() + 2);
    write_string(&mut json, &whole);
    Ok(json)
}

/// The input of a tool, which came either at once, as `before`, or in pieces of its JSON. It is one object, spelled as it came.
fn whole_input(before: &str, added: &str) -> Result<Vec<u8>, Unstorable> {
    if added.trim().is_empty() {
        return Ok(before.as_bytes().to_vec());
    }
    let is_empty = RawObject::read(before.as_bytes()).is_some_and(|input| input.0.is_empty());
    let is_object = RawObject::read(added.as_bytes()).is_some();
    // Two calls in one block would be none.
    (is_empty && is_object).then(|| added.trim().as_bytes().to_vec()).ok_or(Unstorable::Uncertain)
}
