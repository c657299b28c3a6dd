//! The members of a JSON object whose names are all known.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, DeserializeSeed, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::text_encoding;

/// Members by name, as they came.
pub(in crate::http) type KnownMembers = BTreeMap<String, Box<RawValue>>;

/// The members of an object, if each has one of these names and none is repeated. The first other one ends the reading, so that no more
/// members are held than there are names.
pub(in crate::http) fn known_members(body: &[u8], names: &[&str]) -> Option<KnownMembers> {
    let body = body.strip_prefix(text_encoding::UTF8_MARK).unwrap_or(body);
    let mut json = serde_json::Deserializer::from_slice(body);
    let members = MembersOf(names).deserialize(&mut json).ok()?;
    json.end().ok().map(|()| members)
}

struct MembersOf<'a>(&'a [&'a str]);

impl<'de> DeserializeSeed<'de> for MembersOf<'_> {
    type Value = KnownMembers;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<KnownMembers, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MembersOf<'_> {
    type Value = KnownMembers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of known members")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<KnownMembers, A::Error> {
        let mut members = KnownMembers::new();
        while let Some(name) = map.next_key::<String>()? {
            if !self.0.contains(&name.as_str()) || members.contains_key(&name) {
                return Err(de::Error::custom("a member is unknown or repeated"));
            }
            members.insert(name, map.next_value()?);
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_if_all_are_known() {
        let read = |body: &str| known_members(body.as_bytes(), &["a", "b"]);
        let members = read("\u{feff} {\"b\": [1, 2], \"a\": null}").unwrap();
        assert_eq!((members["a"].get(), members["b"].get()), ("null", "[1, 2]"));
        for body in [r#"{"a": 1, "c": 2}"#, r#"{"a": 1, "a": 1}"#, r#"{"a": 1} x"#, "[]", "7", ""] {
            assert!(read(body).is_none(), "{body}");
        }
        assert!(read(r#"{"c": what follows is not even JSON"#).is_none());
    }
}
