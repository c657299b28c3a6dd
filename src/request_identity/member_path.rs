//! The path of a member of a request, as an operator writes it.

use serde::{Deserialize, Serialize};

use super::json::Json;
use crate::error::{Error, Kind, Result};

/// The longest path, in bytes.
const BYTES_MAX: usize = 256;

/// Members that say what is asked, of whom, with which tools, and in which form: without them two questions would be one.
const ALWAYS_COUNT: [&str; 27] = [
    "audio",
    "background",
    "best_of",
    "container",
    "conversation",
    "echo",
    "functions",
    "include",
    "input",
    "instructions",
    "logprobs",
    "mcp_servers",
    "messages",
    "modalities",
    "model",
    "n",
    "previous_response_id",
    "prompt",
    "response_format",
    "store",
    "suffix",
    "system",
    "text",
    "thinking",
    "tool_choice",
    "tools",
    "top_logprobs",
];

/// Names of members, from the request's own down, with a dot between them: `metadata.trace_id`. A list on the way stands for each of its
/// elements. Characters of a name may be percent-encoded (RFC 3986, section 2.1), as they are in `x-likewise-differs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MemberPath(Vec<String>);

impl MemberPath {
    /// Reads a path.
    ///
    /// # Errors
    /// `Config` for a path with an empty name, or with characters that belong to other notations; for one of more than 256 bytes, and for one
    /// below a member that says what is asked.
    pub fn parse(path: &str) -> Result<MemberPath> {
        let fault = |message: String| Err(Error::new(Kind::Config, message));
        if path.len() > BYTES_MAX {
            return fault(format!(
                "the path of a member must have at most {BYTES_MAX} bytes, got {}",
                path.len()
            ));
        }
        let is_foreign = |c: char| c.is_whitespace() || c.is_control() || "[]\"'@:,".contains(c);
        let names: Option<Vec<String>> = path.split('.').map(decoded).collect();
        let names = names.filter(|names| !names.iter().any(String::is_empty) && !path.contains(is_foreign));
        let Some(names) = names else {
            return fault(format!(
                "the path of a member is names with a dot between them, such as metadata.trace_id, got {path:?}"
            ));
        };
        if ALWAYS_COUNT.contains(&names[0].as_str()) {
            return fault(format!("{path:?} says what is asked and cannot be ignored"));
        }
        Ok(MemberPath(names))
    }

    /// Removes the member from a request, if it has it.
    pub fn remove_from(&self, request: &mut Json<'_>) {
        if let [on_the_way @ .., last] = self.0.as_slice() {
            remove(request, on_the_way, last);
        }
    }
}

/// A name without its percent-encoding. `None` if that cannot be read.
fn decoded(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = behind;
            continue;
        }
        let (digits, behind) = behind.split_first_chunk::<2>()?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        bytes.push((digit(digits[0])? * 16 + digit(digits[1])?) as u8);
        rest = behind;
    }
    String::from_utf8(bytes).ok()
}

fn remove(value: &mut Json<'_>, on_the_way: &[String], last: &str) {
    match (value, on_the_way) {
        (Json::List(elements), _) => {
            elements.iter_mut().for_each(|element| remove(element, on_the_way, last));
        }
        (object @ Json::Object(_), [next, rest @ ..]) => {
            let Some(member) = object.get_mut(next) else { return };
            let was_empty = *member == Json::Object(Vec::new());
            remove(member, rest, last);
            // A request that has no other member there says the same as one without.
            if !was_empty && *member == Json::Object(Vec::new()) {
                object.take(next);
            }
        }
        (object @ Json::Object(_), []) => _ = object.take(last),
        (Json::Null | Json::Bool(_) | Json::Integer(_) | Json::Float(_) | Json::Text(_), _) => {}
    }
}

impl TryFrom<String> for MemberPath {
    type Error = Error;

    fn try_from(path: String) -> Result<MemberPath> {
        MemberPath::parse(&path)
    }
}

impl From<MemberPath> for String {
    fn from(MemberPath(names): MemberPath) -> String {
        let is_plain = |c: char| c.is_alphanumeric() || "_-$/".contains(c);
        let mut path = String::new();
        for name in &names {
            if !path.is_empty() {
                path.push('.');
            }
            for c in name.chars() {
                if is_plain(c) {
                    path.push(c);
                } else {
                    let mut bytes = [0; 4];
                    c.encode_utf8(&mut bytes).bytes().for_each(|byte| path.push_str(&format!("%{byte:02X}")));
                }
            }
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without(path: &str, request: &str) -> String {
        let mut json = Json::parse(request.as_bytes()).unwrap();
        MemberPath::parse(path).unwrap().remove_from(&mut json);
        String::from_utf8(json.canonical()).unwrap()
    }

    #[test]
    fn a_path_removes_the_member_that_it_names_and_no_other() {
        for (path, request, expected) in [
            ("user", r#"{"user":"a","b":{"user":1}}"#, r#"{"b":{"user":1}}"#),
            (
                "metadata.trace_id",
                r#"{"metadata":{"trace_id":"a","shop":1},"trace_id":2}"#,
                r#"{"metadata":{"shop":1},"trace_id":2}"#,
            ),
            ("metadata.trace_id", r#"{"a":1,"metadata":{"trace_id":"a"}}"#, r#"{"a":1}"#),
            ("metadata.trace_id", r#"{"metadata":{}}"#, r#"{"metadata":{}}"#),
            ("a.b.c", r#"{"a":{"b":{"c":1}}}"#, "{}"),
            ("a.b", r#"{"a":[{"b":1,"c":2},{"b":3},[{"b":4}],5]}"#, r#"{"a":[{"c":2},{},[{}],5]}"#),
            ("a.b", r#"{"a":"b"}"#, r#"{"a":"b"}"#),
            ("a", "7", "7"),
        ] {
            assert_eq!(without(path, request), expected, "{path} of {request}");
        }
    }

    #[test]
    fn what_is_asked_cannot_be_ignored() {
        for path in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "messages",
            "messages.content",
            "model",
            "input.id",
            "tools",
            "n",
            "store",
            "[user]",
            "a[0].b",
            "a@3",
            "header:x",
            "a b",
            "\"a\"",
            "a%2",
            "a%zz",
            "a%ff",
            "a,b",
        ] {
            assert!(MemberPath::parse(path).is_err(), "{path:?}");
        }
        assert_eq!(without("metadata.a%C3%B1o", r#"{"b":1,"metadata":{"año":1}}"#), r#"{"b":1}"#);
        assert_eq!(without("metadata.a%2Eb", r#"{"b":1,"metadata":{"a.b":1}}"#), r#"{"b":1}"#);
        assert!(MemberPath::parse(&"a".repeat(257)).is_err() && MemberPath::parse(&"a".repeat(256)).is_ok());
        assert_eq!(String::from(MemberPath::parse("a.b%20c.d").unwrap()), "a.b%20c.d");
    }
}
