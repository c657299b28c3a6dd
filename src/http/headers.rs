//! Headers that more than one handler writes or reads.

use axum::http::{HeaderMap, HeaderName};

use crate::error::{Error, Result};

/// RFC 9211.
pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// W3C Server Timing.
pub(super) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// The text of a header that may be given once.
///
/// # Errors
/// `InvalidInput` if it is given twice or is not UTF-8.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Error::invalid(name, format!("the header {name} is given twice")));
    }
    let text = std::str::from_utf8(value.as_bytes());
    text.map(|text| Some(text.trim()))
        .map_err(|error| Error::invalid(name, format!("the header {name} is not UTF-8")).source(error))
}

/// The number in a header that may be given once.
///
/// # Errors
/// `InvalidInput` if it is anything but a number of the type.
pub(super) fn number<T: std::str::FromStr>(headers: &HeaderMap, name: &'static str) -> Result<Option<T>> {
    let Some(text) = text(headers, name)? else { return Ok(None) };
    let fault = |_| Error::invalid(name, format!("the header {name} is a whole number, got {text:?}"));
    text.parse().map(Some).map_err(fault)
}
