//! The name of a model in a request.

use crate::error::{Error, Result};

/// Bytes of a model's name in a request. Published names stay below 100; a longer one would be repeated in answers and
/// errors.
pub(super) const MODEL_NAME_BYTES_MAX: usize = 256;

/// Refuses a model's name that no model has.
///
/// # Errors
/// `InvalidInput`.
pub(in crate::http) fn check_model_name(name: &str) -> Result<()> {
    if name.len() <= MODEL_NAME_BYTES_MAX {
        return Ok(());
    }
    let message =
        format!("a model's name must have at most {MODEL_NAME_BYTES_MAX} bytes, got {}", name.len());
    Err(Error::invalid("model", message))
}
