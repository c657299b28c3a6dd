//! Keeps errors about the server's key from clients where a reply has begun well: an upstream may answer 200 with an error, or end a
//! stream with one.
//!
//! An error may arrive in any pieces, so the filter works on units that a client reads as one: an event, a line, or a short JSON body.
//! A unit is held until it is complete, or longer than any error is.

use std::slice;

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};

use super::redaction::{Redaction, find, redacted};
use super::reply::{Headers, is_events};
use crate::error::{Error, Result};
use crate::sse::begins_events;

/// What services say that refuse a key by another status: codes, and words where they have none.
const OF_KEYS: [&str; 9] = [
    "invalid_api_key",
    "api_key_invalid",
    "authentication_error",
    "invalid_authentication",
    "incorrect api key",
    "invalid api key",
    "invalid x-api-key",
    "api key not valid",
    "api key is invalid",
];

/// A unit with more bytes is no error and is passed on as it arrives.
const HELD_BYTES_MAX: usize = 16 * 1024;

/// What a client reads as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// Not known yet: too little has arrived.
    Unknown,
    /// Events, which end with a blank line.
    Event,
    Line,
    Body,
    /// The body is no text.
    None,
}

/// Turns an error about the key into the one for clients.
type Refused = Box<dyn Fn(&[u8]) -> Error + Send + Sync>;

/// Filters one body.
pub(super) struct ErrorFilter {
    redaction: Redaction,
    key: String,
    unit: Unit,
    held: BytesMut,
    /// Whether the rest of a body is passed on, because it is too long for an error.
    is_passing: bool,
    /// Reports an error about the key to the operator and returns the one for clients.
    refused: Refused,
}

impl ErrorFilter {
    /// A filter for a reply with these headers, which hides `key`.
    pub(super) fn new(
        key: &str,
        headers: &Headers,
        refused: impl Fn(&[u8]) -> Error + Send + Sync + 'static,
    ) -> ErrorFilter {
        ErrorFilter {
            redaction: Redaction::new(key),
            key: key.to_owned(),
            unit: unit_of(headers),
            held: BytesMut::new(),
            is_passing: false,
            refused: Box::new(refused),
        }
    }

    /// The bytes that may be passed on once `piece` has arrived.
    ///
    /// # Errors
    /// `Upstream` for an error about the key that cannot be replaced.
    pub(super) fn push(&mut self, piece: Bytes) -> Result<Bytes> {
        let piece = self.redaction.push(piece);
        self.push_clean(piece)
    }

    /// The bytes that are held when the body has ended.
    ///
    /// # Errors
    /// As [`ErrorFilter::push`].
    pub(super) fn rest(&mut self) -> Result<Bytes> {
        let rest = self.redaction.rest();
        let passed = self.push_clean(rest)?;
        let held = self.take(self.held.len())?;
        Ok(concat(passed, held))
    }

    fn push_clean(&mut self, piece: Bytes) -> Result<Bytes> {
        let is_whole = self.held.is_empty() && self.unit == Unit::Event && ends_event(&piece);
        if self.is_passing || self.unit == Unit::None || (is_whole && !reports_error(&piece)) {
            return Ok(piece);
        }
        if self.held.is_empty() && self.unit == Unit::Event && piece.len() > HELD_BYTES_MAX {
            return self.push_long(piece);
        }
        self.held.extend_from_slice(&piece);
        if self.unit == Unit::Unknown {
            self.unit = unit_of_beginning(&self.held);
        }
        let complete = match self.unit {
            Unit::Event => last_event_end(&self.held),
            Unit::Line => self.held.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1),
            Unit::Body | Unit::Unknown | Unit::None => 0,
        };
        let clean = self.take(complete)?;
        if self.held.len() <= HELD_BYTES_MAX {
            return Ok(clean);
        }
        self.is_passing = self.unit == Unit::Body;
        let rest = self.take(self.held.len())?;
        Ok(concat(clean, rest))
    }

    /// A piece that is long enough to be passed on without a copy, but for an event that begins at its end.
    fn push_long(&mut self, mut piece: Bytes) -> Result<Bytes> {
        let complete = last_event_end(&piece);
        if piece.len() - complete <= HELD_BYTES_MAX {
            self.held.extend_from_slice(&piece.split_off(complete));
        }
        self.clean(piece)
    }

    /// Takes `count` of the bytes that are held.
    fn take(&mut self, count: usize) -> Result<Bytes> {
        let bytes = self.held.split_to(count).freeze();
        self.clean(bytes)
    }

    /// Bytes without what they say about the key.
    fn clean(&self, bytes: Bytes) -> Result<Bytes> {
        if !reports_error(&bytes) {
            return Ok(bytes);
        }
        let text = String::from_utf8_lossy(&bytes);
        if is_of_key(&bytes) {
            let refused = (self.refused)(&bytes);
            return with_errors(&text, refused.message()).map(Bytes::from).ok_or(refused);
        }
        Ok(redacted(&text, &self.key).map_or_else(|| bytes.clone(), Bytes::from))
    }
}

fn concat(one: Bytes, two: Bytes) -> Bytes {
    if one.is_empty() {
        two
    } else if two.is_empty() {
        one
    } else {
        [one, two].concat().into()
    }
}

/// The unit of a body by its content type.
fn unit_of(headers: &Headers) -> Unit {
    let content_type = headers.iter().find(|(name, _)| name == "content-type").map(|(_, value)| value);
    let Some(content_type) = content_type.map(|value| value.to_ascii_lowercase()) else {
        return Unit::Unknown;
    };
    let content_type = content_type.trim_ascii_start();
    let is_of = |kinds: &[&[u8]]| kinds.iter().any(|kind| content_type.starts_with(kind));
    if is_events(headers) {
        Unit::Event
    } else if is_of(&[b"application/json", b"text/plain"]) {
        Unit::Unknown
    } else if is_of(&[b"audio/", b"image/", b"video/", b"application/octet-stream"]) {
        Unit::None
    } else {
        Unit::Line
    }
}

/// The unit of a body that does not say its type, or JSON.
fn unit_of_beginning(bytes: &[u8]) -> Unit {
    match begins_events(bytes) {
        None => Unit::Unknown,
        Some(true) => Unit::Event,
        Some(false)
            if bytes.trim_ascii_start().starts_with(b"{") || bytes.trim_ascii_start().starts_with(b"[") =>
        {
            Unit::Body
        }
        Some(false) => Unit::Line,
    }
}

fn ends_event(bytes: &[u8]) -> bool {
    bytes.ends_with(b"\n\n") || bytes.ends_with(b"\r\n\r\n")
}

/// Where the last complete event ends.
fn last_event_end(bytes: &[u8]) -> usize {
    let ends = [&b"\n\n"[..], b"\r\n\r\n", b"\r\r"].into_iter().filter_map(|end| {
        bytes.windows(end.len()).rposition(|window| window == end).map(|at| at + end.len())
    });
    ends.max().unwrap_or(0)
}

/// JSON, or lines of JSON or events, with `message` in the place of every error. `None` if there is none.
fn with_errors(text: &str, message: &str) -> Option<String> {
    if let Some(json) = with_error(text, message) {
        return Some(json);
    }
    let mut is_changed = false;
    let shown = text.split_inclusive('\n').map(|line| {
        let (field, json) = line.strip_prefix("data:").map_or(("", line), |json| ("data: ", json));
        let replaced = with_error(json, message);
        is_changed |= replaced.is_some();
        replaced.map_or_else(|| line.to_owned(), |json| format!("{field}{json}\n"))
    });
    let shown: String = shown.collect();
    is_changed.then_some(shown)
}

/// A JSON text with another error than its own. `None` if it has none.
fn with_error(json: &str, message: &str) -> Option<String> {
    let mut value: Value = serde_json::from_str(json).ok()?;
    let values =
        if value.is_array() { value.as_array_mut()?.as_mut_slice() } else { slice::from_mut(&mut value) };
    let mut is_changed = false;
    for object in values.iter_mut().filter_map(Value::as_object_mut) {
        let Some(error) = object.get_mut("error").filter(|error| !error.is_null()) else { continue };
        *error = if error.is_object() {
            json!({ "message": message, "type": "server_error", "code": "upstream_error" })
        } else {
            json!(message)
        };
        if let Some(beside) = object.get_mut("message") {
            *beside = json!(message);
        }
        is_changed = true;
    }
    is_changed.then(|| value.to_string())
}

/// Whether JSON reports an error: a member that is not null.
fn reports_error(bytes: &[u8]) -> bool {
    const NAME: &[u8] = b"\"error\"";
    let mut rest = bytes;
    while let Some(at) = find(rest, NAME) {
        rest = &rest[at + NAME.len()..];
        let value = rest.trim_ascii_start().strip_prefix(b":").map(<[u8]>::trim_ascii_start);
        if value.is_some_and(|value| !value.starts_with(b"null")) {
            return true;
        }
    }
    false
}

/// Whether an error is about the key.
pub(super) fn is_of_key(said: &[u8]) -> bool {
    let said = String::from_utf8_lossy(said).to_lowercase();
    OF_KEYS.iter().any(|words| said.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    const KEY: &str = "sk-proj-AbCdEfGh1234567890wxYZ";
    const REFUSED: &str = r#"{"code":"upstream_error","message":"refused","type":"server_error"}"#;

    /// The body as clients get it, where it arrives in pieces of `step` bytes.
    fn passed(content_type: Option<&str>, body: &str, step: usize) -> Result<String> {
        let headers: Headers = content_type
            .map(|value| ("content-type".to_owned(), Bytes::copy_from_slice(value.as_bytes())))
            .into_iter()
            .collect();
        let mut filter = ErrorFilter::new(KEY, &headers, |_| Error::new(Kind::Upstream, "refused"));
        let mut out = Vec::new();
        for piece in body.as_bytes().chunks(step) {
            out.extend(filter.push(Bytes::copy_from_slice(piece))?);
        }
        out.extend(filter.rest()?);
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn an_error_about_the_key_is_replaced_in_whatever_pieces_it_arrives() {
        let said =
            r#"{"error":{"message":"Incorrect API key provided: sk-proj***YZ. Account acme","type":"x"}}"#;
        let events = format!("data: {{\"a\":1}}\n\nevent: error\ndata: {said}\n\n");
        let events_shown = format!("data: {{\"a\":1}}\n\nevent: error\ndata: {{\"error\":{REFUSED}}}\n\n");
        let lines = format!("{{\"a\":1}}\n{said}\n");
        let lines_shown = format!("{{\"a\":1}}\n{{\"error\":{REFUSED}}}");
        for (content_type, body, shown) in [
            (Some("text/event-stream"), &events, &events_shown),
            (None, &events, &events_shown),
            (Some("application/json"), &said.to_owned(), &format!("{{\"error\":{REFUSED}}}")),
            (Some("text/html"), &said.to_owned(), &format!("{{\"error\":{REFUSED}}}")),
            (Some("application/x-ndjson"), &lines, &lines_shown),
        ] {
            for step in 1..=body.len() {
                let passed = passed(content_type, body, step).unwrap();
                assert_eq!(passed.trim_end(), shown.trim_end(), "{content_type:?} in pieces of {step}");
            }
        }
    }

    #[test]
    fn an_error_that_cannot_be_replaced_ends_the_body() {
        let body = "data: {\"error\":\ndata: \"invalid api key sk-proj***YZ\"}\n\n";
        for step in [1, 7, body.len()] {
            assert_eq!(passed(Some("text/event-stream"), body, step).unwrap_err().kind(), Kind::Upstream);
        }
    }

    #[test]
    fn other_bodies_pass_as_they_arrive_and_other_errors_without_the_key() {
        let quota = r#"{"error":{"message":"quota of sk-***YZ is used up"}}"#;
        let long = format!(r#"{{"error":null,"data":"{}"}}"#, "a".repeat(3 * HELD_BYTES_MAX));
        for (content_type, body, shown) in [
            (Some("application/json"), quota, r#"{"error":{"message":"quota of *** is used up"}}"#),
            (Some("text/event-stream"), "data: {\"x\":\"sk-***YZ\"}\n\n: ping\n\ndata: half", ""),
            (Some("application/json"), &long, ""),
            (Some("audio/mpeg"), "\"error\": invalid api key", ""),
            (None, "", ""),
            (None, "da", ""),
        ] {
            for step in [1, 3, 4096, body.len() + 1] {
                let expected = if shown.is_empty() { body } else { shown };
                assert_eq!(passed(content_type, body, step).unwrap(), expected, "{content_type:?} {step}");
            }
        }
        let headers = vec![("content-type".to_owned(), Bytes::from_static(b"text/event-stream"))];
        let mut filter = ErrorFilter::new(KEY, &headers, |_| Error::new(Kind::Upstream, "refused"));
        let event = Bytes::from_static(b"data: {\"delta\":[]}\n\n");
        let passed = filter.push(event.clone()).unwrap();
        assert_eq!((passed.as_ptr(), passed.len()), (event.as_ptr(), event.len()), "nothing is copied");
    }

    #[test]
    fn every_error_of_a_body_is_replaced_and_nothing_else() {
        for (said, shown) in [
            (r#"{"error":{"message":"bad key","type":"x"}}"#.to_owned(), format!(r#"{{"error":{REFUSED}}}"#)),
            (
                r#"{"error":"bad key","message":"bad key"}"#.into(),
                r#"{"error":"refused","message":"refused"}"#.into(),
            ),
        ] {
            assert_eq!(with_errors(&said, "refused"), Some(shown), "{said}");
        }
        for said in
            ["", "{", "[]", "[1]", r#"{"error":null}"#, "data: {\"error\":null}\n\n", "data: [DONE]\n\n"]
        {
            assert_eq!(with_errors(said, "refused"), None, "{said}");
        }
    }
}
