//! Paths and queries of requests.

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// The parameters in the path of a request. `param` is the one that a fault is about.
///
/// # Errors
/// `InvalidInput` if it is not UTF-8, percent-encoded.
pub(in crate::http) async fn path<T: DeserializeOwned + Send>(
    head: &mut Parts,
    param: &'static str,
) -> Result<T> {
    let fault =
        |rejection| Error::invalid(param, format!("the path must be percent-encoded UTF-8: {rejection}"));
    let Path(parameters) = Path::from_request_parts(head, &()).await.map_err(fault)?;
    Ok(parameters)
}

/// The parameters behind the question mark of a request. `param` is the one that a fault is about.
///
/// # Errors
/// `InvalidInput` if they cannot be read.
pub(super) fn query<T: DeserializeOwned>(head: &Parts, param: &'static str) -> Result<T> {
    let fault =
        |rejection: axum::extract::rejection::QueryRejection| Error::invalid(param, rejection.body_text());
    let Query(parameters) = Query::try_from_uri(&head.uri).map_err(fault)?;
    Ok(parameters)
}
