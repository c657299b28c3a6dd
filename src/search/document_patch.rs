//! Changes of some members of a document; those of its metadata are a JSON merge patch (RFC 7396).

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::value::RawValue;

use super::document::{Document, DocumentRef, METADATA_BYTES_MAX};
use super::values::check_metadata;
use crate::domain::Tag;
use crate::error::{Error, Result};
use crate::raw_object::{RawObject, write_string};

/// New members of a document. A member that is `None` stays as it is.
#[derive(Debug, Clone, Default)]
pub struct DocumentPatch {
    /// A new text; the inner `None` removes the text.
    pub text: Option<Option<String>>,
    /// A new vector, prepared.
    pub vector: Option<Vec<f32>>,
    /// Whether the client brought the new vector.
    pub has_own_vector: bool,
    /// A merge patch of the metadata, as JSON that [`check_metadata`] accepts; `null` removes the metadata.
    pub metadata: Option<String>,
    /// New tags, in the place of the old ones.
    pub tags: Option<Vec<Tag>>,
}

impl DocumentPatch {
    /// About what it takes of memory.
    pub(super) fn bytes(&self) -> usize {
        let text = self.text.iter().flatten().map(String::len).sum::<usize>();
        let vector = self.vector.as_ref().map_or(0, |vector| vector.len() * 4);
        text + vector + self.metadata.as_ref().map_or(0, String::len)
    }

    /// The document with its new members.
    ///
    /// # Errors
    /// `InvalidInput` at `metadata` if the merged metadata exceed their limits.
    pub(super) fn apply(&self, document: &DocumentRef<'_>) -> Result<Document> {
        let mut patched = document.to_document();
        if let Some(text) = &self.text {
            patched.text.clone_from(text);
        }
        if let Some(tags) = &self.tags {
            patched.tags.clone_from(tags);
        }
        if self.vector.is_some() {
            patched.has_own_vector = self.has_own_vector;
        }
        match self.metadata.as_deref() {
            None => {}
            Some("null") => patched.metadata.clear(),
            Some(patch) => patched.metadata = merged(document.metadata, patch)?,
        }
        Ok(patched)
    }
}

/// Metadata with a patch, within their limits.
fn merged(metadata: &str, patch: &str) -> Result<String> {
    let merged = merge(Some(metadata), patch);
    if merged.len() > METADATA_BYTES_MAX {
        let got = merged.len();
        let message =
            format!("metadata must have at most {METADATA_BYTES_MAX} bytes with the patch, got {got}");
        return Err(Error::invalid("metadata", message));
    }
    check_metadata(&merged).map_err(|fault| Error::invalid("metadata", fault))?;
    Ok(merged)
}

/// The function `MergePatch` of RFC 7396, section 2, on text: values that the patch does not name stay as they were written.
///
/// The depth of both texts was checked when they came in.
fn merge(target: Option<&str>, patch: &str) -> String {
    let Some(patch_members) = members(patch) else { return patch.to_owned() };
    let mut merged = MergedObject::default();
    for (name, value) in target.and_then(members).unwrap_or_default() {
        merged.set(name, Some(value.get().into()));
    }
    for (name, value) in patch_members {
        let value = match value.get() {
            "null" => None,
            value => Some(merge(merged.get(&name), value).into()),
        };
        merged.set(name, value);
    }
    merged.to_json()
}

/// The members of an object; none of another value.
fn members(json: &str) -> Option<Vec<(String, &RawValue)>> {
    RawObject::read(json.as_bytes()).map(|object| object.0)
}

/// Members in the order of their first appearance, each with its last value. A removed one has none.
#[derive(Default)]
struct MergedObject<'a> {
    places: HashMap<String, usize>,
    members: Vec<(String, Option<Cow<'a, str>>)>,
}

impl<'a> MergedObject<'a> {
    fn get(&self, name: &str) -> Option<&str> {
        let place = *self.places.get(name)?;
        self.members[place].1.as_deref()
    }

    fn set(&mut self, name: String, value: Option<Cow<'a, str>>) {
        match self.places.get(&name) {
            Some(&place) => self.members[place].1 = value,
            None => {
                self.places.insert(name.clone(), self.members.len());
                self.members.push((name, value));
            }
        }
    }

    fn to_json(&self) -> String {
        let mut json = Vec::from(b"{");
        for (name, value) in &self.members {
            let Some(value) = value else { continue };
            json.extend((json.len() > 1).then_some(b','));
            write_string(&mut json, name);
            json.push(b':');
            json.extend_from_slice(value.as_bytes());
        }
        json.push(b'}');
        String::from_utf8(json).expect("made of strings: this is a bug")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    /// The pseudocode of RFC 7396, section 2.
    fn by_the_rfc(target: Option<Value>, patch: &Value) -> Value {
        let Value::Object(patch) = patch else { return patch.clone() };
        let mut target = match target {
            Some(Value::Object(members)) => members,
            _ => Map::new(),
        };
        for (name, value) in patch {
            if value.is_null() {
                target.remove(name);
            } else {
                let merged = by_the_rfc(target.remove(name), value);
                target.insert(name.clone(), merged);
            }
        }
        Value::Object(target)
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-9..9_i32).prop_map(Value::from),
            prop::sample::select(vec!["", "a", "año\n\"x"]).prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let name = prop::sample::select(vec!["a", "b", "ñ\"", ""]).prop_map(str::to_owned);
            prop_oneof![
                1 => prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                3 => prop::collection::btree_map(name, inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 3_000, ..ProptestConfig::default() })]

        #[test]
        fn a_merge_agrees_with_the_rfc(target in value(), patch in value()) {
            let merged = merge(Some(&target.to_string()), &patch.to_string());
            let merged: Value = serde_json::from_str(&merged).unwrap();
            prop_assert_eq!(merged, by_the_rfc(Some(target), &patch));
        }
    }

    #[test]
    fn the_examples_of_the_rfc() {
        for (target, patch, merged) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, r#"{}"#),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
            (r#"{}"#, r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
            // Of a name that stands twice the last value counts, as filters read it.
            (r#"{"a":1,"a":{"b":2}}"#, r#"{"a":{"c":3}}"#, r#"{"a":{"b":2,"c":3}}"#),
        ] {
            assert_eq!(merge(Some(target), patch), merged);
        }
    }

    #[test]
    fn members_that_a_patch_does_not_name_stay_as_they_were_written() {
        let tag = |name: &str| Tag::named(name).unwrap();
        let metadata = r#"{"n": 12345678901234567890123, "f":1.50,"old":1}"#;
        let document = Document {
            id: "1".into(),
            text: Some("x".into()),
            metadata: metadata.into(),
            tags: vec![tag("a")],
            has_own_vector: false,
        };
        let bytes = document.encode();
        let stored = DocumentRef::decode(&bytes).unwrap();
        assert_eq!(DocumentPatch::default().apply(&stored).unwrap(), document);
        let patch =
            DocumentPatch { metadata: Some(r#"{"old":null,"new":"ñ"}"#.into()), ..DocumentPatch::default() };
        let patched = patch.apply(&stored).unwrap();
        assert_eq!(patched.metadata, r#"{"n":12345678901234567890123,"f":1.50,"new":"ñ"}"#);
        assert_eq!((patched.text, patched.tags), (document.text.clone(), document.tags.clone()));
        let removed = DocumentPatch {
            text: Some(None),
            metadata: Some("null".into()),
            tags: Some(Vec::new()),
            ..DocumentPatch::default()
        };
        assert_eq!(removed.apply(&stored).unwrap(), Document { id: "1".into(), ..Document::default() });
    }

    #[test]
    fn merged_metadata_keep_their_limits() {
        let half = json!({ "a": "x".repeat(METADATA_BYTES_MAX / 2) }).to_string();
        let other = json!({ "b": "x".repeat(METADATA_BYTES_MAX / 2) }).to_string();
        assert!(merged(&half, "{}").is_ok());
        assert_eq!(merged(&half, &other).unwrap_err().param_name(), Some("metadata"));
        let many = |name: &str| json!({ name: vec![0; 600] }).to_string();
        assert_eq!(merged(&many("a"), &many("b")).unwrap_err().param_name(), Some("metadata"));
        assert!(merged(&many("a"), &many("a")).is_ok());
    }
}
