//! The body of a request, read up to a limit.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::request::Parts;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use serde::de::DeserializeOwned;

use super::json;
use crate::error::{Error, Kind, Result};
use crate::http::offload::offload;
use crate::http::reservation::own_error;

/// The blocks of a body of unknown length: of one size, so that those of a body that is refused serve the next one.
const BLOCK_BYTES: usize = 64 * 1024;

/// The state of handlers that read bodies.
pub(in crate::http) trait BodyLimit {
    /// The largest body that they take.
    fn body_bytes_max(&self) -> usize;
}

impl<T: BodyLimit> BodyLimit for Arc<T> {
    fn body_bytes_max(&self) -> usize {
        T::body_bytes_max(self)
    }
}

/// The body of a request before it is read: a handler first refuses what it can refuse without it.
pub(in crate::http) struct UnreadBody {
    body: Body,
    bytes_max: usize,
}

/// A request whose body is not read yet.
pub(in crate::http) struct Received {
    pub(in crate::http) head: Parts,
    pub(in crate::http) body: UnreadBody,
}

impl<S: BodyLimit + Sync> FromRequest<S> for UnreadBody {
    type Rejection = Infallible;

    async fn from_request(request: Request, state: &S) -> std::result::Result<UnreadBody, Infallible> {
        Ok(UnreadBody { body: request.into_body(), bytes_max: state.body_bytes_max() })
    }
}

impl<S: BodyLimit + Sync> FromRequest<S> for Received {
    type Rejection = Infallible;

    async fn from_request(request: Request, state: &S) -> std::result::Result<Received, Infallible> {
        let (head, body) = request.into_parts();
        Ok(Received { head, body: UnreadBody { body, bytes_max: state.body_bytes_max() } })
    }
}

impl UnreadBody {
    /// Reads the body.
    ///
    /// # Errors
    /// As [`read`].
    pub(in crate::http) async fn read(self) -> Result<Bytes> {
        read(self.body, self.bytes_max).await
    }

    /// Reads a body of at most so many bytes, and at most as many as any body.
    ///
    /// # Errors
    /// As [`read`].
    pub(in crate::http) async fn read_at_most(self, bytes_max: usize) -> Result<Bytes> {
        read(self.body, self.bytes_max.min(bytes_max)).await
    }

    /// Reads the body and parses it, off the runtime if it is long.
    ///
    /// # Errors
    /// As [`read`], and those of `parse`.
    pub(in crate::http) async fn parse<T: Send + 'static>(
        self,
        parse: impl FnOnce(&[u8]) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let body = self.read().await?;
        offload(body.len(), move || parse(&body)).await?
    }

    /// Reads the body as JSON.
    ///
    /// # Errors
    /// As [`read`] and [`json::parse`].
    pub(in crate::http) async fn json<T: DeserializeOwned + Send + 'static>(self) -> Result<T> {
        self.parse(|body: &[u8]| json::parse(body)).await
    }
}

/// The whole body.
///
/// # Errors
/// `TooLarge` past `bytes_max`; `InvalidInput` if it breaks off; `RequestTimeout` if it comes too slowly.
pub(in crate::http) async fn read(mut body: Body, bytes_max: usize) -> Result<Bytes> {
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
    let rest = body.size_hint().exact().and_then(|rest| usize::try_from(rest).ok());
    let Some(second) = next(&mut body).await? else { return Ok(first) };
    // A declared length is within the limit, and reserved.
    let begun = first.len() + second.len();
    let mut read = Blocks::new(rest.map_or(BLOCK_BYTES.min(2 * begun), |rest| first.len() + rest));
    read.push(first);
    let mut piece = Some(second);
    while let Some(data) = piece {
        if read.length + data.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        read.push(data);
        piece = next(&mut body).await?;
    }
    Ok(read.join())
}

/// Bytes of which it is not known how many come, in blocks that never move. A buffer that doubles would take up to three times
/// its bytes, copies and what is not used yet included.
struct Blocks {
    full: Vec<BytesMut>,
    last: BytesMut,
    length: usize,
}

impl Blocks {
    /// With room for so many bytes.
    fn new(capacity: usize) -> Blocks {
        Blocks { full: Vec::new(), last: BytesMut::with_capacity(capacity), length: 0 }
    }

    fn push(&mut self, mut piece: Bytes) {
        self.length += piece.len();
        loop {
            let room = self.last.capacity() - self.last.len();
            let fitting = piece.split_to(room.min(piece.len()));
            self.last.extend_from_slice(&fitting);
            if piece.is_empty() {
                return;
            }
            let next = BytesMut::with_capacity(BLOCK_BYTES);
            self.full.push(std::mem::replace(&mut self.last, next));
        }
    }

    /// All of them in one piece; of one block without a copy.
    fn join(self) -> Bytes {
        if self.full.is_empty() {
            return self.last.freeze();
        }
        let mut all = Vec::with_capacity(self.length);
        // Each block goes once it is copied.
        for block in self.full.into_iter().chain([self.last]) {
            all.extend_from_slice(&block);
        }
        all.into()
    }
}

/// The connection reads the rest after the answer, since most clients read no answer before they have sent everything.
fn too_large(bytes_max: usize) -> Error {
    Error::new(Kind::TooLarge, format!("the body must have at most {bytes_max} bytes"))
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
    let of_client = |error| Error::new(Kind::InvalidInput, "cannot read the body").source(error);
    own_error(error).unwrap_or_else(of_client)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use std::collections::HashMap;

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit() {
        let pieces = || Body::from_stream(stream::iter(["ab", "c"].map(Ok::<_, Error>)));
        assert_eq!(read(pieces(), 3).await.unwrap(), "abc");
        assert_eq!(read(pieces(), 2).await.unwrap_err().kind(), Kind::TooLarge);
        assert_eq!(read(Body::from("abc"), 2).await.unwrap_err().kind(), Kind::TooLarge);
        assert_eq!(read(Body::empty(), 2).await.unwrap(), "");
    }

    #[tokio::test]
    async fn what_comes_in_pieces_of_any_size_is_joined_in_order() {
        for sizes in [vec![1; 1000], vec![BLOCK_BYTES; 5], vec![BLOCK_BYTES - 1, 2, 300_000, 1, 70_000]] {
            let whole: Vec<u8> = (0..sizes.iter().sum()).map(|n: usize| (n % 251) as u8).collect();
            let mut rest = Bytes::from(whole.clone());
            let pieces: Vec<_> = sizes.iter().map(|size| Ok::<_, Error>(rest.split_to(*size))).collect();
            let joined = read(Body::from_stream(stream::iter(pieces)), whole.len()).await.unwrap();
            assert!(joined == whole, "{} pieces", sizes.len());
        }
    }

    #[tokio::test]
    async fn a_long_body_is_parsed_as_a_short_one() {
        for length in [1, 1 << 20] {
            let list = format!("{{\"a\":{:?}}}", vec![1; length]);
            let body = UnreadBody { bytes_max: list.len(), body: list.into() };
            let parsed: HashMap<String, Vec<u8>> = body.json().await.unwrap();
            assert_eq!(parsed["a"].len(), length);
        }
    }

    #[tokio::test]
    async fn an_error_below_keeps_its_kind() {
        let pieces = [Ok(Bytes::from("a")), Err(Error::new(Kind::RequestTimeout, "too slow"))];
        let error = read(Body::from_stream(stream::iter(pieces)), 10).await.unwrap_err();
        assert_eq!((error.kind(), error.message()), (Kind::RequestTimeout, "too slow"));
    }
}
