//! Reads a request's body, up to a limit.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;

use super::inflight::own_error;
use crate::error::{Error, Kind, Result};

/// Of a body that is too large, so many bytes are read and dropped: most clients read no answer before they have sent
/// everything. Beyond them the connection is cut.
const DISCARDED_BYTES_MAX: u64 = 64 * 1024 * 1024;
const DISCARDED_WITHIN: Duration = Duration::from_secs(5);

/// How long a client may be silent amid a body: meanwhile it holds a place that others want.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// The whole body.
///
/// # Errors
/// `TooLarge` past `bytes_max`; `InvalidInput` if it breaks off; `RequestTimeout` if it stops coming.
pub(super) async fn read(mut body: Body, bytes_max: usize) -> Result<Bytes> {
    let stated = hyper::body::Body::size_hint(&body).lower();
    if stated > bytes_max as u64 {
        return Err(too_large(&mut body, bytes_max).await);
    }
    let mut read = BytesMut::new();
    while let Some(data) = next(&mut body).await? {
        if read.len() + data.len() > bytes_max {
            return Err(too_large(&mut body, bytes_max).await);
        }
        if data.len() as u64 == stated {
            return Ok(data);
        }
        read.extend_from_slice(&data);
    }
    Ok(read.freeze())
}

/// If the client goes on sending for longer than what is read here, it may not see the answer.
async fn too_large(body: &mut Body, bytes_max: usize) -> Error {
    let _ = tokio::time::timeout(DISCARDED_WITHIN, discard(body)).await;
    Error::new(Kind::TooLarge, format!("the body is larger than {bytes_max} bytes"))
}

async fn discard(body: &mut Body) -> Result<()> {
    let mut discarded = 0;
    while let Some(data) = next(body).await? {
        discarded += data.len() as u64;
        if discarded > DISCARDED_BYTES_MAX {
            break;
        }
    }
    Ok(())
}

/// The next bytes; none at the end.
async fn next(body: &mut Body) -> Result<Option<Bytes>> {
    let silent = |_| {
        let seconds = SILENCE_MAX.as_secs();
        Error::new(Kind::RequestTimeout, format!("nothing more of the body has come for {seconds} s"))
    };
    while let Some(frame) = tokio::time::timeout(SILENCE_MAX, body.frame()).await.map_err(silent)? {
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
    use futures_util::stream::{self, StreamExt as _};

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_coming_is_not_waited_for() {
        let begun = stream::iter([Ok::<_, Error>(Bytes::from("{"))]);
        let body = Body::from_stream(begun.chain(stream::pending()));
        assert_eq!(read(body, 100).await.unwrap_err().kind(), Kind::RequestTimeout);
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit() {
        let pieces = || Body::from_stream(stream::iter(["ab", "c"].map(Ok::<_, Error>)));
        assert_eq!(read(pieces(), 3).await.unwrap(), "abc");
        assert_eq!(read(pieces(), 2).await.unwrap_err().kind(), Kind::TooLarge);
        assert_eq!(read(Body::from("abc"), 2).await.unwrap_err().kind(), Kind::TooLarge);
        assert_eq!(read(Body::empty(), 2).await.unwrap(), "");
    }
}
