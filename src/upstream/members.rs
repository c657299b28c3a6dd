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
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.get())
    }

    /// The object without some members.
    pub(super) fn write_without(&self, names: &[&str]) -> Vec<u8> {
        let kept = self.0.iter().filter(|(name, _)| !names.contains(&name.as_str()));
        let mut out = vec![b'{'];
        for (place, (name, value)) in kept.enumerate() {
            if place > 0 {
                out.push(b',');
            }
            serde_json::to_writer(&mut out, name).expect("a string is valid JSON: this is a bug");
            out.push(b':');
            out.extend_from_slice(value.get().as_bytes());
        }
        out.push(b'}');
        out
    }
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

/// The event of a chunk that says of what was used only that it is not known yet, without saying so; none for any other.
pub fn without_empty_usage(event: &Bytes) -> Option<Bytes> {
    const USAGE: &str = "usage";
    // Data of several lines would need each of them marked.
    let data = Event::read(event.clone()).data.filter(|data| !data.contains('\n'))?;
    let members = Members::read(data.as_bytes())?;
    (members.get(USAGE)? == "null").then_some(())?;
    Some([b"data: ", &members.write_without(&[USAGE])[..], b"\n\n"].concat().into())
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
    fn a_usage_that_is_not_known_yet_is_left_out() {
        let told = |data: &str| {
            let told = without_empty_usage(&format!("data: {data}\n\n").into());
            told.map(|event| String::from_utf8(event.to_vec()).unwrap())
        };
        let chunk = r#"{"id":"a","choices":[{"delta":{"content":"\"usage\":null"}}],"usage":null}"#;
        let rest = r#"{"id":"a","choices":[{"delta":{"content":"\"usage\":null"}}]}"#;
        assert_eq!(told(chunk), Some(format!("data: {rest}\n\n")));
        for data in [
            rest,
            r#"{"usage":{"total_tokens":1}}"#,
            "[DONE]",
            "\"usage\"",
            r#"{"a":{"usage":null}}"#,
            "{\ndata: \"usage\":null}",
        ] {
            assert_eq!(told(data), None, "{data}");
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
