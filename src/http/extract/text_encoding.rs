//! In which encoding a JSON text was sent. RFC 8259, section 8.1, allows UTF-8 only, and lets a reader skip a byte order
//! mark.

use bytes::{Buf as _, Bytes};

use crate::error::{Error, Kind};

/// The byte order mark of UTF-8.
pub(super) const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";

/// A body without the byte order mark before it. Copies nothing.
pub(in crate::http) fn without_mark(mut body: Bytes) -> Bytes {
    if body.starts_with(UTF8_MARK) {
        body.advance(UTF8_MARK.len());
    }
    body
}

/// Why a body that cannot be read as JSON cannot be: none if its encoding is right.
pub(in crate::http) fn fault(body: &[u8]) -> Option<Error> {
    let message = |encoding| format!("the body is {encoding}, but JSON is sent as UTF-8");
    of(body).map(|encoding| Error::new(Kind::InvalidInput, message(encoding)))
}

/// The encoding of a JSON text that is not UTF-8, by its mark, or by where its first characters have zeros: both are
/// ASCII in any JSON object or list (RFC 4627, section 3). None if it may be UTF-8.
fn of(body: &[u8]) -> Option<&'static str> {
    match body {
        [0xff, 0xfe, 0, 0, ..] | [1..=0xff, 0, 0, 0, ..] => Some("UTF-32, little endian"),
        [0, 0, 0xfe, 0xff, ..] | [0, 0, 0, 1..=0xff, ..] => Some("UTF-32, big endian"),
        [0xff, 0xfe, ..] | [1..=0xff, 0, ..] => Some("UTF-16, little endian"),
        [0xfe, 0xff, ..] | [0, 1..=0xff, ..] => Some("UTF-16, big endian"),
        [0x1f, 0x8b, ..] => Some("compressed by gzip without a `content-encoding`"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("compressed by zstd without a `content-encoding`"),
        _ if std::str::from_utf8(body).is_err() => Some("not UTF-8"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_detected_by_marks_and_zeros() {
        let wide = |text: &str, to: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(to).collect::<Vec<u8>>();
        for text in ["{}", "\u{feff}{}", "[1]"] {
            assert_eq!(of(&wide(text, u16::to_le_bytes)), Some("UTF-16, little endian"), "{text}");
            let swapped = |unit: u16| unit.swap_bytes().to_le_bytes();
            assert_eq!(of(&wide(text, swapped)), Some("UTF-16, big endian"), "{text}");
            let wider: Vec<u8> = text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
            assert_eq!(of(&wider), Some("UTF-32, little endian"), "{text}");
            let wider: Vec<u8> = text.chars().flat_map(|c| u32::from(c).swap_bytes().to_le_bytes()).collect();
            assert_eq!(of(&wider), Some("UTF-32, big endian"), "{text}");
        }
        assert_eq!(of(b"{\"a\": \"caf\xe9\"}"), Some("not UTF-8"));
        for body in ["", "{", "{\"a\"", "\u{feff}{"] {
            assert_eq!(of(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn one_mark_is_taken_off() {
        assert_eq!(without_mark(Bytes::from_static(b"\xef\xbb\xbf{}")), "{}");
        assert_eq!(without_mark(Bytes::from_static(b"{}")), "{}");
        assert_eq!(without_mark(Bytes::from_static(b"\xef\xbb")), &b"\xef\xbb"[..]);
    }
}
