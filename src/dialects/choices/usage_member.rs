//! The member `usage` of chunks, and the option that requests it.

use bytes::Bytes;

use crate::error::Result;
use crate::raw_object::{self, RawObject, members};
use crate::sse::Event;

/// The body of a streaming request with a request for token usage.
///
/// # Errors
/// `InvalidInput` if it is no object.
pub(in crate::dialects) fn with_usage(body: &[u8]) -> Result<Bytes> {
    const OPTIONS: &str = "stream_options";
    const USAGE: &str = "include_usage";
    let members = members(body)?;
    let options = members.get(OPTIONS).filter(|options| options.starts_with('{')).unwrap_or("{}");
    raw_object::with(body, OPTIONS, &raw_object::with(options.as_bytes(), USAGE, b"true")?)
}

/// The event of a chunk without its token usage. `None` if it has none.
pub(in crate::dialects) fn without_usage(event: &Bytes) -> Option<Bytes> {
    const USAGE: &str = "usage";
    // A line break between the members of JSON is a space, and a text contains none.
    let data = Event::read(event.clone()).data?.replace('\n', " ");
    let members = RawObject::read(data.as_bytes())?;
    members.get(USAGE)?;
    let text = std::str::from_utf8(event).ok()?;
    let is_data = |line: &&str| line.trim_start_matches('\u{feff}').starts_with("data:");
    let other = text.split(['\n', '\r']).filter(|line| !line.is_empty() && !is_data(line));
    let mut out = Vec::with_capacity(event.len());
    other.for_each(|line| out.extend_from_slice(format!("{line}\n").as_bytes()));
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(&members.write_without(&[USAGE]));
    out.extend_from_slice(b"\n\n");
    Some(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_is_left_out_and_all_else_stays() {
        let left = |event: &str| {
            let left = without_usage(&event.to_owned().into());
            left.map(|event| String::from_utf8(event.to_vec()).unwrap())
        };
        let rest = r#"{"id":"a","choices":[{"delta":{"content":"\"usage\":null"}}]}"#;
        for usage in ["null", r#"{"total_tokens":1}"#] {
            let chunk = rest.replace("\"}}]}", &format!("\"}}}}],\"usage\":{usage}}}"));
            assert_eq!(left(&format!("data: {chunk}\n\n")), Some(format!("data: {rest}\n\n")));
        }
        let several = "id: 7\nevent: chunk\ndata: {\"usage\":{},\ndata: \"citations\":[1]}\n\n";
        let rest_of_it = "id: 7\nevent: chunk\ndata: {\"citations\":[1]}\n\n";
        assert_eq!(left(several).as_deref(), Some(rest_of_it));
        for data in [rest, "[DONE]", "\"usage\"", r#"{"a":{"usage":null}}"#] {
            assert_eq!(left(&format!("data: {data}\n\n")), None, "{data}");
        }
    }

    #[test]
    fn usage_is_asked_for_beside_the_other_options() {
        let asked = |body: &[u8]| String::from_utf8(with_usage(body).unwrap().to_vec()).unwrap();
        assert_eq!(asked(b"{\"a\":1}"), r#"{"a":1,"stream_options":{"include_usage":true}}"#);
        assert_eq!(
            asked(br#"{"stream_options":{"x":1,"include_usage":false},"a":1}"#),
            r#"{"stream_options":{"x":1,"include_usage":true},"a":1}"#
        );
        assert_eq!(asked(b"{\"stream_options\":null}"), r#"{"stream_options":{"include_usage":true}}"#);
    }
}
