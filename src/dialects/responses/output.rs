//! The items of a response's `output`, as far as their events are known.
//!
//! An item is sent whole when it is complete; before that its texts are sent in pieces. An item or a part of another type than those listed
//! here may have events of its own, so that no exact replay of it is known. Unknown members of known items are sent with the item.

use serde_json::value::RawValue;

use super::item_format::ItemFormat;
use super::part::{OutputPart, PartFormat, text};
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
    pub(super) format: &'static ItemFormat,
    pub(super) parts: Vec<OutputPart>,
}

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
        let format = ItemFormat::of(&name).ok_or(Unstorable::UnknownMember)?;
        let id = members.get("id").filter(|id| id.starts_with('"')).ok_or(Unstorable::UnknownMember)?;
        if id.len() > ID_BYTES_MAX {
            return Err(Unstorable::Envelope);
        }
        // A tool of the upstream's that has failed may work for the next request.
        let has_failed = members.get("error").is_some_and(|error| error != "null");
        if has_failed || !matches!(members.get("status"), None | Some("null" | "\"completed\"")) {
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
            opened: members.write_with(|name, value| format.opened(name, value).unwrap_or(value)),
            format,
            parts,
        })
    }

    /// Whether it is for the client: a text that is not blank, a refusal, a call or an image, and not reasoning alone.
    pub(super) fn says_something(&self) -> bool {
        self.is_for_client_without_text()
            || self.parts.iter().any(|part| part.is_for_client() && !part.text.trim().is_empty())
    }

    fn is_for_client_without_text(&self) -> bool {
        self.format.calls_client || self.format.is_result
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

/// The text of a response, if it has one text and nothing else for the client.
pub(super) fn only_text(response: &RawObject<'_>) -> Option<String> {
    let items = read_output(response).ok()?;
    if items.iter().any(OutputItem::is_for_client_without_text) {
        return None;
    }
    let mut parts = items.iter().flat_map(|item| &item.parts).filter(|part| part.is_for_client());
    match (parts.next(), parts.next()) {
        (Some(part), None) if part.is_text() => Some(part.text.clone()),
        _ => None,
    }
}
