//! Which members of documents a response has.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::error::{Error, Result};
use crate::http::error_response::Problem;
use crate::http::extract::json::shortened;
use crate::http::extract::query::QueryFields;

/// The members of documents that a response has besides the id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Include {
    pub(super) text: bool,
    pub(super) metadata: bool,
    pub(super) tags: bool,
    pub(super) vector: bool,
}

impl Default for Include {
    fn default() -> Include {
        Include { text: true, metadata: true, tags: true, vector: false }
    }
}

impl Include {
    /// The members of a list. `vector` is added to the others, which are all of them unless the list names one.
    ///
    /// # Errors
    /// `InvalidInput` at `include` for an unknown name.
    pub(super) fn read(list: &str) -> Result<Include> {
        let mut named = Include { text: false, metadata: false, tags: false, vector: false };
        let mut is_id_named = false;
        for name in list.split(',').filter(|_| !list.is_empty()) {
            match name {
                "id" => is_id_named = true,
                "text" => named.text = true,
                "metadata" => named.metadata = true,
                "tags" => named.tags = true,
                "vector" => named.vector = true,
                _ => {
                    let name = shortened(name);
                    let message = format!(
                        "include lists id, text, metadata, tags and vector, separated by commas, got {name:?}"
                    );
                    return Err(Error::invalid("include", message));
                }
            }
        }
        if is_id_named || named.text || named.metadata || named.tags {
            return Ok(named);
        }
        Ok(Include { vector: named.vector, ..Include::default() })
    }
}

impl<S: Sync> FromRequestParts<S> for Include {
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<Include, Problem> {
        let fields = QueryFields::read(head, &["include"])?;
        Ok(Include::read(fields.text("include").unwrap_or_default())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_is_added_to_the_members_that_are_named_or_to_all() {
        let read = |list| {
            let Include { text, metadata, tags, vector } = Include::read(list).unwrap();
            [text, metadata, tags, vector]
        };
        assert_eq!(read(""), [true, true, true, false]);
        assert_eq!(read("vector"), [true, true, true, true]);
        assert_eq!(read("text"), [true, false, false, false]);
        assert_eq!(read("metadata,vector,metadata"), [false, true, false, true]);
        assert_eq!(read("id"), [false, false, false, false]);
        assert_eq!(read("id,vector"), [false, false, false, true]);
        for wrong in ["all", "text,", " text", "text vector", ","] {
            assert_eq!(Include::read(wrong).unwrap_err().param_name(), Some("include"), "{wrong}");
        }
    }
}
