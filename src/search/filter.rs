//! Filters on metadata: what they mean. `fields.rs` answers them for many rows at once.

use std::cmp::Ordering;
use std::ops::{Bound, RangeBounds as _};

use super::document::DocumentRef;
use super::values::Values;

/// A value that filters compare. Values of different kinds are never equal, and not in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// true or false.
    Bool(bool),
    /// A number, compared as f64; never NaN.
    Number(f64),
    /// A text, compared byte by byte: dates of ISO 8601 stand in their order.
    Text(String),
}

impl Scalar {
    fn bytes(&self) -> usize {
        let text = match self {
            Scalar::Bool(_) | Scalar::Number(_) => 0,
            Scalar::Text(text) => text.len(),
        };
        size_of::<Scalar>() + text
    }

    fn kind(&self) -> u8 {
        match self {
            Scalar::Bool(_) => 0,
            Scalar::Number(_) => 1,
            Scalar::Text(_) => 2,
        }
    }

    /// Whether two values can be ordered against each other.
    pub fn is_like(&self, other: &Scalar) -> bool {
        self.kind() == other.kind()
    }
}

impl Eq for Scalar {}

impl Ord for Scalar {
    /// By kind, then by value. `-0.0` and `0.0` are made one before they come here.
    fn cmp(&self, other: &Scalar) -> Ordering {
        match (self, other) {
            (Scalar::Bool(own), Scalar::Bool(other)) => own.cmp(other),
            (Scalar::Number(own), Scalar::Number(other)) => own.total_cmp(other),
            (Scalar::Text(own), Scalar::Text(other)) => own.cmp(other),
            _ => self.kind().cmp(&other.kind()),
        }
    }
}

impl PartialOrd for Scalar {
    fn partial_cmp(&self, other: &Scalar) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn of_bound(bound: &Bound<Scalar>) -> usize {
    match bound {
        Bound::Included(value) | Bound::Excluded(value) => value.bytes(),
        Bound::Unbounded => 0,
    }
}

/// Which documents are meant.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// Those that all of these mean.
    All(Vec<Filter>),
    /// Those that any of these means.
    Any(Vec<Filter>),
    /// Those that this does not mean; also those without the field.
    Not(Box<Filter>),
    /// Those with a field, of which one value at least passes. Fields of nested objects are called `outer.inner`.
    Field(String, Test),
    /// Those that carry one of these tags.
    Tagged(Vec<String>),
}

/// What a value must be.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// One of these.
    In(Vec<Scalar>),
    /// Between these, which are of one kind.
    Range(Bound<Scalar>, Bound<Scalar>),
    /// Anything that can be compared.
    Exists,
}

impl Test {
    fn bytes(&self) -> usize {
        match self {
            Test::In(values) => values.iter().map(Scalar::bytes).sum(),
            Test::Range(from, to) => [from, to].into_iter().map(of_bound).sum(),
            Test::Exists => 0,
        }
    }

    /// Whether one value passes.
    pub(super) fn passes(&self, value: &Scalar) -> bool {
        match self {
            Test::In(values) => values.contains(value),
            Test::Exists => true,
            Test::Range(from, to) => {
                let is_like = |bound: &Bound<Scalar>| match bound {
                    Bound::Included(limit) | Bound::Excluded(limit) => limit.is_like(value),
                    Bound::Unbounded => true,
                };
                is_like(from) && is_like(to) && (from.as_ref(), to.as_ref()).contains(value)
            }
        }
    }
}

impl Filter {
    /// About what it takes of memory.
    pub(super) fn bytes(&self) -> usize {
        let inner = match self {
            Filter::All(filters) | Filter::Any(filters) => filters.iter().map(Filter::bytes).sum(),
            Filter::Not(filter) => filter.bytes(),
            Filter::Field(name, test) => name.len() + test.bytes(),
            Filter::Tagged(tags) => tags.iter().map(|tag| tag.len() + size_of::<String>()).sum(),
        };
        size_of::<Filter>() + inner
    }

    /// How much there is to look at: tests, and the values that they name.
    pub(super) fn len(&self) -> usize {
        match self {
            Filter::All(filters) | Filter::Any(filters) => 1 + filters.iter().map(Filter::len).sum::<usize>(),
            Filter::Not(filter) => 1 + filter.len(),
            Filter::Field(_, Test::In(values)) => 1 + values.len(),
            Filter::Field(..) => 1,
            Filter::Tagged(tags) => 1 + tags.len(),
        }
    }

    /// Whether the document with these values is meant.
    pub(super) fn means(&self, document: &DocumentRef<'_>, values: &Values) -> bool {
        match self {
            Filter::All(filters) => filters.iter().all(|filter| filter.means(document, values)),
            Filter::Any(filters) => filters.iter().any(|filter| filter.means(document, values)),
            Filter::Not(filter) => !filter.means(document, values),
            Filter::Field(field, test) => values.of_field(field).any(|value| test.passes(value)),
            Filter::Tagged(tags) => document.tags().any(|tag| tags.iter().any(|known| known == tag)),
        }
    }
}

/// A number as filters compare it: there is one zero.
pub fn number(value: f64) -> Scalar {
    Scalar::Number(value + 0.0)
}
