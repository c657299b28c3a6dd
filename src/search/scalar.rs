//! Values of metadata as filters compare them.

use std::cmp::Ordering;

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
    pub(super) fn bytes(&self) -> usize {
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

/// A number as filters compare it: there is one zero.
pub fn number(value: f64) -> Scalar {
    Scalar::Number(value + 0.0)
}
