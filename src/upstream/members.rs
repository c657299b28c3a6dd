//! The members of a JSON object as they were written: what is not understood is passed on untouched.

use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::events::Event;
use crate::error::{Error, Kind, Result};

/// An object's members, in their order, each value as its text.
pub(super) struct Members<'a>(pub(super) Vec<(String, &'a RawValue)>);

impl<'a> Members<'a> {
    /// The members of an object; none if the text is no object.
    pub(super) fn read(text: &'a [u8]) -> Option<Members<'a>> {
        serde_json::from_slice(text).ok()
    }

    /// The text of a member.
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.value(name).map(RawValue::get)
    }

    /// The value of a member.
    pub(super) fn value(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    /// The object without some members.
    pub(super) fn write_without(&self, names: &[&str]) -> Vec<u8> {
        let kept = self.0.iter().filter(|(name, _)| !names.contains(&name.as_str()));
        let mut out = Vec::new();
        kept.for_each(|(name, value)| write_member(&mut out, name, value.get()));
        match out.first_mut() {
            Some(comma) => *comma = b'{',
            None => out.push(b'{'),
        }
        out.push(b'}');
        out
    }
}

/// Writes a member behind a comma; `value` is its JSON.
pub(super) fn write_member(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(b',');
    write_value(out, name);
    out.push(b':');
    out.extend_from_slice(value.as_bytes());
}

/// Writes text as JSON.
pub(super) fn write_value(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string is valid JSON: this is a bug");
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members<'a>, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    members.push((name, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

fn members(body: &[u8]) -> Result<Members<'_>> {
    Members::read(body).ok_or_else(|| Error::new(Kind::InvalidInput, "the body is not a JSON object"))
}

/// The body of a request without the member `name`.
///
/// # Errors
/// `InvalidInput` if it is no object.
pub fn without(body: &[u8], name: &str) -> Result<Bytes> {
    Ok(members(body)?.write_without(&[name]).into())
}

/// The body of a streaming request, asking that the stream ends with what it used.
///
/// # Errors
/// `InvalidInput` if it is no object.
pub fn with_usage(body: &[u8]) -> Result<Bytes> {
    const OPTIONS: &str = "stream_options";
    const USAGE: &str = "include_usage";
    let members = members(body)?;
    let options = members.get(OPTIONS).and_then(|text| Members::read(text.as_bytes()));
    let mut options = options.map_or_else(|| b"{}".to_vec(), |options| options.write_without(&[USAGE]));
    append(&mut options, USAGE, b"true");
    let mut body = members.write_without(&[OPTIONS]);
    append(&mut body, OPTIONS, &options);
    Ok(body.into())
}

/// The event of a chunk without what was used; none if the event does not say it.
pub fn without_usage(event: &Bytes) -> Option<Bytes> {
    const USAGE: &str = "usage";
    // Between the members of JSON a line's end is a space, and within text there is none.
    let data = Event::read(event.clone()).data?.replace('\n', " ");
    let members = Members::read(data.as_bytes())?;
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

/// Adds a member at the end of an object.
fn append(object: &mut Vec<u8>, name: &str, value: &[u8]) {
    object.pop();
    if object.len() > 1 {
        object.push(b',');
    }
    object.extend_from_slice(format!("\"{name}\":").as_bytes());
    object.extend_from_slice(value);
    object.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_is_untouched() {
        let body = br#"{ "b": 1.50, "cache": {"ttl": 1}, "a" : [ 1e2 , "\u00e9" ] }"#;
        assert_eq!(&without(body, "cache").unwrap()[..], r#"{"b":1.50,"a":[ 1e2 , "\u00e9" ]}"#.as_bytes());
        assert_eq!(&without(b"{\"cache\":1}", "cache").unwrap()[..], b"{}");
        assert_eq!(without(b"[]", "cache").unwrap_err().kind(), Kind::InvalidInput);
    }

    #[test]
    fn what_was_used_is_left_out_and_all_else_stays() {
        let told = |event: &str| {
            let told = without_usage(&event.to_owned().into());
            told.map(|event| String::from_utf8(event.to_vec()).unwrap())
        };
        let rest = r#"{"id":"a","choices":[{"delta":{"content":"\"usage\":null"}}]}"#;
        for usage in ["null", r#"{"total_tokens":1}"#] {
            let chunk = rest.replace("\"}}]}", &format!("\"}}}}],\"usage\":{usage}}}"));
            assert_eq!(told(&format!("data: {chunk}\n\n")), Some(format!("data: {rest}\n\n")));
        }
        let several = "id: 7\nevent: chunk\ndata: {\"usage\":{},\ndata: \"citations\":[1]}\n\n";
        let left = "id: 7\nevent: chunk\ndata: {\"citations\":[1]}\n\n";
        assert_eq!(told(several).as_deref(), Some(left));
        for data in [rest, "[DONE]", "\"usage\"", r#"{"a":{"usage":null}}"#] {
            assert_eq!(told(&format!("data: {data}\n\n")), None, "{data}");
        }
    }

    #[test]
    fn usage_is_asked_for_beside_the_other_options() {
        let asked = |body: &[u8]| String::from_utf8(with_usage(body).unwrap().to_vec()).unwrap();
        assert_eq!(asked(b"{\"a\":1}"), r#"{"a":1,"stream_options":{"include_usage":true}}"#);
        assert_eq!(
            asked(br#"{"stream_options":{"x":1,"include_usage":false},"a":1}"#),
            r#"{"a":1,"stream_options":{"x":1,"include_usage":true}}"#
        );
        assert_eq!(asked(b"{\"stream_options\":null}"), r#"{"stream_options":{"include_usage":true}}"#);
    }
}
