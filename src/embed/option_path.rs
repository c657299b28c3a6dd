//! How errors about options name them.

use crate::error::FieldPath;

/// An option of the module, such as `embed.tokens_max`. Who loads one of several models gives it the name that it has there.
pub(super) fn option_path(key: &'static str) -> FieldPath {
    FieldPath::from("embed").field(key)
}
