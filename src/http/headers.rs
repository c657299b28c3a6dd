//! Headers, paths and queries that more than one handler writes or reads.

use std::fmt;
use std::time::Duration;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query};
use axum::http::{HeaderMap, HeaderName};

use crate::domain::Tag;
use crate::error::{Error, Result};

/// RFC 9211.
pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// W3C Server Timing.
pub(super) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// How many texts or queries of a request were found in the cache.
pub(super) const HITS: HeaderName = HeaderName::from_static("x-likewise-hits");
/// How many were worked on for it.
pub(super) const MISSES: HeaderName = HeaderName::from_static("x-likewise-misses");
/// How many were worked on once for several.
pub(super) const COALESCED: HeaderName = HeaderName::from_static("x-likewise-coalesced");

/// A time as Server Timing tells it: milliseconds, to the microsecond.
pub(super) struct Millis(pub(super) Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let microseconds = self.0.as_micros();
        write!(f, "{}.{:03}", microseconds / 1000, microseconds % 1000)
    }
}

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

/// The tags in `x-cache-tags`.
///
/// # Errors
/// `InvalidInput` for what cannot be a tag.
pub(super) fn tags(headers: &HeaderMap) -> Result<Vec<Tag>> {
    let Some(list) = text(headers, "x-cache-tags")? else { return Ok(Vec::new()) };
    let named = |name: &str| Tag::named(name.trim()).ok_or_else(|| Error::invalid("x-cache-tags", Tag::RULE));
    list.split(',').map(named).collect()
}

/// What stands in the path of a request.
///
/// # Errors
/// `InvalidInput` if it is not UTF-8, percent-encoded.
pub(super) fn path<T>(place: Result<Path<T>, PathRejection>, param: &str) -> Result<T> {
    let fault = |rejection| Error::invalid(param, format!("a path is UTF-8, percent-encoded: {rejection}"));
    place.map(|Path(place)| place).map_err(fault)
}

/// What stands behind the question mark of a request.
///
/// # Errors
/// `InvalidInput` if it cannot be read.
pub(super) fn query<T>(query: Result<Query<T>, QueryRejection>, param: &str) -> Result<T> {
    let fault = |rejection: QueryRejection| Error::invalid(param, rejection.body_text());
    query.map(|Query(query)| query).map_err(fault)
}
