//! A call to an upstream and its reply, as plain values.

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, Stream, StreamExt as _};
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::byte_budget::{ByteBudget, UNCOUNTED_BYTES};
use crate::decompression::{ReplyCoding, decompressed};
use crate::domain::{Credential, KeyHeader};
use crate::error::{Error, Kind, Result};
use crate::sse::begins_events;

/// So many bytes may stand before the first event or member of a body.
const BEGINNING_BYTES_MAX: usize = 1024;

/// What a whole body may hold for each of its bytes: the body, and the answer that is read from it.
const WHOLE_COST: usize = 2;

/// Names in lower case, with their values.
pub type Headers = Vec<(String, Bytes)>;

/// What is asked of an upstream.
#[derive(Debug, Clone)]
pub struct UpstreamCall {
    /// The method, such as `POST`.
    pub method: String,
    /// The path below `/v1`, with its query.
    pub path: String,
    /// The model, which chooses the upstream.
    pub model: Option<String>,
    /// Headers that are passed on.
    pub headers: Headers,
    /// The header in which the upstream expects the operator's key.
    pub key_header: KeyHeader,
    /// What the client sent as its credential; passed on only where the route says so.
    pub credential: Option<Credential>,
    /// The body.
    pub body: Bytes,
    /// Whether only an upstream that sees its clients' credentials may be asked it.
    pub needs_clients_key: bool,
    /// Whether to ask again may do no harm, also where the first attempt may have arrived.
    pub may_repeat: bool,
    /// Whether to wait before asking the same address again; another one is asked at once.
    pub may_wait: bool,
}

/// What an upstream says: its head at once, its body as it comes.
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The headers that a client may see.
    pub headers: Headers,
    /// The lines of `Cache-Group-Invalidation` (RFC 9875), which a client does not see: its groups are not those of other upstreams.
    pub group_invalidation: Vec<Bytes>,
    body: BoxStream<'static, Result<Bytes>>,
    /// When the body breaks off, if ever.
    deadline: Option<Instant>,
    /// What all requests in flight may hold.
    budget: Option<Arc<ByteBudget>>,
}

/// A server that answers calls.
pub trait Origin: Send + Sync {
    /// What the upstream of a model is called, or that of requests which name no model, for fingerprints.
    ///
    /// # Errors
    /// `ModelNotFound` if no upstream serves the model; `NotFound` if there is no upstream.
    fn name(&self, model: Option<&str>) -> Result<Arc<str>>;

    /// Asks, and returns when the head of the reply is there.
    ///
    /// # Errors
    /// `Upstream` if no address could be reached, `Timeout`, `Overloaded` past the limit of calls, `ModelNotFound`, `Loop`. What the
    /// upstream refuses is a reply, not an error.
    ///
    /// Cancel safety: dropping the future, or the reply, ends the call.
    fn ask(&self, call: UpstreamCall) -> BoxFuture<'_, Result<Reply>>;

    /// Whether a route that is not served here may be asked only of an upstream that sees its clients' credentials, since it
    /// is not one of those that a key of ours is used for. `path` is that below `/v1`, as it came.
    ///
    /// # Errors
    /// `NotFound` if it is so, and there is no such upstream.
    fn needs_clients_key(&self, method: &str, path: &str) -> Result<bool>;

    /// The models of all upstreams, as these describe them (OpenAI's model objects). `traces` are the headers of the request that are
    /// forwarded.
    ///
    /// # Errors
    /// As [`Origin::refuse_own`].
    fn models(
        &self,
        credential: Option<Credential>,
        traces: Headers,
    ) -> BoxFuture<'_, Result<Vec<Box<RawValue>>>>;

    /// Refuses a request that this server has sent: to answer it would be a loop.
    ///
    /// # Errors
    /// `Loop`.
    fn refuse_own(&self, headers: &Headers) -> Result<()>;

    /// Calls under way, as a share of those that may be; 1 if the next one is refused.
    fn share_under_way(&self) -> f64;
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("status", &self.status).field("headers", &self.headers).finish()
    }
}

impl Reply {
    /// A reply with a body that comes in pieces.
    pub fn new(status: u16, headers: Headers, body: BoxStream<'static, Result<Bytes>>) -> Reply {
        Reply { status, headers, group_invalidation: Vec::new(), body, deadline: None, budget: None }
    }

    /// The same, with the groups that it invalidates.
    pub(super) fn invalidating(self, group_invalidation: Vec<Bytes>) -> Reply {
        Reply { group_invalidation, ..self }
    }

    /// The same, with a body that is there until `deadline`.
    pub(super) fn lasting_until(self, deadline: Instant) -> Reply {
        Reply { deadline: Some(deadline), ..self }
    }

    /// The same, whose whole body is reserved of `budget`.
    pub(super) fn counted(self, budget: Arc<ByteBudget>) -> Reply {
        Reply { budget: Some(budget), ..self }
    }

    /// The same, with a body that `change` makes of its own.
    pub(super) fn with_body(
        self,
        change: impl FnOnce(BoxStream<'static, Result<Bytes>>) -> BoxStream<'static, Result<Bytes>>,
    ) -> Reply {
        Reply { body: change(self.body), ..self }
    }

    /// Drops the headers that describe the bytes of the body, which a response may write differently.
    pub fn forget_bytes(&mut self) {
        const OF_BYTES: [&str; 9] = [
            "accept-ranges",
            "age",
            "content-digest",
            "content-md5",
            "digest",
            "etag",
            "expires",
            "last-modified",
            "repr-digest",
        ];
        self.headers.retain(|(name, _)| !OF_BYTES.contains(&name.as_str()));
    }

    /// The same with a body that is not compressed, unless in a way that cannot be read here.
    pub fn decoded(mut self) -> Reply {
        match coding_of(&self.headers) {
            None | Some(ReplyCoding::Other) => self,
            Some(coding) => {
                self.headers.retain(|(name, _)| name != "content-encoding");
                self.forget_bytes();
                Reply { body: decompressed(self.body, coding), ..self }
            }
        }
    }

    /// Whether the body is compressed.
    pub fn is_compressed(&self) -> bool {
        coding_of(&self.headers).is_some()
    }

    /// Whether the body begins as a stream of events does, whatever its type is said to be. Nothing of it is lost.
    ///
    /// # Errors
    /// As [`Reply::next`].
    pub async fn begins_events(&mut self) -> Result<bool> {
        let mut begun = BytesMut::new();
        let mut rest = std::mem::replace(&mut self.body, stream::empty().boxed());
        let begins = loop {
            match begins_events(&begun) {
                Some(begins) => break begins,
                None if begun.len() > BEGINNING_BYTES_MAX => break false,
                None => {}
            }
            match rest.next().await.transpose()? {
                Some(bytes) => begun.extend_from_slice(&bytes),
                None => {
                    // What has ended is not asked again.
                    rest = stream::empty().boxed();
                    break false;
                }
            }
        };
        self.body = stream::iter([Ok(begun.freeze())]).chain(rest).boxed();
        Ok(begins)
    }

    /// Whether the status is one of success.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether the body is a stream of events.
    pub fn is_events(&self) -> bool {
        is_events(&self.headers)
    }

    /// The media type of the body, with its parameters. `None` if the reply names none, or one that is no text.
    pub fn content_type(&self) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(name, _)| name == "content-type")?;
        std::str::from_utf8(value).ok()
    }

    /// The next bytes of the body; none at its end.
    ///
    /// # Errors
    /// `Upstream` if the body breaks off, `Timeout` if it takes too long.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        self.body.next().await.transpose()
    }

    /// The whole body. Its bytes, and what is read from them, are reserved for as long as any part of them is used.
    ///
    /// # Errors
    /// As [`Reply::next`]; `Upstream` past `bytes_max`; `Overloaded`, `TooLarge` past the budget of all requests.
    pub async fn whole(&mut self, bytes_max: usize) -> Result<Bytes> {
        let mut whole = BytesMut::new();
        let mut reservation = self.budget.as_ref().map(ByteBudget::empty);
        while let Some(bytes) = self.next().await? {
            if whole.len() + bytes.len() > bytes_max {
                let error = Error::new(Kind::Upstream, "cannot read the upstream's answer: it is too long");
                return Err(error.with("bytes_max", bytes_max));
            }
            whole.extend_from_slice(&bytes);
            if let Some(reservation) = reservation.as_mut().filter(|_| whole.len() > UNCOUNTED_BYTES) {
                reservation.try_cover(whole.capacity().saturating_mul(WHOLE_COST))?;
            }
        }
        let reservation = reservation.filter(|reservation| reservation.bytes() > 0);
        Ok(match reservation {
            Some(reservation) => Arc::new(reservation).hold(whole.freeze()),
            None => whole.freeze(),
        })
    }

    /// The body as it comes, for a reader of any pace. Dropping it closes the connection.
    pub fn into_body(self) -> impl Stream<Item = Result<Bytes>> {
        let (pieces, taken) = mpsc::channel(1);
        tokio::spawn(read_ahead(self.body, self.deadline, pieces));
        stream::unfold(Some(taken), |taken| async move {
            let mut taken = taken?;
            match taken.recv().await {
                Some(Ok(Some(bytes))) => Some((Ok(bytes), Some(taken))),
                Some(Ok(None)) => None,
                Some(Err(error)) => Some((Err(error), None)),
                None => {
                    let message = "the reply was not read while it lasted (upstream.total_ms)";
                    Some((Err(Error::new(Kind::Timeout, message)), None))
                }
            }
        })
    }
}

/// How a body with these headers is compressed; `None` if it is not.
fn coding_of(headers: &Headers) -> Option<ReplyCoding> {
    let lines = headers.iter().filter(|(name, _)| name == "content-encoding");
    ReplyCoding::of(lines.map(|(_, value)| &value[..]))
}

/// Whether the body may be a stream of events: it is named so, or in no way that says more than text.
pub(super) fn may_be_events(headers: &Headers) -> bool {
    let content_type = headers.iter().find(|(name, _)| name == "content-type");
    let is_plain = |(_, value): &(String, Bytes)| value.to_ascii_lowercase().starts_with(b"text/plain");
    is_events(headers) || content_type.is_none_or(is_plain)
}

/// Whether the headers announce a stream of events.
pub(super) fn is_events(headers: &Headers) -> bool {
    let content_type = headers.iter().find(|(name, _)| name == "content-type");
    content_type.is_some_and(|(_, value)| value.to_ascii_lowercase().starts_with(b"text/event-stream"))
}

/// Reads a body to its end, one piece ahead of its reader; the end counts as a piece.
async fn read_ahead(
    mut body: BoxStream<'static, Result<Bytes>>,
    deadline: Option<Instant>,
    pieces: mpsc::Sender<Result<Option<Bytes>>>,
) {
    loop {
        let piece = tokio::select! {
            piece = body.next() => piece.transpose(),
            () = pieces.closed() => return,
        };
        let is_last = !matches!(piece, Ok(Some(_)));
        let taken = pieces.send(piece);
        let is_taken = match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline, taken).await.is_ok_and(|taken| taken.is_ok()),
            None => taken.await.is_ok(),
        };
        if is_last || !is_taken {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn reply(pieces: Vec<Result<Bytes>>) -> Reply {
        Reply::new(200, Headers::new(), stream::iter(pieces).boxed())
    }

    #[tokio::test]
    async fn a_body_is_the_same_however_it_is_read() {
        let pieces = || vec![Ok("a".into()), Ok("b".into()), Err(Error::new(Kind::Upstream, "cut"))];
        let read: Vec<_> = reply(pieces()).into_body().collect().await;
        assert!(matches!(&read[..], [Ok(a), Ok(b), Err(_)] if a == "a" && b == "b"));
        let mut whole = pieces();
        whole.truncate(2);
        let read: Vec<_> = reply(whole).into_body().map(Result::unwrap).collect().await;
        assert_eq!(read, ["a", "b"]);
    }

    #[tokio::test]
    async fn a_body_is_known_by_its_beginning_and_loses_nothing() {
        let cut = || Err(Error::new(Kind::Upstream, "cut"));
        for (pieces, begins) in [
            (vec!["da", "ta: 1\n\n", "data: 2\n\n"], true),
            (vec!["{\"a\"", ":1}"], false),
            (vec!["\n"; 2000], false),
            (vec![], false),
            (vec!["dat"], false),
        ] {
            let whole = pieces.concat();
            let mut reply = reply(pieces.into_iter().map(|piece| Ok(piece.into())).collect());
            assert_eq!(reply.begins_events().await.unwrap(), begins, "{whole}");
            assert_eq!(reply.whole(10_000).await.unwrap(), whole);
        }
        assert!(reply(vec![Ok("d".into()), cut()]).begins_events().await.is_err());
        let mut later = reply(vec![Ok("data:".into()), cut()]);
        assert!(later.begins_events().await.unwrap());
        assert!(later.next().await.unwrap().is_some() && later.next().await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn an_abandoned_body_closes_its_connection() {
        let (held, watch) = tokio::sync::oneshot::channel::<()>();
        let pieces = stream::unfold(held, |held| async move { Some((Ok(Bytes::from("a")), held)) });
        let reply = Reply::new(200, Headers::new(), pieces.boxed())
            .lasting_until(Instant::now() + Duration::from_secs(600));
        let body = reply.into_body();
        watch.await.unwrap_err();
        let read: Vec<_> = body.collect().await;
        assert!(matches!(&read[..], [Ok(_), Err(error)] if error.kind() == Kind::Timeout));
    }
}
