//! Paths and queries of requests.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query};

use crate::error::{Error, Result};

/// What stands in the path of a request.
///
/// # Errors
/// `InvalidInput` if it is not UTF-8, percent-encoded.
pub(in crate::http) fn path<T>(place: Result<Path<T>, PathRejection>, param: &str) -> Result<T> {
    let fault = |rejection| Error::invalid(param, format!("a path is UTF-8, percent-encoded: {rejection}"));
    place.map(|Path(place)| place).map_err(fault)
}

/// What stands behind the question mark of a request.
///
/// # Errors
/// `InvalidInput` if it cannot be read.
pub(in crate::http) fn query<T>(query: Result<Query<T>, QueryRejection>, param: &str) -> Result<T> {
    let fault = |rejection: QueryRejection| Error::invalid(param, rejection.body_text());
    query.map(|Query(query)| query).map_err(fault)
}
