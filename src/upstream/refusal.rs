//! What an upstream says of this server's key is for its operator, not for clients.
//!
//! Services repeat a part of the key that they refuse (`Incorrect API key provided: sk-…abcd`), name the account that it is of, and say
//! where to get another. Clients have none of it: they cannot help it, and must not learn it.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};

use super::error_filter::{ErrorFilter, is_of_key};
use super::redaction::redacted;
use super::reply::Reply;
use super::routes::{RouteCredential, UpstreamRoute};
use crate::error::{Error, Kind, Result};

/// Statuses by which an upstream refuses who asks, or asks for money.
const REFUSALS: [u16; 4] = [401, 402, 403, 407];

/// Bytes of an error that is read to be looked through.
const ERROR_BYTES_MAX: usize = 1 << 20;
/// Characters of a refusal that are logged.
const LOGGED_CHARS_MAX: usize = 500;

/// The reply as clients may see it.
///
/// # Errors
/// `Upstream` instead of a refusal of this server's key, and for an error that is too long to be looked through; as
/// [`Reply::next`].
pub(super) async fn looked_through(route: &Arc<UpstreamRoute>, mut reply: Reply) -> Result<Reply> {
    let key = match &route.key {
        RouteCredential::Clients => return Ok(reply),
        RouteCredential::None => None,
        RouteCredential::Operators(_) => route.key.secret(),
    };
    match key {
        _ if REFUSALS.contains(&reply.status) => {
            let said = reply.whole(ERROR_BYTES_MAX).await.unwrap_or_default();
            Err(refused(route, reply.status, &said))
        }
        Some(key) if !reply.is_success() => {
            let said = reply.whole(ERROR_BYTES_MAX).await?;
            if is_of_key(&said) {
                return Err(refused(route, reply.status, &said));
            }
            Ok(without_key(reply, said, key))
        }
        // An upstream may succeed with an error, or end a stream with one.
        Some(key) => {
            let (own_route, status) = (Arc::clone(route), reply.status);
            let filter = ErrorFilter::new(key, &reply.headers, move |said| refused(&own_route, status, said));
            Ok(reply.with_body(|body| filtered(body, filter)))
        }
        None => Ok(reply),
    }
}

/// Logs what the upstream said, and returns the error for clients.
fn refused(route: &UpstreamRoute, status: u16, said: &[u8]) -> Error {
    let said = String::from_utf8_lossy(said);
    let said = route.key.secret().map_or(said.clone().into_owned(), |key| said.replace(key, "***"));
    let said: String = said.chars().take(LOGGED_CHARS_MAX).collect();
    if route.may_warn() {
        let upstream = &*route.name;
        tracing::error!(upstream, status, said, "an upstream refuses this server's key");
    }
    let message = match route.key {
        RouteCredential::None => "the upstream refuses this server, which has no key for it",
        RouteCredential::Operators(_) | RouteCredential::Clients => {
            "the upstream refused this server's key or account"
        }
    };
    Error::new(Kind::Upstream, message)
}

fn without_key(mut reply: Reply, body: Bytes, key: &str) -> Reply {
    // Bytes that are no text show no key to a reader of text.
    let without = std::str::from_utf8(&body).ok().and_then(|text| redacted(text, key)).map(Bytes::from);
    let is_clean = |value: &Bytes| std::str::from_utf8(value).is_ok_and(|text| redacted(text, key).is_none());
    reply.headers.retain(|(_, value)| is_clean(value));
    let whole = stream::once(std::future::ready(Ok(without.unwrap_or(body))));
    Reply::new(reply.status, reply.headers, Box::pin(whole))
}

/// A body without the key, and without errors about it, as it arrives.
fn filtered(
    body: BoxStream<'static, Result<Bytes>>,
    filter: ErrorFilter,
) -> BoxStream<'static, Result<Bytes>> {
    let pieces = stream::unfold(Some((body, filter, None)), |state| async move {
        let (mut body, mut filter, fault) = state?;
        if let Some(fault) = fault {
            return Some((Err(fault), None));
        }
        match body.next().await {
            Some(Ok(piece)) => match filter.push(piece) {
                Ok(clean) => Some((Ok(clean), Some((body, filter, None)))),
                Err(refused) => Some((Err(refused), None)),
            },
            // The bytes that arrived before a break are passed on before it.
            Some(Err(fault)) => Some((filter.rest(), Some((body, filter, Some(fault))))),
            None => Some((filter.rest(), None)),
        }
    });
    let is_some = |piece: &Result<Bytes>| !piece.as_ref().is_ok_and(Bytes::is_empty);
    pieces.filter(move |piece| std::future::ready(is_some(piece))).boxed()
}
