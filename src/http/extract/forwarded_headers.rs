//! Headers of a request that are passed on to its upstream, because the configuration says so.

use axum::http::{HeaderMap, HeaderName};

use crate::error::{Error, Result};

/// The headers of these names, with their values.
///
/// # Errors
/// `InvalidInput` for a value that is not ASCII.
pub(in crate::http) fn forwarded_headers(
    headers: &HeaderMap,
    names: &[HeaderName],
) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for name in names {
        for value in headers.get_all(name) {
            let fault = |_| Error::invalid(name.to_string(), format!("the header {name} must be ASCII"));
            found.push((name.as_str().to_owned(), value.to_str().map_err(fault)?.to_owned()));
        }
    }
    Ok(found)
}
