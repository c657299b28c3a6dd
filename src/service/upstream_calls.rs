//! What calls of upstreams for embeddings and scores have in common.

use bytes::Bytes;

use crate::embed::endpoint::{Failure, RefusedReply};
use crate::pacing::retry_after;
use crate::upstream::{Headers, Reply};

/// Bytes of an error that are read.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// The headers of a call with a body in JSON.
pub(super) fn json_headers(forwarded: Vec<(String, String)>, traces: Headers) -> Headers {
    let json = ("content-type".to_owned(), Bytes::from_static(b"application/json"));
    let forwarded = forwarded.into_iter().map(|(name, value)| (name, Bytes::from(value)));
    std::iter::once(json).chain(forwarded).chain(traces).collect()
}

/// The failure of a call that the upstream refuses.
pub(super) async fn refused(mut reply: Reply) -> Failure {
    let header = |name: &str| {
        let (_, value) = reply.headers.iter().find(|(known, _)| known == name)?;
        std::str::from_utf8(value).ok()
    };
    let (wait, status) = (retry_after(header), reply.status);
    let said = reply.whole(ERROR_BYTES_MAX).await.unwrap_or_default();
    RefusedReply::read(status, &said).passed_on(wait)
}
