//! Server-sent events (WHATWG HTML, section 9.2), cut at their blank lines and otherwise left as they came.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

/// Types of events that keep a connection open.
const PINGS: [&str; 4] = ["ping", "keepalive", "keep-alive", "heartbeat"];

/// Cuts a stream of bytes into events.
#[derive(Debug, Default)]
pub struct Events {
    buffer: BytesMut,
    /// Where the line begins that has been looked at last.
    line: usize,
    /// How far that line has been looked at.
    seen: usize,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its bytes, the blank line included.
    pub bytes: Bytes,
    /// Its data; none for comments and for empty data, which the SSE specification ignores.
    pub data: Option<String>,
    /// Whether its type says that something has gone wrong.
    pub is_error: bool,
    /// Whether its type says that it only keeps the connection open.
    pub is_ping: bool,
    /// Whether it is not UTF-8, so that its data is not what was meant.
    pub is_garbled: bool,
}

impl Events {
    /// Adds what has come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole event.
    pub fn next_event(&mut self) -> Option<Event> {
        let end = self.boundary()?;
        (self.line, self.seen) = (0, 0);
        Some(Event::read(self.buffer.split_to(end).freeze()))
    }

    /// What is left at the end of the stream. The standard drops an event without its blank line; clients of models do not
    /// miss the line behind the last one, and some models leave it out.
    pub fn last_event(&mut self) -> Option<Event> {
        let rest = self.rest();
        (!rest.is_empty()).then(|| Event::read(rest))
    }

    /// The bytes that are no whole event.
    pub fn rest(&mut self) -> Bytes {
        (self.line, self.seen) = (0, 0);
        self.buffer.split().freeze()
    }

    /// How many bytes have come that are no whole event yet.
    pub fn unread_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Where the first event ends: behind its blank line. Lines end in LF, CR or both.
    fn boundary(&mut self) -> Option<usize> {
        loop {
            let rest = &self.buffer[self.line..];
            let unseen = &rest[self.seen..];
            let Some(end) = unseen.iter().position(|&byte| byte == b'\n' || byte == b'\r') else {
                self.seen = rest.len();
                return None;
            };
            let end = self.seen + end;
            let next = match (rest[end], rest.get(end + 1)) {
                (b'\r', Some(b'\n')) => end + 2,
                // The LF of this CR may not have come yet.
                (b'\r', None) => return None,
                _ => end + 1,
            };
            self.line += next;
            self.seen = 0;
            if end == 0 {
                return Some(self.line);
            }
        }
    }
}

/// Whether a body begins as a stream of events does, and no JSON and no page: with a field or a comment; none if too little
/// has come to say.
pub fn begins_events(body: &[u8]) -> Option<bool> {
    const BEGINNINGS: [&[u8]; 5] = [b"data:", b"event:", b"id:", b"retry:", b":"];
    const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body).trim_ascii_start();
    if BEGINNINGS.iter().any(|beginning| body.starts_with(beginning)) {
        return Some(true);
    }
    let may_begin = |beginning: &&[u8]| beginning.starts_with(body);
    let may_go_on = BEGINNINGS.iter().any(may_begin) || BYTE_ORDER_MARK.starts_with(body);
    if may_go_on { None } else { Some(false) }
}

impl Event {
    /// Reads one event, its blank line included.
    pub fn read(bytes: Bytes) -> Event {
        let text = String::from_utf8_lossy(&bytes);
        let data = field(&text, "data:").collect::<Vec<_>>().join("\n");
        let name = field(&text, "event:").last();
        Event {
            data: (!data.is_empty()).then_some(data),
            is_error: name == Some("error"),
            is_ping: name.is_some_and(|name| PINGS.contains(&name)),
            is_garbled: matches!(text, Cow::Owned(_)),
            bytes: bytes.clone(),
        }
    }
}

/// The values of a field of an event, line by line.
fn field<'a>(event: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let lines = event.split(['\n', '\r']).map(|line| line.trim_start_matches('\u{feff}'));
    let values = lines.filter_map(move |line| line.strip_prefix(name));
    values.map(|value| value.strip_prefix(' ').unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data of all events and what is left, where the stream comes in pieces of `step` bytes.
    fn cut(stream: &[u8], step: usize) -> (Vec<Option<String>>, Vec<u8>, Bytes) {
        let mut events = Events::default();
        let (mut found, mut bytes) = (Vec::new(), Vec::new());
        for piece in stream.chunks(step) {
            events.push(piece);
            while let Some(event) = events.next_event() {
                bytes.extend_from_slice(&event.bytes);
                found.push(event.data);
            }
        }
        (found, bytes, events.rest())
    }

    #[test]
    fn the_last_event_needs_no_blank_line() {
        let mut events = Events::default();
        events.push(b"data: a\n\ndata: [DONE]\r\n");
        assert_eq!(events.next_event().unwrap().data.as_deref(), Some("a"));
        assert_eq!(events.next_event(), None);
        let last = events.last_event().unwrap();
        assert_eq!((last.data.as_deref(), &last.bytes[..]), (Some("[DONE]"), &b"data: [DONE]\r\n"[..]));
        assert_eq!(events.last_event(), None);
    }

    #[test]
    fn what_is_not_utf_8_is_passed_on_and_known() {
        let mut events = Events::default();
        events.push(b"data: \xc3\xb1\n\ndata: \xc3\n\n");
        let found: Vec<Event> = std::iter::from_fn(|| events.next_event()).collect();
        assert_eq!(found.iter().map(|event| event.is_garbled).collect::<Vec<_>>(), [false, true]);
        assert_eq!(&found[1].bytes[..], b"data: \xc3\n\n");
    }

    #[test]
    fn an_event_of_the_type_error_is_one() {
        let mut events = Events::default();
        events.push(
            b"event: error\ndata: {}\n\nevent: chunk\ndata: error\n\ndata: event: error\n\nevent:error\n\n",
        );
        let found: Vec<Event> = std::iter::from_fn(|| events.next_event()).collect();
        assert_eq!(found.iter().map(|event| event.is_error).collect::<Vec<_>>(), [true, false, false, true]);
    }

    #[test]
    fn pings_are_known_by_their_type() {
        let is_ping = |event: &'static [u8]| Event::read(Bytes::from_static(event)).is_ping;
        for ping in [&b"event: ping\ndata: {}\n\n"[..], b"event: ping\n\n", b"data: {}\nevent: heartbeat\n\n"]
        {
            assert!(is_ping(ping), "{ping:?}");
        }
        for other in [&b"event: pong\ndata: {}\n\n"[..], b"data: {\"type\":\"ping\"}\n\n", b": ping\n\n"] {
            assert!(!is_ping(other), "{other:?}");
        }
    }

    #[test]
    fn a_body_of_events_is_known_by_its_beginning() {
        for body in ["data: x", "event:x", ": ping", "\r\n\ndata:", "\u{feff}data:", "id: 1", "retry: 5"] {
            assert_eq!(begins_events(body.as_bytes()), Some(true), "{body}");
        }
        for body in ["{\"data:\"", "<html>", "date: x", "[]", "e:", "\u{feff}{"] {
            assert_eq!(begins_events(body.as_bytes()), Some(false), "{body}");
        }
        for body in ["", "\n", "da", "event", "\u{feff}", "\u{feff}dat"] {
            assert_eq!(begins_events(body.as_bytes()), None, "{body}");
        }
        assert_eq!(begins_events(b"\xef\xbb"), None);
    }

    #[test]
    fn events_are_the_same_however_the_bytes_come() {
        let stream = b"data: {\"a\":1}\n\n: ping\n\ndata:\n\ndata:x\r\n\r\nevent: e\rdata: y\rdata: z\r\rdata: \xc3\xb1\n\ndata: cut";
        let expected = [Some("{\"a\":1}"), None, None, Some("x"), Some("y\nz"), Some("ñ")]
            .map(|data| data.map(String::from));
        for step in 1..=stream.len() {
            let (found, bytes, rest) = cut(stream, step);
            assert_eq!(found, expected, "in pieces of {step}");
            assert_eq!(&rest[..], b"data: cut");
            assert_eq!([&bytes[..], &rest[..]].concat(), stream, "nothing is lost");
        }
    }
}
