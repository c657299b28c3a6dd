//! Headers that identify a request on its way through several servers.

use axum::http::HeaderMap;
use bytes::Bytes;

use crate::upstream::Headers;

/// They do not change the answer.
const NAMES: [&str; 5] = ["traceparent", "tracestate", "baggage", "via", "x-client-request-id"];

/// The trace headers of a request, which its upstream gets too.
pub(in crate::http) fn trace_headers(headers: &HeaderMap) -> Headers {
    let values = |name| headers.get_all(name).iter().map(move |value| (name, value));
    let found = NAMES.into_iter().flat_map(values);
    found.map(|(name, value)| (name.to_owned(), Bytes::copy_from_slice(value.as_bytes()))).collect()
}
