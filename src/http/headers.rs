//! Headers, paths and queries that more than one handler writes or reads.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
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

/// The number in a header that may be given once: digits only.
///
/// # Errors
/// `InvalidInput` for anything else, and for a number that is too large for its type.
pub(super) fn number<T>(headers: &HeaderMap, name: &'static str) -> Result<Option<T>>
where
    T: FromStr<Err = ParseIntError>,
{
    let Some(text) = text(headers, name)? else { return Ok(None) };
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Error::invalid(name, format!("the header {name} is a whole number, got {text:?}")));
    }
    let too_large = |_| Error::invalid(name, format!("the number in the header {name} is too large: {text}"));
    text.parse().map(Some).map_err(too_large)
}

/// The tags in `x-cache-tags`, which may be given several times.
///
/// # Errors
/// `InvalidInput` for what cannot be a tag.
pub(super) fn tags(headers: &HeaderMap) -> Result<Vec<Tag>> {
    const NAME: &str = "x-cache-tags";
    let mut tags = Vec::new();
    for line in headers.get_all(NAME) {
        let line = std::str::from_utf8(line.as_bytes())
            .map_err(|error| Error::invalid(NAME, format!("the header {NAME} is not UTF-8")).source(error))?;
        for name in line.split(',') {
            tags.push(Tag::named(name.trim()).ok_or_else(|| Error::invalid(NAME, Tag::RULE))?);
        }
    }
    Ok(tags)
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
