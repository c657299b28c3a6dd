//! A JSON object whose values are kept as text: a member that is not understood is passed on unchanged.

use std::fmt;

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

/// The members of the body of a request.
///
/// # Errors
/// `InvalidInput` if it is no object.
pub(crate) fn members(body: &[u8]) -> Result<RawObject<'_>> {
    RawObject::read(body).ok_or_else(|| Error::new(Kind::InvalidInput, "the body must be a JSON object"))
}

/// The body of a request without the member `name`.
///
/// # Errors
/// `InvalidInput` if it is no object.
pub(crate) fn without(body: &[u8], name: &str) -> Result<Bytes> {
    Ok(members(body)?.write_without(&[name]).into())
}

/// Adds a member at the end of an object.
pub(crate) fn append(object: &mut Vec<u8>, name: &str, value: &[u8]) {
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
}
