//! Headers of requests that more than one handler reads.

use std::num::ParseIntError;
use std::str::FromStr;

use axum::http::HeaderMap;

use super::cache_groups;
use crate::domain::Tag;
use crate::error::{Error, Result};

/// Characters that an answer's identity in the words of its client may have.
const CACHE_KEY_BYTES_MAX: usize = 256;

/// The text of a header that may be given once.
///
/// # Errors
/// `InvalidInput` if it is given twice or is not UTF-8.
pub(in crate::http) fn text<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Error::invalid(name, format!("the header {name} must be given once")));
    }
    let text = std::str::from_utf8(value.as_bytes());
    text.map(|text| Some(text.trim()))
        .map_err(|error| Error::invalid(name, format!("the header {name} must be UTF-8")).source(error))
}

/// The number in a header that may be given once: digits only.
///
/// # Errors
/// `InvalidInput` for anything else, and for a number that is too large for its type.
pub(in crate::http) fn number<T>(headers: &HeaderMap, name: &'static str) -> Result<Option<T>>
where
    T: FromStr<Err = ParseIntError>,
{
    let Some(text) = text(headers, name)? else { return Ok(None) };
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Error::invalid(name, format!("the header {name} must be a whole number, got {text:?}")));
    }
    let too_large = |_| Error::invalid(name, format!("the number in the header {name} is too large: {text}"));
    text.parse().map(Some).map_err(too_large)
}

/// The whole seconds, at least one, in a header that may be given once. More than can be counted are as many as can be.
///
/// # Errors
/// `InvalidInput` for anything else.
pub(super) fn seconds(headers: &HeaderMap, name: &'static str) -> Result<Option<u32>> {
    let Some(text) = text(headers, name)? else { return Ok(None) };
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = is_number.then(|| text.parse().unwrap_or(u32::MAX)).filter(|seconds| *seconds > 0);
    let message = || format!("the header {name} must be a whole number of seconds, at least 1, got {text:?}");
    seconds.map(Some).ok_or_else(|| Error::invalid(name, message()))
}

/// The identity of an answer in a header that may be given once.
///
/// # Errors
/// `InvalidInput` for no, too many, or other characters than visible ASCII.
pub(super) fn cache_key(headers: &HeaderMap, name: &'static str) -> Result<Option<String>> {
    let Some(text) = text(headers, name)? else { return Ok(None) };
    let is_key =
        (1..=CACHE_KEY_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    let message =
        || format!("the header {name} must have 1 to {CACHE_KEY_BYTES_MAX} visible ASCII characters");
    is_key.then(|| Some(text.to_owned())).ok_or_else(|| Error::invalid(name, message()))
}

/// Whether a header that may be given once says `true`.
///
/// # Errors
/// `InvalidInput` for anything but `true` and `false`.
pub(in crate::http) fn flag(headers: &HeaderMap, name: &'static str) -> Result<Option<bool>> {
    let Some(text) = text(headers, name)? else { return Ok(None) };
    let fault = |_| Error::invalid(name, format!("the header {name} must be true or false, got {text:?}"));
    text.to_ascii_lowercase().parse().map(Some).map_err(fault)
}

/// The tags in `x-cache-tags`, which may be given several times, and in `Cache-Groups`.
///
/// # Errors
/// `InvalidInput` for what cannot be a tag.
pub(in crate::http) fn tags(headers: &HeaderMap) -> Result<Vec<Tag>> {
    const NAME: &str = "x-cache-tags";
    let mut tags = Vec::new();
    for line in headers.get_all(NAME) {
        let line = std::str::from_utf8(line.as_bytes()).map_err(|error| {
            Error::invalid(NAME, format!("the header {NAME} must be UTF-8")).source(error)
        })?;
        for name in line.split(',') {
            tags.push(Tag::named(name.trim()).ok_or_else(|| Error::invalid(NAME, Tag::RULE))?);
        }
    }
    tags.extend(cache_groups::tags(headers)?);
    Ok(tags)
}
