//! The credential of a client.

use axum::http::HeaderMap;

use crate::domain::Credential;

/// The credential that a request came with.
pub(in crate::http) fn credential(headers: &HeaderMap) -> Option<Credential> {
    Credential::of(headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())))
}
