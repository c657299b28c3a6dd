//! Reads a request's body, up to a limit.

use axum::body::Body;
use bytes::Bytes;

use crate::error::{Error, Kind, Result};

type LengthLimitError = http_body_util::LengthLimitError;

/// The whole body.
///
/// # Errors
/// `TooLarge` past `bytes_max`, before the rest is read; `InvalidInput` if it breaks off.
pub(super) async fn read(body: Body, bytes_max: usize) -> Result<Bytes> {
    let too_large = || Error::new(Kind::TooLarge, format!("the body is larger than {bytes_max} bytes"));
    if hyper::body::Body::size_hint(&body).lower() > bytes_max as u64 {
        return Err(too_large());
    }
    axum::body::to_bytes(body, bytes_max).await.map_err(|error| {
        let is_limit = std::error::Error::source(&error).is_some_and(|cause| cause.is::<LengthLimitError>());
        if is_limit { too_large() } else { Error::new(Kind::InvalidInput, "read the body").source(error) }
    })
}
