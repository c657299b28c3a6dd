//! Filters on metadata: what they mean. `fields.rs` answers them for many rows at once.

use std::ops::{Bound, RangeBounds as _};

use super::document::DocumentRef;
use super::scalar::Scalar;
use super::values::Values;

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
