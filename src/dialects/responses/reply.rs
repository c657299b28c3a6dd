//! Reads a complete response, decides whether it may be stored, and writes a stored one.
//!
//! A response that the upstream stores (`store`, its default) is known there by its id, which later requests name as
//! `previous_response_id`: its replays keep the id. One that is not stored gets a fresh id, because each delivery is another response.

use super::output::{only_text, read_output};
use super::part::text;
use crate::dialects::delivery_id::new_id;
use crate::dialects::usage::OF_RESPONSES;
use crate::dialects::{Answer, Unstorable};
use crate::domain::{TokenUsage, UnixSeconds};
use crate::raw_object::{RawObject, on_one_line, write_member};

/// What a stored response begins with whose id is kept.
const KEPT_ID: &[u8] = b"{\"id\":";
/// When a response was made, and when it was complete.
const TIMES: [&str; 2] = ["created_at", "completed_at"];

/// The answer in the body of a reply. `None` for anything but a response that has not failed.
pub(super) fn read_reply(body: &[u8]) -> Option<Answer> {
    let members = RawObject::read(body)?;
    let status = text(members.get("status"))?;
    let has_failed = status == "failed" || members.get("error").is_some_and(|error| error != "null");
    if members.get("object") != Some("\"response\"") || has_failed {
        return None;
    }
    let items = read_output(&members);
    let unstorable = match &items {
        _ if status != "completed" => Some(Unstorable::Unfinished),
        Err(unstorable) => Some(*unstorable),
        Ok(items) if !items.iter().any(|item| item.says_something()) => Some(Unstorable::Empty),
        Ok(_) => None,
    };
    Some(Answer {
        json: on_one_line(stored(&members)).into(),
        usage: token_usage(&members),
        unstorable,
        // It is incomplete then, and never stored.
        is_truncated: false,
        ends_with_done: false,
        hosted: items.iter().flatten().filter_map(|item| item.format.feature).collect(),
        calls_tools: items.is_ok_and(|items| items.iter().any(|item| item.format.calls_client)),
    })
}

/// The text of a stored response, if it has one text and nothing else for the client.
pub(super) fn text_of_answer(answer: &[u8]) -> Option<String> {
    only_text(&RawObject::read(answer)?)
}

/// The tokens that a response used, if it reports that.
pub(super) fn token_usage(response: &RawObject<'_>) -> Option<TokenUsage> {
    OF_RESPONSES.read(&serde_json::from_str(response.get("usage")?).ok()?)
}

/// A response as it is stored: its id first if replays keep it, else without an id.
fn stored(members: &RawObject<'_>) -> Vec<u8> {
    let rest = members.write_without(&["id"]);
    let is_stored_upstream = members.get("store") != Some("false");
    match members.get("id").filter(|id| is_stored_upstream && id.starts_with('"')) {
        Some(id) => with_id(id, &rest),
        None => rest,
    }
}

/// The id of a stored response, if its replays keep it.
pub(super) fn kept_id(answer: &[u8]) -> Option<String> {
    if !answer.starts_with(KEPT_ID) {
        return None;
    }
    text(RawObject::read(answer)?.get("id"))
}

/// A stored response as one JSON text.
pub(super) fn as_json(answer: &[u8], created: UnixSeconds) -> Vec<u8> {
    if answer.starts_with(KEPT_ID) {
        return answer.to_vec();
    }
    let Some(members) = RawObject::read(answer) else { return answer.to_vec() };
    let now = created.to_string();
    let rest = members.write_with(|name, value| {
        let is_time = TIMES.contains(&name) && value != "null";
        if is_time { &now } else { value }
    });
    with_id(&format!("\"{}\"", new_id("resp_")), &rest)
}

/// An object with the member `id` before all others.
fn with_id(id: &str, object: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(object.len() + id.len() + 8);
    write_member(&mut out, "id", id);
    out[0] = b'{';
    let rest = object.get(1..).unwrap_or_default();
    if rest != b"}" {
        out.push(b',');
    }
    out.extend_from_slice(rest);
    out
}
