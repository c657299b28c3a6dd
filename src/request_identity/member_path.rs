//! The path of a member of a request, as an operator writes it.

use serde::{Deserialize, Serialize};

use super::json::Json;
use crate::error::{Error, Kind, Result};

/// The longest path, in bytes.
const BYTES_MAX: usize = 256;

/// Members that say what is asked, of whom, and with which tools: without them two questions would be one.
const ALWAYS_COUNT: [&str; 15] = [
    "background",
    "container",
    "conversation",
    "functions",
    "input",
    "instructions",
    "mcp_servers",
    "messages",
    "model",
    "previous_response_id",
    "prompt",
    "suffix",
    "system",
    "tool_choice",
    "tools",
];

/// Names of members, from the request's own down, with a dot between them: `metadata.trace_id`. A list on the way stands for each of its
/// elements.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MemberPath(Vec<String>);

impl MemberPath {
    /// Reads a path.
    ///
    /// # Errors
    /// `Config` for a path with an empty name, for one of more than 256 bytes, and for one below a member that says what is asked.
    pub fn parse(path: &str) -> Result<MemberPath> {
        let names: Vec<String> = path.split('.').map(str::to_owned).collect();
        let fault = |message: String| Err(Error::new(Kind::Config, message));
        if path.len() > BYTES_MAX {
            return fault(format!(
                "the path of a member must have at most {BYTES_MAX} bytes, got {}",
                path.len()
            ));
        }
        if names.iter().any(String::is_empty) {
            return fault(format!("the path of a member is names with a dot between them, got {path:?}"));
        }
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
        names.join(".")
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
        for path in
            ["", ".", "a.", ".a", "a..b", "messages", "messages.content", "model", "input.id", "tools"]
        {
            assert!(MemberPath::parse(path).is_err(), "{path:?}");
        }
        assert!(MemberPath::parse(&"a".repeat(257)).is_err() && MemberPath::parse(&"a".repeat(256)).is_ok());
        assert_eq!(String::from(MemberPath::parse("a.b c.d").unwrap()), "a.b c.d");
    }
}
