//! Headers of responses that more than one handler writes.

use std::fmt;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::cache::Propagation;
use crate::upstream::Headers;

/// RFC 9211.
pub(in crate::http) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// Why the cache was bypassed, or a reply is not stored.
pub(in crate::http) const REASON: HeaderName = HeaderName::from_static("x-likewise-reason");
/// RFC 9875.
pub(in crate::http) const CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");
/// W3C Server Timing.
pub(in crate::http) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// How many texts or queries of a request were found in the cache.
pub(in crate::http) const HITS: HeaderName = HeaderName::from_static("x-likewise-hits");
/// How many were worked on for it.
pub(in crate::http) const MISSES: HeaderName = HeaderName::from_static("x-likewise-misses");
/// How many were worked on once for several.
pub(in crate::http) const COALESCED: HeaderName = HeaderName::from_static("x-likewise-coalesced");

/// That a change waits until other nodes can be reached.
const PROPAGATION: HeaderName = HeaderName::from_static("x-likewise-propagation");

/// Says of a change that it waits, if it does.
pub(in crate::http) fn describe_propagation(propagation: Propagation, headers: &mut HeaderMap) {
    if propagation == Propagation::Pending {
        headers.insert(PROPAGATION, HeaderValue::from_static(propagation.as_str()));
    }
}

/// A time in the form of Server Timing: milliseconds, to the microsecond.
pub(in crate::http) struct Millis(pub(in crate::http) Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let microseconds = self.0.as_micros();
        write!(f, "{}.{:03}", microseconds / 1000, microseconds % 1000)
    }
}

/// Adds headers of an upstream's reply.
pub(in crate::http) fn append_all(from: &Headers, headers: &mut HeaderMap) {
    for (name, value) in from {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
}
