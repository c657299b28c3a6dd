//! The items of a response's `output`, as far as their events are known.
//!
//! An item is sent whole when it is complete; before that its texts are sent in pieces. An item or a part of another type than those listed
//! here may have events of its own, so that no exact replay of it is known. Unknown members of known items are sent with the item.

use serde_json::value::RawValue;

use super::part::{ARGUMENTS, CONTENT, INPUT, OutputPart, PartFormat, REASONING, SUMMARY, text};
use crate::dialects::Unstorable;
use crate::raw_object::RawObject;

/// Items and parts that a response may have: each of them has several events.
pub(super) const PARTS_MAX: usize = 1024;
/// How long the id of an item may be, as JSON. Each event repeats it.
const ID_BYTES_MAX: usize = 258;

/// An item of a response.
#[derive(Debug)]
pub(super) struct OutputItem {
    /// Its id, as JSON.
    pub(super) id: Box<str>,
    /// The complete item.
    pub(super) json: Box<RawValue>,
    /// The item before its texts have arrived.
    pub(super) opened: Vec<u8>,
    /// Whether it calls a tool.
    pub(super) calls_tool: bool,
    pub(super) parts: Vec<OutputPart>,
}

/// A type of items.
struct ItemFormat {
    name: &'static str,
    /// The member with the text of a call, and how its text is sent.
    text: Option<(&'static str, &'static PartFormat)>,
    /// Members with lists of parts, and the parts that each may have.
    lists: &'static [(&'static str, &'static [PartFormat])],
}

static FORMATS: [ItemFormat; 4] = [
    ItemFormat { name: "message", text: None, lists: &[("content", &CONTENT)] },
    ItemFormat { name: "reasoning", text: None, lists: &[("summary", &SUMMARY), ("content", &REASONING)] },
    ItemFormat { name: "function_call", text: Some(("arguments", &ARGUMENTS)), lists: &[] },
    ItemFormat { name: "custom_tool_call", text: Some(("input", &INPUT)), lists: &[] },
];

/// Reads the items of a response.
///
/// # Errors
/// Why they cannot be replayed.
pub(super) fn read_output(response: &RawObject<'_>) -> Result<Vec<OutputItem>, Unstorable> {
    let output = response.get("output").ok_or(Unstorable::Empty)?;
    let items: Vec<&RawValue> = serde_json::from_str(output).map_err(|_| Unstorable::UnknownMember)?;
    let items = items.into_iter().map(OutputItem::read).collect::<Result<Vec<_>, _>>()?;
    let parts: usize = items.iter().map(|item| 1 + item.parts.len()).sum();
    if parts > PARTS_MAX {
        return Err(Unstorable::Envelope);
    }
    Ok(items)
}

impl OutputItem {
    fn read(json: &RawValue) -> Result<OutputItem, Unstorable> {
        let members = RawObject::read(json.get().as_bytes()).ok_or(Unstorable::UnknownMember)?;
        let name = text(members.get("type")).ok_or(Unstorable::UnknownMember)?;
        let format = FORMATS.iter().find(|format| format.name == name).ok_or(Unstorable::UnknownMember)?;
        let id = members.get("id").filter(|id| id.starts_with('"')).ok_or(Unstorable::UnknownMember)?;
        if id.len() > ID_BYTES_MAX {
            return Err(Unstorable::Envelope);
        }
        if !matches!(members.get("status"), None | Some("null" | "\"completed\"")) {
            return Err(Unstorable::Unfinished);
        }
        let mut parts = Vec::new();
        if let Some((member, part)) = format.text {
            let said = text(members.get(member)).ok_or(Unstorable::UnknownMember)?;
            parts.push(OutputPart::of_call(part, said, members.value("name")));
        }
        for (member, formats) in format.lists {
            parts.extend(read_parts(members.get(member), formats)?);
        }
        Ok(OutputItem {
            id: id.into(),
            json: json.to_owned(),
            opened: opened(&members, format),
            calls_tool: format.text.is_some(),
            parts,
        })
    }

    /// Whether it is for the client: a text that is not blank, a refusal or a call, and not reasoning alone.
    pub(super) fn says_something(&self) -> bool {
        self.calls_tool || self.parts.iter().any(|part| part.is_for_client() && !part.text.trim().is_empty())
    }
}

/// An absent list and null have no parts.
fn read_parts(list: Option<&str>, formats: &'static [PartFormat]) -> Result<Vec<OutputPart>, Unstorable> {
    let list: Option<Vec<&RawValue>> =
        serde_json::from_str(list.unwrap_or("null")).map_err(|_| Unstorable::UnknownMember)?;
    let parts = list.unwrap_or_default().into_iter().enumerate();
    parts
        .map(|(index, part)| OutputPart::read(formats, index, part).ok_or(Unstorable::UnknownMember))
        .collect()
}

/// The item as its first event has it.
fn opened(members: &RawObject<'_>, format: &ItemFormat) -> Vec<u8> {
    members.write_with(|name, value| match name {
        "status" if value != "null" => "\"in_progress\"",
        _ if format.text.is_some_and(|(member, _)| member == name) => "\"\"",
        _ if value != "null" && format.lists.iter().any(|(member, _)| *member == name) => "[]",
        _ => value,
    })
}

/// The text of a response, if it has one text and nothing else for the client.
pub(super) fn only_text(response: &RawObject<'_>) -> Option<String> {
    let items = read_output(response).ok()?;
    let mut parts = items.iter().flat_map(|item| &item.parts).filter(|part| part.is_for_client());
    match (parts.next(), parts.next()) {
        (Some(part), None) if part.is_text() => Some(part.text.clone()),
        _ => None,
    }
}
