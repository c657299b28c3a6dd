//! The names that clients know the fields of use cases by.

use crate::error::{Error, FieldPath};

/// Fields of the input of a use case, each with its path in the requests of a route.
pub(in crate::http) struct FieldNames(pub(in crate::http) &'static [(&'static str, &'static str)]);

impl FieldNames {
    /// The error of a use case, as the clients of the route read it.
    pub(in crate::http) fn apply(&self, error: Error) -> Error {
        error.map_field(|field| match self.0.iter().find(|(name, _)| field.is_in(name)) {
            Some((name, path)) => field.renamed(name, FieldPath::parse(path)),
            None => field,
        })
    }
}
