//! Which field of an input an error is about.

use std::borrow::Cow;
use std::fmt;

/// A step from an input, or from one of its fields, to a field within it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum PathStep {
    Field(Cow<'static, str>),
    Element(usize),
}

/// The path of a field in the input of a use case, such as `documents[3].text`. Use cases name the fields of their own types; who calls
/// them gives the path that its own caller knows, by [`FieldPath::renamed`] and [`Error::map_field`](super::Error::map_field).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldPath {
    steps: Vec<PathStep>,
    text: String,
}

impl FieldPath {
    /// An element of the list at this path.
    #[must_use]
    pub fn element(mut self, index: usize) -> FieldPath {
        self.push(PathStep::Element(index));
        self
    }

    /// A field of the object at this path.
    #[must_use]
    pub fn field(mut self, name: impl Into<Cow<'static, str>>) -> FieldPath {
        self.push(PathStep::Field(name.into()));
        self
    }

    /// Whether this is the path of the field `name` of the input, or of something within it.
    pub fn is_in(&self, name: &str) -> bool {
        matches!(self.steps.first(), Some(PathStep::Field(first)) if first == name)
    }

    /// The index of the element of the list `name` that this is the path of, or of something within it.
    pub fn index_in(&self, name: &str) -> Option<usize> {
        match self.steps.get(1) {
            Some(PathStep::Element(index)) if self.is_in(name) => Some(*index),
            Some(PathStep::Element(_) | PathStep::Field(_)) | None => None,
        }
    }

    /// The path with the field `from` of the input called `to`; itself for other fields.
    #[must_use]
    pub fn renamed(self, from: &str, to: impl Into<FieldPath>) -> FieldPath {
        if self.is_in(from) { self.moved(1, to.into()) } else { self }
    }

    /// The path without its first `count` steps, below `base`.
    #[must_use]
    pub fn moved(self, count: usize, base: FieldPath) -> FieldPath {
        self.steps.into_iter().skip(count).fold(base, |mut path, step| {
            path.push(step);
            path
        })
    }

    /// The path as clients read it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Reads a path as [`FieldPath::as_str`] writes it.
    pub fn parse(text: &str) -> FieldPath {
        let mut path = FieldPath { steps: Vec::new(), text: String::new() };
        for part in text.split('.') {
            let (name, index) = match part.strip_suffix(']').and_then(|part| part.split_once('[')) {
                Some((name, index)) => {
                    (name, index.parse().ok().filter(|number: &usize| number.to_string() == index))
                }
                None => (part, None),
            };
            match index {
                Some(index) => path = path.field(name.to_owned()).element(index),
                None => path = path.field(part.to_owned()),
            }
        }
        path
    }

    fn push(&mut self, step: PathStep) {
        match &step {
            PathStep::Field(name) => {
                if !self.text.is_empty() {
                    self.text.push('.');
                }
                self.text.push_str(name);
            }
            PathStep::Element(index) => self.text.push_str(&format!("[{index}]")),
        }
        self.steps.push(step);
    }
}

/// A field of the input, by its name.
impl From<&'static str> for FieldPath {
    fn from(name: &'static str) -> FieldPath {
        FieldPath { steps: vec![PathStep::Field(name.into())], text: name.to_owned() }
    }
}

impl From<String> for FieldPath {
    fn from(name: String) -> FieldPath {
        FieldPath { text: name.clone(), steps: vec![PathStep::Field(name.into())] }
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_written_and_read_alike() {
        let path = FieldPath::from("documents").element(3).field("text");
        assert_eq!(path.as_str(), "documents[3].text");
        assert_eq!(FieldPath::parse("documents[3].text"), path);
        assert_eq!(FieldPath::parse("cache.ttl"), FieldPath::from("cache").field("ttl"));
        for name in ["a[b]", "a[01]", "a[1][2]", "a]"] {
            assert_eq!(FieldPath::parse(name), FieldPath::from(name));
        }
    }

    #[test]
    fn a_path_is_given_the_name_that_a_caller_knows() {
        let path = FieldPath::from("texts").element(1);
        assert_eq!(path.clone().renamed("texts", "input").as_str(), "input[1]");
        assert_eq!(path.clone().renamed("vectors", "input"), path);
        let base = FieldPath::from("documents").element(7).field("text");
        assert_eq!(path.clone().moved(2, base).as_str(), "documents[7].text");
        assert_eq!((path.index_in("texts"), path.index_in("vectors")), (Some(1), None));
    }
}
