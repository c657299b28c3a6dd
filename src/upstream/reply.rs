//! A call to an upstream and its reply, as plain values.

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt as _};
use serde_json::value::RawValue;

use crate::error::{Error, Kind, Result};

/// Names in lower case, with their values.
pub type Headers = Vec<(String, Bytes)>;

/// What is asked of an upstream.
#[derive(Debug, Clone)]
pub struct Call {
    /// The method, such as `POST`.
    pub method: String,
    /// The path below `/v1`, with its query.
    pub path: String,
    /// The model, which chooses the upstream.
    pub model: Option<String>,
    /// Headers that are passed on.
    pub headers: Headers,
    /// What the client sent as its credential; passed on only where the route says so.
    pub credential: Option<Bytes>,
    /// The body.
    pub body: Bytes,
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
    body: BoxStream<'static, Result<Bytes>>,
}

/// Whoever answers calls.
pub trait Origin: Send + Sync {
    /// What the upstream of a model is called, for fingerprints.
    ///
    /// # Errors
    /// `ModelNotFound` if nobody answers the model.
    fn name(&self, model: &str) -> Result<Arc<str>>;

    /// Asks, and returns when the head of the reply is there.
    ///
    /// # Errors
    /// `Upstream` if nobody could be reached, `Timeout`, `Overloaded` past the limit of calls, `ModelNotFound`. What the
    /// upstream refuses is a reply, not an error.
    ///
    /// Cancel safety: dropping the future, or the reply, ends the call.
    fn ask(&self, call: Call) -> BoxFuture<'_, Result<Reply>>;

    /// The models that can be asked for, as whoever answers them describes them (OpenAI's model objects).
    fn models(&self, credential: Option<Bytes>) -> BoxFuture<'_, Vec<Box<RawValue>>>;
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("status", &self.status).field("headers", &self.headers).finish()
    }
}

impl Reply {
    /// A reply with a body that comes in pieces.
    pub fn new(status: u16, headers: Headers, body: BoxStream<'static, Result<Bytes>>) -> Reply {
        Reply { status, headers, body }
    }

    /// Whether the status is one of success.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether the body is a stream of events.
    pub fn is_events(&self) -> bool {
        let content_type = self.headers.iter().find(|(name, _)| name == "content-type");
        content_type.is_some_and(|(_, value)| value.to_ascii_lowercase().starts_with(b"text/event-stream"))
    }

    /// The next bytes of the body; none at its end.
    ///
    /// # Errors
    /// `Upstream` if the body breaks off, `Timeout` if it takes too long.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        self.body.next().await.transpose()
    }

    /// The whole body.
    ///
    /// # Errors
    /// As [`Reply::next`]; `Upstream` past `bytes_max`.
    pub async fn whole(&mut self, bytes_max: usize) -> Result<Bytes> {
        let mut whole = BytesMut::new();
        while let Some(bytes) = self.next().await? {
            if whole.len() + bytes.len() > bytes_max {
                let error = Error::new(Kind::Upstream, "read the upstream's answer: it is too long");
                return Err(error.with("bytes_max", bytes_max));
            }
            whole.extend_from_slice(&bytes);
        }
        Ok(whole.freeze())
    }

    /// The body as it comes.
    pub fn into_body(self) -> BoxStream<'static, Result<Bytes>> {
        self.body
    }
}
