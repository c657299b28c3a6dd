//! The content types and codings of objects.

use crate::domain::ContentCoding;
use crate::error::{Error, Kind};

/// The content type of an object that was put without one.
pub(super) const DEFAULT_CONTENT_TYPE: &str = "application/octet-stream";

/// The fault of a coding that is not kept.
pub(super) fn unknown_coding(param: &'static str, name: &str) -> Error {
    let known = ContentCoding::ALL.map(ContentCoding::as_str).join(", ");
    let message = format!("the content coding is one of {known}, got {name:?}");
    Error::new(Kind::UnsupportedCoding, message).param(param)
}
