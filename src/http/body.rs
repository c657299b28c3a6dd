//! Reads a request's body, up to a limit.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;

use crate::error::{Error, Kind, Result};

/// Of a body that is too large, so many bytes are read and dropped: most clients read no answer before they have sent
/// everything. Beyond them the connection is cut.
const DISCARDED_BYTES_MAX: u64 = 64 * 1024 * 1024;
const DISCARDED_WITHIN: Duration = Duration::from_secs(5);

/// The whole body.
///
/// # Errors
/// `TooLarge` past `bytes_max`; `InvalidInput` if it breaks off.
pub(super) async fn read(mut body: Body, bytes_max: usize) -> Result<Bytes> {
    let stated = hyper::body::Body::size_hint(&body).lower();
    let mut read = BytesMut::new();
    while let Some(data) = next(&mut body).await? {
        if stated > bytes_max as u64 || read.len() + data.len() > bytes_max {
            // If the client goes on sending for longer, it may not see the answer.
            let _ = tokio::time::timeout(DISCARDED_WITHIN, discard(&mut body)).await;
            return Err(Error::new(Kind::TooLarge, format!("the body is larger than {bytes_max} bytes")));
        }
        if data.len() as u64 == stated {
            return Ok(data);
        }
        read.extend_from_slice(&data);
    }
    Ok(read.freeze())
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
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Error::new(Kind::InvalidInput, "read the body").source(error))?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}
