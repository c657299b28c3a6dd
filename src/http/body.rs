//! Reads a request's body, up to a limit.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;

use super::inflight::own_error;
use crate::error::{Error, Kind, Result};

/// The whole body.
///
/// # Errors
/// `TooLarge` past `bytes_max`; `InvalidInput` if it breaks off; `RequestTimeout` if it comes too slowly.
pub(super) async fn read(mut body: Body, bytes_max: usize) -> Result<Bytes> {
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large(bytes_max));
    }
    let Some(first) = next(&mut body).await? else { return Ok(Bytes::new()) };
    if first.len() > bytes_max {
        return Err(too_large(bytes_max));
    }
    // Most bodies are one piece, which is not copied.
    if body.is_end_stream() {
        return Ok(first);
    }
    let Some(second) = next(&mut body).await? else { return Ok(first) };
    let mut read = BytesMut::from(first);
    let mut data = Some(second);
    while let Some(piece) = data {
        if read.len() + piece.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        read.extend_from_slice(&piece);
        data = next(&mut body).await?;
    }
    Ok(read.freeze())
}

/// The connection reads the rest after the answer, since most clients read no answer before they have sent everything.
fn too_large(bytes_max: usize) -> Error {
    Error::new(Kind::TooLarge, format!("the body is larger than {bytes_max} bytes"))
}

/// The next bytes; none at the end.
async fn next(body: &mut Body) -> Result<Option<Bytes>> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(broken)?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// A body that ended in an error: of the client's connection, or of this server.
fn broken(error: axum::Error) -> Error {
    let of_client = |error| Error::new(Kind::InvalidInput, "read the body").source(error);
    own_error(error).unwrap_or_else(of_client)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit() {
        let pieces = || Body::from_stream(stream::iter(["ab", "c"].map(Ok::<_, Error>)));
        assert_eq!(read(pieces(), 3).await.unwrap(), "abc");
        assert_eq!(read(pieces(), 2).await.unwrap_err().kind(), Kind::TooLarge);
        assert_eq!(read(Body::from("abc"), 2).await.unwrap_err().kind(), Kind::TooLarge);
        assert_eq!(read(Body::empty(), 2).await.unwrap(), "");
    }

    #[tokio::test]
    async fn an_error_below_keeps_its_kind() {
        let pieces = [Ok(Bytes::from("a")), Err(Error::new(Kind::RequestTimeout, "too slow"))];
        let error = read(Body::from_stream(stream::iter(pieces)), 10).await.unwrap_err();
        assert_eq!((error.kind(), error.message()), (Kind::RequestTimeout, "too slow"));
    }
}
