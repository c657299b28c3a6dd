//! A JSON object whose values are kept as text: a member that is not understood is passed on unchanged.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::{Error, Kind, Result};

/// An object's members, in their order, each value as its text.
pub struct RawObject<'a>(pub(crate) Vec<(String, &'a RawValue)>);

impl<'a> RawObject<'a> {
    /// Reads an object. `None` if the text is none.
    pub(crate) fn read(text: &'a [u8]) -> Option<RawObject<'a>> {
        serde_json::from_slice(text).ok()
    }

    /// The text of a member.
    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
        self.value(name).map(RawValue::get)
    }

    /// The value of a member.
    pub(crate) fn value(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    /// Where the value of a member stands in the text that the object was read from.
    fn place(&self, text: &[u8], at: usize) -> Range<usize> {
        let value = self.0[at].1.get();
        let begin = value.as_ptr() as usize - text.as_ptr() as usize;
        begin..begin + value.len()
    }

    /// The object without some members.
    pub(crate) fn write_without(&self, names: &[&str]) -> Vec<u8> {
        let kept = self.0.iter().filter(|(name, _)| !names.contains(&name.as_str()));
        write_object(kept.map(|(name, value)| (name.as_str(), value.get())))
    }

    /// The object with the JSON of each member as `value_of` its name and its JSON returns it.
    pub(crate) fn write_with<'v>(&'v self, value_of: impl Fn(&str, &'v str) -> &'v str) -> Vec<u8> {
        write_object(self.0.iter().map(|(name, value)| (name.as_str(), value_of(name, value.get()))))
    }
}

/// Members, as names with their JSON, as an object.
pub(crate) fn write_object<'m>(members: impl Iterator<Item = (&'m str, &'m str)>) -> Vec<u8> {
    let mut out = Vec::new();
    members.for_each(|(name, value)| write_member(&mut out, name, value));
    match out.first_mut() {
        Some(comma) => *comma = b'{',
        None => out.push(b'{'),
    }
    out.push(b'}');
    out
}

/// JSON without line breaks, as an event of a stream needs it: between two tokens a break is a space, and a string contains none.
pub(crate) fn on_one_line(mut json: Vec<u8>) -> Vec<u8> {
    json.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
    json
}

/// Writes a member behind a comma; `value` is its JSON.
pub(crate) fn write_member(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(b',');
    write_string(out, name);
    out.push(b':');
    out.extend_from_slice(value.as_bytes());
}

/// Writes text as JSON.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string is valid JSON: this is a bug");
}

impl<'de: 'a, 'a> Deserialize<'de> for RawObject<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawObject<'a>, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = RawObject<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawObject<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    members.push((name, map.next_value()?));
                }
                Ok(RawObject(members))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// The text of an object without the member `name`; every other byte of it stays.
///
/// # Errors
/// `InvalidInput` if it is no object.
pub(crate) fn without(text: &[u8], name: &str) -> Result<Bytes> {
    let object = members(text)?;
    let Some(at) = object.0.iter().position(|(known, _)| known == name) else {
        return Ok(Bytes::copy_from_slice(text));
    };
    let (mut begin, mut end) = match at.checked_sub(1) {
        Some(before) => (object.place(text, before).end, object.place(text, at).end),
        None => (opening(text), object.place(text, at).end),
    };
    if at == 0 && object.0.len() > 1 {
        // The comma behind it goes with it, and the space before it stays.
        let is_space = |byte: &u8| byte.is_ascii_whitespace();
        begin += text[begin..].iter().take_while(|byte| is_space(byte)).count();
        end += text[end..].iter().take_while(|byte| **byte != b',').count() + 1;
        end += text[end..].iter().take_while(|byte| is_space(byte)).count();
    }
    Ok([&text[..begin], &text[end..]].concat().into())
}

/// The text of an object in which the member `name` has a value, given as JSON: in place of the one that it has, or behind all members.
/// Every other byte of it stays.
///
/// # Errors
/// `InvalidInput` if it is no object.
pub(crate) fn with(text: &[u8], name: &str, value: &[u8]) -> Result<Bytes> {
    let object = members(text)?;
    if let Some(at) = object.0.iter().position(|(known, _)| known == name) {
        let place = object.place(text, at);
        return Ok([&text[..place.start], value, &text[place.end..]].concat().into());
    }
    let mut member = Vec::with_capacity(name.len() + value.len() + 4);
    write_string(&mut member, name);
    member.push(b':');
    member.extend_from_slice(value);
    Ok(match object.0.len().checked_sub(1) {
        Some(last) => {
            let end = object.place(text, last).end;
            [&text[..end], b",", &member, &text[end..]].concat().into()
        }
        None => [&text[..opening(text)], &member, &text[opening(text)..]].concat().into(),
    })
}

/// The members of an object.
///
/// # Errors
/// `InvalidInput` if it is none.
pub(crate) fn members(text: &[u8]) -> Result<RawObject<'_>> {
    RawObject::read(text).ok_or_else(|| Error::new(Kind::InvalidInput, "the body must be a JSON object"))
}

/// The place behind the brace that opens an object.
fn opening(text: &[u8]) -> usize {
    text.iter().take_while(|byte| **byte != b'{').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: Result<Bytes>) -> String {
        String::from_utf8(bytes.unwrap().to_vec()).unwrap()
    }

    #[test]
    fn what_stays_is_untouched() {
        for (body, expected) in [
            (
                r#" { "b": 1.50, "cache": {"ttl": 1}, "a" : [ 1e2 , "\u00e9" ] }"#,
                r#" { "b": 1.50, "a" : [ 1e2 , "\u00e9" ] }"#,
            ),
            ("{\n  \"cache\" : 1 ,\n  \"a\": 2\n}", "{\n  \"a\": 2\n}"),
            (r#"{"a":{"cache":1} , "cache":[1,2] }"#, r#"{"a":{"cache":1} }"#),
            (r#"{"\u0063ache":"}{,","a":1}"#, r#"{"a":1}"#),
            (r#"{ "cache":1 }"#, "{ }"),
            (r#"{"cache":1}"#, "{}"),
            (r#"{ "a": 1 }"#, r#"{ "a": 1 }"#),
        ] {
            assert_eq!(text(without(body.as_bytes(), "cache")), expected, "{body}");
        }
        assert_eq!(without(b"[]", "cache").unwrap_err().kind(), Kind::InvalidInput);
    }

    #[test]
    fn a_member_is_set_in_its_place() {
        for (body, expected) in [
            (r#"{ "a" : 1 , "b":2 }"#, r#"{ "a" : true , "b":2 }"#),
            (r#"{ "b":2 }"#, r#"{ "b":2,"a":true }"#),
            ("{ }", r#"{"a":true }"#),
        ] {
            assert_eq!(text(with(body.as_bytes(), "a", b"true")), expected, "{body}");
        }
        assert_eq!(with(b"7", "a", b"true").unwrap_err().kind(), Kind::InvalidInput);
    }
}
